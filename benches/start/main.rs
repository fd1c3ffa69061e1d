//! What pgherd costs, against a bare Postgres, the steps of the official image, and tini, all in the
//! same run: the machine's mood is then the same for all.
//!
//! `make bench`, or `cargo bench --bench start`. `BENCH_ROUNDS` (10), `BENCH_IDLE_SECONDS` (30),
//! `BENCH_ONLY` (some of `first-start,restart,idle,orphans,steps,restore,slave-first-start,slave-restart`),
//! `BENCH_BIG` (set: a slave's first start and a restore with 4 GB, too, for which the disk must have 20 GB),
//! `BENCH_DOCKER_OPTIONS` (for every container, such as `--cpu-shares=100000` on a busy machine);
//! `PGHERD_IMAGE` (pgherd:17) and `PGHERD_BINARY` (the image's own) as in the stories.

#[path = "../common/mod.rs"]
mod common;
mod restore;
mod slave;
mod started;
mod steps;

use common::container::{Container, Network, PASSWORD, PLACES, Place, docker, serves};
use common::image::Image;
use common::numbers::{Sample, aim, table};
use common::process::{cpu_ms, halves, memory, settle};
use common::{number, setting, wanted};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

const OFFICIAL: &str = include_str!("official.sh");
const BARE: &str = include_str!("bare.sh");
/// Where scripts of ours keep the cluster, on the image's volume.
const PGDATA: &str = "/var/lib/postgresql/bench";
const ORPHANS: u32 = 10_000;
const NODE1: Place = PLACES[0];
const NODE2: Place = PLACES[1];

fn main() {
    let bench = Bench {
        image: Image::of_settings(),
        big: setting("BENCH_BIG").is_some(),
        network: Network::new(),
        runtime: Builder::new_current_thread().enable_all().build().expect("epoll"),
    };
    let rounds = number("BENCH_ROUNDS", 10) as usize;
    let idle = number("BENCH_IDLE_SECONDS", 30).into();
    println!("{}, {rounds} rounds: median ± median deviation (min–max), ratio", bench.image.name);
    if wanted("first-start") {
        bench.first_starts(rounds);
    }
    if wanted("restart") {
        bench.restarts(rounds);
    }
    if wanted("idle") {
        bench.idle(Duration::from_secs(idle));
    }
    if wanted("orphans") {
        bench.orphans(rounds);
    }
    if wanted("steps") {
        bench.steps(rounds);
    }
    if wanted("restore") {
        bench.restores(rounds);
    }
    bench.slaves(rounds, wanted);
}

struct Bench {
    image: Image,
    big: bool,
    network: Network,
    runtime: Runtime,
}

impl Bench {
    /// A container of the image, with these options and this command.
    fn container(&self, options: &[&str], command: &[&str]) -> Container {
        self.container_at(NODE1, options, command)
    }

    fn container_at(&self, place: Place, options: &[&str], command: &[&str]) -> Container {
        let password = format!("POSTGRES_PASSWORD={PASSWORD}");
        let own = ["-e", &password, "-e", "POSTGRES_DB=app"];
        self.image.container(&self.network, place, &[&own, options].concat(), command)
    }

    /// A container that runs a script of ours instead of pgherd.
    fn scripted(&self, script: &str) -> Container {
        self.scripted_at(NODE1, script, &[])
    }

    fn scripted_at(&self, place: Place, script: &str, options: &[&str]) -> Container {
        let (pgdata, steps) = (format!("PGDATA={PGDATA}"), format!("STEPS={script}"));
        let own = ["-e", &pgdata, "-e", &steps, "--entrypoint", "bash", "--no-healthcheck"];
        self.container_at(place, &[&own, options].concat(), &["-c", script])
    }

    /// Nothing but postgres, on a data directory that is there.
    fn alone(&self, place: Place, pgdata: &str, options: &[&str]) -> Container {
        self.image.alone(&self.network, place, pgdata, options, &[])
    }

    fn first_starts(&self, rounds: usize) {
        let names = ["pgherd", "the official image's steps", "initdb and postgres"];
        let mut samples = names.map(|name| (name, Sample::default()));
        for round in 0..rounds {
            // Each is the first in turn.
            for at in (0..names.len()).map(|at| (at + round) % names.len()) {
                let (container, database) = match at {
                    0 => (self.container(&[], &[]), "app"),
                    1 => (self.scripted(OFFICIAL), "app"),
                    _ => (self.scripted(BARE), "postgres"),
                };
                let took = container.start_to(&self.runtime, serves(database));
                samples[at].1.add(took);
            }
        }
        table("First start to first query, ms", names[1], &samples);
        let ratio = samples[0].1.median() / samples[1].1.median();
        aim("no slower than the official image", ratio, 1.0, "×");
    }

    /// pgherd, and a bare server on the same data directory.
    fn restarts(&self, rounds: usize) {
        let pgherd = self.container(&[], &[]);
        pgherd.start_to(&self.runtime, serves("app"));
        let pgdata = pgherd.sql("SHOW data_directory");
        pgherd.stop("TERM");
        let bare = self.alone(NODE1, &pgdata, &["--volumes-from", pgherd.id()]);
        let names = ["pgherd", "postgres alone, same data"];
        let mut samples = names.map(|name| (name, Sample::default()));
        for round in 0..rounds {
            for at in (0..names.len()).map(|at| (at + round) % names.len()) {
                // As PID 1, postgres takes SIGTERM for a wait until all clients have gone.
                let (container, signal) = [(&pgherd, "TERM"), (&bare, "INT")][at];
                let took = container.start_to(&self.runtime, serves("app"));
                samples[at].1.add(took);
                container.stop(signal);
            }
        }
        table("Restart to first query, ms", names[1], &samples);
        let ratio = samples[0].1.median() / samples[1].1.median();
        aim("hardly slower than postgres alone", ratio, 1.05, "×");
    }

    fn idle(&self, window: Duration) {
        let pgherd = self.container(&[], &[]);
        pgherd.start_to(&self.runtime, serves("app"));
        let tini = self.tini(&["sleep", "infinity"]);
        // Another address: the bench's own is taken.
        let tini_pid = docker(&["inspect", "-f", "{{.State.Pid}}", &tini]);
        let tini_pid: u32 = tini_pid.parse().expect("a number");
        let both = halves(pgherd.pid());
        assert_eq!(both.len(), 2, "both halves run");
        settle(&both);

        println!("\nIdle, over {} s: PSS, RSS in MiB; CPU in % of a core", window.as_secs());
        let contestants = [
            ("pgherd, both halves", &both[..]),
            ("its init half", &both[..1]),
            ("tini", &[tini_pid]),
        ];
        let before = contestants.map(|(_, pids)| cpu_ms(pids));
        let began = Instant::now();
        std::thread::park_timeout(window); // What is measured is that nothing happens.
        let elapsed = began.elapsed().as_secs_f64() * 1e3;
        let mut of_both = (0.0, 0.0);
        for ((name, pids), before) in contestants.into_iter().zip(before) {
            let used = memory(pids);
            let cpu = (cpu_ms(pids) - before) / elapsed * 100.0;
            let mib = |kib: u64| kib as f64 / 1024.0;
            println!("  {name:<38} {:>6.2} {:>6.2} {cpu:>8.3}", mib(used.pss), mib(used.rss));
            if pids.len() == 2 {
                of_both = (mib(used.pss), cpu);
            }
        }
        aim("memory (PSS) of both halves", of_both.0, 8.0, "MiB");
        aim("CPU of both halves", of_both.1, 0.2, "%");
        docker(&["rm", "-f", "-v", &tini]);
    }

    /// docker's `--init` is tini.
    fn tini(&self, command: &[&str]) -> String {
        let fixed = [
            "run",
            "-d",
            "--init",
            "--label",
            "pgherd.story=1",
            "--no-healthcheck",
            "--entrypoint",
        ];
        docker(&[&fixed[..], &command[..1], &[&self.image.name], &command[1..]].concat())
    }

    fn orphans(&self, rounds: usize) {
        let script = format!(
            "begin=$(date +%s%3N); i=0; while [ $i -lt {ORPHANS} ]; do (true &); i=$((i+1)); done; \
             while grep -qs '^State:.Z' /proc/[0-9]*/status; do :; done; echo $(($(date +%s%3N) - begin))"
        );
        let mut samples = [("pgherd", Sample::default()), ("tini", Sample::default())];
        for _ in 0..rounds.min(3) {
            let pgherd = self.container(&["--no-healthcheck"], &["sh", "-c", &script]);
            pgherd.start();
            docker(&["wait", pgherd.id()]);
            samples[0].1.add(pgherd.log().parse().expect("milliseconds"));

            let tini = self.tini(&["sh", "-c", &script]);
            docker(&["wait", &tini]);
            samples[1].1.add(docker(&["logs", &tini]).parse().expect("milliseconds"));
            docker(&["rm", "-f", "-v", &tini]);
        }
        table(&format!("{ORPHANS} orphans made and reaped, ms"), "tini", &samples);
    }
}
