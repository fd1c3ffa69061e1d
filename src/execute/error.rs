//! Why a plan stopped.

use super::standby::StandbyError;
use crate::barman::CopyError;
use crate::keeper::LeadError;
use crate::postgres::peer::PeerError;
use crate::postgres::{HookError, PostgresError, SqlError, conf::Unsafe};
use crate::repmgr::RegisterError;
use crate::scenario::Step;
use crate::supervisor::StartError;
use crate::system::files::FileError;
use crate::system::wait::GaveUp;

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
    /// The server that was to replay an archive ended.
    #[error(
        "postgres has ended the recovery, and its last lines say why; if the target was not reached, the \
         archive ends before it: give an earlier one, or none to have all there is"
    )]
    RecoveryEnded,
    /// The step needs a server, and none runs.
    #[error("postgres does not run")]
    NoServer,
}

fn lines(all: &[Unsafe]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
