//! A copy that is unpacked from barman's base backup instead of taken from a server.

use super::{free_waldir, remove, remove_content, without_their_pgherd};
use crate::layout::Layout;
use crate::postgres::{PostgresError, SYNC_AT_MOST, as_postgres};
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::files::{FileError, acting_as, ensure_directory, failed, sync_directory};
use crate::system::lent_name::with_a_name;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Afterwards `layout.work.clone` is an empty directory. Nothing is left of an earlier try.
pub fn begin(layout: &Layout, account: &Account) -> Result<(), FileError> {
    if !layout.pgdata.exists() {
        ensure_directory(&layout.pgdata, 0o700, account)?;
    }
    ensure_directory(&layout.work.clone, 0o700, account)
}

/// Afterwards what was unpacked into `layout.work.clone` is a cluster with no WAL of its own, on
/// the disk, and has nothing of its source's pgherd in it. Its `backup_label` says from where on it
/// replays.
pub async fn complete(
    settings: &Settings,
    layout: &Layout,
    account: &Account,
) -> Result<(), PostgresError> {
    let clone = &layout.work.clone;
    make_ours(settings, layout, account, clone)?;
    let sync = as_postgres(layout, account, "initdb").arg("--sync-only").arg("--pgdata").arg(clone);
    with_a_name(sync, account, &layout.run_dir).output(SYNC_AT_MOST).await?;
    Ok(())
}

/// The same for any directory, and not brought to the disk.
pub fn make_ours(
    settings: &Settings,
    layout: &Layout,
    account: &Account,
    clone: &Path,
) -> Result<(), FileError> {
    acting_as(account, || without_links(clone))?;
    let free = free_waldir(settings, layout, account)?;
    if let Some(wal) = free {
        ensure_directory(wal, 0o700, account)?;
    }
    acting_as(account, || {
        // barman takes base backups without WAL and keeps that apart; if there is some, the archive
        // has it too.
        let here = clone.join("pg_wal");
        remove_content(&here)?;
        if let Some(wal) = free {
            remove(&here)?;
            symlink(wal, &here).map_err(failed("link", &here))?;
        }
        without_their_pgherd(clone)
    })
}

/// A backup without tablespaces, its WAL apart, has no links: one that has is none of a server's.
fn without_links(directory: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(directory).map_err(failed("read", directory))? {
        let entry = entry.map_err(failed("read", directory))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(failed("read", &path))?;
        if kind.is_dir() {
            without_links(&path)?;
        } else if !kind.is_file() {
            return Err(failed("use", &path)(io::Error::other("it is no file and no directory")));
        }
    }
    sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_a_backup_is_refused() {
        let dir = std::env::temp_dir().join(format!("pgherd-unpacked-{}", std::process::id()));
        fs::create_dir_all(dir.join("base/1")).unwrap();
        fs::write(dir.join("base/1/1259"), "x").unwrap();
        without_links(&dir).unwrap();
        symlink("/etc", dir.join("base/2")).unwrap();
        assert!(without_links(&dir).unwrap_err().to_string().ends_with("base/2"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
