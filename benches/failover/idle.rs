//! What a node takes while nothing happens, beside its Postgres.

use crate::cluster::{Cluster, Kind};
use crate::common::number;
use crate::common::process::{cpu_ms, halves, memory, settle};
use std::time::{Duration, Instant};

/// Prints it.
pub(crate) fn measure(cluster: &Cluster<'_>) {
    let window = Duration::from_secs(number("BENCH_IDLE_SECONDS", 30).into());
    let primary = cluster.await_rest();
    let standby = (primary + 1) % cluster.nodes.len();
    let mut contestants = Vec::new();
    for (at, role) in [(primary, "a primary's"), (standby, "a standby's")] {
        contestants.extend(match cluster.kind {
            Kind::Pgherd | Kind::ShortLease => {
                let both = halves(cluster.nodes[at].pid());
                assert_eq!(both.len(), 2, "both halves run");
                let (init, node) = (both[..1].to_vec(), both[1..].to_vec());
                vec![(format!("{role} init half"), init), (format!("{role} node half"), node)]
            }
            Kind::Patroni => vec![(format!("{role} Patroni"), cluster.processes(at, "patroni"))],
        });
        contestants.push((format!("{role} etcd"), cluster.processes(at, "etcd")));
    }
    let all: Vec<_> = contestants.iter().flat_map(|(_, pids)| pids.clone()).collect();
    settle(&all);

    let name = cluster.kind.name();
    println!("\n{name}, idle, over {} s: PSS, RSS in MiB; CPU in % of a core", window.as_secs());
    let before: Vec<_> = contestants.iter().map(|(_, pids)| cpu_ms(pids)).collect();
    let began = Instant::now();
    std::thread::park_timeout(window); // What is measured is that nothing happens.
    let elapsed = began.elapsed().as_secs_f64() * 1e3;
    for ((name, pids), before) in contestants.iter().zip(before) {
        let used = memory(pids);
        let cpu = (cpu_ms(pids) - before) / elapsed * 100.0;
        let mib = |kib: u64| kib as f64 / 1024.0;
        println!("  {name:<38} {:>6.2} {:>6.2} {cpu:>8.3}", mib(used.pss), mib(used.rss));
    }
}
