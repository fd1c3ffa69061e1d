//! Two nodes and nobody else: what README says of each way to set them up.

use crate::harness::{Cluster, LEADS_WITHIN, LEASE, Recipe, await_follows};
use std::time::{Duration, Instant};

fn eager(count: usize) -> Cluster {
    let cluster = Cluster::with(count, |_, recipe: Recipe| recipe.env("PGHERD_FAILOVER", "eager"));
    cluster.begin(0);
    cluster
}

#[test]
#[ignore = "needs docker: make test"]
fn eagerly_the_slave_leads_when_its_master_is_lost_and_that_one_follows_when_it_is_back() {
    let cluster = eager(2);
    let said = cluster.warnings(2);
    assert!(said.contains("PGHERD_FAILOVER is eager"), "it says what may happen: {said}");
    let mut prober = cluster.probe();
    let killed = Instant::now();
    cluster.kill(1);
    prober.forgive(cluster.node(1), cluster.node(2));
    cluster.await_primary(&[2], LEADS_WITHIN);
    println!("node2 leads {:.1} s after node1 was lost", killed.elapsed().as_secs_f64());
    assert!(killed.elapsed() > LEASE, "it may have been about to come back");
    prober.await_rows();
    cluster.start(1);
    cluster.await_order(2, &[1]);
    assert_eq!(cluster.timeline(2), 2);
    // A slave that only starts does not know how old it is.
    cluster.stop(1);
    cluster.kill(2);
    cluster.start(1).await_ready();
    let until = Instant::now() + LEASE * 3;
    while Instant::now() < until {
        assert_eq!(cluster.primaries(), Vec::<usize>::new(), "what it has may be old");
    }
    cluster.start(2);
    cluster.await_order(2, &[1]);
    prober.end(&cluster, 2, &[1]);
}

/// The price that the warning names, and that it is paid only once.
#[test]
#[ignore = "needs docker: make test"]
fn eagerly_two_lead_while_the_cable_is_cut_and_one_when_it_is_mended() {
    let mut cluster = eager(2);
    cluster.node(1).ask("CREATE TABLE said (what text)");
    await_follows(cluster.node(2), cluster.node(1));
    cluster.cut(1);
    cluster.await_primary(&[2], LEADS_WITHIN);
    cluster.node(1).ask("INSERT INTO said VALUES ('on node1')");
    cluster.node(2).ask("INSERT INTO said VALUES ('on node2')");
    cluster.heal(1);
    cluster.await_order(2, &[1]);
    for id in [1, 2] {
        assert_eq!(cluster.node(id).ask("SELECT what FROM said"), "on node2");
    }
}

/// The default: people decide.
#[test]
#[ignore = "needs docker: make test"]
fn without_a_third_vote_a_slave_does_not_lead_by_itself() {
    let cluster = Cluster::up(2, 0);
    cluster.kill(1);
    cluster.node(2).await_showing("it knows that nobody leads", || {
        let status = cluster.node(2).status_json();
        (status["state"] == "unhealthy").then_some(()).ok_or_else(|| status.to_string())
    });
    let until = Instant::now() + LEASE + Duration::from_secs(4);
    while Instant::now() < until {
        assert_eq!(cluster.primaries(), Vec::<usize>::new());
    }
    cluster.promote(2);
    cluster.start(1);
    cluster.await_order(2, &[1]);
}
