//! A base backup when somebody wants one: `POST /backup`, with the control token; `GET /backup` says what has
//! become of it.

use super::token::{Admitted, Token, said};
use super::wishes::value;
use crate::barman::{self, Shelf, Status};
use crate::cluster::{LastBackup, Verified};
use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::error::chain;
use crate::system::wait;
use axum::Router;
use axum::extract::{FromRef, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{Json, Response};
use axum::routing::post;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// From its last file to the WAL that it needs: cron looks after that each minute.
const COMPLETE_WITHIN: Duration = Duration::from_secs(5 * 60);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So long one waits for another one to be taken, which may be large and the network slow.
const ANOTHER_AT_MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Each try costs half a second of a core.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// One backup at a time.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    settings: Settings,
    layout: Layout,
    account: Account,
    token: Token,
    last: Arc<Mutex<LastBackup>>,
    verifies: Arc<Mutex<Verifies>>,
}

/// The one that was to be restored on trial last.
#[derive(Clone, Debug, Default, Serialize)]
struct Verifies {
    /// It is.
    running: bool,
    /// Which.
    id: String,
    /// How far that is.
    doing: Option<&'static str>,
    /// Why nothing was found out.
    failed: Option<String>,
    /// What was found out.
    verified: Option<Verified>,
}

impl Jobs {
    pub(super) fn new(settings: &Settings, layout: &Layout, account: &Account) -> Self {
        Jobs {
            settings: settings.clone(),
            layout: layout.clone(),
            account: account.clone(),
            token: Token::of(settings),
            last: Arc::default(),
            verifies: Arc::default(),
        }
    }

    async fn look(&self) -> Option<Shelf> {
        let (settings, account) = (self.settings.clone(), self.account.clone());
        tokio::task::spawn_blocking(move || barman::look(&settings, &account)).await.ok()
    }

    /// What has become of each backup, by its id.
    async fn stages(&self) -> BTreeMap<String, Status> {
        self.look().await.map(|shelf| shelf.stages).unwrap_or_default()
    }

    /// Takes one, after whichever is being taken: barman takes one at a time. Its id, or why there is none.
    async fn take(&self, name: Option<&str>) -> Result<String, String> {
        let began = Instant::now();
        loop {
            let before = self.stages().await;
            let Err(error) = barman::take_backup(&self.layout, &self.account, name).await else {
                // An id is the time when it began, and while this one was taken no other could begin.
                let is_new = |id: &String| !before.contains_key(id);
                let found = self.stages().await.into_keys().find(is_new);
                let id = found.ok_or("barman says that it has one, and none is there")?;
                self.last().id = Some(id.clone());
                return self.await_complete(&id).await.map(|()| id);
            };
            if !barman::takes_another(&error) || began.elapsed() > ANOTHER_AT_MOST {
                return Err(chain(&error));
            }
            if !std::mem::replace(&mut self.last().waits, true) {
                info!(
                    "another base backup is being taken: the one that was asked for comes after it"
                );
            }
            wait::back_off(TRY_EVERY).await;
        }
    }

    /// barman calls it complete when the WAL has come that it needs; cron sees to that each minute. Else why
    /// not.
    async fn await_complete(&self, id: &str) -> Result<(), String> {
        let began = Instant::now();
        loop {
            match self.stages().await.get(id) {
                Some(Status::Done) => return Ok(()),
                Some(Status::WaitingForWals | Status::Begun) => {}
                Some(Status::Failed) | None => {
                    return Err(
                        "another node became primary meanwhile, so it is of no use: ask again; \
                                one is taken anyway"
                            .to_owned(),
                    );
                }
            }
            if began.elapsed() > COMPLETE_WITHIN {
                return Err(
                    "the WAL that it needs does not come (barman check says why)".to_owned()
                );
            }
            wait::back_off(LOOK_EVERY).await;
        }
    }

    fn verifies(&self) -> MutexGuard<'_, Verifies> {
        self.verifies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, LastBackup> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromRef<Jobs> for Token {
    fn from_ref(jobs: &Jobs) -> Self {
        jobs.token.clone()
    }
}

pub(super) fn routes(jobs: Jobs) -> Router {
    Router::new()
        .route("/backup", post(take).get(how_far))
        .route("/backup/verify", post(verify).get(how_verified))
        .with_state(jobs)
}

/// A name is one of barman's words on a command line.
const NAME_MAX: usize = 64;

async fn take(_: Admitted, State(jobs): State<Jobs>, RawQuery(query): RawQuery) -> Response {
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
            let why = format!(
                "{node} takes one already, as was asked before: ask again when it is complete"
            );
            return said(StatusCode::CONFLICT, why);
        }
        *last = LastBackup { running: true, ..LastBackup::default() };
    }
    info!("takes a base backup, as asked");
    let taking = jobs.clone();
    tokio::spawn(async move {
        let taken = taking.take(name.as_deref()).await;
        if let Err(why) = &taken {
            warn!("the base backup was not taken: {why}");
        }
        let (id, failed) = (taken.as_ref().ok().cloned(), taken.err());
        *taking.last() = LastBackup { id, failed, ..LastBackup::default() };
    });
    said(StatusCode::ACCEPTED, format!("{node} takes a base backup"))
}

async fn how_far(_: Admitted, State(jobs): State<Jobs>) -> Json<LastBackup> {
    let mut last = jobs.last().clone();
    if let Some(Shelf { archive, running_bytes: bytes, .. }) = jobs.look().await {
        last.bytes = bytes;
        last.bytes_before = archive.backups.last().map(|backup| backup.bytes);
    }
    Json(last)
}

/// Has a backup restored on trial.
async fn verify(_: Admitted, State(jobs): State<Jobs>, RawQuery(query): RawQuery) -> Response {
    let wanted = value(query.as_deref(), "id").unwrap_or_else(|| "latest".to_owned());
    let (settings, account) = (jobs.settings.clone(), jobs.account.clone());
    let looked =
        tokio::task::spawn_blocking(move || barman::to_verify(&settings, &account, &wanted));
    let backup = match looked.await {
        Ok(Ok(backup)) => backup,
        Ok(Err(why)) => return said(StatusCode::CONFLICT, chain(&why)),
        Err(error) => return said(StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    let id = backup.id.clone();
    let node = jobs.settings.repmgr.node_name.clone();
    {
        let mut verifies = jobs.verifies();
        if verifies.running {
            let why = format!("{node} verifies backup {} just now", verifies.id);
            return said(StatusCode::CONFLICT, why);
        }
        *verifies = Verifies { running: true, id: id.clone(), ..Verifies::default() };
    }
    tokio::spawn(async move {
        let Jobs { settings, layout, account, .. } = &jobs;
        let tell = |doing| jobs.verifies().doing = Some(doing);
        let verified = barman::verify(settings, layout, account, &backup, tell).await;
        match &verified {
            Ok(Verified { wrong: None, .. }) => info!("backup {} restores", backup.id),
            Ok(Verified { wrong: Some(why), .. }) => {
                error!("backup {} DOES NOT RESTORE: {why}", backup.id);
            }
            Err(error) => warn!("backup {} was not verified: {}", backup.id, chain(error)),
        }
        let failed = verified.as_ref().err().map(|error| chain(error));
        let verified = verified.ok();
        *jobs.verifies() = Verifies { id: backup.id, failed, verified, ..Verifies::default() };
    });
    said(StatusCode::ACCEPTED, format!("{node} restores backup {id} on trial"))
}

async fn how_verified(_: Admitted, State(jobs): State<Jobs>) -> Json<Verifies> {
    Json(jobs.verifies().clone())
}
