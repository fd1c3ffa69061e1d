//! Directories that pgherd gives to a service's user, and whose paths stand in files of other
//! programs: a crontab, where `%` ends the command and a shell reads the rest, barman's and
//! repmgr's configuration, where `;`, `#` and quotes mean something.

use super::Expected;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// Of a service's configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct ConfigDir(pub(in crate::settings) PathBuf);

/// Of the backups. It may be a volume directly below `/`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct BackupDir(pub(in crate::settings) PathBuf);

impl TryFrom<String> for ConfigDir {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let path = own(text).filter(|path| path.components().count() > 2); // `/` is one.
        path.map(ConfigDir).ok_or(
            "an absolute path of ASCII letters, digits and / . _ - + @ with two parts or more and \
             no .., such as /srv/pgherd/conf; pgherd gives the directory to the service's \
             user, so it must not be one that the system uses",
        )
    }
}

impl TryFrom<String> for BackupDir {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        own(text).map(BackupDir).ok_or(
            "an absolute path of ASCII letters, digits and / . _ - + @ and no .., such as \
             /home/barman/data; pgherd gives the directory to barman's user, so it must not be one \
             that the system uses",
        )
    }
}

/// `text` as a path that needs no quotes anywhere and may belong to a service.
fn own(text: String) -> Option<PathBuf> {
    let is_plain = text.bytes().all(|c| c.is_ascii_alphanumeric() || b"/._-+@".contains(&c));
    let path = PathBuf::from(text);
    let is_straight = !path.components().any(|part| part == Component::ParentDir);
    (is_plain && path.is_absolute() && is_straight && !is_the_systems(&path)).then_some(path)
}

/// Whole trees of the kernel's and of the packages' programs.
const TREES: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/lib",
    "/lib64",
    "/proc",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
];
/// What several users share; below them there is room for a directory of one's own.
const SHARED: &[&str] = &[
    "/",
    "/etc",
    "/etc/cron.d",
    "/etc/pam.d",
    "/etc/pgherd",
    "/etc/postgresql-common",
    "/etc/ssl",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/run/lock",
    "/run/pgherd",
    "/run/postgresql",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/local",
    "/usr/local/bin",
    "/usr/share",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/run",
    "/var/run/lock",
    "/var/run/pgherd",
    "/var/run/postgresql",
    "/var/spool",
    "/var/tmp",
];

fn is_the_systems(path: &Path) -> bool {
    TREES.iter().any(|tree| path.starts_with(tree))
        || SHARED.iter().any(|one| path == Path::new(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> bool {
        ConfigDir::try_from(text.to_owned()).is_ok()
    }

    fn backups(text: &str) -> bool {
        BackupDir::try_from(text.to_owned()).is_ok()
    }

    #[test]
    fn no_path_breaks_a_crontab_or_a_configuration_file() {
        for text in ["/etc/barman.d/", "/srv/pg-1/conf_2", "/opt/a+b@c"] {
            assert!(config(text) && backups(text), "{text}");
        }
        for odd in [' ', '%', ';', '#', '\'', '"', '$', '`', '\\', '\n', '&', '*', '=', 'é'] {
            let text = format!("/srv/a{odd}b/c");
            assert!(!config(&text) && !backups(&text), "{text}");
        }
        assert!(!config("srv/conf") && !backups("srv/backups"));
    }

    #[test]
    fn no_service_is_given_a_directory_of_the_system() {
        for text in ["/", "//", "/etc", "/etc/", "/etc/.", "/etc/cron.d", "/usr/lib/x", "/dev/shm"]
        {
            assert!(!config(text) && !backups(text), "{text}");
        }
        for text in ["/srv/../etc", "/home/barman/../../etc/cron.d", "/var/lib/"] {
            assert!(!config(text) && !backups(text), "{text}");
        }
        assert!(backups("/backups") && !config("/conf"));
    }
}
