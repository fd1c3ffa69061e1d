//! Answers in the shape that Patroni's users have tools for, with what is ours beside it.

use crate::cluster::{Address, Lsn, NodeId, NodeState, RunningScenario, Timeline};
use crate::control::{NodeRole, NodeStatus, Snapshot, or_unknown};
use serde::Serialize;
use serde_json::{Value, json};

/// The node that answers: its row, with Patroni's names and words where it has some. Ours for the role
/// is under `pgherd`. It borrows, because load balancers ask for it all the time.
#[derive(Serialize)]
pub(super) struct Node<'a> {
    name: &'a str,
    id: Option<NodeId>,
    address: &'a Address,
    role: &'static str,
    state: NodeState,
    scenario: Option<&'a RunningScenario>,
    waits_for: Option<&'a str>,
    timeline: Option<Timeline>,
    lsn: Option<Lsn>,
    lag_bytes: Option<u64>,
    lag_seconds: Option<f64>,
    sync: bool,
    maintenance: bool,
    priority: u32,
    location: &'a str,
    votes: bool,
    last_seen_seconds: f64,
    services: &'a [String],
    follows: Option<&'a Address>,
    warnings: &'a [String],
    xlog: Xlog,
    database_system_identifier: Option<String>,
    patroni: Patroni<'a>,
    pgherd: Pgherd<'a>,
    #[serde(skip_serializing_if = "is_not")]
    pause: bool,
    #[serde(skip_serializing_if = "is_not")]
    sync_standby: bool,
}

#[derive(Default, Serialize)]
struct Xlog {
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_location: Option<u64>,
}

#[derive(Serialize)]
struct Patroni<'a> {
    version: &'static str,
    scope: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct Pgherd<'a> {
    version: &'static str,
    cluster: &'a str,
    #[serde(with = "or_unknown")]
    role: Option<NodeRole>,
}

fn is_not(is: &bool) -> bool {
    !is
}

impl<'a> Node<'a> {
    /// None before the node knows itself.
    pub(super) fn of(seen: &'a Snapshot) -> Option<Self> {
        let own = seen.nodes.first()?;
        // Whatever a row has more is told, too.
        let NodeStatus {
            name,
            id,
            address,
            role,
            state,
            scenario,
            waits_for,
            timeline,
            lsn,
            lag_bytes,
            lag_seconds,
            sync,
            maintenance,
            priority,
            location,
            votes,
            answered,
            last_seen_seconds: _, // As of then.
            services,
            follows,
            warnings,
        } = own;
        let at = lsn.map(|lsn| lsn.0);
        let xlog = match role {
            Some(NodeRole::Primary) => Xlog { location: at, ..Xlog::default() },
            Some(NodeRole::Standby | NodeRole::Backup | NodeRole::Witness) | None => {
                Xlog { replayed_location: at, ..Xlog::default() }
            }
        };
        let system = seen.report.as_ref().and_then(|report| report.system);
        let (version, scope) = (env!("CARGO_PKG_VERSION"), seen.cluster.as_str());
        Some(Node {
            name,
            id: *id,
            address,
            role: word_for(*role),
            state: *state,
            scenario: scenario.as_ref(),
            waits_for: waits_for.as_deref(),
            timeline: *timeline,
            lsn: *lsn,
            lag_bytes: *lag_bytes,
            lag_seconds: *lag_seconds,
            sync: *sync,
            maintenance: *maintenance,
            priority: *priority,
            location,
            votes: *votes,
            last_seen_seconds: answered.elapsed().as_secs_f64(),
            services,
            follows: follows.as_ref(),
            warnings,
            xlog,
            database_system_identifier: system.map(|system| system.to_string()),
            patroni: Patroni { version, scope, name },
            pgherd: Pgherd { version, cluster: scope, role: *role },
            pause: seen.paused,
            sync_standby: *sync,
        })
    }
}

/// `/cluster`: the nodes that have data.
pub(super) fn cluster(seen: &Snapshot) -> Value {
    let has_data =
        |node: &&NodeStatus| !matches!(node.role, Some(NodeRole::Backup | NodeRole::Witness));
    let members: Vec<Value> =
        seen.nodes.iter().filter(has_data).map(|node| member(seen, node)).collect();
    let mut body = json!({"scope": seen.cluster, "members": members});
    if seen.paused {
        body["pause"] = true.into();
    }
    body
}

fn member(seen: &Snapshot, node: &NodeStatus) -> Value {
    let leads = seen.primary.as_ref() == Some(&node.name);
    let role = if leads {
        "leader"
    } else if node.sync {
        "sync_standby"
    } else {
        "replica"
    };
    let streams = !leads && node.state == NodeState::Running && node.follows.is_some();
    let state = if streams { "streaming".to_owned() } else { node.state.to_string() };
    let scheme = if seen.tls { "https" } else { "http" };
    let mut member = json!({
        "name": node.name,
        "role": role,
        "state": state,
        "api_url": format!("{scheme}://{}:{}/patroni", in_url(&node.address.host), seen.http_port),
        "host": node.address.host,
        "port": node.address.port,
        "timeline": node.timeline,
    });
    if !leads {
        member["lag"] = node.lag_bytes.map_or_else(|| "unknown".into(), Value::from);
    }
    if node.maintenance {
        member["tags"] = json!({"nofailover": true});
    }
    member
}

/// `/history`: timeline, where it ended, why, and when the next one began.
pub(super) fn history(seen: &Snapshot) -> Value {
    let forks = seen.facts.history.iter().map(|fork| {
        let mut row = vec![fork.timeline.0.into(), fork.end.0.into(), "promotion".into()];
        row.extend(fork.at.clone().map(Value::from));
        Value::from(row)
    });
    forks.collect()
}

/// A host as it stands in a URL.
pub(super) fn in_url(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn word_for(role: Option<NodeRole>) -> &'static str {
    match role {
        Some(NodeRole::Primary) => "primary",
        Some(NodeRole::Standby) => "replica",
        Some(NodeRole::Backup) => "backup",
        Some(NodeRole::Witness) => "witness",
        None => "uninitialized",
    }
}
