//! Files of the data directory in which pgherd keeps some lines and the operator the rest.

use crate::system::account::Account;
use crate::system::files::{FileError, acting_as, ensure_file, failed};
use std::fs;
use std::io;
use std::path::Path;

/// Afterwards `path` holds what `with_ours` makes of what it holds now. What is no plain file of
/// the directory's own, somebody has put there on purpose: it is not replaced. `instead` says
/// where the operator's lines could be.
pub(super) fn keep_our_lines(
    path: &Path,
    account: &Account,
    instead: &Path,
    with_ours: impl Fn(&[u8]) -> Vec<u8>,
) -> Result<(), FileError> {
    // With its owner's rights: it may be a link to what only root may read.
    let present = match acting_as(account, || fs::read(path)) {
        // Another image keeps it elsewhere: what is not here says nothing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(failed("read", path))?,
    };
    let wanted = with_ours(&present);
    match why_not_ours(path) {
        None => ensure_file(path, &wanted, 0o600, account).map(drop),
        Some(_) if wanted == present => Ok(()),
        Some(why) => {
            let why = format!(
                "it is {why}, and pgherd needs lines of its own in it; put yours into {} instead, \
                 and leave a plain file here",
                instead.display()
            );
            Err(failed("change", path)(io::Error::other(why)))
        }
    }
}

fn why_not_ours(path: &Path) -> Option<&'static str> {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
        return Some("a symbolic link");
    }
    is_mounted(path, &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
        .then_some("mounted by itself")
}

/// The fifth field of proc_pid_mountinfo(5) is the mount point, with blanks as `\040`.
fn is_mounted(path: &Path, mountinfo: &str) -> bool {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let path = path.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040");
    mountinfo.lines().any(|line| line.split(' ').nth(4) == Some(&path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("pgherd-theirs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn with_ours(present: &[u8]) -> Vec<u8> {
        if present.starts_with(b"ours\n") {
            present.to_owned()
        } else {
            [b"ours\n", present].concat()
        }
    }

    fn keep(path: &Path) -> Result<(), FileError> {
        keep_our_lines(path, &Account::current(), Path::new("/etc/pgherd/x"), with_ours)
    }

    #[test]
    fn bytes_of_any_encoding_are_kept() {
        let dir = directory("bytes");
        let path = dir.join("postgresql.conf");
        for text in [b"# f\xfcr\n".as_slice(), "# für\n".as_bytes()] {
            fs::write(&path, text).unwrap();
            keep(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), [b"ours\n", text].concat());
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_link_is_not_replaced_and_the_way_out_is_named() {
        let dir = directory("link");
        let (path, target) = (dir.join("postgresql.conf"), dir.join("target"));
        fs::write(&target, "theirs\n").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let why = std::error::Error::source(&keep(&path).unwrap_err()).unwrap().to_string();
        assert!(why.contains("symbolic link") && why.contains("into /etc/pgherd/x"), "{why}");
        assert_eq!(fs::read(&target).unwrap(), b"theirs\n");
        fs::write(&target, "ours\ntheirs\n").unwrap();
        keep(&path).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_that_is_mounted_by_itself_is_noticed() {
        let table =
            "36 35 98:0 / /d rw - ext4 x rw\n37 36 98:0 /y /d/my\\040data/a.conf rw - ext4 x rw\n";
        assert!(is_mounted(Path::new("/d/my data/a.conf"), table));
        assert!(!is_mounted(Path::new("/d/a.conf"), table));
    }
}
