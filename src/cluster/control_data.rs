//! What a cluster's control file says.

use super::{Lsn, Timeline};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What every copy of one cluster shares and no two clusters do: given by `initdb`, kept by
/// clones. Text in JSON, because not every reader of JSON knows numbers this large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SystemId(pub u64);

/// What `pg_controldata` says of a cluster that is not running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlData {
    /// Which cluster this is a copy of.
    pub system: SystemId,
    /// Of the latest checkpoint; of a standby the one it has replayed to, if that is later.
    pub timeline: Timeline,
    /// Nothing before this is missing. The latest checkpoint's record, or how far a standby has
    /// replayed at least.
    pub lsn: Lsn,
    /// "shut down" or "shut down in recovery": the next start replays nothing that it must.
    pub shut_down: bool,
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for SystemId {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(SystemId)
    }
}

impl From<SystemId> for String {
    fn from(system: SystemId) -> Self {
        system.to_string()
    }
}
