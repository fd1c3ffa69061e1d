//! The processes this node keeps running, as names and numbers.

mod listen;
mod restart;

pub use listen::{Durability, Listen};
pub use restart::{RestartBudget, Verdict};

use serde::Serialize;
use std::fmt;

/// A process that is kept running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceName {
    /// The postmaster.
    Postgres,
    /// repmgr's daemon: watches, records, reports.
    Repmgrd,
    /// Runs barman's periodic work.
    Crond,
    /// A voter's member of the cluster's etcd.
    Etcd,
}

impl ServiceName {
    /// As it stands in the log before each of its lines.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceName::Postgres => "postgres",
            ServiceName::Repmgrd => "repmgrd",
            ServiceName::Crond => "crond",
            ServiceName::Etcd => "etcd",
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How hard Postgres is asked to stop, in the words of its manual
/// ("Shutting Down the Server"). Smart is not here: it waits for every client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// SIGINT: sessions are ended, a checkpoint is written, nothing needs recovery.
    Fast,
    /// SIGQUIT: at once; the next start recovers from WAL. Loses nothing.
    Immediate,
}
