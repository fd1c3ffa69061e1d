//! Whether a commit waits for a standby.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What an acknowledged write is worth. `PGHERD_SYNCHRONOUS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// It is on the primary's disk.
    Off,
    /// It is on a standby's, too, while there is one; giving that up is recorded first.
    Preferred,
    /// It is on a standby's, too, or it is not acknowledged.
    Required,
}

impl SyncMode {
    /// The word for it, in the variable and everywhere else.
    pub fn as_str(self) -> &'static str {
        match self {
            SyncMode::Off => "off",
            SyncMode::Preferred => "preferred",
            SyncMode::Required => "required",
        }
    }
}

impl fmt::Display for SyncMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
