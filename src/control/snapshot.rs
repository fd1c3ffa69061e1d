//! What HTTP and `pgherd status` show: a copy of what the node knows, replaced after every event,
//! so that a reader never waits for the loop and the loop never for a reader.

use crate::cluster::{Address, Lsn, NodeId, Role, Timeline};
use crate::execute::{Hands, Progress};
use crate::layout::Means;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Instant;

/// The cluster as this node sees it. Field names are the contract's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `PGHERD_CLUSTER`.
    pub cluster: String,
    /// How the cluster is.
    pub state: ClusterState,
    /// The node that takes writes.
    pub primary: Option<String>,
    /// Of the primary.
    pub timeline: Option<Timeline>,
    /// No change of roles happens by itself.
    pub paused: bool,
    /// `PGHERD_FAILOVER`.
    pub failover: String,
    /// One sentence each.
    pub warnings: Vec<String>,
    /// A row a node.
    pub nodes: Vec<NodeStatus>,
}

/// How the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterState {
    /// It never served anybody yet.
    Provisioning,
    /// All is well.
    Healthy,
    /// Nobody takes writes.
    Unhealthy,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `REPMGR_NODE_NAME`.
    pub name: String,
    /// repmgr's number.
    pub id: NodeId,
    /// Where consumers find it.
    pub address: Address,
    /// What its Postgres does. `None` until it has said so.
    pub role: Option<Role>,
    /// What the node does.
    pub state: NodeState,
    /// The scenario under way.
    pub scenario: Option<RunningScenario>,
    /// The branch of history that it is on.
    pub timeline: Option<Timeline>,
    /// Written or replayed up to here.
    pub lsn: Option<Lsn>,
    /// Behind the primary, in bytes.
    pub lag_bytes: Option<u64>,
    /// Behind the primary, in seconds.
    pub lag_seconds: Option<f64>,
    /// An acknowledged write is surely on it.
    pub sync: bool,
    /// repmgr's priority; 0 is never promoted.
    pub priority: u32,
    /// repmgr's location.
    pub location: String,
    /// It has a vote about who leads.
    pub votes: bool,
    /// When its server last said how it is; before the first time, when the node began.
    #[serde(skip, default = "Instant::now")]
    pub answered: Instant,
    /// Since then. True in what [`Snapshot::now`] returns.
    pub last_seen_seconds: f64,
    /// Which helpers run: `crond`, `repmgrd`.
    pub services: Vec<String>,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// A start is under way, or Postgres recovers.
    Starting,
    /// It serves.
    Running,
    /// Postgres does not run, or is about to end.
    Stopped,
    /// Postgres runs and does not answer.
    Unreachable,
}

/// A plan that is being carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningScenario {
    /// The section's title in the scenario document.
    pub title: String,
    /// Counted from 1.
    pub stage: usize,
    /// Of how many.
    pub stages: usize,
    /// The document's line.
    pub stage_title: String,
}

impl Snapshot {
    /// Before anything has happened.
    pub(super) fn first(hands: &Hands, means: Means) -> Self {
        let Hands { settings, identity, .. } = hands;
        let mut warnings = settings.warnings.clone();
        warnings.extend(default_password_warning(&settings.default_passwords));
        if means == Means::OneAccount {
            warnings.push(format!(
                "runs as {}: cron needs root, so this node takes no backups",
                hands.ourselves
            ));
        }
        Snapshot {
            cluster: settings.herd.cluster.clone(),
            state: ClusterState::Provisioning,
            primary: None,
            timeline: None,
            paused: false,
            failover: "manual".to_owned(),
            warnings,
            nodes: vec![NodeStatus {
                name: identity.name.clone(),
                id: identity.id,
                address: identity.address.clone(),
                role: None,
                state: NodeState::Starting,
                scenario: None,
                timeline: None,
                lsn: None,
                lag_bytes: None,
                lag_seconds: None,
                sync: false,
                priority: settings.repmgr.priority,
                location: settings.repmgr.location.clone(),
                votes: false,
                answered: Instant::now(),
                last_seen_seconds: 0.0,
                services: Vec::new(),
            }],
        }
    }

    /// As it is now: time goes on also while nothing happens.
    pub fn now(&self) -> Self {
        let mut now = self.clone();
        for node in &mut now.nodes {
            node.last_seen_seconds = node.answered.elapsed().as_secs_f64();
        }
        now
    }
}

fn default_password_warning(roles: &[String]) -> Option<String> {
    (!roles.is_empty()).then(|| {
        format!(
            "the documented default password is still in use for {}: they come in from this \
             node's own networks only; set passwords of your own",
            roles.join(", ")
        )
    })
}

impl RunningScenario {
    pub(super) fn begun(title: &str) -> Self {
        RunningScenario { title: title.to_owned(), stage: 0, stages: 0, stage_title: String::new() }
    }

    pub(super) fn advance(&mut self, progress: Progress) {
        let Progress { stage, stages, title } = progress;
        (self.stage, self.stages, self.stage_title) = (stage, stages, title);
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Starting => "starting",
            NodeState::Running => "running",
            NodeState::Stopped => "stopped",
            NodeState::Unreachable => "unreachable",
        })
    }
}

impl fmt::Display for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClusterState::Provisioning => "provisioning",
            ClusterState::Healthy => "healthy",
            ClusterState::Unhealthy => "unhealthy",
        })
    }
}

/// For a person: 80 columns, a row a node.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is {}", self.cluster, self.state)?;
        let width = |of: fn(&NodeStatus) -> usize, least: usize| {
            self.nodes.iter().map(of).max().unwrap_or_default().max(least)
        };
        let name = width(|node| node.name.len(), 4);
        let address = width(|node| node.address.to_string().len(), 7);
        let state = width(|node| node.state.to_string().len(), 8);
        writeln!(
            f,
            "{:<name$}  {:>2}  {:<address$}  {:<8}  {:<state$}  {:>2}  LSN",
            "NODE", "ID", "ADDRESS", "ROLE", "STATE", "TL"
        )?;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        for node in &self.nodes {
            writeln!(
                f,
                "{:<name$}  {:>2}  {:<address$}  {:<8}  {:<state$}  {:>2}  {}",
                node.name,
                node.id.to_string(),
                node.address.to_string(),
                or_dash(node.role.map(|role| role.to_string())),
                node.state.to_string(),
                or_dash(node.timeline.map(|timeline| timeline.to_string())),
                or_dash(node.lsn.map(|lsn| lsn.to_string())),
            )?;
            if let Some(RunningScenario { title, stage, stages, stage_title }) = &node.scenario {
                writeln!(f, "  {title}: {stage}/{stages} {stage_title}")?;
            }
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "! {warning}"))
    }
}
