//! What a cluster's control file says.

use super::{SystemIdentifier, Timeline};

/// What `pg_controldata` says of a cluster that is not running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlData {
    /// Given by `initdb`, kept by every clone.
    pub system_identifier: SystemIdentifier,
    /// Of the latest checkpoint.
    pub timeline: Timeline,
    /// "shut down" or "shut down in recovery": the next start replays nothing.
    pub shut_down: bool,
    /// Data pages have checksums.
    pub checksums: bool,
}
