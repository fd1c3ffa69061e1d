//! Why a node does not follow.

use crate::cluster::{Address, Lsn, NodeId, Timeline};
use std::time::Duration;

/// Why a node cannot follow another as it is.
#[derive(Debug, thiserror::Error)]
pub enum StandbyError {
    /// An id or a name belongs to one node.
    #[error(transparent)]
    Taken(Box<Taken>),
    /// Nobody leads any more.
    #[error("nobody leads just now")]
    NobodyLeads,
    /// A person did it meanwhile: what follows is for the node's rules.
    #[error("this node has been promoted")]
    Promoted,
    /// No step has found who leads.
    #[error("it is not known who leads")]
    NoUpstream,
    /// The primary's records do not have itself.
    #[error("{0} leads, and repmgr's records there do not say so; is it registered?")]
    NotInRecords(Address),
    /// What is on our disk goes another way than the primary's history.
    #[error(
        "this node has timeline {timeline} up to {lsn}, and the primary's history does not: it went \
         another way"
    )]
    Forked {
        /// Ours.
        timeline: Timeline,
        /// Replayed up to here.
        lsn: Lsn,
    },
    /// Two nodes were promoted that had not heard of each other.
    #[error(
        "this node has a timeline {0} of its own, which began elsewhere than the primary's: pg_rewind would \
         take them for one"
    )]
    TwoOfOneNumber(Timeline),
    /// The primary does not have what comes next.
    #[error("the primary has no WAL any more of what comes after {lsn} on timeline {timeline}")]
    WalGone {
        /// Ours.
        timeline: Timeline,
        /// Replayed up to here.
        lsn: Lsn,
    },
    /// Nor does anybody's barman.
    #[error("nobody has the WAL file {file} any more, and this node needs it")]
    NotArchived {
        /// Its name.
        file: String,
    },
    /// The primary was put back to an earlier state, or was not the one to lead.
    #[error(
        "this node has more than the primary has: timeline {timeline} up to {lsn}, and the primary \
         up to {theirs}; nothing is thrown away for that: if the primary's is what you want, remove \
         this node's data, else stop the primary and promote this node"
    )]
    Ahead {
        /// Of both.
        timeline: Timeline,
        /// Ours.
        lsn: Lsn,
        /// The primary's.
        theirs: Lsn,
    },
    /// Our server says neither that it streams nor why not.
    #[error("nothing was replayed for {} s", .0.as_secs())]
    Stuck(Duration),
}

/// Two nodes with one name or id.
#[derive(Debug, thiserror::Error)]
#[error(
    "this node, {name} ({id}) at {ours}, has {what} that the node {their_name} ({their_id}) at \
     {theirs} has in the cluster's records; give it one of its own with REPMGR_NODE_NAME or \
     REPMGR_NODE_ID, or, if that node is gone for good: repmgr standby unregister \
     --node-id={their_id} on the primary"
)]
pub struct Taken {
    /// "the name" or "the id".
    pub what: &'static str,
    /// Our name.
    pub name: String,
    /// Our number.
    pub id: NodeId,
    /// Our address.
    pub ours: Address,
    /// Whose it is.
    pub their_name: String,
    /// Its number.
    pub their_id: NodeId,
    /// Where it is.
    pub theirs: Address,
}
