//! What people ask of a node: requests to the node's loop, for whoever shows the control token.

use super::token::{Token, said};
use super::{Connection, Snapshots};
use crate::cluster::{Role, Standing};
use crate::control::{Event, Snapshot};
use crate::settings::Settings;
use axum::Router;
use axum::extract::{Extension, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Where requests go, and who may make them.
#[derive(Clone, Debug)]
pub struct Wishes {
    token: Token,
    sender: mpsc::Sender<Event>,
}

impl Wishes {
    /// To the node that listens to `sender`.
    pub fn new(settings: &Settings, sender: mpsc::Sender<Event>) -> Self {
        Wishes { token: Token::of(settings), sender }
    }
}

pub(super) fn routes(wishes: Wishes, snapshots: Snapshots) -> Router {
    Router::new()
        .route("/member", get(member))
        .route("/failover", post(failover))
        .with_state((wishes, snapshots))
}

/// How long the node may take to find out what it is as of now.
const NOW_AT_MOST: Duration = Duration::from_millis(1500);

/// What the members ask each other. With `?now` nothing in the answer is older than the question;
/// without one in time there is none.
async fn member(
    State((wishes, mut snapshots)): State<(Wishes, Snapshots)>,
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, StatusCode> {
    let query = query.unwrap_or_default();
    let mut parts = query.split('&');
    if parts.clone().any(|part| part == "now") {
        let asked = Instant::now();
        let is_new = |seen: &Snapshot| seen.looked.is_some_and(|looked| looked >= asked);
        let _ = wishes.sender.send(Event::LookNow).await; // It is about to end, and does not answer.
        let looked = timeout(NOW_AT_MOST, snapshots.wait_for(is_new)).await;
        if !looked.is_ok_and(|seen| seen.is_ok()) {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
    }
    let report = snapshots.borrow().report.clone();
    let body = serde_json::to_string(&report).expect("its keys are texts");
    let nonce = parts.find_map(|part| part.strip_prefix("nonce=")).unwrap_or_default();
    let proof = wishes.token.proof(nonce, &body);
    let headers = [("content-type", "application/json".to_owned()), ("pgherd-proof", proof)];
    Ok((headers, body))
}

/// A former primary that waits for silent members is told that they are gone.
async fn failover(
    State((wishes, snapshots)): State<(Wishes, Snapshots)>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = wishes.token.admit(&connection, &headers) {
        return *refused;
    }
    let waits = {
        let snapshot = snapshots.borrow();
        let standing = snapshot.report.as_ref().map(|report| report.standing);
        matches!(standing, Some(Standing::AtRest { role: Role::Primary, .. }))
            && snapshot.nodes[0].waits_for.is_some()
    };
    if !waits {
        let reason = "this node does not wait to lead again; to give the lead to a standby: \
                      docker exec -u postgres NODE repmgr standby promote";
        return said(StatusCode::CONFLICT, reason);
    }
    match wishes.sender.send(Event::LeadAlone).await {
        Ok(()) => said(StatusCode::ACCEPTED, "it leads, unless somebody else is found to"),
        Err(_) => said(StatusCode::SERVICE_UNAVAILABLE, "this node is about to end"),
    }
}
