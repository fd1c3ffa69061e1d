//! barman's WAL files and base backups, for the cluster's own nodes: `GET /archive/wal/NAME`,
//! `GET /archive/backup/latest` (or an id) and `GET /archive/backups`, with the control token as
//! `Authorization: Bearer`. `of=NAME` means another of barman's directories than the one in use: what a
//! cluster was restored from.
//!
//! Whoever has the token gets all of the database. It follows from the repmgr password unless the
//! operator gives one, and that role may read all of it too. While that password is the
//! documented one, only neighbours are let in, as `pg_hba.conf` does.

use super::Connection;
use super::backup::Jobs;
use super::token::{Admitted, Token, said};
use super::wishes::value;
use crate::barman::{Archive, Backup, NoBackup, Wal};
use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::child::Streamed;
use crate::system::error::chain;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, FromRef, Path, RawQuery, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::body::Frame;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tracing::{info, warn};

/// Each is a process or a file being read at full speed from the disk that barman writes to.
const STREAMS_MAX: usize = 8;
/// How long one waits for its turn; then it is told to come back.
const TURN_AT_MOST: Duration = Duration::from_secs(5);
/// Whoever takes nothing for so long has gone, or holds the place of another.
const STALL_AT_MOST: Duration = Duration::from_secs(60);
const PIECE_BYTES: usize = 128 << 10;
/// So many pieces wait for a slow reader.
const PIECES_MAX: usize = 4;

/// What is handed out, to whom.
#[derive(Clone, Debug)]
pub struct Archived {
    archive: Archive,
    cluster: String,
    token: Token,
    streams: Arc<Semaphore>,
    jobs: Option<Jobs>,
}

impl Archived {
    /// The same, and base backups are taken when somebody asks for one.
    pub fn with_jobs(mut self, settings: &Settings, layout: &Layout, account: &Account) -> Self {
        self.jobs = Some(Jobs::new(settings, layout, account));
        self
    }

    /// barman's directory, which belongs to `account`. `None` where this node keeps no backups.
    pub fn of(settings: &Settings, account: &Account) -> Option<Self> {
        settings.herd.keeps_backups().then(|| Archived {
            archive: Archive::new(settings, account),
            cluster: settings.herd.cluster.clone(),
            token: Token::of(settings),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            jobs: None,
        })
    }
}

impl FromRef<Archived> for Token {
    fn from_ref(archived: &Archived) -> Self {
        archived.token.clone()
    }
}

pub(super) fn routes(archived: Archived) -> Router {
    let jobs = archived.jobs.clone().map(super::backup::routes).unwrap_or_default();
    Router::new()
        .route("/archive/wal/{name}", get(wal))
        .route("/archive/backup/{id}", get(backup))
        .route("/archive/backups", get(backups))
        .with_state(archived)
        .merge(jobs)
}

async fn wal(
    _: Admitted,
    State(archived): State<Archived>,
    Extension(connection): Extension<Connection>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Response> {
    let turn = turn(&archived).await?;
    let query = query.as_deref();
    let with_partial = query.is_some_and(|query| query.split('&').any(|part| part == "partial"));
    let of = value(query, "of");
    // A look at the disk, which may be slow: not on the thread that runs the node.
    let archive = archived.archive.clone();
    let looked_for = name.clone();
    let found = blocking(move || archive.wal(of.as_deref(), &looked_for, with_partial)).await;
    match found {
        Ok(Some(Wal::Plain(file, length))) => {
            let mut response = streamed(&connection, turn, Source::File(file.into()));
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            Ok(response)
        }
        Ok(Some(Wal::Unpacked(program))) => {
            Ok(streamed(&connection, turn, Source::Program(*program)))
        }
        Ok(None) => Err(said(StatusCode::NOT_FOUND, "barman has no such file")),
        Err(error) => {
            warn!("cannot hand out {name}: {error}");
            Err(said(StatusCode::INTERNAL_SERVER_ERROR, error))
        }
    }
}

/// What there is, as JSON: of this cluster, or of the one of that name.
async fn backups(
    _: Admitted,
    State(archived): State<Archived>,
    RawQuery(query): RawQuery,
) -> Result<Response, Response> {
    let _turn = turn(&archived).await?;
    let cluster = value(query.as_deref(), "cluster").unwrap_or(archived.cluster);
    let archive = archived.archive.clone();
    Ok(Json(blocking(move || archive.all(&cluster)).await).into_response())
}

async fn backup(
    _: Admitted,
    State(archived): State<Archived>,
    Extension(connection): Extension<Connection>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Response> {
    let turn = turn(&archived).await?;
    let archive = archived.archive.clone();
    let of = value(query.as_deref(), "of");
    let look = move || match id.as_str() {
        "latest" => archive.latest_backup(),
        id => archive.backup(of.as_deref(), id),
    };
    let backup = match blocking(look).await {
        Ok(backup) => backup,
        Err(none @ NoBackup::None) => return Err(said(StatusCode::NOT_FOUND, none)),
        Err(other) => return Err(said(StatusCode::CONFLICT, other)),
    };
    let tar = archived.archive.tar(&backup);
    let tar = tar.map_err(|error| said(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)))?;
    info!("hands out backup {} to {}", backup.id, connection.peer);
    let mut response = streamed(&connection, turn, Source::Program(tar));
    let Backup { id, system, timeline, begin, end, bytes, .. } = backup;
    let about = [
        ("pgherd-backup", Some(id)),
        ("pgherd-system", system),
        ("pgherd-timeline", timeline),
        ("pgherd-begin", begin),
        ("pgherd-end", end),
        ("pgherd-bytes", bytes),
    ];
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    for (name, value) in about {
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

/// A place among the streams.
async fn turn(archived: &Archived) -> Result<OwnedSemaphorePermit, Response> {
    let turn = timeout(TURN_AT_MOST, Arc::clone(&archived.streams).acquire_owned()).await;
    match turn {
        Ok(turn) => Ok(turn.expect("nobody closes it")),
        Err(_) => {
            let mut busy = said(StatusCode::SERVICE_UNAVAILABLE, "too many copies are under way");
            busy.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            Err(busy)
        }
    }
}

async fn blocking<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(look).await.expect("it does not panic")
}

/// Where a body comes from.
enum Source {
    File(tokio::fs::File),
    Program(Streamed),
}

impl From<File> for Source {
    fn from(file: File) -> Self {
        Source::File(file.into())
    }
}

/// An answer that is read piece by piece as it is taken. The connection may last as long as pieces are
/// taken.
fn streamed(connection: &Connection, turn: OwnedSemaphorePermit, mut source: Source) -> Response {
    connection.may_last();
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    tokio::spawn(async move {
        let _turn = turn;
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = match &mut source {
                Source::File(file) => file.read(&mut piece).await,
                Source::Program(program) => program.read(&mut piece).await,
            };
            let piece = match read {
                Ok(0) => break,
                Ok(count) => {
                    piece.truncate(count);
                    Ok(Bytes::from(piece))
                }
                Err(error) => Err(error),
            };
            let is_last = piece.is_err();
            if sender.send_timeout(piece, STALL_AT_MOST).await.is_err() || is_last {
                return; // A program ends with this.
            }
        }
        // An answer that is not all there is must not look like one: an error cuts it off.
        if let Source::Program(program) = source
            && let Err(failed) = program.succeeded().await
        {
            warn!("{}", chain(&failed));
            let _ = sender.send_timeout(Err(io::Error::other(failed)), STALL_AT_MOST).await;
        }
    });
    Response::new(Body::new(Pieces(pieces)))
}

struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

#[cfg(test)]
mod tests;
