//! What a node tells the others so that each can show the whole cluster to people. Nothing is
//! decided by it.

use super::{Address, Entry};
use serde::{Deserialize, Serialize};

/// Beside what a [`Report`](super::Report) says for the others to act on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shown {
    /// The plan that it carries out.
    pub scenario: Option<RunningScenario>,
    /// Why it does not go on just now.
    pub waits_for: Option<String>,
    /// Whom it streams from.
    pub follows: Option<Address>,
    /// How old what it replayed last is, in milliseconds.
    pub lag_ms: Option<u64>,
    /// Which helpers run.
    pub services: Vec<String>,
    /// What a person should know about it.
    pub warnings: Vec<String>,
    /// What happened to it last, the oldest first.
    pub lately: Vec<Entry>,
}

/// A plan that is being carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningScenario {
    /// The section's title in the scenario document.
    pub title: String,
    /// Counted from 1.
    pub stage: usize,
    /// Of how many.
    pub stages: usize,
    /// The document's line.
    pub stage_title: String,
    /// All of its lines.
    #[serde(default)]
    pub titles: Vec<String>,
    /// Of what is copied or rewound: so much is done,
    pub bytes_done: Option<u64>,
    /// of so much,
    pub bytes_total: Option<u64>,
    /// and the rest takes so long at this rate.
    pub seconds_left: Option<u64>,
}
