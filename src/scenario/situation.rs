//! The facts [`recognise`](super::recognise) may look at, gathered once at the start.

use super::Refusal;
use crate::layout::Major;
use std::path::PathBuf;

/// What was found before anything was touched.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The image's PostgreSQL.
    pub major: Major,
    /// Where the cluster is, or goes.
    pub pgdata: PathBuf,
    /// `POSTGRES_DATA_DIR`.
    pub data_dir: PathBuf,
    /// What is in `pgdata`.
    pub data_directory: DataDirectory,
    /// The user id it belongs to. `None` when it is not there.
    pub owner_uid: Option<u32>,
    /// Whom Postgres will run as.
    pub postgres_uid: u32,
    /// Room on the volume, in MiB. `None` when it cannot be told.
    pub free_mib: Option<u64>,
    /// Ports of ours that somebody else listens on.
    pub ports_in_use: Vec<PortInUse>,
    /// A mount point below `data_dir` that the cluster would not be on.
    pub mounted_elsewhere: Option<PathBuf>,
    /// Whose backups are in barman's directory.
    pub backups_of: Option<BackupsOf>,
}

/// What barman's directory says about the cluster it has backups of.
pub type BackupsOf = (PathBuf, String);

/// A port of ours that somebody else listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortInUse {
    /// The port.
    pub port: u16,
    /// The variable it comes from.
    pub variable: &'static str,
}

/// What the data directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataDirectory {
    /// Missing, or there with nothing in it (`lost+found` is nothing).
    Empty,
    /// A first start began to make a cluster here, and did not end.
    Unfinished,
    /// A cluster of the image's major version.
    Cluster {
        /// It has a `standby.signal` or a `recovery.signal`.
        standby: bool,
        /// pgherd has had it before, and then whoever uses it holds its lock.
        made_here: bool,
        /// It was not made here, and its server was not shut down: it may run at this moment, in
        /// a container that knows nothing of our lock, and its process id says nothing here.
        may_be_in_use: bool,
    },
    /// A cluster of another major version.
    OtherMajor {
        /// `PG_VERSION`.
        found: String,
    },
    /// `PG_VERSION` is there, and `pg_controldata` cannot read the rest.
    Broken {
        /// Its words.
        reason: String,
    },
    /// Something that could not be looked at. It may be anybody's data.
    Unreadable {
        /// What stood in the way.
        reason: String,
    },
    /// Something else.
    Foreign {
        /// Some names of what is there.
        found: String,
    },
}

impl Situation {
    /// Nothing stands in the way of any start.
    pub(super) fn usable(&self) -> Result<(), Refusal> {
        if let Some(PortInUse { port, variable }) = self.ports_in_use.first().copied() {
            return Err(Refusal::PortInUse { port, variable });
        }
        match (&self.data_directory, self.owner_uid) {
            // Of a directory of somebody else's, no more can be told than that.
            (
                DataDirectory::Cluster { .. }
                | DataDirectory::Broken { .. }
                | DataDirectory::Unreadable { .. },
                Some(uid),
            ) if uid != self.postgres_uid => Err(Refusal::OtherOwner {
                pgdata: self.pgdata.clone(),
                uid,
                expected: self.postgres_uid,
            }),
            _ => Ok(()),
        }
    }

    /// A new cluster has room, and what it stands on is kept.
    pub(super) fn fit_for_a_first_start(&self, needed_mib: u64) -> Result<(), Refusal> {
        if let Some(mounted) = &self.mounted_elsewhere {
            return Err(Refusal::MountedElsewhere {
                mounted: mounted.clone(),
                pgdata: self.pgdata.clone(),
                data_dir: self.data_dir.clone(),
            });
        }
        if let Some((directory, found)) = &self.backups_of {
            return Err(Refusal::ForeignBackups {
                directory: directory.clone(),
                pgdata: self.pgdata.clone(),
                found: found.clone(),
            });
        }
        match (&self.data_directory, self.free_mib) {
            // What an interrupted start left makes room by being thrown away.
            (DataDirectory::Unfinished, _) => Ok(()),
            (_, Some(free_mib)) if free_mib < needed_mib => {
                Err(Refusal::NoRoom { directory: self.pgdata.clone(), free_mib, needed_mib })
            }
            _ => Ok(()),
        }
    }
}
