//! Files and directories, written whole and only when they change.

use super::account::Account;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
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

/// Afterwards `path` holds `content`, with this mode and owner, or is as it was before.
/// Says whether anything had to change.
pub fn ensure_file(
    path: &Path,
    content: &str,
    mode: u32,
    owner: &Account,
) -> Result<bool, FileError> {
    if let Ok(meta) = fs::metadata(path)
        && meta.permissions().mode() & 0o7777 == mode
        && (!we_are_root() || meta.uid() == owner.uid.as_raw())
        && fs::read(path).is_ok_and(|present| present == content.as_bytes())
    {
        return Ok(false);
    }
    let beside = beside(path);
    let write = || -> io::Result<()> {
        let _ = fs::remove_file(&beside);
        let mut file = File::create_new(&beside)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        give(&beside, owner)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&beside);
        failed("write", path)(source)
    })?;
    Ok(true)
}

/// Where [`ensure_file`] writes what it then renames to `path`: a crash in between leaves it.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".pgherd-new");
    path.with_file_name(name)
}

/// Afterwards `path` is a directory with this mode and owner. Its parents are made as needed,
/// with the same owner and open to read.
pub fn ensure_directory(path: &Path, mode: u32, owner: &Account) -> Result<(), FileError> {
    if !path.is_dir() {
        if let Some(parent) = path.parent()
            && !parent.exists()
        {
            ensure_directory(parent, 0o755, owner)?;
        }
        fs::create_dir(path).map_err(failed("create", path))?;
    }
    let meta = fs::metadata(path).map_err(failed("read", path))?;
    if we_are_root() && (meta.uid(), meta.gid()) != (owner.uid.as_raw(), owner.gid.as_raw()) {
        give(path, owner).map_err(failed("change the owner of", path))?;
    }
    let ours = meta.uid() == nix::unistd::geteuid().as_raw() || we_are_root();
    if ours && meta.permissions().mode() & 0o7777 != mode {
        let permissions = Permissions::from_mode(mode);
        fs::set_permissions(path, permissions).map_err(failed("change the mode of", path))?;
    }
    Ok(())
}

/// Afterwards `path` belongs to `owner`.
pub fn ensure_owner(path: &Path, owner: &Account) -> Result<(), FileError> {
    let meta = fs::metadata(path).map_err(failed("read", path))?;
    if (meta.uid(), meta.gid()) == (owner.uid.as_raw(), owner.gid.as_raw()) {
        return Ok(());
    }
    give(path, owner).map_err(failed("change the owner of", path))
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

fn give(path: &Path, owner: &Account) -> io::Result<()> {
    if we_are_root() {
        chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
    }
    Ok(())
}
