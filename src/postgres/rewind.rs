//! `pg_rewind`: a former primary's data directory becomes one that can follow its successor, by
//! copying what has changed since their ways parted.

use super::missing::first_missing_wal;
use super::peer::{As, Peer};
use super::progress::{self, Bytes};
use super::{PostgresError, as_postgres, conninfo, control_data, recorded_postmaster, restore};
use crate::cluster::{Address, Role};
use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::child::ProgramError;
use crate::system::files::{FileError, acting_as, ensure_file, failed, sync_directory};
use crate::system::lent_name::with_a_name;
use crate::system::output::{OutputHandle, Tag};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A crash recovery replays what `max_wal_size` allows, on a slow disk.
const RECOVERY_AT_MOST: Duration = Duration::from_secs(6 * 60 * 60);
/// In MB, as much as there can be.
const KEEP_ALL_WAL: &str = "wal_keep_size=2147483647";
/// At worst it reads all WAL since the fork and copies everything.
const REWIND_AT_MOST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What the marker says to a person who finds it.
const REWINDING: &str = "pg_rewind was begun on this node's data directory, and it was not started since.\n\
    Half of it may be another node's: nothing but pgherd should start it.\n";

/// Whether `pg_rewind` may be used on the data directory. It makes all of it the source's but the
/// tables, and knows no exceptions: where pgherd's own state or a copy lies inside, that would
/// become the source's, or nothing.
pub fn is_possible(layout: &Layout) -> bool {
    let work_inside =
        layout.work.all().into_iter().any(|work| {
            work.parent() == Some(&layout.pgdata) && fs::symlink_metadata(work).is_ok()
        });
    // The marker has to go where the data goes: into the next container.
    let device = |path: &Path| fs::metadata(path).ok().map(|meta| meta.dev());
    let together = device(&layout.state_dir) == device(&layout.pgdata);
    together && !layout.state_dir.starts_with(&layout.pgdata) && !work_inside
}

/// Afterwards the data directory, started as a standby, replays from where its way and that of the
/// server at `source` part, and [`Layout::rewinding_marker`] is there until [`rewound`]. All
/// configuration files in it are the source's, `postgresql.auto.conf` among them.
///
/// If it fails and the marker is not there, nothing has changed. If it is there, the directory is
/// half of each: it must not be started, and a second rewind cannot help, because the first one
/// replaces the WAL that it goes by (tried: it fails; and where the first one was complete but
/// for the mark, the recovery below would end on the source's timeline with a history of its own,
/// and pg_rewind would find nothing to do). So with a marker this refuses.
///
/// WAL that it needs and has no more it fetches from the archive; and if the source has no more of
/// what is to be replayed, so does the server that is started on it.
///
/// No server runs on it. If that was a primary's and was not shut down, its crash recovery is part
/// of this. A standby's has to be shut down in order before.
pub async fn rewind(
    settings: &Settings,
    layout: &Layout,
    account: &Account,
    source: &Address,
    output: &OutputHandle,
    progress: impl FnMut(Bytes) + Send + 'static,
) -> Result<(), PostgresError> {
    let marker = layout.rewinding_marker();
    if !is_possible(layout) || fs::symlink_metadata(&marker).is_ok() {
        return Err(PostgresError::NotToBeRewound(layout.pgdata.clone()));
    }
    ensure_checkpoint_on_its_timeline(settings, source).await?;
    ensure_recovered(layout, account, output).await?;
    let program = as_postgres(layout, account, "pg_rewind")
        .env("LC_ALL", "C") // Its words are read.
        .arg("--target-pgdata")
        .arg(&layout.pgdata)
        .arg("--source-server")
        .arg(conninfo::streaming(layout, source, None, "pg_rewind"))
        // A directory that is not shut down now is not what it was taken for. WAL that is not there
        // any more is fetched.
        .args(["--no-ensure-shutdown", "--restore-target-wal", "--progress"])
        .umask(0o077);
    let program = with_a_name(program, account, &layout.run_dir);
    ensure_file(&marker, REWINDING, 0o600, account)?;
    acting_as(account, || sync_directory(&layout.state_dir))?;
    let lent = restore::lend_to_rewind(layout, account)?;

    let begun = Arc::new(AtomicBool::new(false));
    let takes = {
        let begun = Arc::clone(&begun);
        let mut is_progress = progress::taken(progress);
        move |line: &[u8]| {
            let is_progress = is_progress(line);
            if is_progress || changes_from_now_on(line) {
                begun.store(true, Ordering::Relaxed);
            }
            is_progress
        }
    };
    let ran = program.run_with(Tag::from("pg_rewind"), output, REWIND_AT_MOST, takes).await;
    if ran.is_err() && lent {
        // Nothing may have changed, and then this is what is left of it. Before the marker goes.
        restore::leave_alone_at_start(&layout.pgdata, account)?;
    }
    // Only its own failure: whoever killed it may have done so before its words were read.
    if matches!(&ran, Err(ProgramError::Failed { status, .. }) if status.code() == Some(1))
        && !begun.load(Ordering::Relaxed)
    {
        rewound(layout, account)?;
    }
    ran?;
    // What was lent, if there was nothing to rewind; or else the source's, if it had one.
    restore::leave_alone_at_start(&layout.pgdata, account)?;
    // pg_rewind copies the WAL that the source has, and from 17 on leaves the target's of before the fork:
    // what lies between the two may be in the archive only.
    if first_missing_wal(layout, account).await?.is_some() {
        restore::ask_at_start(&layout.pgdata, account)?;
    }
    Ok(())
}

/// What pg_rewind of 15 to 18 says, with `--progress`, when it has compared everything: the next
/// thing that it does is to write (`main` in pg_rewind.c).
fn changes_from_now_on(line: &[u8]) -> bool {
    line.starts_with(b"pg_rewind: need to copy ")
}

/// Afterwards the data directory is as after a shutdown in order, and no WAL that was there is gone.
///
/// In single-user mode, where no background worker writes anything. pg_rewind would do the same by
/// itself, but the checkpoint at its end would remove all WAL beyond `wal_keep_size`, and pg_rewind
/// would then miss what it needs: all since the last checkpoint before the fork (tried).
/// `standby.signal` stops it: single-user mode refuses, and would make a primary of a standby.
async fn ensure_recovered(
    layout: &Layout,
    account: &Account,
    output: &OutputHandle,
) -> Result<(), PostgresError> {
    if control_data(&layout.bin_dir, &layout.pgdata, account).await?.shut_down {
        return Ok(());
    }
    // Without -F, which pg_rewind takes: if what follows fails, all is as after a shutdown.
    let mut program = as_postgres(layout, account, "postgres")
        .args(["--single", "-D"])
        .arg(&layout.pgdata)
        .args(["-c", KEEP_ALL_WAL, "template1"])
        .umask(0o077);
    if let Some(pid) = recorded_postmaster(&layout.pgdata) {
        program = program.env("PG_GRANDPARENT_PID", pid); // As for the server itself.
    }
    Ok(program.run(Tag::from("postgres"), output, RECOVERY_AT_MOST).await?)
}

/// pg_rewind of 15 reads the source's timeline from its last checkpoint. A new primary has none on
/// its timeline for minutes, and pg_rewind would find nothing to do.
async fn ensure_checkpoint_on_its_timeline(
    settings: &Settings,
    source: &Address,
) -> Result<(), PostgresError> {
    let peer = Peer::open(settings, source, As::Repmgr).await?;
    if peer.serving().await?.role == Role::Primary {
        peer.checkpoint().await?;
    }
    peer.close().await;
    Ok(())
}

/// Afterwards nothing says that the data directory is being rewound: it is what it should be, with
/// `standby.signal` and all, and on the disk.
pub fn rewound(layout: &Layout, account: &Account) -> Result<(), FileError> {
    let marker = layout.rewinding_marker();
    acting_as(account, || match fs::remove_file(&marker) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", &marker)(error)),
        Ok(()) => sync_directory(&layout.state_dir),
    })
}
