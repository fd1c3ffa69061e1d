//! `pgherd restore`: a cluster that runs goes back to a moment, or to all that its archive has, whichever of
//! its nodes is asked; and a restore that is interrupted has either happened or not.

use crate::harness::{Answer, Cluster, Container, Node, Prober, await_within, is_postmaster};
use std::time::{Duration, Instant};

/// Three data nodes, and this one.
const BACKUP: usize = 4;
const BACKED_UP_WITHIN: Duration = Duration::from_secs(120);
const RESTORED_WITHIN: Duration = Duration::from_secs(90);

fn backups(cluster: &Cluster) -> Vec<String> {
    let listed = cluster.node(BACKUP).exec_as("barman", ["barman", "list-backup", "pgherd"]).stdout;
    let is_done = |line: &&str| line.contains("Size:") && !line.contains("WAITING_FOR_WALS");
    let id = |line: &str| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    listed.lines().filter(is_done).map(id).collect()
}

/// What cron does each minute, begun now and again.
fn await_more_backups(cluster: &Cluster, than: usize) {
    await_within(BACKED_UP_WITHIN, "there is a new backup, and barman check is all OK", || {
        let node = cluster.node(BACKUP);
        let check = node.exec_as("barman", ["barman", "check", "pgherd"]);
        (check.status == 0 && backups(cluster).len() > than).then_some(())
    });
}

fn up() -> Cluster {
    let cluster = Cluster::three_and_backups();
    for id in [BACKUP, 1, 2, 3] {
        cluster.start(id);
    }
    cluster.await_order(1, &[2, 3]);
    cluster.await_synchronous(1);
    cluster.await_electorate(&[1, 2, BACKUP]);
    await_more_backups(&cluster, 0);
    cluster
}

fn restore(asked: &Container, words: &[&str]) -> Answer {
    asked.exec(["pgherd", "restore"].into_iter().chain(words.iter().copied()))
}

/// A moment, and the prober's last row before it.
fn now(node: &Node) -> (String, i64) {
    let said = node.ask("SELECT max(number) || '|' || clock_timestamp() FROM written");
    let (row, moment) = said.split_once('|').expect("two values");
    (moment.to_owned(), row.parse().expect("a number"))
}

/// How many of the rows are there that were written after `after`, before the cluster went back.
fn rows_after(node: &Node, after: i64, before: i64) -> String {
    // One may have been on its way while the moment was asked for.
    let after = after + 2;
    node.ask(&format!("SELECT count(*) FROM written WHERE number > {after} AND number <= {before}"))
}

fn rows(node: &Node) -> String {
    node.ask("SELECT count(*) || ' to ' || max(n) FROM told")
}

#[test]
#[ignore = "needs docker: make test"]
fn a_cluster_that_runs_goes_back_across_a_failover_and_everybody_follows() {
    let cluster = up();
    let mut prober = cluster.probe();
    cluster.node(1).ask("CREATE TABLE told AS SELECT generate_series(1, 10) AS n");
    let had_all = cluster.await_synchronous(1);
    cluster.kill(1);
    let primary = cluster.await_primary(&[had_all], Duration::from_secs(30));
    cluster.start(1);
    cluster.await_order(primary, &cluster.others(&[primary, BACKUP]));
    let leader = cluster.node(primary);
    leader.ask("INSERT INTO told SELECT generate_series(11, 20)");
    prober.await_rows();
    let (moment, row) = now(leader);
    prober.await_rows();
    leader.ask("INSERT INTO told SELECT generate_series(21, 30)");
    cluster.await_synchronous(primary);
    // What comes then serves no moment before it.
    await_more_backups(&cluster, 1);
    refused(&cluster, primary);

    // From a node that does not lead.
    let taken = backups(&cluster).len();
    let other = cluster.node(1);
    let foreseen = restore(other, &["--target-time", &moment, "--dry-run"]).ok();
    assert!(foreseen.contains("LOST: all that was written after"), "{foreseen}");
    let (_, before) = now(leader);
    let began = Instant::now();
    let answer = restore(other, &["--target-time", &moment, "--yes"]);
    assert_eq!(answer.status, 0, "{}", answer.text());
    assert!(answer.text().contains("on timeline 3"), "{}", answer.text());
    prober.forgive_after(leader, row);
    println!("restored after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(rows(leader), "20 to 20");
    assert!(before > row + 4);
    assert_eq!(rows_after(leader, row, before), "0");
    prober.await_rows();
    cluster.await_order(primary, &cluster.others(&[primary, BACKUP]));
    println!("all followed after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(cluster.timeline(primary), 3);
    cluster.await_synchronous(primary);
    await_more_backups(&cluster, taken);

    // And to all that there is: nothing is lost.
    leader.ask("INSERT INTO told SELECT generate_series(31, 40)");
    let taken = backups(&cluster).len();
    let answer = restore(cluster.node(BACKUP), &["--yes"]);
    assert_eq!(answer.status, 0, "{}", answer.text());
    assert_eq!(rows(leader), "30 to 40");
    prober.await_rows();
    cluster.await_order(primary, &cluster.others(&[primary, BACKUP]));
    cluster.await_synchronous(primary);
    assert_eq!(cluster.timeline(primary), 4);
    await_more_backups(&cluster, taken);
    prober.end(&cluster, primary, &cluster.others(&[primary, BACKUP]));
}

/// Before anything is touched, with the way out.
fn refused(cluster: &Cluster, primary: usize) {
    let leader = cluster.node(primary);
    for (words, says) in [
        (&["20200101T000000", "--yes"][..], "there is no backup 20200101T000000; there are"),
        (&["--target-time", "2020-01-01 00:00", "--yes"][..], "the earliest moment is"),
        (&["--target-time", "tomorrow", "--yes"][..], "a date and a time"),
        (&["--target-lsn", "F/0", "--yes"][..], "is after the end of the archive"),
        (&["--target-action", "pause", "--yes"][..], "takes a target"),
        (&[][..], "say --yes"),
    ] {
        let answer = restore(leader, words);
        assert_eq!(answer.status, 3, "{words:?}: {}", answer.text());
        assert!(answer.text().contains(says), "{words:?}: {}", answer.text());
    }
    assert_eq!(cluster.primaries(), [primary]);
    assert_eq!(leader.leftovers().len(), 0);
}

/// Begins a restore that waits for a person before it decides anything.
fn paused(cluster: &Cluster, prober: &Prober) -> i64 {
    let leader = cluster.node(1);
    let (moment, row) = now(leader);
    prober.await_rows();
    cluster.await_synchronous(1);
    pause_at(leader, &moment);
    row
}

fn pause_at(leader: &Node, moment: &str) {
    let words = format!("--target-time '{moment}' --target-action pause --yes");
    leader.shell(&format!("pgherd restore {words} >/tmp/restore 2>&1 &")).ok();
    leader.await_log("a person's word");
}

/// The person has looked.
fn resume(leader: &Node) {
    let resume = ["psql", "-h", "/run/pgherd/technical", "-p", "5434", "-XqAtc"];
    let query = "SELECT pg_wal_replay_resume()";
    leader.exec_as("postgres", resume.into_iter().chain([query])).ok();
}

#[test]
#[ignore = "needs docker: make test"]
fn a_primary_that_is_lost_while_it_restores_leaves_the_cluster_as_it_was() {
    let cluster = up();
    let prober = cluster.probe();
    let row = paused(&cluster, &prober);
    assert_eq!(cluster.primaries(), Vec::<usize>::new(), "nobody takes writes meanwhile");
    cluster.node(2).await_showing("others say what their primary is at", || {
        let status = cluster.node(2).status();
        status.contains("restoring").then_some(()).ok_or(status)
    });
    cluster.kill(1);
    let primary = cluster.await_primary(&[2, 3], Duration::from_secs(30));
    prober.await_rows();
    let (_, last) = now(cluster.node(primary));
    assert!(last > row + 5, "what came after the moment is there");
    cluster.start(1);
    cluster.await_order(primary, &cluster.others(&[primary, BACKUP]));
    prober.end(&cluster, primary, &cluster.others(&[primary, BACKUP]));
}

/// Until it stops the server for it, a restore is nobody's first concern.
#[test]
#[ignore = "needs docker: make test"]
fn while_a_backup_is_copied_the_cluster_serves_and_a_server_that_ends_comes_first() {
    let cluster = up();
    let prober = cluster.probe();
    let (leader, backup) = (cluster.node(1), cluster.node(BACKUP));
    // Long enough to be caught at it.
    let rows = "SELECT n, repeat(md5(n::text), 30) AS t FROM generate_series(1, 150000) AS n";
    leader.ask(&format!("CREATE TABLE large AS {rows}"));
    leader.exec(["pgherd", "backup", "--wait"]).ok();
    cluster.await_synchronous(1);
    leader.shell("pgherd restore --yes >/tmp/restore 2>&1 &").ok();
    leader.await_log("brings back");
    backup.pause();
    prober.await_rows();
    assert_eq!(cluster.primaries(), [1], "it takes writes while it copies");
    let refused = leader.exec(["pgherd", "switchover", "--to", "node2"]);
    assert_eq!(refused.status, 3, "{}", refused.text());
    let postmaster = leader.pid_of("the postmaster", is_postmaster);
    leader.kill("KILL", &postmaster).ok();
    leader.await_log("the restore is given up");
    let primary = cluster.await_primary(&[1, 2, 3], Duration::from_secs(30));
    prober.await_rows();
    backup.unpause();
    let data = cluster.others(&[primary, BACKUP]);
    cluster.await_order(primary, &data);
    leader.await_showing("nothing is left of it", || {
        let left = leader.leftovers();
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    });
    // barman's receiver has ended with the server: it is waited for.
    let answer = restore(cluster.node(primary), &["--yes"]);
    assert_eq!(answer.status, 0, "{}", answer.text());
    prober.await_rows();
    cluster.await_order(primary, &data);
    prober.end(&cluster, primary, &data);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_restore_that_is_killed_when_it_is_about_to_be_decided_has_happened_or_not() {
    let cluster = up();
    let mut prober = cluster.probe();
    let row = paused(&cluster, &prober);
    let (leader, process) = (cluster.node(1), cluster.node(1).host_pid());
    resume(leader);
    leader.await_log("restored up to");
    cluster.kill_at_once(1, process);
    // It may have been decided, and then nobody else may lead.
    cluster.node(2).await_that("another node leads, or says why it does not", || {
        let stands_still = [2, 3].iter().any(|id| cluster.warnings(*id).contains("nobody leads"));
        (stands_still || !cluster.primaries().is_empty()).then_some(())
    });
    cluster.start(1);
    let primary = cluster.await_primary(&[1, 2, 3], RESTORED_WITHIN);
    cluster.await_order(primary, &cluster.others(&[primary, BACKUP]));
    let timeline = cluster.timeline(primary);
    println!("node{primary} leads on timeline {timeline}");
    if primary == 1 {
        prober.forgive_after(cluster.node(1), row);
    }
    prober.await_rows();
    let gone = rows_after(cluster.node(primary), row, row + 5);
    println!("{gone} rows of after the moment are there");
    prober.end(&cluster, primary, &cluster.others(&[primary, BACKUP]));
}

/// barman beside the master, and people decide who leads.
fn with_its_own_backups() -> Cluster {
    let cluster = Cluster::with(2, |id, recipe| {
        let backups = if id == 1 { "here" } else { "elsewhere" };
        recipe.env("PGHERD_BACKUPS", backups).command(["postgres", "-c", "autovacuum=off"])
    });
    cluster.begin(0);
    cluster
}

fn own_backups(leader: &Node) -> usize {
    leader.exec_as("barman", ["barman", "list-backup", "pgherd"]).stdout.matches("Size:").count()
}

fn await_own_backups(leader: &Node, than: usize) {
    await_within(BACKED_UP_WITHIN, "there is a new backup, and barman check is all OK", || {
        let check = leader.exec_as("barman", ["barman", "check", "pgherd"]);
        (check.status == 0 && own_backups(leader) > than).then_some(())
    });
}

fn await_sent_to_barman(leader: &Node) {
    let sent = "SELECT count(*) FROM pg_stat_replication \
         WHERE application_name LIKE 'barman%' AND sent_lsn >= pg_current_wal_lsn()";
    leader.await_that("barman has all", || (leader.ask(sent) == "1").then_some(()));
}

/// No record decides there: what another node says does.
#[test]
#[ignore = "needs docker: make test"]
fn a_restore_gives_way_to_whoever_was_promoted_by_hand_meanwhile() {
    let cluster = with_its_own_backups();
    let (old, new) = (cluster.node(1), cluster.node(2));
    await_own_backups(old, 0);
    old.ask("CREATE TABLE told AS SELECT generate_series(1, 10) AS n");
    let moment = old.ask("SELECT clock_timestamp()");
    old.ask("INSERT INTO told SELECT generate_series(11, 20)");
    await_sent_to_barman(old);
    cluster.await_following(1, &[2]);
    pause_at(old, &moment);
    cluster.promote(2);
    new.ask("INSERT INTO told SELECT generate_series(21, 30)");
    resume(old);
    old.await_log("leads, or has gone on: nothing was changed");
    cluster.await_order(2, &[1]);
    for node in [old, new] {
        assert_eq!(rows(node), "30 to 30");
    }
}

/// The document's arrangement: barman beside the master, and people decide who leads.
#[test]
#[ignore = "needs docker: make test"]
fn a_master_that_keeps_its_own_backups_goes_back_and_its_slave_follows() {
    let cluster = with_its_own_backups();
    let leader = cluster.node(1);
    let count = || own_backups(leader);
    let await_backups = |than| await_own_backups(leader, than);
    await_backups(0);
    leader.ask("CREATE TABLE told AS SELECT generate_series(1, 10) AS n");
    let moment = leader.ask("SELECT clock_timestamp()");
    leader.ask("INSERT INTO told SELECT generate_series(11, 20)");
    await_sent_to_barman(leader);
    let taken = count();
    let answer = restore(cluster.node(2), &["--target-time", &moment, "--yes"]);
    assert_eq!(answer.status, 0, "{}", answer.text());
    let began = Instant::now();
    leader.await_that("the slave follows", || {
        let says_healthy = leader.status_json()["state"] == "healthy";
        let left = cluster.node(2).sql("SELECT count(*) FROM told").stdout.trim() == "20";
        assert!(!(says_healthy && left), "a slave serves what was left, and the status is healthy");
        says_healthy.then_some(())
    });
    println!("the slave follows after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(rows(leader), "10 to 10");
    leader.ask("INSERT INTO told VALUES (99)");
    cluster.await_order(1, &[2]);
    assert_eq!(rows(cluster.node(2)), "11 to 99");
    await_backups(taken);
    // It is the cluster's data from now on.
    cluster.stop(1);
    cluster.start(1);
    cluster.await_order(1, &[2]);
    assert_eq!(rows(cluster.node(2)), "11 to 99");
    // Nobody has written since: the end is reached all the same.
    let moment = leader.ask("SELECT clock_timestamp()");
    let taken = count();
    let answer = restore(leader, &["--target-time", &moment, "--yes"]);
    assert_eq!(answer.status, 0, "{}", answer.text());
    assert_eq!(rows(leader), "11 to 99");
    let events = leader.exec(["pgherd", "events"]).stdout;
    assert!(events.contains("(asked for: "), "{events}");
    cluster.await_order(1, &[2]);
    await_backups(taken);
    // Until barman's receiver is back it has not all.
    let all = restore(leader, &["--yes"]);
    assert_eq!(all.status, 0, "{}", all.text());
    assert_eq!(rows(leader), "11 to 99");
    cluster.await_order(1, &[2]);
}
