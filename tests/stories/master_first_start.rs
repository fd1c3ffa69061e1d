//! "Master is started for the first time", from an empty volume to a served port.

use crate::document::{lines_of, stages_in, stages_of};
use crate::harness::{Container, Recipe, Server, Volume, await_within, client, is_postmaster};
use std::time::{Duration, Instant};

#[test]
#[ignore = "needs docker: make test"]
fn a_first_start_is_the_documents_ten_lines_and_the_plan_tells_them_before() {
    let titles = lines_of("Master is started for the first time");
    assert_eq!(titles.len(), 10, "{titles:?}");
    let volume = Volume::new();
    let recipe = Recipe::node("node1").volume(&volume, "/var/lib/postgresql");

    let plan = recipe.clone().command(["pgherd", "plan"]).run().ok();
    assert!(plan.starts_with("Master is started for the first time\n"), "{plan}");
    let expected: Vec<_> = (1..).zip(titles.iter().cloned()).collect();
    assert_eq!(stages_of(&plan), expected, "{plan}");

    let json = recipe.clone().command(["pgherd", "plan", "--json"]).run().ok();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["scenario"], "primary-first-start");
    let stages = json["stages"].as_array().expect("a list");
    assert!(stages.iter().map(|stage| &stage["title"]).eq(&titles), "{json:#}");
    assert_eq!(volume.shell("ls -A /v"), "", "a plan touches nothing");

    let node = recipe.start();
    node.await_ready();
    let logged = stages_in(&node.log());
    let expected = (1..).zip(&titles).map(|(number, title)| (number, 10, title.clone()));
    assert!(logged.iter().cloned().eq(expected), "{logged:#?}");

    let next = node.exec(["pgherd", "plan"]).ok();
    assert!(next.starts_with("Master is restarted but still is the master\n"), "{next}");
}

#[test]
#[ignore = "needs docker: make test"]
fn a_first_start_ends_in_a_master_that_serves() {
    let node = Recipe::node("node1")
        .env("POSTGRES_PASSWORD", "own1")
        .env("REPMGR_PASSWORD", "own2")
        .env("BARMAN_PASSWORD", "own4")
        .start();
    let elsewhere = client();
    node.await_ready();
    serves_other_containers(&node, &elsewhere);
    is_registered_with_repmgr(&node);
    has_roles_with_the_least_privileges(&node);
    runs_pgbench(&node);
    keeps_what_it_promises_of_the_cluster(&node);
}

fn serves_other_containers(node: &Container, elsewhere: &Container) {
    let ip = node.ip();
    let server = |password| Server {
        host: &ip,
        port: "5432",
        user: "postgres",
        password,
        database: "postgres",
    };
    let kept = "SELECT left(rolpassword, 14) FROM pg_authid WHERE rolname = current_user";
    assert_eq!(elsewhere.psql(&server("own1"), kept).ok(), "SCRAM-SHA-256$");
    let refused = elsewhere.psql(&server("wrong"), "SELECT 1");
    assert!(refused.stderr.contains("password authentication failed"), "{refused:?}");
}

fn is_registered_with_repmgr(node: &Container) {
    for file in [&[][..], &["-f", "/etc/repmgr.d/repmgr.conf"]] {
        let show = ["repmgr"].into_iter().chain(file.iter().copied()).chain(["cluster", "show"]);
        let shown = node.exec_as("postgres", show).ok();
        let rows: Vec<Vec<_>> =
            shown.lines().skip(2).map(|row| row.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows.len(), 1, "{shown}");
        assert_eq!(rows[0][..4], ["1", "node1", "primary", "* running"], "{shown}");
    }
    let rows = node.exec_as(
        "postgres",
        ["psql", "-XAtq", "-d", "repmgr", "-c", "SELECT conninfo FROM repmgr.nodes"],
    );
    let conninfo = rows.ok();
    assert!(conninfo.starts_with("host=node1 port=5432 user=repmgr dbname=repmgr "), "{conninfo}");
    assert!(!conninfo.contains("own2") && !conninfo.contains("password="), "{conninfo}");
    assert_eq!(conninfo.lines().count(), 1);
}

fn has_roles_with_the_least_privileges(node: &Container) {
    let attributes = "SELECT concat_ws(' ', rolname, CASE WHEN rolsuper THEN 'superuser' END, \
         CASE WHEN rolcreatedb THEN 'createdb' END, CASE WHEN rolcreaterole THEN 'createrole' END, \
         CASE WHEN rolreplication THEN 'replication' END, \
         CASE WHEN rolbypassrls THEN 'bypassrls' END, CASE WHEN rolcanlogin THEN 'login' END) \
         FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1";
    let expected = "barman login\n\
         barman_streaming replication login\n\
         postgres superuser createdb createrole replication bypassrls login\n\
         repmgr login\n\
         repmgr_streaming replication login";
    assert_eq!(node.sql(attributes).ok(), expected);
    let memberships = "SELECT m.rolname || ' ' || g.rolname FROM pg_auth_members a \
         JOIN pg_roles m ON m.oid = a.member JOIN pg_roles g ON g.oid = a.roleid \
         WHERE m.rolname !~ '^pg_' ORDER BY 1";
    let expected = "barman pg_checkpoint\nbarman pg_read_all_settings\n\
         barman pg_read_all_stats\nrepmgr pg_checkpoint\nrepmgr pg_monitor";
    assert_eq!(node.sql(memberships).ok(), expected, "no role got more than its tool needs");
    let owned = "SELECT datname FROM pg_database WHERE datdba <> 'postgres'::regrole";
    assert_eq!(node.sql(owned).ok(), "");
}

fn runs_pgbench(node: &Container) {
    node.sql("CREATE DATABASE bench").ok();
    let pgbench = |arguments: &[&'static str]| {
        let command = ["pgbench", "-q"].into_iter().chain(arguments.iter().copied());
        node.exec_as("postgres", command.chain(["bench"])).ok()
    };
    pgbench(&["-i", "-s", "1"]);
    let said = node.exec_as("postgres", ["pgbench", "-c", "2", "-t", "50", "bench"]).ok();
    assert!(said.contains("number of transactions actually processed: 100/100"), "{said}");
}

fn keeps_what_it_promises_of_the_cluster(node: &Container) {
    let settings = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings \
         WHERE name IN ('data_checksums', 'server_encoding', 'fsync', 'full_page_writes', \
         'synchronous_commit', 'wal_level', 'password_encryption', 'shared_preload_libraries')";
    assert_eq!(
        node.sql(settings).ok(),
        "data_checksums=on fsync=on full_page_writes=on password_encryption=scram-sha-256 \
         server_encoding=UTF8 shared_preload_libraries=repmgr synchronous_commit=on \
         wal_level=replica"
    );
    let weak = "SELECT line_number FROM pg_hba_file_rules WHERE error IS NOT NULL \
         OR type LIKE 'host%' AND auth_method NOT IN ('scram-sha-256', 'reject')";
    assert_eq!(node.sql(weak).ok(), "");
    let oom = |pid: &str| node.shell(&format!("cat /proc/{pid}/oom_score_adj")).ok();
    let postmaster = node.pid_of("postmaster", is_postmaster);
    let backend = node.pid_of("checkpointer", |process| process.command.contains("checkpointer"));
    assert_eq!(oom(&postmaster), oom("1"), "the server is not killed before its sessions");
    let score = |text: String| text.parse::<i32>().expect("a number");
    assert!(score(oom(&backend)) > score(oom(&postmaster)));
}

#[test]
#[ignore = "needs docker: make test"]
fn barman_is_content_within_two_minutes_by_cron_alone() {
    let began = Instant::now();
    let node = Recipe::node("node1").start();
    node.await_ready();
    let limit = Duration::from_secs(130).saturating_sub(began.elapsed());
    let checked = await_within(limit, "barman check is all OK", || {
        let checked = node.exec_as("barman", ["barman", "check", "pgherd"]);
        (checked.status == 0).then_some(checked.stdout)
    });
    assert!(checked.lines().skip(1).all(|line| line.trim_end().contains(": OK")), "{checked}");
    let backups = node.exec_as("barman", ["barman", "list-backup", "--minimal", "pgherd"]).ok();
    assert_eq!(backups.lines().count(), 1, "the first backup is taken once: {backups}");
}

#[test]
#[ignore = "needs docker: make test"]
fn nobody_reaches_a_server_that_is_being_prepared() {
    let node = Recipe::node("node1").create();
    let wait = "touch /tmp/held\nuntil [ -e /tmp/go ]; do sleep 0.05; done\n";
    node.put("/docker-entrypoint-initdb.d/wait.sh", wait, 0o644);
    let elsewhere = client();
    node.start_again();
    await_hook(&node);

    let ip = node.ip();
    for port in ["5432", "5434"] {
        let knock = elsewhere.shell(&format!("exec 3<>/dev/tcp/{ip}/{port}"));
        assert!(knock.stderr.contains("Connection refused"), "{port}: {knock:?}");
        assert_eq!(elsewhere.exec(["pg_isready", "-h", &ip, "-p", port]).status, 2);
        for at in ["/var/run/postgresql", "localhost"] {
            let psql = ["psql", "-XAtqw", "-h", at, "-p", port, "-U", "postgres", "-c", "SELECT 1"];
            assert_ne!(node.exec_as("postgres", psql).status, 0, "{at} {port}");
        }
    }
    assert_eq!(node.exec_as("postgres", ["pg_isready"]).status, 2);
    let technical = "psql -XAtqw -h /run/pgherd/technical -p 5434 -U postgres -c 'SELECT 1'";
    assert_ne!(node.exec_as("barman", ["bash", "-c", technical]).status, 0, "postgres' own only");

    assert_eq!(node.exec(["pgherd", "health"]).status, 0, "alive");
    assert_eq!(node.exec(["pgherd", "health", "--ready"]).status, 1, "and not ready");
    let status = node.exec(["pgherd", "status"]).ok();
    let stage = "Master is started for the first time: 5/10 Create DB repmgr";
    assert!(status.contains(stage) && status.contains("  starting"), "{status}");
    let json = node.exec(["pgherd", "status", "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["state"], "provisioning", "{json:#}");
    assert_eq!(json["primary"], serde_json::Value::Null, "{json:#}");
    assert_eq!(json["nodes"][0]["state"], "starting", "{json:#}");

    // A stop is no reason to wait for the script; nor is half a start taken for a whole one.
    let began = Instant::now();
    assert_eq!(node.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    node.put("/tmp/go", "", 0o644).start_again();
    node.await_ready();
    assert!(node.log().contains("the first start was interrupted: it is begun anew"));
    let server = Server {
        host: &node.ip(),
        port: "5432",
        user: "postgres",
        password: "mysecretpassword",
        database: "postgres",
    };
    assert_eq!(elsewhere.psql(&server, "SELECT 1").ok(), "1");
}

fn await_hook(node: &Container) {
    node.await_that("its script runs", || {
        (node.exec(["test", "-e", "/tmp/held"]).status == 0).then_some(())
    });
}

#[test]
#[ignore = "needs docker: make test"]
fn a_second_container_on_a_volume_is_refused_and_the_first_goes_on() {
    let volume = Volume::new();
    let first = Recipe::node("node1").volume(&volume, "/var/lib/postgresql").start();
    first.await_ready();
    let second = Recipe::node("node2").volume(&volume, "/var/lib/postgresql");
    for recipe in [second.clone(), second.option("--user").option("999")] {
        let refused = recipe.run();
        assert_eq!(refused.status, 1, "{refused:?}");
        let errors: Vec<_> =
            refused.stderr.lines().filter(|line| line.contains(" ERROR ")).collect();
        assert_eq!(errors.len(), 1, "{refused:?}");
        let says = |words| errors[0].contains(words);
        assert!(says("in use by another container (node node1 in container node1)"), "{errors:?}");
        assert!(says("stop that one first, or give this one a volume of its own"), "{errors:?}");
    }
    assert_eq!(first.sql("SELECT 1").ok(), "1");
    let began = first.sql("SELECT pg_postmaster_start_time()").ok();
    assert_eq!(first.stop(), 0);
    first.start_again().await_ready();
    assert_ne!(first.sql("SELECT pg_postmaster_start_time()").ok(), began);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_stale_pid_file_whose_pid_is_somebody_elses_by_now_stops_no_start() {
    let volume = Volume::new();
    // One user for all: only a process of its own user does Postgres take for a postmaster.
    let node = Recipe::node("node1")
        .option("--user")
        .option("999:999")
        .volume(&volume, "/var/lib/postgresql")
        .start();
    node.await_ready().sql("CREATE TABLE kept AS SELECT 1 AS n").ok();
    node.signal("KILL").await_end();
    for (pid, pid_of_socket) in [("1", "7"), ("7", "1")] {
        volume.shell(&format!("sed -i '1s/.*/{pid}/' /v/*/docker/postmaster.pid"));
        let lock = format!("{pid_of_socket}\n/elsewhere\n1\n5432\n/var/run/postgresql\n");
        node.put("/var/run/postgresql/.s.PGSQL.5432.lock", &lock, 0o644);
        node.start_again().await_ready();
        assert_eq!(node.sql("SELECT n FROM kept").ok(), "1");
        node.signal("KILL").await_end();
    }
}
