//! A WAL file from whichever node has it, for a server without barman beside it: what Postgres'
//! `restore_command` runs.
//!
//! Postgres starts it without our secrets and with the operator's variables, which may name files
//! that only root can read. So all that it needs is in a file that the node wrote.

use super::archive::is_wal_name;
use super::cloud::Place;
use crate::cluster::{Address, History, Timeline};
use crate::layout::Layout;
use crate::settings::{CloudSettings, Secret, Settings};
use crate::system::account::Account;
use crate::system::child::ProgramError;
use crate::system::download::{self, Answer, Node};
use crate::system::files::{FileError, ensure_file, failed};
use crate::system::wait;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

/// As many pieces as an answer comes in; a WAL file has 16 MB.
const PIECE_BYTES: usize = 128 << 10;
/// A refusal is one line.
const WORDS_BYTES_MAX: usize = 500;
/// A node that has all its hands full has one free soon.
const BUSY_TRIES_MAX: usize = 5;
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Whom to ask, and what to show them.
#[derive(Serialize, Deserialize)]
pub(super) struct Sources {
    token: String,
    nodes: Vec<(String, u16)>,
    /// Another of barman's directories than the one that is in use there.
    #[serde(default)]
    of: Option<String>,
    /// No node: a store of S3's kind.
    #[serde(default)]
    cloud: Option<Place>,
    /// They speak TLS: the files of `PGHERD_TLS_*`.
    #[serde(default)]
    tls: Option<(PathBuf, PathBuf, Option<PathBuf>)>,
}

/// Who was asked, and what they said. `None`: they have no such thing.
pub(super) type Asked = ((String, u16), io::Result<Option<Answer>>);

impl Sources {
    pub(super) async fn read(path: &Path) -> Result<Self, FetchError> {
        let text = fs::read(path).await.map_err(failed("read", path));
        let text = text.map_err(FetchError::Sources)?;
        serde_json::from_slice(&text).map_err(|_| FetchError::NoList(path.to_owned()))
    }

    /// All at once, or each answer would wait for a host that is gone. Who is not needed any more is
    /// let go when the set is dropped.
    pub(super) fn ask_all(&self, path: &str) -> JoinSet<Asked> {
        let mut answers = JoinSet::new();
        for (host, port) in self.nodes.clone() {
            let (path, token, tls) = (path.to_owned(), self.token.clone(), self.tls.clone());
            answers.spawn(async move {
                let tls = tls.as_ref().map(|(certificate, key, authority)| {
                    (certificate.as_path(), key.as_path(), authority.as_deref())
                });
                let answer = ask(Node { host: &host, port, tls }, &path, &token).await;
                ((host, port), answer)
            });
        }
        answers
    }
}

/// Why it is not known whether anybody has the file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The node's list cannot be read.
    #[error(transparent)]
    Sources(FileError),
    /// The list is none.
    #[error("{} is not what pgherd writes there when it starts", .0.display())]
    NoList(PathBuf),
    /// The copy cannot be written.
    #[error(transparent)]
    Write(FileError),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] ProgramError),
    /// Some could not be asked, and nobody else has it.
    #[error("{}", .0.join("; "))]
    NotAsked(Vec<String>),
}

/// Afterwards a `restore_command` of Postgres, which runs as `account`, knows whom to ask for WAL.
/// Those are `members`, as far as they are not at `own`, this node's address, and this node itself
/// if it keeps backups.
pub fn write_sources<'a>(
    settings: &Settings,
    layout: &Layout,
    own: &Address,
    members: impl IntoIterator<Item = &'a Address>,
    account: &Account,
) -> Result<(), FileError> {
    let port = settings.herd.http_port;
    let here = settings.herd.keeps_backups().then(|| ("127.0.0.1".to_owned(), port));
    let members = members.into_iter().filter(|member| member.host != own.host);
    // Several may be on one host: each port is asked once.
    let mut nodes: Vec<_> = here.into_iter().collect();
    for node in members.map(|member| (member.host.clone(), port)) {
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    let token = settings.herd.control_token.expose().to_owned();
    let tls = tls_files(settings);
    let sources = Sources { token, nodes, of: None, cloud: None, tls };
    let text = serde_json::to_string(&sources).expect("it is text and numbers");
    ensure_file(&layout.archive_sources, text, 0o600, account).map(drop)
}

/// Who has an archive, and what opens it.
pub enum Keeper<'a> {
    /// A node, at its HTTP port, that is shown a token.
    Node((String, u16), Secret),
    /// A store of S3's kind.
    Cloud(&'a CloudSettings),
}

/// Afterwards the `restore_command` of a server that recovers as `account` has WAL from the archive `of`
/// of that keeper, and from nowhere else.
pub fn write_restore_source(
    settings: &Settings,
    layout: &Layout,
    keeper: &Keeper<'_>,
    of: &str,
    account: &Account,
) -> Result<(), FileError> {
    let (nodes, token, cloud) = match keeper {
        Keeper::Node(node, token) => (vec![node.clone()], token.expose().to_owned(), None),
        Keeper::Cloud(cloud) => (Vec::new(), String::new(), Some(Place::new(cloud, of))),
    };
    let sources =
        Sources { token, nodes, of: Some(of.to_owned()), cloud, tls: tls_files(settings) };
    let text = serde_json::to_string(&sources).expect("it is text and numbers");
    ensure_file(&layout.restore_source, text, 0o600, account).map(drop)
}

fn tls_files(settings: &Settings) -> Option<(PathBuf, PathBuf, Option<PathBuf>)> {
    let (certificate, key, authority) = settings.herd.tls_files()?;
    Some((certificate.to_owned(), key.to_owned(), authority.map(Path::to_owned)))
}

/// Fetches the WAL file or history `name` to `path`, whole or not at all. `false`: whoever could
/// have it has not.
pub async fn fetch_wal(
    sources: &Path,
    name: &str,
    path: &Path,
    with_partial: bool,
) -> Result<bool, FetchError> {
    let sources = Sources::read(sources).await?;
    if !is_wal_name(name) {
        return Ok(false); // Postgres asks for backup labels too, which streaming leaves none of.
    }
    if let Some(place) = &sources.cloud {
        // Where there is a part only, that is what comes.
        return Ok(place.fetch(name, path, None).await?);
    }
    let mut unclear = Vec::new();
    // First for the complete file everywhere: another's may be whole where ours is a part.
    let of = sources.of.as_ref().map(|of| format!("of={of}"));
    let path_of = |part: Option<&str>| {
        let query: Vec<_> = of.as_deref().into_iter().chain(part).collect();
        format!("/archive/wal/{name}?{}", query.join("&"))
    };
    let whole = path_of(None);
    let part = with_partial.then(|| path_of(Some("partial")));
    for asked in std::iter::once(whole).chain(part) {
        let mut answers = sources.ask_all(&asked);
        while let Some(answered) = answers.join_next().await {
            let ((host, port), answer) = answered.expect("it does not panic and is not aborted");
            let node = format!("{host}:{port}");
            match answer {
                Ok(None) => {}
                Ok(Some(answer)) => match keep(answer, path).await {
                    Ok(()) => return Ok(true),
                    Err(Kept::Write(error)) => return Err(FetchError::Write(error)),
                    Err(Kept::Read(error)) => unclear.push(format!("{node}: {error}")),
                },
                Err(error) => unclear.push(format!("{node}: {error}")),
            }
        }
    }
    if unclear.is_empty() { Ok(false) } else { Err(FetchError::NotAsked(unclear)) }
}

/// Whether a server that keeps its WAL in `pg_wal` does better without the file `name`: the newest
/// history that it has heard of leaves the file's timeline in it or before. What an old primary
/// wrote there after it was replaced is in the archive, too, and to replay it would be to go its way.
/// The rest of that file is in the next timeline's, which the primary has.
pub fn is_left_behind(pg_wal: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(pg_wal).into_iter().flatten().flatten();
    let (mut newest, mut segment_bytes) = (None, 16 << 20); // Postgres' default.
    for entry in entries {
        let Ok(file) = entry.file_name().into_string() else { continue };
        if let Some(timeline) = file.strip_suffix(".history") {
            let timeline = u32::from_str_radix(timeline, 16).ok();
            newest = newest.max(timeline.map(|timeline| (timeline, entry.path())));
        } else if is_wal_name(&file) {
            // All have one size, a power of two.
            let bytes = entry.metadata().map_or(0, |meta| meta.len());
            segment_bytes = if bytes.is_power_of_two() { bytes } else { segment_bytes };
        }
    }
    newest.is_some_and(|(timeline, path)| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let history = History::parse(Timeline(timeline), &text);
        history.is_some_and(|history| history.has_left_behind(name, segment_bytes))
    })
}

pub(super) async fn ask(node: Node<'_>, path: &str, token: &str) -> io::Result<Option<Answer>> {
    for _ in 0..BUSY_TRIES_MAX {
        let answer = download::get(node, path, token).await?;
        match answer.code {
            200 => return Ok(Some(answer)),
            404 => return Ok(None),
            503 => wait::back_off(BUSY_PAUSE).await,
            code => {
                let words = answer.text(WORDS_BYTES_MAX).await.unwrap_or_default();
                return Err(io::Error::other(format!("{code} {}", words.trim())));
            }
        }
    }
    Err(io::Error::other("it is busy"))
}

enum Kept {
    Read(io::Error),
    Write(FileError),
}

/// Postgres looks at `path` only after a success; but a file that is not whole should not be there
/// for anybody.
async fn keep(mut answer: Answer, path: &Path) -> Result<(), Kept> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pgherd-part");
    let beside = PathBuf::from(beside);
    let write = |verb| {
        let path = path.to_owned();
        move |error| Kept::Write(failed(verb, &path)(error))
    };
    let mut file = File::create(&beside).await.map_err(write("create"))?;
    let mut piece = vec![0; PIECE_BYTES];
    let copied = loop {
        match answer.read(&mut piece).await {
            Ok(0) => break Ok(()),
            Ok(count) => {
                if let Err(error) = file.write_all(&piece[..count]).await {
                    break Err(write("write")(error));
                }
            }
            Err(error) => break Err(Kept::Read(error)),
        }
    };
    let flushed = file.flush().await.map_err(write("write"));
    let moved = match copied.and(flushed) {
        Ok(()) => fs::rename(&beside, path).await.map_err(write("rename")),
        Err(error) => Err(error),
    };
    if moved.is_err() {
        let _ = fs::remove_file(&beside).await; // What it is about is worse.
    }
    moved
}
