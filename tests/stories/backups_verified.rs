//! `pgherd backups --verify`: a backup is restored on trial, and one that would not restore is found before it
//! is needed.

use crate::harness::{Answer, Cluster, Container, await_within};
use std::time::Duration;

const BACKUP: usize = 3;
const BACKED_UP_WITHIN: Duration = Duration::from_secs(120);

fn verify(asked: &Container, id: &str) -> Answer {
    asked.exec(["pgherd", "backups", "--verify", id])
}

/// What is shown of that one.
fn shown(cluster: &Cluster, id: &str) -> serde_json::Value {
    let listed = cluster.node(1).exec(["pgherd", "backups", "--json"]).ok();
    let archives: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let backups = archives[0]["backups"].as_array().cloned().unwrap_or_default();
    backups.into_iter().find(|backup| backup["id"] == id).unwrap_or_default()
}

#[test]
#[ignore = "needs docker: make test"]
fn a_backup_with_one_wrong_byte_in_a_table_is_found_by_restoring_it_on_trial() {
    let cluster = Cluster::stack_with(|_, recipe| recipe.env("BARMAN_COMPRESSION", "gzip"));
    for id in [BACKUP, 1] {
        cluster.start(id);
    }
    let (node, keeper) = (cluster.node(1), cluster.node(BACKUP));
    node.await_ready();
    node.ask("CREATE TABLE told AS SELECT n, repeat('x', 100) FROM generate_series(1, 20000) n");
    node.ask("CREATE INDEX ON told (n)");
    // What a superuser has planted is not run by barman, whatever the database is set to.
    node.ask("ALTER DATABASE postgres SET session_replication_role = origin");
    node.ask(
        "CREATE FUNCTION plant() RETURNS event_trigger LANGUAGE plpgsql AS \
         $$BEGIN COPY (SELECT 1) TO PROGRAM 'touch /tmp/planted'; END$$",
    );
    node.ask("CREATE EVENT TRIGGER planted ON ddl_command_start EXECUTE FUNCTION plant()");
    let taken = await_within(BACKED_UP_WITHIN, "a backup with the table is complete", || {
        let taken = node.exec(["pgherd", "backup", "--wait"]);
        (taken.status == 0).then(|| taken.stdout.trim().to_owned())
    });

    // From a node that keeps none.
    let verified = verify(node, &taken);
    assert_eq!(verified.status, 0, "{}", verified.text());
    assert!(verified.stdout.contains(&format!("backup {taken} restores")), "{verified:?}");
    let seen = shown(&cluster, &taken);
    assert!(seen["verified"]["at"].is_string() && seen["verified"]["wrong"].is_null(), "{seen}");
    assert_eq!(verify(keeper, "latest").status, 0);
    let kept = keeper.shell("gzip --test < $(ls /home/barman/data/pgherd/wals/0*/0* | head -n 1)");
    assert_eq!(kept.status, 0, "barman keeps WAL compressed: {}", kept.text());
    let unknown = verify(node, "20200101T000000");
    assert_eq!(unknown.status, 3, "{}", unknown.text());

    let table = node.ask("SELECT pg_relation_filepath('told')");
    let file = format!("/home/barman/data/pgherd/base/{taken}/data/{table}");
    keeper
        .shell(&format!("printf '\\377' | dd of={file} bs=1 seek=20000 count=1 conv=notrunc"))
        .ok();
    let spoilt = verify(keeper, &taken);
    assert_eq!(spoilt.status, 1, "{}", spoilt.text());
    assert!(spoilt.text().contains("DOES NOT RESTORE"), "{}", spoilt.text());
    assert!(node.exec(["pgherd", "backups"]).ok().contains("SPOILT"));
    node.await_showing("the status warns of it", || {
        let status = node.status();
        status.contains("does not restore").then_some(()).ok_or(status)
    });

    // Also where nobody has noted any checksums: those of the pages tell.
    keeper.shell(&format!("rm /home/barman/data/pgherd/base/{taken}/data/backup_manifest")).ok();
    let spoilt = verify(node, &taken);
    assert_eq!(spoilt.status, 1, "{}", spoilt.text());
    assert!(spoilt.text().contains("pg_amcheck"), "{}", spoilt.text());
    let left = keeper
        .shell("ls -A /home/barman/data/pgherd | grep -x .pgherd-verify; pgrep -u barman postgres");
    assert_eq!(left.stdout.trim(), "", "something is left of it");
    let ran = keeper.shell("ls /tmp/planted; find /dev/shm -user barman");
    assert_eq!(ran.stdout.trim(), "", "it was run by barman, or left memory behind");
}
