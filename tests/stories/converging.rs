//! One loss after another, and losses that cannot be undone simply: in the end one leads, all others
//! follow, and nobody was needed.

use crate::harness::{Cluster, LEADS_WITHIN, Prober, await_within};
use std::time::Duration;

fn voting() -> (Cluster, Prober) {
    let cluster = Cluster::voting_up(3);
    let prober = cluster.probe();
    (cluster, prober)
}

fn has_role(cluster: &Cluster, id: usize, state: &str) {
    cluster.node(id).await_showing(&format!("it says that it is {state}"), || {
        let status = cluster.node(id).status_json();
        let own = &status["nodes"][0];
        (own["state"] == state).then_some(()).ok_or_else(|| own.to_string())
    });
}

/// The first is lost, then the second; the third has every write.
#[test]
#[ignore = "needs docker: make test"]
fn two_lost_one_after_the_other_come_back_in_either_order() {
    let (cluster, prober) = voting();
    let mut primary = 1;
    for first_is_first in [true, false] {
        let (first, second) = (primary, cluster.await_synchronous(primary));
        cluster.kill(first);
        assert_eq!(cluster.await_primary(&cluster.others(&[first]), LEADS_WITHIN), second);
        prober.await_rows();
        let third = cluster.await_synchronous(second);
        prober.await_rows();
        cluster.kill(second);
        // One vote of three.
        let (sooner, later) = if first_is_first { (first, second) } else { (second, first) };
        cluster.start(sooner);
        let may = if first_is_first { vec![third] } else { vec![second, third] };
        primary = cluster.await_primary(&may, Duration::from_secs(60));
        println!("node{first}, node{second} lost, node{sooner} back: node{primary} leads");
        prober.await_rows();
        cluster.start(later);
        primary = cluster.await_calm();
        cluster.await_settled(primary); // Its slots are exact.
    }
    prober.end(&cluster, primary, &cluster.others(&[primary]));
}

/// The old primary's own WAL back to where the histories part is gone, and nobody has an archive.
#[test]
#[ignore = "needs docker: make test"]
fn a_primary_that_cannot_be_rewound_is_cloned_again_beside_what_it_has() {
    let (cluster, mut prober) = voting();
    cluster.kill(1);
    prober.forgive(cluster.node(1), cluster.node(2)); // Nobody waits for what it had sent nobody.
    let new = cluster.await_primary(&[2, 3], LEADS_WITHIN);
    prober.await_rows();
    let data = cluster.node(1).pgdata();
    cluster.node(1).data.shell(&format!("rm -f /v/{}/docker/pg_wal/0*", major(&data)));
    let lines = cluster.log_lines(1);
    cluster.start(1);
    cluster.await_settled(new);
    let log = cluster.log_since(1, lines);
    assert!(log.contains("copies "), "a new copy was made: {log}");
    assert_eq!(cluster.timeline(new), 2);
    prober.end(&cluster, new, &cluster.others(&[new]));
}

fn major(pgdata: &std::path::Path) -> String {
    let parent = pgdata.parent().and_then(|parent| parent.file_name());
    parent.expect("17/docker").to_string_lossy().into_owned()
}

/// Nobody can write to its data directory: the promotion fails, and the one before leads again.
#[test]
#[ignore = "needs docker: make test"]
fn a_standby_that_cannot_be_promoted_gives_the_lead_back() {
    let (cluster, prober) = voting();
    let standby = cluster.await_synchronous(1);
    let pgdata = cluster.node(standby).ask("SHOW data_directory");
    cluster.node(standby).shell(&format!("chmod 500 {pgdata}")).ok();
    let (code, said) = cluster.wish(1, "POST", &format!("/switchover?to=node{standby}"));
    assert_eq!(code, 202, "{said}");
    await_within(LEADS_WITHIN, "the lead was given away", || {
        cluster.node(1).log().contains("the lead was handed to").then_some(())
    });
    let new = cluster.await_primary(&cluster.others(&[standby]), LEADS_WITHIN * 3);
    println!("node{standby} could not be promoted, and node{new} leads");
    prober.await_rows();
    let events = cluster.node(standby).exec(["pgherd", "events"]).text();
    assert!(events.contains("lead.given-back"), "{events}");
    cluster.node(standby).shell(&format!("chmod 700 {pgdata}")).ok();
    has_role(&cluster, standby, "running");
    let primary = cluster.await_calm();
    cluster.await_settled(primary);
    prober.end(&cluster, primary, &cluster.others(&[primary]));
}
