//! Any password works for any role, and none of them is to be seen anywhere.

use crate::harness::{Answer, Container, Recipe, Server, Volume, client};

/// Variable, role, and the database (or replication) that the role is for.
const ROLES: [(&str, &str, &str); 5] = [
    ("POSTGRES_PASSWORD", "postgres", "dbname=postgres"),
    ("REPMGR_PASSWORD", "repmgr", "dbname=repmgr"),
    ("REPMGR_STREAMING_PASSWORD", "repmgr_streaming", "replication=1"),
    ("BARMAN_PASSWORD", "barman", "dbname=postgres"),
    ("BARMAN_STREAMING_PASSWORD", "barman_streaming", "replication=1"),
];

/// A password with everything in it that might be taken for something else, 200 characters long
/// and more. All have `mark` in them, in letters that no quoting changes.
fn awkward(mark: &str, unicode: &str) -> String {
    let printable: String = (' '..='~').collect();
    let text = format!("  {mark}{printable}  {unicode} {mark} $HOME %s `id` \\n '' \"\" ");
    let missing = 200_usize.saturating_sub(text.chars().count());
    format!("{text}{} ", "x".repeat(missing))
}

/// As text to be composed and folded, as text that SASLprep refuses (unassigned in Unicode 3.2,
/// both directions in one text), or none of it.
const UNICODES: [&str; 5] =
    ["пароль ﬁ\u{a0}e\u{301}\u{ad}Ⅸ", "🐘→ß", "שלום a سلام", "密码 パスワード", "ñ¿½"];

fn passwords(prefix: &str) -> [String; 5] {
    std::array::from_fn(|n| awkward(&format!("{prefix}{n}mark"), UNICODES[n]))
}

fn log_in(elsewhere: &Container, host: &str, password: &str, n: usize) -> Answer {
    let (_, user, database) = ROLES[n];
    let query = if database == "replication=1" { "IDENTIFY_SYSTEM" } else { "SELECT 1" };
    elsewhere.psql(&Server { host, port: "5432", user, password, database }, query)
}

/// Looks at the command lines of all processes, from before pgherd's first moment on and a
/// hundred times a second, until there is a file /enough. Says in /looked how often, and at what.
const WATCH: &str = r#"
import os, time
os.nice(-15)  # On a busy machine, too, nothing is to come and go between two looks.
marks = open('/marks', 'rb').read().split()
looked, found = 0, set()
while not os.path.exists('/enough'):
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            line = open(f'/proc/{pid}/cmdline', 'rb').read()
        except OSError:
            continue  # It has ended.
        if any(mark in line for mark in marks):
            found.add(line.split(b'\0')[0].decode())
    if looked == 0:
        open('/watching', 'w')
    looked += 1
    time.sleep(0.003)
with open('/looked.new', 'w') as file:
    file.write(' '.join([str(looked), *found]))
os.rename('/looked.new', '/looked')
"#;

/// Becomes pgherd once somebody watches.
const START: &str = r#"
    python3 /watch.py &
    until [ -e /watching ]; do sleep 0.01; done
    exec pgherd run -- "$@"
"#;

#[test]
#[ignore = "needs docker: make test"]
fn any_password_works_for_any_role_and_none_is_to_be_seen() {
    let data = Volume::new();
    let elsewhere = client();
    for prefix in ["first", "second"] {
        let node = watched(&data, prefix);
        node.await_ready();
        let passwords = passwords(prefix);
        let host = node.ip();
        for (n, password) in passwords.iter().enumerate() {
            let answer = log_in(&elsewhere, &host, password, n);
            assert_eq!(answer.status, 0, "{} with {password}: {answer:#?}", ROLES[n].1);
            let almost = password.trim_end();
            let refused = log_in(&elsewhere, &host, almost, n);
            assert!(refused.stderr.contains("password authentication failed"), "{refused:#?}");
        }
        the_tools_get_in(&node);
        none_is_to_be_seen(&node, prefix);
        assert_eq!(node.stop(), 0);
        let log = node.log();
        assert!(!log.contains(&format!("{prefix}0mark")), "at the end");
    }
}

fn watched(data: &Volume, prefix: &str) -> Container {
    let passwords = passwords(prefix);
    let recipe = Recipe::node("node1")
        .volume(data, "/var/lib/postgresql")
        .env("PGHERD_LOG", "trace")
        .entrypoint("bash")
        .option("--cap-add")
        .option("SYS_NICE"); // for WATCH
    let variables = ROLES.map(|(variable, _, _)| variable);
    let recipe = recipe.envs(variables.into_iter().zip(passwords.iter().map(String::as_str)));
    let flags = ["-c", "log_statement=all", "-c", "log_min_duration_statement=0"];
    let node = recipe.command(["-c", START, "bash"].into_iter().chain(flags)).create();
    // The first characters of each, for those who look for something shorter than all of it.
    let marks: String = (0..5).map(|n| format!("{prefix}{n}mark\n")).collect();
    node.put("/marks", &marks, 0o644).put("/watch.py", WATCH, 0o644).start_again();
    node
}

fn the_tools_get_in(node: &Container) {
    let barman = node.exec_as("barman", ["barman", "check", "pgherd"]).stdout;
    for line in ["PostgreSQL: OK", "PostgreSQL streaming: OK"] {
        assert!(barman.contains(line), "{barman}");
    }
    let shown = node.exec_as("postgres", ["repmgr", "cluster", "show"]).ok();
    assert!(shown.contains("* running"), "{shown}");
    let sessions = "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'repmgr'";
    node.await_that("repmgrd is connected", || (node.sql(sessions).ok() == "t").then_some(()));
}

fn none_is_to_be_seen(node: &Container, prefix: &str) {
    let unseen = |place: &str, text: &str| {
        for (n, (_, role, _)) in ROLES.iter().enumerate() {
            let mark = format!("{prefix}{n}mark");
            if let Some(at) = text.find(&mark) {
                let line = text[..at].lines().count().saturating_sub(1);
                panic!("the password of {role} is to be seen: {place}, line {line}");
            }
        }
    };
    let log = node.log();
    assert!(log.contains(" TRACE ") || log.contains(" DEBUG "), "the log tells all it can");
    assert!(log.contains("statement: "), "the server's too");
    unseen("docker logs", &log);
    // A verifier is as good as the password to whoever pretends to be the server.
    assert!(!log.contains("SCRAM-SHA-256$"), "no verifier in the log");

    let looked =
        node.shell("touch /enough; until [ -e /looked ]; do sleep 0.01; done; cat /looked");
    let looked = looked.ok();
    let (times, found) = looked.split_once(' ').unwrap_or((&looked, ""));
    assert_eq!(found, "", "command lines of these");
    let times: u32 = times.parse().expect("a number");
    assert!(times > 100, "looked at the command lines {times} times");

    for command in [
        &["pgherd", "settings"][..],
        &["pgherd", "settings", "--json"],
        &["pgherd", "check"],
        &["pgherd", "plan"],
        &["pgherd", "plan", "--json"],
        &["pgherd", "status"],
        &["pgherd", "status", "--json"],
        &["barman", "show-server", "pgherd"],
        &["barman", "diagnose"],
    ] {
        let answer = node.exec(command.iter().copied());
        assert_eq!(answer.status, 0, "{answer:#?}");
        unseen(&command.join(" "), &answer.text());
    }
    for path in [
        "/",
        "/status",
        "/health",
        "/liveness",
        "/readiness",
        "/primary",
        "/replica",
        "/cluster",
        "/history",
        "/metrics",
        "/settings",
        "/no-such-path",
    ] {
        let request = format!("GET {path} HTTP/1.0\\r\\n\\r\\n");
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/8008; printf '{request}' >&3; cat <&3");
        let answer = node.shell(&script).ok();
        assert!(answer.starts_with("HTTP/1."), "{path}: {answer}");
        unseen(path, &answer);
    }
    let in_tables = "SELECT string_agg(nodes::text, ' ') FROM repmgr.nodes";
    let psql = ["psql", "-XAtq", "-d", "repmgr", "-c", in_tables];
    let nodes = node.exec_as("postgres", psql).ok();
    assert!(nodes.contains("host=node1"), "{nodes}");
    unseen("repmgr.nodes", &nodes);
    let activity = "SELECT string_agg(a::text, ' ') FROM pg_stat_activity a";
    unseen("pg_stat_activity", &node.sql(activity).ok());

    // pgherd itself has its environment from docker; nothing that it starts needs to.
    let environments = r#"
        for dir in /proc/[0-9]*; do
            { read -r name <"$dir/comm"; } 2>/dev/null || continue
            case $name in postgres | repmgrd | cron)
                echo "$name"
                grep -qsaFf /marks "$dir/environ" && echo "shows a password: $name" ;;
            esac
        done | sort | uniq -c"#;
    let environments = node.shell(environments).ok();
    for name in ["postgres", "repmgrd", "cron"] {
        assert!(environments.contains(name), "{environments}");
    }
    assert!(!environments.contains("shows a password"), "{environments}");

    // To somebody who is nobody, no file has one; to their owners, the password files do.
    let files = "grep -rlsaFf /marks --exclude-dir=proc --exclude-dir=sys --exclude=marks \
         /etc /run /tmp /var /home /root /docker-entrypoint-initdb.d || true";
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let seen = node.exec(nobody.into_iter().chain(["bash", "-c", files])).ok();
    assert_eq!(seen, "", "files that anybody may read");
    let kept = node.shell(files).ok();
    let mut kept: Vec<_> = kept.lines().collect();
    kept.sort_unstable();
    assert_eq!(kept, ["/run/pgherd/barman.pgpass", "/run/pgherd/pgpass"], "and no more of these");
    for (path, expected) in
        [("/run/pgherd/pgpass", "600 postgres"), ("/run/pgherd/barman.pgpass", "600 barman")]
    {
        assert_eq!(node.exec(["stat", "-c", "%a %U", path]).ok(), expected, "{path}");
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn a_script_of_the_operators_is_given_the_superusers_password_and_no_other() {
    let passwords = ROLES.map(|(variable, role, _)| (variable, role));
    let node = Recipe::node("node1").envs(passwords).create();
    let names = "env | sed -n 's/^\\([A-Z_]*PASSWORD\\)=.*/has \\1/p' | sort\n";
    node.put("/docker-entrypoint-initdb.d/names.sh", names, 0o644).start_again();
    node.await_ready();
    let log = node.log();
    let has: Vec<_> = log.lines().filter_map(|line| line.split_once("initdb.d | has ")).collect();
    let has: Vec<_> = has.iter().map(|(_, name)| *name).collect();
    assert_eq!(has, ["PGPASSWORD", "POSTGRES_PASSWORD"], "{log}");
}

/// Asks from the machine itself, with `source` as the sender: an address that is in none of the
/// node's own networks. Says what the server answers to a log-in.
fn ask_from(
    source: std::net::IpAddr,
    host: &str,
    user: &str,
    password: &str,
) -> Result<(), String> {
    let connect = async {
        let address = format!("{host}:5432").parse().expect("an address");
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((source, 0).into()).expect("our own address");
        let stream = socket.connect(address).await.expect("the server listens");
        let mut config = tokio_postgres::Config::new();
        config.user(user).password(password).dbname(if user == "repmgr" {
            user
        } else {
            "postgres"
        });
        config.connect_raw(stream, tokio_postgres::NoTls).await.map(drop)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let connected = runtime.expect("a runtime").block_on(connect);
    connected.map_err(|error| match error.as_db_error() {
        Some(words) => words.message().to_owned(),
        None => error.to_string(),
    })
}

/// The address that this machine has in the world outside; `None` if it has none.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?; // Sends nothing: the kernel only looks up the way.
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[test]
#[ignore = "needs docker: make test"]
fn a_default_password_is_good_in_the_nodes_own_networks_only() {
    let defaults = Recipe::node("node1").start();
    let own = Recipe::node("node2").env("POSTGRES_PASSWORD", "own").env("REPMGR_PASSWORD", "own2");
    // One of the document's, but another's: everybody knows it all the same.
    let own = own.env("BARMAN_PASSWORD", "iamrepmgr").start();
    let elsewhere = client();
    defaults.await_ready();
    own.await_ready();
    let known = ["mysecretpassword", "iamrepmgr", "iamstreamingrepmgr", "iambarman"];
    let known = known.into_iter().chain(["iamstreamingbarman"]);
    for (n, password) in known.enumerate() {
        log_in(&elsewhere, &defaults.ip(), password, n).ok();
    }
    // Each role for what it is for, wherever it comes from.
    let into_template = Server {
        host: &defaults.ip(),
        port: "5432",
        user: "repmgr_streaming",
        password: "iamstreamingrepmgr",
        database: "postgres",
    };
    let refused = elsewhere.psql(&into_template, "SELECT 1");
    assert!(refused.stderr.contains("pg_hba.conf rejects"), "{refused:?}");

    let open = |node: &Container| {
        let rules = "SELECT user_name[1] FROM pg_hba_file_rules WHERE address = 'all' \
             AND auth_method <> 'reject' AND error IS NULL ORDER BY line_number";
        node.sql(rules).ok()
    };
    assert_eq!(open(&defaults), "all", "initdb's last line, which is for others");
    assert_eq!(open(&own), "repmgr\nrepmgr\nall");
    let rejected = "SELECT string_agg(DISTINCT user_name[1], ' ' ORDER BY user_name[1]) \
         FROM pg_hba_file_rules WHERE address = 'all' AND auth_method = 'reject'";
    let (barmans, repmgrs) = ("barman barman_streaming", "repmgr repmgr_streaming");
    assert_eq!(defaults.sql(rejected).ok(), format!("{barmans} postgres {repmgrs}"));
    assert_eq!(own.sql(rejected).ok(), format!("{barmans} {repmgrs}"));

    let status = own.exec(["pgherd", "status"]).ok();
    let warned = "the documented default password is still in use for repmgr_streaming, barman, \
         barman_streaming:";
    assert!(status.contains(warned), "{status}");

    let Some(outside) = outer_address() else { return };
    let ask = |node: &Container, user, password| ask_from(outside, &node.ip(), user, password);
    for (user, password) in [("postgres", "mysecretpassword"), ("repmgr", "iamrepmgr")] {
        let refused = ask(&defaults, user, password).unwrap_err();
        assert!(refused.contains("pg_hba.conf rejects connection"), "{user}: {refused}");
    }
    let refused = ask(&own, "barman", "iamrepmgr").unwrap_err();
    assert!(refused.contains("pg_hba.conf rejects connection"), "{refused}");
    for (user, password) in [("postgres", "own"), ("repmgr", "own2")] {
        assert_eq!(ask(&own, user, password), Ok(()), "{user}");
        let refused = ask(&own, user, "wrong").unwrap_err();
        assert!(refused.contains("password authentication failed"), "{refused}");
    }
}
