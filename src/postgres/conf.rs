//! Server settings: pgherd's own file, the operator's, and which of theirs cannot be lived with.
//!
//! The operator's settings win over pgherd's, wherever they stand. The few that would break a
//! promise are refused by name, file and line before the server is started.

use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::files::rendered;
use askama::Template;
use std::fmt;
use std::path::{Path, PathBuf};

/// First line of `postgresql.conf`: read first, so that everything after it wins.
const INCLUDE: &str =
    "include_if_exists = 'pgherd.conf' # replication and backup; what follows wins";

/// Last line of `postgresql.conf`: `initdb` writes values of its own above (`max_connections`,
/// `shared_buffers` and more), which the operator's files have to win over.
const OPERATORS: &str = "# the operator's; what stands above loses";

/// pgherd's own file in the data directory.
pub const FILE: &str = "pgherd.conf";

#[derive(Template)]
#[template(path = "conf/pgherd.conf", escape = "none")]
struct PgherdConf<'a> {
    node_name: String,
    operator_conf_dir: std::path::Display<'a>,
}

/// The text of `pgherd.conf`.
pub fn pgherd_conf(settings: &Settings, layout: &Layout) -> String {
    let conf = PgherdConf {
        node_name: quoted(&settings.repmgr.node_name),
        operator_conf_dir: layout.operator_conf_dir.display(),
    };
    rendered(&conf)
}

/// `postgresql.conf` with the line that includes `pgherd.conf`, and, if there is such a directory,
/// the one that includes the operator's files.
pub fn with_includes(postgresql_conf: &str, operator_conf_dir: Option<&Path>) -> String {
    let is_ours = |line: &&str| *line == INCLUDE || line.ends_with(OPERATORS);
    let theirs = postgresql_conf.lines().filter(|line| !is_ours(line));
    let mut lines = vec![INCLUDE.to_owned()];
    lines.extend(theirs.map(str::to_owned));
    if let Some(directory) = operator_conf_dir {
        let directory = quoted(&directory.display().to_string());
        lines.push(format!("include_dir = {directory} {OPERATORS}"));
    }
    lines.join("\n") + "\n"
}

/// A value as the configuration file takes it.
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// `name = value`, as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// In lower case, as Postgres compares names.
    pub name: String,
    /// Without its quotes.
    pub value: String,
    /// Where it stands.
    pub place: Place,
}

/// Where a setting was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(PathBuf, usize),
    /// On the server's command line.
    Flag,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path, line) => write!(f, "{}:{line}", path.display()),
            Place::Flag => write!(f, "the server's command line"),
        }
    }
}

/// A setting of the operator's that cannot be lived with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {name} = {value}: {reason}")]
pub struct Unsafe {
    name: String,
    value: String,
    place: Place,
    reason: &'static str,
}

/// A setting, which values can be lived with, and what to do instead of the others.
struct Rule {
    name: &'static str,
    fits: fn(&str, &Settings) -> bool,
    reason: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        name: "wal_level",
        fits: |value, _| ["replica", "logical"].contains(&value),
        reason: "standbys and barman need replica or logical",
    },
    Rule {
        name: "hot_standby",
        fits: |value, _| is_on(value),
        reason: "a standby that answers nothing cannot be watched; leave it on",
    },
    Rule {
        name: "fsync",
        fits: |value, _| is_on(value),
        reason: "an acknowledged write could be lost; leave it on (synchronous_commit = off is \
                 faster and cannot corrupt)",
    },
    Rule {
        name: "full_page_writes",
        fits: |value, _| is_on(value),
        reason: "pg_rewind and crash recovery need it; leave it on",
    },
    Rule {
        name: "max_wal_senders",
        fits: |value, _| at_least(value, 6),
        reason: "a standby, a clone and barman need 6 or more",
    },
    Rule {
        name: "max_replication_slots",
        fits: |value, _| at_least(value, 4),
        reason: "each standby and barman hold one; 4 or more",
    },
    Rule {
        name: "password_encryption",
        fits: |value, _| value == "scram-sha-256",
        reason: "passwords are kept as scram-sha-256 only",
    },
    Rule {
        name: "port",
        fits: |value, settings| value == settings.postgres.port.to_string(),
        reason: "set POSTGRES_PORT instead: the other nodes and barman must know it",
    },
    Rule {
        name: "listen_addresses",
        fits: |value, _| value.split(',').any(|one| ["*", "0.0.0.0", "::"].contains(&one.trim())),
        reason: "the other nodes and repmgr come in over the network: leave it '*', and say who \
                 may come in /etc/pgherd/pg_hba.conf or with docker's port mapping",
    },
    Rule {
        name: "unix_socket_directories",
        fits: |value, _| {
            value.split(',').any(|one| {
                ["/var/run/postgresql", "/run/postgresql"].contains(&one.trim().trim_matches('"'))
            })
        },
        reason: "keep /var/run/postgresql in the list: pgherd itself comes in there",
    },
    Rule { name: "data_directory", fits: |_, _| false, reason: "set PGDATA instead" },
    Rule {
        name: "config_file",
        fits: |_, _| false,
        reason: "mount the file as /etc/pgherd/postgresql.conf.d/mine.conf instead",
    },
    Rule {
        name: "hba_file",
        fits: |_, _| false,
        reason: "mount the file as /etc/pgherd/pg_hba.conf instead",
    },
];

fn is_on(value: &str) -> bool {
    ["on", "true", "yes", "1"].contains(&value.to_lowercase().as_str())
}

fn at_least(value: &str, least: u32) -> bool {
    value.parse::<u32>().is_ok_and(|value| value >= least)
}

/// The assignments that are in force and cannot be lived with. `assignments` is in the order in
/// which Postgres reads them: of two with one name the later is in force.
pub fn unsafe_settings(settings: &Settings, assignments: &[Assignment]) -> Vec<Unsafe> {
    RULES
        .iter()
        .filter_map(|rule| {
            let found = in_force(assignments, rule.name)?;
            (!(rule.fits)(&found.value, settings)).then(|| Unsafe {
                name: found.name.clone(),
                value: found.value.clone(),
                place: found.place.clone(),
                reason: rule.reason,
            })
        })
        .collect()
}

/// The last assignment of `name` wins.
pub fn in_force<'a>(assignments: &'a [Assignment], name: &str) -> Option<&'a Assignment> {
    assignments.iter().rev().find(|assignment| assignment.name == name)
}

/// repmgrd needs its library loaded, whatever else the operator loads.
pub fn preload_libraries(assignments: &[Assignment]) -> Option<String> {
    let theirs = &in_force(assignments, "shared_preload_libraries")?.value;
    let has_repmgr = theirs.split(',').any(|library| library.trim().trim_matches('"') == "repmgr");
    (!has_repmgr).then(|| match theirs.trim() {
        "" => "repmgr".to_owned(),
        theirs => format!("repmgr,{theirs}"),
    })
}

/// What the operator's files assign, in the order in which Postgres reads them: `postgresql.conf`
/// with what it includes, then `postgresql.auto.conf`. pgherd's own file is followed, not listed.
/// A file that is not there assigns nothing; Postgres complains of what it needs.
pub fn read(pgdata: &Path, read_file: &dyn Fn(&Path) -> Option<String>) -> Vec<Assignment> {
    let mut found = Vec::new();
    collect(&pgdata.join("postgresql.conf"), read_file, 0, &mut found);
    collect(&pgdata.join("postgresql.auto.conf"), read_file, 0, &mut found);
    found.retain(|one| !matches!(&one.place, Place::File(path, _) if path.ends_with(FILE)));
    found
}

/// As deep as Postgres follows includes (`CONF_FILE_MAX_DEPTH` in its `conffiles.h`).
const INCLUDE_DEPTH_MAX: usize = 10;

fn collect(
    path: &Path,
    read_file: &dyn Fn(&Path) -> Option<String>,
    depth: usize,
    found: &mut Vec<Assignment>,
) {
    let (Some(text), true) = (read_file(path), depth <= INCLUDE_DEPTH_MAX) else { return };
    let beside = path.parent().unwrap_or(Path::new("/"));
    for (number, line) in (1..).zip(text.lines()) {
        let Some((name, value)) = assignment(line) else { continue };
        match name.as_str() {
            "include" | "include_if_exists" => {
                collect(&beside.join(value), read_file, depth + 1, found);
            }
            "include_dir" => {
                for file in conf_files(&beside.join(value)) {
                    collect(&file, read_file, depth + 1, found);
                }
            }
            _ => {
                found.push(Assignment { name, value, place: Place::File(path.to_owned(), number) })
            }
        }
    }
}

/// `*.conf` in byte order, none that begins with a dot: the manual's rule for `include_dir`.
fn conf_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".conf") && !name.starts_with('.')
        })
        .collect();
    files.sort();
    files
}

/// One line: `name = value`, `name value`, the value bare or in single quotes, `#` to the end a
/// comment. The manual's "Parameter Interaction via the Configuration File".
fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim_start();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)))?;
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    if name.is_empty() {
        return None;
    }
    let value = match rest.strip_prefix('\'') {
        None => rest.split(|c: char| c == '#' || c.is_whitespace()).next()?.to_owned(),
        Some(quoted) => {
            let mut value = String::new();
            let mut chars = quoted.chars().peekable();
            while let Some(c) = chars.next() {
                match c {
                    '\'' if chars.peek() == Some(&'\'') => value.extend(chars.next()),
                    '\'' => break,
                    '\\' => value.extend(chars.next()),
                    other => value.push(other),
                }
            }
            value
        }
    };
    Some((name.to_lowercase(), value))
}

/// What the server's flags assign. Flags that are no assignment (`-B`, `-N`, …) pass.
pub fn of_flags(flags: &[String]) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut push = |name: &str, value: &str| {
        found.push(Assignment {
            name: name.replace('-', "_").to_lowercase(),
            value: value.to_owned(),
            place: Place::Flag,
        });
    };
    let mut flags = flags.iter().map(String::as_str);
    while let Some(flag) = flags.next() {
        // Short options take their value with or without a blank: `-c x=1`, `-cx=1`, `-p 1`.
        let mut value_of = |short: &str| match flag.strip_prefix(short) {
            Some("") => flags.next(),
            Some(value) if !flag.starts_with("--") => Some(value),
            _ => None,
        };
        if let Some(pair) = flag.strip_prefix("--") {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "on"));
            push(name, value);
        } else if let Some(pair) = value_of("-c") {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "on"));
            push(name, value);
        } else if let Some(value) = value_of("-p") {
            push("port", value);
        } else if let Some(value) = value_of("-h") {
            push("listen_addresses", value);
        } else if let Some(value) = value_of("-k") {
            push("unix_socket_directories", value);
        } else if let Some(value) = value_of("-D") {
            push("data_directory", value);
        } else if flag == "-F" {
            push("fsync", "off");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn settings() -> Settings {
        crate::settings::read([], |_| unreachable!("no variable names a file")).unwrap()
    }

    fn flags(text: &str) -> Vec<Assignment> {
        of_flags(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn our_settings_are_read_first_and_the_operators_last_and_each_once() {
        let own = with_includes("port = 5432\n", None);
        assert_eq!(own, format!("{INCLUDE}\nport = 5432\n"));
        let directory = Some(Path::new("/etc/x.d"));
        let with_theirs = with_includes(&own, directory);
        assert_eq!(with_theirs, format!("{own}include_dir = '/etc/x.d' {OPERATORS}\n"));
        assert_eq!(with_includes(&with_theirs, directory), with_theirs);
        let appended = with_includes(&format!("{with_theirs}work_mem = 1MB\n"), directory);
        assert!(appended.ends_with(&format!("{OPERATORS}\n")), "{appended}");
        assert_eq!(with_includes(&with_theirs, None), own);
    }

    #[test]
    fn lines_are_read_as_postgres_reads_them() {
        for (line, expected) in [
            ("wal_level = minimal # why not", Some(("wal_level", "minimal"))),
            ("  Fsync off", Some(("fsync", "off"))),
            ("a='it''s \\'so\\''#", Some(("a", "it's 'so'"))),
            ("my.custom = 'x'", Some(("my.custom", "x"))),
            ("# fsync = off", None),
            ("", None),
        ] {
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(assignment(line), expected, "{line}");
        }
    }

    #[test]
    fn an_unsafe_setting_is_refused_by_file_and_line_and_the_last_one_counts() {
        let files: HashMap<&str, &str> = [
            ("/d/postgresql.conf", "include 'more.conf'\nfsync = on\n"),
            ("/d/more.conf", "\nfsync = off\nwal_level = minimal\n"),
            ("/d/postgresql.auto.conf", "max_wal_senders = '0'\n"),
        ]
        .into();
        let read =
            read(Path::new("/d"), &|path| files.get(path.to_str()?).map(|text| (*text).to_owned()));
        let refused: Vec<_> =
            unsafe_settings(&settings(), &read).iter().map(ToString::to_string).collect();
        assert_eq!(
            refused,
            [
                "/d/more.conf:3: wal_level = minimal: standbys and barman need replica or logical",
                "/d/postgresql.auto.conf:1: max_wal_senders = 0: a standby, a clone and barman \
                 need 6 or more",
            ]
        );
    }

    #[test]
    fn flags_are_read_in_each_of_their_forms() {
        for text in ["-c fsync=off", "-cfsync=off", "--fsync=off", "-F"] {
            assert_eq!(unsafe_settings(&settings(), &flags(text)).len(), 1, "{text}");
        }
        assert_eq!(unsafe_settings(&settings(), &flags("-p 6000 -D /x -h localhost")).len(), 3);
        assert!(unsafe_settings(&settings(), &flags("-c work_mem=64MB -p 5432")).is_empty());
        assert_eq!(flags("--log-checkpoints")[0].name, "log_checkpoints");
    }

    #[test]
    fn repmgr_is_loaded_beside_what_the_operator_loads() {
        let preload = |text| preload_libraries(&flags(text));
        assert_eq!(preload("-c work_mem=1MB"), None);
        assert_eq!(
            preload("-c shared_preload_libraries=pg_stat_statements").as_deref(),
            Some("repmgr,pg_stat_statements")
        );
        assert_eq!(preload("-c shared_preload_libraries=auto_explain,repmgr"), None);
    }
}
