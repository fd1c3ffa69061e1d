//! "Restore DB from backup", where barman's directory is on the node's own volume: an empty volume for the
//! data, the old one for the backups, and one variable.

use crate::harness::{Container, Network, PASSWORDS, Recipe, Volume, await_within, trials};
use std::time::Duration;

const CONF: &str = "/etc/barman.d/pgherd.conf";
/// What the node logs when it has come to where a person wants to look.
const LOOK: &str = "a person's word";

/// What was written, and the moments between.
struct Told {
    time: String,
    lsn: String,
    before_backup: String,
    backup: String,
}

fn recipe(network: &Network, data: &Volume, backups: &Volume) -> Recipe {
    Recipe::node("node1")
        .network(network, "node1")
        .volume(data, "/var/lib/postgresql")
        .volume(backups, "/home/barman/data")
        .envs(PASSWORDS)
        .env("REPMGR_NODE_NAME", "node1")
        .command(["postgres", "-c", "autovacuum=off"])
}

fn ask(node: &Container, query: &str) -> String {
    node.sql(query).ok()
}

fn await_serves(node: &Container) {
    node.await_that("it serves", || {
        if let Some(status) = node.exit_status() {
            panic!("it ended with {status}");
        }
        node.http("/readiness").is_some_and(|(code, _)| code == 200).then_some(())
    });
}

/// What cron does each minute, begun now.
fn await_backup(node: &Container) {
    node.await_that("there is a backup", || {
        node.exec_as("barman", ["pgherd", "barman", "cron", CONF]);
        let listed = node.exec_as("barman", ["barman", "list-backup", "pgherd"]).stdout;
        let is_done = |line: &str| line.contains("Size:") && !line.contains("WAITING_FOR_WALS");
        listed.lines().any(is_done).then_some(())
    });
}

fn write(node: &Container, rows: std::ops::RangeInclusive<u32>) {
    for n in rows {
        ask(node, &format!("INSERT INTO told VALUES ({n})"));
    }
}

/// Ten rows before each of the moments, and ten after the last. Then the plug is pulled.
fn tell(node: &Container) -> Told {
    await_serves(node);
    let before_backup = ask(node, "SELECT now()");
    ask(node, "CREATE TABLE told (n int, at timestamptz DEFAULT clock_timestamp())");
    ask(node, "ALTER SYSTEM SET archive_command = 'cp %p /old/%f'"); // This node's alone.
    ask(node, "ALTER SYSTEM SET work_mem = '7MB'");
    await_backup(node);
    write(node, 1..=10);
    let time = ask(node, "SELECT clock_timestamp()");
    write(node, 11..=20);
    let lsn = ask(node, "SELECT pg_current_wal_insert_lsn()");
    write(node, 21..=30);
    ask(node, "SELECT pg_create_restore_point('thirty')");
    write(node, 31..=40);
    // They are on the way to barman, a tenth of a second later at most.
    let sent = "SELECT bool_and(sent_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication";
    node.await_that("barman has them", || (ask(node, sent) == "t").then_some(()));
    let listed = node.exec(["pgherd", "backups"]).ok();
    let backup = listed.lines().nth(1).and_then(|line| line.split(' ').next()).unwrap_or_default();
    Told { time, lsn, before_backup, backup: backup.to_owned() }
}

/// Each file of an archive, with its size and its clock; barman's own locks are no part of it.
fn fingerprint(backups: &Volume, archive: &str) -> String {
    backups.shell(&format!("cd /v/{archive} && find . -type f -printf '%p %s %T@\\n' | sort"))
}

fn rows(node: &Container) -> String {
    ask(node, "SELECT count(*) || ' to ' || max(n) FROM told")
}

#[test]
#[ignore = "needs docker: make test"]
fn a_node_comes_back_as_it_was_at_any_moment_and_leaves_the_archive_alone() {
    let (network, backups, lost) = (Network::new(), Volume::new(), Volume::new());
    let old = recipe(&network, &lost, &backups).start();
    let told = tell(&old);
    old.signal("KILL").await_end();
    drop(old);
    let before = fingerprint(&backups, "pgherd");

    let moments = [
        ("", String::new(), "40 to 40"),
        ("RESTORE_TARGET_TIME", told.time.clone(), "10 to 10"),
        ("RESTORE_TARGET_LSN", told.lsn.clone(), "20 to 20"),
        ("RESTORE_TARGET_NAME", "thirty".to_owned(), "30 to 30"),
    ];
    for (variable, value, expected) in moments {
        if !trials() && variable == "RESTORE_TARGET_LSN" {
            continue;
        }
        let data = Volume::new();
        // A name may be in the archive that the first one has begun, too.
        let from = if variable.ends_with("_NAME") { told.backup.as_str() } else { "latest" };
        let recipe = recipe(&network, &data, &backups).env("RESTORE_FROM", from);
        let recipe = if variable.is_empty() { recipe } else { recipe.env(variable, &value) };
        let node = recipe.start();
        await_serves(&node);
        assert_eq!(rows(&node), expected, "{variable} {value}");
        assert_eq!(ask(&node, "SHOW work_mem"), "7MB", "the operator's settings are the cluster's");
        let another_nodes = "SELECT count(*) FROM pg_file_settings WHERE name IN \
            ('archive_command', 'restore_command', 'primary_conninfo', 'recovery_target_time')";
        assert_eq!(ask(&node, another_nodes), "0");
        let timeline: u32 =
            ask(&node, "SELECT timeline_id FROM pg_control_checkpoint()").parse().unwrap();
        assert!(timeline > 1, "it goes on the old way");
        let shown = node.exec_as("postgres", ["repmgr", "cluster", "show", "--csv"]).ok();
        assert_eq!(shown, "1,0,0");
        ask(&node, "INSERT INTO told VALUES (99)");
        if variable.is_empty() {
            await_backup(&node);
            await_within(Duration::from_secs(120), "barman check is all OK", || {
                let check = node.exec_as("barman", ["barman", "check", "pgherd"]);
                (check.status == 0).then_some(())
            });
        }
        assert_eq!(fingerprint(&backups, "pgherd"), before, "the old archive was written to");
        assert_eq!(node.stop(), 0);
        // Restarted it is only started, though the variable is still there.
        node.start_again();
        await_serves(&node);
        assert!(rows(&node).ends_with(" to 99"), "{}", rows(&node));
        node.signal("KILL").await_end();
    }
    refused(&network, &backups, &told);
    assert_eq!(fingerprint(&backups, "pgherd"), before);
}

/// Before anything is touched.
fn refused(network: &Network, backups: &Volume, told: &Told) {
    let small = Volume::with(&["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=200m"]);
    let usual = Volume::new();
    let full = [("RESTORE_FROM", "latest")];
    let unknown = [("RESTORE_FROM", "20200101T000000")];
    let early = [("RESTORE_FROM", "latest"), ("RESTORE_TARGET_TIME", told.before_backup.as_str())];
    for (variables, data, says) in [
        (&full[..], &small, "MiB free, and to bring backup"),
        (&unknown[..], &usual, "there is no backup 20200101T000000; there are 2"),
        (&early[..], &usual, "is before the end of every backup that leads there"),
        (&[][..], &usual, "RESTORE_FROM=latest"),
    ] {
        let answer = recipe(network, data, backups).envs(variables.iter().copied()).run();
        assert_eq!(answer.status, 1, "{variables:?}: {answer:?}");
        assert!(answer.text().contains(says), "{variables:?}: {}", answer.text());
        let there = data.shell("cd /v && find . -name PG_VERSION -o -name pgherd.unfinished");
        assert_eq!(there, "", "{variables:?}");
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn a_person_looks_before_what_was_restored_takes_writes_and_a_killed_restore_begins_anew() {
    let (network, backups, lost) = (Network::new(), Volume::new(), Volume::new());
    let old = recipe(&network, &lost, &backups).start();
    let told = tell(&old);
    old.signal("KILL").await_end();
    drop(old);

    let data = Volume::new();
    let node = recipe(&network, &data, &backups)
        .env("RESTORE_FROM", "latest")
        .env("RESTORE_TARGET_TIME", &told.time)
        .env("RESTORE_TARGET_ACTION", "pause")
        .start();
    node.await_log("brings back backup");
    node.signal("KILL").await_end();
    node.start_again();
    node.await_log(LOOK);
    assert!(node.http("/readiness").is_some_and(|(code, _)| code == 503));
    let look = |query: &str| {
        let psql = ["psql", "-h", "/run/pgherd/technical", "-p", "5434", "-XqAtc", query];
        node.exec_as("postgres", psql)
    };
    assert_eq!(look("SELECT count(*) FROM told").ok(), "10");
    assert_ne!(look("INSERT INTO told VALUES (99)").status, 0, "it takes writes already");
    let status = node.exec(["pgherd", "status"]).text();
    assert!(status.contains("restoring") && status.contains(LOOK), "{status}");
    look("SELECT pg_wal_replay_resume()").ok();
    await_serves(&node);
    assert_eq!(rows(&node), "10 to 10");
    ask(&node, "INSERT INTO told VALUES (99)");
    let log = node.log();
    assert!(!log.contains("hush"), "a password in the log: {log}");
}
