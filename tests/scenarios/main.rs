//! The scenario engine from outside: which section applies, and what its plan says.
//! `UPDATE_GOLDEN=1 cargo test --test scenarios` rewrites the plans; review the diff.

mod restore;
mod sightings;
mod who_leads;

use pgherd::cluster::{Role, SystemId};
use pgherd::layout::{Layout, Means};
use pgherd::scenario::{
    self, Cluster, DataDirectory, Decision, Kept, Lead, Ourselves, Plan, PortInUse, Refusal,
    Scenario, Situation, Step,
};
use pgherd::service::ServiceName;
use pgherd::settings::{self, Settings};
use proptest::prelude::*;
use sightings::{leads, of, on_disk};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FIRST_START: Scenario = Scenario::PrimaryFirstStart { begun_anew: false };
const FIRST_START_AGAIN: Scenario = Scenario::PrimaryFirstStart { begun_anew: true };

const RESTART: Scenario = Scenario::PrimaryRestart { adopted: false };

#[test]
fn plans_are_their_golden_files() {
    for (name, means, scenario) in [
        ("primary-first-start", Means::EveryAccount, FIRST_START),
        ("primary-first-start-begun-anew", Means::EveryAccount, FIRST_START_AGAIN),
        ("primary-first-start-without-root", Means::OneAccount, FIRST_START),
        ("primary-restart", Means::EveryAccount, RESTART),
        ("recovery", Means::EveryAccount, Scenario::Recovery),
        ("adoption", Means::EveryAccount, Scenario::PrimaryRestart { adopted: true }),
        (
            "standby-first-start",
            Means::EveryAccount,
            Scenario::StandbyFirstStart { begun_anew: false },
        ),
        ("standby-restart", Means::EveryAccount, Scenario::StandbyRestart { moves_in: false }),
        ("rejoin", Means::EveryAccount, Scenario::Rejoin { as_standby: false }),
        ("rejoin-as-standby", Means::EveryAccount, Scenario::Rejoin { as_standby: true }),
        ("replace", Means::EveryAccount, Scenario::Replace),
        ("from-archive", Means::EveryAccount, Scenario::FromArchive),
        ("follow", Means::EveryAccount, Scenario::Follow { replaces: false }),
        ("follow-and-discard", Means::EveryAccount, Scenario::Follow { replaces: true }),
        ("promoted", Means::EveryAccount, Scenario::Promoted),
        ("backup-node-start", Means::EveryAccount, Scenario::BackupNodeStart),
        ("restore", Means::EveryAccount, restore::scenario(&[])),
        (
            "restore-to-look-first",
            Means::EveryAccount,
            restore::scenario(&[
                ("RESTORE_TARGET_TIME", "2026-11-20 12:00:00+01:00"),
                ("RESTORE_TARGET_ACTION", "pause"),
            ]),
        ),
        ("restore-in-place", Means::EveryAccount, restore::in_place(&[])),
    ] {
        golden(name, &plan(&defaults(), means, scenario).to_string());
    }
    let elsewhere = read(&[("PGHERD_BACKUPS", "elsewhere")]);
    let plan = plan(&elsewhere, Means::EveryAccount, FIRST_START);
    golden("primary-first-start-backups-elsewhere", &plan.to_string());
}

fn golden(name: &str, actual: &str) {
    let path = format!("tests/golden/{name}.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, actual).expect("tests run in the repository root");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{path} differs; if it should, UPDATE_GOLDEN=1 rewrites it");
}

/// Nothing left out, nothing reordered, whoever the container runs as.
#[test]
fn the_first_starts_stages_are_the_documents_lines() {
    for (means, backups) in [
        (Means::EveryAccount, "here"),
        (Means::EveryAccount, "elsewhere"),
        (Means::OneAccount, "here"),
    ] {
        let plan = plan(&read(&[("PGHERD_BACKUPS", backups)]), means, FIRST_START);
        let titles: Vec<&str> = plan.stages.iter().map(|stage| stage.title.as_ref()).collect();
        assert_eq!(titles, lines_of(FIRST_START.title()));
    }
}

/// The document stops there; what makes the clone a member comes after.
#[test]
fn a_slaves_first_stages_are_the_documents_lines() {
    let scenario = Scenario::StandbyFirstStart { begun_anew: false };
    let lines = lines_of(scenario.title());
    let plan = plan(&defaults(), Means::EveryAccount, scenario);
    let titles: Vec<&str> = plan.stages.iter().map(|stage| stage.title.as_ref()).collect();
    assert_eq!(titles[..lines.len()], lines);
}

#[test]
fn scenarios_have_the_documents_titles() {
    for scenario in [
        FIRST_START,
        RESTART,
        Scenario::StandbyFirstStart { begun_anew: false },
        Scenario::StandbyRestart { moves_in: false },
        restore::scenario(&[]),
    ] {
        let _ = lines_of(scenario.title());
    }
}

/// The numbered lines of a section. Two of the first are both numbered 3, so only the order counts.
fn lines_of(section: &str) -> Vec<String> {
    let document = fs::read_to_string("tests/golden/scenarios.md").expect("the document is there");
    let found = document.split("\n## ").find(|one| one.lines().next() == Some(section));
    found
        .unwrap_or_else(|| panic!("the document has no section \"{section}\""))
        .lines()
        .filter_map(|line| line.split_once(". "))
        .filter(|(number, _)| number.parse::<u32>().is_ok())
        .map(|(_, text)| text.trim_end().replace("\\_", "_"))
        .collect()
}

#[test]
fn the_disk_decides_which_section_applies() {
    for (on_disk, master, expected) in [
        (DataDirectory::Empty, "true", FIRST_START),
        (DataDirectory::Unfinished, "true", FIRST_START_AGAIN),
        (DataDirectory::Empty, "false", Scenario::StandbyFirstStart { begun_anew: false }),
        (DataDirectory::Unfinished, "false", Scenario::StandbyFirstStart { begun_anew: true }),
        (cluster(false), "true", RESTART),
        (cluster(false), "false", RESTART), // The disk outranks the environment.
        (cluster(true), "true", Scenario::StandbyRestart { moves_in: false }),
    ] {
        let settings = read(&[("REPMGR_MASTER", master)]);
        let situation = Situation { data_directory: on_disk.clone(), ..fine() };
        assert_eq!(
            scenario::recognise(&settings, &situation),
            Ok(Decision::Begin(expected)),
            "{on_disk:?}, {master}"
        );
    }
}

/// Whatever the disk holds is not its business, nor what a data node would be refused for.
#[test]
fn a_node_for_backups_looks_at_no_cluster_and_touches_none() {
    for kept in ["here", "elsewhere"] {
        let settings = read(&[
            ("PGHERD_ROLE", "backup"),
            ("REPMGR_MASTER", "false"),
            ("REPMGR_MASTER_HOST", "node1"),
            ("PGHERD_BACKUPS", kept),
        ]);
        let backups_of = Some(("/home/barman/data/pgherd".into(), "77".to_owned()));
        for situation in [
            Situation { backups_of, free_mib: Some(1), ..fine() },
            Situation { owner_uid: None, ..fine() },
        ] {
            let scenario = scenario::recognise(&settings, &situation);
            assert_eq!(scenario, Ok(Decision::Begin(Scenario::BackupNodeStart)));
        }
        let plan = plan(&settings, Means::EveryAccount, Scenario::BackupNodeStart);
        let expected = [
            Step::WriteBarmanConf,
            Step::WriteBarmanCron,
            Step::Supervise { service: ServiceName::Crond },
        ];
        assert_eq!(steps(&plan), expected, "PGHERD_BACKUPS={kept}");
    }
}

/// What stands in the way, and what the one line about it must name: the thing, and the remedy.
#[test]
fn a_refusal_names_the_thing_and_the_remedy() {
    let with = |data_directory| Situation { data_directory, ..fine() };
    let pgdata = "/var/lib/postgresql/17/docker";
    let mut seen = BTreeSet::new();
    for (situation, env, says) in [
        (
            with(DataDirectory::Foreign { found: "notes.txt".to_owned() }),
            &[][..],
            [pgdata, "notes.txt", "PGDATA", "empty it"],
        ),
        (
            with(DataDirectory::Broken { reason: "no pg_control".to_owned() }),
            &[],
            [pgdata, "no pg_control", "nothing was changed", "from a backup"],
        ),
        (
            with(DataDirectory::Unreadable { reason: "Permission denied".to_owned() }),
            &[],
            [pgdata, "Permission denied", "nothing was changed", "uid 999 may read"],
        ),
        (
            with(DataDirectory::Cluster(Cluster {
                made_here: false,
                may_be_in_use: true,
                ..on_disk(Role::Primary, 1)
            })),
            &[],
            [pgdata, "may be running", "docker stop", "its own image"],
        ),
        (
            with(DataDirectory::OtherMajor { found: "15".to_owned() }),
            &[],
            [pgdata, "PostgreSQL 15", "the image for 15", "pg_upgrade"],
        ),
        (
            Situation { owner_uid: Some(70), ..with(cluster(false)) },
            &[],
            [pgdata, "uid 70", "runs as 999", "chown -R 999"],
        ),
        (
            Situation { free_mib: Some(20), ..fine() },
            &[],
            [pgdata, "20 MiB free", "128 MiB", "more room"],
        ),
        (
            Situation {
                ports_in_use: vec![PortInUse { port: 5432, variable: "POSTGRES_PORT" }],
                ..with(cluster(false))
            },
            &[],
            ["port 5432", "taken", "stop it", "POSTGRES_PORT"],
        ),
        (
            Situation { mounted_elsewhere: Some("/var/lib/postgresql/data".into()), ..fine() },
            &[],
            [
                "mounted at /var/lib/postgresql/data",
                pgdata,
                "mount the volume at /var/lib/postgresql,",
                "PGDATA=/var/lib/postgresql/data/pgdata",
            ],
        ),
        (
            Situation {
                backups_of: Some(("/home/barman/data/pgherd".into(), "77".to_owned())),
                ..fine()
            },
            &[],
            ["/home/barman/data/pgherd", "system identifier 77", pgdata, "BARMAN_BACKUP_DIR"],
        ),
        (
            Situation { kept: Kept { asked: true, ..Kept::default() }, ..fine() },
            &[("RESTORE_FROM", "latest")],
            ["RESTORE_FROM", "no complete base backup", "cluster pgherd", "nothing was changed"],
        ),
        (
            Situation { kept: restore::kept(), free_mib: Some(200), ..fine() },
            &[("RESTORE_FROM", "latest")],
            [pgdata, "200 MiB free", "backup 20261121T000000", "542 MiB"],
        ),
        (
            with(DataDirectory::Cluster(Cluster { recovering: true, ..on_disk(Role::Primary, 1) })),
            &[],
            [pgdata, "recovery.signal", "did not begin", "let it end"],
        ),
        (
            Situation {
                sightings: vec![of(SystemId(8), leads("node2", 1))],
                ..with(cluster(true))
            },
            &[],
            ["node2:5432", "system identifier 8", "nothing was changed", "REPMGR_MASTER_HOST"],
        ),
        (
            Situation { sightings: vec![leads("node2", 1)], ..with(cluster(false)) },
            &[],
            ["node2:5432", "timeline 1", "a copy", "empty volume"],
        ),
        (
            Situation { ourselves: Ourselves { knows_nobody: true, ..fine().ourselves }, ..fine() },
            &[("REPMGR_MASTER", "false")],
            ["REPMGR_MASTER", "false", "knows of no other", "REPMGR_MASTER_HOST"],
        ),
        (
            Situation { sightings: vec![leads("node2", 1)], ..fine() },
            &[("PGHERD_CLUSTER", "other")],
            ["node2:5432", "cluster pgherd", "of cluster other", "PGHERD_CLUSTER"],
        ),
    ] {
        let refusal = scenario::recognise(&read(env), &situation).expect_err(says[0]);
        says_in_a_line(&refusal, says);
        seen.insert(number(&refusal));
    }
    // These two are for `observe` to say: nothing can be asked under a lock that cannot be made.
    let refusal = Refusal::BackupNodeNeedsRoot { uid: 1000 };
    says_in_a_line(&refusal, ["PGHERD_ROLE", "uid 1000", "root", "without --user"]);
    seen.insert(number(&refusal));
    let (directory, reason) = ("/var/lib/postgresql".into(), "Read-only file system".to_owned());
    let refusal = Refusal::NotWritable { directory, reason, expected: 999 };
    let says =
        ["/var/lib/postgresql", "Read-only file system", "mount the volume read-write", "uid 999"];
    says_in_a_line(&refusal, says);
    seen.insert(number(&refusal));
    assert_eq!(seen.len(), number_of_refusals(), "a refusal has no row in this table");
}

fn says_in_a_line(refusal: &Refusal, words: [&str; 4]) {
    let line = refusal.to_string();
    assert!(!line.contains('\n'), "one line: {line}");
    for word in words {
        assert!(line.contains(word), "{refusal:?} must say {word:?}, and says: {line}");
    }
}

/// Does not compile when a variant is added: give it the next number, and a row above.
fn number(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::ForeignFiles { .. } => 1,
        Refusal::BrokenCluster { .. } => 2,
        Refusal::OtherMajor { .. } => 3,
        Refusal::OtherOwner { .. } => 4,
        Refusal::NotWritable { .. } => 5,
        Refusal::NoRoom { .. } => 6,
        Refusal::PortInUse { .. } => 7,
        Refusal::MountedElsewhere { .. } => 8,
        Refusal::ForeignBackups { .. } => 9,
        Refusal::Recovering { .. } => 10,
        Refusal::CannotLook { .. } => 11,
        Refusal::MaybeInUse { .. } => 12,
        Refusal::NothingToRestore { .. } => 13,
        Refusal::NoRoomToRestore { .. } => 18,
        Refusal::BackupNodeNeedsRoot { .. } => 14,
        Refusal::AnotherCluster { .. } => 15,
        Refusal::OtherName { .. } => 16,
        Refusal::NobodyToFollow => 17,
        Refusal::SamePrimary { .. } => number_of_refusals(),
    }
}

const fn number_of_refusals() -> usize {
    19
}

/// It passed these checks when it was begun, and throwing it away makes the room that it takes.
#[test]
fn an_interrupted_start_is_not_refused_for_the_room_that_it_took() {
    let situation =
        Situation { data_directory: DataDirectory::Unfinished, free_mib: Some(1), ..fine() };
    assert_eq!(
        scenario::recognise(&defaults(), &situation),
        Ok(Decision::Begin(FIRST_START_AGAIN))
    );
}

proptest! {
    #[test]
    fn a_marked_directory_is_always_begun_anew(
        master in any::<bool>(), free_mib in any::<Option<u64>>(), owner_uid in any::<Option<u32>>(),
        means in means(),
    ) {
        let situation = Situation { data_directory: DataDirectory::Unfinished, free_mib, owner_uid, ..fine() };
        let settings = read(&[("REPMGR_MASTER", if master { "true" } else { "false" })]);
        let Ok(Decision::Begin(scenario)) = scenario::recognise(&settings, &situation) else {
            return Err(TestCaseError::fail("it is begun anew"));
        };
        let steps = steps(&plan(&settings, means, scenario));
        let at = |wanted: fn(&Step) -> bool| steps.iter().position(wanted);
        let discarded = at(|step| matches!(step, Step::DiscardUnfinished { .. }));
        let made = at(|step| {
            matches!(step, Step::InitDataDirectory { .. } | Step::TakeCopy { .. })
        });
        prop_assert!(discarded.is_some() && discarded < made, "nothing is built on what is left");
    }

    #[test]
    fn an_unmarked_cluster_is_never_discarded(
        situation in situations(), master in any::<bool>(), means in means(),
    ) {
        let settings = read(&[("REPMGR_MASTER", if master { "true" } else { "false" })]);
        if let Ok(Decision::Begin(scenario)) = scenario::recognise(&settings, &situation) {
            for step in steps(&plan(&settings, means, scenario)) {
                let discards = matches!(step, Step::DiscardUnfinished { .. });
                let makes = matches!(step, Step::InitDataDirectory { .. });
                prop_assert!(!discards || situation.data_directory == DataDirectory::Unfinished);
                prop_assert!(!makes || matches!(
                    situation.data_directory, DataDirectory::Empty | DataDirectory::Unfinished
                ));
            }
        }
    }

    #[test]
    fn no_plan_holds_a_secret(situation in situations(), means in means()) {
        let names = ["POSTGRES_PASSWORD", "REPMGR_PASSWORD", "REPMGR_STREAMING_PASSWORD",
            "BARMAN_PASSWORD", "BARMAN_STREAMING_PASSWORD"];
        let settings = read(&names.map(|name| (name, "open sesame")));
        if let Ok(Decision::Begin(scenario)) = scenario::recognise(&settings, &situation) {
            let plan = plan(&settings, means, scenario);
            let json = serde_json::to_string(&plan).unwrap();
            let shown = format!("{plan}{plan:?}{json}");
            prop_assert!(!shown.contains("sesame"), "{}", shown);
        }
    }
}

fn means() -> impl Strategy<Value = Means> {
    prop_oneof![Just(Means::EveryAccount), Just(Means::OneAccount)]
}

fn situations() -> impl Strategy<Value = Situation> {
    let words = "[a-z0-9 ./]{0,12}";
    let data_directory = prop_oneof![
        Just(DataDirectory::Empty),
        Just(DataDirectory::Unfinished),
        any::<bool>().prop_map(cluster),
        words.prop_map(|found| DataDirectory::OtherMajor { found }),
        words.prop_map(|reason| DataDirectory::Broken { reason }),
        words.prop_map(|found| DataDirectory::Foreign { found }),
    ];
    let owner = prop_oneof![Just(Some(999)), any::<Option<u32>>()];
    let elsewhere =
        prop_oneof![4 => Just(None), 1 => words.prop_map(|path| Some(PathBuf::from(path)))];
    (data_directory, owner, any::<Option<u64>>(), elsewhere).prop_map(
        |(data_directory, owner_uid, free_mib, mounted_elsewhere)| Situation {
            data_directory,
            owner_uid,
            free_mib,
            mounted_elsewhere,
            ..fine()
        },
    )
}

/// An empty volume, and nothing in the way.
fn fine() -> Situation {
    Situation {
        major: 17,
        pgdata: "/var/lib/postgresql/17/docker".into(),
        data_dir: "/var/lib/postgresql".into(),
        data_directory: DataDirectory::Empty,
        owner_uid: Some(999),
        postgres_uid: 999,
        free_mib: Some(10_000),
        ports_in_use: Vec::new(),
        mounted_elsewhere: None,
        backups_of: None,
        kept: Kept::default(),
        ourselves: Ourselves {
            address: "node1".parse().expect("a host is an address"),
            newest: None,
            given_up: None,
            had_members: false,
            knows_nobody: false,
            leads_alone: false,
        },
        sightings: Vec::new(),
        lead: Lead::NotKept,
    }
}

fn cluster(standby: bool) -> DataDirectory {
    DataDirectory::Cluster(on_disk(if standby { Role::Standby } else { Role::Primary }, 1))
}

fn plan(settings: &Settings, means: Means, scenario: Scenario) -> Plan {
    let layout =
        Layout::new(settings, 17, Path::new("/var/lib/postgresql/17/docker").into(), false);
    scenario::plan(settings, &layout, means, scenario)
}

fn steps(plan: &Plan) -> Vec<Step> {
    plan.stages.iter().flat_map(|stage| stage.steps.clone()).collect()
}

fn defaults() -> Settings {
    read(&[])
}

fn read(variables: &[(&str, &str)]) -> Settings {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    settings::read(variables, |path| fs::read_to_string(path)).expect("these settings are right")
}

/// It would end again for the same reason, and what is shut down in order may have room enough.
#[test]
fn a_server_that_was_killed_waits_for_room_for_its_wal() {
    let with = |shut_down, free_mib| {
        let mut cluster = on_disk(Role::Primary, 1);
        cluster.control.iter_mut().for_each(|control| control.shut_down = shut_down);
        let data_directory = DataDirectory::Cluster(cluster);
        let free_mib = Some(free_mib);
        let situation = Situation { data_directory, free_mib, ..fine() };
        scenario::recognise(&defaults(), &situation).expect("it is no refusal")
    };
    let Decision::Wait(wait) = with(false, 15) else { panic!("it begins") };
    assert!(wait.to_string().contains("pg_wal has 15 MiB free"), "{wait}");
    assert!(matches!(with(false, 16), Decision::Begin(_)));
    assert!(matches!(with(true, 0), Decision::Begin(_)));
}
