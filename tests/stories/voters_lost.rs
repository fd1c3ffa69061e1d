//! More than half of the voters have lost their disks at once, and with them who leads: no majority can ever be
//! had again of those that there were. What the third remembers is a stranger's to the new ones.

use crate::harness::{Cluster, LEADS_WITHIN, await_within};
use crate::restored_cluster;
use std::time::Duration;

/// They find each other, the third one finds that they have, and the record is founded again.
const AGAIN_WITHIN: Duration = Duration::from_secs(90);

fn up() -> Cluster {
    let cluster = restored_cluster::cluster();
    for id in [1, 3, 2] {
        cluster.start(id);
    }
    cluster.await_order(1, &[2]);
    cluster.await_synchronous(1);
    cluster.node(1).ask("CREATE TABLE told (n int)");
    cluster
}

fn told(cluster: &Cluster, on: usize) -> String {
    cluster.node(on).ask("SELECT string_agg(n::text, ' ' ORDER BY n) FROM told")
}

#[test]
#[ignore = "needs docker: make test"]
fn a_master_goes_on_with_voters_that_have_all_lost_their_disks_and_so_again() {
    let mut cluster = up();
    for round in 1..=2 {
        cluster.node(1).ask(&format!("INSERT INTO told VALUES ({round})"));
        cluster.kill_at_the_same_time(&[2, 3]);
        cluster.lose_data(2);
        cluster.lose_data(3);
        cluster.start(2);
        cluster.start(3);
        // By the word of the members it leads until there is another electorate, which has no record.
        cluster.await_electorate(&[1, 2, 3]);
        await_within(AGAIN_WITHIN, "node1 leads", || (cluster.primaries() == [1]).then_some(()));
        cluster.await_order(1, &[2]);
        cluster.await_synchronous(1);
    }
    assert_eq!(told(&cluster, 2), "1 2");
    // And the votes count.
    let prober = cluster.probe();
    prober.await_rows();
    cluster.kill(1);
    cluster.await_primary(&[2], LEADS_WITHIN);
    cluster.start(1);
    cluster.await_order(2, &[1]);
    prober.await_rows();
    prober.end(&cluster, 2, &[1]);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_slave_that_alone_is_left_waits_for_a_persons_word_and_loses_nothing() {
    let mut cluster = up();
    cluster.node(1).ask("INSERT INTO told VALUES (1)");
    cluster.await_synchronous(1);
    cluster.kill_at_the_same_time(&[1, 3]);
    cluster.lose_data(1);
    cluster.lose_data(3);
    cluster.start(1);
    cluster.start(3);
    // The empty master makes no other cluster beside it.
    cluster.await_electorate(&[1, 2, 3]);
    assert!(cluster.primaries().is_empty() && !cluster.node(1).has_data());
    let refused = cluster.node(2).exec(["pgherd", "failover"]);
    assert!(refused.stderr.contains("--allow-data-loss"), "{refused:?}");
    cluster.node(2).exec(["pgherd", "failover", "--allow-data-loss"]).ok();
    cluster.await_primary(&[2], LEADS_WITHIN);
    cluster.await_order(2, &[1]);
    assert_eq!(told(&cluster, 1), "1");
    cluster.await_synchronous(2);
}
