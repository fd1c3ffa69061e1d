//! Everything goes down, and comes up again in some order: the newest history leads, and an older
//! one never.

use crate::harness::{Cluster, Node, Prober, await_follows, trials};

const IDENTITY: &str = "SELECT system_identifier, timeline_id \
     FROM pg_control_system(), pg_control_checkpoint()";
/// Streaming begins anew at a segment's beginning; a copy would be `MEGABYTES` more.
const RECEIVED_AT_MOST: u64 = 60 << 20;
const MEGABYTES: u32 = 100;

/// node2 leads on the second timeline, the others follow it.
fn second_reign(count: usize, megabytes: u32) -> (Cluster, Prober) {
    let cluster = Cluster::up(count, megabytes);
    let all: Vec<_> = (2..=count).collect();
    cluster.await_order(1, &all);
    let prober = cluster.probe();
    cluster.stop(1);
    cluster.promote(2);
    prober.await_rows();
    cluster.start(1);
    let others: Vec<_> = (1..=count).filter(|id| *id != 2).collect();
    cluster.await_order(2, &others);
    (cluster, prober)
}

/// It is up and answers, whether it serves or waits.
fn await_live(node: &Node) {
    node.await_alive("it answers", || {
        node.http("/liveness").is_some_and(|(code, _)| code == 200).then_some(())
    });
}

/// It waits, and its status names whom for.
fn waits_for(node: &Node, whom: &str) {
    node.await_alive(&format!("it says that it waits for {whom}"), || {
        let status = node.status();
        let says = |line: &str| line.contains(whom) && line.contains("wait");
        status.lines().any(says).then_some(())
    });
    for path in ["/primary", "/read-write", "/leader"] {
        assert_eq!(node.http(path).map(|(code, _)| code), Some(503), "{path}");
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn killed_all_at_once_the_same_one_leads_again_in_whichever_order_they_come_back() {
    let all = [[1, 3, 2], [2, 1, 3], [1, 2, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    let orders = if trials() { &all[..] } else { &all[..2] };
    let (cluster, prober) = second_reign(3, MEGABYTES);
    let facts = |cluster: &Cluster| {
        let fact = |node: &Node| (node.pgdata_inode(), node.ask(IDENTITY));
        cluster.nodes().iter().map(fact).collect::<Vec<_>>()
    };
    let before = facts(&cluster);
    for order in orders {
        cluster.kill_all();
        for id in order {
            await_live(cluster.start(*id));
        }
        cluster.await_order(2, &[1, 3]);
        assert_eq!(facts(&cluster), before, "after {order:?}");
        for node in cluster.nodes() {
            let received = node.bytes_received();
            assert!(received < RECEIVED_AT_MOST, "{}: {received} bytes, {order:?}", node.name);
        }
        prober.await_rows();
    }
    // At once, too: nobody gives way for ever.
    cluster.kill_all();
    for id in [1, 2, 3] {
        cluster.start(id);
    }
    cluster.await_order(2, &[1, 3]);
    prober.end(&cluster, 2, &[1, 3]); // It has every row that it acknowledged.
}

#[test]
#[ignore = "needs docker: make test"]
fn stopped_all_at_once_two_nodes_come_back_without_a_recovery() {
    let (cluster, prober) = second_reign(2, 0);
    cluster.stop_all();
    let lines: Vec<_> = cluster.nodes().iter().map(|node| node.log().lines().count()).collect();
    for id in [1, 2] {
        cluster.start(id);
    }
    cluster.await_order(2, &[1]);
    for (node, before) in cluster.nodes().iter().zip(lines) {
        let log = node.log();
        let since: Vec<_> = log.lines().skip(before).collect();
        let recovers = |line: &&&str| line.contains("not properly shut down");
        assert!(!since.iter().any(|line| recovers(&line)), "{log}");
    }
    prober.end(&cluster, 2, &[1]);
}

/// It serves what it has and takes nothing.
#[test]
#[ignore = "needs docker: make test"]
fn a_lone_old_slave_does_not_lead() {
    let (cluster, prober) = second_reign(2, 0);
    cluster.kill_all();
    let slave = cluster.start(1);
    slave.await_ready(); // As a standby: reads need no primary.
    assert_eq!(slave.ask("SELECT pg_is_in_recovery()"), "t");
    let json = slave.status_json();
    assert_eq!(json["primary"], serde_json::Value::Null, "{json:#}");
    assert_ne!(json["state"], "healthy", "{json:#}");
    cluster.start(2);
    cluster.await_order(2, &[1]);
    prober.end(&cluster, 2, &[1]);
}

/// A is lost, B takes over, B is lost; what A knows is that it was the master.
fn first_one_lost_then_the_other() -> (Cluster, Prober) {
    let cluster = Cluster::up(2, 0);
    cluster.await_order(1, &[2]);
    let mut prober = cluster.probe();
    cluster.kill(1);
    prober.forgive(cluster.node(1), cluster.node(2));
    cluster.promote(2);
    prober.await_rows();
    cluster.kill(2);
    (cluster, prober)
}

#[test]
#[ignore = "needs docker: make test"]
fn a_former_master_that_comes_back_first_waits_for_whoever_may_know_more() {
    let (cluster, prober) = first_one_lost_then_the_other();
    let former = cluster.start(1);
    waits_for(former, "node2");
    cluster.start(2);
    cluster.await_order(2, &[1]);
    let record = prober.end(&cluster, 2, &[1]);
    assert!(record.taken_by("node2") >= 5);
}

#[test]
#[ignore = "needs docker: make test"]
fn the_last_master_that_comes_back_first_leads_in_the_end() {
    let (cluster, prober) = first_one_lost_then_the_other();
    await_live(cluster.start(2));
    cluster.start(1);
    cluster.await_order(2, &[1]);
    prober.end(&cluster, 2, &[1]);
}

/// The way out that its waiting names: a person's word, and only with its price.
#[test]
#[ignore = "needs docker: make test"]
fn a_person_may_say_that_the_silent_are_gone_for_good() {
    let cluster = Cluster::up(2, 0);
    cluster.await_order(1, &[2]);
    let early = cluster.node(1).exec(["pgherd", "failover", "--allow-data-loss"]);
    assert_eq!(early.status, 3, "it does not wait: {early:?}");
    cluster.kill(2);
    cluster.kill(1);
    let former = cluster.start(1);
    waits_for(former, "node2");
    let unsure = former.exec(["pgherd", "failover"]);
    assert_eq!(unsure.status, 3, "{unsure:?}");
    assert!(unsure.text().contains("--allow-data-loss"), "{unsure:?}");
    waits_for(former, "node2");
    former.exec(["pgherd", "failover", "--allow-data-loss"]).ok();
    former.await_ready();
    former.sql("CREATE TABLE after_the_word ()").ok();
    cluster.start(2);
    cluster.await_order(1, &[2]);
}

/// Three: the third saw the second reign, and its word counts although it cannot lead.
#[test]
#[ignore = "needs docker: make test"]
fn whoever_has_heard_of_newer_data_keeps_an_older_master_from_leading() {
    let (cluster, prober) = second_reign_of_three_without_the_first();
    cluster.kill(2);
    cluster.kill(3);
    cluster.start(3);
    let former = cluster.start(1);
    waits_for(former, "node3");
    assert_eq!(former.http("/readiness").map(|(code, _)| code), Some(503));
    cluster.start(2);
    cluster.await_order(2, &[1, 3]);
    prober.end(&cluster, 2, &[1, 3]);
}

fn second_reign_of_three_without_the_first() -> (Cluster, Prober) {
    let cluster = Cluster::up(3, 0);
    cluster.await_order(1, &[2, 3]);
    let mut prober = cluster.probe();
    cluster.kill(1);
    // Of node2 and node3 one may have a row more; the one that is promoted decides.
    prober.forgive(cluster.node(1), cluster.node(2));
    cluster.promote(2);
    prober.await_rows();
    await_follows(cluster.node(3), cluster.node(2));
    (cluster, prober)
}

/// Frozen, it answers nothing and refuses nothing: docker's kernel takes the connection.
#[test]
#[ignore = "needs docker: make test"]
fn who_is_silent_is_not_absent() {
    let cluster = Cluster::up(2, 0);
    cluster.await_order(1, &[2]);
    let mut prober = cluster.probe();
    cluster.kill(1);
    prober.forgive(cluster.node(1), cluster.node(2));
    cluster.promote(2);
    prober.await_rows();
    cluster.node(2).pause();
    waits_for(cluster.start(1), "node2");
    cluster.node(2).unpause();
    cluster.await_order(2, &[1]);
    prober.end(&cluster, 2, &[1]);
}
