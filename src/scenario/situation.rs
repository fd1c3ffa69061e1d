//! The facts [`recognise`](super::recognise) may look at, gathered once at the start.

use super::{Kept, Refusal, Restore, Wait};
use crate::cluster::{Address, ControlData, GivenUp, Report, Role, Sighting, SystemId, Timeline};
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
    /// Room on the volume, in MiB; where its WAL is on another, on whichever has less. `None` when it cannot
    /// be told.
    pub free_mib: Option<u64>,
    /// Ports of ours that somebody else listens on.
    pub ports_in_use: Vec<PortInUse>,
    /// A mount point below `data_dir` that the cluster would not be on.
    pub mounted_elsewhere: Option<PathBuf>,
    /// Whose backups are in barman's directory.
    pub backups_of: Option<BackupsOf>,
    /// What there is to restore from, where that is asked for.
    pub kept: Kept,
    /// This node, as the others know it.
    pub ourselves: Ourselves,
    /// What every other member says that is configured, registered or remembered.
    pub sightings: Vec<Sighting>,
    /// What the cluster's record says about who leads.
    pub lead: Lead,
}

/// What the record says that the voters keep, at a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lead {
    /// There is none: `PGHERD_FAILOVER` is manual.
    NotKept,
    /// It could not be read just now.
    Unknown {
        /// Why, in words.
        why: String,
    },
    /// There is none yet: nobody has ever led.
    Free,
    /// Somebody leads, or led last.
    Held {
        /// The node's name.
        holder: String,
        /// Where it is.
        address: Address,
        /// Which cluster it leads.
        system: SystemId,
        /// On which timeline it leads.
        timeline: Timeline,
    },
    /// It was handed to another one, whose turn it is for a moment.
    Handed {
        /// To whom.
        to: String,
    },
}

/// This node, as the others know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ourselves {
    /// Where they find it.
    pub address: Address,
    /// The newest timeline that it has heard of in its life.
    pub newest: Option<Timeline>,
    /// A person has said that whoever has these is gone.
    pub given_up: Option<GivenUp>,
    /// It remembers others that were members with it.
    pub had_members: bool,
    /// Nobody else is configured or remembered.
    pub knows_nobody: bool,
    /// A person has said that whoever is silent is gone.
    pub leads_alone: bool,
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
    Cluster(Cluster),
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

/// A cluster of the image's major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// What it was when it last ran: a standby has a `standby.signal`.
    pub role: Role,
    /// It has a `recovery.signal`.
    pub recovering: bool,
    /// What its control file says. Not looked at where there is nobody to compare with, and where
    /// it has not taken its place yet.
    pub control: Option<ControlData>,
    /// pgherd has had it before, and then whoever uses it holds its lock.
    pub made_here: bool,
    /// It was not made here, and its server was not shut down: it may run at this moment, in
    /// a container that knows nothing of our lock, and its process id says nothing here.
    pub may_be_in_use: bool,
    /// `pg_rewind` began and did not end.
    pub half_rewound: bool,
    /// It is a complete copy that has not taken its place yet.
    pub moves_in: bool,
    /// What a restore on the running cluster has left.
    pub restored: Restored,
}

/// What a restore on a running cluster has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restored {
    /// Nothing, or what is thrown away.
    #[default]
    Nothing,
    /// It is complete beside the data directory, on this timeline. The record says whether it counts.
    Beside(Timeline),
    /// It is in the data directory, and what stands in it about other nodes is old.
    Here,
}

impl Situation {
    /// Who has said something, and what.
    pub(super) fn reports(&self) -> impl Iterator<Item = (&Address, &Report)> {
        self.sightings.iter().filter_map(|one| Some((&one.address, one.report()?)))
    }

    /// Who takes writes, on which timeline: of several the one with the newest history, because the
    /// others were replaced.
    pub(super) fn leader(&self) -> Result<Option<(&Address, Timeline)>, Wait> {
        let leader = Situation::leader_among(&self.sightings)?;
        Ok(leader.map(|(timeline, report)| (&report.address, timeline)))
    }

    /// The same of any sightings.
    pub fn leader_among(sightings: &[Sighting]) -> Result<Option<(Timeline, &Report)>, Wait> {
        let reports = sightings.iter().filter_map(Sighting::report);
        let mut claims: Vec<_> = reports.filter_map(|one| Some((one.leads_on()?, one))).collect();
        claims.sort_by_key(|(timeline, _)| std::cmp::Reverse(*timeline));
        match claims.as_slice() {
            [(newest, first), (timeline, second), ..] if newest == timeline => {
                Err(Wait::TwoPrimaries {
                    first: first.address.clone(),
                    second: second.address.clone(),
                    timeline: *timeline,
                })
            }
            claims => Ok(claims.first().copied()),
        }
    }

    /// Nobody who answers belongs to another cluster: not by name, and whoever leads not by what
    /// our own data, if any, is a copy of.
    pub(super) fn of_our_cluster(&self, name: &str, ours: Option<SystemId>) -> Result<(), Refusal> {
        for (address, report) in self.reports() {
            if report.cluster != name {
                return Err(Refusal::OtherName {
                    address: address.clone(),
                    theirs: report.cluster.clone(),
                    ours: name.to_owned(),
                });
            }
            match (report.leads_on(), report.system, ours) {
                (Some(_), Some(theirs), Some(ours)) if theirs != ours => {
                    return Err(Refusal::AnotherCluster {
                        address: address.clone(),
                        theirs,
                        ours,
                        pgdata: self.pgdata.clone(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Nothing stands in the way of any start.
    pub(super) fn usable(&self) -> Result<(), Refusal> {
        if let Some(PortInUse { port, variable }) = self.ports_in_use.first().copied() {
            return Err(Refusal::PortInUse { port, variable });
        }
        match (&self.data_directory, self.owner_uid) {
            // Of a directory of somebody else's, no more can be told than that.
            (
                DataDirectory::Cluster(_)
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

    /// Who led by the record, unless a person has said that this is over.
    pub(super) fn beside_the_record(&self) -> Option<Wait> {
        let Lead::Held { holder, timeline, .. } = &self.lead else { return None };
        let wait = Wait::RestoreBesideRecord { holder: holder.clone(), timeline: *timeline };
        (!self.ourselves.leads_alone).then_some(wait)
    }

    /// All of the backup fits, and what is replayed on top of it.
    pub(super) fn has_room_for(&self, restore: &Restore) -> Result<(), Refusal> {
        let needed_mib = restore.needs_mib();
        match (&self.data_directory, self.free_mib) {
            // What an interrupted start left makes room by being thrown away.
            (DataDirectory::Unfinished, _) => Ok(()),
            (_, Some(free_mib)) if free_mib < needed_mib => Err(Refusal::NoRoomToRestore {
                directory: self.pgdata.clone(),
                id: restore.backup.id.clone(),
                free_mib,
                needed_mib,
            }),
            _ => Ok(()),
        }
    }

    /// A new cluster's backups are not mixed with another's.
    pub(super) fn begins_with_no_backups(&self) -> Result<(), Refusal> {
        match &self.backups_of {
            None => Ok(()),
            Some((directory, found)) => Err(Refusal::ForeignBackups {
                directory: directory.clone(),
                pgdata: self.pgdata.clone(),
                found: found.clone(),
            }),
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
