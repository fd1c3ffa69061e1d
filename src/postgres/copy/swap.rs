//! A finished copy takes the place of what is in the data directory, entry by entry: the directory
//! itself stays, because it may be a mount point, and a lock is held on it.

use super::{
    discard_unfinished_copy, empty_outside, is_there, remove, remove_content, remove_empty,
    tablespaces_of, wal_of,
};
use crate::layout::Layout;
use crate::postgres::rewind;
use crate::system::account::Account;
use crate::system::files::{
    FileError, acting_as, acting_in, ensure_directory, failed, sync_directory,
};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the last life of the container left of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// None was being made.
    Nothing,
    /// One that is not complete: to be discarded.
    Clone,
    /// One that is complete and has to move in, or was doing so.
    Cloned,
    /// It was moving in; the data directory holds nothing else.
    MovingIn,
}

/// How far the last life of the container came with a copy.
pub fn left(layout: &Layout) -> Left {
    let work = &layout.work;
    if is_there(&work.moving_in) {
        Left::MovingIn
    } else if is_there(&work.cloned) {
        Left::Cloned
    } else if is_there(&work.clone) {
        Left::Clone
    } else {
        Left::Nothing
    }
}

/// What was in the data directory before is still there.
pub fn has_old(layout: &Layout) -> bool {
    is_there(&layout.work.old)
}

/// Afterwards what was `layout.work.cloned` is in the data directory, what was there is in
/// `layout.work.old`, nothing says any more that it is being rewound, and all of that is on the
/// disk. No server runs. Where there was an `old` already it stays, and what was to replace it,
/// and is replaced itself before it was good, is gone.
pub fn move_in(layout: &Layout, account: &Account) -> Result<(), FileError> {
    move_in_with(layout, account, &mut |_| Ok(()))
}

/// Called before each change that another cannot be mixed up with.
type Before<'a> = &'a mut dyn FnMut(&Path) -> io::Result<()>;

fn move_in_with(layout: &Layout, account: &Account, before: Before<'_>) -> Result<(), FileError> {
    if left(layout) == Left::Cloned {
        move_out(layout, account, before)?;
        rename_beside(&layout.work.cloned, &layout.work.moving_in, account, before)?;
    }
    if left(layout) == Left::MovingIn {
        move_up(layout, account, before)?;
        // What was half rewound is out of the way. Not later: the next start would replace the copy.
        before_change(before, &layout.rewinding_marker())?;
        rewind::rewound(layout, account)?;
        before_change(before, &layout.work.moving_in)?;
        remove_empty(&layout.work.moving_in, account)?;
    }
    Ok(())
}

/// Afterwards the data directory holds nothing that may move, and `old` holds what was there first.
fn move_out(layout: &Layout, account: &Account, before: Before<'_>) -> Result<(), FileError> {
    let (pgdata, old, clone) = (&layout.pgdata, &layout.work.old, &layout.work.clone);
    if !is_there(pgdata) {
        ensure_directory(pgdata, 0o700, account)?;
    }
    // `PG_VERSION` moves first: as long as it is here, nothing has moved, and what is called
    // `old` is from before.
    let has_version = |directory: &Path| is_there(&directory.join("PG_VERSION"));
    if has_version(pgdata) && !has_version(old) && has_old(layout) {
        before_change(before, old)?;
        discard_old(layout, account)?; // What is left of one that was being discarded.
    }
    // What is here was to replace `old` and never came so far: it goes to where nothing is lost, and
    // where nothing else is beside a finished copy.
    let replaces = has_version(old) && (has_version(pgdata) || is_there(clone));
    if !replaces {
        if is_there(clone) {
            before_change(before, clone)?;
            discard_unfinished_copy(layout, account)?;
        }
        return move_to(old, layout, account, before);
    }
    move_to(clone, layout, account, before)?;
    before_change(before, clone)?;
    discard_unfinished_copy(layout, account)
}

fn move_to(
    out: &Path,
    layout: &Layout,
    account: &Account,
    before: Before<'_>,
) -> Result<(), FileError> {
    let pgdata = &layout.pgdata;
    let mut names = entries(layout, pgdata)?;
    if names.is_empty() {
        return Ok(());
    }
    names.sort_by_key(|name| name != "PG_VERSION");
    if !is_there(out) {
        before_change(before, out)?;
        ensure_directory(out, 0o700, account)?;
        acting_in(out.parent(), account, || out.parent().map_or(Ok(()), sync_directory))?;
    }
    acting_as(account, || {
        for name in names {
            let to = out.join(&name);
            before_change(before, &to)?;
            if is_there(&to) {
                return Err(failed("move what was in the data directory to", &to)(
                    io::ErrorKind::AlreadyExists.into(),
                ));
            }
            rename(&pgdata.join(&name), &to)?;
            if name == "PG_VERSION" {
                sync_both(out, pgdata)?;
            }
        }
        sync_both(out, pgdata)
    })
}

/// Afterwards all that was in `moving_in` is in the data directory.
fn move_up(layout: &Layout, account: &Account, before: Before<'_>) -> Result<(), FileError> {
    let (moving_in, pgdata) = (&layout.work.moving_in, &layout.pgdata);
    acting_as(account, || {
        let mut names = entries(layout, moving_in)?;
        names.sort_by_key(|name| name == "PG_VERSION");
        for name in names {
            if name == "PG_VERSION" {
                // It says that all the rest is here, after a loss of power, too.
                sync_both(pgdata, moving_in)?;
            }
            let to = pgdata.join(&name);
            before_change(before, &to)?;
            rename(&moving_in.join(&name), &to)?;
        }
        remove_content(moving_in)?; // What stays, and never should have come.
        sync_both(pgdata, moving_in)
    })
}

/// Removes what a cluster has left in `layout.work.old`, and what only that links to. It need not
/// be there.
pub fn discard_old(layout: &Layout, account: &Account) -> Result<(), FileError> {
    let old = &layout.work.old;
    acting_as(account, || {
        let others = [&layout.pgdata, &layout.work.cloned, &layout.work.moving_in];
        remove(&old.join("PG_VERSION"))?; // First: it says that all the rest is there.
        empty_outside(layout, tablespaces_of(old), wal_of(old), &others)?;
        remove_content(old)
    })?;
    remove_empty(old, account)
}

/// Afterwards what was in `layout.work.old` is where nothing ever removes it, which is returned.
/// `None`, and it is where it was, if there is no such place: inside of a data directory that is a
/// mount point.
pub fn keep_old(layout: &Layout, account: &Account) -> Result<Option<PathBuf>, FileError> {
    let old = &layout.work.old;
    if old.parent() == Some(&layout.pgdata) {
        return Ok(None);
    }
    let numbered = |number: u32| {
        let mut name = old.clone().into_os_string();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    };
    let free = (1..).map(numbered).find(|path| !is_there(path)).expect("there are enough numbers");
    rename_beside(old, &free, account, &mut |_| Ok(()))?;
    Ok(Some(free))
}

/// What moves with a cluster: all but what pgherd and the file system keep in the data directory.
fn entries(layout: &Layout, directory: &Path) -> Result<Vec<OsString>, FileError> {
    let stays = |name: &OsString| {
        let path = layout.pgdata.join(name);
        *name == *"lost+found"
            || path == layout.state_dir
            || layout.work.all().contains(&path.as_path())
    };
    let found = fs::read_dir(directory).map_err(failed("read", directory))?;
    let names = found.map(|entry| entry.map(|entry| entry.file_name()));
    let names: Vec<OsString> =
        names.collect::<io::Result<_>>().map_err(failed("read", directory))?;
    Ok(names.into_iter().filter(|name| !stays(name)).collect())
}

fn before_change(before: Before<'_>, path: &Path) -> Result<(), FileError> {
    before(path).map_err(failed("go on with", path))
}

fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(failed("move", from))
}

fn rename_beside(
    from: &Path,
    to: &Path,
    account: &Account,
    before: Before<'_>,
) -> Result<(), FileError> {
    before_change(before, to)?;
    acting_in(from.parent(), account, || {
        rename(from, to)?;
        from.parent().map_or(Ok(()), sync_directory)
    })
}

fn sync_both(one: &Path, other: &Path) -> Result<(), FileError> {
    sync_directory(one)?;
    sync_directory(other)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
