//! What barman has, for nodes that have no barman: WAL files and the newest base backup.
//!
//! Opened with barman's own rights, for its directory is barman's to write and we are root: what
//! stands there under a name that is asked for may be a link to anything.

use super::catalog::{self, Status};
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::child::{Program, ProgramError, Streamed};
use crate::system::files::acting_as;
use nix::libc::O_NOFOLLOW;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What barman has on this node.
#[derive(Clone, Debug)]
pub struct Archive {
    settings: Settings,
    account: Account,
}

/// A WAL file or a timeline's history, found.
pub enum Wal {
    /// As Postgres wrote it, with its length.
    Plain(File, u64),
    /// barman keeps it compressed, and takes it out.
    Unpacked(Box<Streamed>),
}

/// A base backup that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// barman's id.
    pub id: String,
    /// Of which cluster.
    pub system: Option<String>,
    /// On which branch of history it was taken.
    pub timeline: Option<String>,
    /// Where the WAL begins that it needs.
    pub begin: Option<String>,
    /// From where on it can be used.
    pub end: Option<String>,
    /// How large it is, as barman has counted.
    pub bytes: Option<String>,
    data: PathBuf,
}

/// Why there is no backup to copy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackup {
    /// None is complete.
    #[error("there is no complete base backup yet")]
    None,
    /// What is in its data directory is not all of it.
    #[error("backup {0} has tablespaces, which are not copied this way; clone from the primary")]
    Tablespaces(String),
    /// Where pgherd's barman puts a backup is none.
    #[error("backup {0} is not a plain copy; clone from the primary")]
    NotPlain(String),
}

impl Archive {
    /// That of the cluster, which belongs to `account`.
    pub fn new(settings: &Settings, account: &Account) -> Self {
        Archive { settings: settings.clone(), account: account.clone() }
    }

    /// All that barman has of the cluster of that name, the directory that is in use first.
    pub fn all(&self, cluster: &str) -> Vec<crate::cluster::Archive> {
        super::archives(&self.settings, cluster, &self.account)
    }

    /// barman's directory of that name, or the one that is in use.
    fn directory(&self, name: Option<&str>) -> Option<PathBuf> {
        match name {
            None => Some(super::backup_directory(&self.settings)),
            // Nothing else is a path.
            Some(name) => {
                let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric());
                let directory = self.settings.barman.backup_dir.join(name);
                (is_name && name.chars().all(fits)).then_some(directory)
            }
        }
    }

    /// The WAL file or history of that name; `None` where barman has none, or it is no such name.
    ///
    /// `of` names another of barman's directories than the one in use.
    ///
    /// A segment that is still being received counts only if it is asked for (`with_partial`).
    /// Whoever follows a primary gets the rest of that segment from the primary, and should: an old
    /// primary's last segment as barman has it may differ from what the new one made of it. It is
    /// for the one case where there is no primary left, and then it is all there is.
    pub fn wal(&self, of: Option<&str>, name: &str, with_partial: bool) -> io::Result<Option<Wal>> {
        let Some(directory) = self.directory(of).filter(|_| is_wal_name(name)) else {
            return Ok(None);
        };
        let wals = match is_history_name(name) {
            true => directory.join("wals").join(name),
            false => directory.join("wals").join(&name[..16]).join(name),
        };
        let streaming = directory.join("streaming");
        let part = format!("{name}.partial");
        // barman archives the last one of a timeline so, where the next one begins in the midst of it.
        let partial = [streaming.join(&part), wals.with_file_name(&part)];
        let partial = partial.iter().filter(|_| with_partial);
        // Of a history that was left behind. Whoever is to be rewound needs it as it needs what had been archived
        // of that by then; whoever follows a primary asks for neither.
        let aside = directory.join(super::left_behind::DIRECTORY);
        let (aside, aside_part) = (aside.join(name), aside.join(&part));
        let aside_part = Some(&aside_part).filter(|_| with_partial);
        // A complete one moves from `streaming` to `wals` or aside, and may do so between two looks.
        let places = [wals.clone(), streaming.join(name), wals, aside];
        for path in places.iter().chain(partial).chain(aside_part) {
            let opened = acting_as(&self.account, || {
                OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(path)
            });
            match opened {
                Ok(file) => return self.as_written(path, file).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// pgherd's barman may compress with gzip; an archive from before pgherd may be compressed otherwise, too,
    /// which barman itself undoes, half a second for each file.
    fn as_written(&self, path: &Path, mut file: File) -> io::Result<Wal> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other(format!("{} is no file", path.display())));
        }
        let head = head(&mut file)?;
        if !is_compressed(&head) {
            file.rewind()?;
            return Ok(Wal::Plain(file, meta.len()));
        }
        let program = match is_gzip(&head) {
            true => gzip_to_stdout(path),
            false => {
                let name = path.file_name().unwrap_or_default();
                let server = &self.settings.herd.cluster;
                Program::new("barman").args(["--quiet", "get-wal", server]).arg(name)
            }
        };
        let unpacked = program.account(&self.account).current_dir("/").stream();
        unpacked.map(|program| Wal::Unpacked(Box::new(program))).map_err(io::Error::other)
    }

    /// The newest complete base backup.
    pub fn latest_backup(&self) -> Result<Backup, NoBackup> {
        let directory = super::backup_directory(&self.settings);
        let done =
            |(id, (status, _)): (String, (Status, _))| (status == Status::Done).then_some(id);
        // An id is the time when the backup began, so the last one is the newest.
        let newest = acting_as(&self.account, || {
            catalog::backups(&directory).into_iter().filter_map(done).next_back()
        });
        self.plain(&directory, newest.ok_or(NoBackup::None)?)
    }

    /// The complete base backup with that id, in the directory of that name.
    pub fn backup(&self, of: Option<&str>, id: &str) -> Result<Backup, NoBackup> {
        let directory = self.directory(of).ok_or(NoBackup::None)?;
        let is_done = acting_as(&self.account, || {
            catalog::backups(&directory).get(id).is_some_and(|(status, _)| *status == Status::Done)
        });
        if !is_done {
            return Err(NoBackup::None);
        }
        self.plain(&directory, id.to_owned())
    }

    fn plain(&self, directory: &Path, id: String) -> Result<Backup, NoBackup> {
        acting_as(&self.account, || {
            let info = catalog::info(directory, &id).ok_or(NoBackup::None)?;
            let value = |key| catalog::value(&info, key).filter(|value| *value != "None");
            if value("tablespaces").is_some_and(|list| list != "[]") {
                return Err(NoBackup::Tablespaces(id));
            }
            let data = directory.join("base").join(&id).join("data");
            if !is_plain_backup(&data) {
                return Err(NoBackup::NotPlain(id));
            }
            let value = |key| value(key).map(str::to_owned);
            Ok(Backup {
                system: value("systemid"),
                timeline: value("timeline"),
                begin: value("begin_xlog"),
                end: value("end_xlog"),
                bytes: value("size"),
                id,
                data,
            })
        })
    }

    /// The backup's data directory as a tar archive, its `backup_label` with it.
    pub fn tar(&self, backup: &Backup) -> Result<Streamed, ProgramError> {
        let tar = Program::new("tar").account(&self.account).current_dir("/");
        tar.arg("--create").arg("--directory").arg(&backup.data).arg(".").stream()
    }
}

pub(super) fn is_plain_backup(data: &Path) -> bool {
    ["PG_VERSION", "backup_label"]
        .iter()
        .all(|name| fs::symlink_metadata(data.join(name)).is_ok_and(|meta| meta.is_file()))
}

/// `000000010000000A000000FF` or `00000002.history`: what Postgres asks for. Nothing else is a path.
pub(super) fn is_wal_name(name: &str) -> bool {
    is_hex(name, 24) || is_history_name(name)
}

fn is_history_name(name: &str) -> bool {
    name.strip_suffix(".history").is_some_and(|timeline| is_hex(timeline, 8))
}

fn is_hex(text: &str, length: usize) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    text.len() == length && text.bytes().all(digit)
}

/// What it takes to tell how a file is kept.
fn head(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    Read::by_ref(file).take(6).read_to_end(&mut head)?;
    Ok(head)
}

/// What begins so was compressed with gzip, as `BARMAN_COMPRESSION` has it. barman's names tell nothing of that.
pub(super) fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(GZIP)
}

/// See [`is_gzip`].
pub(super) fn is_gzip_file(path: &Path) -> bool {
    let head = File::open(path).and_then(|mut file| head(&mut file));
    head.is_ok_and(|head| is_gzip(&head))
}

/// The file at `path`, as it was before.
fn gzip_to_stdout(path: &Path) -> Program {
    Program::new("gzip").args(["--decompress", "--stdout", "--"]).arg(path)
}

/// Copies a file of barman's archive, as Postgres wrote it. What may be left of an earlier try is overwritten.
pub(super) async fn copy_as_written(
    from: &Path,
    to: &Path,
    account: &Account,
    at_most: Duration,
) -> Result<(), ProgramError> {
    let tool = |name| Program::new(name).account(account).current_dir("/");
    let copy = |to: &Path| {
        let copy = tool("cp").args(["--archive", "--reflink=auto", "--no-target-directory", "--"]);
        copy.arg(from).arg(to).output(at_most)
    };
    if !acting_as(account, || is_gzip_file(from)) {
        return copy(to).await.map(drop);
    }
    // Its name tells gzip what it is.
    let mut packed = to.to_owned().into_os_string();
    packed.push(".gz");
    let packed = PathBuf::from(packed);
    copy(&packed).await?;
    tool("gzip")
        .args(["--decompress", "--force", "--"])
        .arg(&packed)
        .output(at_most)
        .await
        .map(drop)
}

/// gzip itself failed: the file is not what it was.
pub(super) fn is_gzips(error: &ProgramError) -> bool {
    matches!(error, ProgramError::Failed { program, .. } if program == "gzip")
}

const GZIP: &[u8] = b"\x1f\x8b";

/// By the first bytes: gzip, bzip2, xz, zstd, lz4. A WAL file begins with 0xD1 in its second byte,
/// a history with a digit or `#`.
fn is_compressed(head: &[u8]) -> bool {
    let magics: [&[u8]; 5] =
        [GZIP, b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"];
    magics.iter().any(|magic| head.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_postgres_asks_for_are_names() {
        for name in ["000000010000000A000000FF", "0000000A.history"] {
            assert!(is_wal_name(name), "{name}");
        }
        for name in [
            "",
            "000000010000000a000000ff",
            "000000010000000A000000FF.partial",
            "../../../../../etc/passwd",
            "00000001000000/../etc/pw",
            "A.history",
            "0000000A.history/x",
        ] {
            assert!(!is_wal_name(name), "{name}");
        }
    }

    #[test]
    fn a_wal_file_does_not_look_compressed() {
        assert!(!is_compressed(b"\x16\xd1\x06\0\x01\0") && !is_compressed(b"1\t0/5000"));
        assert!(is_compressed(b"\x1f\x8b\x08\0\0\0") && is_compressed(b"\xfd7zXZ\0"));
    }

    #[tokio::test]
    async fn what_barman_keeps_compressed_is_copied_as_it_was() {
        let directory = std::env::temp_dir().join(format!("pgherd-gzip-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let (name, account) = ("000000010000000A000000FF", Account::current());
        let (kept, plain) = (directory.join(name), directory.join("plain"));
        let text = "WAL ".repeat(10_000);
        fs::write(&plain, &text).unwrap();
        let gzip = Program::new("gzip").arg("--keep").arg(&plain).output(Duration::from_secs(10));
        gzip.await.unwrap();
        fs::rename(directory.join("plain.gz"), &kept).unwrap(); // barman's names say nothing of it.
        for (from, copied) in [(&kept, "a"), (&plain, "b"), (&kept, "a.partial")] {
            let to = directory.join(copied);
            copy_as_written(from, &to, &account, Duration::from_secs(10)).await.unwrap();
            assert!(fs::read_to_string(&to).unwrap() == text);
        }
        assert!(fs::metadata(&kept).unwrap().len() < 1000, "the archive stays as it is");
        fs::remove_dir_all(&directory).unwrap();
    }
}
