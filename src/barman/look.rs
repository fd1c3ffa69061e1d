//! What the node that keeps the backups asks of them itself, and has done.

use super::{backup_directory, catalog};
use crate::cluster::Archive;
use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::child::{Program, ProgramError};
use crate::system::files::{acting_as, free_mib};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tracing::info;

/// A base backup of a large cluster over a slow network, and what it waits for.
const JOB_AT_MOST: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// What barman has of this cluster in the directory that is in use; how large the base backup is that is
/// being taken, if one is; and how many MiB are free.
pub fn look(settings: &Settings, account: &Account) -> (Archive, Option<u64>, Option<u64>) {
    let directory = backup_directory(settings);
    acting_as(account, || {
        let archive = catalog::archive(&directory);
        let free = free_mib(&settings.barman.backup_dir);
        (archive, catalog::running(&directory).map(|path| size(&path)), free)
    })
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
