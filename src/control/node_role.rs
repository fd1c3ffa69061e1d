//! What a node is to its cluster, as `status` shows it: more than what a Postgres can be.

use crate::cluster::Role;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A node's column `role`; names are the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Takes writes.
    Primary,
    /// Replays the primary's WAL.
    Standby,
    /// Keeps the cluster's backups, without a Postgres.
    Backup,
    /// Has a vote, and nothing else.
    Witness,
}

impl From<Role> for NodeRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Primary => NodeRole::Primary,
            Role::Standby => NodeRole::Standby,
        }
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeRole::Primary => "primary",
            NodeRole::Standby => "standby",
            NodeRole::Backup => "backup",
            NodeRole::Witness => "witness",
        })
    }
}
