//! What a cluster's control file says.

use super::Timeline;

/// What `pg_controldata` says of a cluster that is not running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlData {
    /// Of the latest checkpoint.
    pub timeline: Timeline,
    /// "shut down" or "shut down in recovery": the next start replays nothing.
    pub shut_down: bool,
}
