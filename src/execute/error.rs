//! Why a plan stopped.

use super::standby::StandbyError;
use crate::barman::{CloudError, CopyError};
use crate::cluster::{Address, Lsn, Timeline};
use crate::keeper::LeadError;
use crate::postgres::peer::PeerError;
use crate::postgres::{HookError, PostgresError, SqlError, conf::Unsafe};
use crate::repmgr::RegisterError;
use crate::scenario::Step;
use crate::supervisor::StartError;
use crate::system::files::FileError;
use crate::system::wait::GaveUp;
use std::path::PathBuf;

/// A plan that stopped half-way. Running it again is safe.
#[derive(Debug, thiserror::Error)]
#[error("stage {stage} of \"{scenario}\" failed: cannot {failed}")]
pub struct PlanError {
    /// Counted from 1, as in the document.
    pub stage: usize,
    /// The section's title.
    pub scenario: &'static str,
    /// What was to be done.
    pub failed: Step,
    /// Why it was not.
    #[source]
    pub source: StepError,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// PostgreSQL's programs or files.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The server does not come up.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server did not end in order.
    #[error("postgres ended, but its control file does not say that it was shut down")]
    NotShutDown,
    /// A question to the server.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// repmgr.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// A script of the operator's.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// Something that should have ended has not.
    #[error(transparent)]
    GaveUp(#[from] GaveUp),
    /// Another node's server.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// What another node's server has, and what ours has, do not go together.
    #[error(transparent)]
    Standby(#[from] StandbyError),
    /// A backup that another node has.
    #[error(transparent)]
    Backup(#[from] CopyError),
    /// barman's tools for S3 failed.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// Settings of the operator's that cannot be lived with, a line each.
    #[error("{}", lines(.0))]
    Unsafe(Vec<Unsafe>),
    /// The lead cannot be had, kept or given.
    #[error(transparent)]
    Lead(#[from] LeadError),
    /// The one that was to lead is not ready to.
    #[error(
        "{to} has not got every write in time; nothing has changed (pgherd status shows its lag)"
    )]
    NotSynchronous {
        /// Its node's name.
        to: String,
    },
    /// The one that was to lead is not heard of, so that nobody knows whether it could.
    #[error("{to} does not answer; nothing has changed (pgherd status shows who does)")]
    SuccessorSilent {
        /// Its node's name.
        to: String,
    },
    /// The one that was to lead serves nobody just now, or no more soon.
    #[error("{to} is stopping or does not serve; nothing has changed (pgherd status shows why)")]
    SuccessorLeaves {
        /// Its node's name.
        to: String,
    },
    /// The server that was to replay an archive ended.
    #[error(
        "postgres has ended the recovery{}, and its last lines say why; if the target was not reached, the \
         archive ends before it: give an earlier one, or none to have all there is", since(.last)
    )]
    RecoveryEnded {
        /// The last commit that is known to have been replayed.
        last: Option<String>,
    },
    /// What there is ends before it.
    #[error(
        "{target} was not reached, for nothing in the archive is after it{}: a target up to there will do, or none \
         to have all there is", since(.last)
    )]
    TargetNotReached {
        /// What was asked for.
        target: String,
        /// The last commit that there is.
        last: Option<String>,
    },
    /// What was restored would have a number that another history has.
    #[error(
        "what was restored is on timeline {theirs}, and this cluster knows of {ours}: nothing was changed; \
         bring the backup back on an empty volume (RESTORE_FROM)"
    )]
    NotNewer {
        /// Of what was restored.
        theirs: Timeline,
        /// The newest that the cluster knows of.
        ours: Timeline,
    },
    /// While this node was at it, another one went on.
    #[error(
        "the node at {address} leads, or has gone on: nothing was changed; this node rejoins it, and what is to \
         be restored is for that one to restore"
    )]
    WentOn {
        /// Which.
        address: Address,
    },
    /// What an earlier copy replaced takes the place of what this one would replace.
    #[error(
        "what an earlier copy replaced is still in {}, inside of a data directory that is a mount point \
         (PGHERD_KEEP_OLD_DATA): nothing was changed; move it elsewhere first", .old.display()
    )]
    StillKept {
        /// Where.
        old: PathBuf,
    },
    /// What is written does not come to the archive.
    #[error(
        "barman receives no WAL, and what was written last would be lost: nothing was changed; see why (barman \
         check), or give a target up to which it has all (pgherd backups)"
    )]
    NothingReceived,
    /// Everything was asked for, and there is less.
    #[error(
        "the archive ends at {end}, and the cluster had up to {had}: nothing was changed; see why barman has \
         not received the rest (barman check), or say that you want no more: --target-lsn {end}"
    )]
    ArchiveEnds {
        /// Replayed up to here.
        end: Lsn,
        /// Where the server was when it stopped.
        had: Lsn,
    },
    /// The step needs a server, and none runs.
    #[error("postgres does not run")]
    NoServer,
}

fn lines(all: &[Unsafe]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn since(last: &Option<String>) -> String {
    last.iter().map(|at| format!(" (the last commit that was replayed is of {at})")).collect()
}
