//! Server settings: pgherd's own file, the operator's, and which of theirs cannot be lived with.
//!
//! The operator's settings win over pgherd's, wherever they stand. The few that would break a
//! promise are refused by name, file and line before the server is started.

use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::files::rendered;
use askama::Template;
use std::fmt;
use std::io;
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
/// the one that includes the operator's files. Bytes, because nothing says how theirs are encoded.
pub fn with_includes(postgresql_conf: &[u8], operator_conf_dir: Option<&Path>) -> Vec<u8> {
    let is_ours = |line: &&[u8]| {
        let line = line.trim_ascii_end();
        line == INCLUDE.as_bytes() || line.ends_with(OPERATORS.as_bytes())
    };
    let text = postgresql_conf.strip_suffix(b"\n").unwrap_or(postgresql_conf);
    let mut lines = vec![INCLUDE.as_bytes()];
    lines.extend(text.split(|byte| *byte == b'\n').filter(|line| !is_ours(line)));
    let theirs = operator_conf_dir.map(|directory| {
        format!("include_dir = {} {OPERATORS}", quoted(&directory.display().to_string()))
    });
    lines.extend(theirs.as_deref().map(str::as_bytes));
    lines.push(b""); // A line end at the end.
    lines.join(&b'\n')
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
    Rule {
        name: UNREADABLE,
        fits: |_, _| false,
        reason: "it cannot be read, so what it sets cannot be checked; let root and uid postgres \
                 read it, or take the line out",
    },
];

/// Settings of which a standby needs as much as its primary has, with what `pg_controldata` calls
/// them and what they are where the operator says nothing (`CheckRequiredParameterValues` in Postgres' xlogrecovery.c).
const LIMITS: [(&str, &str, u64); 5] = [
    ("max_connections", "max_connections setting", 100),
    ("max_worker_processes", "max_worker_processes setting", 8),
    ("max_wal_senders", "max_wal_senders setting", 16), // templates/conf/pgherd.conf
    ("max_prepared_transactions", "max_prepared_xacts setting", 0),
    ("max_locks_per_transaction", "max_locks_per_xact setting", 64),
];

/// A limit's name, and its value on the primary.
pub type Limits = Vec<(&'static str, u64)>;

/// The primary's limits, as `pg_controldata` prints them.
pub fn limits_in(control_data: &str) -> Limits {
    let values = control_data.lines().filter_map(|line| line.split_once(':'));
    let values: Vec<_> = values.map(|(name, value)| (name, value.trim().parse().ok())).collect();
    let value = |called: &str| values.iter().find(|(name, _)| *name == called)?.1;
    LIMITS.iter().filter_map(|(name, called, _)| Some((*name, value(called)?))).collect()
}

/// Those of `limits` that are higher than what `assignments` ask for.
pub fn too_low(assignments: &[Assignment], limits: &Limits) -> Limits {
    let wanted = |name: &str| {
        let assigned = in_force(assignments, name).and_then(|one| one.value.parse().ok());
        let default = LIMITS.iter().find(|(limit, ..)| *limit == name).map(|(.., value)| *value);
        assigned.or(default).unwrap_or_default()
    };
    limits.iter().copied().filter(|(name, value)| wanted(name) < *value).collect()
}

/// The name under which [`read`] lists a file or directory that it could not read.
const UNREADABLE: &str = "include";

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
/// A file that is not there assigns nothing; Postgres complains of what it needs. One that is
/// there and cannot be read is listed, for [`unsafe_settings`] to refuse.
pub fn read(pgdata: &Path, read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>) -> Vec<Assignment> {
    let mut found = Vec::new();
    for name in ["postgresql.conf", "postgresql.auto.conf"] {
        let path = pgdata.join(name);
        collect(&path, (&path, 1), read_file, 0, &mut found);
    }
    let ours = pgdata.join(FILE);
    found.retain(|one| !matches!(&one.place, Place::File(path, _) if *path == ours));
    found
}

/// As deep as Postgres follows includes (`CONF_FILE_MAX_DEPTH` in its `conffiles.h`).
const INCLUDE_DEPTH_MAX: usize = 10;

fn collect(
    path: &Path,
    included_by: (&Path, usize),
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    depth: usize,
    found: &mut Vec<Assignment>,
) {
    if depth > INCLUDE_DEPTH_MAX {
        return;
    }
    let bytes = match read_file(path) {
        Ok(bytes) => bytes,
        Err(error) => return found.extend(unreadable(path, included_by, &error)),
    };
    // Names and the values that matter here are ASCII, whatever the rest is encoded in.
    let text = String::from_utf8_lossy(&bytes);
    let beside = path.parent().unwrap_or(Path::new("/"));
    for (number, line) in (1..).zip(text.lines()) {
        let Some((name, value)) = assignment(line) else { continue };
        match name.as_str() {
            "include" | "include_if_exists" => {
                collect(&beside.join(value), (path, number), read_file, depth + 1, found);
            }
            "include_dir" => {
                let directory = beside.join(value);
                match conf_files(&directory) {
                    Ok(files) => files.iter().for_each(|file| {
                        collect(file, (path, number), read_file, depth + 1, found);
                    }),
                    Err(error) => found.extend(unreadable(&directory, (path, number), &error)),
                }
            }
            _ => {
                found.push(Assignment { name, value, place: Place::File(path.to_owned(), number) })
            }
        }
    }
}

fn unreadable(path: &Path, by: (&Path, usize), error: &io::Error) -> Option<Assignment> {
    (error.kind() != io::ErrorKind::NotFound).then(|| Assignment {
        name: UNREADABLE.to_owned(),
        value: path.display().to_string(),
        place: Place::File(by.0.to_owned(), by.1),
    })
}

/// `*.conf` in byte order, none that begins with a dot: the manual's rule for `include_dir`.
fn conf_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<_> = std::fs::read_dir(directory)?
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".conf") && !name.starts_with('.')
        })
        .collect();
    files.sort();
    Ok(files)
}

/// One line: `name = value`, `name value`, the value bare or in single quotes, `#` to the end a
/// comment. The manual's "Parameter Interaction via the Configuration File".
pub(super) fn assignment(line: &str) -> Option<(String, String)> {
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
mod tests;
