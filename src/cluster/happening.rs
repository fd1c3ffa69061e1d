//! One thing that happened to a node.

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, by this node's clock: RFC 3339, in UTC, with microseconds.
    pub at: String,
    /// To which node.
    pub node: String,
    /// What kind of thing, such as `lead.taken`.
    pub id: String,
    /// The cluster's epoch, as the node knew it; none where there is no record of who leads.
    pub epoch: Option<u64>,
    /// The rule that was followed, or the reason.
    pub why: Option<String>,
    /// In words.
    pub text: String,
}
