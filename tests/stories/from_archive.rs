//! What barman has spares the primary, and is there when the primary has it no more: a clone from
//! a backup, a standby that was away for too long, a master that cannot be rewound by itself.

use crate::harness::{Cluster, Container, Node, PASSWORDS, Recipe, Volume, await_follows, trials};
use std::fs;

/// In the master before there is a backup. What a clone copies is all of this.
const MEGABYTES: u32 = 120;
/// Some segments of 16 MiB that a standby gets in any case.
const SPARED_AT_MOST: u64 = 70 << 20;
const CLONED_AGAIN: &str = "Slave is cloned again";
const CATCHES_UP: &str = "Slave catches up from the archive";

/// A node that keeps the backups of a cluster.
struct Backup {
    container: Container,
    _data: Volume,
}

impl Backup {
    fn of(cluster: &Cluster) -> Self {
        let data = Volume::new();
        let recipe = Recipe::node("backup")
            .network(cluster.network(), "backup")
            .volume(&data, "/home/barman/data")
            .envs(PASSWORDS)
            .env("REPMGR_NODE_NAME", "backup")
            .env("PGHERD_ROLE", "backup")
            .env("PGHERD_VOTERS", "node1,node2,backup");
        Backup { container: recipe.start(), _data: data }
    }

    /// WAL is streamed and archived, and there is a backup: what is older than the first one barman
    /// throws away. That is what cron does each minute, begun now.
    fn await_backup(&self, primary: &Node) {
        let conf = "/etc/barman.d/pgherd.conf";
        let barman = |words: &[&str]| self.container.exec_as("barman", words.iter().copied());
        self.container.await_that("there is a backup", || {
            barman(&["pgherd", "barman", "cron", conf]);
            let listed = barman(&["barman", "list-backup", "pgherd"]).stdout;
            if listed.contains("WAITING_FOR_WALS") {
                primary.ask("SELECT pg_switch_wal()");
                barman(&["barman", "archive-wal", "pgherd"]);
                barman(&["barman", "check-backup", "pgherd", "latest"]);
            }
            let done = |line: &str| line.contains("Size:") && !line.contains("WAITING_FOR_WALS");
            listed.lines().any(done).then_some(())
        });
        self.await_archived(primary);
        primary.ask("CHECKPOINT");
    }

    /// barman has all that `primary` has written so far in whole files.
    fn await_archived(&self, primary: &Node) {
        // There is something in it: 15 and 17 name another file for where an empty one begins.
        primary.ask("SELECT pg_logical_emit_message(true, 'story', '')");
        let last = primary.ask("SELECT pg_walfile_name(pg_switch_wal())");
        self.container.await_that(&format!("{last} is archived"), || {
            let find = ["find", "/home/barman/data/pgherd", "-name", last.as_str()];
            (!self.container.exec(find).stdout.is_empty()).then_some(())
        });
    }
}

/// Two data nodes that know of a third for the backups, and a master that forgets what nobody keeps.
fn two_nodes(change: impl Fn(Recipe) -> Recipe) -> Cluster {
    Cluster::with(2, |_, recipe| {
        let recipe = recipe.env("PGHERD_VOTERS", "node1,node2,backup");
        // A vacuum would write WAL of its own, and much, for all that was filled in.
        let flags = ["-c", "wal_keep_size=0", "-c", "min_wal_size=32MB", "-c", "autovacuum=off"];
        change(recipe.command(flags))
    })
}

/// Afterwards `primary` has forgotten the WAL that its slave, which is away, has not seen. `backup`
/// has it.
fn forget_archived_wal(primary: &Node, backup: &Backup) {
    primary.ask("SELECT pg_drop_replication_slot('repmgr_slot_2')");
    primary.ask("CREATE TABLE IF NOT EXISTS later AS SELECT generate_series(1, 1000) AS n");
    for _ in 0..2 {
        backup.await_archived(primary);
        primary.ask("CHECKPOINT");
    }
    let oldest =
        || primary.ask("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'");
    let before = oldest();
    primary.await_that("it has forgotten some", || {
        backup.await_archived(primary);
        primary.ask("CHECKPOINT");
        (oldest() > before).then_some(())
    });
}

/// The same where nobody keeps it: not even the slots do any more.
fn forget_wal(primary: &Node) {
    primary.ask("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'");
    primary.ask("SELECT pg_reload_conf()");
    let lost = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'repmgr_slot_2'";
    primary.await_that("the slave's slot has lost its WAL", || {
        primary.ask("INSERT INTO later SELECT generate_series(1, 1000)");
        primary.ask("SELECT pg_switch_wal()");
        primary.ask("CHECKPOINT");
        (primary.ask(lost) == "lost").then_some(())
    });
}

/// Nothing is left that has it look into the archive at its next start.
fn looks_into_no_archive(node: &Node) {
    assert_eq!(node.ask("SHOW restore_command"), "");
    let auto_conf = fs::read_to_string(node.pgdata().join("postgresql.auto.conf"));
    let auto_conf = auto_conf.expect("a standby has one");
    assert!(!auto_conf.contains("restore_command"), "{auto_conf}");
}

fn fetched(node: &Node) -> usize {
    node.log().matches("from archive").count() // "restored log file … from archive"
}

#[test]
#[ignore = "needs docker: make test"]
fn a_slave_is_cloned_from_a_backup_and_the_primary_is_spared() {
    let cluster = two_nodes(|recipe| recipe.env("REPMGR_CLONE_FROM", "barman"));
    let primary = cluster.start(1);
    primary.await_ready().fill(MEGABYTES);
    let backup = Backup::of(&cluster);
    backup.await_backup(primary);
    primary.ask("CREATE TABLE since AS SELECT generate_series(1, 1000) AS n");
    backup.await_archived(primary);
    primary.ask("CHECKPOINT");

    let sent = primary.bytes_sent();
    let slave = cluster.start(2);
    if trials() {
        // In its place, and of no use yet without the archive.
        let process = slave.host_pid();
        slave.await_that("the copy is in its place", || slave.has_data().then_some(()));
        cluster.kill_at_once(2, process);
        cluster.start(2);
    }
    cluster.await_following(1, &[2]);
    let sent = primary.bytes_sent() - sent;
    println!("the primary sent {} MiB", sent >> 20);
    assert!(sent < SPARED_AT_MOST, "the primary sent {sent} bytes: it was copied");
    let log = slave.log();
    assert!(log.contains("copies backup") && log.contains(" MiB ("), "{log}");
    assert_eq!(log.matches("copies ").count(), 1, "{log}");
    assert_eq!(slave.ask("SELECT count(*) FROM since"), "1000");
    slave.await_alive("it is left alone", || {
        slave.ask("SHOW restore_command").is_empty().then_some(())
    });
    looks_into_no_archive(slave);

    let (before, received) = (fetched(slave), slave.bytes_received());
    println!("the slave received {} MiB, {before} files from the archive", received >> 20);
    cluster.stop(2);
    cluster.start(2);
    await_follows(slave, primary);
    assert_eq!(fetched(slave), before, "one that is restarted is only started");
    cluster.keeps_its_secrets();
}

/// The slave follows, and there is a first backup.
fn two_with_an_archive() -> (Cluster, Backup) {
    let cluster = two_nodes(|recipe| recipe);
    cluster.begin(0);
    let backup = Backup::of(&cluster);
    backup.await_backup(cluster.node(1));
    await_follows(cluster.node(2), cluster.node(1));
    (cluster, backup)
}

#[test]
#[ignore = "needs docker: make test"]
fn a_slave_that_was_away_too_long_catches_up_from_the_archive_or_is_cloned_where_there_is_none() {
    let (cluster, backup) = two_with_an_archive();
    let (primary, slave) = (cluster.node(1), cluster.node(2));
    cluster.kill(2);
    forget_archived_wal(primary, &backup);
    cluster.start(2);
    slave.await_log(CATCHES_UP);
    cluster.await_following(1, &[2]);
    let log = slave.log();
    assert!(!log.contains(CLONED_AGAIN), "{log}");
    assert_eq!(log.matches("copies ").count(), 1, "only when it was made: {log}");
    assert!(fetched(slave) > 0, "{log}");
    slave.await_alive("it is left alone again", || {
        (slave.ask("SHOW restore_command").is_empty()).then_some(())
    });
    looks_into_no_archive(slave);

    // A container that was killed in the midst of it leaves the setting.
    cluster.kill(2);
    let auto_conf = slave.pgdata().join("postgresql.auto.conf");
    let mut text = fs::read_to_string(&auto_conf).expect("a standby has one");
    text.push_str("restore_command = 'pgherd wal fetch --following %f %p'\n");
    fs::write(&auto_conf, text).expect("stories run as root");
    let before = fetched(slave);
    cluster.start(2);
    await_follows(slave, primary);
    looks_into_no_archive(slave);
    assert_eq!(fetched(slave), before, "one that is restarted is only started");

    if !trials() {
        return cluster.keeps_its_secrets();
    }
    backup.container.stop();
    cluster.kill(2);
    forget_wal(primary);
    cluster.start(2);
    slave.await_log(CLONED_AGAIN);
    cluster.await_following(1, &[2]);
    looks_into_no_archive(slave);
    cluster.keeps_its_secrets();
}

/// As pg_rewind leaves it where the histories parted long ago: a file is missing of what it has to replay before
/// anybody can connect. The primary has it no more.
fn lose_wal_in_the_midst(cluster: &Cluster, backup: &Backup) {
    let (primary, slave) = (cluster.node(1), cluster.node(2));
    let redo = "SELECT pg_walfile_name(redo_lsn) FROM pg_control_checkpoint()";
    primary.ask("CHECKPOINT");
    await_follows(slave, primary);
    slave.ask("CHECKPOINT");
    let redo = primary.ask(redo);
    for _ in 0..4 {
        primary.ask("CREATE TABLE IF NOT EXISTS more (n int); INSERT INTO more SELECT generate_series(1, 1000)");
        backup.await_archived(primary);
    }
    await_follows(slave, primary);
    cluster.stop(2);
    let next = format!(
        "{}{:08X}",
        &redo[..16],
        u32::from_str_radix(&redo[16..], 16).expect("a number") + 1
    );
    fs::remove_file(slave.pgdata().join("pg_wal").join(&next)).expect("it is there");
    forget_archived_wal(primary, backup);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_slave_that_misses_wal_before_it_can_serve_fetches_it_or_is_cloned_when_somebody_says_so() {
    let (cluster, backup) = two_with_an_archive();
    let slave = cluster.node(2);
    lose_wal_in_the_midst(&cluster, &backup);
    cluster.start(2);
    slave.await_log("misses the WAL file");
    cluster.await_following(1, &[2]);
    let log = slave.log();
    assert!(!log.contains(CLONED_AGAIN), "{log}");
    looks_into_no_archive(slave);

    lose_wal_in_the_midst(&cluster, &backup);
    backup.container.stop();
    cluster.start(2);
    slave.await_showing("its status warns of what it waits for", || {
        let status = slave.status();
        let tells = status.contains("pgherd reinit node2") && status.contains("node1 leads");
        tells.then_some(()).ok_or(status)
    });
    let cloned = slave.exec(["pgherd", "reinit", "node2"]);
    assert_eq!(cloned.status, 0, "{}", cloned.text());
    cluster.await_following(1, &[2]);
    looks_into_no_archive(slave);
    cluster.keeps_its_secrets();
}

/// The other half of it, without an archive, is in `master_replaced`.
#[test]
#[ignore = "needs docker: make test"]
fn where_the_wal_for_a_rewind_is_gone_it_comes_from_the_archive() {
    if !trials() {
        return;
    }
    let mut cluster = two_nodes(|recipe| recipe);
    cluster.begin(0);
    let backup = Backup::of(&cluster);
    backup.await_backup(cluster.node(1));
    await_follows(cluster.node(2), cluster.node(1));
    cluster.cut(2);
    let primary = cluster.node(1);
    primary.ask("CREATE TABLE lost AS SELECT generate_series(1, 1000) AS n");
    for _ in 0..2 {
        // Where the histories part is in a file before that of the last checkpoint.
        backup.await_archived(primary);
        primary.ask("CHECKPOINT");
    }
    cluster.kill(1);
    let gone = cluster.node(1).data.shell(
        "cd /v/*/docker && \
         keep=$(pg_controldata . | sed -n \"s/^Latest checkpoint's REDO WAL file: *//p\") && \
         cd pg_wal && for file in $(ls | grep -xE '[0-9A-F]{24}'); do \
           [[ $file < $keep ]] && rm \"$file\" && echo \"$file\"; done; true",
    );
    println!("gone: {gone:?}");
    cluster.heal(2);
    cluster.promote(2);
    cluster.node(2).ask("CREATE TABLE since AS SELECT generate_series(1, 1000) AS n");
    cluster.start(1);
    cluster.await_following(2, &[1]);
    let log = cluster.node(1).log();
    assert!(log.contains("becomes a slave") && !log.contains(CLONED_AGAIN), "{log}");
    println!("{} files from the archive when it was started", fetched(cluster.node(1)));
    assert_eq!(cluster.node(1).ask("SELECT to_regclass('lost') IS NULL"), "t");
    assert_eq!(cluster.node(1).ask("SELECT count(*) FROM since"), "1000");
    looks_into_no_archive(cluster.node(1));
    cluster.keeps_its_secrets();
}
