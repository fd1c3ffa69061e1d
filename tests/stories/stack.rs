//! A master, a slave, and a node that keeps the backups and has a vote: what `make up` runs.

use crate::harness::{Answer, Cluster, Node, await_within};
use std::time::{Duration, Instant};

fn barman(node: &Node, words: &[&'static str]) -> Answer {
    node.exec_as("barman", ["barman"].into_iter().chain(words.iter().copied()))
}

fn await_content_barman(node: &Node, limit: Duration) {
    await_within(limit, "barman check is all OK", || {
        (barman(node, &["check", "pgherd"]).status == 0).then_some(())
    });
}

fn backups(node: &Node) -> usize {
    barman(node, &["list-backup", "--minimal", "pgherd"]).ok().lines().count()
}

#[test]
#[ignore = "needs docker: make test"]
fn a_stack_is_up_and_backed_up_within_two_minutes_by_itself() {
    let cluster = Cluster::stack();
    let began = Instant::now();
    for id in [3, 2, 1] {
        cluster.start(id);
    }
    cluster.await_order(1, &[2]);
    cluster.node(1).ask("CREATE TABLE said AS SELECT 'hello' AS what");
    cluster.node(2).await_alive("the row is there", || {
        (cluster.node(2).sql("SELECT what FROM said").stdout.trim() == "hello").then_some(())
    });
    let limit = Duration::from_secs(130).saturating_sub(began.elapsed());
    await_content_barman(cluster.node(3), limit);
    assert_eq!(backups(cluster.node(3)), 1);
    let row = |json: &serde_json::Value| {
        let rows = json["nodes"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["name"] == "backup").unwrap_or_default()
    };
    for node in cluster.nodes() {
        node.await_showing("the backup node is shown", || {
            let json = node.status_json();
            let row = row(&json);
            let is_there = row["role"] == "backup" && row["state"] == "running";
            is_there.then_some(()).ok_or_else(|| format!("{json:#}"))
        });
    }
    assert!(!cluster.node(3).has_data(), "it has no Postgres of its own");
    cluster.keeps_its_secrets();
}

/// With the slave away, the backup node and the master are more than half of three.
#[test]
#[ignore = "needs docker: make test"]
fn with_a_third_voice_a_master_leads_again_while_its_slave_is_away() {
    let cluster = Cluster::stack();
    for id in [1, 2, 3] {
        cluster.start(id);
    }
    cluster.await_order(1, &[2]);
    let prober = cluster.probe();
    cluster.kill(2);
    cluster.kill(1);
    cluster.start(1).await_ready();
    cluster.start(2);
    cluster.await_order(1, &[2]);
    let record = prober.end(&cluster, 1, &[2]);
    assert_eq!(record.writers(), ["node1"].into());
}

/// It has no data and knows of who was promoted: the old master must not lead on its word.
#[test]
#[ignore = "needs docker: make test"]
fn the_third_voice_knows_who_was_promoted_and_backups_follow() {
    let cluster = Cluster::stack();
    for id in [1, 2, 3] {
        cluster.start(id);
    }
    cluster.await_order(1, &[2]);
    await_content_barman(cluster.node(3), Duration::from_secs(130));
    let mut prober = cluster.probe();
    cluster.kill(1);
    prober.forgive(cluster.node(1), cluster.node(2));
    cluster.promote(2);
    let knows = || {
        let newest = cluster.node(3).status_json()["primary"].clone();
        (newest == "node2").then_some(())
    };
    cluster.node(3).await_alive("the backup node knows of it", knows);
    cluster.kill(2);
    let former = cluster.start(1);
    former.await_alive("it waits for whoever has the newer data", || {
        let status = former.status();
        status.lines().any(|line| line.contains("wait") && line.contains("newer")).then_some(())
    });
    cluster.start(2);
    cluster.await_order(2, &[1]);
    await_content_barman(cluster.node(3), Duration::from_secs(130));
    let before = backups(cluster.node(3));
    cluster.node(3).await_alive("one more is taken, after any that is being taken", || {
        (barman(cluster.node(3), &["backup", "pgherd"]).status == 0).then_some(())
    });
    assert!(backups(cluster.node(3)) > before);
    prober.end(&cluster, 2, &[1]);
}
