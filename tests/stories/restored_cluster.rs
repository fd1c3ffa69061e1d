//! A node that keeps the backups of a cluster follows whoever leads, and a cluster of which nothing but that
//! node is left comes back from it.

use crate::harness::{Answer, Cluster, Container, Node, Recipe, await_within};
use std::time::{Duration, Instant};

/// Until barman is in order again after a failover.
const IN_ORDER_WITHIN: Duration = Duration::from_secs(120);

/// As in `compose/primary-standby.yml`: all three vote.
pub(crate) fn cluster() -> Cluster {
    Cluster::stack_with(|_, recipe| {
        let flags = ["-c", "autovacuum=off"];
        let recipe = recipe.env("BARMAN_COMPRESSION", "gzip");
        recipe.env("PGHERD_FAILOVER", "quorum").command(["postgres"].into_iter().chain(flags))
    })
}

pub(crate) fn barman(node: &Container, words: &[&'static str]) -> Answer {
    node.exec_as("barman", ["barman"].into_iter().chain(words.iter().copied()))
}

/// The ids of those that are done.
pub(crate) fn backups(node: &Container) -> Vec<String> {
    let listed = barman(node, &["list-backup", "pgherd"]).stdout;
    let is_done = |line: &&str| line.contains("Size:") && !line.contains("WAITING_FOR_WALS");
    let id = |line: &str| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    listed.lines().filter(is_done).map(id).collect()
}

fn await_in_order(node: &Node, since: Instant, backups_then: usize) {
    let limit = IN_ORDER_WITHIN.saturating_sub(since.elapsed());
    await_within(limit, "barman check is all OK, and there is a new backup", || {
        let check = barman(node, &["check", "pgherd"]);
        (check.status == 0 && backups(node).len() > backups_then).then_some(())
    });
    println!("barman was in order after {} s", since.elapsed().as_secs());
}

fn write(node: &Node, rows: std::ops::RangeInclusive<u32>) {
    for n in rows {
        node.ask(&format!("INSERT INTO told VALUES ({n})"));
    }
}

fn now(node: &Node) -> String {
    node.ask("SELECT clock_timestamp()")
}

#[test]
#[ignore = "needs docker: make test"]
fn a_cluster_of_which_only_the_backup_node_is_left_comes_back_from_before_its_last_failover() {
    let mut cluster = cluster();
    for id in [3, 1, 2] {
        cluster.start(id);
    }
    cluster.await_order(1, &[2]);
    let backup = cluster.node(3);
    await_in_order(backup, Instant::now(), 0);
    from_any_node(cluster.node(2));
    cluster.node(1).ask("CREATE TABLE told (n int)");
    write(cluster.node(1), 1..=10);
    let on_the_first_timeline = now(cluster.node(1));
    write(cluster.node(1), 11..=20);
    cluster.await_synchronous(1);

    let taken = backups(backup).len();
    let failed_over = Instant::now();
    cluster.kill(1);
    cluster.await_primary(&[2], Duration::from_secs(30));
    write(cluster.node(2), 21..=30);
    let on_the_second = now(cluster.node(2));
    write(cluster.node(2), 31..=40);
    await_in_order(backup, failed_over, taken);
    assert_eq!(holes(backup), "");
    cluster.start(1);
    cluster.await_order(2, &[1]);

    // Both data nodes' disks are gone. Across the failover, from the backup before it.
    let before = backups(cluster.node(3)).len();
    cluster.kill_at_the_same_time(&[1, 2]);
    cluster.lose_data(1);
    cluster.lose_data(2);
    let restoring = |moment: &str| {
        let moment = moment.to_owned();
        move |recipe: Recipe| {
            recipe.env("RESTORE_FROM", "latest").env("RESTORE_TARGET_TIME", &moment)
        }
    };
    cluster.recreate(1, restoring(&on_the_second));
    let restored = Instant::now();
    cluster.start(1);
    cluster.start(2);
    cluster.await_order(1, &[2]);
    let told = "SELECT count(*) || ' to ' || max(n) FROM told";
    assert_eq!(cluster.node(1).ask(told), "30 to 30");
    assert_eq!(cluster.node(2).ask(told), "30 to 30");
    await_in_order(cluster.node(3), restored, before);

    // And once more, to the timeline before both.
    cluster.kill_at_the_same_time(&[1, 2]);
    cluster.lose_data(1);
    cluster.lose_data(2);
    cluster.recreate(1, |recipe| {
        restoring(&on_the_first_timeline)(recipe).env("RESTORE_TARGET_TIMELINE", "1")
    });
    cluster.start(1);
    cluster.start(2);
    cluster.await_order(1, &[2]);
    assert_eq!(cluster.node(1).ask(told), "10 to 10");
    assert_eq!(cluster.node(2).ask(told), "10 to 10");
    cluster.keeps_its_secrets();
}

/// It has no barman of its own.
fn from_any_node(node: &Node) {
    let taken = node.exec(["pgherd", "backup", "--wait", "--name", "by-hand"]).ok();
    let listed = node.exec(["pgherd", "backups"]).ok();
    assert!(listed.contains(&taken) && listed.contains("by-hand"), "{taken}: {listed}");
    let twice = node.exec(["pgherd", "backup", "--name", "latest"]);
    assert_eq!(twice.status, 3, "{twice:?}");
    let state = node.await_showing("the status says so", || {
        let backups = node.status_json()["backups"].clone();
        let is_there = backups["last"] == taken.as_str() && backups["count"] == 2;
        is_there.then(|| backups["state"].clone()).ok_or_else(|| format!("{backups:#}"))
    });
    assert_eq!(state, "ok");
    assert!(node.status().contains("backups on backup: 2, the newest"), "{}", node.status());
}

/// The WAL files that are missing between the first and the last of a timeline.
pub(crate) fn holes(node: &Container) -> String {
    let script = "cd /home/barman/data/pgherd/wals && last= && \
        for file in $(for dir in ????????????????; do ls $dir; done | grep -xE '[0-9A-F]{24}'); do \
          timeline=${file:0:8}; number=$((16#${file:16:8})); \
          [[ $timeline == $last && $number != $((before + 1)) ]] && echo before $file; \
          last=$timeline; before=$number; \
        done; true";
    println!("{}", node.exec(["bash", "-c", "ls /home/barman/data/pgherd/wals/*"]).stdout);
    node.exec(["bash", "-c", script]).ok()
}
