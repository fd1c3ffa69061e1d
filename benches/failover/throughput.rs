//! What pgherd takes of pgbench's throughput: beside the same three servers without it, on the same
//! volumes, at the same addresses, with the same standby waited for.

use crate::Bench;
use crate::cluster::{Cluster, Kind};
use crate::common::container::{Container, PASSWORD, PLACES, STREAMS, docker, serves};
use crate::common::number;
use crate::common::numbers::{Sample, aim, table};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const NAMES: [&str; 2] = ["pgherd", "postgres alone, same data"];
/// Some 150 MB: more rows than clients could wait for each other on.
const SCALE: &str = "10";
/// For caches that a restart has emptied; not measured.
const WARM_UP_SECONDS: u32 = 3;
const STANDBYS_WITHIN: Duration = Duration::from_secs(60);

/// Prints it. As many rounds as the bench has, and each contestant is the first in turn.
pub(crate) fn measure(bench: &Bench) {
    let cluster = Cluster::up(bench, Kind::Pgherd);
    let mut primary = cluster.await_rest();
    pgbench(&cluster.nodes[primary], &["-i", "-q", "-s", SCALE]);
    let seconds = number("BENCH_SECONDS", 20);
    let mut samples = NAMES.map(|name| (name, Sample::default()));
    let mut ratios = Sample::default();
    let mut bare = None;
    let mut settings = [String::new(), String::new()];
    for round in 0..bench.rounds {
        let mut both = [f64::NAN; 2];
        for at in [round % 2, 1 - round % 2] {
            both[at] = if at == 0 {
                if bare.take().is_some() {
                    cluster.nodes.iter().for_each(Container::start);
                    primary = cluster.await_rest();
                }
                settings[0] = settings_of(&cluster.nodes[primary]);
                transactions(&cluster.nodes[primary], seconds)
            } else {
                let bare = bare.get_or_insert_with(|| Bare::instead_of(&cluster, primary));
                settings[1] = settings_of(&bare.nodes[0]);
                transactions(&bare.nodes[0], seconds)
            };
            println!("  {}: {:.0} transactions per second", NAMES[at], both[at]);
            samples[at].1.add(both[at]);
        }
        ratios.add(both[0] / both[1] * 1000.0);
        let [ours, theirs] = settings.each_ref().map(|all| all.lines().collect::<BTreeSet<_>>());
        let differ: Vec<_> = ours.symmetric_difference(&theirs).collect();
        assert!(differ.is_empty(), "not the same servers: {differ:?}");
    }
    table("pgbench, one synchronous standby, transactions per second", NAMES[1], &samples);
    println!("  {:<38} {ratios} ‰", "round by round, pgherd of bare");
    let ratio = samples[0].1.median() / samples[1].1.median();
    aim("throughput that pgherd takes", (1.0 - ratio) * 100.0, 1.0, "%");
}

/// The servers of a cluster that has stopped. They stop, in order, when this goes out of sight.
struct Bare {
    /// The primary first.
    nodes: Vec<Container>,
}

impl Bare {
    fn instead_of(cluster: &Cluster<'_>, primary: usize) -> Self {
        let waited_for = cluster.nodes[primary].sql("SHOW synchronous_standby_names");
        let pgdata = cluster.nodes[primary].sql("SHOW data_directory");
        let standbys = (0..PLACES.len()).filter(|at| *at != primary);
        let order: Vec<_> = [primary].into_iter().chain(standbys).collect();
        // The primary last: it has nobody to hand over to, and leads when it is back.
        for at in order.iter().rev() {
            docker(&["stop", "-t", "60", cluster.nodes[*at].id()]);
        }
        // Without standbys, pgherd has put down that nobody is waited for.
        let names = format!("synchronous_standby_names={waited_for}");
        let password = format!("PGPASSWORD={PASSWORD}"); // pgherd's file of it is not on the volume.
        let bench = cluster.bench;
        let node = |at: usize| {
            let own = ["--volumes-from", cluster.nodes[at].id(), "-e", &password];
            let flags = ["-c", &names];
            bench.image.alone(&bench.network, PLACES[at], &pgdata, &own, &flags)
        };
        let nodes: Vec<_> = order.into_iter().map(node).collect();
        for (at, node) in nodes.iter().enumerate() {
            node.start();
            let question = if at == 0 { serves("postgres") } else { STREAMS };
            node.await_answer(&bench.runtime, question);
        }
        let began = Instant::now();
        let both = "SELECT count(*) || ' ' || count(*) FILTER (WHERE sync_state = 'sync') \
             FROM pg_stat_replication WHERE state = 'streaming'";
        while nodes[0].sql(both) != "2 1" {
            assert!(began.elapsed() < STANDBYS_WITHIN, "the standbys do not stream");
            std::thread::park_timeout(Duration::from_millis(100));
        }
        Bare { nodes }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // The primary waits until its standbys have all that it wrote. As PID 1, postgres takes
        // SIGTERM for a wait until all clients have gone.
        self.nodes.iter().for_each(|node| node.stop("INT"));
    }
}

/// All that a server is set to.
fn settings_of(primary: &Container) -> String {
    primary.sql("SELECT name || ' = ' || setting FROM pg_settings ORDER BY 1")
}

/// Per second, after a while of warming up.
fn transactions(primary: &Container, seconds: u32) -> f64 {
    let run =
        |seconds: u32| pgbench(primary, &["-n", "-c", "4", "-j", "2", "-T", &seconds.to_string()]);
    run(WARM_UP_SECONDS);
    primary.sql("CHECKPOINT");
    let said = run(seconds);
    let line = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let number = line.and_then(|rest| rest.split(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("pgbench says: {said}"))
}

/// In the primary's container, over its socket.
fn pgbench(primary: &Container, args: &[&str]) -> String {
    let fixed = ["exec", "-u", "postgres", primary.id(), "pgbench"];
    docker(&[&fixed[..], args, &["postgres"]].concat())
}
