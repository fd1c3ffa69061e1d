//! A data directory has one server at a time, and what lies in it is only touched by who may.

use crate::harness::{Container, Recipe, Volume};

fn cluster_on(volume: &Volume) -> Recipe {
    Recipe::node("node1")
        .volume(volume, "/var/lib/postgresql/data")
        .env("PGDATA", "/var/lib/postgresql/data/pgdata")
}

/// The official image's layout of old: the volume holds the cluster and not pgherd's own
/// directory, so each container has a lock file of its own. The first one has never been restarted.
#[test]
#[ignore = "needs docker: make test"]
fn a_volume_with_the_data_directory_alone_is_locked_from_its_first_start_on() {
    let volume = Volume::new();
    let first = cluster_on(&volume).start();
    first.await_ready();
    let second = cluster_on(&volume).start();
    assert_eq!(second.await_end(), 1);
    assert!(second.log().contains("is in use by another container"), "{}", second.log());
    assert_eq!(first.sql("SELECT 1").ok(), "1");

    first.signal("KILL");
    first.await_end();
    second.start_again().await_ready();
}

#[test]
#[ignore = "needs docker: make test"]
fn a_cluster_that_the_official_image_may_still_be_running_is_not_adopted() {
    let volume = Volume::new();
    let official = Recipe::node("official")
        .volume(&volume, "/var/lib/postgresql/data")
        .entrypoint("bash")
        .command(["-c", OFFICIAL])
        .start();
    official.await_log("database system is ready to accept connections");

    let ours = Recipe::node("node1").volume(&volume, "/var/lib/postgresql/data").start();
    assert_eq!(ours.await_end(), 1);
    assert!(ours.log().contains("it may be running"), "{}", ours.log());
    assert!(ours.log().contains("docker stop"), "{}", ours.log());

    official.signal("INT"); // As the official image's STOPSIGNAL.
    official.await_end();
    ours.start_again().await_ready();
    assert_eq!(ours.sql("SELECT count(*) FROM repmgr_was_not_here").ok(), "0");
}

/// A server of another image: no lock, and a process id that means nothing to us.
const OFFICIAL: &str = "cd /var/lib/postgresql/data && chown postgres . && chmod 700 . && \
    as() { setpriv --reuid=postgres --regid=postgres --init-groups -- \"$@\"; } && \
    as initdb -D . --auth=trust >/dev/null && \
    echo 'CREATE TABLE repmgr_was_not_here ();' | as postgres --single -D . postgres >/dev/null && \
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- postgres -D .";

/// Whoever is a superuser of the database has a shell as postgres (`COPY … TO PROGRAM`), and
/// must not become root by a link that root follows at the next start.
#[test]
#[ignore = "needs docker: make test"]
fn links_that_postgres_leaves_give_it_nothing() {
    let shadow =
        |node: &Container| node.shell("stat -c '%U %a' /etc /etc/shadow /home/barman").ok();
    for plant in [
        "rm -rf /var/lib/postgresql/pgherd && ln -s /etc /var/lib/postgresql/pgherd",
        "ln -sf /etc/shadow /var/lib/postgresql/pgherd/lock",
        "ln -sf /etc/shadow $(ls -d /var/lib/postgresql/*/docker)/pgherd.conf",
        "ln -sf /etc/shadow $(ls -d /var/lib/postgresql/*/docker)/pgherd.conf.pgherd-new",
        "rm -rf /run/pgherd/technical && ln -s /home/barman /run/pgherd/technical; true",
    ] {
        let node = Recipe::node("node1").start();
        node.await_ready();
        let before = shadow(&node);
        let listing = node.shell("cat /etc/shadow; ls -A /home/barman").ok();
        node.exec_as("postgres", ["bash", "-c", plant]).ok();
        node.stop();
        node.start_again();
        node.await_that("it serves or refuses", || {
            let serves = node.exec(["pgherd", "health", "--ready"]).status == 0;
            (serves || node.exit_status().is_some()).then_some(())
        });
        if node.exit_status().is_none() {
            assert_eq!(shadow(&node), before, "{plant}");
            assert_eq!(node.shell("cat /etc/shadow; ls -A /home/barman").ok(), listing, "{plant}");
        }
    }
}
