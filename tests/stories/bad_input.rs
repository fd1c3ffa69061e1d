//! What cannot be used is refused before anything is made: one clear line that names it and the
//! way out, status 78 for settings and 1 for what was found, and a volume as it was.

use crate::harness::{Answer, Container, Recipe, Volume, client, unique};
use std::time::{Duration, Instant};

/// The one line of a refusal. Beside it there may be talk (INFO, WARN), and nothing else.
fn refusal(answer: &Answer, status: i32) -> String {
    assert_eq!(answer.status, status, "{answer:#?}");
    assert_eq!(answer.stdout, "", "talk goes to standard error");
    let is_talk = |line: &&str| [" INFO ", " WARN "].iter().any(|level| line.contains(level));
    let lines: Vec<_> = answer.stderr.lines().filter(|line| !is_talk(line)).collect();
    assert_eq!(lines.len(), 1, "one line: {answer:#?}");
    assert!(lines[0].starts_with("pgherd"), "{answer:#?}");
    lines[0].to_owned()
}

fn says(line: &str, words: &[&str]) {
    for words in words {
        assert!(line.contains(words), "{words:?} in: {line}");
    }
}

/// A value that it cannot have, for each variable of the contract.
const WRONG: &[(&str, &str)] = &[
    ("POSTGRES_PORT", "0"),
    ("POSTGRES_TECHNICAL_PORT", "65536"),
    ("POSTGRES_DATA_DIR", "var/lib/postgresql"),
    ("POSTGRES_PASSWORD", "hunter2\nlines"),
    ("REPMGR_MASTER", "maybe"),
    ("REPMGR_CONFIG_DIR", "."),
    ("REPMGR_NODE_NAME", "node 1"),
    ("REPMGR_SLAVES", "node2,node3:x"),
    ("REPMGR_PASSWORD", "hunter2\nlines"),
    ("REPMGR_STREAMING_PASSWORD", "hunter2\nlines"),
    ("BARMAN_PASSWORD", "hunter2\nlines"),
    ("BARMAN_STREAMING_PASSWORD", "hunter2\nlines"),
    ("BARMAN_BACKUP_DIR", "~/data"),
    ("BARMAN_RETENTION", "for ever"),
    ("BARMAN_CONFIG_DIR", "C:\\barman"),
    ("REPMGR_MASTER_HOST", "node1:"),
    ("REPMGR_CLONE_FROM", "slave"),
    ("REPMGR_NODE_ADDRESS", "node1:5432"),
    ("REPMGR_NODE_ID", "0"),
    ("REPMGR_PRIORITY", "-1"),
    ("REPMGR_LOCATION", "l'Aquila"),
    ("PGHERD_CLUSTER", "all"),
    ("PGHERD_ROLE", "master"),
    ("PGHERD_BACKUPS", "there"),
    ("PGHERD_VOTERS", "node1,node2"),
    ("PGHERD_ETCD_PORT", "65535"),
    ("PGHERD_ETCD_ENDPOINTS", "ftp://etcd"),
    ("PGHERD_ETCD_CA_FILE", "ca.pem"),
    ("PGHERD_ETCD_CERT_FILE", "cert.pem"),
    ("PGHERD_ETCD_KEY_FILE", "key.pem"),
    ("PGHERD_ETCD_USER", "two\nlines"),
    ("PGHERD_ETCD_PASSWORD", "hunter2\nlines"),
    ("PGHERD_FAILOVER", "automatic"),
    ("PGHERD_LEASE", "1s"),
    ("PGHERD_SYNCHRONOUS", "on"),
    ("PGHERD_KEEP_OLD_DATA", "maybe"),
    ("PGHERD_HTTP_PORT", "http"),
    ("PGHERD_CONTROL_TOKEN", "hunter2\nlines"),
    ("PGHERD_STOP_TIMEOUT", "60"),
    ("PGHERD_LOG_FORMAT", "xml"),
    ("PGHERD_LOG", "two\nlines"),
    ("BARMAN_SCHEDULE", "daily"),
    ("BARMAN_COMPRESSION", "zip"),
    ("RESTORE_FROM", "../etc"),
    ("RESTORE_TARGET_TIME", "two\nlines"),
    ("RESTORE_TARGET_LSN", "16"),
    ("RESTORE_TARGET_NAME", "two\nlines"),
    ("RESTORE_TARGET_XID", "x"),
    ("RESTORE_TARGET_ACTION", "demote"),
    ("RESTORE_TARGET_TIMELINE", "0"),
    ("RESTORE_CLUSTER", "all"),
    ("RESTORE_SOURCE", "a b"),
    ("RESTORE_TOKEN", "hunter2\nlines"),
    ("POSTGRES_USER", "pg_admin"),
    ("POSTGRES_DB", "repmgr"),
    ("POSTGRES_INITDB_ARGS", "--locale='C"),
    ("POSTGRES_INITDB_WALDIR", "wal"),
    ("POSTGRES_HOST_AUTH_METHOD", "scram"),
    ("PGDATA", "data"),
    ("PG_OOM_ADJUST_FILE", "oom_score_adj"),
    ("PG_OOM_ADJUST_VALUE", "1001"),
];

#[test]
#[ignore = "needs docker: make test"]
fn each_variable_that_is_wrong_is_named_and_nothing_is_made() {
    let volume = Volume::new();
    let before = volume.listing();
    let recipe = Recipe::node("node1").volume(&volume, "/var/lib/postgresql");

    // One container for all of them one by one …
    let idle = recipe.clone().entrypoint("sleep").command(["infinity"]).start();
    for (variable, value) in WRONG {
        let setting = format!("{variable}={value}");
        let run = ["exec", "-e", &setting, &idle.name, "pgherd", "run", "--", "postgres"];
        let line = refusal(&crate::harness::docker(run), 78);
        assert!(line.starts_with(&format!("pgherd: {variable} holds ")), "{line}");
        says(&line, &["; it may hold ", "Correct it"]);
        assert!(!line.contains("hunter2"), "a secret: {line}");
    }
    // … and one for all of them at once.
    let all = recipe.envs(WRONG.iter().copied()).run();
    assert_eq!(all.status, 78, "{all:#?}");
    let named: Vec<_> =
        all.stderr.lines().filter_map(|line| line.strip_prefix("pgherd: ")).collect();
    assert_eq!(named.len(), all.stderr.lines().count(), "{all:#?}");
    assert_eq!(named.len(), WRONG.len(), "{all:#?}");
    for (line, (variable, _)) in named.iter().zip(WRONG) {
        assert!(line.starts_with(&format!("{variable} holds ")), "{line}");
    }
    assert_eq!(volume.listing(), before);
}

#[test]
#[ignore = "needs docker: make test"]
fn what_else_is_wrong_with_variables_has_its_line_too() {
    let volume = Volume::new();
    let before = volume.listing();
    let idle = Recipe::node("node1")
        .volume(&volume, "/var/lib/postgresql")
        .entrypoint("sleep")
        .command(["infinity"])
        .start();
    idle.shell(": >/empty; echo secret >/secret").ok();
    let run = |settings: &[&str], command: &[&str]| {
        let settings = settings.iter().flat_map(|setting| ["-e", setting]);
        let exec = ["exec"].into_iter().chain(settings).chain([idle.name.as_str()]);
        crate::harness::docker(exec.chain(command.iter().copied()))
    };
    let start = |settings: &[&str]| run(settings, &["pgherd", "run", "--"]);
    for (settings, expected) in [
        (
            &["POSTGRES_PASSWORD=a", "POSTGRES_PASSWORD_FILE=/secret"][..],
            &["both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are set (but are exclusive)"][..],
        ),
        (
            &["BARMAN_PASSWORD=a", "BARMAN_PASSWORD_FILE=/secret"],
            &["both BARMAN_PASSWORD and BARMAN_PASSWORD_FILE are set", "Unset one of them"],
        ),
        (
            &["REPMGR_PASSWORD_FILE=/run/secrets/repmgr"],
            &["REPMGR_PASSWORD_FILE names \"/run/secrets/repmgr\", which cannot be read", "Mount"],
        ),
        (&["POSTGRES_PASSWORD_FILE=/empty"], &["POSTGRES_PASSWORD_FILE", "which is empty"]),
        (&["POSTGRES_PASSWORD_FILE=/etc"], &["POSTGRES_PASSWORD_FILE names \"/etc\""]),
        (&["POSTGRES_PORT=5434"], &["POSTGRES_PORT and POSTGRES_TECHNICAL_PORT are both 5434"]),
        (&["POSTGRES_PORT=tcp://10.0.0.5:5432"], &["POSTGRES_PORT holds", "enableServiceLinks"]),
        (&["PGHERD_LOG=a=b=c"], &["PGHERD_LOG is `a=b=c`", "write a level"]),
    ] {
        says(&refusal(&start(settings), 78), expected);
        let check = run(settings, &["pgherd", "check"]);
        says(&refusal(&check, 78), expected);
    }
    let leak = start(&["REPMGR_PASSWORD_FILE=hunter2"]);
    assert!(!refusal(&leak, 78).contains("hunter2"), "it may be the password itself");

    // A near miss is a warning; it stands beside whatever stops the start.
    let near = start(&["REPMGR_NODENAME=a", "POSTGRES_PORT=0"]);
    let lines: Vec<_> = near.stderr.lines().collect();
    says(lines[0], &["REPMGR_NODENAME is not a setting; did you mean REPMGR_NODE_NAME?"]);
    assert_eq!(lines.len(), 2, "{near:?}");
    let near = run(&["REPMGR_NODENAME=a"], &["pgherd", "check"]);
    assert_eq!(near.status, 0);
    says(&near.stderr, &["did you mean REPMGR_NODE_NAME?"]);

    // Neither is a secret that others could read, nor a setting of a version to come, a reason.
    assert_eq!(run(&["PGHERD_LEASE=5s"], &["pgherd", "check"]).status, 0);
    assert_eq!(volume.listing(), before);
}

#[test]
#[ignore = "needs docker: make test"]
fn server_flags_that_break_a_promise_are_refused() {
    let volume = Volume::new();
    let before = volume.listing();
    let idle = Recipe::node("node1")
        .volume(&volume, "/var/lib/postgresql")
        .entrypoint("sleep")
        .command(["infinity"])
        .start();
    for (flags, expected) in [
        (&["-c", "wal_level=minimal"][..], &["wal_level = minimal", "replica or logical"][..]),
        (&["-c", "fsync=off"], &["fsync = off", "leave it on"]),
        (&["--fsync=off"], &["fsync = off", "leave it on"]),
        (&["-F"], &["fsync = off", "leave it on"]),
        (&["-p", "6000"], &["port = 6000", "set POSTGRES_PORT instead"]),
        (&["-D", "/elsewhere"], &["data_directory = /elsewhere", "set PGDATA instead"]),
        (&["-c", "hba_file=/etc/hba"], &["hba_file", "/etc/pgherd/pg_hba.conf"]),
        (&["-c", "config_file=/etc/my.conf"], &["config_file", "/etc/pgherd/postgresql.conf.d"]),
        (&["-c", "max_wal_senders=0"], &["max_wal_senders = 0", "6 or more"]),
        (&["-c", "password_encryption=md5"], &["password_encryption = md5", "scram-sha-256"]),
    ] {
        let run = ["exec", &idle.name, "pgherd", "run", "--", "postgres"].into_iter();
        let refused = crate::harness::docker(run.chain(flags.iter().copied()));
        let line = refusal(&refused, 78);
        says(&line, expected);
        says(&line, &["command line"]);
    }
    let all = Recipe::node("node1").command(["-p", "1", "-F", "-c", "wal_level=minimal"]).run();
    assert_eq!((all.status, all.stderr.matches(" ERROR ").count()), (78, 3), "{all:#?}");
    assert_eq!(volume.listing(), before);
}

/// What was found on a volume, made by `script`, is refused with these words, and left alone.
struct Found {
    what: &'static str,
    script: &'static str,
    options: &'static [&'static str],
    expected: &'static [&'static str],
}

#[test]
#[ignore = "needs docker: make test"]
fn a_volume_that_cannot_be_used_is_refused_and_left_alone() {
    let major = Recipe::node("node1");
    let major = major.entrypoint("bash").command(["-c", "ls /usr/lib/postgresql | grep -v c"]);
    let major = major.run().ok();
    const EMPTY: &str = "is not empty and holds no database cluster";
    for Found { what, script, options, expected } in [
        Found {
            what: "files of somebody else",
            script: "mkdir -p M/docker; echo x >M/docker/theirs; chown -R 999:999 M",
            options: &[],
            expected: &[EMPTY, "(found: theirs)", "empty it, mount another volume", "PGDATA"],
        },
        Found {
            what: "files of somebody else, where the operator says",
            script: "mkdir db; touch db/{a,b,c,d,e,f,g}",
            options: &["-e", "PGDATA=/var/lib/postgresql/db"],
            expected: &["/var/lib/postgresql/db", EMPTY, "a, b, c, d, e, and 2 more"],
        },
        Found {
            what: "a cluster of an old version in the place of ours",
            script: "mkdir -p M/docker; echo 9.6 >M/docker/PG_VERSION; chown -R 999:999 M",
            options: &[],
            expected: &["was made by PostgreSQL 9.6", "this image carries", "pg_upgrade"],
        },
        Found {
            what: "a cluster of another version in the official image's old place",
            script: "mkdir data; echo 16 >data/PG_VERSION; chown -R 999:999 data",
            options: &[],
            expected: &["data was made by PostgreSQL 16", "use the image for 16"],
        },
        Found {
            what: "a cluster of another version in its own place",
            script: "mkdir -p 16/docker; echo 16 >16/docker/PG_VERSION; chown -R 999:999 16",
            options: &[],
            expected: &["16/docker was made by PostgreSQL 16", "use the image for 16"],
        },
        Found {
            what: "a cluster without a control file",
            script: "mkdir data; echo M >data/PG_VERSION; chown -R 999:999 data",
            options: &[],
            expected: &["cannot be read", "pg_control", "restore the cluster from a backup"],
        },
        Found {
            what: "a file where the directory should be",
            script: "echo x >file",
            options: &["-e", "PGDATA=/var/lib/postgresql/file"],
            expected: &["/var/lib/postgresql/file", "(found: a file, not a directory)", "PGDATA"],
        },
        Found {
            what: "a directory of another user, under which nothing can be made",
            script: "touch theirs; chown 1000:1000 .; chmod 755 .",
            options: &["--user", "999"],
            expected: &["cannot be written (Permission denied)", "owned by uid 999"],
        },
    ] {
        println!("{what}");
        let volume = Volume::new();
        let before = volume.listing_after(&script.replace('M', &major));
        let recipe = Recipe::node("node1").volume(&volume, "/var/lib/postgresql");
        let recipe = options.iter().fold(recipe, |recipe, option| recipe.option(option));
        let line = refusal(&recipe.run(), 1);
        says(&line, expected);
        assert_eq!(volume.listing(), before, "{what}");
        // Nor does what a refusal leaves, a lock, stand in the way the next time.
        if options.contains(&"PGDATA=/var/lib/postgresql") {
            assert_eq!(words(&refusal(&recipe.run(), 1)), words(&line));
        }
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn a_slave_that_is_told_of_nobody_is_refused_and_makes_nothing() {
    for pgdata in [&[][..], &["-e", "PGDATA=/var/lib/postgresql"]] {
        let volume = Volume::new();
        let before = volume.listing();
        let recipe = Recipe::node("node1").volume(&volume, "/var/lib/postgresql");
        let recipe = pgdata.iter().fold(recipe, |recipe, option| recipe.option(option));
        let line = refusal(&recipe.env("REPMGR_MASTER", "false").run(), 78);
        says(&line, &["REPMGR_MASTER is false", "with REPMGR_MASTER_HOST"]);
        assert_eq!(volume.listing(), before);
    }
}

/// A line without its time.
fn words(line: &str) -> &str {
    line.split_once(" ERROR ").map_or(line, |(_, words)| words)
}

#[test]
#[ignore = "needs docker: make test"]
fn a_directory_for_wal_that_holds_somebodys_files_is_left_alone() {
    let wal = Volume::new();
    let precious = "mkdir /v/wal; echo precious >/v/wal/000000010000000000000001";
    wal.shell(&format!("{precious}; chown -R 999:999 /v/wal"));
    let before = wal.listing();
    let node = Recipe::node("node1").volume(&wal, "/wal").env("POSTGRES_INITDB_WALDIR", "/wal/wal");
    let node = node.start();
    for start in 1..=2 {
        assert_eq!(node.await_end(), 1);
        let log = node.log();
        assert_eq!(log.matches(" ERROR ").count(), start, "{log}");
        let said = log.lines().rfind(|line| line.contains(" ERROR ")).expect("counted");
        says(said, &["/wal/wal", "not empty"]);
        assert_eq!(wal.shell("cat /v/wal/0*"), "precious");
        node.start_again();
    }
    node.await_end();
    assert_eq!(names(&wal.listing()), names(&before));
}

/// Of a listing.
fn names(listing: &str) -> Vec<&str> {
    listing.lines().filter_map(|line| line.rsplit(' ').next()).collect()
}

#[test]
#[ignore = "needs docker: make test"]
fn mounts_that_cannot_hold_a_cluster_are_refused() {
    let volume = Volume::new();
    let mount = |at: &str| format!("{}:{at}", volume.name);
    let run = |options: &[&str]| {
        let recipe = Recipe::node("node1");
        let line = options.iter().fold(recipe, |recipe, option| recipe.option(option)).run();
        refusal(&line, 1)
    };
    let line = run(&["-v", &mount("/var/lib/postgresql:ro")]);
    says(&line, &["cannot be written (Read-only file system)", "mount the volume read-write"]);
    let line = run(&["-v", &mount("/var/lib/postgresql/data")]);
    says(&line, &["a volume is mounted at /var/lib/postgresql/data", "outside of it"]);
    says(&line, &["mount the volume at /var/lib/postgresql, or set PGDATA="]);
    assert_eq!(volume.shell("ls -A /v"), "");

    let line = run(&["--tmpfs", "/var/lib/postgresql:size=20m"]);
    says(&line, &[" MiB free, and a first start needs 128 MiB", "give the volume more room"]);
    let line = run(&["--read-only"]);
    says(&line, &["/run", "ead-only"]);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_cluster_that_cannot_be_served_is_refused_and_left_alone() {
    let volume = Volume::new();
    let recipe = Recipe::node("node1").volume(&volume, "/var/lib/postgresql");
    let node = recipe.start();
    node.await_ready();
    ports_that_are_taken_are_refused(&node);
    assert_eq!(node.stop(), 0);
    drop(node);

    let before = volume.listing();
    let unsafe_file = recipe.create();
    let conf = "# mine\nwork_mem = 1MB\nfsync = off # for speed\n";
    unsafe_file.put("/etc/pgherd/postgresql.conf.d/mine.conf", conf, 0o644).start_again();
    let line = refused_by(&unsafe_file, 78);
    says(&line, &["/etc/pgherd/postgresql.conf.d/mine.conf:3: fsync = off", "leave it on"]);
    assert_eq!(volume.listing(), before);
    drop(unsafe_file);

    let read_only = Recipe::node("node1").option("-v");
    let read_only = read_only.option(&format!("{}:/var/lib/postgresql:ro", volume.name));
    says(&refusal(&read_only.run(), 1), &["Read-only file system", "mount the volume read-write"]);

    volume.shell("echo 'wal_level = minimal' >>/v/*/docker/postgresql.auto.conf");
    let line = refusal(&recipe.run(), 78);
    says(&line, &["/docker/postgresql.auto.conf:", ": wal_level = minimal", "replica or logical"]);
    volume.shell(
        "sed -i '/minimal/d' /v/*/docker/postgresql.auto.conf; chown -R 1000:1000 /v/[0-9]*",
    );
    let before = volume.listing();
    let line = refusal(&recipe.run(), 1);
    says(&line, &["belongs to uid 1000, and Postgres runs as 999", "chown -R 999"]);
    assert_eq!(volume.listing(), before);

    // The disk outranks the environment: a master that is there stays one.
    volume.shell("chown -R 999:999 /v/[0-9]*");
    let again = recipe.env("REPMGR_MASTER", "false").start();
    again.await_ready();
    assert_eq!(again.sql("SELECT pg_is_in_recovery()").ok(), "f");
}

/// As [`refusal`], of a container that was started in the background.
fn refused_by(container: &Container, status: i32) -> String {
    let ended = container.await_end();
    let logs = crate::harness::docker(["logs", &container.name]);
    refusal(&Answer { status: ended, ..logs }, status)
}

fn ports_that_are_taken_are_refused(node: &Container) {
    let network = format!("container:{}", node.name);
    let beside = |variables: &[(&str, &str)]| {
        // docker gives such a container no hostname of its own.
        let name = unique("beside");
        let mut run = vec!["run", "--rm", "--label", "pgherd.story=1", "--name", &name];
        run.extend(["--network", &network]);
        let binary = crate::harness::binary_mount();
        run.extend(binary.iter().map(String::as_str));
        let settings: Vec<_> = variables.iter().map(|(k, v)| format!("{k}={v}")).collect();
        run.extend(settings.iter().flat_map(|setting| ["-e", setting]));
        let image = crate::harness::image();
        run.push(&image);
        refusal(&crate::harness::docker(run), 1)
    };
    says(&beside(&[]), &["port 5432 is taken", "choose another port with POSTGRES_PORT"]);
    let line = beside(&[("POSTGRES_PORT", "6000")]);
    says(&line, &["port 8008 is taken", "choose another port with PGHERD_HTTP_PORT"]);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_volume_that_fills_up_during_the_first_start_is_taken_up_once_there_is_room() {
    let volume = Volume::with(&["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=140m"]);
    let recipe = Recipe::node("node1").volume(&volume, "/var/lib/postgresql");
    // A file system in memory is there as long as somebody has it mounted.
    let _keeper = recipe.clone().entrypoint("sleep").command(["infinity"]).start();
    let node = recipe.create();
    let script = "CREATE TABLE much AS SELECT repeat(n::text, 100) FROM generate_series(1, 1e6) n;";
    let began = Instant::now();
    node.put("/docker-entrypoint-initdb.d/much.sql", script, 0o644).start_again();
    assert_ne!(node.await_end(), 0);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let log = node.log();
    assert!(log.contains("No space left on device"), "{log}");
    assert_eq!(log.matches(" ERROR ").count(), 1, "{log}");
    assert!(!log.contains("panicked"), "{log}");

    node.put("/docker-entrypoint-initdb.d/much.sql", "CREATE TABLE little ()", 0o644);
    node.start_again().await_ready();
    assert_eq!(node.sql("SELECT count(*) FROM little").ok(), "0");
    assert_eq!(node.sql("SELECT to_regclass('much') IS NULL").ok(), "t");
    let elsewhere = client();
    let server = crate::harness::Server {
        host: &node.ip(),
        port: "5432",
        user: "postgres",
        password: "mysecretpassword",
        database: "postgres",
    };
    assert_eq!(elsewhere.psql(&server, "SELECT 1").ok(), "1");
}
