//! What bringing a backup back costs beside `barman recover` and a server on what that makes: of the same
//! image, from the same backup, in the same run.

use crate::common::container::{Container, docker, serves};
use crate::common::numbers::{Sample, aim, table};
use crate::slave::fill;
use crate::{Bench, NODE1};
use std::time::{Duration, Instant};

const BARE: &str = include_str!("restore.sh");
const NAMES: [&str; 2] = ["pgherd", "barman recover and postgres"];
/// MiB of the backup, and then of WAL after it.
const SIZES: [(u32, bool); 2] = [(1024, false), (4096, true)];
/// A sixteenth of the backup comes after it, as WAL.
const WAL_SHARE: u32 = 16;
const PATIENCE: Duration = Duration::from_secs(600);

impl Bench {
    pub(crate) fn restores(&self, rounds: usize) {
        for (mebibytes, is_big) in SIZES {
            if is_big == self.big {
                self.restore(mebibytes, rounds);
            }
        }
    }

    fn restore(&self, mebibytes: u32, rounds: usize) {
        let backups = BackupVolume::new();
        let mount = format!("{}:/home/barman/data", backups.0);
        self.take_backup(&mount, mebibytes);
        let mut samples = NAMES.map(|name| (name, Sample::default()));
        for round in 0..rounds {
            // Each is the first in turn.
            for at in (0..NAMES.len()).map(|at| (at + round) % NAMES.len()) {
                let (container, signal) = match at {
                    0 => {
                        // The archive that it comes from stays as it is.
                        let copy = ["PGHERD_CLUSTER=copy", "RESTORE_CLUSTER=pgherd"];
                        let [cluster, from] = copy;
                        let own = ["-v", &mount, "-e", cluster, "-e", from];
                        let own = [&own[..], &["-e", "RESTORE_FROM=latest"]].concat();
                        (self.container(&own, &[]), "TERM")
                    }
                    _ => (self.scripted_at(NODE1, BARE, &["-v", &mount]), "INT"),
                };
                let took = container.start_to(&self.runtime, serves("app"));
                samples[at].1.add(took);
                let rows =
                    container.sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'up_to_%'");
                assert_eq!(rows, "2", "{}: everything came back", NAMES[at]);
                container.stop(signal);
                drop(container);
                backups.shell("rm -rf /home/barman/data/copy*; sync -f /home/barman/data", self);
            }
        }
        let title = format!("A restore of {mebibytes} MiB to the first query, ms");
        table(&title, NAMES[1], &samples);
        let ratio = samples[1].1.median() / samples[0].1.median();
        aim(
            "nearly as fast as barman recover and postgres",
            ratio,
            0.8,
            "× its speed (more is better)",
        );
    }

    /// Afterwards the volume has a backup, and the WAL of what was written since.
    fn take_backup(&self, mount: &str, mebibytes: u32) {
        let master = self.container(&["-v", mount], &[]);
        master.start_to(&self.runtime, serves("app"));
        fill(&master, 0, mebibytes);
        docker(&["exec", master.id(), "pgherd", "backup", "--wait"]);
        fill(&master, mebibytes, mebibytes + mebibytes / WAL_SHARE);
        master.sql("SELECT pg_switch_wal()");
        let received = "SELECT bool_and(sent_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication";
        let began = Instant::now();
        while master.sql(received) != "t" {
            assert!(began.elapsed() < PATIENCE, "barman has not received what was written");
            std::thread::park_timeout(Duration::from_millis(100));
        }
        docker(&["exec", "-u", "barman", master.id(), "barman", "archive-wal", "pgherd"]);
        master.stop("TERM");
    }
}

/// What outlives the node that the backup is of. Removed at the end.
struct BackupVolume(String);

impl BackupVolume {
    fn new() -> Self {
        let name = format!("pgherd-bench-{}-backups", std::process::id());
        docker(&["volume", "create", "--label", "pgherd.story=1", &name]);
        BackupVolume(name)
    }

    fn shell(&self, script: &str, bench: &Bench) {
        let mount = format!("{}:/home/barman/data", self.0);
        let own = ["-v", mount.as_str(), "--entrypoint", "bash", "--no-healthcheck"];
        let container: Container = bench.container(&own, &["-c", script]);
        container.start();
        docker(&["wait", container.id()]);
    }
}

impl Drop for BackupVolume {
    fn drop(&mut self) {
        docker(&["volume", "rm", "-f", &self.0]);
    }
}
