//! What HTTP and `pgherd status` show: a copy of what the node knows, replaced after every event,
//! so that a reader never waits for the loop and the loop never for a reader.

mod facts;
mod words;

pub(crate) use words::bytes_in_words;

pub use facts::{Counts, Disk, Facts, Fork, Lags, Lease};

use super::node_role::{NodeRole, or_unknown};
pub use crate::cluster::RunningScenario;
use crate::cluster::{Address, BackupsSeen, Entry, Lsn, NodeId, NodeState, Report, Timeline};
use crate::execute::{Hands, Progress};
use crate::layout::Means;
use crate::scenario::Plan;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
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
    /// Counts who took the lead, by the cluster's record; none where there is no record.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// Who leads, or led last, by the record.
    #[serde(default)]
    pub holder: Option<String>,
    /// Whoever leads by the record takes no writes yet.
    #[serde(default)]
    pub promoting: bool,
    /// No change of roles happens by itself.
    pub paused: bool,
    /// The lead is to be handed over later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_switchover: Option<ScheduledSwitchover>,
    /// `PGHERD_FAILOVER`.
    pub failover: String,
    /// One sentence each.
    pub warnings: Vec<String>,
    /// A row a node; the first one is the node that answers.
    pub nodes: Vec<NodeStatus>,
    /// As the node that keeps them says; none where nobody who answers does.
    #[serde(default)]
    pub backups: Option<BackupsSeen>,
    /// How far whoever took writes last had written, as far as this node knows.
    #[serde(default)]
    pub end: Option<Lsn>,
    /// How long whoever leads may still write without another word; none where there is no record.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// The port that pgherd answers on, on every node.
    #[serde(default)]
    pub http_port: u16,
    /// … over TLS.
    #[serde(default)]
    pub tls: bool,
    /// The hosts that vote.
    #[serde(default)]
    pub voters: Vec<String>,
    /// More than half of them do not answer.
    #[serde(default)]
    pub voters_silent: bool,
    /// Commits wait for a standby that is not there.
    #[serde(default)]
    pub writes_wait: bool,
    /// How many of the documented default passwords are in use.
    #[serde(skip)]
    pub default_passwords: usize,
    /// What the disk says.
    #[serde(skip)]
    pub facts: Arc<Facts>,
    /// What this node has counted.
    #[serde(skip)]
    pub counts: Arc<Counts>,
    /// How far each was behind lately.
    #[serde(skip)]
    pub lags: Arc<Lags>,
    /// What happened to the other nodes lately, in the order in which this one heard of it.
    #[serde(skip)]
    pub elsewhere: Arc<VecDeque<Entry>>,
    /// What this node says of itself to the others.
    #[serde(skip)]
    pub report: Option<Report>,
    /// When it was found out last that this is so; only of those who asked for it.
    #[serde(skip)]
    pub looked: Option<Instant>,
}

/// Who may lead does so within a few seconds. If nobody does for so long, nobody may.
const FAILS_OVER_WITHIN_S: f64 = 30.0;

/// What people have put off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledSwitchover {
    /// RFC 3339, in UTC.
    pub at: String,
    /// Who is to lead; whoever is best then without a name.
    pub to: Option<String>,
}

/// How the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterState {
    /// It never served anybody yet.
    Provisioning,
    /// All is well.
    Healthy,
    /// Somebody takes writes, and a node is missing or not ready.
    Degraded,
    /// Nobody takes writes, and another node is about to.
    FailingOver,
    /// Nobody takes writes.
    Unhealthy,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `REPMGR_NODE_NAME`.
    pub name: String,
    /// repmgr's number. `None` where it never has one: without a Postgres.
    pub id: Option<NodeId>,
    /// Where consumers find it.
    pub address: Address,
    /// What it is to the cluster. `None`, which is told as `unknown`, until its Postgres has said so.
    #[serde(with = "or_unknown")]
    pub role: Option<NodeRole>,
    /// What the node does.
    pub state: NodeState,
    /// The scenario under way.
    pub scenario: Option<RunningScenario>,
    /// Why it does not go on just now.
    pub waits_for: Option<String>,
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
    /// A person asked that it is not chosen.
    #[serde(default)]
    pub maintenance: bool,
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
    /// Whom it streams from.
    #[serde(default)]
    pub follows: Option<Address>,
    /// What it warns of itself; of the node that answers they stand in [`Snapshot::warnings`].
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Snapshot {
    /// Before anything has happened.
    pub(super) fn first(hands: &Hands, means: Means) -> Self {
        let Hands { settings, .. } = hands;
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
            epoch: None,
            holder: None,
            promoting: false,
            paused: false,
            scheduled_switchover: None,
            failover: settings.herd.failover.to_string(),
            warnings,
            nodes: vec![NodeStatus {
                state: NodeState::Starting,
                priority: settings.repmgr.priority,
                location: settings.repmgr.location.clone(),
                ..NodeStatus::unknown(&settings.repmgr.node_name, hands.address.clone())
            }],
            backups: None,
            end: None,
            lease: None,
            http_port: settings.herd.http_port,
            tls: settings.herd.tls.is_some(),
            voters: settings.herd.voters.iter().map(|voter| voter.host.clone()).collect(),
            voters_silent: false,
            writes_wait: false,
            default_passwords: settings.default_passwords.len(),
            facts: Arc::default(),
            counts: Arc::default(),
            lags: Arc::default(),
            elsewhere: Arc::default(),
            report: None,
            looked: None,
        }
    }

    /// As it is now: time goes on also while nothing happens.
    pub fn now(&self) -> Self {
        let mut now = self.clone();
        for node in &mut now.nodes {
            node.last_seen_seconds = node.answered.elapsed().as_secs_f64();
        }
        if let Some(lease) = now.lease.as_mut().filter(|lease| lease.seconds_left > 0.0) {
            lease.seconds_left = (lease.seconds - lease.renewed.elapsed().as_secs_f64()).max(0.0);
        }
        let is_elsewhere = now.primary.as_ref().is_some_and(|name| *name != now.nodes[0].name);
        if is_elsewhere && matches!(now.state, ClusterState::Provisioning | ClusterState::Unhealthy)
        {
            now.state = ClusterState::Degraded; // This node does not serve; another leads.
        }
        if let Some(state) = now.without_a_leader() {
            (now.primary, now.state) = (None, state);
        }
        now
    }

    /// How the cluster is if nobody may write, by the record: that is known before a look at everybody
    /// has shown who is gone.
    fn without_a_leader(&self) -> Option<ClusterState> {
        let lease = self.lease.as_ref()?;
        let over = lease.seconds_left == 0.0;
        let is_gone = |node: &NodeStatus| {
            self.holder.as_ref() == Some(&node.name) && node.state == NodeState::Unreachable
        };
        // Its lease may go on for a moment; another node waits for the end of that.
        let gone = self.primary.is_none() && self.nodes.iter().skip(1).any(is_gone);
        if !(over || gone || self.promoting)
            || self.voters_silent
            || self.state == ClusterState::Provisioning
        {
            return None;
        }
        let changes_by_itself = self.promoting || !self.paused;
        let late = lease.renewed.elapsed().as_secs_f64() - lease.seconds > FAILS_OVER_WITHIN_S;
        Some(match changes_by_itself && !late {
            true => ClusterState::FailingOver,
            false => ClusterState::Unhealthy,
        })
    }
}

impl NodeStatus {
    /// Of a node that has not said anything.
    pub(crate) fn unknown(name: &str, address: Address) -> Self {
        NodeStatus {
            name: name.to_owned(),
            id: None,
            address,
            role: None,
            state: NodeState::Unreachable,
            scenario: None,
            waits_for: None,
            timeline: None,
            lsn: None,
            lag_bytes: None,
            lag_seconds: None,
            sync: false,
            maintenance: false,
            priority: 100,
            location: "default".to_owned(),
            votes: false,
            answered: Instant::now(),
            last_seen_seconds: 0.0,
            services: Vec::new(),
            follows: None,
            warnings: Vec::new(),
        }
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
    pub(super) fn begun(plan: &Plan) -> Self {
        RunningScenario {
            title: plan.scenario.title().to_owned(),
            titles: plan.stages.iter().map(|stage| stage.title.clone().into_owned()).collect(),
            ..RunningScenario::default()
        }
    }

    pub(super) fn advance(&mut self, progress: Progress) {
        let Progress { stage, stages, title, bytes, seconds_left, .. } = progress;
        (self.stage, self.stages, self.stage_title) = (stage, stages, title);
        (self.bytes_done, self.bytes_total) = bytes.map(|bytes| (bytes.done, bytes.total)).unzip();
        self.seconds_left = seconds_left;
    }
}

impl fmt::Display for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClusterState::Provisioning => "provisioning",
            ClusterState::Healthy => "healthy",
            ClusterState::Degraded => "degraded",
            ClusterState::FailingOver => "failing-over",
            ClusterState::Unhealthy => "unhealthy",
        })
    }
}
