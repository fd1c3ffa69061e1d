//! A name, an id and an address belong to one node, for good.

use crate::harness::{Cluster, Container, Node, await_follows};

/// What repmgr has in its records of one node, or of all.
fn records(node: &Node, of: &str) -> String {
    let query = format!(
        "SELECT node_id, node_name, type, active, conninfo, slot_name FROM repmgr.nodes \
         WHERE {of} ORDER BY 1"
    );
    node.exec_as("postgres", ["psql", "-XAtq", "-d", "repmgr", "-c", &query]).ok()
}

/// A walsender's process, which is another one after every interruption.
fn sender(primary: &Node, of: &str) -> String {
    primary.ask(&format!("SELECT pid FROM pg_stat_replication WHERE application_name = '{of}'"))
}

fn error_of(container: &Container) -> String {
    assert_ne!(container.await_end(), 0, "{}", container.log());
    let log = container.log();
    let errors: Vec<_> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    errors[0].to_owned()
}

#[test]
#[ignore = "needs docker: make test"]
fn a_name_or_an_id_that_another_node_has_is_refused_and_that_node_goes_on() {
    let mut cluster = Cluster::of(3);
    for id in [1, 2] {
        cluster.start(id);
    }
    cluster.await_order(1, &[2]);
    let before = (records(cluster.node(1), "true"), sender(cluster.node(1), "node2"));

    for (what, name, id) in [("name", "node2", "7"), ("id", "third", "2"), ("both", "node2", "2")] {
        cluster
            .recreate(3, |recipe| recipe.env("REPMGR_NODE_NAME", name).env("REPMGR_NODE_ID", id));
        let error = error_of(cluster.start(3));
        for address in ["node2:5432", "node3:5432"] {
            assert!(error.contains(address), "{what}: {address} in {error}");
        }
        let after = (records(cluster.node(1), "true"), sender(cluster.node(1), "node2"));
        assert_eq!(after, before, "{what}");
        cluster.await_order(1, &[2]); // No slot of the one that was refused.
        assert!(!cluster.node(3).has_data(), "{what}");
    }
    // The master's are nobody else's either.
    cluster
        .recreate(3, |recipe| recipe.env("REPMGR_NODE_NAME", "node1").env("REPMGR_NODE_ID", "9"));
    let error = error_of(cluster.start(3));
    assert!(error.contains("node1:5432") && error.contains("node3:5432"), "{error}");

    // With a name and an id of its own it is welcome.
    cluster
        .recreate(3, |recipe| recipe.env("REPMGR_NODE_NAME", "node3").env("REPMGR_NODE_ID", "3"));
    cluster.start(3);
    cluster.await_order(1, &[2, 3]);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_name_without_a_number_gets_an_id_from_the_cluster_and_keeps_it() {
    let name = |id| if id == 2 { "lisbon" } else { "porto" };
    let mut cluster = Cluster::with(3, |id, recipe| match id {
        1 => recipe,
        _ => recipe.env("REPMGR_NODE_NAME", name(id)),
    });
    cluster.start(1);
    for id in [2, 3] {
        cluster.start(id); // Both at once: they ask for an id at the same time.
    }
    for id in [2, 3] {
        cluster.named(id, name(id));
        await_follows(cluster.node(id), cluster.node(1));
    }
    let ids = |cluster: &Cluster| {
        let query = "SELECT node_name, node_id FROM repmgr.nodes ORDER BY 1";
        let psql = ["psql", "-XAtq", "-d", "repmgr", "-c", query];
        cluster.node(1).exec_as("postgres", psql).ok()
    };
    cluster.node(1).await_showing("three are registered, each with an id of its own", || {
        let ids = ids(&cluster);
        let mut numbers: Vec<_> = ids.lines().filter_map(|row| row.split('|').nth(1)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        (numbers.len() == 3).then_some(()).ok_or(ids)
    });
    let given = ids(&cluster);
    assert!(given.contains("node1|1"), "{given}");

    for id in [3, 2] {
        cluster.stop(id);
    }
    for id in [3, 2] {
        cluster.recreate(id, |recipe| recipe); // Another container, the same volume.
        cluster.start(id);
        await_follows(cluster.node(id), cluster.node(1));
    }
    assert_eq!(ids(&cluster), given);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE active";
    assert_eq!(cluster.node(1).ask(slots), "2");
}

/// Its disk is gone, its name, its id and its address are not.
#[test]
#[ignore = "needs docker: make test"]
fn a_slave_whose_disk_was_lost_takes_its_own_place_again() {
    let mut cluster = Cluster::up(2, 0);
    cluster.await_order(1, &[2]);
    let before = records(cluster.node(1), "node_id = 2");
    cluster.kill(2);
    cluster.lose_data(2);
    cluster.start(2);
    cluster.await_order(1, &[2]);
    assert_eq!(records(cluster.node(1), "node_id = 2"), before);
}

/// `REPMGR_MASTER=true` says what an empty volume becomes where there is nobody else.
#[test]
#[ignore = "needs docker: make test"]
fn a_master_whose_disk_was_lost_makes_no_second_cluster() {
    let mut cluster = Cluster::up(2, 0);
    let prober = cluster.probe();
    let system = cluster.node(1).ask("SELECT system_identifier FROM pg_control_system()");
    cluster.await_order(1, &[2]);
    cluster.stop(1);
    cluster.lose_data(1);
    cluster.start(1);
    let waits = || cluster.node(1).status().contains("node2").then_some(());
    cluster.node(1).await_alive("it waits for whoever has the data", waits);
    assert!(!cluster.node(1).has_data());
    assert_eq!(cluster.node(1).http("/readiness").map(|(code, _)| code), Some(503));

    cluster.promote(2);
    cluster.await_order(2, &[1]);
    let now = cluster.node(1).ask("SELECT system_identifier FROM pg_control_system()");
    assert_eq!(now, system);
    prober.end(&cluster, 2, &[1]);
}
