//! Plain facts about nodes. No I/O here, and no policy.

mod address;
mod backup;
mod control_data;
mod happening;
mod history;
mod lsn;
mod member;
mod moment;
mod node_id;
mod shown;
mod sync_mode;
mod vote;

pub use address::{Address, DEFAULT_PORT, ParseAddressError};
pub use backup::{Archive, Backup, BackupsSeen, BackupsState, CopiesSeen, LastBackup, Verified};
pub use control_data::{ControlData, SystemId};
pub use happening::Entry;
pub use history::{History, end_of_wal_file, wal_file_name};
pub use lsn::{Lsn, ParseLsnError};
pub use member::{Answer, GivenUp, NodeState, Report, Sighting, Standing};
pub use moment::{Moment, ParseMomentError};
pub use node_id::{NodeId, ParseNodeIdError};
pub use shown::{RunningScenario, Shown};
pub use sync_mode::SyncMode;
pub use vote::{Nonce, Token, Vote};

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a node's Postgres does in the cluster. The scenario document says "master" and "slave".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Replays the primary's WAL.
    Standby,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Standby => "standby",
        })
    }
}

/// Which branch of history a node is on. Begins at 1, grows at every promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
