//! A person gives the lead to another node.

use crate::harness::{Cluster, LEADS_WITHIN, LEASE, Prober, trials};
use std::time::{Duration, Instant};

fn voting() -> (Cluster, Prober) {
    let cluster = Cluster::voting_up(3);
    let prober = cluster.probe();
    (cluster, prober)
}

fn asked(cluster: &Cluster, primary: usize, to: usize) {
    let (code, said) = cluster.wish(primary, "POST", &format!("/switchover?to=node{to}"));
    assert_eq!(code, 202, "{said}");
}

#[test]
#[ignore = "needs docker: make test"]
fn a_switchover_under_load_loses_nothing_and_the_old_primary_follows_without_a_rewind() {
    let (cluster, prober) = voting();
    let turns: &[_] = if trials() { &[2, 3, 1, 3, 2, 1, 2, 3] } else { &[2, 3, 1] };
    let mut primary = 1;
    for to in turns {
        let lines = cluster.log_lines(primary);
        let began = Instant::now();
        asked(&cluster, primary, *to);
        cluster.await_primary(&[*to], LEADS_WITHIN);
        println!("node{to} leads {:.1} s after it was asked for", began.elapsed().as_secs_f64());
        prober.await_rows();
        cluster.await_settled(*to);
        let log = cluster.log_since(primary, lines);
        assert!(!log.contains("rewinding from"), "{log}");
        primary = *to;
    }
    cluster.tells_one_story(primary);
    let record = prober.end(&cluster, primary, &cluster.others(&[primary]));
    assert_eq!(record.timelines().len(), turns.len() + 1);
    println!("{:?} without a write", record.longest_gap());
    assert!(record.longest_gap() < LEASE, "{:?} without a write", record.longest_gap());
}

#[test]
#[ignore = "needs docker: make test"]
fn a_switchover_that_cannot_be_is_refused_and_nothing_has_changed() {
    let (cluster, prober) = voting();
    for (id, to, because) in
        [(1, "node9", "node9"), (1, "node1", "node1"), (2, "node3", "does not lead")]
    {
        let (code, said) = cluster.wish(id, "POST", &format!("/switchover?to={to}"));
        assert_eq!(code, 409, "{said}");
        assert!(said.contains(because), "{said}");
    }
    let without = cluster.node(1).http_as("another", "POST", "/switchover?to=node2");
    assert_eq!(without.expect("it answers").0, 401);
    cluster.kill(3);
    // From the moment that it is known.
    cluster.node(1).await_showing("it knows that node3 is gone", || {
        let (_, status) = cluster.node(1).http("/status").unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        let rows = status["nodes"].as_array().cloned().unwrap_or_default();
        let gone = rows.iter().any(|row| row["name"] == "node3" && row["state"] != "running");
        gone.then_some(()).ok_or_else(|| status.to_string())
    });
    let (code, said) = cluster.wish(1, "POST", "/switchover?to=node3");
    assert_eq!(code, 409, "{said}");
    assert!(said.contains("node3"), "{said}");
    prober.await_rows();
    cluster.start(3);
    let primary = cluster.await_primary(&[1, 2], LEADS_WITHIN);
    cluster.await_settled(primary);
    assert_eq!(cluster.wish(1, "PUT", "/maintenance?node=node3").0, 202);
    let asked = cluster.node(1);
    asked.await_showing("node3 is refused for its maintenance", || {
        let (code, said) = cluster.wish(1, "POST", "/switchover?to=node3&dry_run=1");
        (code == 409 && said.contains("maintenance off node3")).then_some(()).ok_or(said)
    });
    let record = prober.end(&cluster, primary, &cluster.others(&[primary]));
    assert_eq!(record.timelines(), [1].into());
}

/// Paused, roles change only because people say so; and then they do.
#[test]
#[ignore = "needs docker: make test"]
fn while_paused_a_switchover_is_done_and_nothing_else() {
    let (cluster, prober) = voting();
    assert_eq!(cluster.wish(1, "PUT", "/pause?on=true").0, 202);
    cluster.node(2).await_showing("it is paused", || {
        let status = cluster.node(2).status();
        status.contains("paused").then_some(()).ok_or(status)
    });
    let to = cluster.await_synchronous(1);
    let name = cluster.node(to).name.clone();
    let ended = cluster.node(1).exec(["pgherd", "switchover", "--to", &name]);
    assert_eq!(ended.status, 0, "{}", ended.text());
    cluster.await_primary(&[to], LEADS_WITHIN);
    cluster.await_following(to, &cluster.others(&[to]));
    prober.await_rows();
    // In order, and back again.
    cluster.stop(to);
    cluster.start(to);
    cluster.await_primary(&[to], LEADS_WITHIN);
    prober.await_rows();
    assert_eq!(cluster.wish(to, "PUT", "/pause?on=false").0, 202);
    cluster.await_settled(to);
    prober.end(&cluster, to, &cluster.others(&[to]));
}

/// A little later each time.
#[test]
#[ignore = "needs docker: make test"]
fn either_side_killed_in_a_switchover_there_is_one_primary_in_the_end() {
    let (cluster, prober) = voting();
    let rounds = if trials() { 12 } else { 4 };
    let mut primary = 1;
    for round in 0..rounds {
        let to = cluster.others(&[primary])[round % 2];
        let victim = if round % 2 == 0 { to } else { primary };
        let process = cluster.node(victim).host_pid();
        asked(&cluster, primary, to);
        std::thread::park_timeout(Duration::from_millis(120 * round as u64));
        cluster.kill_at_once(victim, process);
        let began = Instant::now();
        // Between one synchronous standby and the next, nobody else may have every write.
        cluster.start(victim);
        let new = cluster.await_primary(&[1, 2, 3], LEADS_WITHIN * 2);
        println!(
            "round {round}: node{primary} to node{to}, node{victim} killed: node{new} leads {:.1} s later",
            began.elapsed().as_secs_f64()
        );
        prober.await_rows();
        primary = cluster.await_calm();
        cluster.await_settled(primary);
    }
    prober.end(&cluster, primary, &cluster.others(&[primary]));
}
