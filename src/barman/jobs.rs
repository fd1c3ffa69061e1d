//! What cron has barman do. Runs as the system user barman, in a process of its own, and knows
//! no more than barman's configuration.

use crate::system::child::{Program, ProgramError};
use crate::system::lock::{FileLock, LockError};
use crate::system::wait::{self, GaveUp};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::info;

/// Python starts, looks at each server, moves a few WAL files.
const CRON_AT_MOST: Duration = Duration::from_secs(10 * 60);
/// A base backup of a large cluster over a slow network.
const BACKUP_AT_MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Two short questions to the primary.
const SQL_AT_MOST: Duration = Duration::from_secs(60);
/// barman's receiver makes its slot and connects.
const RECEIVER_AT_MOST: Duration = Duration::from_secs(30);
/// Each try runs `barman archive-wal` once, some 0.3 s.
const ARCHIVE_TRIES_MAX: usize = 60;

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// barman or psql failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The configuration cannot be read.
    #[error("cannot read {}; pgherd writes it when it starts", .path.display())]
    Configuration {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration misses something that pgherd writes.
    #[error("{} has no {key}; pgherd writes it when it starts", .path.display())]
    Misses {
        /// Which file.
        path: PathBuf,
        /// What.
        key: &'static str,
    },
    /// The WAL receiver does not come up.
    #[error(transparent)]
    GaveUp(#[from] GaveUp),
    /// Its own lock file is out of reach.
    #[error(transparent)]
    Lock(LockError),
    /// WAL is streamed and does not reach the archive.
    #[error("barman streams WAL and does not archive it; see `barman check {0}`")]
    NotArchived(String),
}

/// Each minute: streams WAL, archives it, applies the retention policy. Where there is no backup
/// yet, takes the first: until then nothing could be restored.
pub async fn cron(conf: &Path) -> Result<(), JobError> {
    let server = Server::read(conf)?;
    barman(["cron"]).output(CRON_AT_MOST).await?;
    if server.has_backup(Status::Done) {
        return Ok(());
    }
    let lock = std::env::temp_dir().join(format!("pgherd-first-backup-{}.lock", server.name));
    match FileLock::acquire(&lock, "the first backup") {
        Ok(_held) => server.first_backup().await,
        Err(LockError::Held { .. }) => Ok(()), // The job of the last minute is still at it.
        Err(error) => Err(JobError::Lock(error)),
    }
}

/// Takes a base backup and sees to it that the WAL which it needs is archived.
pub async fn backup(conf: &Path) -> Result<(), JobError> {
    Server::read(conf)?.backup().await
}

/// What a job needs of barman's configuration.
struct Server {
    name: String,
    conninfo: String,
    directory: PathBuf,
}

/// Of a backup, in its `backup.info`.
#[derive(Clone, Copy)]
enum Status {
    Done,
    WaitingForWals,
}

impl Server {
    fn read(path: &Path) -> Result<Server, JobError> {
        let configuration = |source| JobError::Configuration { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(configuration)?;
        let misses = |key| JobError::Misses { path: path.to_owned(), key };
        let value = |key: &'static str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim().to_owned())
                .ok_or_else(|| misses(key))
        };
        let section =
            text.lines().find_map(|line| line.trim().strip_prefix('[')?.strip_suffix(']'));
        Ok(Server {
            name: section.ok_or_else(|| misses("section"))?.to_owned(),
            conninfo: value("conninfo")?,
            directory: value("backup_directory")?.into(),
        })
    }

    async fn first_backup(&self) -> Result<(), JobError> {
        wait::until("barman's WAL receiver", RECEIVER_AT_MOST, || {
            self.is_streaming().then_some(())
        })
        .await?;
        if !self.has_backup(Status::WaitingForWals) {
            info!("there is no backup yet: taking the first");
            // barman refuses to begin before it has one WAL file in its archive.
            self.archive_present_wal().await?;
            return self.backup().await;
        }
        self.archive_present_wal().await?;
        self.settle().await
    }

    async fn backup(&self) -> Result<(), JobError> {
        let taken = barman(["backup", "--immediate-checkpoint", &self.name]);
        let output = taken.output(BACKUP_AT_MOST).await?;
        output.text().lines().for_each(|line| info!("{line}"));
        self.archive_present_wal().await?;
        self.settle().await
    }

    /// A backup that waited for WAL becomes one that is done.
    async fn settle(&self) -> Result<(), JobError> {
        barman(["cron"]).output(CRON_AT_MOST).await?;
        Ok(())
    }

    /// Afterwards the WAL written so far is in barman's archive. It takes a complete segment into
    /// the archive only when the next one has begun, and a server without work begins none:
    /// without this, barman would wait for ever (tried with 3.4 and 3.13).
    async fn archive_present_wal(&self) -> Result<(), JobError> {
        let before = self.archived_bytes();
        Program::new("psql")
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", &self.conninfo])
            .args(["-c", "SELECT pg_switch_wal()"])
            .args(["-c", "SELECT pg_logical_emit_message(true, 'pgherd', 'begin a segment')"])
            .output(SQL_AT_MOST)
            .await?;
        for _ in 0..ARCHIVE_TRIES_MAX {
            barman(["archive-wal", &self.name]).output(CRON_AT_MOST).await?;
            if self.archived_bytes() > before {
                return Ok(());
            }
        }
        Err(JobError::NotArchived(self.name.clone()))
    }

    fn is_streaming(&self) -> bool {
        let entries = fs::read_dir(self.directory.join("streaming"));
        entries.is_ok_and(|entries| {
            entries
                .flatten()
                .any(|entry| entry.path().extension().is_some_and(|kind| kind == "partial"))
        })
    }

    /// Size of the list of archived WAL files, which only grows while nothing is deleted:
    /// `wals/xlog.db`, since barman 3.13 `wals/SERVER-xlog.db`.
    fn archived_bytes(&self) -> u64 {
        let wals = self.directory.join("wals");
        let size = |name: String| fs::metadata(wals.join(name)).map_or(0, |meta| meta.len());
        size("xlog.db".to_owned()) + size(format!("{}-xlog.db", self.name))
    }

    /// From the files, not from `barman list-backup`: this is asked every minute, and Python
    /// takes half a second to start. `meta/ID-backup.info` since 3.13, `base/ID/backup.info`
    /// before.
    fn has_backup(&self, status: Status) -> bool {
        let list = |directory: PathBuf| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let line = match status {
            Status::Done => "status=DONE",
            Status::WaitingForWals => "status=WAITING_FOR_WALS",
        };
        let base = list(self.directory.join("base")).into_iter().map(|one| one.join("backup.info"));
        base.chain(list(self.directory.join("meta")))
            .filter_map(|info| fs::read_to_string(info).ok())
            .any(|info| info.lines().any(|one| one == line))
    }
}

fn barman<const N: usize>(args: [&str; N]) -> Program {
    Program::new("barman").arg("--quiet").args(args).current_dir("/")
}
