//! `GET /events?limit=N`: what happened to this node lately, the oldest first. Anybody may ask, as for
//! `/status`: there is no secret in it.

use super::token::said;
use super::wishes::value;
use crate::journal::{ENTRIES_MAX, Entry, Journal};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{Json, Response};
use axum::routing::get;

pub(super) fn routes(journal: Journal) -> Router {
    Router::new().route("/events", get(events)).with_state(journal)
}

async fn events(
    State(journal): State<Journal>,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<Entry>>, Response> {
    let limit = match value(query.as_deref(), "limit").map(|limit| limit.parse()) {
        None => ENTRIES_MAX,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return Err(said(StatusCode::BAD_REQUEST, "limit: a number")),
    };
    Ok(Json(journal.last(limit)))
}
