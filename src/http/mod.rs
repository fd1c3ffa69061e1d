//! Port 8008: what load balancers, probes and `pgherd status` ask. Answers come from the
//! [`Snapshot`]; no handler asks the server anything.

mod archive;
mod backup;
mod dashboard;
mod door;
mod events;
mod metrics;
mod openapi;
mod patroni;
mod probes;
mod relay;
mod token;
mod wishes;

pub use archive::Archived;
pub use door::Door;
use door::MayAskAgain;
pub use metrics::page as metrics_page;
pub use openapi::document as openapi;
pub use wishes::Wishes;

#[cfg(test)]
pub(crate) use wishes::value;

use crate::control::Snapshot;
use crate::journal::Journal;
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on};
use axum::{Extension, Router};
use probes::{PATHS, Probe};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// And `HEAD`, which axum answers as it does `GET`.
const GET_OR_OPTIONS: MethodFilter = MethodFilter::GET.or(MethodFilter::OPTIONS);

type Snapshots = watch::Receiver<Snapshot>;

/// One who asks.
#[derive(Clone, Debug)]
struct Connection {
    peer: SocketAddr,
    marks: Arc<Marks>,
    /// It came over TLS, and with a certificate that `PGHERD_TLS_CA_FILE`'s authority has signed, or without.
    certified: Option<bool>,
}

/// How far it is.
#[derive(Debug, Default)]
struct Marks {
    /// The question is there.
    asked: AtomicBool,
    may_last: AtomicBool,
}

impl Connection {
    /// It may take longer than other answers do.
    fn may_last(&self) {
        self.marks.may_last.store(true, Ordering::Relaxed);
    }
}

/// Answers until the node ends.
pub async fn serve(
    door: Door,
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
    door.answer_all(all).await;
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
    let kept = Extension(MayAskAgain);
    match *method {
        Method::OPTIONS => (code, kept).into_response(),
        _ => (code, kept, Json(patroni::Node::of(seen))).into_response(),
    }
}

/// Always 200.
fn about(tell: fn(&Snapshot) -> Value) -> MethodRouter<Snapshots> {
    on(GET_OR_OPTIONS, async move |State(snapshots): State<Snapshots>| {
        Json(tell(&snapshots.borrow().now()))
    })
}

#[cfg(test)]
mod tests;
