//! What a commit waits for.

use serde::{Deserialize, Serialize};

/// `PGHERD_SYNCHRONOUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// For no standby: a failover may lose what was acknowledged last.
    Off,
    /// For one standby, while there is one.
    Preferred,
    /// For one standby; while there is none, nothing is acknowledged.
    Required,
}
