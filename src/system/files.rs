//! Files and directories, written whole and only when they change.
//!
//! Postgres' and barman's directories are theirs: a superuser of the database can put a link to
//! anything there. So root does nothing by path where others may write: it acts with the owner's
//! rights ([`acting_as`]), to which such a link gives nothing.

use super::account::Account;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// What failed, and on which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", .path.display())]
pub struct FileError {
    verb: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// For `map_err`: names what was tried on which path.
pub fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { verb, path, source }
}

/// Runs `act` with the file rights of `account`: what it makes is theirs, and what they may not
/// touch, it cannot. Of this thread alone, so nothing may be awaited inside. As it is for who is
/// not root. See setfsuid(2); the capabilities over files go and come with the number.
pub fn acting_as<T>(account: &Account, act: impl FnOnce() -> T) -> T {
    struct Restore(Uid, Gid);
    impl Drop for Restore {
        fn drop(&mut self) {
            setfsuid(self.0);
            setfsgid(self.1);
        }
    }
    if !we_are_root() {
        return act();
    }
    let group = setfsgid(account.gid);
    let _restore = Restore(setfsuid(account.uid), group);
    act()
}

/// Runs `act`, which makes, renames or removes a name in `directory`, with the rights of whoever
/// may: root's own where nobody else writes, else the owner's.
pub fn acting_in<T>(directory: Option<&Path>, owner: &Account, act: impl FnOnce() -> T) -> T {
    match only_root_writes(directory) {
        true => act(),
        false => acting_as(owner, act),
    }
}

/// Afterwards `path` holds `content`, with this mode and owner, or is as it was before.
/// Says whether anything had to change.
pub fn ensure_file(
    path: &Path,
    content: impl AsRef<[u8]>,
    mode: u32,
    owner: &Account,
) -> Result<bool, FileError> {
    let ensure = || ensure_file_here(path, content.as_ref(), mode, owner);
    acting_in(path.parent(), owner, ensure).map_err(failed("write", path))
}

fn ensure_file_here(path: &Path, content: &[u8], mode: u32, owner: &Account) -> io::Result<bool> {
    if let Ok(meta) = fs::symlink_metadata(path)
        && meta.is_file()
        && meta.permissions().mode() & 0o7777 == mode
        && (!we_are_root() || meta.uid() == owner.uid.as_raw())
        && fs::read(path).is_ok_and(|present| present == content)
    {
        return Ok(false);
    }
    let beside = beside(path);
    let write = || -> io::Result<()> {
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        if we_are_root() && file.metadata()?.uid() != owner.uid.as_raw() {
            fchown(&file, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))?;
    Ok(true)
}

/// Nobody but root can put a link into this directory, or anything else.
fn only_root_writes(directory: Option<&Path>) -> bool {
    directory
        .and_then(|directory| fs::metadata(directory).ok())
        .is_some_and(|meta| meta.uid() == 0 && meta.permissions().mode() & 0o022 == 0)
}

/// Where [`ensure_file`] writes what it then renames to `path`: a crash in between leaves it.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".pgherd-new");
    path.with_file_name(name)
}

/// Afterwards `path` is a directory with this mode and owner. Its parents are made as needed,
/// with the same owner and open to read. One that is there and another's is taken over if it is
/// empty; with something in it, it is not ours to take, and that is an error.
pub fn ensure_directory(path: &Path, mode: u32, owner: &Account) -> Result<(), FileError> {
    if !path.exists() {
        if let Some(parent) = path.parent()
            && !parent.exists()
        {
            ensure_directory(parent, 0o755, owner)?;
        }
        acting_in(path.parent(), owner, || fs::create_dir(path)).map_err(failed("create", path))?;
    }
    // From here on by descriptor: nobody can put a link in between.
    let flags = nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let directory = opened.map_err(failed("use the directory", path))?;
    let meta = directory.metadata().map_err(failed("read", path))?;
    if we_are_root() && meta.uid() != owner.uid.as_raw() {
        let mut entries = fs::read_dir(path).map_err(failed("read", path))?;
        if entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != "lost+found")) {
            let why = format!(
                "it belongs to uid {} and is not empty; give it to uid {} (chown {2} {3}), or name \
                 another directory",
                meta.uid(),
                owner.uid,
                owner.uid,
                path.display()
            );
            return Err(failed("take over", path)(io::Error::other(why)));
        }
        fchown(&directory, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
            .map_err(failed("change the owner of", path))?;
    }
    let ours = we_are_root() || meta.uid() == nix::unistd::geteuid().as_raw();
    if ours && meta.permissions().mode() & 0o7777 != mode {
        let permissions = Permissions::from_mode(mode);
        directory.set_permissions(permissions).map_err(failed("change the mode of", path))?;
    }
    Ok(())
}

/// The text of a configuration file, with the newline at its end that cron insists on and that
/// askama takes away.
pub fn rendered(template: &impl askama::Template) -> String {
    let text = template.render().expect("no template of ours has a part that can fail");
    format!("{}\n", text.trim_end())
}

/// Removes what is in `directory` but the names in `keep`.
pub fn empty_directory(directory: &Path, keep: &[&str]) -> Result<(), FileError> {
    for entry in fs::read_dir(directory).map_err(failed("read", directory))? {
        let entry = entry.map_err(failed("read", directory))?;
        if keep.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(failed("remove", &path))?;
    }
    Ok(())
}

/// Afterwards the names in `directory` are on the disk, not what they name.
pub fn sync_directory(directory: &Path) -> Result<(), FileError> {
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(failed("bring to the disk", directory))
}

/// Room left for `path`'s file system, in MiB, for those who are not root.
pub fn free_mib(path: &Path) -> Option<u64> {
    let at = path.ancestors().find(|path| path.exists())?;
    let stat = nix::sys::statvfs::statvfs(at).ok()?;
    Some(stat.blocks_available() * stat.fragment_size() / (1 << 20))
}

/// Whether `path` is where a file system of its own is mounted.
pub fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|meta| meta.dev());
    // Mounts of one volume in two places share a device; the kernel's table knows them apart.
    let listed = || {
        fs::read_to_string("/proc/self/mountinfo").is_ok_and(|table| {
            table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path))
        })
    };
    path.is_dir() && (path.parent().is_some_and(|up| device(up) != device(path)) || listed())
}

fn we_are_root() -> bool {
    nix::unistd::geteuid().is_root()
}
