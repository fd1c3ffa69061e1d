//! "Slave is restarted but still is slave", "Master is restarted but still is the master" where
//! there is one: everybody keeps their place, and nothing is copied.

use crate::harness::{Cluster, Node, Server, await_follows, client, trials};
use std::fs;
use std::time::{Duration, Instant};

/// Streaming begins anew at the segment's beginning, 16 MiB before where it ended at most; the
/// rest is what the prober writes, and talk.
const RECEIVED_AT_MOST: u64 = 40 << 20;
/// Large enough that a copy of it could not be taken for that.
fn megabytes() -> u32 {
    if trials() { 2048 } else { 100 }
}

const STARTED: &str = "SELECT pg_postmaster_start_time()";

#[test]
#[ignore = "needs docker: make test"]
fn a_slave_that_is_stopped_or_killed_is_only_started_again() {
    let cluster = Cluster::up(2, megabytes());
    let prober = cluster.probe();
    let slave = cluster.node(2);
    let was_cloned = slave.bytes_received();
    assert!(was_cloned > u64::from(megabytes()) << 20, "{was_cloned} bytes are no clone");
    let inode = slave.pgdata_inode();

    let ends: [(&str, &dyn Fn()); 4] = [
        ("docker stop", &|| cluster.stop(2)),
        ("docker kill", &|| cluster.kill(2)),
        ("kill -9 of the server alone", &|| kill_postmaster(slave)),
        ("a stale pid file", &|| {
            cluster.kill(2);
            // Of a process that is always there.
            slave.data.shell("sed -i '1s/.*/1/' /v/*/docker/postmaster.pid");
        }),
    ];
    for (what, end) in ends {
        let received = if slave.exit_status().is_none() { slave.bytes_received() } else { 0 };
        end();
        if slave.exit_status().is_some() {
            cluster.start(2);
        }
        await_follows(slave, cluster.node(1));
        let since = slave.bytes_received();
        // A new container has a new interface, which counts from nothing.
        let received = if since >= received { since - received } else { since };
        assert!(received < RECEIVED_AT_MOST, "{what}: {received} bytes came in");
        assert_eq!(slave.pgdata_inode(), inode, "{what}");
        assert_eq!(slave.ask("SELECT count(*) FROM bulk"), (megabytes() * 896).to_string());
    }
    cluster.await_order(1, &[2]);
    let log = slave.log();
    assert_eq!(log.matches("Slave is started for the first time").count(), 1, "{log}");
    assert!(log.contains("Slave is restarted but still is slave"), "{log}");
    assert!(!log.contains("pg_rewind"), "{log}");
    let record = prober.end(&cluster, 1, &[2]);
    assert_eq!(record.writers(), ["node1"].into());
}

fn kill_postmaster(node: &Node) {
    let before = node.ask(STARTED);
    let postmaster = node.pid_of("postmaster", crate::harness::is_postmaster);
    node.kill("KILL", &postmaster).ok();
    node.await_alive("it is started in its place", || {
        let now = node.sql(STARTED);
        (now.status == 0 && now.stdout.trim_end() != before).then_some(())
    });
}

/// Nobody waits for a primary in order to read.
#[test]
#[ignore = "needs docker: make test"]
fn a_slave_that_is_restarted_without_its_master_serves_what_it_has() {
    let cluster = Cluster::up(2, 0);
    cluster.node(1).ask("CREATE TABLE kept AS SELECT 1 AS n");
    cluster.await_order(1, &[2]);
    cluster.kill(1);
    cluster.stop(2);
    let slave = cluster.start(2);
    slave.await_ready();
    assert_eq!(slave.ask("SELECT n FROM kept"), "1");
    assert_ne!(slave.sql("INSERT INTO kept VALUES (2)").status, 0);
    assert_eq!(slave.http("/primary").map(|(code, _)| code), Some(503));
    cluster.start(1);
    cluster.await_order(1, &[2]);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_master_that_is_stopped_or_killed_leads_again_and_its_slaves_stay() {
    let cluster = Cluster::up(3, 0);
    cluster.await_order(1, &[2, 3]);
    let prober = cluster.probe();
    let master = cluster.node(1);
    let identity =
        "SELECT system_identifier, timeline_id FROM pg_control_system(), pg_control_checkpoint()";
    let (inode, before) = (master.pgdata_inode(), master.ask(identity));
    let slaves: Vec<_> = [2, 3].map(|id| cluster.node(id).ask(STARTED)).into();
    for end in [Cluster::stop, Cluster::kill] {
        end(&cluster, 1);
        cluster.start(1);
        cluster.await_order(1, &[2, 3]);
        assert_eq!((master.pgdata_inode(), master.ask(identity)), (inode, before.clone()));
    }
    let now: Vec<_> = [2, 3].map(|id| cluster.node(id).ask(STARTED)).into();
    assert_eq!(now, slaves, "nobody touched them");
    let log = master.log();
    assert_eq!(log.matches("Master is restarted but still is the master").count(), 2, "{log}");
    let record = prober.end(&cluster, 1, &[2, 3]);
    assert_eq!(record.writers(), ["node1"].into());
}

/// Within 1.5 × of what the bare server takes; asserted loosely, for machines are noisy.
#[test]
#[ignore = "needs docker: make test"]
fn a_restarted_slave_serves_as_soon_as_a_bare_server_would() {
    if !trials() {
        return;
    }
    let cluster = Cluster::up(2, megabytes());
    let slave = cluster.node(2);
    let pgherd: Vec<_> = (0..3)
        .map(|_| {
            cluster.stop(2);
            let began = Instant::now();
            cluster.start(2).await_ready();
            began.elapsed()
        })
        .collect();
    cluster.stop(2);
    let bare = "cd /v/*/docker && chmod 700 . && setpriv --reuid=postgres --regid=postgres \
         --init-groups pg_ctl -D . -o '-c unix_socket_directories=/tmp -c config_file='$PWD/postgresql.conf \
         -w -t 60 start >/dev/null && setpriv --reuid=postgres --regid=postgres --init-groups \
         pg_ctl -D . -m fast stop >/dev/null";
    let bare: Vec<_> = (0..3)
        .map(|_| {
            let began = Instant::now();
            slave.data.shell(bare);
            began.elapsed()
        })
        .collect();
    let least = |of: &[Duration]| of.iter().min().copied().unwrap_or_default();
    println!("restart to ready: {pgherd:?}; bare start and stop in a container: {bare:?}");
    assert!(least(&pgherd) < least(&bare) * 2 + Duration::from_secs(1));
    cluster.start(2);
    await_follows(slave, cluster.node(1));
}

const CHANGED: [(&str, &str); 7] = [
    ("POSTGRES_PASSWORD", "hush now '1\"\\:@%$"),
    ("REPMGR_PASSWORD", "hush now '2\"\\:@%$"),
    ("REPMGR_STREAMING_PASSWORD", "hush now '3\"\\:@%$"),
    ("BARMAN_PASSWORD", "hush now '4\"\\:@%$"),
    ("BARMAN_STREAMING_PASSWORD", "hush now '5\"\\:@%$"),
    ("POSTGRES_PORT", "6543"),
    ("REPMGR_LOCATION", "cellar"),
];

/// One node after the other, the slave first, as a careful operator would.
#[test]
#[ignore = "needs docker: make test"]
fn what_changed_in_the_environment_of_all_is_in_force_on_all() {
    let mut cluster = Cluster::up(2, 0);
    cluster.await_order(1, &[2]);
    let inodes = [1, 2].map(|id| cluster.node(id).pgdata_inode());
    for id in [2, 1] {
        cluster.stop(id);
        let address = format!("moved{id}");
        cluster.recreate(id, |recipe| {
            recipe
                .envs(CHANGED)
                .env("REPMGR_NODE_ADDRESS", &address)
                .option("--network-alias")
                .option(&address)
                .env("REPMGR_PRIORITY", &(10 * id).to_string())
                .env("REPMGR_MASTER_HOST", "moved1:6543")
                .env("REPMGR_SLAVES", "moved2:6543")
                .command(["-c", "max_connections=177", "-c", "work_mem=7MB"])
        });
        cluster.start(id);
    }
    cluster.node(1).await_ready();
    let sql = |id: usize, database: &str, query: &str| {
        let psql = ["psql", "-XAtq", "-p", "6543", "-d", database, "-c", query];
        cluster.node(id).exec_as("postgres", psql)
    };
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    cluster.node(2).await_alive("streaming goes on", || {
        (sql(1, "postgres", streams).stdout.trim() == "1").then_some(())
    });
    sql(1, "postgres", "CREATE TABLE after_it ()").ok();
    cluster.node(2).await_alive("so does replay", || {
        (sql(2, "postgres", "SELECT count(*) FROM after_it").stdout.trim() == "0").then_some(())
    });

    let query = "SELECT node_id, priority, location, conninfo FROM repmgr.nodes ORDER BY 1";
    let records = cluster.node(2).await_showing("repmgr's records are new", || {
        let records = sql(2, "repmgr", query).stdout;
        (records.contains("host=moved1 port=6543") && records.contains("host=moved2 port=6543"))
            .then_some(records.clone())
            .ok_or(records)
    });
    let rows: Vec<_> = records.lines().collect();
    assert!(rows[0].starts_with("1|10|cellar|host=moved1 port=6543 user=repmgr "), "{records}");
    assert!(rows[1].starts_with("2|20|cellar|host=moved2 port=6543 user=repmgr "), "{records}");
    assert_eq!(rows.len(), 2, "{records}");

    let elsewhere = client_in(&cluster);
    for id in [1, 2] {
        assert_eq!(sql(id, "postgres", "SHOW max_connections").ok(), "177");
        assert_eq!(sql(id, "postgres", "SHOW work_mem").ok(), "7MB");
        log_in(&elsewhere, cluster.node(id));
        let on_disk = cluster.node(id).exec(["cat", "/etc/repmgr.d/repmgr.conf"]).ok();
        assert!(on_disk.contains(&format!("host=moved{id} port=6543")), "{on_disk}");
        let shown = cluster.node(id).exec_as("postgres", ["repmgr", "cluster", "show"]);
        assert_eq!(shown.status, 0, "{shown:?}");
        assert_eq!(cluster.node(id).pgdata_inode(), inodes[id - 1], "nothing was cloned");
        let conninfo = "SELECT conninfo FROM pg_stat_wal_receiver";
        let conninfo = sql(id, "postgres", conninfo).ok();
        let follows = conninfo.contains("host=moved1 ") && conninfo.contains(" port=6543 ");
        assert_eq!(follows, id == 2, "{conninfo}");
    }
    cluster.keeps_its_secrets();
}

/// A standby cannot start with a lower limit than the master had, and so can never hear that the
/// master has a lower one now; unless it starts with the old one once more.
#[test]
#[ignore = "needs docker: make test"]
fn a_limit_that_is_lowered_on_all_nodes_at_once_is_lower_on_all_in_the_end() {
    let mut cluster = Cluster::up(2, 0);
    cluster.await_order(1, &[2]);
    cluster.stop_all();
    for id in [1, 2] {
        cluster.recreate(id, |recipe| recipe.command(["-c", "max_connections=50"]));
        cluster.start(id);
    }
    cluster.await_order(1, &[2]);
    assert_eq!(cluster.node(1).ask("SHOW max_connections"), "50");
    // It has heard of it by now.
    cluster.stop(2);
    cluster.start(2);
    cluster.await_order(1, &[2]);
    assert_eq!(cluster.node(2).ask("SHOW max_connections"), "50");
}

fn client_in(cluster: &Cluster) -> crate::harness::Container {
    let elsewhere = client();
    cluster.network().connect(&elsewhere.name, None);
    elsewhere
}

fn log_in(elsewhere: &crate::harness::Container, node: &Node) {
    for (n, user, database, question) in [
        (0, "postgres", "postgres", "SELECT 1"),
        (1, "repmgr", "repmgr", "SELECT 1"),
        (2, "repmgr_streaming", "replication=1", "IDENTIFY_SYSTEM"),
        (3, "barman", "postgres", "SELECT 1"),
        (4, "barman_streaming", "replication=1", "IDENTIFY_SYSTEM"),
    ] {
        let host = node.ip();
        let server = |password| Server { host: &host, port: "6543", user, password, database };
        elsewhere.psql(&server(CHANGED[n].1), question).ok();
        let refused = elsewhere.psql(&server(crate::harness::PASSWORDS[n].1), question);
        assert!(refused.stderr.contains("password authentication failed"), "{refused:?}");
    }
}

/// An upgrade of the tools brings a newer extension; it can only be updated where one may write.
#[test]
#[ignore = "needs docker: make test"]
fn an_older_extension_of_repmgr_is_updated_on_the_master() {
    let cluster = Cluster::up(2, 0);
    cluster.await_order(1, &[2]);
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'repmgr'";
    let ask = |id: usize, query: &str| {
        let psql = ["psql", "-XAtq", "-d", "repmgr", "-c", query];
        cluster.node(id).exec_as("postgres", psql).ok()
    };
    let newest = ask(1, version);
    // As an older image would have left it. What it consists of is the newer one's.
    ask(1, "UPDATE pg_extension SET extversion = '5.2' WHERE extname = 'repmgr'");
    for id in [2, 1] {
        cluster.stop(id);
    }
    for id in [2, 1] {
        cluster.start(id);
    }
    cluster.node(1).await_ready();
    cluster.node(1).await_alive("it is updated", || (ask(1, version) == newest).then_some(()));
    cluster.await_order(1, &[2]);
    assert_eq!(ask(2, version), newest);
}

/// The state directory tells nothing that the rest would not: it may be lost.
#[test]
#[ignore = "needs docker: make test"]
fn pgherds_own_directory_may_be_lost() {
    let cluster = Cluster::up(2, 0);
    cluster.await_order(1, &[2]);
    for id in [2, 1] {
        cluster.stop(id);
        let state = cluster.node(id).data.mountpoint().join("pgherd");
        fs::remove_dir_all(&state).expect("it is there");
    }
    for id in [1, 2] {
        cluster.start(id);
    }
    cluster.await_order(1, &[2]);
}

/// A name is looked up when that is needed, not while its host may be lost; and then anew.
#[test]
#[ignore = "needs docker: make test"]
fn a_master_that_comes_back_at_another_address_is_followed_there() {
    let cluster = Cluster::of(3);
    cluster.start(1).await_ready();
    cluster.start(2);
    await_follows(cluster.node(2), cluster.node(1));
    let (master, slave) = (cluster.node(1), cluster.node(2));
    let first = master.ip();
    slave.await_showing("no resolver is needed to follow", || {
        let conninfo = slave.ask("SHOW primary_conninfo");
        conninfo.contains(&format!("host=node1 hostaddr={first} ")).then_some(()).ok_or(conninfo)
    });
    // Whoever starts next gets the address that is free.
    let moves = || {
        let before = master.ip();
        cluster.stop(1);
        cluster.start(3);
        cluster.start(1);
        assert_ne!(master.ip(), before, "it moves");
    };
    moves();
    cluster.await_order(1, &[2, 3]);

    // Away meanwhile, and it may need its master's WAL before it can serve.
    cluster.kill(2);
    cluster.stop(3);
    moves();
    cluster.start(2);
    cluster.await_order(1, &[2, 3]);
}
