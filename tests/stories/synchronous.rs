//! Commits wait for a standby, and not for one that is gone.

use crate::harness::{Cluster, LEADS_WITHIN, LEASE, await_within};
use std::time::{Duration, Instant};

/// Without the noise of a machine with two cores it is 2 s.
const WAITS_AT_MOST: Duration = Duration::from_secs(3);

#[test]
#[ignore = "needs docker: make test"]
fn no_commit_waits_long_for_a_synchronous_standby_that_is_stopped_or_killed() {
    let cluster = Cluster::voting_up(3);
    for kill in [false, true] {
        cluster.node(1).ask("DROP TABLE IF EXISTS written, tried"); // A prober counts from 1.
        let prober = cluster.probe();
        let standby = cluster.await_synchronous(1);
        if kill {
            cluster.kill(standby)
        } else {
            cluster.stop(standby)
        }
        let other = cluster.others(&[1, standby])[0];
        cluster.node(1).await_showing("the other one is synchronous", || {
            let now = cluster.synchronous(1);
            (now == Some(other)).then_some(()).ok_or_else(|| format!("{now:?}"))
        });
        prober.await_rows();
        cluster.start(standby);
        cluster.await_settled(1);
        let record = prober.end(&cluster, 1, &[2, 3]);
        println!("killed {kill}: {:?} without a write", record.longest_gap());
        assert_eq!(record.timelines(), [1].into());
        assert!(record.longest_gap() < WAITS_AT_MOST, "{:?}, killed: {kill}", record.longest_gap());
    }
}

/// node3 may never lead, so nobody counts on it: node2 is the last one.
#[test]
#[ignore = "needs docker: make test"]
fn where_a_standby_is_required_writes_wait_for_the_last_one_to_come_back() {
    let cluster = Cluster::voting(3, |id, recipe| {
        let recipe = recipe.env("PGHERD_SYNCHRONOUS", "required");
        if id == 3 { recipe.env("REPMGR_PRIORITY", "0") } else { recipe }
    });
    cluster.begin_voting();
    assert_eq!(cluster.synchronous(1), Some(2));
    let prober = cluster.probe();
    cluster.kill(2);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    await_within(LEASE, "writes wait", || (cluster.node(1).ask(waits) != "0").then_some(()));
    cluster.node(1).await_showing("it says so", || {
        let warnings = cluster.warnings(1);
        let says = warnings.contains("synchronous") || warnings.contains("wait");
        says.then_some(()).ok_or(warnings)
    });
    let before = prober.rows_so_far();
    let began = Instant::now();
    while began.elapsed() < LEASE * 2 {
        assert_eq!(prober.rows_so_far(), before, "acknowledged by nobody but the primary");
        assert_eq!(cluster.primaries(), [1], "reads go on");
    }
    cluster.start(2);
    prober.await_rows();
    cluster.await_settled(1);
    let record = prober.end(&cluster, 1, &[2, 3]);
    assert_eq!(record.timelines(), [1].into());
}

/// Whoever would need long to lead, or cannot keep up, is not waited for, until it can.
#[test]
#[ignore = "needs docker: make test"]
fn a_standby_that_does_not_replay_or_receive_is_left_out_and_comes_back() {
    let cluster = Cluster::voting_up(3);
    let prober = cluster.probe();
    let becomes = |wanted: usize, why: &str| {
        cluster.node(1).await_showing(why, || {
            let now = cluster.synchronous(1);
            (now == Some(wanted)).then_some(()).ok_or_else(|| format!("{now:?}"))
        });
        prober.await_rows();
    };
    let first = cluster.await_synchronous(1);
    let other = cluster.others(&[1, first])[0];
    cluster.node(first).ask("SELECT pg_wal_replay_pause()");
    becomes(other, "the one that replays has every write");
    cluster.node(first).ask("SELECT pg_wal_replay_resume()");
    // Nothing comes through to it, and nobody has closed the connection.
    let receiver = cluster
        .node(other)
        .pid_of("walreceiver", |process| process.command.contains("walreceiver"));
    cluster.node(other).kill("STOP", &receiver).ok();
    becomes(first, "the one that receives has every write");
    cluster.node(other).kill("CONT", &receiver).ok();
    cluster.await_settled(1);
    let record = prober.end(&cluster, 1, &[2, 3]);
    assert_eq!(record.timelines(), [1].into());
    println!("{:?} without a write", record.longest_gap());
    assert!(record.longest_gap() < LEASE, "{:?}", record.longest_gap());
}

/// Two witnesses see to it that there is a majority without the two that are lost.
#[test]
#[ignore = "needs docker: make test"]
fn a_standby_that_may_lack_writes_refuses_to_lead_until_a_person_says_so() {
    let cluster = Cluster::voting(5, |id, recipe| {
        let recipe = recipe.env("REPMGR_SLAVES", "node2,node3");
        if id > 3 { recipe.env("PGHERD_ROLE", "witness").env("REPMGR_MASTER", "") } else { recipe }
    });
    for id in 1..=5 {
        cluster.start(id);
    }
    cluster.await_following(1, &[2, 3]);
    let standby = cluster.await_synchronous(1);
    let third = cluster.others(&[1, standby, 4, 5])[0];
    let mut prober = cluster.probe();
    // Only the two of them have it.
    cluster.node(1).ask("CREATE TABLE said (what text)");
    cluster.kill_at_the_same_time(&[1, standby]);
    cluster.node(third).await_showing("it says why it does not lead", || {
        let warnings = cluster.warnings(third);
        warnings.contains("may lack acknowledged writes").then_some(()).ok_or(warnings)
    });
    assert_eq!(cluster.primaries(), Vec::<usize>::new());
    let plain = cluster.node(third).exec(["pgherd", "failover"]);
    assert_ne!(plain.status, 0, "without the price there is nothing to be had");
    assert!(plain.text().contains("--allow-data-loss"), "it says what would do: {plain:?}");
    assert_eq!(cluster.primaries(), Vec::<usize>::new());
    cluster.node(third).exec(["pgherd", "failover", "--allow-data-loss"]).ok();
    cluster.await_primary(&[third], LEADS_WITHIN);
    prober.forgive(cluster.node(1), cluster.node(third));
    prober.await_rows();
    cluster.start(1);
    cluster.start(standby);
    cluster.await_following(third, &[1, standby]);
    prober.end(&cluster, third, &[1, standby]);
}
