//! What the node that keeps the backups asks of them itself, and has done.

use super::backup_directory;
use super::catalog::{self, Status};
use super::copies::{Copied, Copier};
use crate::cluster::Archive;
use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::child::{Program, ProgramError};
use crate::system::files::{acting_as, free_mib};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tracing::info;

/// A base backup of a large cluster over a slow network, and what it waits for.
const JOB_AT_MOST: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// What barman has of this cluster in the directory that is in use.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// The backups that are complete, and the WAL.
    pub archive: Archive,
    /// What has become of each backup, by its id, those that are not complete among them.
    pub stages: BTreeMap<String, Status>,
    /// How large the base backup is that is being taken, if one is.
    pub running_bytes: Option<u64>,
    /// Free on its volume.
    pub free_mib: Option<u64>,
    /// The last base backup that was tried came to nothing.
    pub failed: bool,
    /// What is elsewhere, where copies are wanted.
    pub copied: Option<Copied>,
    /// Since WAL was written to it. It grows where nobody writes to the cluster, too.
    pub wal_age: Option<Duration>,
}

/// Looks at its files.
pub fn look(settings: &Settings, account: &Account) -> Shelf {
    let directory = backup_directory(settings);
    let copied = Copier::new(settings, account).map(|copier| copier.look());
    acting_as(account, || {
        let backups = catalog::backups(&directory).into_iter();
        let stages: BTreeMap<_, _> = backups.map(|(id, (status, _))| (id, status)).collect();
        let last = stages.values().rfind(|status| **status != Status::Begun).copied();
        Shelf {
            archive: catalog::archive(&directory),
            running_bytes: catalog::running(&directory).map(|path| size(&path)),
            free_mib: free_mib(&settings.barman.backup_dir),
            failed: last == Some(Status::Failed),
            stages,
            copied,
            wal_age: newest_wal(&directory)
                .map(|at| SystemTime::now().duration_since(at).unwrap_or_default()),
        }
    })
}

/// When a WAL file was written to last: in `streaming`, where it grows, or in the newest directory of
/// `wals`, where barman puts those that are full.
fn newest_wal(directory: &Path) -> Option<SystemTime> {
    let wals = fs::read_dir(directory.join("wals")).into_iter().flatten().flatten();
    let newest = wals.map(|entry| entry.path()).filter(|path| path.is_dir()).max();
    let directories = newest.into_iter().chain([directory.join("streaming")]);
    let files = directories.filter_map(|path| fs::read_dir(path).ok()).flatten().flatten();
    files.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

/// In bytes. What vanishes meanwhile has none.
fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// What cron has barman do each minute.
pub async fn begin_job(layout: &Layout, account: &Account) -> Result<(), ProgramError> {
    run(layout, account, "cron", None).await
}

/// Takes a base backup, called `name` if that is given, and sees to it that it is complete. Returns when
/// that is so.
pub async fn take_backup(
    layout: &Layout,
    account: &Account,
    name: Option<&str>,
) -> Result<(), ProgramError> {
    run(layout, account, "backup", name).await
}

/// barman takes another one just now, or deletes one: it does one thing at a time (3.4 and 3.13).
pub fn takes_another(error: &ProgramError) -> bool {
    match error {
        ProgramError::Failed { last_words, .. } => {
            last_words.iter().any(|line| line.contains("Another backup process is running"))
        }
        ProgramError::Start { .. }
        | ProgramError::TimedOut { .. }
        | ProgramError::TooMuchOutput { .. } => false,
    }
}

async fn run(
    layout: &Layout,
    account: &Account,
    job: &str,
    name: Option<&str>,
) -> Result<(), ProgramError> {
    // As cron has it.
    let program = Program::new("/usr/local/bin/pgherd").account(account).current_dir("/");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", layout.bin_dir.display());
    let program = program.env("PATH", path);
    let program = program.args(["barman", job]).arg(&layout.barman_conf);
    let program = name.into_iter().fold(program, |program, name| program.args(["--name", name]));
    let output = program.output(JOB_AT_MOST).await?;
    output.text().lines().for_each(|line| info!("barman: {}", line.trim()));
    Ok(())
}
