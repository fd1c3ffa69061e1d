//! PostgreSQL: one function for each thing asked of its programs, and their output parsed here.

pub mod brought_back;
pub mod conf;
pub mod conninfo;
pub mod copy;
pub mod hba;
pub mod hooks;
pub mod leading;
pub mod leftovers;
mod missing;
mod password;
pub mod peer;
mod progress;
pub mod restore;
pub mod rewind;
mod session;
pub mod standby;
mod theirs;
pub mod timelines;

pub use hooks::HookError;
pub use missing::{Missing, first_missing_wal};
pub use progress::Bytes;
pub use session::{Health, Session, SqlError};
pub use timelines::{newest_history, newest_received};

use crate::cluster::{ControlData, Lsn, SystemId, Timeline};
use crate::layout::Layout;
use crate::service::{Durability, Listen};
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::child::{Program, ProgramError};
use crate::system::files::{self, FileError, acting_as, ensure_directory, ensure_file, failed};
use crate::system::lent_name::with_a_name;
use std::ffi::OsString;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tracing::warn;

/// `initdb` takes a second; on a slow network volume it was seen to take minutes.
const INITDB_AT_MOST: Duration = Duration::from_secs(15 * 60);
/// Reads one page of one file.
const CONTROL_DATA_AT_MOST: Duration = Duration::from_secs(30);
/// Brings what the operator's scripts imported to the disk; that may be much.
const SYNC_AT_MOST: Duration = Duration::from_secs(60 * 60);

/// What failed while asking something of PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// A program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another node's server did not answer.
    #[error(transparent)]
    Peer(#[from] peer::PeerError),
    /// A copy of a cluster cannot be made beside what is there.
    #[error(
        "{} is not empty, and a tablespace of the cluster that is to be copied goes there; if it is \
         this node's own data of before, stop the node, remove the data directory and what is in \
         this one, and start it again", .0.display()
    )]
    TablespaceInTheWay(PathBuf),
    /// What must outlive `pg_rewind` lies where it would be removed or overwritten, or an earlier
    /// one was not completed.
    #[error(
        "pg_rewind cannot be used on {}: it was interrupted there before, or pgherd keeps files of \
         its own in it that would become the source's", .0.display()
    )]
    NotToBeRewound(PathBuf),
    /// `pg_controldata` printed something else than what is known.
    #[error("cannot read pg_controldata's answer: {0}")]
    ControlData(&'static str),
}

impl PostgresError {
    /// The cluster itself is the reason, not something in our way to it.
    pub fn is_about_the_cluster(&self) -> bool {
        match self {
            PostgresError::Program(error) => matches!(error, ProgramError::Failed { .. }),
            PostgresError::ControlData(_) => true,
            PostgresError::File(_)
            | PostgresError::Peer(_)
            | PostgresError::TablespaceInTheWay(_)
            | PostgresError::NotToBeRewound(_) => false,
        }
    }
}

/// Afterwards `pgdata` holds a cluster as `initdb` makes it, beside the mark.
///
/// `initdb` wants an empty directory, so it works in one inside, and what it made moves up:
/// that also does where `pgdata` is a mount point, which cannot be renamed over. `PG_VERSION`
/// moves last, so that a half-moved directory looks like none to every tool.
pub async fn initdb(
    settings: &Settings,
    layout: &Layout,
    account: &Account,
) -> Result<(), PostgresError> {
    let pgdata = &layout.pgdata;
    ensure_directory(pgdata, 0o700, account)?;
    ensure_file(&layout.unfinished_marker(), UNFINISHED, 0o600, account)?;
    acting_as(account, || files::sync_directory(pgdata))?; // Before the first file it is about.

    let making = pgdata.join(MAKING);
    let password = layout.technical_socket_dir.join("initdb.password");
    ensure_file(&password, format!("{}\n", settings.postgres.password.expose()), 0o600, account)?;
    if let Some(wal) = &settings.postgres.initdb_waldir {
        ensure_directory(wal, 0o700, account)?;
    }
    let mut program = as_postgres(layout, account, "initdb")
        .arg("--pgdata")
        .arg(&making)
        .arg(format!("--username={}", settings.postgres.user))
        .arg(format!("--pwfile={}", password.display()))
        // Of the locales in the image, the one whose order no update of libc changes.
        .args(["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums"])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
        .arg("--no-sync") // `complete` brings all to the disk, once.
        .umask(0o077);
    if let Some(wal) = &settings.postgres.initdb_waldir {
        program = program.arg("--waldir").arg(wal);
    }
    let program = program.args(&settings.postgres.initdb_args);
    let program = with_a_name(program, account, &layout.run_dir);
    let made = program.output(INITDB_AT_MOST).await;
    acting_as(account, || fs::remove_file(&password)).map_err(failed("remove", &password))?;
    made?;
    acting_as(account, || {
        append(&making.join("pg_hba.conf"), &hba::last_rule(settings))?;
        move_up(&making, pgdata)
    })?;
    Ok(())
}

/// `PG_VERSION` goes last.
fn move_up(making: &Path, pgdata: &Path) -> Result<(), FileError> {
    let entries = fs::read_dir(making).map_err(failed("read", making))?.flatten();
    let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
    names.sort_by_key(|name| name == "PG_VERSION");
    for name in names {
        let from = making.join(&name);
        fs::rename(&from, pgdata.join(&name)).map_err(failed("move up", &from))?;
    }
    fs::remove_dir(making).map_err(failed("remove", making))
}

/// Where `initdb` works, inside of the data directory.
const MAKING: &str = "pgherd.initdb";
/// What the mark says to a person who finds it.
const UNFINISHED: &str = "The first start of this cluster was begun and has not ended.\n\
    Nobody was ever served from this directory; pgherd's next start makes it anew.\n";

/// Afterwards nothing is left of an interrupted first start but the mark.
pub fn discard_unfinished(settings: &Settings, layout: &Layout) -> Result<(), FileError> {
    let marker = layout.unfinished_marker();
    assert!(marker.exists(), "only a marked directory may be discarded");
    // Nobody else's WAL: only what this very directory links to was made by it.
    let links_to = |wal: &Path| {
        let links = [layout.pgdata.join("pg_wal"), layout.pgdata.join(MAKING).join("pg_wal")];
        links.iter().any(|link| fs::read_link(link).is_ok_and(|to| to == wal))
    };
    if let Some(wal) = settings.postgres.initdb_waldir.as_deref().filter(|wal| links_to(wal)) {
        files::empty_directory(wal, &["lost+found"])?;
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let marker = name(&marker);
    let mut keep = vec![marker.as_str(), "lost+found"];
    // Where the data directory is all of the volume, the lock that we hold lies in it.
    let state = name(&layout.state_dir);
    if layout.state_dir.parent() == Some(&layout.pgdata) {
        keep.push(&state);
    }
    files::empty_directory(&layout.pgdata, &keep)
}

/// Afterwards all of the data directory is on the disk, and it is no longer marked.
/// The server is not running.
pub async fn complete(layout: &Layout, account: &Account) -> Result<(), PostgresError> {
    // File by file. One syncfs would take 90 ms instead of 250, once in the cluster's life, but
    // wait for whatever else the machine is writing to that file system.
    let sync = as_postgres(layout, account, "initdb").arg("--sync-only").arg("--pgdata");
    let sync = with_a_name(sync.arg(&layout.pgdata), account, &layout.run_dir);
    sync.output(SYNC_AT_MOST).await?;
    let marker = layout.unfinished_marker();
    acting_as(account, || {
        fs::remove_file(&marker).map_err(failed("remove", &marker))?;
        Ok(files::sync_directory(&layout.pgdata)?)
    })
}

/// Afterwards the server's files are those that the settings ask for, and the operator's own
/// lines in them are as they were.
pub fn write_conf(
    settings: &Settings,
    layout: &Layout,
    account: &Account,
) -> Result<(), FileError> {
    let in_pgdata = |name: &str| layout.pgdata.join(name);
    let conf = conf::pgherd_conf(settings, layout);
    ensure_file(&in_pgdata(conf::FILE), &conf, 0o600, account)?;

    let theirs = Some(layout.operator_conf_dir.as_path()).filter(|directory| directory.is_dir());
    let path = in_pgdata("postgresql.conf");
    theirs::keep_our_lines(&path, account, &layout.operator_conf_dir, |present| {
        conf::with_includes(present, theirs)
    })?;

    let theirs = match fs::read(&layout.operator_hba) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        read => Some(read.map_err(failed("read", &layout.operator_hba))?),
    };
    let path = in_pgdata("pg_hba.conf");
    theirs::keep_our_lines(&path, account, &layout.operator_hba, |present| {
        let of_nobody = hba::of_nobody(settings);
        let present = if present.is_empty() { of_nobody.as_bytes() } else { present };
        hba::with_block(settings, present, &layout.operator_hba, theirs.as_deref())
    })?;
    theirs::keep_our_lines(&in_pgdata("pg_ident.conf"), account, &layout.operator_hba, |present| {
        present.to_owned()
    })
}

/// What the operator's files and flags assign, in the order in which Postgres reads them.
pub fn operator_assignments(layout: &Layout, flags: &[String]) -> Vec<conf::Assignment> {
    let mut found = conf::read(&layout.pgdata, &|path| fs::read(path));
    found.extend(conf::of_flags(flags));
    found
}

/// The server as a program: in the foreground, listening where `listen` says.
/// pgherd's flags come last, so they are in force whatever `flags` says. `limits` are what a standby
/// must not fall short of.
pub fn server(
    layout: &Layout,
    account: &Account,
    flags: &[String],
    listen: Listen,
    durability: Durability,
    limits: &conf::Limits,
) -> Program {
    let mut ours = Vec::new();
    let mut set = |name: &str, value: &str| ours.push(format!("{name}={value}"));
    let assignments = operator_assignments(layout, flags);
    if let Some(libraries) = conf::preload_libraries(&assignments) {
        set("shared_preload_libraries", &libraries);
    }
    for (name, value) in conf::too_low(&assignments, limits) {
        warn!(
            "{name} is {value} for now, as on the primary when this standby last heard of it: a \
             standby with less does not start; yours is in force after a restart once the primary's is"
        );
        set(name, &value.to_string());
    }
    set("port", &listen.port().to_string());
    match listen {
        Listen::Technical { .. } => {
            set("listen_addresses", "");
            set("unix_socket_directories", &layout.technical_socket_dir.to_string_lossy());
        }
        Listen::Consumer { .. } => set("listen_addresses", "*"),
    }
    if durability == Durability::UntilComplete {
        set("fsync", "off");
        set("full_page_writes", "off");
        set("synchronous_commit", "off");
    }
    let mut program = as_postgres(layout, account, "postgres").arg("-D").arg(&layout.pgdata);
    program = program.args(flags);
    program = ours.into_iter().fold(program, |program, setting| program.arg("-c").arg(setting));
    if let Some(pid) = recorded_postmaster(&layout.pgdata) {
        // A pid that was recorded in another life of the container may be anybody's now, and
        // Postgres would refuse to start for ever. It does not look at the pid that this
        // variable names (`CreateLockFile` in its miscinit.c; pg_ctl uses it). That no other
        // Postgres runs here is known from the volume's lock and from our own children.
        program = program.env("PG_GRANDPARENT_PID", pid);
    }
    program
}

/// Afterwards no socket is in the way that nobody listens on. Its lock file names the pid of a
/// server of another life, which may be anybody's by now, and Postgres would give way to it.
pub fn remove_stale_socket(layout: &Layout, listen: Listen) -> Result<(), FileError> {
    let socket = layout.socket_dir_of(listen).join(format!(".s.PGSQL.{}", listen.port()));
    if UnixStream::connect(&socket).is_ok() {
        return Ok(()); // Somebody's, who shares the directory: Postgres says so.
    }
    let mut lock = socket.clone().into_os_string();
    lock.push(".lock");
    for file in [socket, lock.into()] {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove", &file)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The pid in `postmaster.pid`.
fn recorded_postmaster(pgdata: &Path) -> Option<String> {
    let text = fs::read_to_string(pgdata.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim();
    pid.parse::<i32>().ok().map(|_| pid.to_owned())
}

/// When `postmaster.pid` was written last. To be asked before a server is started: see
/// [`accepts_connections`].
pub fn pid_file_written(pgdata: &Path) -> Option<SystemTime> {
    fs::metadata(pgdata.join("postmaster.pid")).and_then(|meta| meta.modified()).ok()
}

/// Whether the server whose pid this is accepts connections. The postmaster writes it into the
/// last line of `postmaster.pid` (`AddToDataDirLockFile`, `PM_STATUS_READY` in its pidfile.h).
/// A file that is as old as `before` is another server's, though the pid may be the same: a container
/// that is started again gives the same pids again.
pub fn accepts_connections(pgdata: &Path, pid: i32, before: Option<SystemTime>) -> bool {
    if pid_file_written(pgdata) == before {
        return false;
    }
    let Ok(text) = fs::read_to_string(pgdata.join("postmaster.pid")) else { return false };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first() == Some(&pid.to_string().as_str())
        && matches!(lines.get(7), Some(&"ready" | &"standby"))
}

/// `pg_controldata`, of a server that is not running.
pub async fn control_data(
    bin: &Path,
    pgdata: &Path,
    account: &Account,
) -> Result<ControlData, PostgresError> {
    let program = Program::new(bin.join("pg_controldata")).account(account).env("LC_ALL", "C");
    let output = program.arg(pgdata).output(CONTROL_DATA_AT_MOST).await?;
    parse_control_data(&String::from_utf8_lossy(&output.stdout)).map_err(PostgresError::ControlData)
}

/// Whether the data directory is a copy that has not come to the point yet from which on it can be
/// used. No server runs on it.
async fn is_being_restored(layout: &Layout, account: &Account) -> Result<bool, PostgresError> {
    // The server takes it away when it has noted in the control file what stands in it.
    if acting_as(account, || layout.pgdata.join("backup_label").exists()) {
        return Ok(true);
    }
    let program = Program::new(layout.program("pg_controldata")).account(account);
    let program = program.env("LC_ALL", "C").arg(&layout.pgdata);
    let text = program.output(CONTROL_DATA_AT_MOST).await?.text();
    let start = text.lines().find_map(|line| line.strip_prefix("Backup start location:"));
    match start.map(str::trim).map(str::parse::<Lsn>) {
        Some(Ok(start)) => Ok(start != Lsn(0)),
        _ => Err(PostgresError::ControlData("Backup start location")),
    }
}

/// What the primary's limits were when a standby in `pgdata` last heard of them: it does not start
/// with less ("hot standby" in the manual), nor does a backup that recovers. Empty for a primary, and
/// where they cannot be read.
pub async fn limits(bin: &Path, pgdata: &Path, account: &Account) -> conf::Limits {
    let signals = ["standby.signal", "recovery.signal"];
    if !acting_as(account, || signals.iter().any(|signal| pgdata.join(signal).exists())) {
        return conf::Limits::new();
    }
    let program = Program::new(bin.join("pg_controldata")).account(account).env("LC_ALL", "C");
    match program.arg(pgdata).output(CONTROL_DATA_AT_MOST).await {
        Ok(output) => conf::limits_in(&output.text()),
        Err(_) => conf::Limits::new(), // The server says better what is wrong.
    }
}

fn parse_control_data(text: &str) -> Result<ControlData, &'static str> {
    let value = |name: &'static str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(label, _)| *label == name)
            .map(|(_, value)| value.trim())
            .ok_or(name)
    };
    let timeline =
        |name| value(name).and_then(|value| value.parse::<u32>().map(Timeline).map_err(|_| name));
    let lsn = |name| value(name).and_then(|value| value.parse::<Lsn>().map_err(|_| name));
    let system = "Database system identifier";
    // Zero where there is none: on a primary.
    let replayed = lsn("Minimum recovery ending location")?;
    Ok(ControlData {
        system: SystemId(value(system)?.parse().map_err(|_| system)?),
        timeline: timeline("Latest checkpoint's TimeLineID")?
            .max(timeline("Min recovery ending loc's timeline")?),
        lsn: lsn("Latest checkpoint location")?.max(replayed),
        shut_down: value("Database cluster state")?.starts_with("shut down"),
    })
}

fn as_postgres(layout: &Layout, account: &Account, program: &str) -> Program {
    Program::new(layout.program(program)).account(account).env("PGDATA", &layout.pgdata)
}

fn append(path: &Path, text: &str) -> Result<(), FileError> {
    use std::io::Write;
    fs::OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(failed("append to", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_data_is_read_as_15_and_17_print_it() {
        let text = "\
pg_control version number:            1700
Database system identifier:           7574838371812016165
Database cluster state:               shut down in recovery
Latest checkpoint location:           0/3000060
Latest checkpoint's TimeLineID:       3
Minimum recovery ending location:     0/30000D8
Min recovery ending loc's timeline:   4
Data page checksum version:           1
";
        let data = parse_control_data(text).unwrap();
        let expected = ControlData {
            system: SystemId(7_574_838_371_812_016_165),
            timeline: Timeline(4),
            lsn: Lsn(0x300_00D8),
            shut_down: true,
        };
        assert_eq!(data, expected);
        assert!(parse_control_data("").is_err());
    }

    #[test]
    fn a_server_is_up_when_its_own_pid_file_says_so() {
        let dir = std::env::temp_dir().join(format!("pgherd-pidfile-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let write = |status| {
            let text = format!("42\n/d\n1\n5432\n/s\n*\n 1 2\n{status}\n");
            fs::write(dir.join("postmaster.pid"), text).unwrap();
        };
        for (status, pid, expected) in
            [("ready   ", 42, true), ("starting", 42, false), ("ready   ", 43, false)]
        {
            write(status);
            assert_eq!(accepts_connections(&dir, pid, None), expected, "{status} {pid}");
        }
        write("ready   ");
        let stale = pid_file_written(&dir);
        assert!(!accepts_connections(&dir, 42, stale), "of a server of the same pid before");
        fs::remove_dir_all(&dir).unwrap();
    }
}
