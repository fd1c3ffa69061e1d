//! A base backup that another node's becoming primary interrupts is of no use to anybody, and in the way of
//! those after it.

use crate::harness::{Cluster, Container, await_within};
use std::time::Duration;

const BACKUP: usize = 3;
const BACKED_UP_WITHIN: Duration = Duration::from_secs(120);
/// A job each minute, and what two of them take on a noisy machine.
const PUT_RIGHT_WITHIN: Duration = Duration::from_secs(240);
const INFOS: &str = "cd /home/barman/data/pgherd; \
    for info in meta/*-backup.info base/*/backup.info; do [ -e $info ] || continue; echo \"$info \
    $(sed -n 's/^status=//p; s/^timeline=//p' $info | tr '\\n' ' ')\"; done";

/// A line for each backup: the file about it, its status and timeline.
fn infos(keeper: &Container) -> Vec<String> {
    keeper.shell(INFOS).stdout.lines().map(|line| line.trim().to_owned()).collect()
}

/// Another like the first one, with these words in it.
fn forge(keeper: &Container, id: &str, status: &str, end_timeline: u32) {
    let script = format!(
        "cd /home/barman/data/pgherd; from=$(ls meta/*-backup.info base/*/backup.info | head -n 1); \
         case $from in meta/*) to=meta/{id}-backup.info;; *) to=base/{id}/backup.info;; esac; \
         mkdir -p base/{id}/data; chown -R barman: base/{id}; \
         sed 's/^status=.*/status={status}/; s/^end_wal=......../end_wal={end_timeline:08X}/' $from > $to; \
         chown barman: $to"
    );
    keeper.shell(&script).ok();
}

#[test]
#[ignore = "needs docker: make test"]
fn a_base_backup_that_a_handover_interrupts_goes_away_and_a_new_one_is_taken() {
    let cluster = Cluster::stack();
    for id in [BACKUP, 1, 2] {
        cluster.start(id);
    }
    let keeper = cluster.node(BACKUP);
    cluster.node(1).await_ready();
    cluster.await_following(1, &[2]);
    await_within(BACKED_UP_WITHIN, "there is a first backup", || {
        infos(keeper).iter().any(|info| info.contains("DONE")).then_some(())
    });
    // As barman leaves one behind whose copy broke off. It stays until the primary is another: a person may look.
    forge(keeper, "21000101T000002", "FAILED", 1);
    await_within(PUT_RIGHT_WITHIN, "the node saw that it failed", || {
        let events = keeper.exec(["pgherd", "events"]).stdout;
        events.contains("base backup 21000101T000002 failed").then_some(())
    });
    cluster.stop(1);
    cluster.promote(2);
    // As barman leaves one behind whose last question the new primary answered.
    forge(keeper, "21000101T000001", "WAITING_FOR_WALS", 2);
    let left = |id: &str| infos(keeper).iter().any(|info| info.contains(id));
    await_within(PUT_RIGHT_WITHIN, "they are gone, and a new backup is complete", || {
        let infos = infos(keeper);
        let is_new = |info: &String| info.ends_with("DONE 2") || info.ends_with("2 DONE");
        (!left("21000101T000001") && !left("21000101T000002") && infos.iter().any(is_new))
            .then_some(())
    });
    let log = keeper.log();
    assert!(log.contains("it began on timeline 1 and ended on timeline 2"), "{log}");
    let events = keeper.exec(["pgherd", "events"]).stdout;
    let deleted = "base backup 21000101T000002 came to nothing and was deleted";
    assert!(events.contains(deleted), "{events}");
    keeper.await_showing("barman has nothing to complain of", || {
        let check = keeper.exec_as("barman", ["barman", "check", "pgherd"]);
        let failed = check.stdout.contains("failed backups: FAILED");
        (!failed).then_some(()).ok_or_else(|| check.text())
    });
}

#[test]
#[ignore = "needs docker: make test"]
fn a_backup_that_somebody_asks_for_comes_after_the_one_under_way_and_is_the_one_that_is_named() {
    let cluster = Cluster::stack();
    for id in [BACKUP, 1] {
        cluster.start(id);
    }
    let (node, keeper) = (cluster.node(1), cluster.node(BACKUP));
    await_within(BACKED_UP_WITHIN, "there is a first backup", || {
        infos(keeper).iter().any(|info| info.contains("DONE")).then_some(())
    });
    // As cron's, and slow.
    keeper
        .shell(
            "su barman -c 'barman backup --bwlimit 4000 pgherd >/tmp/other 2>&1' >/dev/null 2>&1 &",
        )
        .ok();
    await_within(BACKED_UP_WITHIN, "it is under way", || {
        infos(keeper).iter().any(|info| info.contains("STARTED")).then_some(())
    });
    let taken = node.exec(["pgherd", "backup", "--wait", "--name", "asked-for"]);
    assert_eq!(taken.status, 0, "{}", taken.text());
    assert!(taken.stderr.contains("this one comes after it"), "{}", taken.text());
    let listed = node.exec(["pgherd", "backups"]).ok();
    let line = listed.lines().find(|line| line.contains("asked-for"));
    let line = line.unwrap_or_else(|| panic!("it is not there: {listed}"));
    assert!(line.starts_with(taken.stdout.trim()), "{}: {listed}", taken.stdout);
    let unknown = node.exec(["pgherd", "restore", "before", "--dry-run"]);
    assert!(unknown.text().contains("asked-for"), "by their names, too: {}", unknown.text());
}
