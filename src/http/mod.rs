//! Port 8008: what load balancers, probes and `pgherd status` ask. Answers come from the
//! [`Snapshot`]; no handler asks the server anything.

use crate::cluster::Role;
use crate::control::{NodeState, NodeStatus, Snapshot};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{MethodRouter, get};
use tokio::net::TcpListener;
use tokio::sync::watch;

type Snapshots = watch::Receiver<Snapshot>;

/// Answers until the node ends.
pub async fn serve(listener: TcpListener, snapshots: Snapshots) {
    let primary = |node: &NodeStatus| serves_as(node, Role::Primary);
    let routes = Router::new()
        // The loop that answers is the loop that runs the node: that it answers is the proof.
        .route("/liveness", get(|| async { StatusCode::OK }))
        .route("/readiness", probe(is_running))
        .route("/health", probe(is_running))
        .route("/primary", probe(primary))
        .route("/leader", probe(primary))
        .route("/read-write", probe(primary))
        .route("/read-only", probe(is_running))
        .route("/replica", probe(|node| serves_as(node, Role::Standby)))
        .route("/status", get(status))
        .with_state(snapshots);
    // Fails only if the listener does; the node goes on without.
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::warn!("no longer answering on port 8008: {error}");
    }
}

async fn status(State(snapshots): State<Snapshots>) -> Json<Snapshot> {
    Json(snapshots.borrow().now())
}

/// 200 where `holds`, else 503; the node's own row either way.
fn probe(holds: fn(&NodeStatus) -> bool) -> MethodRouter<Snapshots> {
    get(move |State(snapshots): State<Snapshots>| async move {
        let node = snapshots.borrow().now().nodes.swap_remove(0);
        let code = if holds(&node) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (code, Json(node))
    })
}

fn is_running(node: &NodeStatus) -> bool {
    node.state == NodeState::Running
}

fn serves_as(node: &NodeStatus, role: Role) -> bool {
    is_running(node) && node.role == Some(role)
}
