//! Answers in the shape that Patroni's users have tools for, with what is ours beside it.

use crate::cluster::NodeState;
use crate::control::{NodeRole, NodeStatus, Snapshot};
use serde_json::{Map, Value, json};

/// The node that answers: its row, with Patroni's names and words where it has some. Ours for the role
/// is under `pgherd`.
pub(super) fn node(seen: &Snapshot) -> Value {
    let Some(own) = seen.nodes.first() else { return Value::Null };
    let mut row = own.clone();
    row.last_seen_seconds = row.answered.elapsed().as_secs_f64();
    let Ok(Value::Object(mut body)) = serde_json::to_value(&row) else { return Value::Null };
    let ours = body.insert("role".to_owned(), word_for(own.role).into());
    let mut xlog = Map::new();
    if let Some(lsn) = own.lsn {
        if own.role == Some(NodeRole::Primary) {
            xlog.insert("location".to_owned(), lsn.0.into());
        } else {
            xlog.insert("replayed_location".to_owned(), lsn.0.into());
        }
    }
    body.insert("xlog".to_owned(), xlog.into());
    let system = seen.report.as_ref().and_then(|report| report.system);
    let system = system.map(|system| system.to_string());
    let scope = seen.cluster.as_str();
    let more = json!({
        "database_system_identifier": system,
        "patroni": {"version": env!("CARGO_PKG_VERSION"), "scope": scope, "name": own.name},
        "pgherd": {"version": env!("CARGO_PKG_VERSION"), "cluster": scope, "role": ours},
    });
    body.extend(more.as_object().cloned().unwrap_or_default());
    if seen.paused {
        body.insert("pause".to_owned(), true.into());
    }
    if own.sync {
        body.insert("sync_standby".to_owned(), true.into());
    }
    body.into()
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
    let mut member = json!({
        "name": node.name,
        "role": role,
        "state": state,
        "api_url": format!("http://{}:{}/patroni", in_url(&node.address.host), seen.http_port),
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
