//! A master that was replaced while it was away, and slaves that have another master now. Somebody
//! promoted the new one by hand.

use crate::harness::{Cluster, Node, Prober, await_follows, trials};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// In the master before its slaves are made, so that no slave has the WAL of it: what a rewind
/// brings over is little, and what a clone brings over is all of this.
const MEGABYTES: u32 = 150;
/// A rewind copies what is in the new master's `pg_wal`, some segments of 16 MiB, and changed pages.
const REWOUND_AT_MOST: u64 = 100 << 20;

/// A cluster whose slaves have seen all of it, and its prober.
fn in_order(count: usize, megabytes: u32) -> (Cluster, Prober) {
    let cluster = Cluster::up(count, megabytes);
    let slaves: Vec<_> = (2..=count).collect();
    cluster.await_order(1, &slaves);
    let prober = cluster.probe();
    (cluster, prober)
}

/// node1 goes on writing while nobody else hears of it, and is killed. What it acknowledged then is
/// on no other node.
fn lose_the_master(cluster: &mut Cluster, prober: &mut Prober, slaves: &[usize]) {
    // The last one that is cut off has all that the others have: it is the one to promote.
    for id in slaves.iter().rev() {
        cluster.cut(*id);
    }
    cluster.node(1).ask("CREATE TABLE lost AS SELECT generate_series(1, 1000) AS n");
    // The last checkpoint is in another segment than where the histories part.
    for statement in ["CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT"] {
        cluster.node(1).ask(statement);
    }
    prober.await_rows();
    cluster.kill(1);
    prober.forgive(cluster.node(1), cluster.node(slaves[0]));
    for id in slaves {
        cluster.heal(*id);
    }
}

fn has_lost_what_nobody_else_had(node: &Node) {
    assert_eq!(node.ask("SELECT to_regclass('lost') IS NULL"), "t", "{}", node.name);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_master_that_was_killed_and_replaced_rejoins_by_rewind_and_all_follow_the_new_one() {
    let (mut cluster, mut prober) = in_order(3, MEGABYTES);
    let inodes = [1, 2, 3].map(|id| cluster.node(id).pgdata_inode());
    lose_the_master(&mut cluster, &mut prober, &[2, 3]);
    cluster.promote(2);
    prober.await_rows();
    await_follows(cluster.node(3), cluster.node(2)); // Nobody told it to.

    cluster.start(1);
    cluster.await_order(2, &[1, 3]);
    has_lost_what_nobody_else_had(cluster.node(1));
    let received = cluster.node(1).bytes_received();
    assert!(received < REWOUND_AT_MOST, "{received} bytes are a clone, and no rewind");
    let log = cluster.node(1).log();
    assert!(log.contains("rewind"), "{log}");
    assert_eq!([1, 2, 3].map(|id| cluster.node(id).pgdata_inode()), inodes);

    // And once more, the other way round: it is a slave like any other by now.
    cluster.stop(1);
    cluster.start(1);
    cluster.await_order(2, &[1, 3]);
    let record = prober.end(&cluster, 2, &[1, 3]);
    assert_eq!(record.writers(), ["node1", "node2"].into());
    assert!(record.unacknowledged_in_the_end().len() >= 5, "the story was told in vain");
}

#[test]
#[ignore = "needs docker: make test"]
fn a_master_that_was_stopped_in_order_and_replaced_follows_without_a_rewind() {
    let (cluster, prober) = in_order(2, MEGABYTES);
    let inode = cluster.node(1).pgdata_inode();
    cluster.stop(1);
    cluster.promote(2);
    prober.await_rows();
    cluster.start(1);
    cluster.await_order(2, &[1]);
    let received = cluster.node(1).bytes_received();
    assert!(received < REWOUND_AT_MOST, "{received} bytes are a clone");
    assert_eq!(cluster.node(1).pgdata_inode(), inode);
    let log = cluster.node(1).log();
    assert!(!log.contains("rewinding from"), "{log}"); // pg_rewind may be asked, and say no.
    let record = prober.end(&cluster, 2, &[1]); // Every row is there: nothing is forgiven.
    assert_eq!(record.writers(), ["node1", "node2"].into());
}

/// The one that was promoted had less than the other: what the other has more is taken back.
#[test]
#[ignore = "needs docker: make test"]
fn a_slave_that_has_more_than_its_new_master_comes_back_to_it() {
    let (mut cluster, mut prober) = in_order(3, 0);
    cluster.cut(2);
    cluster.node(1).ask("CREATE TABLE lost AS SELECT generate_series(1, 1000) AS n");
    prober.await_rows();
    await_follows(cluster.node(3), cluster.node(1));
    cluster.cut(3);
    cluster.kill(1);
    prober.forgive(cluster.node(1), cluster.node(2));
    cluster.kill(3); // Nobody hears of it, and nobody asks it.
    cluster.heal(2);
    cluster.promote(2);
    prober.await_rows();
    cluster.recreate(3, |recipe| recipe);
    cluster.start(3);
    await_follows(cluster.node(3), cluster.node(2));
    cluster.start(1);
    cluster.await_order(2, &[1, 3]);
    for id in [1, 3] {
        has_lost_what_nobody_else_had(cluster.node(id));
    }
    prober.end(&cluster, 2, &[1, 3]);
}

/// At any moment there is a complete directory, until its replacement is one.
#[test]
#[ignore = "needs docker: make test"]
fn where_the_wal_for_a_rewind_is_gone_a_clone_is_made_beside_the_old_directory() {
    let (mut cluster, mut prober) = in_order(2, MEGABYTES);
    lose_the_master(&mut cluster, &mut prober, &[2]);
    assert_ne!(cluster.node(1).forget_old_wal(), "", "there was nothing to forget");
    cluster.promote(2);
    prober.await_rows();

    let pgdata = cluster.node(1).pgdata();
    let old = pgdata.with_extension("old");
    let is_complete = |at: &Path| at.join("PG_VERSION").exists();
    let enough = AtomicBool::new(false);
    let (mut looked, mut kept_beside) = (0, false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                let here = is_complete(&pgdata); // Asked first: from here it moves to there.
                kept_beside |= is_complete(&old);
                assert!(here || is_complete(&old) || is_complete(&pgdata), "nothing is complete");
                looked += 1;
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        cluster.start(1);
        let order = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cluster.await_order(2, &[1]);
        }));
        enough.store(true, Ordering::Relaxed);
        watcher.join().expect("there is always a complete directory");
        order.unwrap_or_else(|why| std::panic::resume_unwind(why));
    });
    println!("looked {looked} times");
    assert!(kept_beside, "the old one is kept until the new one streams");
    has_lost_what_nobody_else_had(cluster.node(1));
    let received = cluster.node(1).bytes_received();
    assert!(received > u64::from(MEGABYTES) << 20, "{received} bytes are no clone");
    prober.end(&cluster, 2, &[1]);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_rewind_that_is_killed_is_finished_or_replaced_by_the_next_start() {
    let kills = if trials() { 8 } else { 2 };
    let (mut cluster, mut prober) = in_order(2, MEGABYTES);
    cluster.cut(2);
    // All of its pages are others than the slave's: the rewind has something to do.
    cluster.node(1).ask("UPDATE bulk SET n = -n");
    cluster.node(1).ask("CREATE TABLE lost ()");
    prober.await_rows();
    cluster.kill(1);
    prober.forgive(cluster.node(1), cluster.node(2));
    cluster.heal(2);
    cluster.promote(2);
    prober.await_rows();

    let marker = cluster.node(1).data.mountpoint().join("pgherd/rewinding");
    for round in 0..kills {
        let node = cluster.start(1);
        let process = node.host_pid();
        let ready = || node.http("/readiness").is_some_and(|(code, _)| code == 200);
        let begun = node.await_alive("it rewinds, or has done so", || {
            if marker.exists() { Some(true) } else { ready().then_some(false) }
        });
        if begun {
            // Each a little further into it.
            std::thread::park_timeout(Duration::from_millis(60 * round));
        }
        let left = marker.exists();
        cluster.kill_at_once(1, process);
        println!("round {round}: begun {begun}, killed in the midst of it {left}");
    }
    cluster.start(1);
    cluster.await_order(2, &[1]);
    has_lost_what_nobody_else_had(cluster.node(1));
    assert_eq!(cluster.node(1).ask("SELECT count(*) FROM bulk WHERE n < 0"), "0");
    prober.end(&cluster, 2, &[1]);
}

/// Over and over, for what piles up: slots, records, old directories, timelines.
#[test]
#[ignore = "needs docker: make test"]
fn two_nodes_take_turns() {
    let turns = if trials() { 10 } else { 2 };
    let (cluster, mut prober) = in_order(2, 0);
    let (mut master, mut slave) = (1, 2);
    for turn in 0..turns {
        if turn % 2 == 0 {
            cluster.stop(master);
        } else {
            cluster.kill(master);
            prober.forgive(cluster.node(master), cluster.node(slave));
        }
        cluster.promote(slave);
        prober.await_rows();
        cluster.start(master);
        (master, slave) = (slave, master);
        cluster.await_order(master, &[slave]);
    }
    prober.end(&cluster, master, &[slave]);
}
