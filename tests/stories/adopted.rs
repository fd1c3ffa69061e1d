//! Data directories that came from elsewhere: taken over where that is safe, together with slaves,
//! and refused where it is another cluster's.

use crate::harness::{Cluster, Node, Recipe, Volume, await_follows};

/// As root, on a volume at /v: `as_postgres COMMAND…`, and `serve DIRECTORY COMMAND…` while a
/// server runs there.
const TOOLS: &str = r#"set -eu
    as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"; }
    serve() {
        directory=$1; shift
        as_postgres pg_ctl -D "$directory" -o '-c listen_addresses= -c unix_socket_directories=/tmp' \
            -l /tmp/log -w start >/dev/null
        "$@"
        as_postgres pg_ctl -D "$directory" -m fast -w stop >/dev/null
    }
    ask() { as_postgres psql -XAtq -v ON_ERROR_STOP=1 -h /tmp -d "${2:-postgres}" -c "$1"; }
"#;

fn prepare(volume: &Volume, script: &str) {
    volume.shell(&format!("{TOOLS}{script}"));
}

#[test]
#[ignore = "needs docker: make test"]
fn the_directory_of_another_cluster_is_no_slaves_and_stays_as_it_is() {
    let other = Cluster::of(1);
    other.start(1).await_ready().ask("CREATE TABLE precious ()");
    other.stop(1);
    let standby = Cluster::up(2, 0);
    for id in [2, 1] {
        standby.stop(id);
    }

    let mut cluster = Cluster::of(2);
    cluster.start(1);
    for (what, foreign) in
        [("a master's", &other.node(1).data), ("a slave's", &standby.node(2).data)]
    {
        // What pgherd notes for itself, before it has asked anybody, is not the cluster's.
        let listing = || foreign.listing_after("rm -rf pgherd");
        let before = listing();
        cluster.node(1).await_ready();
        let own = cluster.node(2).data.name.clone();
        cluster.recreate(2, |recipe| recipe.other_volume(&own, &foreign.name));
        let node = cluster.start(2);
        assert_ne!(node.await_end(), 0, "{what}");
        let log = node.log();
        let errors: Vec<_> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
        assert_eq!(errors.len(), 1, "{what}: {log}");
        assert!(errors[0].contains("system identifier"), "{what}: {errors:?}");
        assert!(errors[0].contains("node1:5432"), "{what}: {errors:?}");
        cluster.recreate(2, |recipe| recipe.other_volume(&foreign.name, &own));
        assert_eq!(listing(), before, "{what}");
        cluster.await_order(1, &[]); // Nobody was registered, and no slot is there.
    }
    cluster.start(2);
    cluster.await_order(1, &[2]);
    other.start(1).await_ready();
    assert_eq!(other.node(1).ask("SELECT count(*) FROM precious"), "0");
}

/// `/var/lib/postgresql/data`, as the official image had it up to 17, without anything of repmgr's.
const OFFICIAL: &str = "cd /v; chown postgres .; chmod 700 .; \
    as_postgres initdb -D . --auth=trust >/dev/null; \
    serve . ask 'CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n'";

#[test]
#[ignore = "needs docker: make test"]
fn an_adopted_cluster_of_the_official_image_gets_a_slave() {
    let old = Volume::new();
    prepare(&old, OFFICIAL);
    let cluster = Cluster::with(2, |id, recipe| match id {
        1 => recipe.volume(&old, "/var/lib/postgresql/data"),
        _ => recipe,
    });
    cluster.begin(0);
    cluster.await_order(1, &[2]);
    assert_eq!(cluster.node(2).ask("SELECT count(*) FROM kept"), "1000");

    let system = old.shell("pg_controldata -D /v | sed -n 's/^Database system identifier: *//p'");
    for id in [2, 1] {
        cluster.stop(id);
    }
    for id in [1, 2] {
        cluster.start(id);
    }
    cluster.await_order(1, &[2]);
    let identifier = "SELECT system_identifier FROM pg_control_system()";
    assert_eq!(cluster.node(2).ask(identifier), system);
}

/// `bitnami/postgresql-repmgr`: a volume at `/bitnami/postgresql`, the cluster in `data` on it, its
/// configuration in the image and not in the directory, a role and a database repmgr of its own.
const BITNAMI: &str = r#"mkdir /v/data; cd /v/data; chown postgres .; chmod 700 .
    as_postgres initdb -D . --auth=trust >/dev/null
    inside() {
        ask 'CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n'
        ask "CREATE ROLE repmgr SUPERUSER LOGIN REPLICATION PASSWORD 'of bitnami'"
        ask 'CREATE DATABASE repmgr OWNER repmgr'
        ask 'CREATE EXTENSION repmgr' repmgr
    }
    serve . inside
    rm postgresql.conf pg_hba.conf pg_ident.conf
"#;

fn bitnami(recipe: Recipe, data: &Volume) -> Recipe {
    recipe.volume(data, "/bitnami/postgresql").env("PGDATA", "/bitnami/postgresql/data")
}

#[test]
#[ignore = "needs docker: make test"]
fn a_cluster_of_bitnamis_layout_is_adopted_and_gets_a_slave() {
    let volumes = [Volume::new(), Volume::new()];
    prepare(&volumes[0], BITNAMI);
    let cluster = Cluster::with(2, |id, recipe| bitnami(recipe, &volumes[id - 1]));
    cluster.start(1).await_ready();
    is_prepared(cluster.node(1));
    cluster.start(2);
    cluster.await_order(1, &[2]);
    assert_eq!(cluster.node(2).ask("SELECT count(*) FROM kept"), "1000");
    assert_ne!(volumes[1].shell("ls /v/data/PG_VERSION"), "", "where it was told to be");

    for id in [2, 1] {
        cluster.stop(id);
        cluster.start(id);
        await_follows(cluster.node(2), cluster.node(1));
    }
    for volume in &volumes {
        let beside = volume.shell("ls -A /v | grep -vxE 'data|pgherd' || true");
        assert_eq!(beside, "", "nothing is left over");
    }
}

fn is_prepared(node: &Node) {
    assert_eq!(node.ask("SELECT count(*) FROM kept"), "1000");
    let weak = "SELECT count(*) FROM pg_hba_file_rules WHERE type LIKE 'host%' \
         AND auth_method NOT IN ('scram-sha-256', 'reject')";
    assert_eq!(node.ask(weak), "0", "it opens no door that was closed");
    let shared = "SELECT current_setting('shared_preload_libraries'), current_setting('wal_level')";
    assert_eq!(node.ask(shared), "repmgr|replica");
}

/// A standby that pgherd did not make, of a master that it did not make either: the operator moves
/// both, the slave's directory as it is.
#[test]
#[ignore = "needs docker: make test"]
fn a_slave_made_with_pg_basebackup_is_adopted_without_a_clone() {
    let volumes = [Volume::new(), Volume::new()];
    prepare(&volumes[0], OFFICIAL);
    let both = Recipe::node("both").volume(&volumes[0], "/v").volume(&volumes[1], "/w");
    let copy = "cd /w; chown postgres .; chmod 700 .; \
         serve /v as_postgres pg_basebackup -h /tmp -D /w -R";
    both.entrypoint("bash").command(["-c", &format!("{TOOLS}{copy}")]).run().ok();
    let cluster =
        Cluster::with(2, |id, recipe| recipe.volume(&volumes[id - 1], "/var/lib/postgresql/data"));
    let inode = || volumes[1].shell("stat -c %i /v/global/pg_control /v/base");
    let before = inode();
    cluster.begin(0);
    cluster.await_order(1, &[2]);
    assert_eq!(inode(), before, "it is the same directory");
    assert!(!cluster.node(2).log().contains("Slave is started for the first time"));
}
