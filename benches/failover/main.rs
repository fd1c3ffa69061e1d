//! What a lost or handed over primary costs, what pgherd takes of the throughput, and what three nodes
//! of it take when nothing happens: beside Patroni and etcd from Debian's packages, in the same run.
//!
//! `make bench`, or `cargo bench --bench failover`. `BENCH_ROUNDS` (10), `BENCH_ONLY` (some of
//! `killed,asked,frozen,postmaster,switchover,stop,throughput,idle`), `BENCH_BESIDE` (some of
//! `pgherd,short,patroni`: who is measured), `BENCH_SECONDS` (20, of each run of pgbench),
//! `BENCH_IDLE_SECONDS` (30), `BENCH_DOCKER_OPTIONS`, `PGHERD_IMAGE`, `PGHERD_BINARY` as in `start`.
//!
//! One cluster runs at a time: three idle ones beside it would be the noise in what is measured.
//! Patroni stands for the fastest that its checks of the configuration let it be (`patroni/patroni.yml`),
//! each node with an etcd of its own, as pgherd's; one standby is waited for in both.

mod asked;
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod idle;
mod outages;
mod prober;
mod record;
mod throughput;

use cluster::{Cluster, Kind};
use common::container::{Network, docker};
use common::image::Image;
use common::{number, setting, wanted};
use outages::Outages;
use tokio::runtime::{Builder, Runtime};

/// Removed by `make clean`.
const PATRONI: &str = "pgherd-patroni";

fn main() {
    let bench = Bench {
        rounds: number("BENCH_ROUNDS", 10) as usize,
        image: Image::of_settings(),
        network: Network::new(),
        runtime: Builder::new_current_thread().enable_all().build().expect("epoll"),
    };
    println!(
        "{}, {} rounds: median ± median deviation (min–max), ratio",
        bench.image.name, bench.rounds
    );
    bench.outages_and_idle();
    if wanted("throughput") {
        throughput::measure(&bench);
    }
}

struct Bench {
    rounds: usize,
    image: Image,
    network: Network,
    runtime: Runtime,
}

impl Bench {
    /// All that needs one cluster after the other.
    fn outages_and_idle(&self) {
        let is_idle_wanted = |kind: Kind| wanted("idle") && kind != Kind::ShortLease;
        let is_measured = |kind: &Kind| {
            is_beside(*kind) && (is_idle_wanted(*kind) || outages::parts_of(*kind).count() > 0)
        };
        let kinds: Vec<_> = Kind::ALL.into_iter().filter(is_measured).collect();
        if kinds.contains(&Kind::Patroni) {
            self.build_patroni(); // Before minutes are spent on the others.
        }
        let mut outages = Outages::default();
        for kind in kinds {
            let cluster = Cluster::up(self, kind);
            if is_idle_wanted(kind) {
                idle::measure(&cluster);
            }
            if kind == Kind::Pgherd && wanted("asked") {
                asked::measure(&cluster);
            }
            outages::parts_of(kind).for_each(|part| {
                outages.measure(&cluster, part, self.rounds);
            });
        }
        outages.show();
    }

    /// On the image that is measured, so that Postgres and etcd are the same. `BENCH_BESIDE=pgherd,short`
    /// goes without it.
    fn build_patroni(&self) {
        let base = format!("BASE={}", self.image.name);
        let files = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/failover/patroni");
        docker(&["build", "-q", "--build-arg", &base, "-t", PATRONI, files]);
        let label = ["--label", "pgherd.story=1"];
        let asked = ["--entrypoint", "patroni", PATRONI, "--version"];
        println!("beside it: {}", docker(&[&["run", "--rm"], &label[..], &asked].concat()));
    }

    /// What the nodes of such a cluster are made of.
    fn image_of(&self, kind: Kind) -> Image {
        let mut image = self.image.clone();
        if kind == Kind::Patroni {
            PATRONI.clone_into(&mut image.name);
        }
        image
    }
}

fn is_beside(kind: Kind) -> bool {
    setting("BENCH_BESIDE").is_none_or(|only| only.split(',').any(|one| one == kind.word()))
}
