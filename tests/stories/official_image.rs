//! What users of the official `postgres` image rely on. `postgres-basics`, `postgres-initdb`,
//! `override-cmd`, `utc` and `no-hard-coded-passwords` of docker-library/official-images are among
//! it, to the same effect.

use crate::harness::{Container, Recipe, Server, Volume, client, is_postmaster};

/// Names with blanks, as in `postgres-basics`.
const BLANKS: [(&str, &str); 3] = [
    ("POSTGRES_USER", "my cool postgres user"),
    ("POSTGRES_PASSWORD", "my cool postgres password"),
    ("POSTGRES_DB", "my cool postgres database"),
];

fn server_with_blanks(ip: &str) -> Server<'_> {
    let [(_, user), (_, password), (_, database)] = BLANKS;
    Server { host: ip, port: "5432", user, password, database }
}

#[test]
#[ignore = "needs docker: make test"]
fn the_official_images_basic_tests_hold() {
    let node = Recipe::node("node1").envs(BLANKS).create();
    let script = "CREATE TABLE test (x INT, y INT, z TEXT);\n\
         INSERT INTO test VALUES (1, 2, 'hello');\n";
    node.put("/docker-entrypoint-initdb.d/initdb.sql", script, 0o644);
    let elsewhere = client();
    node.start_again().await_ready();

    // Asked for each time: docker may give another address after a restart.
    let psql = |query| elsewhere.psql(&server_with_blanks(&node.ip()), query).ok();
    // postgres-initdb
    assert_eq!(psql("SELECT COUNT(*) FROM test"), "1");
    psql("INSERT INTO test VALUES (2, 3, 'goodbye!')");
    // postgres-basics
    assert_eq!(psql("SELECT COUNT(*) FROM test"), "2");
    psql("DELETE FROM test WHERE x = 1");
    assert_eq!(psql("SELECT COUNT(*) FROM test"), "1");
    assert_eq!(psql("SELECT z FROM test"), "goodbye!");
    psql("DROP TABLE test");
    assert_eq!(psql("SET jit = on; SELECT pg_jit_available()"), "t");

    let superuser = "SELECT rolname FROM pg_roles WHERE rolsuper";
    assert_eq!(psql(superuser), BLANKS[0].1);
    assert_eq!(psql("SELECT current_database()"), BLANKS[2].1);
    // What pgherd adds works with a superuser of another name, too.
    let shown = node.exec_as("postgres", ["repmgr", "cluster", "show"]).ok();
    assert!(shown.contains("| primary | * running |"), "{shown}");
    assert_eq!(node.stop(), 0);
    node.start_again().await_ready();
    assert_eq!(psql("SELECT 1"), "1");
}

#[test]
#[ignore = "needs docker: make test"]
fn another_command_runs_as_if_pgherd_were_not_there() {
    let volume = Volume::new();
    let run = |words: &[&'static str]| {
        let recipe = Recipe::node("node1").volume(&volume, "/var/lib/postgresql");
        recipe.command(words.iter().copied()).run()
    };
    let said = run(&["echo", "Hello World, Goodbye"]); // override-cmd
    assert_eq!(
        (said.status, said.stdout.as_str(), said.stderr.as_str()),
        (0, "Hello World, Goodbye\n", "")
    );
    let version = run(&["postgres", "--version"]).ok();
    assert!(version.starts_with("postgres (PostgreSQL) "), "{version}");
    assert!(run(&["--help"]).ok().contains("postgres is the PostgreSQL server."));

    // Environment of a node that could not be started is no reason not to run something else.
    let bad = Recipe::node("node1").env("POSTGRES_PORT", "x");
    assert_eq!(bad.command(["bash", "-c", "exit 7"]).run().status, 7);
    assert_eq!(run(&["bash", "-c", "kill -9 $$"]).status, 137);
    assert_eq!(run(&["id", "-u"]).ok(), "0");
    let missing = run(&["no-such-program"]);
    assert_eq!(missing.status, 127);
    assert!(missing.stderr.contains("no-such-program"), "{missing:?}");
    let directory = run(&["/etc"]);
    assert_eq!(directory.status, 126, "{directory:?}");

    let other = |program: &str| Recipe::node("node1").entrypoint(program);
    assert_eq!(other("date").command(["+%Z"]).run().ok(), "UTC"); // utc
    let hard_coded = // no-hard-coded-passwords
        r#"awk -F: '$2 != "x" && $2 != "*" && $2 !~ /^!/ { print $1 }' /etc/passwd /etc/shadow"#;
    assert_eq!(other("bash").command(["-c", hard_coded]).run().ok(), "");
    assert_eq!(volume.shell("ls -A /v"), "", "none of these makes a cluster");
}

#[test]
#[ignore = "needs docker: make test"]
fn variables_for_initdb_mean_what_they_mean_there() {
    let (secrets, wal) = (Volume::new(), Volume::new());
    secrets.shell(
        "cd /v; printf 'from a file\\n\\n' >password; echo me >user; echo mine >db; chmod 600 *",
    );
    let node = Recipe::node("node1")
        .volume(&secrets, "/run/secrets")
        .volume(&wal, "/wal")
        .env("POSTGRES_PASSWORD_FILE", "/run/secrets/password")
        .env("POSTGRES_USER_FILE", "/run/secrets/user")
        .env("POSTGRES_DB_FILE", "/run/secrets/db")
        .env(
            "POSTGRES_INITDB_ARGS",
            r#"--data-checksums --wal-segsize=32 --text-search-config="english" --locale='C'"#,
        )
        .env("POSTGRES_INITDB_WALDIR", "/wal/segments")
        .start();
    let elsewhere = client();
    node.await_ready();
    let ip = node.ip();
    let server =
        Server { host: &ip, port: "5432", user: "me", password: "from a file", database: "mine" };
    let asked = "SELECT current_setting('data_checksums'), current_setting('wal_segment_size'), \
         current_setting('default_text_search_config'), datcollate, pg_encoding_to_char(encoding) \
         FROM pg_database WHERE datname = 'mine'";
    assert_eq!(elsewhere.psql(&server, asked).ok(), "on|32MB|pg_catalog.english|C|UTF8");
    assert!(!wal.shell("ls /v/segments").is_empty());
    assert_eq!(wal.shell("stat -c '%a %U' /v/segments"), "700 postgres");
    // What was given to barman and repmgr fits as well.
    let json = node.exec(["pgherd", "settings", "--json"]).ok();
    assert!(json.contains("/run/secrets/password") && !json.contains("from a file"), "{json}");
}

#[test]
#[ignore = "needs docker: make test"]
fn trust_is_possible_and_warned_of() {
    let node = Recipe::node("node1").env("POSTGRES_HOST_AUTH_METHOD", "trust").start();
    let elsewhere = client();
    node.await_ready();
    let server = Server {
        host: &node.ip(),
        port: "5432",
        user: "postgres",
        password: "",
        database: "postgres",
    };
    assert_eq!(elsewhere.psql(&server, "SELECT 1").ok(), "1");
    let refused =
        elsewhere.psql(&Server { user: "repmgr", database: "repmgr", ..server }, "SELECT");
    assert_ne!(refused.status, 0, "the tools' roles are not part of the bargain: {refused:?}");
    let log = node.log();
    let warned = log.lines().filter(|line| line.contains(" WARN "));
    assert!(warned.filter(|line| line.contains("is trust: anyone")).count() == 1, "{log}");
}

/// A file of each kind, in an order that tells bash's in `en_US.UTF-8` from that of bytes. Each
/// that is run inserts its own name.
const KINDS: &str = r#"
cd /v
insert() { echo "INSERT INTO ran (name) VALUES ('$1');"; }
{ echo "CREATE TABLE ran (n serial, name text);"; insert 01-a.sql; } >01-a.sql
insert 01_z.sql.gz | gzip >01_z.sql.gz
insert 10-a.sql.xz | xz >10-a.sql.xz
insert 2-b.sql.zst | zstd -q >2-b.sql.zst

cat >a.sh <<'END'
#!/bin/bash
set -e
[ "$(basename "$0")" = a.sh ] # run, not sourced
[ "$(id -un)" = postgres ]
[ "$HOME" = /var/lib/postgresql ]
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<-EOSQL
	INSERT INTO ran (name) VALUES ('a.sh');
	CREATE ROLE hook LOGIN PASSWORD '$POSTGRES_PASSWORD';
EOSQL
END
chmod 755 a.sh

cat >b.sh <<'END'
# Sourced: it has no line that says what to run it with, and no right to be run.
docker_process_sql <<<"INSERT INTO ran (name) VALUES ('b.sh by ' || current_user);"
docker_process_sql --dbname postgres -c 'CREATE DATABASE "from a hook"'
"${psql[@]}" --username "$POSTGRES_USER" --dbname 'from a hook' -c 'CREATE TABLE t ()'
echo 'host all hook all reject' >>"$PGDATA/pg_hba.conf"
sed -i '1i local all hook reject' "$PGDATA/pg_hba.conf"
echo "work_mem = '5MB'" >>"$PGDATA/postgresql.conf"
END

echo "ALTER SYSTEM SET maintenance_work_mem = '99MB';" >B.sql
echo "\\set name C.sql
INSERT INTO ran (name) VALUES (:'name');" >C.sql
insert _c.sql >_c.sql
echo nonsense >README.md
echo nonsense >x.sql.bz2
echo nonsense >.hidden.sql
"#;

#[test]
#[ignore = "needs docker: make test"]
fn init_scripts_of_each_kind_run_once_in_the_official_images_order() {
    let hooks = Volume::new();
    hooks.shell(KINDS);
    let node = Recipe::node("node1")
        .volume(&hooks, "/docker-entrypoint-initdb.d")
        .env("POSTGRES_USER", "me")
        .env("POSTGRES_PASSWORD", "p w")
        .env("POSTGRES_DB", "mine")
        .start();
    node.await_ready();
    let log = node.log();
    let running = "running /docker-entrypoint-initdb.d/";
    let ran: Vec<_> = log.lines().filter_map(|line| line.split_once(running)).collect();
    let ran: Vec<_> = ran.iter().map(|(_, name)| *name).collect();
    assert_eq!(
        ran,
        [
            "01-a.sql",
            "01_z.sql.gz",
            "10-a.sql.xz",
            "2-b.sql.zst",
            "a.sh",
            "b.sh",
            "B.sql",
            "_c.sql",
            "C.sql"
        ]
    );
    for name in ["README.md", "x.sql.bz2"] {
        let said = format!("ignoring /docker-entrypoint-initdb.d/{name}");
        assert_eq!(log.matches(&said).count(), 1, "{log}");
    }
    assert!(!log.contains(".hidden"), "{log}");

    let psql = |database: &str, query: &str| {
        let psql = ["psql", "-XAtq", "-U", "me", "-d", database, "-c", query];
        node.exec_as("postgres", psql).ok()
    };
    let names = "SELECT string_agg(name, ' ' ORDER BY n) FROM ran";
    let expected = "01-a.sql 01_z.sql.gz 10-a.sql.xz 2-b.sql.zst a.sh b.sh by me _c.sql C.sql";
    assert_eq!(psql("mine", names), expected);
    assert_eq!(psql("from a hook", "SELECT count(*) FROM t"), "0");
    assert_eq!(psql("mine", "SHOW maintenance_work_mem"), "99MB");
    assert_eq!(psql("mine", "SHOW work_mem"), "5MB");
    let rules = "SELECT count(*) FROM pg_hba_file_rules WHERE user_name = '{hook}'";
    assert_eq!(psql("mine", rules), "2");

    assert_eq!(node.stop(), 0);
    node.start_again().await_ready();
    assert_eq!(psql("mine", names), expected, "once");
    assert_eq!(psql("mine", rules), "2", "what the operator wrote stays");
    let blocks = node.shell("grep -c '^# >>> pgherd' /var/lib/postgresql/*/docker/pg_hba.conf");
    assert_eq!(blocks.ok(), "1", "pgherd's own rules stand there once");
    assert_eq!(psql("mine", "SHOW work_mem"), "5MB");
}

#[test]
#[ignore = "needs docker: make test"]
fn an_init_script_that_fails_ends_the_container_and_the_next_start_begins_anew() {
    let (hooks, data) = (Volume::new(), Volume::new());
    hooks.shell(
        "cd /v; echo 'CREATE TABLE half (n int); INSERT INTO half VALUES (1);' >1.sql; \
         echo 'exit 42' >2.sh; echo \"docker_process_sql -c 'INSERT INTO half VALUES (2)'\" >3.sh",
    );
    let node = Recipe::node("node1")
        .volume(&hooks, "/docker-entrypoint-initdb.d")
        .volume(&data, "/var/lib/postgresql")
        .start();
    assert_eq!(node.await_end(), 42);
    let log = node.log();
    let errors: Vec<_> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert!(errors[0].contains("/docker-entrypoint-initdb.d/2.sh ended with exit status: 42"));
    assert!(errors[0].contains("the cluster is then made anew"), "{errors:?}");
    assert!(!log.contains("9/10"), "{log}");

    // Now one that SQL does not take.
    hooks.shell("echo 'SELECT * FROM nowhere;' >/v/2.sh; mv /v/2.sh /v/2.sql");
    node.start_again();
    assert_eq!(node.await_end(), 3, "psql's");
    let log = node.log();
    assert_eq!(log.matches("running /docker-entrypoint-initdb.d/1.sql").count(), 2, "{log}");
    assert_eq!(log.matches("it is begun anew").count(), 1, "{log}");
    assert!(log.contains("relation \"nowhere\" does not exist"), "{log}");
    assert!(!log.contains("9/10"), "{log}");

    hooks.shell("echo 'SELECT 1;' >/v/2.sql");
    node.start_again().await_ready();
    assert_eq!(node.sql("SELECT string_agg(n::text, ' ') FROM half").ok(), "1 2");
    assert_eq!(data.shell("ls /v/*/docker | grep -c unfinished || true"), "0");
}

fn setting(node: &Container, name: &str) -> String {
    node.sql(&format!("SHOW {name}")).ok()
}

#[test]
#[ignore = "needs docker: make test"]
fn server_flags_and_files_of_the_operators_are_honoured() {
    let data = Volume::new();
    let recipe = Recipe::node("node1").volume(&data, "/var/lib/postgresql");
    let first = recipe.clone().command(["-c", "work_mem=64MB"]).start();
    first.await_ready();
    assert_eq!(setting(&first, "work_mem"), "64MB");
    assert_eq!(setting(&first, "shared_preload_libraries"), "repmgr");
    assert_eq!(first.stop(), 0);

    let preload = "shared_preload_libraries=pg_stat_statements";
    let flags = ["postgres", "-c", "work_mem=65MB", "-c", preload, "--log-connections=on"];
    let second = recipe.command(flags).create();
    let conf = "/etc/pgherd/postgresql.conf.d";
    second
        .put(&format!("{conf}/10-mine.conf"), "work_mem = 1MB\nmax_connections = 33\n", 0o644)
        .put(&format!("{conf}/20-mine.conf"), "max_connections = 44\nwal_keep_size = 64MB\n", 0o644)
        .put(&format!("{conf}/not-mine.txt"), "max_connections = 55\n", 0o644)
        .put("/etc/pgherd/pg_hba.conf", "host all stranger all reject\n", 0o644)
        .start_again()
        .await_ready();
    for (name, expected) in [
        ("work_mem", "65MB"),
        ("shared_preload_libraries", "repmgr,pg_stat_statements"),
        ("log_connections", "on"),
        ("max_connections", "44"),
        ("wal_keep_size", "64MB"),
    ] {
        assert_eq!(setting(&second, name), expected, "{name}");
    }
    second.sql("CREATE EXTENSION pg_stat_statements; SELECT FROM pg_stat_statements LIMIT 1").ok();
    let rules = "SELECT database, auth_method FROM pg_hba_file_rules \
         WHERE user_name = '{stranger}' AND error IS NULL";
    assert_eq!(second.sql(rules).ok(), "{all}|reject");
    let elsewhere = client();
    let stranger = Server {
        host: &second.ip(),
        port: "5432",
        user: "stranger",
        password: "",
        database: "postgres",
    };
    let refused = elsewhere.psql(&stranger, "SELECT 1").stderr;
    assert!(refused.contains("pg_hba.conf rejects connection"), "{refused}");
    let shown = second.exec_as("postgres", ["repmgr", "cluster", "show"]).ok();
    assert!(shown.contains("* running"), "{shown}");
}

#[test]
#[ignore = "needs docker: make test"]
fn it_runs_as_any_user_and_says_what_it_cannot_do_then() {
    let owned = Volume::new();
    // docker gives an empty volume the image's owner.
    owned.shell("touch /v/mine; chown 12345:0 /v; chmod 700 /v");
    let any = || Recipe::node("node1").option("--user");
    for recipe in [
        any().option("999"),
        any().option("12345:0"),
        any().option("12345:0").volume(&owned, "/var/lib/postgresql"),
    ] {
        let node = recipe.start();
        node.await_ready();
        let log = node.log();
        let warned = log.lines().filter(|line| line.contains(" WARN "));
        let about_cron: Vec<_> = warned.filter(|line| line.contains("cron needs root")).collect();
        assert_eq!(about_cron.len(), 1, "{log}");
        let status = node.exec(["pgherd", "status"]).ok();
        assert!(status.contains("cron needs root"), "{status}");

        let pid = node.pid_of("postmaster", is_postmaster);
        let who = node.shell(&format!("stat -c %u /proc/{pid}")).ok();
        let psql = ["psql", "-XAtq", "-U", "postgres", "-d", "postgres", "-c", "SHOW fsync"];
        assert_eq!(node.exec_as(&who, psql).ok(), "on");
        let registered = "SELECT count(*) FROM repmgr.nodes WHERE active AND type = 'primary'";
        let psql = ["psql", "-XAtq", "-U", "postgres", "-d", "repmgr", "-c", registered];
        assert_eq!(node.exec_as(&who, psql).ok(), "1");
        node.await_that("repmgrd runs", || {
            node.processes().iter().any(|one| one.name == "repmgrd").then_some(())
        });
        assert_eq!(node.stop(), 0);
        node.start_again().await_ready();
    }
}
