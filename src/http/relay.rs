//! What the page asks for is asked of the node that can grant it: whoever shows the token to this node
//! need not reach the others.

use super::Snapshots;
use super::token::{Admitted, Token, said};
use super::wishes::value;
use crate::settings::Settings;
use crate::system::download;
use axum::Router;
use axum::extract::{FromRef, RawQuery, State};
use axum::http::StatusCode;
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

impl FromRef<Relay> for Token {
    fn from_ref(relay: &Relay) -> Self {
        relay.token.clone()
    }
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
    _: Admitted,
    State(relay): State<Relay>,
    RawQuery(query): RawQuery,
) -> Response {
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
    let herd = &relay.settings.herd;
    let node = download::Node { host: &leader, port: herd.http_port, tls: herd.tls_files() };
    let token = relay.settings.herd.control_token.expose();
    match download::ask_soon("POST", node, &path, Some(token), ANSWER_AT_MOST).await {
        Ok(answer) => {
            let code = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            said(code, answer.text.trim())
        }
        Err(error) => said(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{leader} does not answer this node: {error}"),
        ),
    }
}
