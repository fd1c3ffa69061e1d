//! What cron has barman do. Runs as the system user barman, in a process of its own, and knows
//! no more than barman's configuration.

use super::catalog::{self, Status};
use super::interrupted::{self, Useless};
use super::left_behind;
use super::primary;
use crate::cluster::Timeline;
use crate::system::child::{Program, ProgramError};
use crate::system::error::chain;
use crate::system::lock::{FileLock, LockError};
use crate::system::wait::{self, GaveUp};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tracing::{info, warn};

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
/// Each try costs the primary a WAL file of 16 MB, and mostly a whole base backup.
const PAUSE_MIN: Duration = Duration::from_secs(60);
/// Whoever has put right what was wrong should not have to wait longer.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);
/// A backup that waits for WAL asks for one file and no copy, and mostly has it at once.
const PROMPT_TRIES_WHEN_WAITING: u32 = 10;
/// Both in the server's own directory, where nobody but barman writes.
const LOCK: &str = ".pgherd-first-backup.lock";
const TRIES: &str = ".pgherd-first-backup.tries";

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
/// yet, takes the first: until then nothing could be restored. The same where the primary writes
/// another timeline than that of the newest backup: what is restored from that one has to replay all
/// that both of them wrote. One that fails is tried again after a pause that doubles.
pub async fn cron(conf: &Path) -> Result<(), JobError> {
    let server = Server::read(conf)?;
    let make = fs::create_dir_all(&server.directory);
    let lock = server.directory.join(LOCK);
    make.map_err(|source| JobError::Lock(LockError::Unusable { path: lock.clone(), source }))?;
    let Some(primary) = primary::answers(&server.conninfo, &server.directory).await else {
        // That is said, and the next job goes on waiting. What has come so far is archived: it may
        // be wanted just because the primary is gone.
        barman(["archive-wal", &server.name]).output(CRON_AT_MOST).await?;
        return Ok(());
    };
    if let Some(timeline) = primary.timeline {
        let bytes = catalog::segment_bytes(&server.directory);
        let (directory, conninfo) = (&server.directory, &server.streaming_conninfo);
        if let Err(error) = left_behind::set_aside(directory, conninfo, timeline, bytes).await {
            // Almost always there is nothing to be set aside.
            warn!("cannot ask the primary for its history: {}", chain(&error));
        }
    }
    server.take_useless_away(primary.timeline).await;
    barman(["cron"]).output(CRON_AT_MOST).await?;
    if server.has_backup(Status::Done, primary.timeline) {
        let _ = fs::remove_file(server.directory.join(TRIES)); // Mostly there is none.
        return Ok(());
    }
    match FileLock::acquire(&lock, "the first backup") {
        Ok(_held) => server.first_backup(primary.timeline).await,
        Err(LockError::Held { .. }) => Ok(()), // The job of the last minute is still at it.
        Err(error) => Err(JobError::Lock(error)),
    }
}

/// Takes a base backup and sees to it that the WAL which it needs is archived.
/// A person may have called it something.
pub async fn backup(conf: &Path, name: Option<&str>) -> Result<(), JobError> {
    Server::read(conf)?.backup(name).await
}

/// What a job needs of barman's configuration.
struct Server {
    name: String,
    conninfo: String,
    streaming_conninfo: String,
    directory: PathBuf,
}

/// What has been tried so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tries {
    count: u32,
    /// When the last one ended; where that left no trace, when it began.
    last: SystemTime,
}

/// How long to wait before the next try: the first comes at once.
fn pause(tries: u32) -> Duration {
    match tries.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => PAUSE_MIN.saturating_mul(2u32.saturating_pow(doublings)).min(PAUSE_MAX),
    }
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
            streaming_conninfo: value("streaming_conninfo")?,
            directory: value("backup_directory")?.into(),
        })
    }

    /// Afterwards there is none that can never be complete. What barman does not delete now stays for the
    /// next job.
    async fn take_useless_away(&self, timeline: Option<Timeline>) {
        for Useless { id, why, may_run } in interrupted::useless(&self.directory, timeline) {
            let deleted = barman(["delete", &self.name, &id]).output(CRON_AT_MOST).await;
            let is_gone = catalog::info(&self.directory, &id).is_none();
            match deleted {
                Ok(_) if is_gone => warn!("base backup {id} is of no use and was deleted: {why}"),
                _ if may_run => {}
                Ok(_) => warn!("base backup {id} is of no use, and barman keeps it: {why}"),
                Err(error) => {
                    warn!(
                        "base backup {id} is of no use ({why}); cannot delete it: {}",
                        chain(&error)
                    );
                }
            }
        }
    }

    /// The first of the timeline that the primary writes, where that is known.
    async fn first_backup(&self, timeline: Option<Timeline>) -> Result<(), JobError> {
        let is_waiting = self.has_backup(Status::WaitingForWals, timeline);
        let prompt = if is_waiting { PROMPT_TRIES_WHEN_WAITING } else { 0 };
        let tries = self.tries(timeline);
        // A clock that was set back gives no answer, and no reason to wait.
        let since = tries.last.elapsed().unwrap_or(PAUSE_MAX);
        if since < pause(tries.count.saturating_sub(prompt)) {
            return Ok(());
        }
        let number = tries.count.saturating_add(1);
        if tries.count > 0 {
            let next = pause(number.saturating_sub(prompt)).max(PAUSE_MIN).as_secs() / 60;
            warn!(
                "there is still no backup: try {number}; if it fails, the next one comes in {next} \
                 min. See `barman check {0}` and `barman list-backup {0}`",
                self.name
            );
        }
        self.note_try(number, timeline);
        wait::until("barman's WAL receiver", RECEIVER_AT_MOST, || {
            self.is_streaming().then_some(())
        })
        .await?;
        if !is_waiting {
            match timeline.filter(|_| self.has_backup(Status::Done, None)) {
                Some(timeline) => {
                    info!("another history has begun, timeline {timeline}: taking a new backup");
                }
                None => info!("there is no backup yet: taking the first"),
            }
            // barman refuses to begin before it has one WAL file in its archive.
            self.archive_present_wal().await?;
            return self.backup(None).await;
        }
        self.archive_present_wal().await?;
        self.settle().await
    }

    async fn backup(&self, name: Option<&str>) -> Result<(), JobError> {
        let taken = barman(["backup", "--immediate-checkpoint"]);
        let taken = name.into_iter().fold(taken, |taken, name| taken.args(["--name", name]));
        let taken = taken.arg(&self.name);
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

    /// One that stands so, of `timeline` if one is given.
    fn has_backup(&self, status: Status, timeline: Option<Timeline>) -> bool {
        let is_of = |id: &str| {
            let Some(wanted) = timeline else { return true };
            let info = catalog::info(&self.directory, id).unwrap_or_default();
            let of = catalog::value(&info, "timeline").and_then(|number| number.parse().ok());
            // A backup that does not say so was taken by a barman that knew of none.
            of.is_none_or(|of| Timeline(of) >= wanted)
        };
        self.backups().iter().any(|(id, (found, _))| *found == status && is_of(id))
    }

    fn backups(&self) -> BTreeMap<String, (Status, SystemTime)> {
        catalog::backups(&self.directory)
    }

    /// What we noted, or what barman did, whichever is more: some tries leave no backup behind,
    /// and on a full disk there is no room for a note.
    /// Those for another timeline, or before a backup that was good, are no reason to wait.
    fn tries(&self, timeline: Option<Timeline>) -> Tries {
        let note = self.directory.join(TRIES);
        let noted = fs::read_to_string(&note).unwrap_or_default();
        let mut noted = noted.split_whitespace().map(|word| word.parse::<u32>().ok());
        let (noted, of) = (noted.next().flatten(), noted.next().flatten().map(Timeline));
        let is_of_another = of.is_some() && timeline.is_some() && of != timeline;
        let noted = noted.filter(|_| !is_of_another);
        let written = fs::metadata(&note).and_then(|meta| meta.modified()).ok();
        let written = written.filter(|_| !is_of_another);
        let backups = self.backups();
        let is_done = |(_, (status, _)): &(&String, &(Status, _))| *status == Status::Done;
        let last_good = backups.iter().filter(is_done).map(|(id, _)| id.clone()).next_back();
        let failed =
            backups.iter().filter(|(id, _)| last_good.as_ref().is_none_or(|good| *id > good));
        let failed = failed.map(|(_, found)| found).filter(|(status, _)| *status == Status::Failed);
        let failures = u32::try_from(failed.clone().count()).unwrap_or(u32::MAX);
        Tries {
            count: failures.max(noted.unwrap_or_default()),
            last: failed.map(|(_, at)| *at).chain(written).max().unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    fn note_try(&self, number: u32, timeline: Option<Timeline>) {
        let note = self.directory.join(TRIES);
        let of = timeline.map(|timeline| format!(" {timeline}")).unwrap_or_default();
        if let Err(error) = fs::write(&note, format!("{number}{of}\n")) {
            warn!("cannot note the try in {}: {error}", note.display());
        }
    }
}

fn barman<const N: usize>(args: [&str; N]) -> Program {
    Program::new("barman").arg("--quiet").args(args).current_dir("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_from_a_minute_to_an_hour() {
        let minutes: Vec<_> = (0..9).map(|tries| pause(tries).as_secs() / 60).collect();
        assert_eq!(minutes, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }

    #[test]
    fn failed_tries_are_counted_whoever_noted_them() {
        let directory = std::env::temp_dir().join(format!("pgherd-jobs-{}", std::process::id()));
        let (name, conninfo) = ("x".to_owned(), String::new());
        let streaming_conninfo = String::new();
        let server = Server { name, conninfo, streaming_conninfo, directory };
        let info = |path: &str, status: &str| {
            let path = server.directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("begin_wal=1\nstatus={status}\n")).unwrap();
        };
        assert_eq!(server.tries(None), Tries { count: 0, last: SystemTime::UNIX_EPOCH });
        info("base/1/backup.info", "FAILED");
        info("meta/1-backup.info", "FAILED"); // The same one.
        info("meta/2-backup.info", "FAILED");
        info("base/3/backup.info", "WAITING_FOR_WALS");
        assert_eq!(server.tries(None).count, 2);
        assert!(server.tries(None).last.elapsed().unwrap() < PAUSE_MIN);
        let has_backup = |status| server.has_backup(status, None);
        assert!(has_backup(Status::WaitingForWals) && !has_backup(Status::Done));
        server.note_try(5, Some(Timeline(2)));
        assert_eq!(server.tries(Some(Timeline(2))).count, 5);
        assert_eq!(server.tries(Some(Timeline(3))).count, 2, "another node leads now");
        info("meta/3-backup.info", "DONE");
        assert!(has_backup(Status::Done) && !has_backup(Status::WaitingForWals));
        let info = "status=DONE\ntimeline=2\n";
        for id in [1, 2, 3] {
            let path = server.directory.join(format!("meta/{id}-backup.info"));
            fs::write(path, info).unwrap();
        }
        assert!(server.has_backup(Status::Done, Some(Timeline(2))));
        let _ = fs::remove_dir_all(server.directory.join("base"));
        assert!(!server.has_backup(Status::Done, Some(Timeline(3))), "another node leads");
        fs::remove_dir_all(&server.directory).unwrap();
    }
}
