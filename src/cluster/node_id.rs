//! repmgr's number for a node.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A node's number in `repmgr.nodes`: 1 to 2147483647, kept once given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct NodeId(u32);

/// Not a number that repmgr takes for a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a node id: expected a whole number from 1 to 2147483647")]
pub struct ParseNodeIdError(String);

impl NodeId {
    /// What a cluster's first node gets when neither its name nor the operator says.
    pub const FIRST: NodeId = NodeId(1);

    /// The number after this one, if there is one.
    pub fn next(self) -> Option<NodeId> {
        (self.0 < i32::MAX.unsigned_abs()).then_some(NodeId(self.0 + 1))
    }

    /// The number itself, as repmgr writes it.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for NodeId {
    type Error = ParseNodeIdError;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        // repmgr's column is a signed integer, and repmgr refuses ids below 1.
        if number == 0 || i32::try_from(number).is_err() {
            return Err(ParseNodeIdError(number.to_string()));
        }
        Ok(NodeId(number))
    }
}

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number: u32 = text.parse().map_err(|_| ParseNodeIdError(text.to_owned()))?;
        NodeId::try_from(number)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_repmgr_takes() {
        assert_eq!("7".parse::<NodeId>().map(NodeId::get), Ok(7));
        for refused in ["0", "-1", "2147483648", "", "node1"] {
            assert!(refused.parse::<NodeId>().is_err(), "{refused}");
        }
    }
}
