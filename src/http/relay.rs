//! What the page asks for is asked of the node that can grant it: whoever shows the token to this node
//! need not reach the others.

use super::token::{Token, said};
use super::wishes::value;
use super::{Connection, Snapshots};
use crate::settings::Settings;
use crate::system::download;
use axum::Router;
use axum::extract::{Extension, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use std::time::Duration;

/// The node that is asked answers within three seconds.
const ANSWER_AT_MOST: Duration = Duration::from_secs(4);

#[derive(Clone)]
struct Relay {
    token: Token,
    settings: Settings,
    snapshots: Snapshots,
}

pub(super) fn routes(settings: &Settings, snapshots: Snapshots) -> Router {
    let token = Token::of(settings);
    Router::new().route("/relay/switchover", post(switchover)).with_state(Relay {
        token,
        settings: settings.clone(),
        snapshots,
    })
}

/// Asks whoever leads to hand over. The token is in a header of ours, which no other site's page can
/// have a browser send, and never in a cookie.
async fn switchover(
    State(relay): State<Relay>,
    Extension(connection): Extension<Connection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = relay.token.admit(&connection, &headers) {
        return *refused;
    }
    let leader = {
        let seen = relay.snapshots.borrow();
        let at = seen.nodes.iter().position(|node| Some(&node.name) == seen.primary.as_ref());
        at.map(|at| match at {
            0 => "127.0.0.1".to_owned(),
            _ => seen.nodes[at].address.host.clone(),
        })
    };
    let Some(leader) = leader else {
        let reason = "nobody leads just now: to give the lead to a standby, pgherd failover";
        return said(StatusCode::CONFLICT, reason);
    };
    let mut path = "/switchover?".to_owned();
    if let Some(to) = value(query.as_deref(), "to") {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let escaped = to.chars().map(|c| match is_plain(c) {
            true => c.to_string(),
            false => c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
        });
        path.push_str(&format!("to={}&", escaped.collect::<String>()));
    }
    if value(query.as_deref(), "dry_run").is_some() {
        path.push_str("dry_run=1");
    }
    let node = (leader.as_str(), relay.settings.herd.http_port);
    let token = relay.settings.herd.control_token.expose();
    match download::ask_soon("POST", node, &path, Some(token), ANSWER_AT_MOST).await {
        Ok(answer) => {
            let code = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::BAD_GATEWAY);
            said(code, answer.text.trim())
        }
        Err(error) => {
            said(StatusCode::BAD_GATEWAY, format!("{leader} does not answer this node: {error}"))
        }
    }
}
