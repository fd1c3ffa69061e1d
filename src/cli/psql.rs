//! `pgherd psql`: psql to whoever takes writes.

use super::ask::Entrance;
use super::{say, status};
use crate::control::{NodeRole, NodeStatus, Snapshot};
use crate::settings::Settings;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;

/// This process becomes psql, as the superuser, with `args` as they are. All nodes with data are named,
/// the primary first, and libpq looks for the one that takes writes: the lead may change meanwhile. What
/// psql connects to goes into its environment, where `args` may say otherwise, and so does the password,
/// which must not stand in an argument list.
pub(super) fn psql(entrance: &Entrance, settings: &Settings, args: &[OsString]) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    let Some((hosts, ports)) = hosts_and_ports(&seen) else {
        say("nobody takes writes just now: pgherd status says who waits, and for what");
        return Err(status::REFUSED);
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "it becomes psql: nothing is left to look after it"
    )]
    let mut psql = std::process::Command::new("psql");
    psql.args(args)
        .env("PGHOST", hosts)
        .env("PGPORT", ports)
        .env("PGTARGETSESSIONATTRS", "read-write")
        .env("PGUSER", &settings.postgres.user)
        .env("PGDATABASE", &settings.postgres.database)
        .env("PGPASSWORD", settings.postgres.password.expose());
    let error = psql.exec();
    say(format!("cannot run psql: {error}"));
    Err(status::FAILED)
}

/// Of the nodes with data, separated by commas. None: nobody leads.
fn hosts_and_ports(seen: &Snapshot) -> Option<(String, String)> {
    let leads = |node: &&NodeStatus| Some(&node.name) == seen.primary.as_ref();
    let primary = seen.nodes.iter().find(leads)?;
    let others = seen
        .nodes
        .iter()
        .filter(|node| node.name != primary.name && node.role == Some(NodeRole::Standby));
    let all: Vec<_> = std::iter::once(primary).chain(others).map(|node| &node.address).collect();
    let hosts: Vec<&str> = all.iter().map(|address| address.host.as_str()).collect();
    let ports: Vec<String> = all.iter().map(|address| address.port.to_string()).collect();
    Some((hosts.join(","), ports.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primary_is_asked_first_and_only_those_with_data() {
        let row = |name: &str, role| NodeStatus {
            role: Some(role),
            ..NodeStatus::unknown(name, format!("{name}:5433").parse().unwrap())
        };
        let text = r#"{"cluster": "pgherd", "state": "healthy", "primary": "node2", "timeline": 3,
            "paused": false, "failover": "manual", "warnings": [], "nodes": []}"#;
        let mut seen: Snapshot = serde_json::from_str(text).unwrap();
        seen.nodes = vec![
            row("backup", NodeRole::Backup),
            row("node1", NodeRole::Standby),
            row("node2", NodeRole::Primary),
        ];
        let expected = ("node2,node1".to_owned(), "5433,5433".to_owned());
        assert_eq!(hosts_and_ports(&seen), Some(expected));
        seen.primary = None;
        assert_eq!(hosts_and_ports(&seen), None);
    }
}
