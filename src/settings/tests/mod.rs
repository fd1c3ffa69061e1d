//! What `read` promises about whole environments.

mod quorum;
mod refusals;
mod secrets;

use super::input::variables;
use super::*;
use crate::cluster::NodeId;
use std::cell::Cell;

fn read_pairs(pairs: &[(&str, &str)]) -> Result<Settings, Problems> {
    let files = |path: &Path| panic!("nothing asked for {}", path.display());
    read(owned(pairs), files)
}

fn read_with_file(pairs: &[(&str, &str)], content: &str) -> Result<Settings, Problems> {
    read(owned(pairs), |_| Ok(content.to_owned()))
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The one line of the refusal.
fn refusal(pairs: &[(&str, &str)]) -> String {
    let problems = read_pairs(pairs).unwrap_err();
    assert_eq!(problems.problems.len(), 1, "{problems}");
    problems.to_string()
}

#[test]
fn defaults_are_those_of_the_scenario_document() {
    let settings = read_pairs(&[]).unwrap();

    assert_eq!(settings.postgres.port, 5432);
    assert_eq!(settings.postgres.technical_port, 5434);
    assert_eq!(settings.postgres.data_dir, Path::new("/var/lib/postgresql"));
    assert_eq!(settings.postgres.password.expose(), "mysecretpassword");

    assert_eq!(settings.repmgr.first_role, Role::Primary);
    assert_eq!(settings.repmgr.config_dir.to_str(), Some("/etc/repmgr.d/"));
    assert_eq!(settings.repmgr.node_name, "node1");
    assert_eq!(settings.repmgr.slaves, []);
    assert_eq!(settings.repmgr.password.expose(), "iamrepmgr");
    assert_eq!(settings.repmgr.streaming_password.expose(), "iamstreamingrepmgr");

    assert_eq!(settings.barman.password.expose(), "iambarman");
    assert_eq!(settings.barman.streaming_password.expose(), "iamstreamingbarman");
    assert_eq!(settings.barman.backup_dir, Path::new("/home/barman/data"));
    assert_eq!(settings.barman.retention, Retention::RecoveryWindow(5, WindowUnit::Days));
    assert_eq!(settings.barman.config_dir.to_str(), Some("/etc/barman.d/"));
}

#[test]
fn what_the_document_does_not_name_has_the_contract_s_defaults() {
    let settings = read_pairs(&[]).unwrap();
    assert_eq!(settings.repmgr.priority, 100);
    assert_eq!(settings.repmgr.location, "default");
    assert_eq!(settings.barman.schedule.as_str(), "0 3 * * *");
    assert_eq!(settings.herd.cluster, "pgherd");
    assert_eq!(settings.herd.http_port, 8008);
    assert_eq!(settings.herd.stop_timeout, Duration::from_secs(60));
    assert_eq!(settings.herd.kind, NodeKind::Data);
    assert_eq!(settings.herd.backups, Backups::Here);
    assert!(!settings.herd.keep_old_data);
    assert_eq!(settings.herd.voters, []);
    assert_eq!(settings.repmgr.master_host, None);
    assert_eq!(settings.repmgr.clone_from, CloneFrom::Primary);
    assert_eq!(settings.herd.log_filter, "info");
    assert_eq!(settings.herd.log_format, LogFormat::Text);
    assert_eq!(settings.postgres.user, "postgres");
    assert_eq!(settings.postgres.database, "postgres");
    assert!(settings.warnings.is_empty());
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    for value in ["", " \t"] {
        let settings = read_pairs(&[("POSTGRES_PORT", value)]).unwrap();
        assert_eq!(settings.postgres.port, 5432);
        assert_eq!(settings.listing().0[0].origin, Origin::Default);
    }
    let settings = read_pairs(&[("POSTGRES_PASSWORD", ""), ("POSTGRES_PORT_FILE", "")]).unwrap();
    assert_eq!(settings.postgres.password.expose(), "mysecretpassword");
}

#[test]
fn values_are_taken_as_people_write_them() {
    let settings = read_pairs(&[
        ("POSTGRES_PORT", " 6000 "),
        ("REPMGR_MASTER", "No"),
        ("REPMGR_SLAVES", "node2, node3:6000\n[::1]:7000,,10.0.0.4,"),
        ("REPMGR_NODE_ADDRESS", "fe80::1"),
        ("POSTGRES_USER", r#"o'neil "x""#),
        ("POSTGRES_INITDB_ARGS", "--locale=C.UTF-8 --wal-segsize '16'"),
        ("PGHERD_STOP_TIMEOUT", "2min"),
        ("PGHERD_LOG_FORMAT", "JSON"),
        ("POSTGRES_HOST_AUTH_METHOD", "ldap ldapserver=ldap.example.org"),
    ])
    .unwrap();
    assert_eq!(settings.postgres.port, 6000);
    assert_eq!(settings.repmgr.first_role, Role::Standby);
    let slaves: Vec<_> = settings.repmgr.slaves.iter().map(ToString::to_string).collect();
    assert_eq!(slaves, ["node2:5432", "node3:6000", "[::1]:7000", "10.0.0.4:5432"]);
    assert_eq!(settings.repmgr.node_address.as_deref(), Some("fe80::1"));
    assert_eq!(settings.postgres.database, settings.postgres.user);
    assert_eq!(settings.postgres.initdb_args, ["--locale=C.UTF-8", "--wal-segsize", "16"]);
    assert_eq!(settings.herd.stop_timeout, Duration::from_secs(120));
    assert_eq!(settings.herd.log_format, LogFormat::Json);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
}

#[test]
fn every_variable_may_come_from_a_file() {
    for variable in variables() {
        let file_variable = format!("{variable}_FILE");
        let asked = Cell::new(false);
        let vars = owned(&[(&file_variable, "/run/secrets/value")]);
        // Some take the text and some do not: here it counts that they ask for it.
        let settings = read(vars, |path| {
            asked.set(path == Path::new("/run/secrets/value"));
            Ok("x\n".to_owned())
        });
        assert!(asked.get(), "{variable}");
        // A target alone is warned of.
        if let Ok(settings) = settings
            && !variable.starts_with("RESTORE_TARGET_")
        {
            assert!(settings.warnings.is_empty(), "{variable} in {:?}", settings.warnings);
        }
    }
}

#[test]
fn a_file_s_last_line_ends_are_no_part_of_the_value() {
    let settings = read_with_file(&[("POSTGRES_PASSWORD_FILE", "/f")], " se cret \r\n\n").unwrap();
    assert_eq!(settings.postgres.password.expose(), " se cret ");
    let settings = read_with_file(&[("POSTGRES_PORT_FILE", "/f")], " 6000\n").unwrap();
    assert_eq!(settings.postgres.port, 6000);
    assert_eq!(settings.listing().0[0].origin, Origin::File("/f".into()));
}

#[test]
fn durations_have_units_and_limits() {
    for (text, seconds) in [("5s", 5), ("5000ms", 5), ("1 min", 60), ("2m", 120), ("1h", 3600)] {
        let settings = read_pairs(&[("PGHERD_STOP_TIMEOUT", text)]).unwrap();
        assert_eq!(settings.herd.stop_timeout, Duration::from_secs(seconds), "{text}");
    }
    for text in ["4s", "4999ms", "2h", "60", "s", "-5s", "1.5min", "99999999999999999999h"] {
        refusal(&[("PGHERD_STOP_TIMEOUT", text)]);
    }
}

#[test]
fn unwise_choices_and_misspelt_names_are_warned_of() {
    for method in ["trust", "md5", "password"] {
        let settings = read_pairs(&[("POSTGRES_HOST_AUTH_METHOD", method)]).unwrap();
        assert_eq!(settings.warnings.len(), 1, "{method}");
    }
    let eager = read_pairs(&[("PGHERD_FAILOVER", "eager")]).unwrap();
    assert_eq!(eager.warnings.len(), 1);
    let misspelt = [("REPMGR_NODENAME", "node2"), ("POSTGRES_PORT", "x")];
    let warning = "REPMGR_NODENAME is not a setting; did you mean REPMGR_NODE_NAME?";
    assert_eq!(read_pairs(&misspelt[..1]).unwrap().warnings, [warning]);
    assert_eq!(read_pairs(&misspelt).unwrap_err().warnings, [warning]);
}

#[test]
fn the_control_token_follows_from_the_repmgr_password_unless_it_is_given() {
    let herd = |pairs: &[(&str, &str)]| read_pairs(pairs).unwrap().herd;
    let published = herd(&[]);
    // Other versions and other nodes must come to the same.
    let token = "4c261486ae4940840286fb02d8e5380fd40e9fe8cae6f44454d699db02c6cec9";
    assert_eq!(published.control_token.expose(), token);
    assert!(published.control_token_is_published);
    let own_password = herd(&[("REPMGR_PASSWORD", "secret")]);
    assert!(
        own_password.control_token.expose() != token && !own_password.control_token_is_published
    );
    let barman_s = herd(&[("REPMGR_PASSWORD", "iambarman")]);
    assert!(barman_s.control_token_is_published, "one of the document's is as bad as another");
    let given = herd(&[("PGHERD_CONTROL_TOKEN", "x")]);
    assert!(given.control_token.expose() == "x" && !given.control_token_is_published);
}

#[test]
fn every_member_is_known_once_and_the_master_first() {
    let settings = read_pairs(&[
        ("REPMGR_SLAVES", "node2"),
        ("PGHERD_VOTERS", "node1, node2, backup:6000"),
        ("REPMGR_MASTER_HOST", "node1"),
    ]);
    let members: Vec<_> = settings.unwrap().members().iter().map(ToString::to_string).collect();
    assert_eq!(members, ["node1:5432", "node2:5432", "backup:6000"]);
}

#[test]
fn a_node_s_id_is_the_number_of_its_name() {
    for (name, id) in [
        ("node1", Some(1)),
        ("node-07", Some(7)),
        ("dc2-pg3", Some(3)),
        ("pg4.example.org", Some(4)),
        ("dc2-pg3.example.org", None),
        ("pg-0", None),
        ("pg", None),
        ("pg99999999999", None),
    ] {
        let settings = read_pairs(&[("REPMGR_NODE_NAME", name)]).unwrap();
        assert_eq!(settings.repmgr.node_id_from_name().map(NodeId::get), id, "{name}");
    }
}

#[test]
fn the_listing_has_every_variable_and_where_it_came_from() {
    let settings = read_pairs(&[("REPMGR_MASTER", "yes"), ("REPMGR_SLAVES", "a b")]).unwrap();
    let listing = settings.listing();
    assert!(listing.0.iter().map(|listed| listed.variable).eq(variables()));

    let text = listing.to_string();
    let lines: Vec<&str> = text.lines().collect();
    let words = |line: usize| lines[line].split("  ").map(str::trim).filter(|w| !w.is_empty());
    assert!(words(0).eq(["VARIABLE", "VALUE", "FROM"]));
    assert!(words(1).eq(["POSTGRES_PORT", "5432", "default"]));
    assert!(words(4).eq(["POSTGRES_PASSWORD", "***", "default"]));
    assert!(words(5).eq(["REPMGR_MASTER", "true", "environment"]));
    assert!(words(8).eq(["REPMGR_SLAVES", "a:5432, b:5432", "environment"]));
    assert!(words(14).eq(["BARMAN_RETENTION", "5 days", "default"]));
    assert!(words(16).eq(["REPMGR_MASTER_HOST", "-", "default"]));

    let json = serde_json::to_value(listing).unwrap();
    assert_eq!(
        json[7],
        serde_json::json!({
            "variable": "REPMGR_SLAVES", "value": "a:5432, b:5432", "origin": "environment"
        })
    );
}
