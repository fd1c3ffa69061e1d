//! What the nodes of a cluster tell each other. Every node answers `GET /member` on its HTTP port
//! with a [`Report`], from the moment it looks around until it ends.

use super::{Address, BackupsSeen, Lsn, NodeId, Role, Shown, SystemId, Timeline, Vote};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `PGHERD_CLUSTER`.
    pub cluster: String,
    /// `REPMGR_NODE_NAME`.
    pub name: String,
    /// repmgr's number; none where the cluster has not given one yet, or never will.
    pub id: Option<NodeId>,
    /// Where its Postgres is found.
    pub address: Address,
    /// Which cluster its data directory is a copy of.
    pub system: Option<SystemId>,
    /// What its Postgres does, or would.
    pub standing: Standing,
    /// What the node does, for people.
    pub state: NodeState,
    /// The newest timeline that it has heard of, wherever that is.
    pub newest: Option<Timeline>,
    /// A person has said that whoever has these is gone.
    pub given_up: Option<GivenUp>,
    /// The other members that it knows of.
    #[serde(default)]
    pub members: Vec<Address>,
    /// A number of its own for each start, so that a node knows itself under any address.
    pub instance: String,
    /// It has a vote, and nothing else.
    #[serde(default)]
    pub witness: bool,
    /// Of a voter: how its etcd begins.
    #[serde(default)]
    pub vote: Option<Vote>,
    /// Who votes, as this node's own variables say; empty where they do not.
    #[serde(default)]
    pub voters: Vec<Address>,
    /// How the cluster's backups are, if it keeps them.
    #[serde(default)]
    pub backups: Option<BackupsSeen>,
    /// For people.
    #[serde(default)]
    pub shown: Shown,
}

/// Histories that a person has given up: those after `kept`, up to `up_to`. Hearsay about them keeps
/// nobody from leading any more; whoever has them and answers does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GivenUp {
    /// Counts the words; the last one holds.
    pub word: u32,
    /// The newest that was heard of.
    pub up_to: Timeline,
    /// What the node has that was told to go on with it.
    pub kept: Timeline,
}

impl GivenUp {
    /// After somebody was seen to lead on `timeline`: Postgres gives numbers again that it has not
    /// heard of, and then they are not those that were given up.
    pub fn after_a_leader_on(self, timeline: Timeline) -> Self {
        if timeline > self.kept && timeline <= self.up_to {
            GivenUp { word: self.word + 1, up_to: self.kept, kept: self.kept }
        } else {
            self
        }
    }

    /// What hearsay of `newest` is worth after it.
    pub fn instead_of(self, newest: Timeline) -> Timeline {
        if newest > self.kept && newest <= self.up_to { self.kept } else { newest }
    }
}

/// What a node does. The words are the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// A start is under way or waits for something, or Postgres recovers.
    Starting,
    /// It copies another node's cluster.
    Cloning,
    /// It brings a backup back.
    Restoring,
    /// It serves, or keeps backups.
    Running,
    /// It replays what it has missed.
    CatchingUp,
    /// It takes back what the others have not.
    Rewinding,
    /// It becomes the primary.
    Promoting,
    /// It hands the lead over.
    Demoting,
    /// Another node may lead: Postgres takes no more writes, and was stopped at once.
    Fenced,
    /// Postgres does not run, or is about to end.
    Stopped,
    /// Postgres runs and does not answer; or the node does not.
    Unreachable,
}

/// What a node's Postgres does, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Standing {
    /// It has no data yet, and has begun nothing.
    Empty {
        /// What it would become where nobody leads.
        first_role: Role,
        /// It has seen another that would lead, and lets that one go first.
        gives_way: bool,
    },
    /// It makes its data directory: a first start, a clone, a rewind.
    Preparing {
        /// What it becomes.
        role: Role,
    },
    /// It has data and does not serve: it starts, or waits.
    AtRest {
        /// What it was.
        role: Role,
        /// On which branch of history.
        timeline: Timeline,
        /// It has at least everything up to here.
        lsn: Lsn,
    },
    /// It serves.
    Serving {
        /// What it is.
        role: Role,
        /// On which branch of history.
        timeline: Timeline,
        /// Written or replayed up to here.
        lsn: Lsn,
    },
    /// It keeps backups or has a vote, and no data of its own.
    NoData,
}

/// What one asked of a member, and what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Whom.
    pub address: Address,
    /// It has been a member before: what it knows counts, and so does its silence. Whoever never
    /// came cannot have been promoted.
    pub known: bool,
    /// It has shown that it is a member: what it says may stop a primary.
    pub proved: bool,
    /// What it said.
    pub answer: Answer,
}

/// What a member said when it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// How it is.
    Report(Box<Report>),
    /// It is there and does not take our question: the wrong password, say.
    Refuses(String),
    /// Nothing, in time. Not the same as "is not there", and never a "no".
    Silent,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Starting => "starting",
            NodeState::Cloning => "cloning",
            NodeState::Restoring => "restoring",
            NodeState::Running => "running",
            NodeState::CatchingUp => "catching-up",
            NodeState::Rewinding => "rewinding",
            NodeState::Promoting => "promoting",
            NodeState::Demoting => "demoting",
            NodeState::Fenced => "fenced",
            NodeState::Stopped => "stopped",
            NodeState::Unreachable => "unreachable",
        })
    }
}

/// Completes "node2:5432 …".
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Empty { first_role: Role::Primary, .. } => write!(f, "has no data yet"),
            Standing::Empty { first_role: Role::Standby, .. } => {
                write!(f, "waits for a master too")
            }
            Standing::Preparing { role: Role::Primary } => write!(f, "makes the cluster just now"),
            Standing::Preparing { role: Role::Standby } => write!(f, "prepares to be a slave"),
            Standing::AtRest { role, timeline, .. } => {
                write!(f, "starts (it was {role} on timeline {timeline})")
            }
            Standing::Serving { role, timeline, .. } => {
                write!(f, "serves as {role} on timeline {timeline}")
            }
            Standing::NoData => write!(f, "has no data of its own"),
        }
    }
}

impl Sighting {
    /// What it said of itself, if it did.
    pub fn report(&self) -> Option<&Report> {
        match &self.answer {
            Answer::Report(report) => Some(report),
            Answer::Refuses(_) | Answer::Silent => None,
        }
    }
}

impl Report {
    /// The node takes writes, on this timeline.
    pub fn leads_on(&self) -> Option<Timeline> {
        match self.standing {
            Standing::Serving { role: Role::Primary, timeline, .. } => Some(timeline),
            Standing::Serving { .. }
            | Standing::Empty { .. }
            | Standing::Preparing { .. }
            | Standing::AtRest { .. }
            | Standing::NoData => None,
        }
    }

    /// The newest timeline that it has, or has heard of.
    pub fn newest(&self) -> Option<Timeline> {
        self.newest.max(self.position().map(|(timeline, _)| timeline))
    }

    /// How far its own data goes.
    pub fn position(&self) -> Option<(Timeline, Lsn)> {
        match self.standing {
            Standing::AtRest { timeline, lsn, .. } | Standing::Serving { timeline, lsn, .. } => {
                Some((timeline, lsn))
            }
            Standing::Empty { .. } | Standing::Preparing { .. } | Standing::NoData => None,
        }
    }
}
