//! The volume that WAL goes to is full: the server ends, and is not begun again and again in vain.

use crate::harness::{Cluster, Container, PASSWORDS, Recipe, Volume, await_within};
use std::time::Duration;

/// Takes all but 12 MiB of what is left, which is less than a WAL file.
const FILL: &str = "free=$(df --output=avail -B1 /wal | tail -1); \
    fallocate -l $((free - 12 * 1024 * 1024)) /wal/balloon; df -h /wal | tail -1";
/// Few files that are used again.
const FLAGS: [&str; 6] =
    ["-c", "max_wal_size=32MB", "-c", "min_wal_size=32MB", "-c", "autovacuum=off"];

fn small() -> Volume {
    Volume::with(&["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=160m"])
}

fn with_wal_on(recipe: Recipe, wal: &Volume) -> Recipe {
    let flags = ["postgres"].into_iter().chain(FLAGS);
    recipe.volume(wal, "/wal").env("POSTGRES_INITDB_WALDIR", "/wal/pg_wal").command(flags)
}

/// Until it writes no more.
fn write_until_it_ends(node: &Container) {
    let much =
        "INSERT INTO told SELECT n, repeat(md5(n::text), 100) FROM generate_series(1, 2000) n";
    node.await_that("there is no room for its WAL any more", || {
        (node.sql(much).status != 0).then_some(())
    });
}

fn status(node: &Container) -> String {
    node.exec(["pgherd", "status"]).text()
}

#[test]
#[ignore = "needs docker: make test"]
fn a_master_without_room_for_wal_waits_for_it_and_goes_on_then() {
    let (data, wal) = (Volume::new(), small());
    let recipe = Recipe::node("node1").volume(&data, "/var/lib/postgresql").envs(PASSWORDS);
    let recipe = recipe.env("REPMGR_NODE_NAME", "node1").env("PGHERD_BACKUPS", "elsewhere");
    let node = with_wal_on(recipe, &wal).start();
    node.await_ready();
    node.sql("CREATE TABLE told (n int, filler text)").ok();
    node.sql("INSERT INTO told VALUES (0, 'first')").ok();
    node.shell(FILL).ok();
    write_until_it_ends(&node);
    node.await_that("the status says what it waits for", || {
        let status = status(&node);
        (status.contains("MiB free") && status.contains("waits until there is more room"))
            .then_some(())
    });
    assert!(node.http("/readiness").is_some_and(|(code, _)| code == 503));
    let ends = |log: &str| log.matches("unasked").count();
    let before = ends(&node.log());
    assert!(before <= 2, "it was begun in vain {before} times");
    node.shell("rm /wal/balloon").ok();
    await_within(Duration::from_secs(30), "it serves again", || {
        node.http("/readiness").is_some_and(|(code, _)| code == 200).then_some(())
    });
    assert_eq!(ends(&node.log()), before, "it was begun in vain");
    assert_eq!(node.sql("SELECT count(*) FROM told WHERE n = 0").ok(), "1");
    node.sql("INSERT INTO told VALUES (-1, 'last')").ok();
    assert!(!status(&node).contains("waits"), "{}", status(&node));
}

#[test]
#[ignore = "needs docker: make test"]
fn a_master_without_room_for_wal_lets_another_lead() {
    let wal = small();
    let cluster = Cluster::voting(3, |id, recipe| match id {
        1 => with_wal_on(recipe, &wal),
        _ => recipe.command(["postgres"].into_iter().chain(FLAGS)),
    });
    cluster.begin_voting();
    let node = cluster.node(1);
    node.ask("CREATE TABLE told (n int, filler text)");
    cluster.await_synchronous(1);
    node.shell(FILL).ok();
    write_until_it_ends(node);
    let primary = cluster.await_primary(&[2, 3], Duration::from_secs(30));
    node.await_showing("it says what it waits for", || {
        let status = node.status();
        status.contains("waits until there is more room").then_some(()).ok_or(status)
    });
    node.shell("rm /wal/balloon").ok();
    cluster.await_settled(primary);
}
