//! What makes a data directory a standby's, and of whom.

use super::conf;
use super::conninfo;
use super::session::literal;
use crate::cluster::Address;
use crate::layout::Layout;
use crate::system::account::Account;
use crate::system::files::{self, FileError, acting_as, ensure_file, failed, sync_directory};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The server writes what `ALTER SYSTEM` sets into this file, `repmgr standby follow` too, and it
/// is read last.
pub(super) const AUTO_CONF: &str = "postgresql.auto.conf";
const CONNINFO: &str = "primary_conninfo";
const SLOT: &str = "primary_slot_name";

/// What a standby streams from, and as whom.
#[derive(Debug)]
pub struct Stream<'a> {
    /// The upstream.
    pub from: &'a Address,
    /// What its host was found to be, so that nobody has to look it up while it is lost.
    pub at: Option<IpAddr>,
    /// The upstream's slot.
    pub slot: &'a str,
    /// What the standby is called there.
    pub name: &'a str,
}

/// Afterwards a server started on `directory` is a standby with that stream. What else `ALTER SYSTEM`
/// has set stays. No server runs on it.
pub fn write_signal_and_conninfo(
    directory: &Path,
    layout: &Layout,
    stream: &Stream<'_>,
    account: &Account,
) -> Result<(), FileError> {
    let (auto_conf, present) = auto_conf(directory, account)?;
    let conninfo = conninfo::streaming(layout, stream.from, stream.at, stream.name);
    let wanted = with_upstream(&present, &conninfo, stream.slot);
    ensure_file(&auto_conf, wanted, 0o600, account)?;
    ensure_file(&directory.join("standby.signal"), "", 0o600, account)?;
    let recovery = directory.join("recovery.signal");
    acting_as(account, || {
        match fs::remove_file(&recovery) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &recovery)(error));
            }
            _ => {}
        }
        sync_directory(directory)
    })
}

/// Afterwards a server started on `directory` looks its upstream up by name: what its host was found to
/// be may be long ago. No server runs on it.
pub fn forget_address(directory: &Path, account: &Account) -> Result<(), FileError> {
    let (auto_conf, present) = auto_conf(directory, account)?;
    match by_name(&present) {
        Some(wanted) => ensure_file(&auto_conf, wanted, 0o600, account).map(drop),
        None => Ok(()),
    }
}

fn by_name(present: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(present);
    let conninfo = conninfo::by_name(&assigned(&text, CONNINFO)?)?;
    let slot = assigned(&text, SLOT).unwrap_or_default();
    Some(with_upstream(present, &conninfo, &slot))
}

/// Where `ALTER SYSTEM`'s file is, and what is in it.
fn auto_conf(directory: &Path, account: &Account) -> Result<(PathBuf, Vec<u8>), FileError> {
    let path = directory.join(AUTO_CONF);
    match acting_as(account, || fs::read(&path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((path, Vec::new())),
        read => read.map_err(failed("read", &path)).map(|present| (path, present)),
    }
}

/// `present` with one assignment of each, at its end. Bytes, because nothing says how the others'
/// values are encoded.
fn with_upstream(present: &[u8], conninfo: &str, slot: &str) -> Vec<u8> {
    let is_ours = |line: &&[u8]| {
        let name = conf::assignment(&String::from_utf8_lossy(line)).map(|(name, _)| name);
        name.is_some_and(|name| [CONNINFO, SLOT].contains(&name.as_str()))
    };
    let present = present.strip_suffix(b"\n").unwrap_or(present);
    let lines = present.split(|byte| *byte == b'\n').filter(|line| !is_ours(line));
    let mut lines: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
    lines.retain(|line| !line.is_empty());
    for (name, value) in [(CONNINFO, conninfo), (SLOT, slot)] {
        lines.push(format!("{name} = {}", conf::quoted(value)).into_bytes());
    }
    lines.push(Vec::new()); // A line end at the end.
    lines.join(&b'\n')
}

/// Afterwards the cluster in `directory` has no replication slots. Those that come with a copied or
/// rewound directory are the source's, and would keep WAL for nobody. No server runs on it.
pub fn drop_slots_on_disk(directory: &Path, account: &Account) -> Result<(), FileError> {
    let slots = directory.join("pg_replslot");
    acting_as(account, || match fs::symlink_metadata(&slots).is_ok_and(|meta| meta.is_dir()) {
        true => {
            files::empty_directory(&slots, &[])?;
            sync_directory(&slots)
        }
        false => Ok(()),
    })
}

/// Gives a running standby that stream, without a restart. Statements to be run one by one:
/// `ALTER SYSTEM` refuses a transaction, and several in one message are one.
pub fn primary_conninfo_sql(layout: &Layout, stream: &Stream<'_>) -> [String; 3] {
    let conninfo = conninfo::streaming(layout, stream.from, stream.at, stream.name);
    [
        format!("ALTER SYSTEM SET {CONNINFO} = {}", literal(&conninfo)),
        format!("ALTER SYSTEM SET {SLOT} = {}", literal(stream.slot)),
        "SELECT pg_reload_conf()".to_owned(),
    ]
}

/// Whom the cluster in `directory` streams from, or would as a standby, and from which slot, as far
/// as `ALTER SYSTEM`'s file says.
pub fn upstream_in(directory: &Path) -> Option<(Address, Option<String>)> {
    upstream(&String::from_utf8_lossy(&fs::read(directory.join(AUTO_CONF)).ok()?))
}

fn upstream(auto_conf: &str) -> Option<(Address, Option<String>)> {
    let slot = assigned(auto_conf, SLOT).filter(|slot| !slot.is_empty());
    Some((conninfo::address(&assigned(auto_conf, CONNINFO)?)?, slot))
}

/// The last one wins.
fn assigned(auto_conf: &str, name: &str) -> Option<String> {
    let mut assignments = auto_conf.lines().filter_map(conf::assignment);
    assignments.rfind(|(assigned, _)| assigned == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_settings_stay_and_ours_are_there_once() {
        let present = b"# Do not edit this file manually!\nwork_mem = '8MB'\n\
            primary_conninfo = 'host=n1'\nPrimary_Slot_Name 'old'\nx.y = '\xfc'\n";
        let once = with_upstream(present, r"application_name='it\'s \\ n'", "slot_2");
        let expected = b"# Do not edit this file manually!\nwork_mem = '8MB'\nx.y = '\xfc'\n\
            primary_conninfo = 'application_name=''it\\\\''s \\\\\\\\ n'''\n\
            primary_slot_name = 'slot_2'\n";
        assert_eq!(once.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(with_upstream(&once, r"application_name='it\'s \\ n'", "slot_2"), once);
        assert!(with_upstream(b"", "host=a", "s").starts_with(b"primary_conninfo = 'host=a'\n"));
    }

    #[test]
    fn a_start_looks_the_upstream_up() {
        let pinned = with_upstream(b"work_mem = '8MB'", "host=n1 hostaddr=10.0.0.7", "slot_2");
        let named = with_upstream(b"work_mem = '8MB'", "host=n1", "slot_2");
        assert_eq!(by_name(&pinned), Some(named.clone()));
        assert_eq!(by_name(&named), None);
        assert_eq!(by_name(b"work_mem = '8MB'"), None);
    }

    #[test]
    fn the_upstream_is_the_last_one_named() {
        let text = with_upstream(b"primary_conninfo = 'host=n1'", "host='n2' port=6000", "s_1");
        let text = String::from_utf8(text).unwrap();
        assert_eq!(upstream(&text), Some(("n2:6000".parse().unwrap(), Some("s_1".to_owned()))));
        let later = format!("{text}primary_conninfo = 'host=n3'\nprimary_slot_name = ''\n");
        assert_eq!(upstream(&later), Some(("n3:5432".parse().unwrap(), None)));
        assert_eq!(upstream("primary_slot_name = 's'"), None);
    }
}
