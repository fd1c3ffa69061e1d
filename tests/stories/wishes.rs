//! What people ask for and what stands until they take it back.

use crate::harness::{Cluster, LEADS_WITHIN, LEASE, Prober, await_that};
use std::time::{Duration, SystemTime};

fn voting() -> (Cluster, Prober) {
    let cluster = Cluster::voting_up(3);
    let prober = cluster.probe();
    (cluster, prober)
}

fn pgherd(cluster: &Cluster, id: usize, words: &str) -> crate::harness::Answer {
    cluster.node(id).exec(["pgherd"].into_iter().chain(words.split(' ')))
}

#[test]
#[ignore = "needs docker: make test"]
fn a_node_in_maintenance_is_not_chosen_and_the_last_one_must_be_forced() {
    let (cluster, prober) = voting();
    pgherd(&cluster, 3, "maintenance on node2").ok();
    await_that("node3 is chosen, and not node2", || {
        (cluster.synchronous(1) == Some(3)).then_some(())
    });
    let last = pgherd(&cluster, 1, "maintenance on node3");
    assert_eq!(last.status, 3, "{last:?}");
    assert!(last.stderr.contains("--force"), "it says the way out: {last:?}");
    cluster.kill(1);
    assert_eq!(cluster.await_primary(&[2, 3], LEADS_WITHIN), 3);
    prober.await_rows();
    cluster.start(1);
    cluster.await_following(3, &[1, 2]);
    await_that("node1 has every write", || (cluster.synchronous(3) == Some(1)).then_some(()));
    pgherd(&cluster, 2, "maintenance on node1 --force").ok();
    await_that("nobody has to have every write", || cluster.synchronous(3).is_none().then_some(()));
    prober.goes_on_for(LEASE);
    pgherd(&cluster, 3, "maintenance off node1").ok();
    pgherd(&cluster, 3, "maintenance off node2").ok();
    cluster.await_settled(3);
    prober.end(&cluster, 3, &[1, 2]);
}

/// Two wishes at the same moment, on two nodes.
#[test]
#[ignore = "needs docker: make test"]
fn wishes_that_meet_are_all_kept() {
    let cluster = Cluster::voting_up(3);
    for round in 0..5 {
        let on = if round % 2 == 0 { "on" } else { "off" };
        std::thread::scope(|scope| {
            let cluster = &cluster;
            let paused = if on == "on" { "pause" } else { "resume" };
            let wishes = [
                paused.to_owned(),
                format!("maintenance {on} node2 --force"),
                format!("maintenance {on} node3 --force"),
            ];
            for (id, wish) in (1..).zip(wishes) {
                scope.spawn(move || pgherd(cluster, id, &wish).ok());
            }
        });
        cluster.node(1).await_showing("it knows of all three", || {
            let status = cluster.node(1).status_json();
            let row = |name: &str| {
                let rows = status["nodes"].as_array().cloned().unwrap_or_default();
                rows.iter().any(|row| row["name"] == name && row["maintenance"] == (on == "on"))
            };
            let kept = status["paused"] == (on == "on") && row("node2") && row("node3");
            kept.then_some(()).ok_or_else(|| status.to_string())
        });
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn a_switchover_is_done_at_the_time_that_was_said_by_whoever_leads_then() {
    let (cluster, prober) = voting();
    let seconds = |from_now: u64| {
        let at =
            SystemTime::UNIX_EPOCH.elapsed().expect("after 1970") + Duration::from_secs(from_now);
        at.as_secs()
    };
    let later = pgherd(&cluster, 2, "switchover --to node3 --at 2099-12-24T03:00:00Z").ok();
    assert!(later.contains("2099-12-24T03:00:00Z") && later.contains("--cancel"), "{later}");
    cluster.node(2).await_showing("everybody knows of it", || {
        let status = cluster.node(2).status();
        status.contains("switchover to node3 at 2099").then_some(()).ok_or(status)
    });
    pgherd(&cluster, 2, "switchover --cancel").ok();
    let past = pgherd(&cluster, 2, "switchover --at 2001-01-01T00:00:00Z");
    assert_eq!(past.status, 3, "{past:?}");
    let nobody = pgherd(&cluster, 2, "switchover --to node9 --at 2099-12-24T03:00:00Z");
    assert_eq!(nobody.status, 3, "{nobody:?}");
    let (code, said) = cluster.wish(1, "POST", &format!("/switchover?to=node3&at={}", seconds(3)));
    assert_eq!(code, 202, "{said}");
    assert_eq!(cluster.primaries(), [1], "not yet");
    cluster.await_primary(&[3], LEADS_WITHIN);
    prober.await_rows();
    cluster.await_settled(3);
    let status = cluster.node(3).status_json();
    assert!(status["scheduled_switchover"].is_null(), "{status:#}");
    prober.end(&cluster, 3, &[1, 2]);
}

#[test]
#[ignore = "needs docker: make test"]
fn nodes_come_by_themselves_and_go_when_a_person_says_that_they_are_gone() {
    let cluster = Cluster::voting(4, |_, recipe| {
        recipe.env("PGHERD_VOTERS", "node1,node2,node3").env("REPMGR_SLAVES", "node2,node3")
    });
    for id in [1, 2, 3] {
        cluster.start(id);
    }
    cluster.await_following(1, &[2, 3]);
    let prober = cluster.probe();
    let recipe = pgherd(&cluster, 2, "node add node4").ok();
    for part in ["REPMGR_NODE_NAME=node4", "REPMGR_MASTER_HOST=node1", "PGHERD_VOTERS=node1"] {
        assert!(recipe.contains(part), "{part} in {recipe}");
    }
    assert_eq!(pgherd(&cluster, 2, "node add node3").status, 3, "there is one");
    cluster.start(4);
    cluster.await_order(1, &[2, 3, 4]);
    cluster.await_synchronous(1);
    let runs = pgherd(&cluster, 2, "node remove node4");
    assert_eq!(runs.status, 3, "{runs:?}");
    assert!(runs.stderr.contains("docker stop"), "it says the way out: {runs:?}");
    for (gone, left) in [(4, vec![2, 3]), (3, vec![2])] {
        cluster.kill(gone);
        let name = format!("node{gone}");
        let taken_out = await_that("it is known that it is gone", || {
            let said = pgherd(&cluster, 2, &format!("node remove {name}"));
            (said.status == 0).then_some(said.stdout)
        });
        assert_eq!(taken_out.contains("2 voters are left"), gone == 3, "{taken_out}");
        cluster.await_following(1, &left);
        let records = ["psql", "-XAtq", "-d", "repmgr", "-c", "SELECT count(*) FROM repmgr.nodes"];
        let known = cluster.node(1).exec_as("postgres", records).ok();
        assert_eq!(known, (left.len() + 1).to_string());
        prober.await_rows();
    }
    prober.goes_on_for(LEASE);
    prober.end(&cluster, 1, &[2]);
}
