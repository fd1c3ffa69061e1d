//! One container at a time on a volume.
//!
//! Two containers on one volume are both PID 1 in a namespace of their own, so Postgres' own
//! check of `postmaster.pid` takes the other one for itself and both write (tried; also
//! docker-library/postgres#171). `flock` works across containers on one kernel and is released
//! by the kernel when the last process that holds the descriptor is gone. Postgres inherits it,
//! so the volume stays locked as long as anything is left that can write to it, pgherd alive or
//! not. What it does not see: two hosts on one network file system without lock support.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that one process at a time may hold. Let go by dropping it, or by dying.
#[derive(Debug)]
pub struct FileLock(Flock<File>);

/// Held for the life of the container.
#[derive(Debug)]
pub struct VolumeLock {
    locks: Vec<FileLock>,
}

/// Why the volume is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody holds it.
    #[error(
        "{} is in use by another container ({holder}); stop that one first, or give this one a \
         volume of its own", .path.display()
    )]
    Held {
        /// The lock file or directory.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The file cannot be made or locked.
    #[error("cannot lock {}", .path.display())]
    Unusable {
        /// The lock file or directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl FileLock {
    /// Locks `path`, which is made if need be and names `holder` afterwards.
    pub fn acquire(path: &Path, holder: &str) -> Result<Self, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let opened = options.custom_flags(nix::libc::O_NOFOLLOW).open(path);
        let mut lock = flock(opened.map_err(unusable(path))?, path)?;
        let mut sign = || {
            lock.set_len(0)?;
            lock.rewind()?;
            lock.write_all(holder.as_bytes())
        };
        sign().map_err(unusable(path))?;
        Ok(FileLock(lock))
    }
}

impl VolumeLock {
    /// Locks `file` for `holder`.
    pub fn acquire(file: &Path, holder: &str) -> Result<Self, LockError> {
        Ok(VolumeLock { locks: vec![FileLock::acquire(file, holder)?] })
    }

    /// Locks the data directory too, which is there: it may be on another volume than the file,
    /// and then the file is another one in each container.
    pub fn hold_directory(&mut self, pgdata: &Path) -> Result<(), LockError> {
        let directory = File::open(pgdata).map_err(unusable(pgdata))?;
        self.locks.push(FileLock(flock(directory, pgdata)?));
        Ok(())
    }

    /// What Postgres must inherit.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.locks.iter().map(|lock| lock.0.as_fd())
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> LockError {
    let path = path.to_owned();
    move |source| LockError::Unusable { path, source }
}

fn flock(file: File, path: &Path) -> Result<Flock<File>, LockError> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, errno)| {
        if errno != Errno::EWOULDBLOCK {
            return unusable(path)(errno.into());
        }
        let mut holder = String::new();
        let _ = Read::by_ref(&mut file).take(256).read_to_string(&mut holder); // A directory has none.
        let holder = holder.trim();
        let holder = if holder.is_empty() { "it left no name" } else { holder };
        LockError::Held { path: path.to_owned(), holder: holder.to_owned() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_by_the_file_or_by_the_directory() {
        let dir = std::env::temp_dir().join(format!("pgherd-lock-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("lock");
        let mut first = VolumeLock::acquire(&file, "node1 in container abc").unwrap();
        first.hold_directory(&dir).unwrap();
        let refused = VolumeLock::acquire(&file, "node2").unwrap_err();
        assert!(refused.to_string().contains("node1 in container abc"), "{refused}");

        let elsewhere = dir.join("lock-on-another-volume");
        let mut second = VolumeLock::acquire(&elsewhere, "node2").unwrap();
        second.hold_directory(&dir).unwrap_err();

        drop(first);
        VolumeLock::acquire(&file, "node2").unwrap();
        second.hold_directory(&dir).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
