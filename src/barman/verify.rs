//! A backup is not one until it was restored: it is copied beside the backups, compared with its list of
//! checksums, recovered to where it can be used from on, looked through, and thrown away. All of that as barman,
//! whose files they are.

use super::{archive, catalog};
use crate::cluster::{Backup, Lsn, Moment, Verified, wal_file_name};
use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::child::{LAST_WORDS_LINES_MAX, Output, Program, ProgramError};
use crate::system::error::chain;
use crate::system::files::{
    self, FileError, acting_as, ensure_directory, ensure_file, failed, free_mib,
};
use crate::system::wait;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::{info, warn};

/// In the directory of the cluster's backups: what was found out, a file for each of them.
const NOTES: &str = ".pgherd-verified";
/// There too: the copy. Nothing is lost with it.
const SCRATCH: &str = ".pgherd-verify";
/// Beside the copy: WAL, and what the server writes while it is looked through.
const ROOM_MIB: u64 = 512;
/// 20 TB from a slow disk take two days.
const STEP_AT_MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// It replays what was written while the backup was taken.
const SERVES_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);
const LOOK_EVERY: Duration = Duration::from_millis(500);
const SQL_AT_MOST: Duration = Duration::from_secs(60);
/// It ends its backends and writes a checkpoint to a disk that it does not wait for.
const STOPS_WITHIN: Duration = Duration::from_secs(60);
/// Rather this than any other server.
const OOM_SCORE_ADJ: i32 = 800;
/// Of its socket, in a directory that nobody but barman can enter.
const PORT: &str = "5432";
/// `pg_amcheck`'s exit status where it could look and has found damage; whatever else went wrong is 1.
const DAMAGED: i32 = 2;
/// More than its first lines, which are all that is shown.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// What a node says that has too little of something, or has killed a process for it. LC_ALL is C.
const SHORTAGES: [&str; 6] = [
    "No space left on device",
    "Disk quota exceeded",
    "out of memory",
    "Cannot allocate memory",
    "Too many open files",
    "terminated by signal 9",
];
/// What psql says of a server that is not there yet, or is but does not let anybody in (`cannot connect
/// now`: it starts up, or recovers), or is busy with that.
const NOT_YET: [&str; 5] = [
    "No such file or directory",
    "Connection refused",
    "the database system is ",
    "server closed the connection unexpectedly",
    "Resource temporarily unavailable",
];

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no such backup.
    #[error(
        "there is no complete backup {0} in the directory that is in use: pgherd backups lists them"
    )]
    Unknown(String),
    /// It needs barman's own hands.
    #[error("backup {0} {1}: barman recover brings it back by hand")]
    Unfit(String, String),
    /// It would fill the volume that WAL has to come to.
    #[error(
        "barman's volume has {free_mib} MiB free, and to restore backup {id} beside the others takes \
         {needed_mib}"
    )]
    NoRoom {
        /// Which.
        id: String,
        /// What there is.
        free_mib: u64,
        /// What is needed.
        needed_mib: u64,
    },
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tool could not do its work, whatever the backup is.
    #[error(transparent)]
    Tool(ProgramError),
    /// Nothing in a backup ends a server in order.
    #[error("somebody has stopped the server that it was looked through with")]
    Stopped,
}

/// What the backup is found to be, in words; or why nothing was found out.
type Found = Result<Option<String>, VerifyError>;

/// A tool that has looked at the backup ended with `said`. What the node lacks is no fault of the backup's;
/// more complaints than can be kept are one.
fn found(said: Result<Output, ProgramError>) -> Found {
    let error = match said {
        Ok(_) => return Ok(None),
        Err(error) => error,
    };
    let tells = match &error {
        ProgramError::Failed { status, last_words, .. } => !is_of_the_node(*status, last_words),
        ProgramError::TooMuchOutput { .. } => true,
        ProgramError::Start { .. } | ProgramError::TimedOut { .. } => false,
    };
    if tells { Ok(Some(error.to_string())) } else { Err(VerifyError::Tool(error)) }
}

/// It was killed, or had too little of something.
fn is_of_the_node(status: ExitStatus, said: &[String]) -> bool {
    let is_short = |line: &String| SHORTAGES.iter().any(|shortage| line.contains(shortage));
    status.code().is_none() || said.iter().any(is_short)
}

/// `pg_amcheck` ended, and these were its first lines on standard output.
fn checked(ended: Result<(), ProgramError>, lines: Vec<String>) -> Found {
    match ended {
        Ok(()) => Ok(None),
        Err(ProgramError::Failed { program, status, .. }) if status.code() == Some(DAMAGED) => {
            found(Err(ProgramError::Failed { program, status, last_words: lines }))
        }
        Err(error) => Err(VerifyError::Tool(error)),
    }
}

/// What psql failed of goes by in time.
fn is_not_yet(error: &ProgramError) -> bool {
    match error {
        ProgramError::Failed { last_words, .. } => {
            last_words.iter().any(|line| NOT_YET.iter().any(|known| line.contains(known)))
        }
        ProgramError::TimedOut { .. } => true,
        ProgramError::Start { .. } | ProgramError::TooMuchOutput { .. } => false,
    }
}

/// Triggers and libraries that the database's own superusers have planted are not run by us, who are barman
/// (README: what is left). Of the client's as well as the server's, because only that outweighs `ALTER DATABASE … SET`.
fn harmless(major: u32) -> Vec<&'static str> {
    let mut options = vec!["session_replication_role=replica", "session_preload_libraries="];
    if major >= 17 {
        options.push("event_triggers=off"); // Those that are ENABLE ALWAYS or REPLICA too.
    }
    options
}

/// The backup of that id or name, or the latest; if it can be verified.
pub fn to_verify(
    settings: &Settings,
    account: &Account,
    wanted: &str,
) -> Result<Backup, VerifyError> {
    let directory = super::backup_directory(settings);
    let archive = acting_as(account, || catalog::archive(&directory));
    let is_it = |backup: &Backup| backup.id == wanted || backup.name.as_deref() == Some(wanted);
    let backup = match wanted {
        "latest" => archive.backups.last(),
        _ => archive.backups.iter().rev().find(|backup| is_it(backup)),
    };
    let backup = backup.cloned().ok_or_else(|| VerifyError::Unknown(wanted.to_owned()))?;
    if let Some(why) = &backup.unfit {
        return Err(VerifyError::Unfit(backup.id.clone(), why.clone()));
    }
    let needed_mib = backup.bytes / (1 << 20) + ROOM_MIB;
    match free_mib(&directory).filter(|free_mib| *free_mib < needed_mib) {
        Some(free_mib) => Err(VerifyError::NoRoom { id: backup.id.clone(), free_mib, needed_mib }),
        None => Ok(backup),
    }
}

/// Restores it where it is in nobody's way, and keeps what comes of that. `tell` hears what is done.
pub async fn verify(
    settings: &Settings,
    layout: &Layout,
    account: &Account,
    backup: &Backup,
    tell: impl Fn(&'static str),
) -> Result<Verified, VerifyError> {
    let directory = super::backup_directory(settings);
    let scratch = Scratch {
        layout,
        account,
        user: &settings.postgres.user,
        home: directory.join(SCRATCH),
        sockets: layout.run_dir.join("verify"),
        harmless: harmless(backup.major),
    };
    scratch.discard().await?; // Of one that was interrupted.
    info!("verifies backup {}: restores it beside the others", backup.id);
    let found = scratch.restore(&directory, backup, tell).await;
    // First of all: it may have taken hours to find out.
    let verified = found.and_then(|wrong| Ok(note(&directory, &backup.id, wrong, account)?));
    if let Err(error) = scratch.discard().await {
        warn!(
            "{} is left until the next one is verified: {}",
            scratch.home.display(),
            chain(&error)
        );
    }
    verified
}

fn note(
    directory: &Path,
    id: &str,
    wrong: Option<String>,
    account: &Account,
) -> Result<Verified, FileError> {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let verified = Verified { at: Moment::from_seconds(now.as_secs()), wrong };
    let notes = directory.join(NOTES);
    ensure_directory(&notes, 0o700, account)?;
    let text = serde_json::to_string(&verified).expect("its keys are texts");
    ensure_file(&notes.join(id), text, 0o600, account)?;
    Ok(verified)
}

/// What was found out about the backup of that id.
pub(super) fn noted(directory: &Path, id: &str) -> Option<Verified> {
    serde_json::from_slice(&fs::read(directory.join(NOTES).join(id)).ok()?).ok()
}

/// Where one is restored to.
struct Scratch<'a> {
    layout: &'a Layout,
    account: &'a Account,
    user: &'a str,
    home: PathBuf,
    sockets: PathBuf,
    harmless: Vec<&'static str>,
}

impl Scratch<'_> {
    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// By a program: it may be much, and nothing else of the node's waits for it.
    async fn discard(&self) -> Result<(), VerifyError> {
        let remove = Program::new("rm").account(self.account).current_dir("/");
        let removed = remove.args(["-rf", "--"]).arg(&self.home).output(STEP_AT_MOST).await;
        removed.map(drop).map_err(VerifyError::Tool)
    }

    fn program(&self, name: &str) -> Program {
        let program = Program::new(self.layout.program(name)).account(self.account);
        program.env("LC_ALL", "C").current_dir("/")
    }

    /// A client of the server.
    fn client(&self, name: &str) -> Program {
        let options: Vec<_> = self.harmless.iter().map(|option| format!("-c {option}")).collect();
        let program = self.program(name).env("PGOPTIONS", options.join(" "));
        let program = program.arg("--host").arg(&self.sockets);
        program.args(["--port", PORT, "--username", self.user, "--no-password"])
    }

    async fn restore(
        &self,
        directory: &Path,
        backup: &Backup,
        tell: impl Fn(&'static str),
    ) -> Found {
        let data = self.data();
        tell("copies it");
        ensure_directory(&self.home, 0o700, self.account)?;
        let from = directory.join("base").join(&backup.id).join("data");
        self.copy(&from, &data).await?;
        if acting_as(self.account, || data.join("backup_manifest").exists()) {
            tell("compares each file with its checksum");
            let compare = self.program("pg_verifybackup").args(["--quiet", "--no-parse-wal"]);
            let differs = found(compare.arg(&data).output(STEP_AT_MOST).await)?;
            if differs.is_some() {
                return Ok(differs);
            }
        }
        let segment_bytes =
            acting_as(self.account, || catalog::segment_bytes_of(directory, &backup.id));
        for file in wal_of(backup, segment_bytes) {
            let wals = directory.join("wals").join(&file[..16]).join(&file);
            if !acting_as(self.account, || wals.exists()) {
                return Ok(Some(format!("the WAL file {file}, which it needs, is not there")));
            }
            let to = data.join("pg_wal").join(&file);
            let copied = archive::copy_as_written(&wals, &to, self.account, STEP_AT_MOST).await;
            match copied {
                Ok(()) => {}
                // It has a checksum of its own.
                Err(spoilt) if archive::is_gzips(&spoilt) => return found(Err(spoilt)),
                Err(error) => return Err(VerifyError::Tool(error)),
            }
        }
        self.prepare(segment_bytes)?;
        tell("recovers it, and looks through all of it");
        let server = self.program("postgres").oom_score_adj(OOM_SCORE_ADJ).arg("-D").arg(&data);
        let conf = self.home.join("postgresql.conf");
        let server = server.arg("-c").arg(format!("config_file={}", conf.display()));
        let server =
            self.harmless.iter().fold(server, |server, option| server.args(["-c", option]));
        let mut server = pin!(server.output(STEP_AT_MOST));
        let checked = tokio::select! {
            // It ends by itself where it cannot recover.
            ended = &mut server => {
                let why = found(ended)?.ok_or(VerifyError::Stopped)?;
                return Ok(Some(why));
            }
            checked = self.look_through() => checked,
        };
        // In order, or its backends would live on for a moment and its shared memory for ever. Dropped, it
        // is killed.
        tokio::select! {
            _ = &mut server => {}
            () = self.stop() => {}
        }
        checked
    }

    /// Waits for its end.
    async fn stop(&self) {
        for mode in ["fast", "immediate"] {
            let stop = self.program("pg_ctl").args(["stop", "--wait", "--mode", mode, "--timeout"]);
            let stop = stop.arg(STOPS_WITHIN.as_secs().to_string()).arg("-D").arg(self.data());
            match stop.output(2 * STOPS_WITHIN).await {
                Ok(_) => return,
                Err(error) => warn!("the server on trial goes on: {}", chain(&error)),
            }
        }
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<(), VerifyError> {
        let copy = Program::new("cp").account(self.account).current_dir("/");
        let copy = copy.args(["--archive", "--reflink=auto", "--no-target-directory", "--"]);
        let copied = copy.arg(from).arg(to).output(STEP_AT_MOST).await;
        copied.map(drop).map_err(VerifyError::Tool)
    }

    /// The server knows nothing of the one that was backed up, and nobody but us can reach it.
    fn prepare(&self, segment_bytes: u64) -> Result<(), FileError> {
        let (data, account) = (self.data(), self.account);
        ensure_directory(&self.sockets, 0o700, account)?;
        let quoted = |path: &Path| path.display().to_string().replace('\'', "''");
        let hba = self.home.join("pg_hba.conf");
        ensure_file(&hba, "local all all trust\n", 0o600, account)?;
        // Each must be at least two files, which the defaults are of 16 MiB.
        let wal_mib = (segment_bytes >> 20).max(16) * 8;
        let conf = format!(
            "listen_addresses = ''\nport = {PORT}\nunix_socket_directories = '{}'\nhba_file = '{}'\n\
             restore_command = 'false'\nrecovery_target = 'immediate'\n\
             recovery_target_action = 'promote'\nhot_standby = off\nfsync = off\nautovacuum = off\n\
             archive_mode = off\nmax_prepared_transactions = 1000\nmax_connections = 20\n\
             max_logical_replication_workers = 0\nshared_buffers = '32MB'\nhuge_pages = off\n\
             min_wal_size = '{wal_mib}MB'\nmax_wal_size = '{wal_mib}MB'\n",
            quoted(&self.sockets),
            quoted(&hba)
        );
        ensure_file(&self.home.join("postgresql.conf"), conf, 0o600, account)?;
        ensure_file(&data.join("postgresql.auto.conf"), "", 0o600, account)?;
        ensure_file(&data.join("recovery.signal"), "", 0o600, account)?;
        acting_as(account, || {
            for gone in ["standby.signal", "postmaster.pid"] {
                let path = data.join(gone);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed("remove", &path)(error));
                    }
                    _ => {}
                }
            }
            files::sync_directory(&data)
        })
    }

    /// All tables, and all indexes that can be told anything of.
    async fn look_through(&self) -> Found {
        let began = Instant::now();
        loop {
            // template1, because who has dropped the others can do that; of it the next one is made.
            let ask = self.client("psql").args(["-XqAt", "--dbname", "template1", "-c"]);
            match ask.arg("SELECT NOT pg_is_in_recovery()").output(SQL_AT_MOST).await {
                Ok(said) if said.text().trim() == "t" => break,
                Err(error) if !is_not_yet(&error) => return Err(VerifyError::Tool(error)),
                Ok(_) | Err(_) => {}
            }
            if began.elapsed() > SERVES_WITHIN {
                let hours = SERVES_WITHIN.as_secs() / 3600;
                return Ok(Some(format!("it does not recover within {hours} h")));
            }
            wait::back_off(LOOK_EVERY).await;
        }
        let at_most = STEP_AT_MOST;
        let stopped = |_| {
            let (program, last_words) = ("pg_amcheck".to_owned(), Vec::new());
            VerifyError::Tool(ProgramError::TimedOut { program, at_most, last_words })
        };
        timeout(at_most, self.amcheck()).await.map_err(stopped)?
    }

    /// It may say as much as there are pages: all of that is read, and the first of it kept.
    async fn amcheck(&self) -> Found {
        let check = self.client("pg_amcheck").args(["--all", "--install-missing"]);
        let mut check = check.stream().map_err(VerifyError::Tool)?;
        let (mut head, mut buffer) = (Vec::new(), vec![0; HEAD_BYTES_MAX]);
        while let Ok(read @ 1..) = check.read(&mut buffer).await {
            let room = HEAD_BYTES_MAX.saturating_sub(head.len());
            head.extend(buffer.iter().take(read.min(room)));
        }
        let head = String::from_utf8_lossy(&head);
        let lines = head.lines().map(|line| line.trim().to_owned());
        checked(check.succeeded().await, lines.take(LAST_WORDS_LINES_MAX).collect())
    }
}

/// The files that hold what was written while it was taken.
fn wal_of(backup: &Backup, bytes: u64) -> Vec<String> {
    let (first, last) = (backup.begin.0 / bytes, backup.end.0.saturating_sub(1) / bytes);
    let name = |number: u64| wal_file_name(backup.timeline, Lsn(number * bytes), bytes);
    (first..=last).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn failed(raw: i32, words: &str) -> ProgramError {
        ProgramError::Failed {
            program: "tool".to_owned(),
            status: ExitStatus::from_raw(raw),
            last_words: vec![words.to_owned()],
        }
    }

    #[test]
    fn what_the_node_lacks_is_no_fault_of_the_backups() {
        let wrong = |raw, words| found(Err(failed(raw, words)));
        let panicked = "LOG:  startup process (PID 7) was terminated by signal 6: Aborted";
        assert!(wrong(1 << 8, panicked).is_ok_and(|wrong| wrong.is_some()));
        assert!(wrong(1 << 8, "checksum mismatch for file").is_ok_and(|wrong| wrong.is_some()));
        assert!(wrong(1 << 8, "PANIC:  could not write: No space left on device").is_err());
        assert!(wrong(1 << 8, "was terminated by signal 9: Killed").is_err());
        assert!(wrong(9, "").is_err(), "it was killed itself");
        let too_much = ProgramError::TooMuchOutput { program: "tool".to_owned() };
        assert!(found(Err(too_much)).is_ok_and(|wrong| wrong.is_some()));
    }

    #[test]
    fn damage_is_told_from_a_check_that_could_not_be_made() {
        let heap = vec!["heap table \"a.b.c\", block 2:".to_owned(), "invalid page".to_owned()];
        let damaged = checked(Err(failed(2 << 8, "")), heap).unwrap().unwrap();
        assert!(damaged.contains("block 2:; invalid page"), "{damaged}");
        assert!(checked(Err(failed(1 << 8, "server closed the connection")), Vec::new()).is_err());
        assert!(checked(Err(failed(9, "")), Vec::new()).is_err());
        assert_eq!(checked(Ok(()), Vec::new()).unwrap(), None);
    }

    #[test]
    fn only_a_server_that_is_not_there_yet_is_waited_for() {
        for words in [
            "psql: error: connection to server on socket \"/x\" failed: No such file or directory",
            "psql: error: … failed: FATAL:  the database system is not accepting connections",
            "psql: error: … failed: FATAL:  the database system is starting up",
        ] {
            assert!(is_not_yet(&failed(2 << 8, words)), "{words}");
        }
        for words in [
            "FATAL:  role \"postgres\" does not exist",
            "FATAL:  database \"template1\" is not currently accepting connections",
        ] {
            assert!(!is_not_yet(&failed(2 << 8, words)), "{words}");
        }
    }

    #[test]
    fn settings_are_of_the_backups_own_major() {
        assert!(harmless(17).contains(&"event_triggers=off"));
        assert!(!harmless(16).contains(&"event_triggers=off"), "16 does not know it");
    }
}
