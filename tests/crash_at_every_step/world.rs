//! The model: a container, its volume, and what each step does to them.

use pgherd::scenario::{DataDirectory, Situation, Step};
use pgherd::service::{Durability, Listen, ServiceName};
use pgherd::settings::Settings;
use std::collections::{BTreeMap, BTreeSet};

/// A container and its volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct World {
    /// On the volume.
    pub(crate) data: Option<Data>,
    /// In the container's own file system.
    pub(crate) files: BTreeSet<&'static str>,
    /// What runs, and ends with the container.
    pub(crate) server: Option<Listen>,
    pub(crate) helpers: BTreeSet<ServiceName>,
}

/// A data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Data {
    pub(crate) marked: bool,
    /// `PG_VERSION` is there.
    pub(crate) initialised: bool,
    /// A power cut would cost nothing.
    pub(crate) on_disk: bool,
    /// A power cut did cost something.
    pub(crate) garbage: bool,
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
}

/// How a container ends before its time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crash {
    /// `docker kill`, `docker start`.
    Killed,
    /// `docker rm -f`, and another container on the same volume.
    Recreated,
    /// The machine.
    PowerCut,
}

impl World {
    pub(crate) fn data(&mut self) -> Result<&mut Data, String> {
        self.data.as_mut().ok_or("there is no data directory".to_owned())
    }

    /// The databases, while something can be asked of them.
    fn served(&mut self) -> Result<&mut Data, String> {
        must(self.server.is_some(), "no server runs")?;
        self.data()
    }

    /// Does all of `step`.
    pub(crate) fn apply(&mut self, step: &Step, wanted: &Settings) -> Result<(), String> {
        match step {
            Step::DiscardUnfinished { .. } => {
                must(self.server.is_none(), "the server's files are discarded under it")?;
                let data = self.data()?;
                must(data.marked, "an unmarked directory is discarded")?;
                *data = Data { marked: true, ..Data::default() };
            }
            Step::InitDataDirectory { .. } => {
                let fresh = Data { marked: true, ..Data::default() };
                let data = self.data.get_or_insert_with(|| fresh.clone());
                must(*data == fresh, "initdb wants an empty directory")?;
                data.initialised = true;
                data.roles.insert("superuser", true);
                data.databases.insert("postgres".to_owned());
            }
            Step::StartPostgres { listen, durability } => {
                must(self.server.is_none(), "two servers on one directory")?;
                let data = self.data()?;
                must(data.initialised && !data.garbage, "there is no cluster to start")?;
                if let Listen::Consumer { .. } = listen {
                    must(!data.marked, "consumers reach a server that is not complete")?;
                    must(data.configured, "consumers reach a server without our settings")?;
                    must(*durability == Durability::Durable, "consumers' writes can be lost")?;
                }
                data.on_disk &= *durability == Durability::Durable;
                self.server = Some(*listen);
            }
            Step::StopPostgres => {
                must(self.server.take().is_some(), "no server runs that could be stopped")?;
            }
            Step::WritePostgresConf => {
                let data = self.data()?;
                must(data.initialised, "there is no postgresql.conf that could include ours")?;
                data.configured = true;
            }
            Step::CheckServerSettings => {
                must(self.data()?.configured, "our own settings are not there yet")?;
            }
            Step::EnsureSuperuserPassword => {
                must(self.served()?.roles.contains_key("superuser"), "initdb makes the superuser")?;
            }
            Step::EnsureRole { role } => drop(self.served()?.roles.insert(role, true)),
            Step::EnsureDatabase { name } => drop(self.served()?.databases.insert(name.clone())),
            Step::EnsureRepmgrExtension => {
                let data = self.served()?;
                must(data.databases.contains("repmgr"), "it goes into database repmgr")?;
                must(data.configured, "its library is not preloaded")?;
                data.extension = true;
            }
            Step::RunInitHooks => {
                let unreachable = !matches!(self.server, Some(Listen::Consumer { .. }));
                must(unreachable, "consumers see a half-made database")?;
                let database = &wanted.postgres.database;
                let data = self.served()?;
                must(data.databases.contains(database), "scripts begin in POSTGRES_DB")?;
                must(data.hooks_begun == data.hooks_ended, "half a run of the scripts is there")?;
                data.hooks_begun += 1;
                data.hooks_ended += 1;
            }
            Step::WriteRepmgrConf => drop(self.files.insert("repmgr.conf")),
            Step::RegisterPrimary => {
                must(self.files.contains("repmgr.conf"), "repmgr needs its configuration")?;
                let data = self.served()?;
                must(
                    data.extension && data.roles.get("repmgr") == Some(&true),
                    "repmgr cannot log in",
                )?;
                data.registered = true;
            }
            Step::WriteBarmanConf => drop(self.files.insert("barman.conf")),
            Step::WriteBarmanCron => drop(self.files.insert("crontab")),
            Step::Complete { .. } => {
                must(self.server.is_none(), "a running server still writes")?;
                let data = self.data()?;
                data.on_disk = true;
                data.marked = false;
            }
            Step::Supervise { service } => {
                let serves = matches!(self.server, Some(Listen::Consumer { .. }));
                must(serves, "helpers come after the server")?;
                match service {
                    ServiceName::Postgres => return Err("it is started by its own step".to_owned()),
                    ServiceName::Repmgrd => must(self.data()?.registered, "repmgrd would end")?,
                    ServiceName::Crond => must(
                        self.files.is_superset(&["barman.conf", "crontab"].into()),
                        "cron has nothing to do",
                    )?,
                }
                self.helpers.insert(*service);
            }
        }
        Ok(())
    }

    /// Does as much of `step` as is seen from outside when it is killed in its middle.
    pub(crate) fn apply_half(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::InitDataDirectory { .. } => {
                self.data.get_or_insert_default().marked = true;
            }
            Step::RunInitHooks => {
                let data = self.served()?;
                data.hooks_begun += 1;
                data.databases.insert("of the first script".to_owned());
            }
            Step::EnsureRole { role } => {
                self.served()?.roles.entry(role).or_insert(false);
            }
            Step::Complete { .. } => self.data()?.on_disk = true,
            Step::DiscardUnfinished { .. } => self.data()?.garbage = true,
            // Each is one file, one transaction or one process: there or not.
            Step::StartPostgres { .. }
            | Step::StopPostgres
            | Step::WritePostgresConf
            | Step::CheckServerSettings
            | Step::EnsureSuperuserPassword
            | Step::EnsureDatabase { .. }
            | Step::EnsureRepmgrExtension
            | Step::WriteRepmgrConf
            | Step::RegisterPrimary
            | Step::WriteBarmanConf
            | Step::WriteBarmanCron
            | Step::Supervise { .. } => {}
        }
        Ok(())
    }

    pub(crate) fn crash(&mut self, how: Crash) {
        self.server = None;
        self.helpers.clear();
        match how {
            Crash::Killed => {}
            Crash::Recreated => self.files.clear(),
            Crash::PowerCut => {
                self.files.clear();
                if let Some(data) = &mut self.data {
                    data.garbage |= data.initialised && !data.on_disk;
                }
            }
        }
    }

    pub(crate) fn situation(&self) -> Situation {
        Situation {
            data_directory: match &self.data {
                None => DataDirectory::Empty,
                Some(data) if data.marked => DataDirectory::Unfinished,
                Some(Data { initialised: true, garbage: false, .. }) => {
                    DataDirectory::Cluster { standby: false, made_here: true, may_be_in_use: false }
                }
                Some(_) => DataDirectory::Broken { reason: "half of a cluster".to_owned() },
            },
            major: 17,
            pgdata: "/var/lib/postgresql/17/docker".into(),
            data_dir: "/var/lib/postgresql".into(),
            owner_uid: Some(999),
            postgres_uid: 999,
            free_mib: None,
            ports_in_use: Vec::new(),
            mounted_elsewhere: None,
            backups_of: None,
        }
    }
}

pub(crate) fn must(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}
