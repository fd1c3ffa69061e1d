//! Clients that know one address reach whoever takes writes: through HAProxy and PgBouncer as `compose` has them.

use crate::harness::{
    Cluster, Container, LEADS_WITHIN, Network, PASSWORDS, Recipe, TOKEN, Volume, await_that, image,
    password, run,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// What the README promises of HAProxy.
const REACHED_WITHIN: Duration = Duration::from_secs(1);
/// … and of a handover it promises a second. This is for busy machines.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(8);
/// One connection to a port where nobody answers hung for more than ten.
const HANGS_AT_MOST: Duration = Duration::from_secs(3);

/// The stack of `make up`, where the three vote.
fn stack(change: impl Fn(usize, Recipe) -> Recipe) -> Cluster {
    let cluster = Cluster::stack_with(|id, recipe| {
        let recipe = recipe.env("PGHERD_FAILOVER", "quorum").env("PGHERD_CONTROL_TOKEN", TOKEN);
        change(id, recipe)
    });
    for id in 1..=3 {
        cluster.start(id);
    }
    cluster.await_order(1, &[2]);
    cluster.await_synchronous(1);
    cluster
}

/// `compose/NAME`, on the release of the image under test.
pub(crate) fn proxy(network: &Network, name: &str) -> Recipe {
    let pg = if image().ends_with(":15") { "15" } else { "17" };
    run("docker/proxies.sh", [pg, name]).ok();
    Recipe::node(name).network(network, name).image(&format!("pgherd-{name}:{pg}"))
}

/// A client of HAProxy's, at one of its ports.
fn connected(runtime: &Runtime, haproxy: &Container, port: u16) -> Option<Client> {
    connected_within(REACHED_WITHIN, runtime, haproxy, port)
}

fn connected_within(
    limit: Duration,
    runtime: &Runtime,
    haproxy: &Container,
    port: u16,
) -> Option<Client> {
    let mut config = tokio_postgres::Config::new();
    config.host(haproxy.ip()).port(port).user("postgres").dbname("postgres");
    config.password(password("POSTGRES_PASSWORD"));
    let connected = async { tokio::time::timeout(limit, config.connect(NoTls)).await };
    let (client, connection) = runtime.block_on(connected).ok()?.ok()?;
    runtime.spawn(connection);
    Some(client)
}

/// The first value of the answer, if there is one.
fn asked(runtime: &Runtime, client: &Client, query: &str) -> Option<String> {
    let asked = async { tokio::time::timeout(REACHED_WITHIN, client.simple_query(query)).await };
    let rows = runtime.block_on(asked).ok()?.ok()?;
    let first = rows.iter().find_map(|message| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        row.get(0).map(str::to_owned)
    });
    Some(first.unwrap_or_default())
}

/// Nobody tells its clients anything: the connections of a frozen machine stay open.
#[test]
#[ignore = "needs docker: make test"]
fn through_haproxy_a_client_writes_again_within_a_second_of_a_promotion() {
    let cluster = stack(|_, recipe| recipe);
    let haproxy = proxy(cluster.network(), "haproxy").start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let ask = |port, query| asked(&runtime, &connected(&runtime, &haproxy, port)?, query);
    await_that("it leads to the primary", || ask(5000, "CREATE TABLE seen (at text)"));
    let old = connected(&runtime, &haproxy, 5000).expect("it led there a moment ago");
    await_that("the other port leads to the standby", || {
        ask(5001, "SELECT pg_is_in_recovery()").filter(|answer| answer == "t")
    });

    cluster.freeze(1);
    cluster.await_primary(&[2], LEADS_WITHIN);
    let promoted = Instant::now();
    let mut tries = 0;
    await_that("a write is taken", || {
        tries += 1;
        ask(5000, "INSERT INTO seen VALUES ('after')")
    });
    let reached = promoted.elapsed();
    println!("a write after {:.2} s, at the try {tries}", reached.as_secs_f64());
    assert!(reached < REACHED_WITHIN, "{reached:?}");
    await_that("the session with the frozen one is cut", || {
        let answer = asked(&runtime, &old, "SELECT 1");
        (answer.is_none() && old.is_closed()).then_some(())
    });
    cluster.node(1).unpause();
    cluster.await_order(2, &[1]);
    let rows = "SELECT count(*) FROM seen";
    assert_eq!(cluster.node(2).ask(rows), "1");
}

/// Clients without a pool connect anew for each write: none of them may come upon a port where nobody answers.
#[test]
#[ignore = "needs docker: make test"]
fn through_haproxy_new_connections_do_not_hang_in_a_handover() {
    let cluster = stack(|_, recipe| recipe);
    let haproxy = proxy(cluster.network(), "haproxy").start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let write = |query| {
        let client = connected_within(Duration::from_secs(10), &runtime, &haproxy, 5000)?;
        asked(&runtime, &client, query)
    };
    await_that("it leads to the primary", || write("CREATE TABLE seen (at text)"));
    let (mut from, mut to) = (1, 2);
    for how in ["switchover", "stop", "switchover", "stop"] {
        let done = AtomicBool::new(false);
        // The longest time without a write, and the longest that one connection took.
        let (mut without, mut hung) = (Duration::ZERO, Duration::ZERO);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if how == "stop" {
                    cluster.stop(from);
                } else {
                    hand_over(&cluster, from, to);
                }
                cluster.await_primary(&[to], LEADS_WITHIN);
                done.store(true, Ordering::Relaxed);
            });
            let mut last = Instant::now();
            let mut after = 0;
            await_that("writes are taken by the other node", || {
                let over = done.load(Ordering::Relaxed);
                let began = Instant::now();
                let written = write("INSERT INTO seen VALUES ('meanwhile')");
                hung = hung.max(began.elapsed());
                if written.is_some() {
                    without = without.max(last.elapsed());
                    last = Instant::now();
                    after += u32::from(over);
                }
                (after > 20).then_some(())
            });
        });
        let [without_s, hung_s] = [without, hung].map(|one| one.as_secs_f64());
        println!("{how}: {without_s:.2} s without a write, one connection {hung_s:.2} s");
        assert!(hung < HANGS_AT_MOST, "{how}: {hung:?}");
        assert!(without < HANDED_OVER_WITHIN, "{how}: {without:?}");
        if how == "stop" {
            cluster.start(from);
        }
        std::mem::swap(&mut from, &mut to);
        cluster.await_order(from, &[to]);
        cluster.await_synchronous(from);
    }
}

/// What goes on until then ends with it, also where the story fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One that does not get every write in time is broken off, on a busy machine: nothing has changed then.
fn hand_over(cluster: &Cluster, from: usize, to: usize) {
    let ask = ["pgherd", "switchover", "--to", &cluster.node(to).name];
    let mut said = String::new();
    for _ in 0..3 {
        let answer = cluster.node(from).exec(ask);
        if answer.status == 0 {
            return;
        }
        said.push_str(&answer.text());
    }
    panic!("node{to} is not handed the lead: {said}");
}

#[test]
#[ignore = "needs docker: make test"]
fn through_pgbouncer_a_switchover_under_load_fails_no_transaction() {
    let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/compose/pgbouncer/hook.sh");
    let hook = format!("{hook}:/etc/pgherd/hooks.d/pgbouncer:ro");
    let cluster = stack(|_, recipe| recipe.option("-v").option(&hook));
    let _haproxy = proxy(cluster.network(), "haproxy").start();
    let pgbouncer = proxy(cluster.network(), "pgbouncer").envs(PASSWORDS).start();
    let client = Recipe::node("client")
        .network(cluster.network(), "client")
        .env("PGPASSWORD", password("POSTGRES_PASSWORD"))
        .entrypoint("sleep")
        .command(["infinity"])
        .start();
    let pgbench = |words: &[&'static str]| {
        let pgbench = ["pgbench", "-h", "pgbouncer", "-p", "6432", "-U", "postgres"];
        client.exec(pgbench.into_iter().chain(words.iter().copied()).chain(["postgres"]))
    };
    await_that("its tables are made", || (pgbench(&["-i", "-q"]).status == 0).then_some(()));

    let history = "SELECT count(*) FROM pgbench_history";
    let rows = |id: usize| cluster.node(id).sql(history).stdout.trim().parse().unwrap_or(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Until both are over, however long they take here.
        let load = scope.spawn(|| {
            let mut processed = 0;
            while !done.load(Ordering::Relaxed) {
                let load = pgbench(&["-n", "-c", "4", "-T", "5"]);
                println!("{}", load.text());
                assert_eq!(load.status, 0);
                let text = load.stdout;
                assert!(text.contains("number of failed transactions: 0 "), "{text}");
                let line = text.lines().find_map(|line| line.split_once("actually processed: "));
                let count = line.expect("pgbench says how many it has done").1.trim();
                processed += count.parse::<u64>().expect("a number");
            }
            processed
        });
        let goes_on = |id: usize| {
            let before: u64 = rows(id);
            await_that("transactions go on", || (rows(id) > before).then_some(()));
        };
        let over = Over(&done);
        goes_on(1);
        for (from, to) in [(1, 2), (2, 1)] {
            let asked = Instant::now();
            hand_over(&cluster, from, to);
            cluster.await_primary(&[to], LEADS_WITHIN);
            goes_on(to);
            println!("node{to}: they go on after {:.1} s", asked.elapsed().as_secs_f64());
            // The next one needs somebody to go on with.
            cluster.await_following(to, &[from]);
            cluster.await_synchronous(to);
        }
        drop(over);
        let processed = load.join().expect("it does not panic");
        assert_eq!(processed, rows(1), "each is there, once");
    });
    let log = pgbouncer.log();
    for name in ["PAUSE", "RESUME"] {
        assert!(log.matches(name).count() >= 2, "{log}");
    }
    cluster.keeps_its_secrets();
}

/// Whoever has paused it may be gone.
#[test]
#[ignore = "needs docker: make test"]
fn a_pause_of_pgbouncers_that_nobody_ends_ends_by_itself() {
    let network = Network::new();
    // In HAProxy's place.
    let node = Recipe::node("node1").network(&network, "haproxy").envs(PASSWORDS);
    let node = node.env("POSTGRES_PORT", "5000").start();
    let pgbouncer = proxy(&network, "pgbouncer").envs(PASSWORDS);
    let pgbouncer = pgbouncer.env("PGBOUNCER_PAUSE_AT_MOST", "5").start();
    node.await_ready();
    let psql = |user: &str, variable: &str, database: &str, query: &str| {
        let password = format!("PGPASSWORD={}", password(variable));
        let psql = ["env", &password, "psql", "-XAtq", "-h", "pgbouncer", "-p", "6432"];
        node.exec(psql.into_iter().chain(["-U", user, "-d", database, "-c", query]))
    };
    let ask = || psql("postgres", "POSTGRES_PASSWORD", "postgres", "SELECT 'there'");
    let admin = |query| psql("repmgr", "REPMGR_PASSWORD", "pgbouncer", query);
    await_that("it leads to the node", || (ask().stdout.trim() == "there").then_some(()));

    admin("PAUSE").ok();
    let paused = Instant::now();
    assert_eq!(ask().ok(), "there");
    let (ended, log) = (paused.elapsed(), pgbouncer.log());
    println!("ended after {:.1} s", ended.as_secs_f64());
    assert!(ended > Duration::from_secs(3), "it was not paused: {log}");
    assert!(log.contains("nobody says RESUME: goes on"), "{log}");
    // Whoever says RESUME has said it: nothing is ended afterwards, and it can be paused again.
    admin("PAUSE").ok();
    admin("RESUME").ok();
    assert_eq!(ask().ok(), "there");
    assert_eq!(pgbouncer.stop(), 0, "it hears signals");
    let log = pgbouncer.log();
    assert_eq!(log.matches("nobody says RESUME").count(), 1, "{log}");
}

/// It is told when the role changes, and nobody waits for it.
#[test]
#[ignore = "needs docker: make test"]
fn a_hook_that_hangs_makes_no_failover_slower() {
    let hooks = Volume::new();
    let cluster = Cluster::voting(3, |_, recipe| {
        recipe.volume(&hooks, "/etc/pgherd/hooks.d").env("PGHERD_HOOK_TIMEOUT", "60s")
    });
    let hook = "#!/bin/sh\necho \"told: $* $HOOK_NODE, $HOOK_PRIMARY as $(id -un)\"\nsleep 1000\n";
    cluster.node(1).put("/etc/pgherd/hooks.d/hangs", hook, 0o755);
    cluster.begin_voting();
    cluster.node(1).await_log("told: role-changed none primary node1, node1:5432 as postgres");
    let prober = cluster.probe();
    let killed = Instant::now();
    cluster.kill(1);
    let leader = cluster.await_primary(&[2, 3], LEADS_WITHIN);
    println!("node{leader} leads {:.1} s later", killed.elapsed().as_secs_f64());
    prober.await_rows();
    cluster.start(1);
    cluster.await_settled(leader);
    prober.end(&cluster, leader, &cluster.others(&[leader]));
}
