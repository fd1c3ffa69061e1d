//! What a node is to its cluster, as `status` shows it: more than what a Postgres can be.

use crate::cluster::Role;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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

/// With serde: a role that is not known is `unknown`.
pub mod or_unknown {
    use super::{Deserialize, Deserializer, NodeRole, Serialize, Serializer};
    use serde::de::IntoDeserializer;
    use serde::de::value::Error;

    /// Its name.
    pub fn serialize<S: Serializer>(role: &Option<NodeRole>, to: S) -> Result<S::Ok, S::Error> {
        match role {
            Some(role) => role.serialize(to),
            None => to.serialize_str("unknown"),
        }
    }

    /// A newer node's roles are not known either.
    pub fn deserialize<'de, D>(from: D) -> Result<Option<NodeRole>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let word = Option::<String>::deserialize(from)?.unwrap_or_default();
        let known = NodeRole::deserialize(IntoDeserializer::<Error>::into_deserializer(word));
        Ok(known.ok())
    }
}

#[cfg(test)]
mod tests {
    use super::{NodeRole, or_unknown};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row(#[serde(with = "or_unknown")] Option<NodeRole>);

    #[test]
    fn a_role_that_is_not_known_is_told_as_unknown() {
        for (role, text) in [(None, "\"unknown\""), (Some(NodeRole::Standby), "\"standby\"")] {
            assert_eq!(serde_json::to_string(&Row(role)).unwrap(), text);
            assert_eq!(serde_json::from_str::<Row>(text).unwrap(), Row(role));
        }
        for text in ["null", "\"arbiter\""] {
            assert_eq!(serde_json::from_str::<Row>(text).unwrap(), Row(None), "{text}");
        }
    }
}
