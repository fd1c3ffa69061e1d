//! Port 8008: what load balancers, probes and `pgherd status` ask. Answers come from the
//! [`Snapshot`]; no handler asks the server anything.

mod archive;
mod backup;
mod events;
mod token;
mod wishes;

pub use archive::Archived;
pub use wishes::Wishes;

#[cfg(test)]
pub(crate) use wishes::value;

use crate::cluster::NodeState;
use crate::control::{NodeRole, NodeStatus, Snapshot};
use crate::journal::Journal;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{MethodFilter, MethodRouter, get, on};
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// And `HEAD`, which axum answers as it does `GET`.
const GET_OR_OPTIONS: MethodFilter = MethodFilter::GET.or(MethodFilter::OPTIONS);

type Snapshots = watch::Receiver<Snapshot>;

/// So many may ask at the same time; more wait to be accepted. Load balancers and probes are a few.
const CONNECTIONS_MAX: usize = 64;
/// From a connection's first byte to the last of its answer, which is one; whoever is slower holds
/// the place of another. Copies of WAL and backups have a limit of their own, to each of their pieces.
const CONNECTION_AT_MOST: Duration = Duration::from_secs(10);

/// One who asks.
#[derive(Clone, Debug)]
struct Connection {
    peer: SocketAddr,
    may_last: Arc<AtomicBool>,
}

impl Connection {
    /// It may take longer than other answers do.
    fn may_last(&self) {
        self.may_last.store(true, Ordering::Relaxed);
    }
}

/// Answers until the node ends.
pub async fn serve(
    mut listener: TcpListener,
    snapshots: Snapshots,
    archived: Option<Archived>,
    wishes: Wishes,
    journal: Option<Journal>,
) {
    let archive = archived.map(archive::routes).unwrap_or_default();
    let journal = journal.map(events::routes).unwrap_or_default();
    let wishes = wishes::routes(wishes, snapshots.clone());
    let service =
        TowerToHyperService::new(routes(snapshots).merge(archive).merge(journal).merge(wishes));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
        // axum's: it waits a little after an error such as too many open files, and goes on.
        let (stream, peer) = Listener::accept(&mut listener).await;
        let connection = Connection { peer, may_last: Arc::default() };
        let (asked, routes) = (connection.clone(), service.clone());
        let introduced = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(asked.clone());
            routes.call(request)
        });
        let mut one_answer = http1::Builder::new();
        let answer =
            one_answer.keep_alive(false).serve_connection(TokioIo::new(stream), introduced);
        tokio::spawn(async move {
            let mut answer = pin!(answer);
            // Whoever asked may have gone, or is late.
            if timeout(CONNECTION_AT_MOST, &mut answer).await.is_err()
                && connection.may_last.load(Ordering::Relaxed)
            {
                let _ = answer.await;
            }
            drop(place);
        });
    }
}

fn routes(snapshots: Snapshots) -> Router {
    let primary = |node: &NodeStatus| serves_as(node, NodeRole::Primary);
    Router::new()
        // The loop that answers is the loop that runs the node: that it answers is the proof.
        .route("/liveness", on(GET_OR_OPTIONS, async || StatusCode::OK))
        .route("/readiness", probe(is_running))
        .route("/health", probe(is_running))
        .route("/primary", probe(primary))
        .route("/leader", probe(primary))
        .route("/read-write", probe(primary))
        .route(
            "/read-only",
            probe(|node| {
                is_running(node) && !matches!(node.role, Some(NodeRole::Backup | NodeRole::Witness))
            }),
        )
        .route("/replica", probe(|node| serves_as(node, NodeRole::Standby)))
        .route("/status", get(status))
        .with_state(snapshots)
}

async fn status(State(snapshots): State<Snapshots>) -> Json<Snapshot> {
    Json(snapshots.borrow().now())
}

/// 200 where `holds`, else 503; the node's own row either way. To `OPTIONS` too, which is what
/// HAProxy asks where it was set up for Patroni.
fn probe(holds: fn(&NodeStatus) -> bool) -> MethodRouter<Snapshots> {
    on(GET_OR_OPTIONS, move |State(snapshots): State<Snapshots>| async move {
        let node = snapshots.borrow().now().nodes.swap_remove(0);
        let code = if holds(&node) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (code, Json(node))
    })
}

fn is_running(node: &NodeStatus) -> bool {
    node.state == NodeState::Running
}

fn serves_as(node: &NodeStatus, role: NodeRole) -> bool {
    is_running(node) && node.role == Some(role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    pub(super) const SNAPSHOT: &str = r#"{"cluster": "pgherd", "state": "healthy", "primary": "node1",
        "timeline": 3, "paused": false, "failover": "manual", "warnings": [], "nodes": [{
        "name": "node1", "id": 1, "address": "node1:5432", "role": "primary", "state": "running",
        "scenario": null, "waits_for": null, "timeline": 3, "lsn": "0/5000148", "lag_bytes": 0, "lag_seconds": 0.0,
        "sync": false, "priority": 100, "location": "default", "votes": false,
        "last_seen_seconds": 0.4, "services": []}]}"#;

    #[test]
    fn a_probe_answers_every_method_that_load_balancers_use() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let (_sender, snapshots) = watch::channel(serde_json::from_str(SNAPSHOT).unwrap());
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let no_files = |_: &std::path::Path| unreachable!("no variable names a file");
            let settings = crate::settings::read([], no_files).unwrap();
            let wishes = Wishes::new(&settings, None, tokio::sync::mpsc::channel(1).0);
            tokio::spawn(serve(listener, snapshots, None, wishes, None));
            for method in ["GET", "HEAD", "OPTIONS"] {
                for (path, code) in [("/primary", "200"), ("/replica", "503"), ("/liveness", "200")]
                {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    let request = format!("{method} {path} HTTP/1.1\r\nHost: node1\r\n\r\n");
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).await.unwrap();
                    let expected = format!("HTTP/1.1 {code} ");
                    assert!(answer.starts_with(&expected), "{method} {path}: {answer}");
                }
            }
        });
    }
}
