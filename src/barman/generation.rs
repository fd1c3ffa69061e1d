//! Which of barman's directories is the cluster's. A restored cluster is another history of the one that
//! its backup is of, and the two must not share an archive: it begins a directory of its own beside, and
//! its volume remembers which.

use super::catalog;
use crate::cluster::Archive;
use crate::layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::files::{FileError, acting_as, ensure_file};
use std::fs;
use std::path::{Path, PathBuf};

/// In the node's own directory: a name below `BARMAN_BACKUP_DIR`.
const NOTE: &str = "archive";

/// Where this cluster's backups and WAL are.
pub fn backup_directory(settings: &Settings) -> PathBuf {
    let note = fs::read_to_string(layout::state_dir(settings).join(NOTE)).unwrap_or_default();
    let cluster = &settings.herd.cluster;
    let noted = Some(note.trim()).filter(|name| generation(name, cluster).is_some());
    settings.barman.backup_dir.join(noted.unwrap_or(cluster))
}

/// What barman keeps of the cluster of that name, `account`'s, the youngest directory first.
pub fn archives(settings: &Settings, cluster: &str, account: &Account) -> Vec<Archive> {
    acting_as(account, || {
        let mut found = generations(&settings.barman.backup_dir, cluster);
        found.reverse();
        let directories = found.iter().map(|name| settings.barman.backup_dir.join(name));
        directories.map(|directory| catalog::archive(&directory)).collect()
    })
}

/// Afterwards barman's directory of this cluster is one that has nothing in it yet, and `owner`'s volume
/// says which. Its name, if it is another one than before.
pub fn begin_archive(
    settings: &Settings,
    barman: &Account,
    owner: &Account,
) -> Result<Option<String>, FileError> {
    let present = backup_directory(settings);
    if !acting_as(barman, || is_used(&present)) {
        return Ok(None);
    }
    let cluster = &settings.herd.cluster;
    let there = acting_as(barman, || generations(&settings.barman.backup_dir, cluster));
    let last = there.last().and_then(|name| generation(name, cluster)).unwrap_or(1);
    let name = name(cluster, last + 1);
    let note = layout::state_dir(settings).join(NOTE);
    ensure_file(&note, format!("{name}\n"), 0o644, owner)?;
    Ok(Some(name))
}

/// The directories of the cluster of that name, oldest first.
fn generations(backup_dir: &Path, cluster: &str) -> Vec<String> {
    let entries = fs::read_dir(backup_dir).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<_> =
        names.filter_map(|name| Some((generation(&name, cluster)?, name))).collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

/// See [`generation`].
pub(super) fn name(cluster: &str, number: u32) -> String {
    if number == 1 { cluster.to_owned() } else { format!("{cluster}.{number}") }
}

/// `pgherd` is the first, `pgherd.2` the second.
fn generation(name: &str, cluster: &str) -> Option<u32> {
    match name.strip_prefix(cluster)? {
        "" => Some(1),
        rest => {
            let number = rest.strip_prefix('.')?;
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            number.parse().ok().filter(|number| is_number && *number > 1)
        }
    }
}

/// Something of a cluster's is in it.
fn is_used(directory: &Path) -> bool {
    let has = |name: &str| {
        fs::read_dir(directory.join(name)).is_ok_and(|mut entries| entries.next().is_some())
    };
    directory.join("identity.json").exists() || ["base", "wals", "streaming"].into_iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_cluster_begins_a_directory_of_its_own_once() {
        let root = std::env::temp_dir().join(format!("pgherd-generation-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let (data, backups) = (root.join("data"), root.join("backups"));
        fs::create_dir_all(data.join("pgherd")).unwrap();
        let variables = [("POSTGRES_DATA_DIR", &data), ("BARMAN_BACKUP_DIR", &backups)];
        let variables = variables.map(|(name, path)| (name.to_owned(), path.display().to_string()));
        let settings = crate::settings::read(variables, |_| unreachable!("none is a file"));
        let (settings, us) = (settings.unwrap(), Account::current());
        let begin = || begin_archive(&settings, &us, &us).unwrap();
        assert_eq!(begin(), None, "there is nothing yet");
        fs::create_dir_all(backups.join("pgherd/base/20261121T051558")).unwrap();
        fs::create_dir_all(backups.join("pgherd-other/base/20261121T051558")).unwrap();
        assert_eq!(begin().as_deref(), Some("pgherd.2"));
        assert_eq!(backup_directory(&settings), backups.join("pgherd.2"));
        assert_eq!(begin(), None, "it has nothing in it yet");
        fs::create_dir_all(backups.join("pgherd.2/wals/0000000200000000")).unwrap();
        assert_eq!(begin().as_deref(), Some("pgherd.3"));
        fs::create_dir_all(backups.join("pgherd.10")).unwrap();
        let all = archives(&settings, "pgherd", &us);
        let names: Vec<_> = all.iter().map(|archive| archive.name.as_str()).collect();
        assert_eq!(names, ["pgherd.10", "pgherd.2", "pgherd"]);
        fs::remove_dir_all(&root).unwrap();
    }
}
