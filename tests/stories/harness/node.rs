//! A node of a cluster: its container, its volume, and what is known of both.

use super::{Container, Network, PATIENCE, Recipe, Volume};
use std::collections::BTreeSet;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Something to replay, and where it ends.
const MARK: &str = "SELECT pg_logical_emit_message(true, 'story', '')";

/// A container with the volume that outlives it.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub id: usize,
    pub container: Container,
    pub(super) recipe: Recipe,
    /// Where the prober still reaches it while it is cut off.
    pub(super) outside: Option<Network>,
    pub data: Volume,
}

impl Deref for Node {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.container
    }
}

/// Waits until `standby` serves, streams from `primary`, and has replayed what is written now: that
/// it says so is not enough.
pub fn await_follows(standby: &Node, primary: &Node) {
    standby.await_ready();
    let streams = format!(
        "SELECT count(*) FROM pg_stat_replication \
         WHERE application_name = '{}' AND state = 'streaming'",
        standby.name
    );
    standby.await_alive(&format!("it streams from {}", primary.name), || {
        (primary.sql(&streams).stdout.trim() == "1").then_some(())
    });
    let written = primary.sql(MARK).ok();
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
    standby.await_alive(&format!("it replays {written}"), || {
        (standby.sql(&replayed).stdout.trim() == "t").then_some(())
    });
}

impl Node {
    /// Its container's name.
    pub fn name(&self) -> &str {
        &self.container.name
    }

    /// Waits until it serves; asked over the network, which is cheaper than `docker exec`.
    pub fn await_ready(&self) -> &Self {
        self.await_alive("it serves", || {
            self.http("/readiness").is_some_and(|(code, _)| code == 200).then_some(())
        });
        self
    }

    /// Waits for `condition`, and fails at once if its container ends.
    pub fn await_alive<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        self.await_that(what, || {
            let answer = condition();
            if answer.is_none()
                && let Some(status) = self.exit_status()
            {
                panic!("{} ended with {status}, waited for: {what}", self.name);
            }
            answer
        })
    }

    /// The same; whoever waits in vain is told what was there instead.
    pub fn await_showing<T>(&self, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
        let began = Instant::now();
        loop {
            match look() {
                Ok(answer) => return answer,
                Err(instead) => assert!(
                    began.elapsed() < PATIENCE,
                    "{}: waited in vain: {what}; instead: {instead}",
                    self.name
                ),
            }
            std::thread::park_timeout(Duration::from_millis(200)); // Spares the machine.
        }
    }

    /// A table of so many megabytes, incompressible as far as Postgres goes, on the disk.
    pub fn fill(&self, megabytes: u32) {
        // 7 rows of 1,000 bytes and their headers to a page of 8 KiB.
        let rows = megabytes * 128 * 7;
        self.sql(&format!(
            "CREATE TABLE bulk WITH (autovacuum_enabled = off) AS SELECT n, repeat('x', 1000)::char(1000) AS filler \
             FROM generate_series(1, {rows}) n"
        ))
        .ok();
        self.sql("CHECKPOINT").ok();
    }

    /// As a stopped server's directory would be after enough checkpoints: only the WAL is there that
    /// it needs to start. Returns the names of what is gone.
    pub fn forget_old_wal(&self) -> String {
        self.data.shell(
            "cd /v/*/docker && \
             keep=$(pg_controldata . | sed -n \"s/^Latest checkpoint's REDO WAL file: *//p\") && \
             cd pg_wal && for file in $(ls | grep -xE '[0-9A-F]{24}'); do \
               [[ $file < $keep ]] && rm \"$file\" && echo \"$file\"; done; true",
        )
    }

    /// The one value that `query` returns.
    pub fn ask(&self, query: &str) -> String {
        self.sql(query).ok()
    }

    /// Its data directory, as this machine sees it: one of `17/docker` and its like.
    pub fn pgdata(&self) -> PathBuf {
        let majors = ["17", "15"].map(|major| self.data.mountpoint().join(major));
        majors.iter().find(|dir| dir.is_dir()).unwrap_or(&majors[0]).join("docker")
    }

    /// A cluster is in it. The directory itself is made early, and says nothing.
    pub fn has_data(&self) -> bool {
        self.pgdata().join("PG_VERSION").exists()
    }

    /// Made once and never made anew: a directory's number in its file system.
    pub fn pgdata_inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(self.pgdata()).expect("it has a data directory").ino()
    }

    /// Directories beside the data directory, and marks, that are there only while something is
    /// under way.
    pub fn leftovers(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        find_leftovers(&self.data.mountpoint(), 3, &mut found);
        found
    }

    /// Its latest lines of `pgherd status`, for people.
    pub fn status(&self) -> String {
        self.exec(["pgherd", "status"]).text()
    }
}

fn find_leftovers(directory: &Path, depth: u8, found: &mut BTreeSet<PathBuf>) {
    let endings = [".clone", ".cloned", ".moving-in", ".old"];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Postgres keeps files of such names (backup_label.old), and no directories.
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && endings.iter().any(|ending| name.ends_with(ending))
            || name == "pgherd.unfinished"
            || name == "rewinding"
        {
            found.insert(entry.path());
        } else if is_dir && depth > 1 {
            find_leftovers(&entry.path(), depth - 1, found);
        }
    }
}
