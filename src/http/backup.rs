//! A base backup when somebody wants one: `POST /backup`, with the control token; `GET /backup` says what has
//! become of it.

use super::Connection;
use super::token::{Token, said};
use super::wishes::value;
use crate::barman::{self, Shelf};
use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::error::chain;
use crate::system::wait;
use axum::Router;
use axum::extract::{Extension, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// From its last file to the WAL that it needs: cron looks after that each minute.
const COMPLETE_WITHIN: Duration = Duration::from_secs(5 * 60);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One backup at a time.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    settings: Settings,
    layout: Layout,
    account: Account,
    token: Token,
    last: Arc<Mutex<Last>>,
}

/// What became of the last one that was asked for since this node began.
#[derive(Clone, Debug, Default, Serialize)]
struct Last {
    /// It is being taken.
    running: bool,
    /// So much of it is there,
    bytes: Option<u64>,
    /// of so much, if it is as large as the one before it.
    bytes_before: Option<u64>,
    /// Why there is none.
    failed: Option<String>,
    /// The newest that is complete.
    newest: Option<String>,
}

impl Jobs {
    pub(super) fn new(settings: &Settings, layout: &Layout, account: &Account) -> Self {
        Jobs {
            settings: settings.clone(),
            layout: layout.clone(),
            account: account.clone(),
            token: Token::of(settings),
            last: Arc::default(),
        }
    }

    /// The newest that is complete.
    async fn newest(&self) -> Option<String> {
        let (settings, account) = (self.settings.clone(), self.account.clone());
        let look = tokio::task::spawn_blocking(move || barman::look(&settings, &account));
        let Shelf { archive, .. } = look.await.ok()?;
        archive.backups.last().map(|backup| backup.id.clone())
    }

    /// barman calls it complete when the WAL has come that it needs; cron sees to that each minute. Else why
    /// not.
    async fn await_another_than(&self, before: Option<String>) -> Option<String> {
        let began = Instant::now();
        while self.newest().await == before {
            if began.elapsed() > COMPLETE_WITHIN {
                return Some(
                    "the WAL that it needs does not come (barman check says why)".to_owned(),
                );
            }
            wait::back_off(LOOK_EVERY).await;
        }
        None
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn routes(jobs: Jobs) -> Router {
    Router::new().route("/backup", post(take).get(how_far)).with_state(jobs)
}

/// A name is one of barman's words on a command line.
const NAME_MAX: usize = 64;

async fn take(
    State(jobs): State<Jobs>,
    Extension(connection): Extension<Connection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = jobs.token.admit(&connection, &headers) {
        return *refused;
    }
    let name = value(query.as_deref(), "name");
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_name = |name: &String| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(fits)
            && name.len() <= NAME_MAX
            && name != "latest"
    };
    if name.as_ref().is_some_and(|name| !is_name(name)) {
        let why = "a backup's name has letters, digits, `-`, `_` and `.`, and is not latest";
        return said(StatusCode::CONFLICT, why);
    }
    let node = jobs.settings.repmgr.node_name.clone();
    {
        let mut last = jobs.last();
        if last.running {
            return said(StatusCode::CONFLICT, format!("{node} takes a base backup already"));
        }
        *last = Last { running: true, ..Last::default() };
    }
    info!("takes a base backup, as asked");
    let taking = jobs.clone();
    tokio::spawn(async move {
        let Jobs { layout, account, .. } = &taking;
        let before = taking.newest().await;
        let taken = barman::take_backup(layout, account, name.as_deref()).await;
        let failed = match taken {
            Ok(()) => taking.await_another_than(before).await,
            Err(error) => Some(chain(&error)),
        };
        if let Some(why) = &failed {
            warn!("the base backup was not taken: {why}");
        }
        *taking.last() = Last { failed, ..Last::default() };
    });
    said(StatusCode::ACCEPTED, format!("{node} takes a base backup"))
}

async fn how_far(
    State(jobs): State<Jobs>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = jobs.token.admit(&connection, &headers) {
        return *refused;
    }
    let mut last = jobs.last().clone();
    let (settings, account) = (jobs.settings.clone(), jobs.account.clone());
    let look = tokio::task::spawn_blocking(move || barman::look(&settings, &account));
    if let Ok(Shelf { archive, running_bytes: bytes, .. }) = look.await {
        let newest = archive.backups.last();
        last.bytes = bytes;
        last.bytes_before = newest.map(|backup| backup.bytes);
        last.newest = newest.map(|backup| backup.id.clone());
    }
    Json(last).into_response()
}
