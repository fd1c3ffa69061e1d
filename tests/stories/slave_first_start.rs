//! "Slave is started for the first time": alone, together with its master, or with others who want
//! the same place.

use crate::document::{lines_of, stages_in, stages_of};
use crate::harness::{Cluster, Node, PASSWORDS, await_follows, docker, password, trials};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const SECTION: &str = "Slave is started for the first time";
const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";
/// Docker itself takes half a second.
const STOPPED_AT_MOST: Duration = Duration::from_secs(8);

#[test]
#[ignore = "needs docker: make test"]
fn three_started_at_once_in_any_order_are_one_master_and_two_slaves() {
    let all = [[3, 2, 1], [1, 2, 3], [2, 1, 3], [2, 3, 1], [3, 1, 2], [1, 3, 2]];
    let orders = if trials() { &all[..] } else { &all[..1] };
    for order in orders {
        let cluster = Cluster::of(3);
        for id in order {
            cluster.start(*id);
        }
        cluster.node(1).await_ready();
        let prober = cluster.probe();
        cluster.await_order(1, &[2, 3]);

        let systems: BTreeSet<_> = cluster.nodes().iter().map(|node| node.ask(SYSTEM)).collect();
        assert_eq!(systems.len(), 1, "one cluster was made: {systems:?}");
        let first = "Master is started for the first time";
        let made = |node: &&Node| node.log().contains(first);
        assert_eq!(cluster.nodes().iter().filter(made).count(), 1, "in order {order:?}");
        for id in [2, 3] {
            begins_with_the_documents_lines(cluster.node(id));
            only_reads(cluster.node(1), cluster.node(id));
        }
        let record = prober.end(&cluster, 1, &[2, 3]);
        assert_eq!(record.writers(), ["node1"].into());
    }
}

fn begins_with_the_documents_lines(slave: &Node) {
    let titles = lines_of(SECTION);
    assert_eq!(titles.len(), 3, "{titles:?}");
    let log = slave.log();
    assert_eq!(log.matches(SECTION).count(), 1, "{log}");
    let logged: Vec<_> = stages_in(&log).into_iter().map(|(_, _, title)| title).collect();
    assert_eq!(logged[..3], titles, "{log}");
    assert!(!log.contains("was replaced"), "nobody was: {log}");
}

/// A row written on the master is read on the slave, and the slave takes none, neither here nor
/// from elsewhere, nor does it say that it would.
fn only_reads(master: &Node, slave: &Node) {
    master.ask("CREATE TABLE IF NOT EXISTS said (what text); INSERT INTO said VALUES ('hello')");
    let read =
        || (slave.sql("SELECT what FROM said LIMIT 1").stdout.trim() == "hello").then_some(());
    slave.await_alive("the row is there", read);
    for statement in ["INSERT INTO said VALUES ('no')", "CREATE TABLE no ()", "VACUUM said"] {
        let refused = slave.sql(statement);
        assert_ne!(refused.status, 0, "{refused:?}");
        let why = ["read-only transaction", "during recovery"];
        assert!(why.iter().any(|why| refused.stderr.contains(why)), "{refused:?}");
    }
    for (path, master_says, slave_says) in [
        ("/primary", 200, 503),
        ("/read-write", 200, 503),
        ("/leader", 200, 503),
        ("/replica", 503, 200),
        ("/read-only", 200, 200),
        ("/health", 200, 200),
    ] {
        for (node, expected) in [(master, master_says), (slave, slave_says)] {
            let (code, body) = node.http(path).expect("an answer");
            assert_eq!(code, expected, "{path} on {}: {body}", node.name);
        }
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn a_slave_alone_says_what_it_waits_for_and_comes_when_its_master_does() {
    let cluster = Cluster::of(2);
    let slave = cluster.start(2);
    says_what_it_waits_for(slave);

    let began = Instant::now();
    cluster.stop(2); // With status 0.
    assert!(began.elapsed() < STOPPED_AT_MOST, "stopped after {:?}", began.elapsed());
    cluster.start(2);
    says_what_it_waits_for(slave);

    cluster.start(1);
    cluster.await_order(1, &[2]);
    let log = slave.log();
    assert_eq!(log.matches("Master is started").count(), 0, "{log}");
}

fn says_what_it_waits_for(slave: &Node) {
    let waits = &lines_of(SECTION)[1];
    slave.await_alive("it says what it does", || slave.status().contains(waits).then_some(()));
    let status = slave.status();
    assert!(status.contains("node1"), "whose port: {status}");
    assert!(slave.log().contains("node1"), "{}", slave.log());
    let json = slave.status_json();
    let row =
        json["nodes"].as_array().and_then(|rows| rows.iter().find(|row| row["name"] == "node2"));
    let row = row.unwrap_or_else(|| panic!("its own row: {json:#}"));
    assert_eq!(row["scenario"]["title"], SECTION, "{json:#}");
    assert_eq!(row["scenario"]["stage_title"], *waits, "{json:#}");
    assert_eq!(row["state"], "starting", "{json:#}");
    assert_eq!(json["primary"], serde_json::Value::Null, "{json:#}");

    for (path, code) in [("/liveness", 200), ("/readiness", 503), ("/replica", 503)] {
        assert_eq!(slave.http(path).map(|(code, _)| code), Some(code), "{path}");
    }
    assert_eq!(slave.exec(["pgherd", "health"]).status, 0, "alive");
    assert_eq!(slave.exec(["pgherd", "health", "--ready"]).status, 1, "and not ready");
    let knock = slave.shell("exec 3<>/dev/tcp/127.0.0.1/5432");
    assert!(knock.stderr.contains("Connection refused"), "{knock:?}");
}

#[test]
#[ignore = "needs docker: make test"]
fn a_plan_tells_what_the_slave_will_do_and_touches_nothing() {
    let mut cluster = Cluster::of(2);
    cluster.start(1).await_ready();
    let master = cluster.node(1);
    let before = master.ask("SELECT count(*) FROM pg_replication_slots");
    let plan = |cluster: &mut Cluster, words: &'static [&'static str]| {
        cluster.recreate(2, |recipe| recipe.command(words.iter().copied()));
        cluster.start(2);
        assert_eq!(cluster.node(2).await_end(), 0);
        docker(["logs", cluster.node(2).name()]).stdout
    };
    let told = plan(&mut cluster, &["pgherd", "plan"]);
    assert!(told.starts_with(&format!("{SECTION}\n")), "{told}");
    let expected: Vec<_> = (1..).zip(lines_of(SECTION)).collect();
    assert_eq!(stages_of(&told)[..3], expected, "{told}");
    let told = plan(&mut cluster, &["pgherd", "plan", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(json["scenario"], "standby-first-start", "{json:#}");

    assert_eq!(cluster.node(2).data.shell("ls -A /v"), "");
    assert_eq!(cluster.node(1).ask("SELECT count(*) FROM pg_replication_slots"), before);
    let nodes = ["psql", "-XAtq", "-d", "repmgr", "-c", "SELECT count(*) FROM repmgr.nodes"];
    assert_eq!(cluster.node(1).exec_as("postgres", nodes).ok(), "1");

    cluster.recreate(2, |recipe| recipe.command(["postgres"]));
    cluster.start(2);
    cluster.await_order(1, &[2]);
    let next = cluster.node(2).exec(["pgherd", "plan"]).ok();
    assert!(next.starts_with("Slave is restarted but still is slave\n"), "{next}");
}

#[test]
#[ignore = "needs docker: make test"]
fn any_member_leads_to_the_master() {
    // node3 is told of a slave only; and then of one that was the master once.
    let mut cluster = Cluster::with(3, |id, recipe| match id {
        3 => recipe.env("REPMGR_MASTER_HOST", "node2").env("REPMGR_SLAVES", ""),
        _ => recipe.env("REPMGR_SLAVES", "node2"),
    });
    cluster.start(1);
    cluster.start(2).await_ready();
    cluster.start(3);
    cluster.await_order(1, &[2, 3]);

    cluster.stop(3);
    cluster.lose_data(3);
    cluster.recreate(3, |recipe| recipe.env("REPMGR_MASTER_HOST", "node1"));
    cluster.stop(1);
    cluster.promote(2);
    cluster.start(1);
    await_follows(cluster.node(1), cluster.node(2));
    cluster.start(3);
    cluster.await_order(2, &[1, 3]);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_slave_that_is_told_of_nobody_says_what_is_missing() {
    let cluster =
        Cluster::with(2, |_, recipe| recipe.env("REPMGR_MASTER_HOST", "").env("REPMGR_SLAVES", ""));
    let slave = cluster.start(2);
    // It may end at once, or wait: nothing is made either way.
    slave.await_log("REPMGR_MASTER_HOST");
    assert!(!slave.has_data());
    assert_ne!(slave.exec(["pgherd", "health", "--ready"]).status, 0);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_slave_with_another_password_than_its_master_says_so_and_changes_nothing() {
    for variable in ["REPMGR_PASSWORD", "REPMGR_STREAMING_PASSWORD"] {
        let mut cluster =
            Cluster::with(
                2,
                |id, recipe| if id == 2 { recipe.env(variable, "hush") } else { recipe },
            );
        cluster.start(1).await_ready();
        let slave = cluster.start(2);
        // Whether it goes on trying or ends: it is not served from, and the reason is there.
        slave.await_that("it names the variable", || slave.log().contains(variable).then_some(()));
        assert_ne!(slave.exec(["pgherd", "health", "--ready"]).status, 0);
        let streaming = "SELECT count(*) FROM pg_stat_replication";
        assert_eq!(cluster.node(1).ask(streaming), "0");

        cluster.recreate(2, |recipe| recipe.env(variable, password(variable)));
        cluster.start(2);
        cluster.await_order(1, &[2]);
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn default_passwords_are_enough_between_nodes_of_one_network() {
    let cluster = Cluster::with(2, |_, recipe| recipe.envs(PASSWORDS.map(|(name, _)| (name, ""))));
    cluster.begin(0);
    cluster.await_order(1, &[2]);
    for node in cluster.nodes() {
        assert!(node.status().contains("default password is still in use"), "{}", node.status());
    }
}
