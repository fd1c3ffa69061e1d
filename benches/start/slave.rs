//! What a slave's starts cost beside the least that makes one: of the same image, over the same network,
//! from the same master, in the same run.

use crate::common::container::{Container, PASSWORD, STREAMS, docker, serves};
use crate::common::numbers::{Sample, aim, table};
use crate::steps::Steps;
use crate::{Bench, NODE1, NODE2};
use std::time::{Duration, Instant};

const BARE: &str = include_str!("slave.sh");
const MASTER: &str = "host=node1 user=repmgr_streaming";
const MIB: f64 = 1_048_576.0;
/// MiB of tables, growing, and what is measured with them.
const SIZES: [(u32, Part); 4] = [
    (0, Part::FirstStart),
    (1024, Part::FirstStart),
    (2048, Part::Restart),
    (4096, Part::BigFirstStart),
];
const NAMES: [&str; 2] = ["pgherd", "pg_basebackup and postgres"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    FirstStart,
    Restart,
    BigFirstStart,
}

impl Bench {
    pub(crate) fn slaves(&self, rounds: usize, wanted: impl Fn(&str) -> bool) {
        let part_wanted = |part: Part| match part {
            Part::FirstStart => wanted("slave-first-start"),
            Part::Restart => wanted("slave-restart"),
            Part::BigFirstStart => wanted("slave-first-start") && self.big,
        };
        let parts: Vec<_> = SIZES.into_iter().filter(|(_, part)| part_wanted(*part)).collect();
        if parts.is_empty() {
            return;
        }
        let master = self.master();
        let mut filled = 0;
        for (mebibytes, part) in parts {
            fill(&master, filled, mebibytes);
            filled = mebibytes;
            match part {
                Part::FirstStart | Part::BigFirstStart => {
                    self.slave_first_starts(&master, mebibytes, rounds);
                }
                Part::Restart => self.slave_restarts(&master, mebibytes, rounds),
            }
        }
    }

    /// A master that leads, and is through with its start.
    fn master(&self) -> Container {
        let master = self.node(NODE1.name, &[]);
        master.start_to(&self.runtime, serves("app"));
        Steps::default().add(&master, 0);
        master
    }

    /// pgherd at the place of that name.
    fn node(&self, name: &str, options: &[&str]) -> Container {
        let place = if name == NODE1.name { NODE1 } else { NODE2 };
        let (name, streaming) = (format!("REPMGR_NODE_NAME={name}"), streaming_password());
        let elsewhere = "PGHERD_BACKUPS=elsewhere"; // Two cores are not for barman's work, too.
        let log = "PGHERD_LOG=debug"; // That tells the steps, whose end is waited for.
        let own = ["-e", &name, "-e", &streaming, "-e", elsewhere, "-e", log];
        self.container_at(place, &[&own, options].concat(), &[])
    }

    fn slave(&self) -> Container {
        let master = format!("REPMGR_MASTER_HOST={}", NODE1.name);
        self.node(NODE2.name, &["-e", "REPMGR_MASTER=false", "-e", &master])
    }

    fn slave_first_starts(&self, master: &Container, mebibytes: u32, rounds: usize) {
        let mut samples = NAMES.map(|name| (name, Sample::default()));
        let mut steps = Steps::default();
        let conninfo = format!("MASTER={MASTER}");
        let password = format!("PGPASSWORD={PASSWORD}");
        for round in 0..rounds {
            // Each is the first in turn.
            for at in (0..NAMES.len()).map(|at| (at + round) % NAMES.len()) {
                let (slave, signal) = match at {
                    0 => (self.slave(), "TERM"),
                    _ => {
                        let own = ["-e", conninfo.as_str(), "-e", &password];
                        (self.scripted_at(NODE2, BARE, &own), "INT")
                    }
                };
                at_rest(master);
                samples[at].1.add(slave.start_to(&self.runtime, STREAMS));
                if at == 0 {
                    steps.add(&slave, 0);
                }
                slave.stop(signal);
                drop_slots(master);
            }
        }
        let title =
            format!("A slave's first start to the first query and streaming, {mebibytes} MiB, ms");
        table(&title, NAMES[1], &samples);
        let ratio = samples[0].1.median() / samples[1].1.median();
        aim("hardly slower than pg_basebackup and postgres", ratio, 1.1, "×");
        steps.show("a slave's first start");
    }

    /// pgherd, and a bare server on the same data directory.
    fn slave_restarts(&self, master: &Container, mebibytes: u32, rounds: usize) {
        let pgherd = self.slave();
        pgherd.start_to(&self.runtime, STREAMS);
        Steps::default().add(&pgherd, 0); // A start is not stopped half-way.
        let pgdata = pgherd.sql("SHOW data_directory");
        pgherd.stop("TERM");
        let mut lines = pgherd.log().lines().count();
        let password = format!("PGPASSWORD={PASSWORD}"); // pgherd's file of it is not on the volume.
        let own = ["--volumes-from", pgherd.id(), "-e", &password];
        let bare = self.alone(NODE2, &pgdata, &own);
        let names = ["pgherd", "postgres alone, same data"];
        let mut samples = names.map(|name| (name, Sample::default()));
        let mut received = names.map(|name| (name, Sample::default()));
        let mut steps = Steps::default();
        for round in 0..rounds {
            for at in (0..names.len()).map(|at| (at + round) % names.len()) {
                // As PID 1, postgres takes SIGTERM for a wait until all clients have gone.
                let (slave, signal) = [(&pgherd, "TERM"), (&bare, "INT")][at];
                at_rest(master);
                samples[at].1.add(slave.start_to(&self.runtime, STREAMS));
                received[at].1.add(slave.bytes_received() / 1024.0);
                if at == 0 {
                    steps.add(&pgherd, lines);
                }
                slave.stop(signal);
                lines = pgherd.log().lines().count();
            }
        }
        let title =
            format!("A slave's restart to the first query and streaming, {mebibytes} MiB, ms");
        table(&title, names[1], &samples);
        let ratio = samples[0].1.median() / samples[1].1.median();
        aim("hardly slower than postgres alone", ratio, 1.5, "×");
        table("Received meanwhile, KiB", names[1], &received);
        aim("nothing is copied", received[0].1.median() * 1024.0 / MIB, 1.0, "MiB");
        steps.show("a slave's restart");
        drop((bare, pgherd));
        drop_slots(master);
    }
}

fn streaming_password() -> String {
    format!("REPMGR_STREAMING_PASSWORD={PASSWORD}")
}

/// Adds a table, so that there are so many MiB instead of `before`, which no checkpoint is behind with.
pub(crate) fn fill(master: &Container, before: u32, mebibytes: u32) {
    // 7 rows of 1,000 bytes and their headers to a page of 8 KiB.
    let rows = (mebibytes - before) * 128 * 7;
    if rows > 0 {
        master.sql(&format!(
            "CREATE TABLE up_to_{mebibytes} AS SELECT n, repeat('x', 1000)::char(1000) AS filler \
             FROM generate_series(1, {rows}) n"
        ));
        // Else who reads them first would set their hint bits, and the master's disk be busy.
        master.sql(&format!("VACUUM (FREEZE) up_to_{mebibytes}"));
    }
}

/// What the last round has left to be written, by the master and by the kernel, is not the next one's.
fn at_rest(master: &Container) {
    master.sql("CHECKPOINT");
    docker(&["exec", master.id(), "sync", "-f", "/var/lib/postgresql"]);
}

/// Afterwards the master keeps nothing for slaves that are gone.
fn drop_slots(master: &Container) {
    let began = Instant::now();
    while master.sql("SELECT count(*) FROM pg_replication_slots WHERE active") != "0" {
        assert!(began.elapsed() < Duration::from_secs(60), "a slave that has ended streams");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    master.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
}
