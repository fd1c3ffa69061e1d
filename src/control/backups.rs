//! How the backups are, on the node that keeps them. Looked at seldom, and in barman's files only: each of
//! its commands costs half a second of a core. Who leads is known here, so barman's job is begun as soon as
//! that changes, and does not wait for cron's next minute.

mod news;

use super::copies;
use super::node::Event;
use super::snapshot::Snapshot;
use super::{NodeRole, NodeStatus};
use crate::barman::{self, Shelf};
use crate::cluster::{
    Archive, BackupsSeen, BackupsState, Lsn, Moment, NodeState, Timeline, Verified,
};
use crate::execute::Hands;
use crate::settings::NodeKind;
use crate::system::error::chain;
use crate::system::wait;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info};

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A segment that is full is sent within milliseconds; a receiver that is begun anew by cron takes a minute.
const BEHIND_AT_MOST: Duration = Duration::from_secs(150);
/// The first one is taken within two minutes of a start.
const FIRST_WITHIN: Duration = Duration::from_secs(10 * 60);
/// What is always to be left on barman's volume.
const FREE_MIB_MIN: u64 = 256;

/// What was looked at.
struct Looked<'a> {
    shelf: &'a Shelf,
    /// From one scheduled backup to the next, at most.
    distance: Duration,
    now: Moment,
    /// Since the node has begun.
    up: Duration,
    /// So long barman has had less than the primary has written.
    behind: Duration,
}

/// As long as there is a node that keeps backups.
pub(super) async fn watch(
    hands: Arc<Hands>,
    mut snapshots: watch::Receiver<Snapshot>,
    sender: mpsc::Sender<Event>,
) {
    if !hands.settings.herd.keeps_backups() || !hands.ourselves.is_root() {
        return;
    }
    let (began, distance) = (Instant::now(), hands.settings.barman.schedule.distance_at_most());
    let copying = copies::begin(&hands, &snapshots);
    let mut behind_since: Option<Instant> = None;
    let mut led: Option<(String, Timeline)> = None;
    let mut before: Option<Shelf> = None;
    loop {
        let primary = primary(&snapshots.borrow_and_update());
        if keeps_them_now(&hands, primary.as_ref()) {
            if let Some(shelf) = look(&hands).await {
                let epoch = snapshots.borrow().epoch;
                for (id, text) in before.iter().flat_map(|before| news::between(before, &shelf)) {
                    hands.journal.note(id, epoch, None, text);
                }
                let is_behind = primary.as_ref().is_some_and(|one| is_behind(&shelf.archive, one));
                behind_since = is_behind.then(|| behind_since.unwrap_or_else(Instant::now));
                let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
                let now = Moment::from_seconds(since_1970.as_secs());
                let mut seen = judged(&Looked {
                    shelf: &shelf,
                    distance,
                    now,
                    up: began.elapsed(),
                    behind: behind_since.map_or(Duration::ZERO, |since| since.elapsed()),
                });
                seen.node.clone_from(&hands.settings.repmgr.node_name);
                if let (Some(cloud), Some(copied)) = (&hands.settings.barman.cloud, &shelf.copied) {
                    let tried = copying.borrow().clone();
                    let (copies, warning) = copies::judged(&cloud.url, copied, &tried, now);
                    seen.copies = Some(copies);
                    seen.warnings.extend(warning);
                }
                before = Some(shelf);
                if sender.send(Event::Backups(Some(Box::new(seen)))).await.is_err() {
                    return;
                }
            }
        } else if sender.send(Event::Backups(None)).await.is_err() {
            return;
        }
        let keeps = keeps_them_now(&hands, primary.as_ref());
        let leads = primary.map(|one| (one.name, one.timeline));
        let changed = leads.is_some() && led.is_some() && leads != led;
        led = leads.or(led);
        if changed && keeps {
            info!("another node leads, or on another timeline: barman is told at once");
            tokio::spawn(job(Arc::clone(&hands)));
        }
        let mut changes = snapshots.clone();
        let known = led.clone();
        let another = changes.wait_for(|seen| {
            let now = self::primary(seen).map(|one| (one.name, one.timeline));
            now.is_some() && known.is_some() && now != known
        });
        tokio::select! {
            () = wait::back_off(LOOK_EVERY) => {}
            changed = another => if changed.is_err() { return },
        }
    }
}

/// The one that leads.
pub(super) struct Primary {
    name: String,
    timeline: Timeline,
    lsn: Lsn,
}

pub(super) fn primary(seen: &Snapshot) -> Option<Primary> {
    let leads = |node: &&NodeStatus| {
        node.role == Some(NodeRole::Primary) && node.state == NodeState::Running
    };
    let node = seen.nodes.iter().find(leads)?;
    Some(Primary { name: node.name.clone(), timeline: node.timeline?, lsn: node.lsn? })
}

/// A data node's barman looks at the server beside it, which is of use while that leads.
pub(super) fn keeps_them_now(hands: &Hands, primary: Option<&Primary>) -> bool {
    let own = &hands.settings.repmgr.node_name;
    hands.settings.herd.kind == NodeKind::Backup || primary.is_some_and(|one| one.name == *own)
}

async fn look(hands: &Arc<Hands>) -> Option<Shelf> {
    let hands = Arc::clone(hands);
    let look = move || barman::look(&hands.settings, &hands.barman);
    tokio::task::spawn_blocking(look).await.ok()
}

/// What cron does each minute.
async fn job(hands: Arc<Hands>) {
    if let Err(error) = barman::begin_job(&hands.layout, &hands.barman).await {
        debug!("barman's job: {}", chain(&error));
    }
}

/// The primary has finished a file that is not here, or writes on a timeline of which nothing is.
fn is_behind(archive: &Archive, primary: &Primary) -> bool {
    archive.end_of(primary.timeline).is_none_or(|end| primary.lsn > end)
}

fn judged(looked: &Looked<'_>) -> BackupsSeen {
    let Looked { shelf, distance, now, up, behind } = looked;
    let Shelf { archive, running_bytes, free_mib, failed, wal_age, stages: _, copied: _ } = shelf;
    let newest = archive.backups.iter().max_by_key(|backup| backup.ended);
    let age = newest.map(|backup| now.seconds_since(backup.ended));
    let mut warnings = Vec::new();
    let mut state = if newest.is_some() { BackupsState::Ok } else { BackupsState::None };
    let mut says = |is: BackupsState, warning: String| {
        state = state.max(is);
        warnings.push(warning);
    };
    match age {
        None if *up > FIRST_WITHIN => says(
            BackupsState::None,
            "there is no backup yet: barman's lines in the log of the node that keeps them say why"
                .to_owned(),
        ),
        Some(age) if age > 2 * distance.as_secs() => says(
            BackupsState::Overdue,
            format!(
                "the newest backup is {} old, and BARMAN_SCHEDULE has one every {}: barman check says \
                 what keeps it",
                span(age),
                span(distance.as_secs())
            ),
        ),
        None | Some(_) => {}
    }
    if *behind > BEHIND_AT_MOST {
        says(
            BackupsState::Standing,
            format!(
                "barman has not received WAL that the primary wrote {} ago: barman check says why",
                span(behind.as_secs())
            ),
        );
    }
    let another_mib = newest.map_or(0, |backup| backup.bytes / (1 << 20)) + FREE_MIB_MIN;
    if let Some(free_mib) = free_mib.filter(|free_mib| *free_mib < another_mib) {
        says(
            BackupsState::Filling,
            format!(
                "barman's volume has {free_mib} MiB free, and another backup takes {another_mib}: give it \
                 more room, or keep less (BARMAN_RETENTION)"
            ),
        );
    }
    for backup in &archive.backups {
        if let Some(Verified { wrong: Some(why), .. }) = &backup.verified {
            let id = &backup.id;
            says(BackupsState::Failed, format!("backup {id} does not restore: {why}"));
        }
    }
    if *failed {
        says(
            BackupsState::Failed,
            "the last base backup failed: barman's lines in the log of the node that keeps them say why"
                .to_owned(),
        );
    }
    BackupsSeen {
        node: String::new(),
        last: newest.map(|backup| backup.id.clone()),
        age_seconds: age,
        window_seconds: archive.backups.iter().map(|backup| now.seconds_since(backup.ended)).max(),
        count: archive.backups.len(),
        state,
        wal_age_seconds: wal_age.as_ref().map(Duration::as_secs),
        copies: None,
        running_bytes: *running_bytes,
        warnings,
    }
}

/// `3 h`, `2 days`.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Backup, SystemId};

    fn archive(ended: &[&str]) -> Archive {
        let backup = |ended: &&str| Backup {
            id: (*ended).to_owned(),
            name: None,
            system: SystemId(7),
            timeline: Timeline(1),
            begin: Lsn(1),
            end: Lsn(2),
            ended: ended.parse().unwrap(),
            bytes: 1 << 30,
            major: 17,
            unfit: None,
            verified: None,
        };
        Archive {
            name: "pgherd".to_owned(),
            backups: ended.iter().map(backup).collect(),
            histories: Vec::new(),
            ends: vec![(Timeline(1), Lsn(100))],
        }
    }

    #[test]
    fn what_a_person_should_see_to_is_said() {
        let shelf = |archive: Archive| Shelf {
            archive,
            stages: std::collections::BTreeMap::new(),
            running_bytes: None,
            free_mib: Some(5000),
            failed: false,
            copied: None,
            wal_age: Some(Duration::from_secs(3)),
        };
        let two = shelf(archive(&["2026-11-19 03:00:00", "2026-11-20 03:00:00"]));
        let none = shelf(archive(&[]));
        let day = Duration::from_secs(86_400);
        let fine = || Looked {
            shelf: &two,
            distance: day,
            now: "2026-11-21 02:00:00".parse().unwrap(),
            up: day,
            behind: Duration::ZERO,
        };
        let seen = judged(&fine());
        assert_eq!((seen.state, seen.count, seen.age_seconds), (BackupsState::Ok, 2, Some(82_800)));
        assert!(seen.warnings.is_empty(), "{seen:?}");
        let state = |looked: Looked<'_>, words: &str| {
            let seen = judged(&looked);
            assert!(seen.warnings.iter().any(|line| line.contains(words)), "{words}: {seen:?}");
            seen.state
        };
        let late = "2026-11-22 04:00:00".parse().unwrap();
        assert_eq!(state(Looked { now: late, ..fine() }, "2 days old"), BackupsState::Overdue);
        let behind = Duration::from_secs(200);
        assert_eq!(state(Looked { behind, ..fine() }, "3 min ago"), BackupsState::Standing);
        let full = Shelf { free_mib: Some(1000), ..two.clone() };
        assert_eq!(state(Looked { shelf: &full, ..fine() }, "1000 MiB"), BackupsState::Filling);
        let failed = Shelf { failed: true, ..two.clone() };
        assert_eq!(state(Looked { shelf: &failed, ..fine() }, "failed"), BackupsState::Failed);
        assert_eq!(state(Looked { shelf: &none, ..fine() }, "no backup yet"), BackupsState::None);
        let fresh = judged(&Looked { shelf: &none, up: Duration::ZERO, ..fine() });
        assert!(fresh.warnings.is_empty() && fresh.state == BackupsState::None, "{fresh:?}");
    }

    #[test]
    fn wal_is_behind_where_a_whole_file_or_a_timeline_is_missing() {
        let at = |timeline, lsn| Primary {
            name: "node1".to_owned(),
            timeline: Timeline(timeline),
            lsn: Lsn(lsn),
        };
        assert!(!is_behind(&archive(&[]), &at(1, 100)));
        assert!(is_behind(&archive(&[]), &at(1, 101)) && is_behind(&archive(&[]), &at(2, 50)));
    }
}
