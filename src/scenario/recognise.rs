//! From what was seen to the section that applies.
//!
//! Safety, argued here because it is enforced here: a node takes writes only by
//! `PrimaryFirstStart` and `PrimaryRestart`. The latter is chosen only when
//! - no member that answers leads: two could accept writes;
//! - no member that answers has or has heard of a newer timeline: ours was replaced;
//! - more than half of all members, ourselves among them, have answered and remember something,
//!   or all have answered. Whoever was promoted since
//!   we went down was seen by more than half (a member's word outlives it: each keeps the newest
//!   timeline it has heard of on its disk), and two majorities have a member in common.
//!
//! What was true when it was asked stays true as long as it takes to start a server: a cluster that has
//! to recover first does so out of reach, and asks again.
//!
//! Where voters keep a record of who leads, it stands in the place of the third: only whom it names last
//! is begun as a primary, and its plan takes the lead anew before anybody is served
//! ([`Step::TakeLead`](super::Step)).
//!
//! What a hand promotes without more than half being there to see it, only that hand can know:
//! that gap closes where nothing but the cluster itself promotes.

use super::situation::{Cluster, DataDirectory, Lead, Restored, Situation};
use super::{Decision, Refusal, Restore, Scenario, Wait, restore};
use crate::cluster::{Address, ControlData, Lsn, Report, Role, Standing, Timeline};
use crate::settings::{NodeKind, RestoreSettings, Settings};

/// The checkpoint that ends a shutdown takes a few hundred bytes, and a standby has replayed it; a
/// WAL page more is a write.
const SHUTDOWN_RECORD_MAX: u64 = 8192;

/// An empty cluster takes 40 MB and its WAL 16 MB more (PostgreSQL 15 and 17, measured);
/// the rest is so that Postgres has room to stop in order.
const FIRST_START_NEEDS_MIB: u64 = 128;

/// A WAL file, which Postgres makes before it writes to it. Without room for one it ends in a PANIC, and after
/// its recovery again.
pub const NEEDS_MIB: u64 = 16;

/// Names the section that applies, or what to wait for. The disk outranks the environment, and so
/// does the cluster: `REPMGR_MASTER` is asked only when the disk is empty and nobody leads.
pub fn recognise(settings: &Settings, situation: &Situation) -> Result<Decision, Refusal> {
    situation.usable()?;
    if settings.herd.kind != NodeKind::Data {
        return Ok(Decision::Begin(Scenario::BackupNodeStart));
    }
    let pgdata = || situation.pgdata.clone();
    match &situation.data_directory {
        DataDirectory::Empty | DataDirectory::Unfinished => {
            situation.fit_for_a_first_start(FIRST_START_NEEDS_MIB)?;
            let restore = settings.restore.as_ref();
            if restore.is_none() || settings.repmgr.first_role == Role::Standby {
                situation.begins_with_no_backups()?;
            }
            if settings.repmgr.first_role == Role::Standby && situation.ourselves.knows_nobody {
                return Err(Refusal::NobodyToFollow);
            }
            situation.of_our_cluster(&settings.herd.cluster, None)?;
            match (first_start(settings, situation), restore) {
                (Decision::Begin(Scenario::PrimaryFirstStart { begun_anew }), Some(asked)) => {
                    restored(asked, situation, begun_anew)
                }
                (decision, _) => Ok(decision),
            }
        }
        DataDirectory::Foreign { found } => {
            Err(Refusal::ForeignFiles { pgdata: pgdata(), found: found.clone() })
        }
        DataDirectory::OtherMajor { found } => Err(Refusal::OtherMajor {
            pgdata: pgdata(),
            found: found.clone(),
            ours: situation.major,
        }),
        DataDirectory::Broken { reason } => {
            Err(Refusal::BrokenCluster { pgdata: pgdata(), reason: reason.clone() })
        }
        DataDirectory::Unreadable { reason } => Err(Refusal::CannotLook {
            pgdata: pgdata(),
            reason: reason.clone(),
            expected: situation.postgres_uid,
        }),
        DataDirectory::Cluster(cluster) => {
            let system = cluster.control.as_ref().map(|control| control.system);
            situation.of_our_cluster(&settings.herd.cluster, system)?;
            restart(settings, situation, cluster)
        }
    }
}

fn first_start(settings: &Settings, situation: &Situation) -> Decision {
    let begun_anew = situation.data_directory == DataDirectory::Unfinished;
    let join = Decision::Begin(Scenario::StandbyFirstStart { begun_anew });
    if let (Role::Primary, Lead::Unknown { why }) = (settings.repmgr.first_role, &situation.lead) {
        return Decision::Wait(Wait::Voters { why: why.clone() });
    }
    match (settings.repmgr.first_role, situation.leader()) {
        (Role::Standby, _) | (Role::Primary, Ok(Some(_))) => join,
        (Role::Primary, Ok(None)) if restores_instead(settings, situation) => {
            match situation.beside_the_record() {
                Some(wait) => Decision::Wait(wait),
                None => Decision::Begin(Scenario::PrimaryFirstStart { begun_anew }),
            }
        }
        // There is, or was, a cluster: whoever has its data leads.
        (Role::Primary, _) if matches!(situation.lead, Lead::Held { .. } | Lead::Handed { .. }) => {
            join
        }
        (Role::Primary, Err(two)) => Decision::Wait(two),
        (Role::Primary, Ok(None)) => match in_the_way_of_a_first_start(settings, situation) {
            Some(wait) => Decision::Wait(wait),
            None => Decision::Begin(Scenario::PrimaryFirstStart { begun_anew }),
        },
    }
}

/// There is a record of who leads, nobody who answers has the data that it is about, and a restore is asked
/// for. The record is of a history that goes on; what is restored is another. So only a person may say that
/// the one is to be given up for the other, and the record is then changed as for a failover.
fn restores_instead(settings: &Settings, situation: &Situation) -> bool {
    settings.restore.is_some()
        && matches!(situation.lead, Lead::Held { .. })
        && situation.reports().all(|(_, report)| report.position().is_none())
}

/// The backup that serves is chosen before anything is touched, and there is room for it.
fn restored(
    asked: &RestoreSettings,
    situation: &Situation,
    begun_anew: bool,
) -> Result<Decision, Refusal> {
    let kept = &situation.kept;
    let has_any = kept.archives.iter().any(|(_, archive)| !archive.backups.is_empty());
    let not_asked = !kept.asked || !kept.unclear.is_empty();
    if !has_any && not_asked {
        let why = match kept.unclear.is_empty() {
            true => "the nodes that keep backups".to_owned(),
            false => kept.unclear.join("; "),
        };
        return Ok(Decision::Wait(Wait::Backups { why }));
    }
    let restore = restore::choose(asked, kept, situation.major)
        .map_err(|why| Refusal::NothingToRestore { why })?;
    situation.has_room_for(&restore)?;
    Ok(Decision::Begin(Scenario::Restore { begun_anew, restore: Box::new(restore) }))
}

/// From what a start would restore when it has done waiting, where it is to: for people who ask beforehand.
pub fn would_restore(
    settings: &Settings,
    situation: &Situation,
) -> Option<Result<Restore, restore::NoBackup>> {
    let is_new =
        matches!(situation.data_directory, DataDirectory::Empty | DataDirectory::Unfinished);
    let asked = settings.restore.as_ref()?;
    (is_new && settings.repmgr.first_role == Role::Primary)
        .then(|| restore::choose(asked, &situation.kept, situation.major))
}

/// Who keeps us from making a new cluster: whoever has one, or would make one too.
///
/// Of two who would, each has said so (its `Empty` is to be had on its HTTP port) before it asks
/// the other; so at least one of them sees the other. Who sees the other and has the lower name
/// waits until the other has said that it gives way; who has the higher one gives way. Whoever saw
/// nobody begins, and is seen `Preparing` by the other from then on.
fn in_the_way_of_a_first_start(settings: &Settings, situation: &Situation) -> Option<Wait> {
    let reports = || situation.reports();
    // Who asks for a restore names the history that is to go on, and knows that there were others: only
    // data is in the way of that, not what somebody remembers.
    let restores = settings.restore.is_some();
    let has_a_cluster = |report: &Report| match restores {
        true => report.position().is_some(),
        false => report.newest().is_some(),
    };
    if let Some((address, _)) = reports().find(|(_, report)| has_a_cluster(report)) {
        return Some(Wait::NobodyLeads { address: address.clone() });
    }
    if situation.ourselves.had_members && !restores {
        return Some(Wait::DataMissing { pgdata: situation.pgdata.clone() });
    }
    let makes = |report: &Report| report.standing == Standing::Preparing { role: Role::Primary };
    if let Some((address, _)) = reports().find(|(_, report)| makes(report)) {
        return Some(Wait::FirstStartElsewhere { address: address.clone() });
    }
    let ours = (&settings.repmgr.node_name, &situation.ourselves.address);
    let rival = |(address, report): (&Address, &Report)| match report.standing {
        Standing::Empty { first_role: Role::Primary, gives_way: theirs } => {
            let gives_way = (&report.name, &report.address) < ours;
            (gives_way || !theirs).then(|| Wait::Rival {
                address: address.clone(),
                name: report.name.clone(),
                gives_way,
            })
        }
        Standing::Empty { .. }
        | Standing::Preparing { .. }
        | Standing::AtRest { .. }
        | Standing::Serving { .. }
        | Standing::NoData => None,
    };
    reports().find_map(rival)
}

fn restart(
    settings: &Settings,
    situation: &Situation,
    cluster: &Cluster,
) -> Result<Decision, Refusal> {
    let pgdata = || situation.pgdata.clone();
    if cluster.may_be_in_use {
        return Err(Refusal::MaybeInUse { pgdata: pgdata() });
    }
    if cluster.recovering {
        return Err(Refusal::Recovering { pgdata: pgdata() });
    }
    if cluster.half_rewound {
        return Ok(Decision::Begin(Scenario::Replace));
    }
    let was_killed = cluster.control.as_ref().is_some_and(|control| !control.shut_down);
    if let Some(free_mib) = situation.free_mib.filter(|free| was_killed && *free < NEEDS_MIB) {
        let directory = situation.pgdata.join("pg_wal");
        return Ok(Decision::Wait(Wait::NoRoom { directory, free_mib, needed_mib: NEEDS_MIB }));
    }
    match cluster.role {
        // It takes no writes: it may always be started. Whom it follows is seen to once it serves.
        Role::Standby => {
            Ok(Decision::Begin(Scenario::StandbyRestart { moves_in: cluster.moves_in }))
        }
        // It was decided that it is the cluster's data: whether it leads is asked afterwards.
        Role::Primary if cluster.moves_in => Ok(Decision::Begin(Scenario::MoveInRestored)),
        Role::Primary => restart_of_a_primary(settings, situation, cluster),
    }
}

fn restart_of_a_primary(
    settings: &Settings,
    situation: &Situation,
    cluster: &Cluster,
) -> Result<Decision, Refusal> {
    let was_killed = cluster.control.as_ref().is_some_and(|control| !control.shut_down);
    // Where the lead is held while it recovers, nobody else is promoted meanwhile.
    let asks_again = situation.lead == Lead::NotKept && !situation.ourselves.knows_nobody;
    let begin = Decision::Begin(if was_killed && asks_again {
        Scenario::Recovery
    } else {
        let adopted = !cluster.made_here || cluster.restored == Restored::Here;
        Scenario::PrimaryRestart { adopted }
    });
    let Some(control) = &cluster.control else {
        // Not even asked for: there is nobody else.
        return Ok(begin);
    };
    let ours = control.timeline;
    if let Some(wait_or_rejoin) = as_the_record_says(settings, situation, ours, cluster.restored) {
        return Ok(wait_or_rejoin.unwrap_or(begin));
    }
    match situation.leader() {
        Err(two) => return Ok(Decision::Wait(two)),
        Ok(Some((_, timeline))) if timeline > ours => {
            return Ok(Decision::Begin(Scenario::Rejoin { as_standby: false }));
        }
        Ok(Some((address, timeline))) if timeline == ours => {
            return Err(Refusal::SamePrimary {
                address: address.clone(),
                timeline,
                pgdata: situation.pgdata.clone(),
            });
        }
        Ok(Some((address, older))) => {
            return Ok(Decision::Wait(Wait::OlderPrimary {
                address: address.clone(),
                older,
                ours,
            }));
        }
        Ok(None) => {}
    }
    if let Some(wait) = newer_data(situation, ours).or_else(|| same_timeline(situation, control)) {
        return Ok(Decision::Wait(wait));
    }
    if situation.ourselves.leads_alone {
        return Ok(begin);
    }
    Ok(without_a_majority(situation).map_or(begin, Decision::Wait))
}

/// What follows for a former primary on timeline `ours` from the record of who leads, if there is one;
/// `Some(None)`: it leads again. Nobody leads but by the record, so hearsay of a newer timeline, or a
/// server that somebody has promoted by hand, is not asked.
fn as_the_record_says(
    settings: &Settings,
    situation: &Situation,
    ours: Timeline,
    restored: Restored,
) -> Option<Option<Decision>> {
    let wait = |wait| Some(Some(Decision::Wait(wait)));
    match &situation.lead {
        Lead::NotKept | Lead::Free => None,
        Lead::Unknown { why } => wait(Wait::Voters { why: why.clone() }),
        Lead::Handed { to } => wait(Wait::Handed { to: to.clone() }),
        Lead::Held { holder, timeline, .. } if *holder == settings.repmgr.node_name => {
            if restored == Restored::Beside(*timeline) {
                return Some(Some(Decision::Begin(Scenario::MoveInRestored)));
            }
            if *timeline > ours {
                return wait(Wait::OlderThanTheRecord { recorded: *timeline, ours });
            }
            Some(None)
        }
        Lead::Held { holder, address, timeline, .. } => {
            let leads = situation
                .reports()
                .any(|(_, report)| report.name == *holder && report.leads_on().is_some());
            if leads {
                return Some(Some(Decision::Begin(Scenario::Rejoin { as_standby: false })));
            }
            if situation.ourselves.leads_alone {
                return Some(None);
            }
            wait(Wait::LeadElsewhere {
                holder: holder.clone(),
                address: address.clone(),
                timeline: *timeline,
            })
        }
    }
}

/// Somebody who answers has newer data than ours; or somebody has heard of some, and no person has
/// said that whoever has it is gone.
fn newer_data(situation: &Situation, ours: Timeline) -> Option<Wait> {
    let reports = || situation.reports();
    let had = reports().filter_map(|(address, report)| Some((address, report.position()?.0)));
    let heard = reports().map(|(address, report)| (address, report.newest, report.given_up));
    // From somebody who may be silent now.
    let ourselves = &situation.ourselves;
    let noted = (&ourselves.address, ourselves.newest, ourselves.given_up);
    let heard = heard.chain([noted]).filter(|_| !ourselves.leads_alone);
    // Numbers come again: whoever has not heard the word may speak of a newer history.
    let heard = heard.filter_map(|(address, newest, given_up)| {
        let newest = newest?;
        Some((address, given_up.map_or(newest, |gone| gone.instead_of(newest))))
    });
    let (address, newer) = had.chain(heard).find(|(_, newest)| *newest > ours)?;
    Some(Wait::NewerData { address: address.clone(), newer, ours })
}

/// Somebody on our own timeline has what nobody can have who followed us: more than a primary that was
/// shut down in order, or another's end of it.
fn same_timeline(situation: &Situation, control: &ControlData) -> Option<Wait> {
    let ours = (control.timeline, Lsn(control.lsn.0 + SHUTDOWN_RECORD_MAX));
    situation.reports().find_map(|(address, report)| {
        let address = address.clone();
        if let Standing::AtRest { role: Role::Primary, timeline, .. } = report.standing
            && timeline == control.timeline
        {
            return Some(Wait::TwoFormerPrimaries { address, timeline });
        }
        let has_more = control.shut_down && report.position()? > ours;
        has_more.then_some(Wait::MoreData { address, timeline: control.timeline })
    })
}

/// Too few members answer to know that none of the silent ones leads. Where nobody is silent, they
/// have said so themselves; else those who answer have to know, and whoever has lost its disk does not.
fn without_a_majority(situation: &Situation) -> Option<Wait> {
    let known = || situation.sightings.iter().filter(|one| one.known);
    let silent: Vec<_> = known().filter(|one| one.report().is_none()).collect();
    let remembers = |report: &Report| report.newest().is_some();
    let know = known().filter_map(|one| one.report()).filter(|report| remembers(report)).count();
    let members = known().count() + 1; // We are the one.
    let missing = (members / 2 + 1).saturating_sub(know + 1);
    (missing > 0 && !silent.is_empty()).then(|| Wait::Silence {
        silent: silent.into_iter().map(|one| one.address.clone()).collect(),
        missing,
    })
}
