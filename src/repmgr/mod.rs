//! repmgr: its configuration, and one function for each subcommand that is used.

use crate::cluster::{Address, NodeId};
use crate::layout::Layout;
use crate::settings::{Secret, Settings};
use crate::system::account::Account;
use crate::system::child::{Program, ProgramError};
use crate::system::files::{FileError, ensure_directory, ensure_file, rendered};
use crate::system::lent_name::with_a_name;
use askama::Template;
use postgres_protocol::escape::escape_literal;
use std::path::Path;
use std::time::Duration;

/// It talks to two databases and copies nothing.
const REGISTER_AT_MOST: Duration = Duration::from_secs(60);
/// How long a peer that does not answer holds up whoever asks it. libpq's minimum is 2.
const CONNECT_TIMEOUT_S: u32 = 2;

/// Who this node is to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Kept once given.
    pub id: NodeId,
    /// `REPMGR_NODE_NAME`.
    pub name: String,
    /// Where the others, and consumers, find it.
    pub address: Address,
}

#[derive(Template)]
#[template(path = "conf/repmgr.conf", escape = "none")]
struct RepmgrConf {
    node_id: u32,
    node_name: String,
    conninfo: String,
    data_directory: String,
    pg_bindir: String,
    location: String,
    priority: u32,
}

/// Afterwards repmgr's configuration and password file are those that the settings ask for.
pub fn write_conf(
    settings: &Settings,
    layout: &Layout,
    identity: &Identity,
    account: &Account,
) -> Result<(), FileError> {
    let repmgr = &settings.repmgr;
    let passwords =
        [("repmgr", &repmgr.password), ("repmgr_streaming", &repmgr.streaming_password)];
    ensure_file(&layout.postgres_passfile, passfile(&passwords), 0o600, account)?;
    ensure_directory(&repmgr.config_dir, 0o755, account)?;
    let text = conf(settings, layout, identity, &conninfo(layout, &identity.address));
    ensure_file(&layout.repmgr_conf, &text, 0o644, account)?;
    ensure_link(&layout.repmgr_conf_link, &layout.repmgr_conf);
    Ok(())
}

/// `repmgr cluster show` is to work without `-f`. Not worth failing for: without root, the link
/// stays as the image has it.
fn ensure_link(link: &Path, to: &Path) {
    if std::fs::read_link(link).is_ok_and(|present| present == to) {
        return;
    }
    let _ = std::fs::remove_file(link);
    let _ = std::os::unix::fs::symlink(to, link);
}

/// `repmgr primary register`, over the technical socket: `conninfo` in its configuration is both
/// where it connects and what it records, and nobody listens on the latter yet.
/// [`recorded_address_sql`] puts the record right.
pub async fn register_primary(
    settings: &Settings,
    layout: &Layout,
    identity: &Identity,
    account: &Account,
    socket_dir: &Path,
    port: u16,
) -> Result<(), RegisterError> {
    let here = Address { host: socket_dir.display().to_string(), port };
    let text = conf(settings, layout, identity, &conninfo(layout, &here));
    ensure_file(&layout.technical_repmgr_conf, &text, 0o600, account)?;
    let register = Program::new(layout.program("repmgr"))
        .account(account)
        .arg("-f")
        .arg(&layout.technical_repmgr_conf)
        .args(["primary", "register", "--force"])
        .current_dir("/");
    with_a_name(register, account, &layout.run_dir).output(REGISTER_AT_MOST).await?;
    Ok(())
}

/// `repmgr standby register`: afterwards the primary's records say that this node is a standby that
/// streams from `upstream`, which is recorded already. Our server runs and is reached by the
/// address that is recorded for it, the consumers'.
pub async fn register_standby(
    layout: &Layout,
    upstream: NodeId,
    account: &Account,
) -> Result<(), RegisterError> {
    let register = Program::new(layout.program("repmgr"))
        .account(account)
        .arg("-f")
        .arg(&layout.repmgr_conf)
        .args(["standby", "register", "--force"])
        .arg(format!("--upstream-node-id={upstream}"))
        .current_dir("/");
    with_a_name(register, account, &layout.run_dir).output(REGISTER_AT_MOST).await?;
    Ok(())
}

/// Puts a record of this node among those of the primary, unless its id or its name is there: as a
/// standby of `upstream` that is not active yet.
pub fn claim_sql(
    settings: &Settings,
    layout: &Layout,
    identity: &Identity,
    upstream: NodeId,
) -> String {
    format!(
        "INSERT INTO repmgr.nodes (node_id, upstream_node_id, active, node_name, type, location, \
         priority, conninfo, repluser, slot_name, config_file) \
         SELECT {id}, {upstream}, false, {name}, 'standby', {location}, {priority}, {conninfo}, \
         'repmgr_streaming', {slot}, {file} WHERE NOT EXISTS \
         (SELECT FROM repmgr.nodes WHERE node_name = {name}) ON CONFLICT DO NOTHING",
        id = identity.id,
        name = escape_literal(&identity.name),
        location = escape_literal(&settings.repmgr.location),
        priority = settings.repmgr.priority,
        conninfo = escape_literal(&conninfo(layout, &identity.address)),
        slot = escape_literal(&slot_name(identity.id)),
        file = escape_literal(&layout.repmgr_conf.display().to_string()),
    )
}

/// Afterwards no record is about the node with this number, and no slot is its; a slot that something
/// still reads is an error. On the primary.
pub fn forget_sql(id: NodeId) -> String {
    let slot = escape_literal(&slot_name(id));
    format!(
        "UPDATE repmgr.nodes SET upstream_node_id = \
           (SELECT node_id FROM repmgr.nodes WHERE type = 'primary' AND active LIMIT 1) \
           WHERE upstream_node_id = {id}; \
         DELETE FROM repmgr.nodes WHERE node_id = {id} AND type <> 'primary'; \
         SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {slot}"
    )
}

/// Takes every other node out of repmgr's records.
pub fn forget_others_sql(identity: &Identity) -> String {
    let (id, name) = (identity.id, escape_literal(&identity.name));
    format!(
        "UPDATE repmgr.nodes SET upstream_node_id = NULL; \
         DELETE FROM repmgr.nodes WHERE node_id <> {id} OR node_name <> {name}"
    )
}

/// The replication slot that a node streams from, by the name that repmgr has for it.
pub fn slot_name(id: NodeId) -> String {
    format!("repmgr_slot_{id}")
}

/// Why this node could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// repmgr failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Its configuration could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Whether repmgr's record of this node as a primary is up to date: one row, one boolean.
pub fn is_recorded_sql(settings: &Settings, layout: &Layout, identity: &Identity) -> String {
    is_recorded_as("type = 'primary'", settings, layout, identity)
}

/// Whether repmgr's record of this node as a standby of `upstream` is up to date: one row, one
/// boolean.
pub fn is_recorded_standby_sql(
    settings: &Settings,
    layout: &Layout,
    identity: &Identity,
    upstream: NodeId,
) -> String {
    let slot = escape_literal(&slot_name(identity.id));
    let standby =
        format!("type = 'standby' AND upstream_node_id = {upstream} AND slot_name = {slot}");
    is_recorded_as(&standby, settings, layout, identity)
}

fn is_recorded_as(what: &str, settings: &Settings, layout: &Layout, identity: &Identity) -> String {
    format!(
        "SELECT EXISTS (SELECT FROM repmgr.nodes WHERE node_id = {} AND node_name = {} \
         AND active AND {what} AND conninfo = {} AND config_file = {} \
         AND priority = {} AND location = {})",
        identity.id,
        escape_literal(&identity.name),
        escape_literal(&conninfo(layout, &identity.address)),
        escape_literal(&layout.repmgr_conf.display().to_string()),
        settings.repmgr.priority,
        escape_literal(&settings.repmgr.location),
    )
}

/// Makes the record of this node name the address and the file that are good once consumers
/// are served.
pub fn recorded_address_sql(layout: &Layout, identity: &Identity) -> String {
    format!(
        "UPDATE repmgr.nodes SET conninfo = {}, config_file = {} WHERE node_id = {}",
        escape_literal(&conninfo(layout, &identity.address)),
        escape_literal(&layout.repmgr_conf.display().to_string()),
        identity.id,
    )
}

/// repmgr's daemon, in the foreground.
pub fn daemon(layout: &Layout, account: &Account) -> Program {
    let daemon = Program::new(layout.program("repmgrd"))
        .account(account)
        .arg("-f")
        .arg(&layout.repmgr_conf)
        // A pid file outlives the container's processes, and a pid is soon somebody else's.
        .args(["--daemonize=false", "--no-pid-file"])
        .current_dir("/");
    with_a_name(daemon, account, &layout.run_dir)
}

/// How repmgr reaches a node. No password: this ends in `repmgr.nodes` and on command lines.
fn conninfo(layout: &Layout, at: &Address) -> String {
    format!(
        "host={} port={} user=repmgr dbname=repmgr connect_timeout={CONNECT_TIMEOUT_S} passfile={}",
        at.host,
        at.port,
        layout.postgres_passfile.display()
    )
}

fn conf(settings: &Settings, layout: &Layout, identity: &Identity, conninfo: &str) -> String {
    let conf = RepmgrConf {
        node_id: identity.id.get(),
        node_name: quoted(&identity.name),
        conninfo: quoted(conninfo),
        data_directory: quoted(&layout.pgdata.display().to_string()),
        pg_bindir: quoted(&layout.bin_dir.display().to_string()),
        location: quoted(&settings.repmgr.location),
        priority: settings.repmgr.priority,
    };
    rendered(&conf)
}

/// A value as repmgr.conf takes it (its `configfile-scan.l`: single quotes doubled).
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// libpq's password file: a line for each role, good for any host and database.
pub fn passfile(passwords: &[(&str, &Secret)]) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    passwords
        .iter()
        .map(|(role, password)| format!("*:*:*:{role}:{}\n", escaped(password.expose())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_takes_any_character() {
        let line = passfile(&[("repmgr", &"a:b\\c d'\"é".into())]);
        assert_eq!(line, "*:*:*:repmgr:a\\:b\\\\c d'\"é\n");
    }
}
