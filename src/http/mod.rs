//! Port 8008: what load balancers, probes and `pgherd status` ask. Answers come from the
//! [`Snapshot`]; no handler asks the server anything.

mod archive;
mod backup;
mod dashboard;
mod events;
mod metrics;
mod patroni;
mod probes;
mod relay;
mod token;
mod wishes;

pub use archive::Archived;
pub use metrics::page as metrics_page;
pub use wishes::Wishes;

#[cfg(test)]
pub(crate) use wishes::value;

use crate::control::Snapshot;
use crate::journal::Journal;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on};
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use probes::{PATHS, Probe};
use serde_json::Value;
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
    let dashboard = dashboard::routes(snapshots.clone(), journal.clone())
        .merge(relay::routes(wishes.settings(), snapshots.clone()));
    let journal = journal.map(events::routes).unwrap_or_default();
    let wishes = wishes::routes(wishes, snapshots.clone());
    let all = routes(snapshots).merge(archive).merge(journal).merge(wishes).merge(dashboard);
    let service = TowerToHyperService::new(all);
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
    let probes = PATHS
        .iter()
        .fold(Router::new(), |routes, (path, probe)| routes.route(path, answer_to(*probe)));
    probes
        // Patroni's own view of a node: the same, and always 200.
        .route("/patroni", answer_to(Probe::Alive))
        .route("/cluster", about(patroni::cluster))
        .route("/history", about(patroni::history))
        .route("/metrics", on(GET_OR_OPTIONS, metrics))
        .route("/status", get(status))
        .with_state(snapshots)
}

async fn status(State(snapshots): State<Snapshots>) -> Json<Snapshot> {
    Json(snapshots.borrow().now())
}

async fn metrics(State(snapshots): State<Snapshots>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::page(&snapshots.borrow().now()))
}

/// 200 where `probe` holds, else 503; the node's own state either way. To `OPTIONS` too, which is what
/// HAProxy asks where it was set up for Patroni, without that.
fn answer_to(probe: Probe) -> MethodRouter<Snapshots> {
    let answer = async move |State(snapshots): State<Snapshots>, method, RawQuery(query)| {
        answered(probe, &snapshots.borrow(), &method, query.as_deref())
    };
    on(GET_OR_OPTIONS, answer)
}

fn answered(probe: Probe, seen: &Snapshot, method: &Method, query: Option<&str>) -> Response {
    let lag_max = wishes::value(query, "lag").map(|lag| probes::bytes(&lag));
    if lag_max == Some(None) {
        let words = "lag= takes bytes, or a number with kB, MB or GB";
        return token::said(StatusCode::BAD_REQUEST, words);
    }
    let code = match probe.holds(seen, lag_max.flatten()) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    match *method {
        Method::OPTIONS => code.into_response(),
        _ => (code, Json(patroni::node(seen))).into_response(),
    }
}

/// Always 200.
fn about(tell: fn(&Snapshot) -> Value) -> MethodRouter<Snapshots> {
    on(GET_OR_OPTIONS, async move |State(snapshots): State<Snapshots>| {
        Json(tell(&snapshots.borrow()))
    })
}

#[cfg(test)]
mod tests;
