//! Postgres, pg_rewind and standbys tell histories apart by their numbers. No two get the same where pgherd
//! promotes, and where hands did that it is seen.

use crate::harness::{Cluster, LEADS_WITHIN, await_follows, await_within};
use std::time::Duration;

/// node3 was away when node2 was promoted, and node2 is lost before anybody has followed it: what node3 begins
/// is another timeline, or its history and node2's would be taken for one.
#[test]
#[ignore = "needs docker: make test"]
fn a_timeline_that_nobody_followed_keeps_its_number() {
    let cluster = Cluster::three_and_backups();
    for id in 1..=4 {
        cluster.start(id);
    }
    cluster.await_order(1, &[2, 3]);
    cluster.await_electorate(&[1, 2, 4]);
    cluster.node(1).ask("CREATE TABLE told (n int)");
    cluster.await_synchronous(1);
    cluster.kill(3);
    await_within(LEADS_WITHIN, "node2 is synchronous", || {
        (cluster.synchronous(1) == Some(2)).then_some(())
    });
    cluster.kill(1);
    cluster.await_primary(&[2], LEADS_WITHIN);
    cluster.node(2).ask("INSERT INTO told VALUES (2)");
    assert_eq!(cluster.timeline(2), 2);
    cluster.kill(2);
    cluster.start(3);
    cluster.start(1); // It votes.
    let third = cluster.node(3);
    third.await_alive("it leads, by a person's word", || {
        let given = third.exec(["pgherd", "failover", "--allow-data-loss", "--to", "node3"]);
        (given.status == 0).then_some(())
    });
    cluster.await_primary(&[3], LEADS_WITHIN);
    third.ask("INSERT INTO told VALUES (3)");
    assert_eq!(cluster.timeline(3), 3);
    let history = third.ask("SELECT trim(pg_read_file('pg_wal/00000003.history'))");
    assert_eq!(history.lines().count(), 1, "it comes from the first: {history}");
    cluster.start(2);
    cluster.await_order(3, &[1, 2]);
    for id in 1..=3 {
        assert_eq!(cluster.node(id).ask("SELECT string_agg(n::text, ' ') FROM told"), "3");
    }
}

/// node4 follows over the number that was left out, and is killed before its control file knows of it: it finds the
/// way to what it has received.
#[test]
#[ignore = "needs docker: make test"]
fn a_slave_that_followed_over_a_number_that_was_left_out_has_every_row_when_it_leads() {
    let cluster = Cluster::with(6, |id, recipe| {
        let recipe = recipe
            .env("PGHERD_FAILOVER", "quorum")
            .env("PGHERD_BACKUPS", "elsewhere")
            .env("PGHERD_VOTERS", "node2,node5,node6");
        if id > 4 { recipe.env("PGHERD_ROLE", "witness") } else { recipe }
    });
    for id in 1..=6 {
        cluster.start(id);
    }
    for id in 2..=4 {
        await_follows(cluster.node(id), cluster.node(1));
    }
    cluster.node(1).ask("CREATE TABLE told (n int)");
    cluster.kill_at_the_same_time(&[3, 4]);
    await_within(LEADS_WITHIN, "node2 is synchronous", || {
        (cluster.synchronous(1) == Some(2)).then_some(())
    });
    cluster.kill(1);
    cluster.await_primary(&[2], LEADS_WITHIN);
    cluster.kill(2);
    cluster.start(4);
    let third = cluster.start(3);
    third.await_alive("it leads, by a person's word", || {
        let given = third.exec(["pgherd", "failover", "--allow-data-loss", "--to", "node3"]);
        (given.status == 0).then_some(())
    });
    cluster.await_primary(&[3], LEADS_WITHIN);
    await_follows(cluster.node(4), third);
    await_within(LEADS_WITHIN, "node4 is synchronous", || {
        (cluster.synchronous(3) == Some(4)).then_some(())
    });
    third.ask("INSERT INTO told VALUES (3)");
    cluster.kill_at_the_same_time(&[3, 4]);
    cluster.start(4);
    cluster.await_primary(&[4], Duration::from_secs(60));
    assert_eq!(cluster.node(4).ask("SELECT string_agg(n::text, ' ') FROM told"), "3");
    assert_eq!(cluster.timeline(4), 4);
}

/// Neither has heard of the other, and Postgres gives both timelines the number 2, which is all that pg_rewind and a
/// standby go by.
#[test]
#[ignore = "needs docker: make test"]
fn a_slave_tells_apart_two_timelines_of_one_number_that_hands_have_made() {
    let mut cluster = Cluster::up(4, 0);
    cluster.node(1).ask("CREATE TABLE told (n int)");
    cluster.await_order(1, &[2, 3, 4]);
    cluster.cut(3);
    cluster.node(1).ask("INSERT INTO told VALUES (1)"); // Or both would begin at the same place, too.
    for id in [2, 4] {
        let has = || (cluster.node(id).ask("SELECT count(*) FROM told") == "1").then_some(());
        cluster.node(id).await_alive("it has the row", has);
    }
    cluster.kill(1);
    cluster.promote(2);
    cluster.node(2).ask("INSERT INTO told SELECT 2 FROM generate_series(1, 1000)");
    let has = || (cluster.node(4).ask("SELECT count(*) FROM told") == "1001").then_some(());
    cluster.node(4).await_alive("it follows node2", has);
    cluster.promote(3);
    cluster.node(3).ask("INSERT INTO told SELECT 3 FROM generate_series(1, 100000)");
    assert_eq!((cluster.timeline(2), cluster.timeline(3)), (2, 2));
    let lines = cluster.log_lines(4);
    cluster.kill(2);
    cluster.heal(3);
    let told = "SELECT string_agg(DISTINCT n::text, ' ') FROM told";
    let has = || (cluster.node(4).sql(told).stdout.trim() == "3").then_some(());
    cluster.node(4).await_alive("it has what node3 has", has);
    let log = cluster.log_since(4, lines);
    assert!(log.contains("a timeline 2 of its own"), "{log}");
}
