//! The model: a container, its volume, and, where it is not alone, the primary elsewhere.

use crate::elsewhere::{Elsewhere, Generation, SYSTEM, serving};
use pgherd::cluster::{ControlData, Lsn, Role, Timeline};
use pgherd::scenario::{Cluster, DataDirectory, Lead, Ourselves, Situation};
use pgherd::service::{Listen, ServiceName};
use std::collections::{BTreeMap, BTreeSet};

/// A container and its volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// On the volume.
    pub(crate) data: Option<Data>,
    pub(crate) work: Work,
    /// A rewind was begun, and the directory does not follow anybody yet.
    pub(crate) rewinding: bool,
    /// The node's number.
    pub(crate) id_kept: bool,
    /// That barman's directory is another one than what it was restored from.
    pub(crate) own_archive: bool,
    /// In the container's own file system.
    pub(crate) files: BTreeSet<&'static str>,
    /// What runs, and ends with the container.
    pub(crate) server: Option<Listen>,
    pub(crate) helpers: BTreeSet<ServiceName>,
    /// What the node knows as long as it runs: its number, and whom it follows.
    pub(crate) id: bool,
    pub(crate) upstream: Option<Generation>,
    /// The server is killed, by the kernel for its memory say, whenever it is about to be stopped.
    pub(crate) is_killed_first: bool,
    /// A person wants a backup back, once.
    pub(crate) wishes: bool,
    /// Another node follows this one, and answers.
    pub(crate) is_followed: bool,
    /// Who leads, if it is not this node that does.
    pub(crate) elsewhere: Option<Elsewhere>,
}

/// Where a copy is made, and what it replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Work {
    pub(crate) clone: Option<Data>,
    pub(crate) cloned: Option<Data>,
    pub(crate) moving_in: Option<Data>,
    pub(crate) old: Option<Data>,
}

/// A data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Data {
    pub(crate) marked: bool,
    /// `PG_VERSION` is there.
    pub(crate) initialised: bool,
    /// Some of it is in another directory.
    pub(crate) missing: bool,
    /// A power cut would cost nothing.
    pub(crate) on_disk: bool,
    /// It is half of something.
    pub(crate) garbage: bool,
    /// The control file says that it was shut down.
    pub(crate) shut_down: bool,
    pub(crate) configured: bool,
    /// With its tool's privileges, or without yet.
    pub(crate) roles: BTreeMap<&'static str, bool>,
    pub(crate) databases: BTreeSet<String>,
    pub(crate) extension: bool,
    pub(crate) hooks_begun: usize,
    pub(crate) hooks_ended: usize,
    pub(crate) registered: bool,
    /// What consumers wrote.
    pub(crate) rows: usize,
    /// `standby.signal` is there.
    pub(crate) is_standby: bool,
    /// Whom `primary_conninfo` names.
    pub(crate) follows: Option<Generation>,
    /// It was seen to replay what the primary writes.
    pub(crate) streamed: bool,
    /// Its server looks for WAL in the archive, too.
    pub(crate) asks_archive: bool,
    /// It came out of an archive.
    pub(crate) restored: bool,
    /// It has replayed what came after it, and is a history of its own.
    pub(crate) recovered: bool,
    /// The mark of a restore on a running cluster is in it.
    pub(crate) in_place: bool,
    /// Another node is in repmgr's records as the primary.
    pub(crate) names_another: bool,
    /// For others, from the time when it was a primary.
    pub(crate) slots: bool,
    pub(crate) way: Way,
    pub(crate) timeline: u32,
}

impl Data {
    /// It has something that nobody else has. What a standby has is on the disk of the primary that
    /// it has it from.
    pub(crate) fn is_worth_keeping(&self) -> bool {
        self.initialised && !self.garbage && self.way == Way::Forked && !self.is_standby
    }
}

/// How what a directory holds lies to the primary's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// On the way to its end.
    #[default]
    Same,
    /// It has something that the primary has not.
    Forked,
    /// The primary has not kept what comes next.
    WalGone,
}

/// How a container ends before its time, and what happens elsewhere meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crash {
    /// `docker kill`, `docker start`.
    Killed,
    /// `docker rm -f`, and another container on the same volume.
    Recreated,
    /// The machine.
    PowerCut,
    /// Killed, and another node leads when it comes back. This one was ahead of it, or was not.
    Replaced { was_ahead: bool },
    /// Killed, and away so long that the primary has dropped what it would need.
    AwayTooLong,
}

impl Crash {
    pub(crate) const ALL: [Crash; 6] = [
        Crash::Killed,
        Crash::Recreated,
        Crash::PowerCut,
        Crash::Replaced { was_ahead: false },
        Crash::Replaced { was_ahead: true },
        Crash::AwayTooLong,
    ];
}

/// Why a step did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The plan is wrong.
    Wrong(String),
    /// It happens, and the node knows what to do instead.
    Fails(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Rewind,
    Forked,
    WalGone,
    NotArchived,
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Fault::Wrong(why)
    }
}

impl From<&str> for Fault {
    fn from(why: &str) -> Self {
        Fault::Wrong(why.to_owned())
    }
}

pub(crate) type Done = Result<(), Fault>;

pub(crate) fn must(holds: bool, otherwise: &str) -> Done {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

impl World {
    pub(crate) fn data(&mut self) -> Result<&mut Data, Fault> {
        self.data.as_mut().ok_or("there is no data directory".into())
    }

    pub(crate) fn elsewhere(&mut self) -> Result<&mut Elsewhere, Fault> {
        self.elsewhere.as_mut().ok_or("there is no other node".into())
    }

    /// The databases, while something can be asked of them.
    pub(crate) fn asked(&mut self) -> Result<&mut Data, Fault> {
        must(self.server.is_some(), "no server runs")?;
        self.data()
    }

    /// What there is of clusters, wherever it is.
    fn directories(&mut self) -> impl Iterator<Item = &mut Data> {
        let Work { clone, cloned, moving_in, old } = &mut self.work;
        [&mut self.data, clone, cloned, moving_in, old].into_iter().flatten()
    }

    /// Whether `how` can happen here.
    pub(crate) fn may_crash(&self, how: Crash) -> bool {
        match (how, &self.elsewhere) {
            (Crash::Killed | Crash::Recreated | Crash::PowerCut, _) => true,
            (Crash::Replaced { .. }, Some(elsewhere)) => elsewhere.may_be_replaced(),
            (Crash::AwayTooLong, Some(_)) => true,
            (Crash::Replaced { .. } | Crash::AwayTooLong, None) => false,
        }
    }

    pub(crate) fn crash(&mut self, how: Crash) {
        self.server = None;
        self.helpers.clear();
        self.upstream = None;
        self.id = self.id_kept;
        match how {
            Crash::Killed | Crash::Replaced { .. } | Crash::AwayTooLong => {}
            Crash::Recreated => self.files.clear(),
            Crash::PowerCut => {
                self.files.clear();
                for data in self.directories() {
                    data.garbage |= data.initialised && !data.on_disk;
                }
            }
        }
        let way = match how {
            Crash::Replaced { was_ahead: true } => Way::Forked,
            Crash::AwayTooLong => Way::WalGone,
            Crash::Killed | Crash::Recreated | Crash::PowerCut | Crash::Replaced { .. } => {
                Way::Same
            }
        };
        if way != Way::Same {
            let same = |data: &&mut Data| data.is_standby && data.way != Way::Forked;
            self.directories().filter(same).for_each(|data| data.way = way);
        }
        if let (Crash::Replaced { .. }, Some(elsewhere)) = (how, &mut self.elsewhere) {
            elsewhere.be_replaced();
        }
    }

    /// As `observe` tells it.
    pub(crate) fn situation(&self) -> Situation {
        let pgdata = "/var/lib/postgresql/17/docker".into();
        let follower = || {
            let address = "follower".parse().expect("it is one");
            serving(address, Role::Standby, 1)
        };
        let leader = self.elsewhere.iter().map(Elsewhere::sighting);
        let sightings: Vec<_> = leader.chain(self.is_followed.then(follower)).collect();
        Situation {
            data_directory: self.data_directory(),
            major: 17,
            pgdata,
            data_dir: "/var/lib/postgresql".into(),
            owner_uid: Some(999),
            postgres_uid: 999,
            free_mib: None,
            ports_in_use: Vec::new(),
            mounted_elsewhere: None,
            backups_of: None,
            kept: crate::restored::kept(),
            ourselves: Ourselves {
                address: "here".parse().expect("it is one"),
                newest: None,
                given_up: None,
                had_members: false,
                knows_nobody: sightings.is_empty(),
                leads_alone: false,
            },
            sightings,
            lead: Lead::NotKept,
        }
    }

    fn data_directory(&self) -> DataDirectory {
        let cluster = |role, control, moves_in: bool| {
            DataDirectory::Cluster(Cluster {
                role,
                recovering: false,
                control,
                made_here: true,
                may_be_in_use: false,
                half_rewound: self.rewinding && !moves_in,
                moves_in,
                restored: self.restored(),
            })
        };
        let moves_in = self.work.cloned.is_some() || self.work.moving_in.is_some();
        match &self.data {
            _ if moves_in && self.restored_moves_in() => cluster(Role::Primary, None, true),
            _ if moves_in => cluster(Role::Standby, None, true),
            Some(data) if data.marked => DataDirectory::Unfinished,
            None => DataDirectory::Empty,
            Some(Data { initialised: false, .. }) => {
                DataDirectory::Foreign { found: "base, global".to_owned() }
            }
            // The mark of a rewind is looked at before the control file.
            Some(data) if data.garbage && !self.rewinding => {
                DataDirectory::Broken { reason: "half of a cluster".to_owned() }
            }
            Some(data) => {
                let role = if data.is_standby { Role::Standby } else { Role::Primary };
                // It is not looked at where it says nothing, nor where there is nobody to compare with.
                let has_others = self.is_followed || self.elsewhere.is_some();
                let control = (has_others && !self.rewinding).then_some(ControlData {
                    system: SYSTEM,
                    timeline: Timeline(data.timeline),
                    lsn: Lsn(1),
                    shut_down: data.shut_down,
                });
                cluster(role, control, false)
            }
        }
    }
}
