//! Which section of the scenario document applies, and its numbered sequence.
//!
//! Pure: a [`Situation`] goes in, a [`Plan`] comes out, and nothing else happens.
//! `pgherd plan` prints the result and stops there.
//!
//! Three rules make a crash harmless at any moment (`tests/crash_at_every_step` tries every one):
//! - a step says *what must be true afterwards*, so that doing it twice is the same as doing it
//!   once;
//! - a data directory is marked as unfinished before its first file is made, and the mark is
//!   removed when all of it is on disk. A marked directory was never served from: its start is
//!   begun anew. An unmarked one is complete: its start is a restart;
//! - a copy of another node's is made beside, and takes its place when it is complete.

mod backup_node;
mod lead;
mod plan;
mod primary_first_start;
mod primary_restart;
mod recognise;
mod refusal;
mod rejoin;
mod restore;
mod restore_in_place;
mod situation;
mod standby_first_start;
mod standby_restart;
mod step;
mod wait;

pub use plan::{Plan, Stage};
pub use recognise::{NEEDS_MIB, recognise, would_restore};
pub use refusal::Refusal;
pub use restore::{Kept, KeptBy, NoBackup, Restore};
pub use restore_in_place::{NotRestored, RestoredFrom, choose_in_place, foreseen};
pub use situation::{
    BackupsOf, Cluster, DataDirectory, Lead, Ourselves, PortInUse, Restored, Situation,
};
pub use step::{Activity, Patience, Step};
pub use wait::Wait;

use crate::layout::{Layout, Means};
use crate::settings::{Failover, Settings};
use serde::Serialize;

/// One section of the scenario document, or of what belongs between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "scenario", rename_all = "kebab-case")]
pub enum Scenario {
    /// "Master is started for the first time".
    PrimaryFirstStart {
        /// What an interrupted first start left is thrown away first.
        begun_anew: bool,
    },
    /// "Restore DB from backup", on an empty volume.
    Restore {
        /// What an interrupted start left is thrown away first.
        begun_anew: bool,
        /// Which backup, and how far.
        restore: Box<Restore>,
    },
    /// "Restore DB from backup", on the primary of a cluster that runs.
    RestoreInPlace {
        /// Which backup, and how far.
        restore: Box<Restore>,
    },
    /// The same where it was decided, and interrupted then.
    MoveInRestored,
    /// "Master is restarted but still is the master".
    PrimaryRestart {
        /// Another image made it, or it was just restored: nobody is served before it is what we need it
        /// to be.
        adopted: bool,
    },
    /// The same after it was killed, where there are others: it recovers while nobody can reach it,
    /// which may take long, and then asks them again.
    Recovery,
    /// "Slave is started for the first time".
    StandbyFirstStart {
        /// What an interrupted first start left is thrown away first.
        begun_anew: bool,
    },
    /// "Slave is restarted but still is slave".
    StandbyRestart {
        /// A copy is complete, and has not taken its place yet.
        moves_in: bool,
    },
    /// A master that was replaced, or a slave that went another way than its new master: what it
    /// has and the others have not is taken back.
    Rejoin {
        /// It was a standby: it ends its own recovery first.
        as_standby: bool,
    },
    /// The same where that cannot be done: a new copy, beside the old one.
    Replace,
    /// A slave that serves, and whose master has no more of the WAL that it needs next.
    FromArchive,
    /// "Automatic failover", seen from a slave that serves: another node leads now, or does not know
    /// this one yet.
    Follow {
        /// What its data directory replaced is still there.
        replaces: bool,
    },
    /// "Automatic failover", seen from the slave that somebody promoted.
    Promoted,
    /// "Automatic failover", seen from the slave that has every acknowledged write.
    TakeOver,
    /// The planned way of it, seen from the master.
    HandOver {
        /// The slave's node name.
        to: String,
    },
    /// The node that keeps the backups starts, for the first time or again.
    BackupNodeStart,
}

/// What a look at the situation leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This is carried out.
    Begin(Scenario),
    /// Nothing yet: one looks again.
    Wait(Wait),
}

/// Writes the recognised section out as stages and steps.
/// What cannot be done with `means`, and what another node does, is left out; its line stays.
pub fn plan(settings: &Settings, layout: &Layout, means: Means, scenario: Scenario) -> Plan {
    let mut stages = match &scenario {
        Scenario::PrimaryFirstStart { begun_anew } => {
            primary_first_start::stages(settings, layout, *begun_anew)
        }
        Scenario::Restore { begun_anew, restore } => {
            restore::stages(settings, layout, *begun_anew, restore)
        }
        Scenario::RestoreInPlace { restore } => restore_in_place::stages(settings, layout, restore),
        Scenario::MoveInRestored => restore_in_place::move_in(),
        Scenario::PrimaryRestart { adopted: false } => primary_restart::stages(settings),
        Scenario::PrimaryRestart { adopted: true } => primary_restart::adoption(settings),
        Scenario::Recovery => primary_restart::recovery(settings),
        Scenario::StandbyFirstStart { begun_anew } => {
            standby_first_start::stages(settings, layout, *begun_anew)
        }
        Scenario::StandbyRestart { moves_in } => standby_restart::stages(settings, *moves_in),
        Scenario::Rejoin { as_standby } => rejoin::stages(settings, *as_standby),
        Scenario::Replace => rejoin::replacement(settings),
        Scenario::FromArchive => rejoin::from_archive(),
        Scenario::Follow { replaces } => rejoin::follow(*replaces),
        Scenario::Promoted => rejoin::promoted(settings),
        Scenario::TakeOver => lead::take_over(settings),
        Scenario::HandOver { to } => lead::hand_over(to),
        Scenario::BackupNodeStart => backup_node::stages(),
    };
    for stage in &mut stages {
        stage.steps.retain(|step| means == Means::EveryAccount || !step.needs_root());
        stage.steps.retain(|step| settings.herd.keeps_backups() || !step.is_for_backups());
        let record_is_kept = settings.herd.failover == Failover::Quorum;
        stage.steps.retain(|step| record_is_kept || *step != Step::TakeLead);
    }
    Plan { scenario, stages }
}
