//! A master that is there already: stopped, killed in part, and started again with other settings.

use crate::harness::{
    Cluster, Container, Process, Recipe, Server, Volume, client, docker, is_postmaster, trials,
};
use std::time::{Duration, Instant};

fn control_state(volume: &Volume) -> String {
    volume.shell("pg_controldata -D /v/*/docker | sed -n 's/^Database cluster state: *//p'")
}

/// A client that stays, and what it said in the end.
fn open_session(node: &Container, query: &str) {
    let psql = ["exec", "-d", "-u", "postgres", &node.name, "psql", "-XAtq", "-c", query];
    docker(psql).ok();
    let active = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{}'",
        query.replace('\'', "''")
    );
    node.await_that("the session is open", || (node.sql(&active).ok() == "1").then_some(()));
}

#[test]
#[ignore = "needs docker: make test"]
fn docker_stop_is_an_orderly_shutdown_even_with_an_open_session() {
    let volume = Volume::new();
    let node = Recipe::node("node1").volume(&volume, "/var/lib/postgresql").start();
    node.await_ready();
    let identifier = "SELECT system_identifier FROM pg_control_system()";
    let system = node.sql(identifier).ok();
    node.sql("CREATE TABLE kept AS SELECT 1 AS n").ok();
    open_session(&node, "SELECT pg_sleep(3600)");

    let began = Instant::now();
    assert_eq!(node.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(control_state(&volume), "shut down");

    let docker_restart = ["restart", "-t", "60", &node.name];
    node.start_again().await_ready();
    docker(docker_restart).ok();
    node.await_ready();
    assert_eq!(node.sql(identifier).ok(), system, "no new cluster");
    assert_eq!(node.sql("SELECT n FROM kept").ok(), "1");
    let log = node.log();
    assert_eq!(log.matches("Master is started for the first time").count(), 1);
    assert_eq!(log.matches("Master is restarted but still is the master").count(), 2);
    for complaint in ["not properly shut down", "automatic recovery", "PANIC"] {
        assert!(!log.contains(complaint), "{log}");
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn a_second_sigterm_hurries_and_sigquit_is_immediate() {
    let volume = Volume::new();
    let node = Recipe::node("node1").volume(&volume, "/var/lib/postgresql").start();
    node.await_ready();
    // A process that cannot answer holds up a fast shutdown.
    open_session(&node, "SELECT pg_sleep(3600)");
    let stuck = node.sql("SELECT pid FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'").ok();
    node.kill("STOP", &stuck).ok();
    node.signal("TERM").await_log("received fast shutdown request");
    node.signal("TERM").await_log("received immediate shutdown request");
    assert_ne!(node.await_end(), 0, "its data needs recovery");
    assert!(node.log().contains("postgres ended without a shutdown checkpoint"));
    assert_eq!(control_state(&volume), "in production");

    node.start_again().await_ready();
    let began = Instant::now();
    node.signal("QUIT");
    assert_ne!(node.await_end(), 0);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(control_state(&volume), "in production");
    node.start_again().await_ready();
}

#[test]
#[ignore = "needs docker: make test"]
fn a_stop_that_takes_too_long_ends_at_the_stop_timeout() {
    if !trials() {
        return;
    }
    let node = Recipe::node("node1").env("PGHERD_STOP_TIMEOUT", "5s").start();
    node.await_ready();
    open_session(&node, "SELECT pg_sleep(3600)");
    let stuck = node.sql("SELECT pid FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'").ok();
    node.kill("STOP", &stuck).ok();
    let began = Instant::now();
    assert_ne!(node.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(node.log().contains("(PGHERD_STOP_TIMEOUT)"));
}

#[test]
#[ignore = "needs docker: make test"]
fn a_killed_postmaster_is_started_again_in_its_place() {
    let node = Recipe::node("node1").start();
    node.await_ready();
    node.sql("CREATE TABLE kept AS SELECT 1 AS n").ok();
    // Computes and looks at nothing: it outlives its postmaster, and keeps its memory.
    open_session(&node, "SELECT count(*) FROM generate_series(1, 1e12)");
    let before = node.sql("SELECT pg_postmaster_start_time()").ok();
    let postmaster = node.pid_of("postmaster", is_postmaster);
    node.kill("KILL", &postmaster).ok();
    node.await_that("it is started again", || {
        let now = node.sql("SELECT pg_postmaster_start_time()");
        (now.status == 0 && now.stdout.trim_end() != before).then_some(())
    });
    node.await_ready();
    assert_eq!(node.sql("SELECT n FROM kept").ok(), "1");
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE query ^@ 'SELECT count(*) FROM generate_series'";
    assert_eq!(node.sql(busy).ok(), "0");
    let stray = |process: &Process| process.command.contains("SELECT");
    assert!(!node.processes().iter().any(|one| one.name == "postgres" && stray(one)));
    let status = node.exec(["pgherd", "status"]).ok();
    assert!(status.starts_with("pgherd is healthy"), "{status}");
    assert_eq!(node.stop(), 0);
}

#[test]
#[ignore = "needs docker: make test"]
fn helpers_that_are_killed_come_back_and_postgres_never_notices() {
    let node = Recipe::node("node1").start();
    node.await_ready();
    let before = node.sql("SELECT pg_postmaster_start_time()").ok();
    // Each kill doubles the wait for the next start: ten take two minutes.
    let kills = if trials() { 10 } else { 4 };
    let mut last = [String::new(), String::new()];
    for kill in 1..=kills {
        let names = ["cron", "repmgrd"];
        for (name, last) in names.into_iter().zip(&mut last) {
            let pid =
                node.await_that(&format!("{name} runs again after {} kills", kill - 1), || {
                    let all = node.processes();
                    let found = all.iter().find(|one| one.name == name && one.pid != *last)?;
                    Some(found.pid.clone())
                });
            node.kill("KILL", &pid).ok();
            *last = pid;
        }
    }
    node.await_that("both run again", || {
        let json = node.exec(["pgherd", "status", "--json"]).ok();
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        (json["nodes"][0]["services"] == serde_json::json!(["crond", "repmgrd"])
            || json["nodes"][0]["services"] == serde_json::json!(["repmgrd", "crond"]))
        .then_some(())
    });
    assert_eq!(node.sql("SELECT pg_postmaster_start_time()").ok(), before);
    assert_eq!(node.stop(), 0);
}

#[test]
#[ignore = "needs docker: make test"]
fn if_the_node_half_dies_postgres_is_shut_down_in_order() {
    let volume = Volume::new();
    let node = Recipe::node("node1").volume(&volume, "/var/lib/postgresql").start();
    node.await_ready();
    open_session(&node, "SELECT pg_sleep(3600)");
    let half = node.pid_of("node half", |process| process.command.contains("pgherd node"));
    node.kill("KILL", &half).ok();
    assert_ne!(node.await_end(), 0, "nobody asked for this end");
    assert_eq!(control_state(&volume), "shut down");
    node.start_again().await_ready();
}

#[test]
#[ignore = "needs docker: make test"]
fn a_master_that_is_stopped_killed_or_cut_off_keeps_every_acknowledged_write() {
    let mut cluster = Cluster::up(1, 0);
    let prober = cluster.probe();
    let rows = |cluster: &Cluster| {
        let rows = cluster.node(1).sql("SELECT count(*) FROM written").stdout;
        rows.trim().parse::<u32>().unwrap_or(0)
    };
    let await_more = |cluster: &Cluster| {
        let before = rows(cluster);
        let more = || (rows(cluster) > before + 5).then_some(());
        cluster.node(1).await_alive("it takes writes", more);
    };
    await_more(&cluster);
    cluster.stop(1);
    cluster.start(1).await_ready();
    await_more(&cluster);
    cluster.kill(1);
    cluster.start(1).await_ready();
    await_more(&cluster);
    cluster.node(1).pause().unpause();
    cluster.cut(1);
    await_more(&cluster); // Over the other cable: nobody else could lead.
    cluster.heal(1);
    await_more(&cluster);
    let record = prober.end(&cluster, 1, &[]);
    assert_eq!(record.writers(), ["node1"].into());
    assert!(record.taken_by("node1") > 25);
    cluster.await_order(1, &[]);
}

/// One value a role, in the order postgres, repmgr, repmgr_streaming, barman, barman_streaming.
const PASSWORDS: [&str; 5] = [
    "POSTGRES_PASSWORD",
    "REPMGR_PASSWORD",
    "REPMGR_STREAMING_PASSWORD",
    "BARMAN_PASSWORD",
    "BARMAN_STREAMING_PASSWORD",
];

#[test]
#[ignore = "needs docker: make test"]
fn what_changed_in_the_environment_is_in_force_after_a_restart() {
    let volume = Volume::new();
    let with = |prefix: &str| {
        let values = PASSWORDS.map(|variable| (variable, format!("{prefix} {variable}")));
        let recipe = Recipe::node("node1").volume(&volume, "/var/lib/postgresql");
        values.iter().fold(recipe, |recipe, (variable, value)| recipe.env(variable, value))
    };
    let first = with("old").start();
    first.await_ready().sql("CREATE TABLE kept AS SELECT 1 AS n").ok();
    let identifier = "SELECT system_identifier FROM pg_control_system()";
    let system = first.sql(identifier).ok();
    let kept = "SELECT rolpassword FROM pg_authid WHERE rolname = 'repmgr'";
    let verifier = first.sql(kept).ok();
    assert_eq!(first.stop(), 0);
    first.start_again().await_ready();
    assert_eq!(first.sql(kept).ok(), verifier, "poolers copy verifiers: no new salt for nothing");
    assert_eq!(first.stop(), 0);

    let elsewhere = client();
    let second = with("new")
        .env("POSTGRES_PORT", "6543")
        .env("REPMGR_NODE_ADDRESS", "other-address")
        .env("REPMGR_PRIORITY", "7")
        .option("--add-host")
        .option("other-address:127.0.0.1")
        .start();
    second.await_ready();
    assert!(!second.log().contains("Master is started for the first time"));
    let sql = |query| {
        let psql = ["psql", "-XAtq", "-p", "6543", "-d", "repmgr", "-c", query];
        second.exec_as("postgres", psql).ok()
    };
    assert_eq!(sql(identifier), system);
    let nodes = sql("SELECT node_id, node_name, active, priority, conninfo FROM repmgr.nodes");
    assert!(nodes.starts_with("1|node1|t|7|host=other-address port=6543 user=repmgr "), "{nodes}");
    assert_eq!(nodes.lines().count(), 1);

    let ip = second.ip();
    for (variable, user, database) in [
        (PASSWORDS[0], "postgres", "dbname=postgres"),
        (PASSWORDS[1], "repmgr", "dbname=repmgr"),
        (PASSWORDS[2], "repmgr_streaming", "replication=1"),
        (PASSWORDS[3], "barman", "dbname=postgres"),
        (PASSWORDS[4], "barman_streaming", "replication=1"),
    ] {
        let log_in = |prefix: &str| {
            let password = format!("{prefix} {variable}");
            let server = Server { host: &ip, port: "6543", user, password: &password, database };
            let question = if database == "replication=1" { "IDENTIFY_SYSTEM" } else { "SELECT 1" };
            elsewhere.psql(&server, question)
        };
        log_in("new").ok();
        let refused = log_in("old");
        assert!(refused.stderr.contains("password authentication failed"), "{refused:?}");
    }
    assert!(second.exec_as("postgres", ["repmgr", "cluster", "show"]).ok().contains("* running"));
    let knock = elsewhere.shell(&format!("exec 3<>/dev/tcp/{ip}/5432"));
    assert!(knock.stderr.contains("Connection refused"), "{knock:?}");
    let barman = second.exec_as("barman", ["barman", "check", "pgherd"]).stdout;
    assert!(barman.contains("PostgreSQL: OK") && barman.contains("streaming: OK"), "{barman}");
    assert_eq!(second.stop(), 0);
}
