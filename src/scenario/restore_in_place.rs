//! "Restore DB from backup" on a cluster that runs: its primary does it, and leads all the while.
//!
//! What is restored is made beside the data directory and recovered there, out of reach, to its end. Up to
//! then nothing has changed, and whatever interrupts it is followed by a start on what there was. It is not
//! followed by two primaries: the one that serves has stopped in order before the other is started, and the
//! lease is kept, so nobody takes over. One change decides: that of the record, which then names a timeline
//! that no other node has ([`Step::ReplaceHistory`]); where no record is kept, the copy's new name. From then
//! on what was restored takes its place, at the next start if not now.
//!
//! The others go another way than their primary then, and see to that as they do after any failover.

use super::plan::{Stage, stage};
use super::restore::{Kept, NoBackup, Restore, choose};
use super::step::Step;
use crate::cluster::{Lsn, SystemId, Timeline};
use crate::layout::{Layout, Major};
use crate::service::ServiceName;
use crate::settings::{RestoreSettings, Settings, TargetTimeline};
use std::cmp::Reverse;
use std::fmt::Write;

/// The cluster that is to be restored, as its primary is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredFrom {
    /// Of the image.
    pub major: Major,
    /// Which cluster it is.
    pub system: SystemId,
    /// It is on this timeline.
    pub timeline: Timeline,
    /// It has written up to here.
    pub lsn: Lsn,
    /// Room on the volume, in MiB. `None` when it cannot be told.
    pub free_mib: Option<u64>,
}

/// Why it is not restored. `Display` ends in the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRestored {
    /// No backup serves.
    #[error("{0}")]
    NoBackup(NoBackup),
    /// Whoever might have one could not be asked.
    #[error("no node that answers has a backup; not asked: {0}")]
    NotAsked(String),
    /// It would be another cluster.
    #[error(
        "backup {id} is of another cluster (system identifier {theirs}, not {ours}): bring it back on an \
         empty volume (RESTORE_FROM)"
    )]
    OtherCluster {
        /// Which.
        id: String,
        /// Its cluster.
        theirs: SystemId,
        /// Ours.
        ours: SystemId,
    },
    /// Its WAL does not come, and what was written last would be lost for that.
    #[error(
        "the archive has nothing of timeline {ours}, on which the cluster is: it ends on {theirs}. See why \
         barman receives no WAL (barman check), or say that you want no more: --target-timeline {theirs}"
    )]
    Behind {
        /// Ours.
        ours: Timeline,
        /// The newest in the archive.
        theirs: Timeline,
    },
    /// Somebody was promoted once, and is not followed any more.
    #[error(
        "the archive goes on with timeline {theirs}, and this cluster is on {ours}, which leads elsewhere. For the \
         way that the cluster is on: --target-timeline {ours}; for the other one, and to lose what was written \
         since they parted: --target-timeline {theirs}"
    )]
    OtherWay {
        /// Ours.
        ours: Timeline,
        /// The newest in the archive.
        theirs: Timeline,
    },
    /// What there is stays until it is replaced.
    #[error(
        "the volume has {free_mib} MiB free, and to bring backup {id} back beside what is there takes \
         {needed_mib} MiB: give it more room"
    )]
    NoRoom {
        /// Which backup.
        id: String,
        /// What there is.
        free_mib: u64,
        /// What is needed.
        needed_mib: u64,
    },
}

/// The backup that serves, if all that can be told beforehand is well.
pub fn choose_in_place(
    asked: &RestoreSettings,
    mut kept: Kept,
    from: &RestoredFrom,
) -> Result<Restore, NotRestored> {
    if kept.archives.iter().all(|(_, archive)| archive.backups.is_empty())
        && !kept.unclear.is_empty()
    {
        return Err(NotRestored::NotAsked(kept.unclear.join("; ")));
    }
    // A node that kept them until it was replaced has an end of its own.
    kept.archives.sort_by_key(|(_, archive)| Reverse(archive.newest_timeline()));
    let restore = choose(asked, &kept, from.major).map_err(NotRestored::NoBackup)?;
    let id = || restore.backup.id.clone();
    let theirs = restore.timeline;
    if asked.timeline == TargetTimeline::Latest && theirs > from.timeline {
        return Err(NotRestored::OtherWay { ours: from.timeline, theirs });
    }
    if restore.backup.system != from.system {
        let (theirs, ours) = (restore.backup.system, from.system);
        return Err(NotRestored::OtherCluster { id: id(), theirs, ours });
    }
    if asked.timeline == TargetTimeline::Latest && restore.timeline < from.timeline {
        return Err(NotRestored::Behind { ours: from.timeline, theirs: restore.timeline });
    }
    let needed_mib = restore.needs_mib();
    match from.free_mib.filter(|free_mib| *free_mib < needed_mib) {
        Some(free_mib) => Err(NotRestored::NoRoom { id: id(), free_mib, needed_mib }),
        None => Ok(restore),
    }
}

/// What is going to happen, and what is lost by it, for a person to say yes to.
pub fn foreseen(restore: &Restore, from: &RestoredFrom, node: &str, standbys: &[String]) -> String {
    let RestoredFrom { timeline, lsn, .. } = from;
    let end = restore.up_to();
    let mut text = format!("{node} brings back {restore} and replays up to {end}.\n");
    let _ = match &restore.target {
        None if restore.timeline == *timeline => writeln!(
            text,
            "Nothing is lost (it is at {lsn} on timeline {timeline}); if barman has not received all of it by \
             then, nothing is changed."
        ),
        None => writeln!(
            text,
            "LOST: all that was written after the end of timeline {} (it is at {lsn} on timeline {timeline}).",
            restore.timeline
        ),
        Some(_) => writeln!(
            text,
            "LOST: all that was written after {end}, to where {node} is when it stops (now at {lsn} on \
             timeline {timeline})."
        ),
    };
    let _ = writeln!(
        text,
        "It serves while the backup is copied and checked. Then nobody takes writes until it has replayed."
    );
    if !standbys.is_empty() {
        let _ = writeln!(
            text,
            "Its slaves ({}) follow what was restored then: rewound, or cloned again.",
            standbys.join(", ")
        );
    }
    if restore.pauses {
        text.push_str("It waits for a person before it takes writes (its log says how to look).\n");
    }
    text.push_str("What there is now stays beside it until that serves; a new backup follows.");
    text
}

#[rustfmt::skip] // A line, then what it takes.
pub(super) fn stages(settings: &Settings, layout: &Layout, restore: &Restore) -> Vec<Stage> {
    let port = settings.postgres.technical_port;
    let restore = || Box::new(restore.clone());
    vec![
        stage("Find the backup that serves", [
            // It is what selected this plan.
        ]),
        stage("Bring the backup back, beside what serves", [
            Step::DiscardCopy,
            Step::DiscardOld, // What is replaced now has to go where that is.
            Step::BringBack { restore: restore(), pgdata: layout.work.clone.clone() },
        ]),
        stage("Take no more writes", [
            Step::Checkpoint,
            Step::Cease { service: ServiceName::Crond },
            Step::Cease { service: ServiceName::Repmgrd },
            Step::StopPostgres,
        ]),
        stage("Recover on technical port", [
            Step::RecoverBeside { restore: restore(), port },
        ]),
        replace(),
    ]
}

/// Of what was interrupted when it had been decided.
pub(super) fn move_in() -> Vec<Stage> {
    vec![replace()]
}

fn replace() -> Stage {
    stage("Put it in the place of what was there", [Step::ReplaceHistory, Step::MoveIn])
}
