//! A cluster is seen, and its primary found, from each of its nodes.

use crate::harness::{Cluster, LEADS_WITHIN, LEASE, TOKEN, await_that};
use serde_json::Value;
use std::time::{Duration, Instant};

/// What a browser gets.
fn page(cluster: &Cluster, id: usize) -> String {
    let (code, page) = cluster.node(id).http_for_browser("/").expect("it answers");
    assert_eq!(code, 200, "{page}");
    page
}

fn json(cluster: &Cluster, id: usize, path: &str) -> Value {
    let (code, text) = cluster.node(id).http(path).expect("it answers");
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

#[test]
#[ignore = "needs docker: make test"]
fn every_node_shows_the_whole_cluster_and_who_leads_through_a_failover() {
    let cluster = Cluster::voting_up(3);
    let sync = cluster.await_synchronous(1);
    for id in 1..=3 {
        // Others say what they see every few seconds.
        cluster.node(id).await_showing("its page shows all three and who has every write", || {
            let page = page(&cluster, id);
            let expected = [
                "node1 leads (epoch 1)".to_owned(),
                format!("node{sync}, standby, running, follows node1, synchronous"),
                format!("As <strong>node{id}</strong> sees it"),
                "node1 takes the lead".to_owned(),
            ];
            expected.iter().all(|one| page.contains(one)).then_some(()).ok_or(page)
        });
        assert!(!page(&cluster, id).contains(TOKEN));
        let members = json(&cluster, id, "/cluster");
        let leaders: Vec<_> = members["members"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|member| member["role"] == "leader")
            .map(|member| member["name"].clone())
            .collect();
        assert_eq!(leaders, ["node1"], "{members:#}");
        let recovery =
            cluster.node(id).exec(["pgherd", "psql", "-XAtc", "SELECT pg_is_in_recovery()"]);
        assert_eq!(recovery.ok(), "f", "psql is connected to the primary");
    }
    let without = cluster.node(2).http_as("another", "POST", "/relay/switchover?to=node2");
    assert_eq!(without.expect("it answers").0, 401);
    let (code, said) =
        cluster.wish(2, "POST", &format!("/relay/switchover?to=node{sync}&dry_run=1"));
    assert_eq!(code, 202, "any node asks the one that leads: {said}");

    cluster.kill(1);
    let killed = Instant::now();
    let state = |id: usize| {
        let seen = json(&cluster, id, "/status");
        (seen["state"].as_str().unwrap_or_default().to_owned(), seen["primary"].clone())
    };
    await_that("it is said that nobody leads", || {
        (state(sync) == ("failing-over".to_owned(), Value::Null)).then_some(())
    });
    let said = killed.elapsed();
    println!("failing-over is said after {:.2} s", said.as_secs_f64());
    assert!(said < LEASE + Duration::from_secs(1), "{said:?}");
    let leader = cluster.await_primary(&[2, 3], LEADS_WITHIN);
    let other = 5 - leader;
    for id in [leader, other] {
        cluster.node(id).await_showing("its page shows who leads now, and who is gone", || {
            let page = page(&cluster, id);
            let leads = page.contains(&format!("node{leader} leads (epoch 2)"));
            let gone = page.contains("node1, was primary, unreachable");
            (leads && gone).then_some(()).ok_or(page)
        });
    }
    cluster.node(leader).await_showing("its metrics and its history say so", || {
        let (_, metrics) = cluster.node(leader).http("/metrics").unwrap_or_default();
        let says = |what: &str| {
            metrics.lines().any(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap_or_default();
                name.starts_with(what) && value == "1"
            })
        };
        let told = says("pgherd_takeovers_total") && says("pgherd_members_unreachable");
        let history = json(&cluster, leader, "/history");
        let forks = history.as_array().map(Vec::len).unwrap_or_default();
        (told && forks == 1).then_some(()).ok_or(format!("{metrics}\n{history}"))
    });
}
