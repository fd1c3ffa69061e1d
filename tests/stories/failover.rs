//! A primary is lost in each way there is, and the cluster sees to it by itself. The prober writes all
//! the time: nobody takes a write while another does, and no acknowledged row is missing.

use crate::harness::{
    Cluster, LEADS_WITHIN, LEASE, Prober, await_that, await_within, is_postmaster, trials,
};
use std::time::{Duration, Instant};

/// Postgres' own words after a crash.
const CRASHED: &str = "not properly shut down";
/// What docker gives those who ask for nothing else.
const GRACE: Duration = Duration::from_secs(10);
/// A server that is started again in place.
const IN_PLACE_WITHIN: Duration = Duration::from_secs(10);

fn voting() -> (Cluster, Prober) {
    let cluster = Cluster::voting_up(3);
    let prober = cluster.probe();
    (cluster, prober)
}

/// Waits for the next primary and says how long it took.
fn next(cluster: &Cluster, lost: usize, since: Instant) -> usize {
    let primary = cluster.await_primary(&cluster.others(&[lost]), LEADS_WITHIN);
    println!(
        "node{primary} leads {:.1} s after node{lost} was lost",
        since.elapsed().as_secs_f64()
    );
    primary
}

#[test]
#[ignore = "needs docker: make test"]
fn a_standby_leads_soon_after_a_primary_was_killed_and_nothing_is_lost() {
    let (cluster, prober) = voting();
    let mut primary = 1;
    let turns = if trials() { 8 } else { 2 };
    for _ in 0..turns {
        let process = cluster.node(primary).host_pid();
        let had_all = cluster.await_synchronous(primary);
        let killed = Instant::now();
        cluster.kill_at_once(primary, process);
        let new = next(&cluster, primary, killed);
        assert_eq!(new, had_all, "whoever has every write leads");
        prober.await_rows();
        let third = cluster.others(&[primary, new]);
        cluster.await_following(new, &third); // Without the one that is lost.
        let lines = cluster.log_lines(primary);
        cluster.start(primary);
        cluster.await_settled(new);
        let log = cluster.log_since(primary, lines);
        assert!(!log.contains("takes reads and writes"), "it came back as a standby: {log}");
        primary = new;
    }
    assert_eq!(cluster.timeline(primary), 1 + turns, "one step a turn");
    cluster.tells_one_story(primary);
    let record = prober.end(&cluster, primary, &cluster.others(&[primary]));
    assert!(record.longest_gap() < LEADS_WITHIN, "{:?} without a write", record.longest_gap());
}

/// The variables of the scenario document, and no other: the slaves' addresses are told to the master only.
#[test]
#[ignore = "needs docker: make test"]
fn a_master_that_is_told_of_two_slaves_and_they_of_it_fail_over_by_themselves() {
    let cluster = Cluster::with(3, |id, recipe| {
        let slaves = if id == 1 { "node2,node3" } else { "" };
        recipe.env("PGHERD_FAILOVER", "").env("REPMGR_SLAVES", slaves)
    });
    cluster.begin_voting();
    let prober = cluster.probe();
    cluster.kill(1);
    let mut primary = next(&cluster, 1, Instant::now());
    prober.await_rows();
    cluster.start(1);
    cluster.await_settled(primary);
    // What a slave was told it knows at its next start, whoever is there.
    cluster.kill_all();
    [3, 2].into_iter().for_each(|id| {
        cluster.start(id);
    });
    primary = cluster.await_primary(&[2, 3], Duration::from_secs(60));
    prober.await_rows();
    cluster.start(1);
    cluster.await_settled(primary);
    prober.end(&cluster, primary, &cluster.others(&[primary]));
}

#[test]
#[ignore = "needs docker: make test"]
fn a_primary_that_is_cut_off_stops_before_another_begins() {
    let (mut cluster, prober) = voting();
    let cut = Instant::now();
    cluster.cut(1);
    let new = next(&cluster, 1, cut);
    prober.await_rows();
    let (code, _) = cluster.node(1).http("/primary").expect("it is alive");
    assert_eq!(code, 503);
    assert_ne!(cluster.node(1).sql("INSERT INTO tried VALUES ('by hand')").status, 0);
    cluster.heal(1);
    cluster.await_settled(new);
    assert_eq!(cluster.timeline(new), 2);
    let record = prober.end(&cluster, new, &cluster.others(&[new]));
    assert_eq!(record.timelines(), [1, 2].into());
    assert!(record.longest_gap() < LEADS_WITHIN, "{:?} without a write", record.longest_gap());
}

/// It sends, and hears nothing: that its lease was renewed, for one.
#[test]
#[ignore = "needs docker: make test"]
fn a_primary_that_hears_nobody_stops_before_another_begins() {
    let (cluster, prober) = voting();
    let cut = Instant::now();
    [2, 3].into_iter().for_each(|from| cluster.deafen(1, from));
    let new = next(&cluster, 1, cut);
    prober.await_rows();
    cluster.hears_again(1);
    cluster.await_settled(new);
    assert_eq!(cluster.timeline(new), 2);
    prober.end(&cluster, new, &cluster.others(&[new]));
}

/// Each of the two still reaches the third.
#[test]
#[ignore = "needs docker: make test"]
fn where_one_link_is_cut_the_primary_goes_on_with_the_standby_that_it_reaches() {
    let (cluster, prober) = voting();
    let lost = cluster.await_synchronous(1);
    let other = cluster.others(&[1, lost])[0];
    cluster.deafen(1, lost);
    cluster.deafen(lost, 1);
    cluster.node(1).await_showing("the other one is synchronous", || {
        let now = cluster.synchronous(1);
        (now == Some(other)).then_some(()).ok_or_else(|| format!("{now:?}"))
    });
    prober.goes_on_for(LEASE * 2);
    assert_eq!(cluster.primaries(), [1]);
    [1, lost].into_iter().for_each(|id| cluster.hears_again(id));
    cluster.await_settled(1);
    let record = prober.end(&cluster, 1, &[2, 3]);
    assert_eq!(record.timelines(), [1].into());
    println!("{:?} without a write", record.longest_gap());
    assert!(record.longest_gap() < LEASE, "{:?} without a write", record.longest_gap());
}

#[test]
#[ignore = "needs docker: make test"]
fn a_primary_that_was_frozen_takes_no_write_when_it_is_thawed() {
    let (cluster, prober) = voting();
    let frozen = Instant::now();
    cluster.freeze(1);
    let new = next(&cluster, 1, frozen);
    prober.await_rows();
    cluster.node(1).unpause();
    cluster.await_settled(new);
    assert_eq!(cluster.timeline(new), 2);
    let record = prober.end(&cluster, new, &cluster.others(&[new]));
    assert_eq!(record.timelines(), [1, 2].into());
}

/// The half that renews the lease does nothing any more, and Postgres knows nothing of it.
#[test]
#[ignore = "needs docker: make test"]
fn a_primary_whose_node_half_is_frozen_is_fenced_by_the_other_half() {
    let (cluster, prober) = voting();
    let half = cluster.node_half(1);
    let frozen = Instant::now();
    cluster.node(1).kill("STOP", &half).ok();
    await_within(LEASE, "its server is stopped within the lease", || {
        (!cluster.node(1).processes().iter().any(is_postmaster)).then_some(())
    });
    let new = next(&cluster, 1, frozen);
    prober.await_rows();
    cluster.node(1).kill("CONT", &half).ok();
    cluster.await_settled(new);
    assert_eq!(cluster.timeline(new), 2);
    prober.end(&cluster, new, &cluster.others(&[new]));
}

#[test]
#[ignore = "needs docker: make test"]
fn a_postmaster_that_was_killed_is_back_within_seconds() {
    let (cluster, prober) = voting();
    let postmaster = cluster.node(1).pid_of("postmaster", is_postmaster);
    cluster.node(1).kill("KILL", &postmaster).ok();
    prober.await_rows();
    let primary = cluster.await_primary(&[1, 2, 3], IN_PLACE_WITHIN);
    cluster.await_settled(primary);
    let record = prober.end(&cluster, primary, &cluster.others(&[primary]));
    assert!(record.longest_gap() < IN_PLACE_WITHIN, "{:?} without a write", record.longest_gap());
    println!("{:?} without a write, node{primary} leads", record.longest_gap());
}

#[test]
#[ignore = "needs docker: make test"]
fn a_primary_that_is_stopped_hands_over_first() {
    let (cluster, prober) = voting();
    let lines = cluster.log_lines(1);
    cluster.stop(1); // Status 0.
    let new = cluster.await_primary(&[2, 3], Duration::from_secs(2));
    prober.await_rows();
    cluster.start(1);
    cluster.await_settled(new);
    assert_eq!(cluster.timeline(new), 2);
    let log = cluster.log_since(1, lines);
    for never in ["rewinding from", CRASHED, "takes reads and writes"] {
        assert!(!log.contains(never), "{never:?} in {log}");
    }
    let record = prober.end(&cluster, new, &cluster.others(&[new]));
    println!("{:?} without a write", record.longest_gap());
    assert!(record.longest_gap() < LEASE, "{:?} without a write", record.longest_gap());

    // Where it does not, the log says why.
    let (code, said) = cluster.wish(new, "PUT", "/pause");
    assert_eq!(code, 202, "{said}");
    cluster.node(new).await_showing("it is paused", || {
        let (_, status) = cluster.node(new).http("/status").unwrap_or_default();
        status.contains("\"paused\":true").then_some(()).ok_or(status)
    });
    let lines = cluster.log_lines(new);
    cluster.stop(new);
    let log = cluster.log_since(new, lines);
    assert!(log.contains("the lead is not handed over first: paused (pgherd resume)"), "{log}");
}

#[test]
#[ignore = "needs docker: make test"]
fn all_stopped_at_once_come_back_without_a_recovery() {
    let (cluster, prober) = voting();
    let lines: Vec<_> = [1, 2, 3].map(|id| cluster.log_lines(id)).into();
    let began = Instant::now();
    cluster.stop_all(); // Status 0 within the grace period.
    println!("stopped within {:.1} s", began.elapsed().as_secs_f64());
    assert!(began.elapsed() < GRACE, "{:?} until all had ended", began.elapsed());
    for id in [3, 1, 2] {
        cluster.start(id);
    }
    let primary = cluster.await_primary(&[1, 2, 3], Duration::from_secs(60));
    cluster.await_settled(primary);
    for id in [1, 2, 3] {
        let log = cluster.log_since(id, lines[id - 1]);
        assert!(!log.contains(CRASHED), "node{id}: {log}");
    }
    prober.end(&cluster, primary, &cluster.others(&[primary]));
}

#[test]
#[ignore = "needs docker: make test"]
fn all_killed_at_once_come_back_in_whichever_order_with_every_row() {
    let all = [[3, 2, 1], [2, 3, 1], [1, 2, 3], [1, 3, 2], [2, 1, 3], [3, 1, 2]];
    let orders = if trials() { &all[..] } else { &all[..2] };
    let (cluster, prober) = voting();
    let mut primary = 1;
    for order in orders {
        let inodes = [1, 2, 3].map(|id| cluster.node(id).pgdata_inode());
        cluster.kill_all();
        for id in order {
            let node = cluster.start(*id);
            node.await_alive("it answers", || node.http("/liveness").map(drop));
        }
        let began = Instant::now();
        primary = cluster.await_primary(&[1, 2, 3], Duration::from_secs(60));
        println!("{order:?}: node{primary} leads after {:.1} s", began.elapsed().as_secs_f64());
        cluster.await_settled(primary);
        assert_eq!([1, 2, 3].map(|id| cluster.node(id).pgdata_inode()), inodes, "no clone");
        prober.await_rows();
    }
    prober.end(&cluster, primary, &cluster.others(&[primary]));
}

/// The voters' etcd of two nodes hangs; the nodes themselves see each other and agree to go on.
#[test]
#[ignore = "needs docker: make test"]
fn without_a_majority_of_etcd_reads_and_writes_go_on_while_the_members_see_each_other() {
    let (cluster, prober) = voting();
    let frozen = [2, 3].map(|id| (id, cluster.etcd(id)));
    for (id, etcd) in &frozen {
        cluster.node(*id).kill("STOP", etcd).ok();
    }
    prober.goes_on_for(LEASE);
    cluster.node(1).await_showing("it says so", || {
        let warnings = cluster.warnings(1);
        warnings.contains("voters do not answer").then_some(()).ok_or(warnings)
    });
    prober.goes_on_for(LEASE * 4);
    assert_eq!(cluster.primaries(), [1]);
    for (id, etcd) in &frozen {
        cluster.node(*id).kill("CONT", etcd).ok();
    }
    cluster.await_settled(1);
    prober.goes_on_for(LEASE);
    let record = prober.end(&cluster, 1, &[2, 3]);
    assert_eq!(record.timelines(), [1].into());
    println!("{:?} without a write", record.longest_gap());
    assert!(record.longest_gap() < LEASE, "{:?} without a write", record.longest_gap());
}

/// Somebody calls `pg_promote` as in a cluster without pgherd: for a moment it takes writes, and they are
/// nobody's.
#[test]
#[ignore = "needs docker: make test"]
fn a_standby_that_is_promoted_by_hand_is_stopped_and_follows_again() {
    let cluster = Cluster::voting_up(3);
    let hand = cluster.others(&[1, cluster.await_synchronous(1)])[0];
    cluster.node(hand).sql("SELECT pg_promote()");
    cluster.node(hand).await_log("was promoted by hand");
    cluster.await_settled(1);
    assert_eq!(cluster.timeline(1), 1, "the one that leads goes on");
    assert_eq!(cluster.primaries(), [1]);
}

#[test]
#[ignore = "needs docker: make test"]
fn helpers_that_are_killed_again_and_again_come_back_and_nobody_notices() {
    let kills = if trials() { 10 } else { 3 };
    let (cluster, prober) = voting();
    for helper in ["etcd", "repmgrd"] {
        for _ in 0..kills {
            let pid = cluster.node(1).pid_of(helper, |process| process.name == helper);
            cluster.node(1).kill("KILL", &pid).ok();
            prober.await_rows();
            await_that("another one runs", || {
                let all = cluster.node(1).processes();
                all.iter().any(|one| one.name == helper && one.pid != pid).then_some(())
            });
        }
    }
    cluster.await_settled(1);
    let record = prober.end(&cluster, 1, &[2, 3]);
    assert_eq!(record.timelines(), [1].into());
    println!("{:?} without a write", record.longest_gap());
    assert!(record.longest_gap() < Duration::from_secs(2), "{:?}", record.longest_gap());
}

#[test]
#[ignore = "needs docker: make test"]
fn one_voter_of_three_may_go_and_without_two_the_primary_stops() {
    let (cluster, prober) = voting();
    cluster.kill(3);
    prober.goes_on_for(LEASE * 2);
    assert_eq!(cluster.primaries(), [1]);
    cluster.kill(2);
    let alone = Instant::now();
    await_within(LEASE * 2, "it takes no writes any more", || {
        let runs = cluster.node(1).processes().iter().any(is_postmaster);
        let writes = cluster.node(1).sql("SELECT pg_is_in_recovery()").stdout.trim() == "f";
        (!runs || !writes).then_some(())
    });
    println!("fenced after {:.1} s", alone.elapsed().as_secs_f64());
    await_that("it says that it does not lead", || {
        (cluster.node(1).http("/primary")?.0 == 503).then_some(())
    });
    cluster.start(3);
    let primary = cluster.await_primary(&[1, 3], Duration::from_secs(60));
    prober.await_rows();
    cluster.start(2);
    cluster.await_settled(primary);
    prober.end(&cluster, primary, &cluster.others(&[primary]));
}

#[test]
#[ignore = "needs docker: make test"]
fn priority_0_is_never_promoted() {
    let cluster = Cluster::voting(3, |id, recipe| match id {
        3 => recipe.env("REPMGR_PRIORITY", "0"),
        _ => recipe,
    });
    cluster.begin_voting();
    assert_eq!(cluster.synchronous(1), Some(2), "it is not counted on either");
    let prober = cluster.probe();
    cluster.stop(2);
    await_that("nobody is synchronous", || cluster.synchronous(1).is_none().then_some(()));
    prober.await_rows(); // node2 has not got them, and node3 may not lead.
    cluster.kill(1);
    cluster.start(2).await_ready(); // Two of three voters.
    let until = Instant::now() + LEASE * 2;
    while Instant::now() < until {
        assert_eq!(cluster.primaries(), Vec::<usize>::new());
    }
    cluster.start(1);
    let primary = cluster.await_primary(&[1, 2, 3], Duration::from_secs(60));
    assert_eq!(primary, 1);
    cluster.await_settled(1);
    cluster.kill(1);
    assert_eq!(next(&cluster, 1, Instant::now()), 2);
    cluster.start(1);
    cluster.await_settled(2);
    let record = prober.end(&cluster, 2, &[1, 3]);
    assert_eq!(record.taken_by("node3"), 0);
}

#[test]
#[ignore = "needs docker: make test"]
fn while_paused_a_killed_primary_stays_dead_and_resumed_another_leads() {
    let (cluster, prober) = voting();
    let (code, said) = cluster.wish(2, "PUT", "/pause?on=true");
    assert_eq!(code, 202, "{said}");
    let is_paused = |id: usize, wanted: bool| {
        cluster.node(id).await_showing(&format!("paused is {wanted}"), || {
            let status = cluster.node(id).http("/status").unwrap_or_default().1;
            let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
            (status["paused"] == wanted).then_some(()).ok_or_else(|| status.to_string())
        });
    };
    [1, 2, 3].into_iter().for_each(|id| is_paused(id, true));
    cluster.kill(1);
    let before = prober.rows_so_far();
    // Longer than it takes another to lead; only looking on can show that nothing happens.
    let until = Instant::now() + LEADS_WITHIN;
    while Instant::now() < until {
        assert_eq!(cluster.primaries(), Vec::<usize>::new(), "paused is paused");
    }
    assert_eq!(prober.rows_so_far(), before);
    let status = cluster.node(2).status_json();
    assert_eq!(status["state"], "unhealthy", "{status:#}");
    let (code, said) = cluster.wish(3, "PUT", "/pause?on=false");
    assert_eq!(code, 202, "{said}");
    let new = next(&cluster, 1, Instant::now());
    is_paused(new, false);
    prober.await_rows();
    cluster.start(1);
    cluster.await_settled(new);
    prober.end(&cluster, new, &cluster.others(&[new]));
}
