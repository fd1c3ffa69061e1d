//! A copy of another node's cluster: made beside the data directory, and put into its place.
//!
//! The names of [`Work`](crate::layout::Work) are the journal. Each function here may be
//! interrupted at any moment and called again. Names in the directory that holds the data
//! directory are changed with the rights of whoever may write there, all else with the owner's:
//! the source of a copy could have put links in it.
//!
//! **Tablespaces lie outside**, at the same place on every node, so two copies of a cluster that
//! has some do not fit beside each other. [`take`] refuses before it begins where one of the
//! places is not empty. To map them elsewhere was turned down: a place is often a mount point, and
//! a directory beside it would be on another disk, or gone with the container.

mod swap;
pub mod unpacked;

pub use swap::{Left, discard_old, has_old, keep_old, left, move_in};

use super::conninfo;
use super::peer::{As, Peer};
use super::progress::{self, Bytes};
use super::{PostgresError, as_postgres};
use crate::cluster::Address;
use crate::layout::{self, Layout, Work};
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::files::{
    self, FileError, acting_as, acting_in, ensure_directory, ensure_file, failed, sync_directory,
};
use crate::system::lent_name::with_a_name;
use crate::system::output::{OutputHandle, Tag};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::info;

/// 20 TB over 1 Gbit/s take two days. Not to wait for ever is the business of the connection.
const COPY_AT_MOST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// In the state directory while a copy is made: the tablespaces' places, a line each, that were
/// empty before. `pg_basebackup` fills them first and makes the links to them last, so a copy that
/// was killed does not say itself what it has filled.
const PLACES: &str = "clone-tablespaces";

/// Afterwards `layout.work.clone` is a copy of the cluster of the server at `source`, with all WAL
/// that it needs, on the disk, and has nothing of the source's pgherd in it. The slot exists, and
/// nobody streams from it; nothing is left of an earlier try ([`discard_unfinished_copy`]).
/// The source's limits hold: `max_wal_senders` for two.
pub async fn take(
    settings: &Settings,
    layout: &Layout,
    account: &Account,
    source: &Address,
    slot: &str,
    output: &OutputHandle,
    progress: impl FnMut(Bytes) + Send + 'static,
) -> Result<(), PostgresError> {
    let peer = Peer::open(settings, source, As::Streaming).await?;
    let places = peer.tablespaces().await;
    peer.close().await;
    let clone = &layout.work.clone;
    claim_places(layout, account, &places?)?;
    if !layout.pgdata.exists() {
        ensure_directory(&layout.pgdata, 0o700, account)?;
    }
    ensure_directory(clone, 0o700, account)?;

    let mut program = as_postgres(layout, account, "pg_basebackup")
        .env("LC_ALL", "C") // Its progress is read.
        .arg("--pgdata")
        .arg(clone)
        .arg("--dbname")
        .arg(conninfo::streaming(layout, source, None, "pg_basebackup"))
        .args(["--wal-method=stream", "--slot", slot, "--checkpoint=fast", "--no-password"])
        // Nobody compares the copy with the list of its files once it is in use.
        .args(["--no-manifest", "--progress", "--verbose"])
        .umask(0o077);
    if let Some(wal) = free_waldir(settings, layout, account)? {
        ensure_directory(wal, 0o700, account)?;
        program = program.arg("--waldir").arg(wal);
    }
    let program = with_a_name(program, account, &layout.run_dir);
    let takes = progress::taken(progress);
    program.run_with(Tag::from("pg_basebackup"), output, COPY_AT_MOST, takes).await?;
    acting_as(account, || without_their_pgherd(clone))?;
    Ok(())
}

/// Writes down the places that the copy is going to fill, all of which are empty.
fn claim_places(
    layout: &Layout,
    account: &Account,
    places: &[PathBuf],
) -> Result<(), PostgresError> {
    for place in places {
        if !acting_as(account, || is_absent_or_empty(place))? {
            return Err(PostgresError::TablespaceInTheWay(place.clone()));
        }
    }
    if places.is_empty() {
        return Ok(());
    }
    let lines: Vec<&[u8]> = places.iter().map(|place| place.as_os_str().as_bytes()).collect();
    ensure_file(&layout.state_dir.join(PLACES), lines.join(&b'\n'), 0o600, account)?;
    Ok(acting_as(account, || sync_directory(&layout.state_dir))?)
}

fn is_absent_or_empty(directory: &Path) -> Result<bool, FileError> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(failed("read", directory)(error)),
    }
}

/// `POSTGRES_INITDB_WALDIR`, unless the WAL of what is in the data directory is there.
fn free_waldir<'a>(
    settings: &'a Settings,
    layout: &Layout,
    account: &Account,
) -> Result<Option<&'a Path>, FileError> {
    let Some(wal) = settings.postgres.initdb_waldir.as_deref() else { return Ok(None) };
    if acting_as(account, || is_absent_or_empty(wal))? {
        return Ok(Some(wal));
    }
    info!(
        "{} (POSTGRES_INITDB_WALDIR) is not empty, so the copy keeps its WAL in the data directory {}",
        wal.display(),
        layout.pgdata.display()
    );
    Ok(None)
}

/// A source whose state directory or work lies in its data directory sends them along.
fn without_their_pgherd(clone: &Path) -> Result<(), FileError> {
    for name in OURS {
        remove(&clone.join(name))?;
    }
    sync_directory(clone)
}

/// What pgherd keeps in a data directory that is a mount point, or all of the volume. Never part
/// of a cluster.
const OURS: [&str; 8] = [
    "pgherd",
    "pgherd.unfinished",
    "pgherd.behind",
    "pgherd.restored",
    "pgherd.clone",
    "pgherd.cloned",
    "pgherd.moving-in",
    "pgherd.old",
];

/// For whoever looks into the directory.
const BEHIND: &str = "pgherd has copied this from another node, and not seen yet that it has replayed all \
                      that that one had.\n";

/// Afterwards nothing is left of a copy that was not finished: neither in `layout.work.clone` nor
/// where it put tablespaces and WAL. What the data directory or a finished copy links to stays.
pub fn discard_unfinished_copy(layout: &Layout, account: &Account) -> Result<(), FileError> {
    let clone = &layout.work.clone;
    let places = layout.state_dir.join(PLACES);
    acting_as(account, || {
        let mut tablespaces = tablespaces_of(clone);
        if let Ok(listed) = fs::read(&places) {
            let lines = listed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            tablespaces
                .extend(lines.map(|line| real(Path::new(std::ffi::OsStr::from_bytes(line)))));
        }
        let others =
            [&layout.pgdata, &layout.work.cloned, &layout.work.moving_in, &layout.work.old];
        empty_outside(layout, tablespaces, wal_of(clone), &others)?;
        remove_content(clone)
    })?;
    remove_empty(clone, account)?;
    acting_as(account, || match places.exists() {
        true => {
            remove(&places)?;
            sync_directory(&layout.state_dir)
        }
        false => Ok(()),
    })
}

/// Afterwards what was `layout.work.clone`, if it was there, is `layout.work.cloned`: complete, and
/// on the disk.
pub fn finish_copy(layout: &Layout, account: &Account) -> Result<(), FileError> {
    if is_there(&layout.work.clone) {
        ensure_file(&layout::behind_marker(&layout.work.clone), BEHIND, 0o600, account)?;
    }
    finish_restored(layout, account)
}

/// The same for what is no copy of a primary's, but is to be one.
pub fn finish_restored(layout: &Layout, account: &Account) -> Result<(), FileError> {
    let (clone, cloned) = (&layout.work.clone, &layout.work.cloned);
    if !is_there(clone) {
        return Ok(());
    }
    acting_as(account, || {
        sync_directory(clone)?; // For what was added to it after it was taken.
        // First: from now on its links say what is its own, and nobody else may empty that.
        remove(&layout.state_dir.join(PLACES))?;
        sync_directory(&layout.state_dir)
    })?;
    let rename = || {
        fs::rename(clone, cloned).map_err(failed("move", clone))?;
        clone.parent().map_or(Ok(()), sync_directory)
    };
    acting_in(clone.parent(), account, rename)
}

/// What moves in, or did, is what the cluster was restored to: a primary's, not a standby's.
pub fn is_restored(layout: &Layout) -> bool {
    let Work { cloned, moving_in, .. } = &layout.work;
    let places = match left(layout) {
        Left::Cloned => [cloned, cloned],
        // Half of it may have arrived.
        Left::MovingIn => [moving_in, &layout.pgdata],
        Left::Clone | Left::Nothing => [&layout.pgdata, &layout.pgdata],
    };
    places.iter().any(|place| is_there(&layout::restored_marker(place)))
}

/// What the cluster is to be restored to is complete beside the data directory, and has not been given
/// its place.
pub fn restored_beside(layout: &Layout) -> bool {
    let beside = &layout.work.clone;
    left(layout) == Left::Clone
        && is_there(&layout::restored_marker(beside))
        && !is_there(&layout::unfinished_marker(beside))
}

/// It serves, and what it replaced is gone: nothing says any more that it was restored.
pub fn settled(layout: &Layout, account: &Account) -> Result<(), FileError> {
    remove_marker(layout, &layout.restored_marker(), account)
}

/// What is in the data directory is a copy that has not been seen to have all that its primary had: the
/// cluster's record may name this node for what it had before.
pub fn is_behind(layout: &Layout) -> bool {
    is_there(&layout.behind_marker())
}

/// It has been seen now.
pub fn caught_up(layout: &Layout, account: &Account) -> Result<(), FileError> {
    remove_marker(layout, &layout.behind_marker(), account)
}

fn remove_marker(layout: &Layout, marker: &Path, account: &Account) -> Result<(), FileError> {
    if !is_there(marker) {
        return Ok(());
    }
    acting_as(account, || {
        remove(marker)?;
        sync_directory(&layout.pgdata)
    })
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Removes what is called `path`, itself and not what it links to. It need not be there.
fn remove(path: &Path) -> Result<(), FileError> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_content(directory: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(directory).is_ok_and(|meta| meta.is_dir()) {
        true => files::empty_directory(directory, &[]),
        false => Ok(()),
    }
}

/// Removes the empty directory, or the link of its name. It need not be there.
fn remove_empty(directory: &Path, account: &Account) -> Result<(), FileError> {
    acting_in(directory.parent(), account, || {
        let removed = match fs::symlink_metadata(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(meta) if !meta.is_dir() => fs::remove_file(directory),
            _ => fs::remove_dir(directory),
        };
        removed.map_err(failed("remove", directory))?;
        directory.parent().map_or(Ok(()), sync_directory)
    })
}

/// Where `path` leads, or as it is where it leads nowhere.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Where the tablespaces of the cluster in `directory` lie outside of it.
fn tablespaces_of(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(directory.join("pg_tblspc")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).map(|link| real(&link)).collect()
}

/// Where the WAL of the cluster in `directory` lies, if outside of it.
fn wal_of(directory: &Path) -> Option<PathBuf> {
    fs::read_link(directory.join("pg_wal")).ok().map(|link| real(&link))
}

/// Removes what a cluster has put outside of its directory, but nothing that one of `others` has.
fn empty_outside(
    layout: &Layout,
    tablespaces: BTreeSet<PathBuf>,
    wal: Option<PathBuf>,
    others: &[&PathBuf],
) -> Result<(), FileError> {
    let in_use: BTreeSet<PathBuf> = others
        .iter()
        .flat_map(|other| tablespaces_of(other).into_iter().chain(wal_of(other)))
        .collect();
    // A server has one directory of this name in each of its tablespaces, and nothing else.
    let own = format!("PG_{}_", layout.major);
    for place in tablespaces.difference(&in_use) {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if entry.file_name().as_bytes().starts_with(own.as_bytes()) {
                remove(&entry.path())?;
            }
        }
    }
    match wal.filter(|wal| !in_use.contains(wal) && wal.is_dir()) {
        Some(wal) => files::empty_directory(&wal, &["lost+found"]),
        None => Ok(()),
    }
}
