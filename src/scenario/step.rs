//! Every effect a plan can ask for. `execute` matches on it exhaustively, so a new step does
//! not compile until something carries it out.
//!
//! A step's doc comment is its post-condition. A step holds what was decided and no secret:
//! printing or storing a plan is always safe.

use crate::service::{Durability, Listen, ServiceName};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// One thing that must be true before the next step may begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// The data directory holds nothing but the mark that it is unfinished.
    /// Only ever asked for a directory that bears the mark already.
    DiscardUnfinished {
        /// The data directory.
        pgdata: PathBuf,
    },
    /// The data directory holds a cluster, complete as `initdb` makes it, and is marked as
    /// unfinished.
    InitDataDirectory {
        /// The data directory.
        pgdata: PathBuf,
    },
    /// Postgres accepts connections there.
    StartPostgres {
        /// Who can reach it.
        listen: Listen,
        /// What a power cut would cost.
        durability: Durability,
    },
    /// A fast shutdown has completed, and the control file says so.
    StopPostgres,
    /// `pgherd.conf` and pgherd's part of `pg_hba.conf` are up to date, and `postgresql.conf`
    /// includes the former.
    WritePostgresConf,
    /// Every setting that replication, backup or a promise depends on is in force.
    CheckServerSettings,
    /// The superuser's password is the configured one.
    EnsureSuperuserPassword,
    /// The role exists with the configured password and its tool's privileges.
    EnsureRole {
        /// Its name.
        role: &'static str,
    },
    /// The database exists.
    EnsureDatabase {
        /// Its name.
        name: String,
    },
    /// The extension repmgr, of the version in the image, is in its database, and the role
    /// repmgr may use what is in it.
    EnsureRepmgrExtension,
    /// What the operator left in `/docker-entrypoint-initdb.d` has run.
    RunInitHooks,
    /// repmgr's configuration and password file are up to date.
    WriteRepmgrConf,
    /// repmgr's records hold this node as the primary, with the address consumers use.
    RegisterPrimary,
    /// barman's configuration and password file are up to date, and its directory is barman's.
    WriteBarmanConf,
    /// cron has barman's jobs in its table.
    WriteBarmanCron,
    /// All of the data directory is on disk, and the mark is gone: from here on the cluster is
    /// complete whatever happens.
    Complete {
        /// The data directory.
        pgdata: PathBuf,
    },
    /// The service runs, and is started again whenever it ends.
    Supervise {
        /// Which.
        service: ServiceName,
    },
}

impl Step {
    /// Only root can do it, or it is for what only root can do: cron runs jobs as whom they
    /// belong to.
    pub(super) fn needs_root(&self) -> bool {
        matches!(
            self,
            Step::WriteBarmanConf
                | Step::WriteBarmanCron
                | Step::Supervise { service: ServiceName::Crond }
        )
    }
}

impl Step {
    /// It is made true again at each start, and a server that serves meanwhile is better than none.
    pub fn may_wait(&self) -> bool {
        match self {
            Step::EnsureSuperuserPassword
            | Step::EnsureRole { .. }
            | Step::EnsureDatabase { .. }
            | Step::EnsureRepmgrExtension
            | Step::RegisterPrimary => true,
            Step::DiscardUnfinished { .. }
            | Step::InitDataDirectory { .. }
            | Step::StartPostgres { .. }
            | Step::StopPostgres
            | Step::WritePostgresConf
            | Step::CheckServerSettings
            | Step::RunInitHooks
            | Step::WriteRepmgrConf
            | Step::WriteBarmanConf
            | Step::WriteBarmanCron
            | Step::Complete { .. }
            | Step::Supervise { .. } => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::DiscardUnfinished { pgdata } => {
                write!(f, "throw away what an interrupted first start left in {}", pgdata.display())
            }
            Step::InitDataDirectory { pgdata } => {
                write!(f, "initialise {}, marked as unfinished", pgdata.display())
            }
            Step::StartPostgres { listen: Listen::Technical { port }, durability } => {
                let until_complete = match durability {
                    Durability::Durable => "",
                    Durability::UntilComplete => ", without waiting for the disk",
                };
                write!(f, "start postgres on port {port}, out of reach{until_complete}")
            }
            Step::StartPostgres { listen: Listen::Consumer { port }, .. } => {
                write!(f, "start postgres on port {port}")
            }
            Step::StopPostgres => write!(f, "stop postgres"),
            Step::WritePostgresConf => write!(f, "write pgherd.conf and pg_hba.conf"),
            Step::CheckServerSettings => {
                write!(f, "check that no setting of the operator's endangers the cluster")
            }
            Step::EnsureSuperuserPassword => write!(f, "set the superuser's password"),
            Step::EnsureRole { role } => write!(f, "create role {role}"),
            Step::EnsureDatabase { name } => write!(f, "create database {name}"),
            Step::EnsureRepmgrExtension => write!(f, "create extension repmgr"),
            Step::RunInitHooks => write!(f, "run what is in /docker-entrypoint-initdb.d"),
            Step::WriteRepmgrConf => write!(f, "write repmgr.conf"),
            Step::RegisterPrimary => write!(f, "register this node as primary"),
            Step::WriteBarmanConf => write!(f, "write barman's configuration"),
            Step::WriteBarmanCron => write!(f, "write barman's crontab"),
            Step::Complete { pgdata } => {
                write!(f, "bring {} to the disk and take the mark away", pgdata.display())
            }
            Step::Supervise { service } => write!(f, "keep {service} running"),
        }
    }
}
