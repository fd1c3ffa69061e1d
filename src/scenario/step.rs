//! Every effect a plan can ask for. `execute` matches on it exhaustively, so a new step does
//! not compile until something carries it out.
//!
//! A step's doc comment is its post-condition. A step holds what was decided and no secret:
//! printing or storing a plan is always safe.

use super::restore::Restore;
use crate::service::{Durability, Listen, ServiceName};
use crate::settings::CloneFrom;
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
    /// includes the former. The server will not look into the archive because a killed container
    /// did, unless it is a copy that cannot be used without.
    WritePostgresConf,
    /// The data directory holds a backup as it was taken, with no WAL of its own and nothing in it that
    /// was about the node it is of; it is marked as unfinished, and a server that starts on it recovers.
    BringBack {
        /// Which, and from whom.
        restore: Box<Restore>,
        /// The data directory.
        pgdata: PathBuf,
    },
    /// The server has replayed the archive's WAL up to where it was asked to, and takes writes on a
    /// timeline of its own, out of reach.
    Recover {
        /// From where, and up to where.
        restore: Box<Restore>,
        /// Names the socket meanwhile.
        port: u16,
    },
    /// Beside the data directory is what the cluster was restored to, complete and shut down: it has replayed
    /// the archive's WAL up to where it was asked to, and is on a timeline that is newer than all that the
    /// cluster knows of.
    RecoverBeside {
        /// From where, and up to where.
        restore: Box<Restore>,
        /// Names the socket meanwhile.
        port: u16,
    },
    /// The cluster's record, where one is kept, says that this node leads on the timeline of what was
    /// restored: nobody goes on with what that replaces. It may move in.
    ReplaceHistory,
    /// barman's directory of this cluster has nothing of another history in it, and the volume says which
    /// it is.
    BeginArchive,
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
    /// The service does not run.
    Cease {
        /// Which.
        service: ServiceName,
    },
    /// A member of this cluster leads, and its consumer port takes this cluster's roles. What
    /// follows is about that one.
    AwaitPrimary {
        /// How long nobody may lead.
        patience: Patience,
    },
    /// This node's id and name are its own in the primary's records, and its id is kept on disk.
    ClaimIdentity,
    /// Nothing is left of a copy that was not complete.
    DiscardCopy,
    /// A complete copy of the primary's cluster is on disk, made into a standby that follows it.
    TakeCopy {
        /// Where most of it comes from.
        from: CloneFrom,
    },
    /// The copy is in the data directory; what was there before is beside.
    MoveIn,
    /// What is started next looks its upstream up by name: it may be at another address by now.
    FollowByName,
    /// Postgres takes no more writes and has ended; not in order.
    Fence,
    /// A standby that was killed has come to a consistent end.
    EndInOrder {
        /// Names the socket meanwhile.
        port: u16,
    },
    /// The data directory has nothing that the primary has not. Marked as half-done until it
    /// [follows](Step::FollowPrimary).
    Rewind,
    /// The data directory is a standby's, which follows the primary and has a slot there; a
    /// running server knows.
    FollowPrimary {
        /// It was a primary's: the slots in it were for others, and would keep WAL for nobody.
        drop_slots: bool,
    },
    /// The running standby looks into barman's archive, too, where the primary has no more of what it
    /// replays next.
    AskArchive,
    /// What the primary had written when it was asked is replayed here, and what follows comes from
    /// the primary alone.
    AwaitReplay,
    /// WAL comes from the primary, or more than enough of it is here.
    AwaitStream,
    /// repmgr's records hold no node but this one: whoever is in them was made by another image.
    ForgetOthers,
    /// repmgr's records hold this node as a standby of the primary, with the address consumers use.
    RegisterStandby,
    /// What was in the data directory before is gone, unless it is to be kept.
    DiscardOld,
    /// The cluster's record says that this node leads, and nobody else may. Where nobody keeps such a
    /// record, nothing is to be done.
    TakeLead,
    /// The running standby takes writes, and the record says so; no write was acknowledged before that.
    Promote,
    /// The record names this standby as one that has every acknowledged write.
    AwaitSynchronous {
        /// Its node's name.
        to: String,
    },
    /// What the operator has in `hooks.d` knows that this primary is about to hand over, or has had its time.
    AnnounceHandover,
    /// A checkpoint has just been written: the next one, of a shutdown, is short.
    Checkpoint,
    /// That standby has all that was written here, to the end of the shutdown.
    AwaitReceived {
        /// Its node's name.
        to: String,
    },
    /// The record says that the lead is to be had, and by whom. Postgres does not run.
    ReleaseLead {
        /// Its node's name.
        to: String,
    },
}

/// How long a step waits for what others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Patience {
    /// As long as the operator has it.
    Endless,
    /// Seconds: there is something else to be done otherwise.
    Short,
}

/// What a node is seen to do while it takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Anything that takes no time of its own.
    Starting,
    /// It copies another node's cluster.
    Cloning,
    /// It brings a backup back.
    Restoring,
    /// It takes back what the others have not.
    Rewinding,
    /// It serves, and replays what it has missed.
    CatchingUp,
    /// It becomes the primary.
    Promoting,
    /// It hands the lead over.
    Demoting,
}

impl Step {
    /// What the node is seen to do meanwhile.
    pub fn activity(&self) -> Activity {
        match self {
            Step::TakeCopy { .. } | Step::MoveIn => Activity::Cloning,
            Step::BringBack { .. }
            | Step::Recover { .. }
            | Step::RecoverBeside { .. }
            | Step::ReplaceHistory => Activity::Restoring,
            Step::EndInOrder { .. } | Step::Rewind => Activity::Rewinding,
            Step::AskArchive | Step::AwaitReplay | Step::AwaitStream => Activity::CatchingUp,
            Step::DiscardUnfinished { .. }
            | Step::InitDataDirectory { .. }
            | Step::StartPostgres { .. }
            | Step::StopPostgres
            | Step::BeginArchive
            | Step::WritePostgresConf
            | Step::CheckServerSettings
            | Step::EnsureSuperuserPassword
            | Step::EnsureRole { .. }
            | Step::EnsureDatabase { .. }
            | Step::EnsureRepmgrExtension
            | Step::RunInitHooks
            | Step::WriteRepmgrConf
            | Step::RegisterPrimary
            | Step::WriteBarmanConf
            | Step::WriteBarmanCron
            | Step::Complete { .. }
            | Step::Supervise { .. }
            | Step::Cease { .. }
            | Step::AwaitPrimary { .. }
            | Step::ClaimIdentity
            | Step::DiscardCopy
            | Step::FollowByName
            | Step::Fence
            | Step::FollowPrimary { .. }
            | Step::ForgetOthers
            | Step::RegisterStandby
            | Step::DiscardOld
            | Step::TakeLead => Activity::Starting,
            Step::Promote => Activity::Promoting,
            Step::AwaitSynchronous { .. }
            | Step::AnnounceHandover
            | Step::Checkpoint
            | Step::AwaitReceived { .. }
            | Step::ReleaseLead { .. } => Activity::Demoting,
        }
    }

    /// Only root can do it, or it is for what only root can do: cron runs jobs as whom they
    /// belong to. That is barman's part, and nothing else.
    pub(super) fn needs_root(&self) -> bool {
        self.is_for_backups()
    }

    /// Only a node that keeps backups has use for it.
    pub(super) fn is_for_backups(&self) -> bool {
        matches!(
            self,
            Step::BeginArchive
                | Step::WriteBarmanConf
                | Step::WriteBarmanCron
                | Step::Supervise { service: ServiceName::Crond }
        )
    }
}

impl Step {
    /// It is made true again at each start, and a server that serves meanwhile is better than none.
    pub fn may_wait(&self) -> bool {
        matches!(
            self,
            Step::EnsureSuperuserPassword
                | Step::EnsureRole { .. }
                | Step::EnsureDatabase { .. }
                | Step::EnsureRepmgrExtension
                | Step::RegisterPrimary
                | Step::ForgetOthers
                | Step::RegisterStandby
        )
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
            Step::BringBack { restore, pgdata } => {
                write!(f, "copy {restore} to {}, marked as unfinished", pgdata.display())
            }
            Step::Recover { restore, port } => {
                let then = if restore.pauses { ", and wait for a person there" } else { "" };
                write!(f, "recover up to {} on port {port}, out of reach{then}", restore.up_to())
            }
            Step::RecoverBeside { restore, port } => {
                let then = if restore.pauses { ", and wait for a person there" } else { "" };
                write!(
                    f,
                    "recover that up to {} on port {port}, out of reach{then}",
                    restore.up_to()
                )
            }
            Step::ReplaceHistory => {
                write!(f, "have the record say that the cluster goes on with what was restored")
            }
            Step::BeginArchive => {
                write!(f, "leave the archive that it came from alone, and begin another")
            }
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
            Step::Cease { service } => write!(f, "stop {service}"),
            Step::AwaitPrimary { patience: Patience::Endless } => {
                write!(f, "wait until a member leads and takes connections")
            }
            Step::AwaitPrimary { patience: Patience::Short } => {
                write!(f, "see who leads and takes connections")
            }
            Step::ClaimIdentity => write!(f, "take an id that no other node has"),
            Step::DiscardCopy => write!(f, "throw away what is left of an interrupted copy"),
            Step::FollowByName => write!(f, "look the upstream up by its name"),
            Step::TakeCopy { from: CloneFrom::Primary } => write!(f, "copy the primary's cluster"),
            Step::TakeCopy { from: CloneFrom::Barman } => {
                write!(f, "copy the latest backup, or the primary's cluster if there is none")
            }
            Step::MoveIn => write!(f, "move the copy into its place"),
            Step::Fence => write!(f, "stop postgres at once, so that it takes no more writes"),
            Step::EndInOrder { port } => {
                write!(f, "recover on port {port}, out of reach, and shut down in order")
            }
            Step::Rewind => write!(f, "take back what the primary has not"),
            Step::FollowPrimary { .. } => write!(f, "follow the primary, with a slot there"),
            Step::AskArchive => {
                write!(f, "fetch from the archive what the primary has no more")
            }
            Step::AwaitStream => write!(f, "see that WAL comes from the primary"),
            Step::AwaitReplay => write!(f, "see that what the primary writes is replayed here"),
            Step::ForgetOthers => write!(f, "forget the nodes that were registered before"),
            Step::RegisterStandby => write!(f, "register this node as a standby"),
            Step::DiscardOld => write!(f, "throw away what was replaced"),
            Step::TakeLead => write!(f, "take the lead, as the record has it"),
            Step::Promote => write!(f, "promote postgres"),
            Step::AwaitSynchronous { to } => {
                write!(f, "wait until every acknowledged write is on {to}, too")
            }
            Step::AnnounceHandover => write!(f, "tell hooks.d that another node is about to lead"),
            Step::Checkpoint => write!(f, "write a checkpoint"),
            Step::AwaitReceived { to } => write!(f, "see that {to} has all of it"),
            Step::ReleaseLead { to } => write!(f, "let {to} lead, as the record has it"),
        }
    }
}
