//! How much room a file system has.

use nix::sys::statvfs::statvfs;
use std::io;
use std::path::Path;

/// Of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub total: u64,
    /// What is left for whoever is not root, as Postgres is not.
    pub free: u64,
}

/// Of the file system that `path` is on. May take as long as that does to answer.
pub fn space(path: &Path) -> io::Result<Space> {
    let of = statvfs(path)?;
    let unit = of.fragment_size();
    Ok(Space { total: unit * of.blocks(), free: unit * of.blocks_available() })
}
