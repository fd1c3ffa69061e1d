//! What other nodes' barman has, for a node that has none: whether they have a WAL file, and their
//! newest base backup, copied.

use super::fetch::{FetchError, Sources};
use crate::cluster::{Archive, Lsn, SystemId, Timeline};
use crate::settings::Secret;
use crate::system::account::Account;
use crate::system::child::{Program, ProgramError};
use crate::system::download::{Answer, Node, ask_soon};
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// As many pieces as an answer comes in.
const PIECE_BYTES: usize = 128 << 10;
/// A directory of some hundred backups is read from the disk.
const CATALOG_AT_MOST: Duration = Duration::from_secs(10);
/// In a tar archive each file has a header and is filled up to 512 bytes.
const TAR_BLOCK_BYTES: u64 = 512;

/// A base backup that a node has begun to send.
pub struct Offer {
    /// Who: `host:port`.
    pub node: String,
    /// The same without the port.
    pub host: String,
    /// barman's id.
    pub id: String,
    /// Of which cluster.
    pub system: Option<SystemId>,
    /// On which branch of history it was taken.
    pub timeline: Option<Timeline>,
    /// Where the WAL begins that it needs.
    pub begin: Option<Lsn>,
    /// From where on it can be used.
    pub end: Option<Lsn>,
    bytes: u64,
    answer: Answer,
}

/// What came of asking everybody.
#[derive(Default)]
pub struct Offers {
    /// Who has one.
    pub backups: Vec<Offer>,
    /// Who was not to be asked, or has one that cannot be copied, and why.
    pub unclear: Vec<String>,
}

/// Why a backup was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It was cut off, or the network was.
    #[error("cannot copy backup {id} from {node}")]
    Read {
        /// Which.
        id: String,
        /// From whom.
        node: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot unpack a backup")]
    Unpack(#[from] ProgramError),
}

/// Asks everybody for the newest backup. Each answer is held at its beginning until it is
/// [unpacked](Offer::unpack_into) or dropped.
pub async fn latest_backups(sources: &Path) -> Result<Offers, FetchError> {
    let mut answers = Sources::read(sources).await?.ask_all("/archive/backup/latest");
    let mut offers = Offers::default();
    while let Some(answered) = answers.join_next().await {
        match answered.expect("it does not panic and is not aborted") {
            (_, Ok(None)) => {}
            ((host, port), Ok(Some(answer))) => {
                offers.backups.push(Offer::of(host, port, answer));
            }
            ((host, port), Err(error)) => offers.unclear.push(format!("{host}:{port}: {error}")),
        }
    }
    Ok(offers)
}

/// What the barman of a node has of `cluster`; nothing where it keeps no backups.
pub async fn archives_at(
    node: Node<'_>,
    token: &Secret,
    cluster: &str,
) -> io::Result<Vec<Archive>> {
    let path = format!("/archive/backups?cluster={cluster}");
    let said = ask_soon("GET", node, &path, Some(token.expose()), CATALOG_AT_MOST).await?;
    match said.code {
        200 => serde_json::from_str(&said.text).map_err(io::Error::other),
        404 => Ok(Vec::new()),
        code => Err(io::Error::other(format!("{code} {}", said.text.trim()))),
    }
}

/// The backup with that id in one of a node's archives.
pub async fn backup_at(
    node: Node<'_>,
    token: &Secret,
    of: &str,
    id: &str,
) -> Result<Offer, CopyError> {
    let Node { host, port, .. } = node;
    let from = format!("{host}:{port}");
    let read = |source| CopyError::Read { id: id.to_owned(), node: from.clone(), source };
    let path = format!("/archive/backup/{id}?of={of}");
    let answer = super::fetch::ask(node, &path, token.expose()).await.map_err(read)?;
    let gone = || read(io::Error::new(io::ErrorKind::NotFound, "it is not there any more"));
    answer.map(|answer| Offer::of(host.to_owned(), port, answer)).ok_or_else(gone)
}

/// Whether somebody has the WAL file `name`, whole. An error if nobody who answers has, and somebody
/// does not answer.
pub async fn has_wal(sources: &Path, name: &str) -> Result<bool, FetchError> {
    let mut answers = Sources::read(sources).await?.ask_all(&format!("/archive/wal/{name}"));
    let mut unclear = Vec::new();
    while let Some(answered) = answers.join_next().await {
        match answered.expect("it does not panic and is not aborted") {
            (_, Ok(Some(_))) => return Ok(true), // What it would send is not read.
            (_, Ok(None)) => {}
            ((host, port), Err(error)) => unclear.push(format!("{host}:{port}: {error}")),
        }
    }
    if unclear.is_empty() { Ok(false) } else { Err(FetchError::NotAsked(unclear)) }
}

impl Offer {
    fn of(host: String, port: u16, answer: Answer) -> Self {
        Offer {
            node: format!("{host}:{port}"),
            host,
            id: answer.header("pgherd-backup").unwrap_or_default().to_owned(),
            system: parsed(&answer, "pgherd-system").map(SystemId),
            timeline: parsed(&answer, "pgherd-timeline").map(Timeline),
            begin: parsed(&answer, "pgherd-begin"),
            end: parsed(&answer, "pgherd-end"),
            bytes: parsed(&answer, "pgherd-bytes").unwrap_or_default(),
            answer,
        }
    }

    /// Afterwards all of it is in `directory`, which was empty, as `account`'s. Not brought to the
    /// disk. `progress` is told how many bytes there are, and of how many.
    ///
    /// `tar` writes nothing outside of where it is: it refuses names that lead out, and makes links
    /// that do so last (the manual of GNU tar, "Security").
    pub async fn unpack_into(
        self,
        directory: &Path,
        account: &Account,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), CopyError> {
        let Offer { id, node, bytes, mut answer, .. } = self;
        let tar = Program::new("tar").account(account).current_dir("/").umask(0o077);
        // Options of the operator's are for the operator's archives.
        let tar = tar.env_remove("TAR_OPTIONS").args(["--extract", "--directory"]).arg(directory);
        let tar = tar.args(["--no-same-owner", "--no-same-permissions", "--no-overwrite-dir"]);
        let mut tar = tar.feed()?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut done = 0;
        loop {
            let read = answer.read(&mut piece).await;
            let count = read.map_err(|source| CopyError::Read {
                id: id.clone(),
                node: node.clone(),
                source,
            })?;
            if count == 0 {
                break;
            }
            if let Err(error) = tar.write(&piece[..count]).await {
                tar.succeeded().await?; // It says why.
                return Err(CopyError::Read { id, node, source: error });
            }
            done += count as u64;
            progress(done, bytes.max(done + TAR_BLOCK_BYTES));
        }
        tar.succeeded().await?;
        progress(done, done);
        Ok(())
    }
}

fn parsed<T: FromStr>(answer: &Answer, header: &str) -> Option<T> {
    answer.header(header)?.parse().ok()
}
