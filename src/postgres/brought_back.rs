//! A data directory that a base backup is brought back into: unpacked inside of it, in the place where
//! `initdb` works too, made into a cluster that belongs to nobody else, and moved up.
//!
//! What stands in it about the node that was backed up must not come to life again: whom it followed, for
//! which standbys its commits waited, and where it archived its WAL, which is another cluster's archive.

use super::standby::{self, AUTO_CONF};
use super::{MAKING, PostgresError, as_postgres, conf, copy, move_up, timelines};
use crate::cluster::{Lsn, Timeline};
use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::files::{
    self, FileError, acting_as, ensure_directory, ensure_file, failed, sync_directory,
};
use crate::system::lent_name::with_a_name;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::info;

/// It reads all of a backup once; 20 TB from a slow disk take two days.
const VERIFY_AT_MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The list of all files with their checksums, which `pg_basebackup` makes.
const MANIFEST: &str = "backup_manifest";
/// Has Postgres look for WAL in an archive, and begin a timeline of its own where that ends.
const SIGNAL: &str = "recovery.signal";

/// What the mark says to a person who finds it.
const UNFINISHED: &str = "A backup was being brought back here, and that has not ended.\n\
    Nobody was ever served from this directory; pgherd's next start begins anew.\n";

/// Names of [`AUTO_CONF`] that are about the node that was backed up, or about one recovery.
const ANOTHER_NODES: [&str; 12] = [
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "hot_standby_feedback",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "restore_command",
    "synchronized_standby_slots",
    "synchronous_standby_names",
];

/// What the mark says of a restore on a running cluster.
const RESTORED: &str =
    "pgherd has restored the cluster to this, and has not seen yet that it serves.\n";

/// The same beside the data directory of a cluster that runs, with a mark that says so. `beside` is
/// [`Layout::beside`].
pub fn begin_beside(beside: &Layout, account: &Account) -> Result<PathBuf, FileError> {
    let making = begin(beside, account)?;
    ensure_file(&beside.restored_marker(), RESTORED, 0o600, account)?;
    Ok(making)
}

/// Afterwards `to` knows of all timelines that `from` knows of, so that the one that a recovery in `to` begins
/// is newer, whether the archive has heard of them or not.
pub fn learn_histories(from: &Layout, to: &Layout, account: &Account) -> Result<(), FileError> {
    acting_as(account, || {
        let (from, to) = (from.pgdata.join("pg_wal"), to.pgdata.join("pg_wal"));
        for entry in fs::read_dir(&from).map_err(failed("read", &from))?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "history") {
                let copy = to.join(entry.file_name());
                fs::copy(entry.path(), &copy).map_err(failed("write", &copy))?;
            }
        }
        Ok(())
    })
}

/// Where the newest timeline that a stopped primary's directory has a history of begins.
pub fn begins_at(layout: &Layout, timeline: Timeline, account: &Account) -> Option<Lsn> {
    timelines::history(&layout.pgdata, timeline, account)?.before.last().map(|(_, at)| *at)
}

/// Afterwards the data directory is marked and has an empty directory for the backup to be unpacked in.
/// That one is returned.
pub fn begin(layout: &Layout, account: &Account) -> Result<PathBuf, FileError> {
    let pgdata = &layout.pgdata;
    ensure_directory(pgdata, 0o700, account)?;
    ensure_file(&layout.unfinished_marker(), UNFINISHED, 0o600, account)?;
    acting_as(account, || files::sync_directory(pgdata))?; // Before the first file it is about.
    let making = pgdata.join(MAKING);
    ensure_directory(&making, 0o700, account)?;
    acting_as(account, || files::empty_directory(&making, &[]))?;
    Ok(making)
}

/// Afterwards what was unpacked is as it was when the backup was taken: each file has the checksum that
/// Postgres noted then. Says whether it could be told, which takes the list.
pub async fn verify(layout: &Layout, account: &Account) -> Result<bool, PostgresError> {
    let making = layout.pgdata.join(MAKING);
    if !acting_as(account, || making.join(MANIFEST).exists()) {
        return Ok(false);
    }
    // barman keeps the WAL apart, and the server reads it with checksums of its own. Its copies elsewhere
    // have no logs of the server's (`PGDATA_EXCLUDE_LIST`).
    let verify = as_postgres(layout, account, "pg_verifybackup").arg("--no-parse-wal");
    let verify = verify.args(["--ignore=log", "--ignore=pg_log"]);
    let verify = verify.args(["--quiet", "--exit-on-error"]).arg(&making);
    with_a_name(verify, account, &layout.run_dir).output(VERIFY_AT_MOST).await?;
    Ok(true)
}

/// Afterwards what was unpacked is the data directory's cluster: it has no WAL of its own and nothing of
/// its source's in it, and a server that is started on it recovers.
pub fn complete(settings: &Settings, layout: &Layout, account: &Account) -> Result<(), FileError> {
    let making = layout.pgdata.join(MAKING);
    copy::unpacked::make_ours(settings, layout, account, &making)?;
    standby::drop_slots_on_disk(&making, account)?;
    forget_the_other_node(&making, account)?;
    for gone in ["standby.signal", "postmaster.pid"] {
        acting_as(account, || remove(&making.join(gone)))?;
    }
    ensure_file(&making.join(SIGNAL), "", 0o600, account)?;
    acting_as(account, || {
        move_up(&making, &layout.pgdata)?;
        sync_directory(&layout.pgdata)
    })?;
    Ok(())
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn forget_the_other_node(directory: &Path, account: &Account) -> Result<(), FileError> {
    let auto_conf = directory.join(AUTO_CONF);
    let present = match acting_as(account, || fs::read(&auto_conf)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(failed("read", &auto_conf))?,
    };
    let (kept, forgotten) = without_the_other_node(&present);
    if !forgotten.is_empty() {
        info!("the backup's {} are not taken over: they are another node's", forgotten.join(", "));
    }
    ensure_file(&auto_conf, kept, 0o600, account).map(drop)
}

/// What is left of `present`, and the names of what is not. Bytes, because nothing says how they are
/// encoded.
fn without_the_other_node(present: &[u8]) -> (Vec<u8>, Vec<String>) {
    let mut forgotten = Vec::new();
    let mut kept = Vec::new();
    for line in present.split_inclusive(|byte| *byte == b'\n') {
        let name = conf::assignment(&String::from_utf8_lossy(line)).map(|(name, _)| name);
        let is_anothers = |name: &String| {
            ANOTHER_NODES.contains(&name.as_str()) || name.starts_with("recovery_target")
        };
        match name.filter(is_anothers) {
            Some(name) => forgotten.push(name),
            None => kept.extend_from_slice(line),
        }
    }
    (kept, forgotten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_the_node_that_was_backed_up_does_not_come_back() {
        let present = b"# Do not edit\nwork_mem = '64MB'\nprimary_conninfo = 'host=node1'\n\
            synchronous_standby_names = 'FIRST 1 (\"node2\")'\nx.y = '\xfc'\n\
            Recovery_Target_Time = 'x'\nrestore_command = 'cp barman_wal/%f %p'\n\
            archive_command = 'cp %p /old/%f'";
        let (kept, forgotten) = without_the_other_node(present);
        assert_eq!(kept, b"# Do not edit\nwork_mem = '64MB'\nx.y = '\xfc'\n");
        assert_eq!(forgotten.len(), 5);
        assert_eq!(without_the_other_node(&kept), (kept.clone(), Vec::new()));
    }
}
