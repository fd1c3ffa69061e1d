//! What the node does once it runs.
//!
//! One task owns the [`Node`]. Events come in one at a time through one channel,
//! [`Node::apply`] handles each without waiting for the world, and anything slow (carrying out a
//! plan, asking the server, stopping) is a task that reports back with another event.

mod backups;
mod copies;
mod decide;
mod node;
mod node_role;
mod observer;
mod snapshot;
mod survey;
mod synchronous;

pub use node::{Asked, EVENTS_MAX, Event, Found, Granted, Node, Wish};
pub use node_role::{NodeRole, or_unknown};
pub(crate) use snapshot::bytes_in_words;
pub use snapshot::{
    ClusterState, Counts, Disk, Facts, Fork, Lags, Lease, NodeStatus, RunningScenario,
    ScheduledSwitchover, Snapshot,
};
