//! "Restore DB from backup": which backup serves what is asked for, and what is refused before anything is
//! touched.

use crate::sightings::{heard_of, leads, on_disk, says, serves};
use crate::{FIRST_START, fine, read};
use pgherd::cluster::{Archive, Backup, History, Lsn, Moment, Role, Standing, SystemId, Timeline};
use pgherd::scenario::{
    self, DataDirectory, Decision, Kept, KeptBy, Lead, Ourselves, Restore, Restored, RestoredFrom,
    Scenario, Situation, Wait,
};

/// The second of three, after which another node led.
const SECOND: &str = "20261120T060000";
const THIRD: &str = "20261121T000000";

fn backup(id: &str, timeline: u32, end: u64, ended: &str) -> Backup {
    Backup {
        id: id.to_owned(),
        name: (id == SECOND).then(|| "before-the-move".to_owned()),
        system: SystemId(7),
        timeline: Timeline(timeline),
        begin: Lsn(end - 0x100),
        end: Lsn(end),
        ended: ended.parse().expect("a moment"),
        bytes: 30 << 20,
        major: 17,
        unfit: None,
        verified: None,
    }
}

/// Three backups, and two failovers between the second and the third.
fn archive(name: &str) -> Archive {
    let before = |timelines: &[(u32, u64)]| {
        timelines.iter().map(|(timeline, end)| (Timeline(*timeline), Lsn(*end))).collect()
    };
    Archive {
        name: name.to_owned(),
        backups: vec![
            backup("20261120T000000", 1, 0x1000, "2026-11-20 00:05:00"),
            backup(SECOND, 1, 0x2000, "2026-11-20 06:05:00"),
            backup(THIRD, 3, 0x5000, "2026-11-21 00:05:00"),
        ],
        histories: vec![
            History { timeline: Timeline(2), before: before(&[(1, 0x3000)]) },
            History { timeline: Timeline(3), before: before(&[(1, 0x3000), (2, 0x4000)]) },
        ],
        ends: before(&[(1, 0x3800), (2, 0x4000), (3, 0x6000)]),
    }
}

fn now() -> Moment {
    "2026-11-21 12:00:00".parse().expect("a moment")
}

pub(crate) fn kept() -> Kept {
    let archives = vec![(KeptBy::Here, archive("pgherd"))];
    Kept { archives, unclear: Vec::new(), asked: true, now: now() }
}

fn asked(variables: &[(&str, &str)], situation: &Situation) -> Result<Decision, String> {
    let latest = [("RESTORE_FROM", "latest")];
    let is_given = variables.iter().any(|(name, _)| *name == "RESTORE_FROM");
    let first = latest.iter().filter(|_| !is_given);
    let variables: Vec<_> = first.chain(variables).copied().collect();
    scenario::recognise(&read(&variables), situation).map_err(|refusal| refusal.to_string())
}

/// What is begun where [`kept`] is there.
pub(crate) fn scenario(variables: &[(&str, &str)]) -> Scenario {
    match asked(variables, &Situation { kept: kept(), ..fine() }) {
        Ok(Decision::Begin(scenario)) => scenario,
        other => panic!("{variables:?}: {other:?}"),
    }
}

fn restore(variables: &[(&str, &str)]) -> Restore {
    let Scenario::Restore { restore, begun_anew: false } = scenario(variables) else {
        panic!("it is no restore");
    };
    *restore
}

fn refused(variables: &[(&str, &str)]) -> String {
    asked(variables, &Situation { kept: kept(), ..fine() }).expect_err("it cannot be done")
}

#[test]
fn the_backup_that_serves_is_found() {
    let first = "20261120T000000";
    for (variables, id, timeline) in [
        (&[][..], THIRD, 3),
        (&[("RESTORE_FROM", SECOND)][..], SECOND, 3),
        (&[("RESTORE_FROM", "before-the-move")][..], SECOND, 3),
        // Just before the third one can be used, two failovers after the second.
        (&[("RESTORE_TARGET_TIME", "2026-11-21 00:04:59")][..], SECOND, 3),
        (&[("RESTORE_TARGET_TIME", "2026-11-21 01:05:00+01")][..], THIRD, 3),
        (&[("RESTORE_TARGET_TIME", "2026-11-20 06:04:59.999999")][..], first, 3),
        (&[("RESTORE_TARGET_LSN", "0/4FFF")][..], SECOND, 3),
        (&[("RESTORE_TARGET_LSN", "0/5000")][..], THIRD, 3),
        (&[("RESTORE_TARGET_LSN", "0/1FFF")][..], first, 3),
        // What was lost with the first master is still there.
        (&[("RESTORE_TARGET_TIMELINE", "1"), ("RESTORE_TARGET_LSN", "0/3700")][..], SECOND, 1),
        (&[("RESTORE_TARGET_TIMELINE", "2")][..], SECOND, 2),
        (&[("RESTORE_TARGET_TIMELINE", "current")][..], THIRD, 3),
        (&[("RESTORE_FROM", SECOND), ("RESTORE_TARGET_TIMELINE", "current")][..], SECOND, 1),
        // Only a replay can tell where these are.
        (&[("RESTORE_TARGET_NAME", "monday")][..], first, 3),
        (&[("RESTORE_TARGET_XID", "812")][..], first, 3),
        (&[("RESTORE_FROM", THIRD), ("RESTORE_TARGET_NAME", "monday")][..], THIRD, 3),
    ] {
        let restore = restore(variables);
        assert_eq!(
            (restore.backup.id.as_str(), restore.timeline.0),
            (id, timeline),
            "{variables:?}"
        );
    }
}

#[test]
fn what_cannot_be_reached_is_refused_with_the_reason() {
    for (variables, says) in [
        (&[("RESTORE_FROM", "20200101T000000")][..], ["no backup 20200101T000000", SECOND, THIRD]),
        (
            &[("RESTORE_TARGET_TIME", "2026-11-19 12:00:00")][..],
            ["2026-11-19 12:00:00+00:00 is before", "the earliest moment", "2026-11-20 00:05:00"],
        ),
        (&[("RESTORE_TARGET_LSN", "0/FFF")][..], ["0/FFF is before", "0/1000", "20261120T000000"]),
        (
            &[("RESTORE_FROM", THIRD), ("RESTORE_TARGET_LSN", "0/4FFF")][..],
            ["0/4FFF is before", "0/5000", THIRD],
        ),
        (&[("RESTORE_TARGET_LSN", "0/6001")][..], ["0/6001 is after", "WAL up to", "0/6000"]),
        (
            &[("RESTORE_TARGET_TIME", "2026-11-22 00:00:00")][..],
            ["is after the end", "up to now", "2026-11-21 12:00:00"],
        ),
        (&[("RESTORE_TARGET_TIMELINE", "9")][..], ["timeline 9", SECOND, THIRD]),
        (
            &[("RESTORE_FROM", THIRD), ("RESTORE_TARGET_TIMELINE", "2")][..],
            ["no backup leads to timeline 2", SECOND, THIRD],
        ),
    ] {
        let refusal = refused(variables);
        for word in says.into_iter().chain(["nothing was changed"]) {
            assert!(refusal.contains(word), "{variables:?} must say {word:?}: {refusal}");
        }
    }
    let mut kept = kept();
    kept.archives[0].1.backups[2].major = 16;
    let other = asked(&[], &Situation { kept: kept.clone(), ..fine() }).unwrap_err();
    assert!(other.contains("PostgreSQL 16") && other.contains("carries 17"), "{other}");
    kept.archives[0].1.backups[2].major = 17;
    kept.archives[0].1.backups[2].unfit = Some("has tablespaces".to_owned());
    let unfit = asked(&[], &Situation { kept, ..fine() }).unwrap_err();
    assert!(unfit.contains("has tablespaces"), "{unfit}");
}

/// A cluster that was restored keeps its backups in a directory of its own; what was before is in the old one.
#[test]
fn an_older_archive_has_what_was_before() {
    let mut second = archive("pgherd.2");
    second.backups = vec![backup("20261121T060000", 4, 0x7000, "2026-11-21 06:05:00")];
    second.histories.clear();
    second.ends = vec![(Timeline(4), Lsn(0x8000))];
    let mut both = kept();
    both.archives.insert(0, (KeptBy::Node("backup".to_owned(), 8008), second.clone()));
    let chosen = |variables: &[(&str, &str)], kept: &Kept| {
        let decision = asked(variables, &Situation { kept: kept.clone(), ..fine() });
        let Ok(Decision::Begin(Scenario::Restore { restore, .. })) = decision else {
            panic!("{variables:?}: {decision:?}");
        };
        (restore.archive, restore.backup.id)
    };
    let newest = ("pgherd.2".to_owned(), "20261121T060000".to_owned());
    assert_eq!(chosen(&[], &both), newest);
    let before = ("pgherd".to_owned(), THIRD.to_owned());
    assert_eq!(chosen(&[("RESTORE_TARGET_TIME", "2026-11-21 05:00")], &both), before);
    assert_eq!(chosen(&[("RESTORE_FROM", THIRD)], &both), before);
    let named = [("RESTORE_TARGET_NAME", "monday")];
    let guess = asked(&named, &Situation { kept: both.clone(), ..fine() }).unwrap_err();
    assert!(guess.contains("pgherd.2 and pgherd") && guess.contains("RESTORE_FROM"), "{guess}");
    assert_eq!(chosen(&[("RESTORE_FROM", THIRD), named[0]], &both), before);
    // It was begun, and has nothing yet.
    both.archives[0].1.backups.clear();
    assert_eq!(chosen(&[], &both), before);
    let unknown = [("RESTORE_FROM", "20200101T000000")];
    let unknown = asked(&unknown, &Situation { kept: both, ..fine() }).unwrap_err();
    assert!(unknown.contains("no backup 20200101T000000") && unknown.contains(THIRD), "{unknown}");
}

#[test]
fn a_restore_begins_where_a_first_start_would_and_nowhere_else() {
    let there = || Situation { kept: kept(), ..fine() };
    let begins = |situation: &Situation| match asked(&[], situation) {
        Ok(Decision::Begin(scenario)) => scenario,
        other => panic!("{other:?}"),
    };
    let anew = begins(&Situation { data_directory: DataDirectory::Unfinished, ..there() });
    assert!(matches!(anew, Scenario::Restore { begun_anew: true, .. }), "{anew:?}");
    // Its own backups are what it is about.
    let backups_of = Some(("/home/barman/data/pgherd".into(), "7".to_owned()));
    let with_backups = begins(&Situation { backups_of: backups_of.clone(), ..there() });
    assert!(matches!(with_backups, Scenario::Restore { .. }), "{with_backups:?}");
    let without = scenario::recognise(&read(&[]), &Situation { backups_of, ..there() });
    assert!(without.unwrap_err().to_string().contains("RESTORE_FROM=latest"));
    // Somebody leads: the variable was left where it was when that one was restored.
    let joins = begins(&Situation { sightings: vec![leads("node2", 3)], ..there() });
    assert_eq!(joins, Scenario::StandbyFirstStart { begun_anew: false });
    let slave = asked(&[("REPMGR_MASTER", "false")], &there());
    assert_eq!(slave, Ok(Decision::Begin(Scenario::StandbyFirstStart { begun_anew: false })));
    assert_eq!(scenario::recognise(&read(&[]), &there()), Ok(Decision::Begin(FIRST_START)));
    // The node that keeps the backups remembers what was; data is what would be lost.
    let remembers = heard_of(4, says("backup", Standing::NoData));
    let remembered = begins(&Situation { sightings: vec![remembers], ..there() });
    assert!(matches!(remembered, Scenario::Restore { .. }), "{remembered:?}");
    let standby = serves("node2", Role::Standby, 3);
    let waits = asked(&[], &Situation { sightings: vec![standby], ..there() });
    assert!(matches!(waits, Ok(Decision::Wait(Wait::NobodyLeads { .. }))), "{waits:?}");
    // Whoever keeps backups may be about to start.
    let unclear = vec!["backup:8008 (refused)".to_owned()];
    let silent = Situation { kept: Kept { unclear, asked: true, ..Kept::default() }, ..fine() };
    let waits = asked(&[], &silent);
    assert!(
        matches!(&waits, Ok(Decision::Wait(Wait::Backups { why })) if why.contains("backup:8008"))
    );
}

/// The record of a cluster that lives, or has lived, is a person's to give up.
#[test]
fn a_restore_takes_the_place_of_a_recorded_history_by_a_persons_word_only() {
    let lead = Lead::Held {
        holder: "node1".to_owned(),
        address: "node1".parse().expect("an address"),
        system: SystemId(7),
        timeline: Timeline(3),
    };
    let quorum = [("PGHERD_VOTERS", "node1,node2,backup"), ("HOSTNAME", "node1")];
    let alone = Situation { kept: kept(), lead: lead.clone(), ..fine() };
    let waits = asked(&quorum, &alone);
    let Ok(Decision::Wait(wait @ Wait::RestoreBesideRecord { .. })) = &waits else {
        panic!("{waits:?}");
    };
    assert!(wait.to_string().contains("pgherd failover --allow-data-loss"), "{wait}");
    let ourselves = Ourselves { leads_alone: true, ..fine().ourselves };
    let said = asked(&quorum, &Situation { ourselves, ..alone.clone() });
    assert!(matches!(said, Ok(Decision::Begin(Scenario::Restore { .. }))), "{said:?}");
    // Somebody has its data: that one leads, and this one joins.
    let other = Situation { sightings: vec![leads("node2", 3)], ..alone };
    let joins = asked(&quorum, &other);
    assert_eq!(joins, Ok(Decision::Begin(Scenario::StandbyFirstStart { begun_anew: false })));
    let free = Situation { lead: Lead::Free, kept: kept(), ..fine() };
    assert!(matches!(asked(&quorum, &free), Ok(Decision::Begin(Scenario::Restore { .. }))));
}

/// The cluster that [`kept`] is of, which runs.
fn running() -> RestoredFrom {
    let lsn = Lsn(0x5800);
    RestoredFrom { major: 17, system: SystemId(7), timeline: Timeline(3), lsn, free_mib: None }
}

fn chosen_in_place(
    variables: &[(&str, &str)],
    kept: Kept,
    from: &RestoredFrom,
) -> Result<Restore, String> {
    let variables: Vec<_> = [("RESTORE_FROM", "latest")].iter().chain(variables).copied().collect();
    let asked = read(&variables).restore.expect("it is asked for");
    scenario::choose_in_place(&asked, kept, from).map_err(|why| why.to_string())
}

/// What is begun where the cluster runs and a person asks for it.
pub(crate) fn in_place(variables: &[(&str, &str)]) -> Scenario {
    let restore = chosen_in_place(variables, kept(), &running()).expect("it can be done");
    Scenario::RestoreInPlace { restore: Box::new(restore) }
}

#[test]
fn a_running_cluster_is_restored_from_its_own_backups_where_there_is_room_and_nothing_is_missing() {
    let refused = |variables: &[(&str, &str)], kept: Kept, from: RestoredFrom, says: &str| {
        let why = chosen_in_place(variables, kept, &from).expect_err("it cannot be done");
        assert!(why.contains(says), "{why}");
    };
    let other = RestoredFrom { system: SystemId(8), ..running() };
    refused(&[], kept(), other, "of another cluster");
    let full = RestoredFrom { free_mib: Some(100), ..running() };
    refused(&[], kept(), full, "has 100 MiB free");
    // barman has heard nothing of what the cluster writes now.
    let ahead = RestoredFrom { timeline: Timeline(4), ..running() };
    refused(&[], kept(), ahead, "--target-timeline 3");
    let said = chosen_in_place(&[("RESTORE_TARGET_TIMELINE", "3")], kept(), &ahead);
    assert_eq!(said.map(|restore| restore.timeline), Ok(Timeline(3)));
    // Somebody was promoted by hand once, and another way was gone on.
    let parted = RestoredFrom { timeline: Timeline(2), ..running() };
    refused(&[], kept(), parted, "--target-timeline 2");
    let silent = Kept { unclear: vec!["backup:8008 (refused)".to_owned()], ..Kept::default() };
    refused(&[], silent, running(), "not asked: backup:8008");
    // Of two that keep backups the one counts that has the cluster's end.
    let mut two = kept();
    let mut older = archive("pgherd");
    older.backups.truncate(2);
    older.histories.clear();
    older.ends = vec![(Timeline(1), Lsn(0x3000))];
    two.archives.insert(0, (KeptBy::Node("node2".to_owned(), 8008), older));
    let chosen = chosen_in_place(&[], two, &running()).expect("it can be done");
    assert_eq!((chosen.kept_by, chosen.backup.id.as_str()), (KeptBy::Here, THIRD));
}

#[test]
fn what_is_lost_by_a_restore_is_said_before_it() {
    let foreseen = |variables: &[(&str, &str)]| {
        let restore = chosen_in_place(variables, kept(), &running()).expect("it can be done");
        scenario::foreseen(&restore, &running(), "node1", &["node2".to_owned()])
    };
    let all = foreseen(&[]);
    assert!(all.contains("Nothing is lost") && all.contains("node2"), "{all}");
    let moment = foreseen(&[("RESTORE_TARGET_TIME", "2026-11-20 12:00")]);
    assert!(moment.contains("LOST: all that was written after 2026-11-20 12:00"), "{moment}");
    let before = foreseen(&[("RESTORE_TARGET_TIMELINE", "1")]);
    assert!(before.contains("LOST: all that was written after the end of timeline 1"), "{before}");
    let restore = chosen_in_place(&[], kept(), &running()).expect("it can be done");
    let parted = RestoredFrom { timeline: Timeline(2), ..running() };
    let other = scenario::foreseen(&restore, &parted, "node1", &[]);
    assert!(other.contains("LOST:"), "{other}");
}

/// The record decides about a restore that was interrupted when it was complete.
#[test]
fn a_restored_copy_takes_its_place_where_the_record_says_so_and_is_thrown_away_else() {
    let quorum = [("PGHERD_VOTERS", "node1,node2,backup"), ("HOSTNAME", "node1")];
    let recorded = |holder: &str, timeline| Lead::Held {
        holder: holder.to_owned(),
        address: holder.parse().expect("an address"),
        system: SystemId(7),
        timeline: Timeline(timeline),
    };
    let begins = |lead: Lead, sightings| {
        let mut cluster = on_disk(Role::Primary, 3);
        cluster.restored = Restored::Beside(Timeline(4));
        let data_directory = DataDirectory::Cluster(cluster);
        let situation = Situation { data_directory, lead, sightings, ..fine() };
        scenario::recognise(&read(&quorum), &situation).expect("it is no refusal")
    };
    let moves_in = Decision::Begin(Scenario::MoveInRestored);
    assert_eq!(begins(recorded("node1", 4), Vec::new()), moves_in);
    // Its plans begin with throwing away what is beside.
    let as_before = Decision::Begin(Scenario::PrimaryRestart { adopted: false });
    assert_eq!(begins(recorded("node1", 3), Vec::new()), as_before);
    let rejoins = Decision::Begin(Scenario::Rejoin { as_standby: false });
    assert_eq!(begins(recorded("node2", 4), vec![leads("node2", 4)]), rejoins);
    assert_eq!(begins(Lead::NotKept, Vec::new()), as_before);
    // It is the voters who know.
    let silent = Lead::Unknown { why: "they are silent".to_owned() };
    assert!(matches!(begins(silent, Vec::new()), Decision::Wait(Wait::Voters { .. })));
}
