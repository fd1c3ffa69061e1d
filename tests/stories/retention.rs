//! What barman keeps and what it does not, over days: what a moment within `BARMAN_RETENTION` takes to be
//! brought back is there, also across a failover, and nothing else.
//!
//! The days are simulated: barman goes by the times in its `backup.info` files, and these are put back.

use crate::harness::{Node, await_within};
use crate::restored_cluster::{backups, barman, cluster, holes};
use std::time::Duration;

const BACKUP: usize = 3;
const BACKED_UP_WITHIN: Duration = Duration::from_secs(120);

/// The newest that is complete, where there are so many.
fn await_backups(keeper: &Node, count: usize) -> String {
    await_within(BACKED_UP_WITHIN, &format!("there are {count} backups"), || {
        let there = backups(keeper);
        (there.len() == count).then(|| there.into_iter().max().unwrap_or_default())
    })
}

fn take(asked: &Node) -> String {
    asked.exec(["pgherd", "backup", "--wait"]).ok()
}

/// It was taken so many days ago, as far as barman knows.
fn put_back(keeper: &Node, id: &str, days: u32) {
    let script = format!(
        "cd /home/barman/data/pgherd && for info in base/{id}/backup.info meta/{id}-backup.info; do \
           [ -e $info ] || continue; \
           for key in begin_time end_time; do \
             at=$(sed -n \"s/^$key=//p\" $info); \
             sed -i \"s/^$key=.*/$key=$(date -u -d \"$at - {days} days\" '+%Y-%m-%d %H:%M:%S.000001+00:00')/\" $info; \
           done; done; sed -n 's/^end_time=//p' base/{id}/backup.info meta/{id}-backup.info 2>/dev/null | head -1"
    );
    let at = keeper.exec_as("barman", ["bash", "-c", script.as_str()]).ok();
    println!("backup {id} was taken at {at}");
}

/// The first WAL file that a backup needs.
fn first_wal(keeper: &Node, id: &str) -> String {
    let shown = barman_shows(keeper, id);
    let line = shown.lines().find(|line| line.contains("Begin WAL")).unwrap_or_default();
    line.split(':').nth(1).unwrap_or_default().trim().to_owned()
}

fn barman_shows(keeper: &Node, id: &str) -> String {
    keeper.exec_as("barman", ["barman", "show-backup", "pgherd", id]).ok()
}

#[test]
#[ignore = "needs docker: make test"]
fn what_the_window_takes_is_kept_across_a_failover_and_nothing_else() {
    let cluster = cluster();
    for id in [BACKUP, 1, 2] {
        cluster.start(id);
    }
    cluster.await_order(1, &[2]);
    let keeper = cluster.node(BACKUP);
    let first = await_backups(keeper, 1);
    cluster.node(1).ask("CREATE TABLE told AS SELECT generate_series(1, 10) AS n");
    let second = take(cluster.node(1));
    cluster.node(1).ask("INSERT INTO told SELECT generate_series(11, 20)");
    cluster.await_synchronous(1);
    cluster.kill(1);
    cluster.await_primary(&[2], Duration::from_secs(30));
    cluster.node(2).ask("INSERT INTO told SELECT generate_series(21, 30)");
    // Another history has begun.
    let third = await_backups(keeper, 3);
    cluster.start(1);
    cluster.await_order(2, &[1]);
    let fourth = take(cluster.node(2));
    let oldest_needed = first_wal(keeper, &second);
    let before = first_wal(keeper, &first);
    assert!(before < oldest_needed, "{before} {oldest_needed}");

    // Of five days, the default: the second is the last one that is older.
    for (id, days) in [(&first, 12), (&second, 7), (&third, 3)] {
        put_back(keeper, id, days);
    }
    await_within(BACKED_UP_WITHIN, "what is too old is gone", || {
        barman(keeper, &["cron"]);
        (!backups(keeper).contains(&first)).then_some(())
    });
    let mut kept = backups(keeper);
    kept.sort();
    assert_eq!(kept, [second.clone(), third.clone(), fourth.clone()]);
    let list = "cd /home/barman/data/pgherd/wals && ls ????????????????";
    let wals = keeper.exec_as("barman", ["bash", "-c", list]).ok();
    let has = |name: &str| wals.lines().any(|line| line == name);
    assert!(has(&oldest_needed) && !has(&before), "{oldest_needed}, not {before}: {wals}");
    assert_eq!(holes(keeper), "");
    for id in &kept {
        let checked = keeper.exec_as("barman", ["barman", "check-backup", "pgherd", id.as_str()]);
        assert_eq!(checked.status, 0, "{}", checked.text());
        assert!(barman_shows(keeper, id).contains("DONE"), "{id}");
    }
    let check = barman(keeper, &["check", "pgherd"]);
    assert_eq!(check.status, 0, "{}", check.text());

    // And it restores from the oldest on, across the failover.
    let answer = cluster.node(1).exec(["pgherd", "restore", second.as_str(), "--yes"]);
    assert_eq!(answer.status, 0, "{}", answer.text());
    let told = "SELECT count(*) || ' to ' || max(n) FROM told";
    assert_eq!(cluster.node(2).ask(told), "30 to 30");
    cluster.await_order(2, &[1]);
    assert_eq!(cluster.node(1).ask(told), "30 to 30");
}
