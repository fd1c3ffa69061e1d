//! What people ask of a node: requests to the node's loop, for whoever shows the control token.

use super::Snapshots;
use super::token::{Admitted, Token, said};
use crate::cluster::{Role, Standing};
use crate::control::{Asked, Event, Snapshot, Wish};
use crate::keeper::{AGREED, Agreement, Keeper};
use crate::settings::{RestoreSettings, Settings};
use axum::Router;
use axum::extract::{FromRef, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on, post};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Where requests go, and who may make them.
#[derive(Clone, Debug)]
pub struct Wishes {
    token: Token,
    sender: mpsc::Sender<Event>,
    settings: Settings,
    keeper: Option<Keeper>,
}

impl Wishes {
    /// To the node that listens to `sender`.
    pub fn new(settings: &Settings, keeper: Option<Keeper>, sender: mpsc::Sender<Event>) -> Self {
        Wishes { token: Token::of(settings), sender, settings: settings.clone(), keeper }
    }

    /// The node's.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl FromRef<(Wishes, Snapshots)> for Token {
    fn from_ref((wishes, _): &(Wishes, Snapshots)) -> Self {
        wishes.token.clone()
    }
}

pub(super) fn routes(wishes: Wishes, snapshots: Snapshots) -> Router {
    Router::new()
        .route("/member", get(member))
        .route("/failover", post(failover))
        .route(
            "/switchover",
            asks(MethodFilter::POST, switchover)
                .merge(asks(MethodFilter::DELETE, |_, _| Ok(Wish::CancelSwitchover))),
        )
        .route("/member", asks(MethodFilter::DELETE, take_out))
        .route("/restore", asks(MethodFilter::POST, restore))
        .route("/restart", asks(MethodFilter::POST, |_, _| Ok(Wish::Restart)))
        .route("/reload", asks(MethodFilter::POST, |_, _| Ok(Wish::Reload)))
        .route("/reinitialize", asks(MethodFilter::POST, |_, _| Ok(Wish::Reinitialize)))
        .route("/pause", asks(MethodFilter::PUT, pause))
        .route("/maintenance", asks(MethodFilter::PUT, maintenance))
        .route("/lease/agree", post(agree))
        .route("/lease/look", post(look))
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

/// Whoever leads cannot reach the voters, and asks whether it may go on.
async fn agree(
    State((wishes, _)): State<(Wishes, Snapshots)>,
    RawQuery(query): RawQuery,
) -> Response {
    let asked = query.as_deref().and_then(Agreement::parse);
    let (Some(asked), Some(keeper)) = (asked, &wishes.keeper) else {
        return said(StatusCode::BAD_REQUEST, "this node keeps no record of who leads");
    };
    if !asked.is_proved(&wishes.settings) {
        return said(StatusCode::UNAUTHORIZED, "the question does not show the control token");
    }
    match keeper.agree(asked.instance, asked.epoch).await {
        Ok(()) => {
            let proof = wishes.token.proof(&asked.nonce, AGREED);
            ([("pgherd-proof", proof)], AGREED).into_response()
        }
        Err(why) => said(StatusCode::CONFLICT, why),
    }
}

/// The record has changed, somebody says. Anybody may: it is looked at more often than that.
async fn look(State((wishes, _)): State<(Wishes, Snapshots)>) -> StatusCode {
    if let Some(keeper) = &wishes.keeper {
        keeper.look();
    }
    StatusCode::ACCEPTED
}

/// The value of `name` in a query, without its percent signs.
pub(crate) fn value(query: Option<&str>, name: &str) -> Option<String> {
    let query = query?;
    let value = query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
    Some(unescaped(value)).filter(|value| !value.is_empty())
}

/// Percent signs undone.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = code.and_then(|two| u8::from_str_radix(two, 16).ok());
        (rest, _) = match (first, code) {
            (b'%', Some(byte)) => (&after[2..], bytes.push(byte)),
            _ => (after, bytes.push(first)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is wished for, as a query says it; or what is wrong with that.
type Read = fn(&Settings, Option<&str>) -> Result<Wish, String>;

/// Whoever shows the token wishes for what `read` makes of the query.
fn asks(method: MethodFilter, read: Read) -> MethodRouter<(Wishes, Snapshots)> {
    let asked = async move |admitted: Admitted,
                            State((wishes, _)): State<(Wishes, Snapshots)>,
                            RawQuery(query): RawQuery,
                            body: String| {
        match is_empty(&body).and_then(|()| read(&wishes.settings, query.as_deref())) {
            Ok(wish) => wishes.ask(admitted, wish).await,
            Err(why) => said(StatusCode::BAD_REQUEST, why),
        }
    };
    on(method, asked)
}

/// Whoever says in a body to whom, or when, would have something else done than what was wished for.
fn is_empty(body: &str) -> Result<(), String> {
    match body.trim() {
        "" | "{}" | "null" => Ok(()),
        _ => Err("what is wished for stands in the query, as in POST /switchover?to=NODE (pgherd openapi): \
                  a body is not read"
            .to_owned()),
    }
}

fn switchover(_: &Settings, query: Option<&str>) -> Result<Wish, String> {
    let at = value(query, "at").map(|at| at.parse()).transpose();
    Ok(Wish::Switchover {
        to: value(query, "to"),
        at: at.map_err(|_| "at: seconds since 1970")?,
        dry_run: value(query, "dry_run").is_some(),
    })
}

fn restore(settings: &Settings, query: Option<&str>) -> Result<Wish, String> {
    let said = |name: &str| value(query, name);
    let herd = &settings.herd;
    let asked = RestoreSettings::wished(said, &herd.cluster, &herd.control_token)?;
    let dry_run = value(query, "dry_run").is_some();
    Ok(Wish::Restore { asked: Box::new(asked), found: None, dry_run })
}

fn take_out(_: &Settings, query: Option<&str>) -> Result<Wish, String> {
    let node = value(query, "node").ok_or("node: its name")?;
    Ok(Wish::TakeOut { node })
}

fn pause(_: &Settings, query: Option<&str>) -> Result<Wish, String> {
    Ok(Wish::Pause(is_on(query)?))
}

fn maintenance(settings: &Settings, query: Option<&str>) -> Result<Wish, String> {
    Ok(Wish::Maintenance {
        node: value(query, "node").unwrap_or_else(|| settings.repmgr.node_name.clone()),
        on: is_on(query)?,
        forced: value(query, "force").is_some(),
    })
}

/// It is on where nothing else is said.
fn is_on(query: Option<&str>) -> Result<bool, String> {
    match value(query, "on").as_deref() {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err("on: true or false".to_owned()),
    }
}

impl Wishes {
    /// What becomes of it, for whoever shows the token.
    async fn ask(&self, _: Admitted, wish: Wish) -> Response {
        let (reply, granted) = oneshot::channel();
        let _ = self.sender.send(Event::Asked(Asked { wish, reply })).await; // Then there is no answer.
        match timeout(GRANTED_WITHIN, granted).await {
            Ok(Ok(Ok(done))) => said(StatusCode::ACCEPTED, done),
            Ok(Ok(Err(why))) => said(StatusCode::CONFLICT, why),
            Ok(Err(_)) | Err(_) => {
                said(StatusCode::SERVICE_UNAVAILABLE, "this node does not answer just now")
            }
        }
    }
}

/// The loop answers at once; the record takes a moment.
const GRANTED_WITHIN: Duration = Duration::from_millis(3500);

/// A former primary that waits for silent members is told that they are gone; a standby that nobody
/// leads is to lead.
async fn failover(
    admitted: Admitted,
    State((wishes, snapshots)): State<(Wishes, Snapshots)>,
    RawQuery(query): RawQuery,
) -> Response {
    let allow_data_loss = value(query.as_deref(), "allow_data_loss").is_some();
    let serves = {
        let snapshot = snapshots.borrow();
        snapshot.report.as_ref().is_some_and(|one| matches!(one.standing, Standing::Serving { .. }))
    };
    if serves && wishes.keeper.is_some() {
        return wishes.ask(admitted, Wish::Failover { allow_data_loss }).await;
    }
    let waits = {
        let snapshot = snapshots.borrow();
        let standing = snapshot.report.as_ref().map(|report| report.standing);
        // … or to bring back a backup in the place of a history that is recorded.
        let restores = wishes.settings.restore.is_some();
        (matches!(standing, Some(Standing::AtRest { role: Role::Primary, .. }))
            || restores && matches!(standing, Some(Standing::Empty { .. })))
            && snapshot.nodes[0].waits_for.is_some()
    };
    if !waits {
        let reason = "this node does not wait to lead again; to give the lead to a standby: \
                      docker exec -u postgres NODE repmgr standby promote";
        return said(StatusCode::CONFLICT, reason);
    }
    if !allow_data_loss {
        let reason = "whoever does not answer may have newer data, or lead where this node cannot see \
                      it: what it has and this node has not is lost then. If you are sure: \
                      --allow-data-loss";
        return said(StatusCode::CONFLICT, reason);
    }
    match wishes.sender.send(Event::LeadAlone).await {
        Ok(()) => said(StatusCode::ACCEPTED, "it leads, unless somebody else is found to"),
        Err(_) => said(StatusCode::SERVICE_UNAVAILABLE, "this node is about to end"),
    }
}
