//! Which section of the scenario document applies, and its numbered sequence.
//!
//! Pure: a [`Situation`] goes in, a [`Plan`] comes out, and nothing else happens.
//! `pgherd plan` prints the result and stops there.
//!
//! Two rules make a crash harmless at any moment (`tests/crash_at_every_step` tries every one):
//! - a step says *what must be true afterwards*, so that doing it twice is the same as doing it
//!   once;
//! - a data directory is marked as unfinished before its first file is made, and the mark is
//!   removed when all of it is on disk. A marked directory was never served from: its start is
//!   begun anew. An unmarked one is complete: its start is a restart.

mod plan;
mod primary_first_start;
mod primary_restart;
mod situation;
mod step;

pub use plan::{Plan, Stage};
pub use situation::{BackupsOf, DataDirectory, PortInUse, Situation};
pub use step::Step;

use crate::cluster::Role;
use crate::layout::{Layout, Major, Means};
use crate::settings::Settings;
use serde::Serialize;
use std::path::PathBuf;

/// One section of the scenario document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "scenario", rename_all = "kebab-case")]
pub enum Scenario {
    /// "Master is started for the first time".
    PrimaryFirstStart {
        /// What an interrupted first start left is thrown away first.
        begun_anew: bool,
    },
    /// "Master is restarted but still is the master".
    PrimaryRestart,
}

/// Why nothing is done, and what the operator can do about it. One line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Files, but no cluster.
    #[error(
        "{} is not empty and holds no database cluster (found: {found}); \
         empty it, mount another volume, or name another place with PGDATA", .pgdata.display()
    )]
    ForeignFiles {
        /// The data directory.
        pgdata: PathBuf,
        /// Some of what is in it.
        found: String,
    },
    /// A cluster without the file everything else depends on.
    #[error(
        "{} holds a database cluster that cannot be read: {reason}; nothing was changed; \
         look at the disk, or restore the cluster from a backup", .pgdata.display()
    )]
    BrokenCluster {
        /// The data directory.
        pgdata: PathBuf,
        /// What `pg_controldata` said.
        reason: String,
    },
    /// It may be anybody's data.
    #[error(
        "cannot look at {}: {reason}; nothing was changed; see to it that uid {expected} may read \
         it, and start again", .pgdata.display()
    )]
    CannotLook {
        /// The data directory.
        pgdata: PathBuf,
        /// What stood in the way.
        reason: String,
        /// Whom Postgres runs as.
        expected: u32,
    },
    /// Two servers on one directory would destroy it.
    #[error(
        "{} was made by another image and its server was not shut down: it may be running; stop \
         that container with docker stop (if it crashed, start it once more with its own image, \
         then stop it), and start this one again", .pgdata.display()
    )]
    MaybeInUse {
        /// The data directory.
        pgdata: PathBuf,
    },
    /// A cluster of another major version.
    #[error(
        "{} was made by PostgreSQL {found}, and this image carries {ours}; \
         use the image for {found}, or bring the data over with pg_upgrade or pg_dump", .pgdata.display()
    )]
    OtherMajor {
        /// The data directory.
        pgdata: PathBuf,
        /// `PG_VERSION`.
        found: String,
        /// The image's.
        ours: Major,
    },
    /// Files that Postgres may not touch.
    #[error(
        "{} belongs to uid {uid}, and Postgres runs as {expected}: another image made it, or the \
         container runs as another user; stop whatever uses it, then chown -R {expected} it",
        .pgdata.display()
    )]
    OtherOwner {
        /// The data directory.
        pgdata: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Whose it should be.
        expected: u32,
    },
    /// Nothing can be written.
    #[error(
        "{} cannot be written ({reason}); mount the volume read-write, owned by uid {expected}",
        .directory.display()
    )]
    NotWritable {
        /// The directory that was tried.
        directory: PathBuf,
        /// What the kernel said.
        reason: String,
        /// Whom Postgres runs as.
        expected: u32,
    },
    /// A first start needs some room.
    #[error(
        "{} has {free_mib} MiB free, and a first start needs {needed_mib} MiB; \
         give the volume more room", .directory.display()
    )]
    NoRoom {
        /// Where the cluster would go.
        directory: PathBuf,
        /// What there is.
        free_mib: u64,
        /// What is needed.
        needed_mib: u64,
    },
    /// Somebody listens where we should.
    #[error(
        "port {port} is taken by another process of this network (network_mode: host?); \
         stop it, or choose another port with {variable}"
    )]
    PortInUse {
        /// The port.
        port: u16,
        /// The variable that changes it.
        variable: &'static str,
    },
    /// Data that would be lost with the container.
    #[error(
        "a volume is mounted at {} and holds no cluster, but the cluster goes to {}, outside of it; \
         mount the volume at {}, or set PGDATA={}/pgdata",
        .mounted.display(), .pgdata.display(), .data_dir.display(), .mounted.display()
    )]
    MountedElsewhere {
        /// The mount point.
        mounted: PathBuf,
        /// Where the cluster would go.
        pgdata: PathBuf,
        /// `POSTGRES_DATA_DIR`.
        data_dir: PathBuf,
    },
    /// The backups of another cluster would be mixed with ours.
    #[error(
        "{} holds backups of a database cluster (system identifier {found}) that is not in {}: is \
         this the right data volume, and the right image? To begin another cluster, give it \
         another BARMAN_BACKUP_DIR, or another volume there", .directory.display(), .pgdata.display()
    )]
    ForeignBackups {
        /// barman's directory of this cluster.
        directory: PathBuf,
        /// Where a new cluster would go.
        pgdata: PathBuf,
        /// Whose backups they are.
        found: String,
    },
    /// A restore is asked for.
    #[error(
        "RESTORE_FROM is set, and this version does not restore by itself; README, \"Bring a backup \
         back\", says how to by hand; remove it to begin an empty cluster in {}", .pgdata.display()
    )]
    RestoreNotYet {
        /// Where an empty cluster would go.
        pgdata: PathBuf,
    },
    /// A slave is asked for.
    #[error("REPMGR_MASTER is false, and this version starts masters only; set REPMGR_MASTER=true")]
    StandbyNotYet,
    /// A standby's directory.
    #[error(
        "{} is a standby's or in the middle of a recovery (it has a standby.signal or a \
         recovery.signal), and this version runs masters only; start it with the image that made \
         it, and promote it there", .pgdata.display()
    )]
    StandbyDirectory {
        /// The data directory.
        pgdata: PathBuf,
    },
}

/// An empty cluster takes 40 MB and its WAL 16 MB more (PostgreSQL 15 and 17, measured);
/// the rest is so that Postgres has room to stop in order.
const FIRST_START_NEEDS_MIB: u64 = 128;

/// Names the section that applies. The disk outranks the environment: `REPMGR_MASTER` is asked
/// only when the disk is empty.
pub fn recognise(settings: &Settings, situation: &Situation) -> Result<Scenario, Refusal> {
    situation.usable()?;
    let pgdata = || situation.pgdata.clone();
    match &situation.data_directory {
        DataDirectory::Empty | DataDirectory::Unfinished => {
            situation.fit_for_a_first_start(FIRST_START_NEEDS_MIB)?;
            if settings.not_yet.contains(&"RESTORE_FROM") {
                return Err(Refusal::RestoreNotYet { pgdata: pgdata() });
            }
            match settings.repmgr.first_role {
                Role::Primary => Ok(Scenario::PrimaryFirstStart {
                    begun_anew: situation.data_directory == DataDirectory::Unfinished,
                }),
                Role::Standby => Err(Refusal::StandbyNotYet),
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
        DataDirectory::Cluster { may_be_in_use: true, .. } => {
            Err(Refusal::MaybeInUse { pgdata: pgdata() })
        }
        DataDirectory::Cluster { standby: true, .. } => {
            Err(Refusal::StandbyDirectory { pgdata: pgdata() })
        }
        DataDirectory::Cluster { .. } => Ok(Scenario::PrimaryRestart),
    }
}

/// Writes the recognised section out as stages and steps.
/// What cannot be done with `means` is left out; its line stays.
pub fn plan(settings: &Settings, layout: &Layout, means: Means, scenario: Scenario) -> Plan {
    let mut stages = match &scenario {
        Scenario::PrimaryFirstStart { begun_anew } => {
            primary_first_start::stages(settings, layout, *begun_anew)
        }
        Scenario::PrimaryRestart => primary_restart::stages(settings),
    };
    for stage in &mut stages {
        stage.steps.retain(|step| means == Means::EveryAccount || !step.needs_root());
    }
    Plan { scenario, stages }
}
