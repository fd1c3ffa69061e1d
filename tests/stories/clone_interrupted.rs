//! A clone that does not come to its end: the next start makes one that does, and nothing tells
//! that there was another.

use crate::harness::{Cluster, PATIENCE, docker, trials};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Takes a second to copy, or somewhat less.
const MEGABYTES: u32 = 150;
/// Docker itself takes half a second.
const STOPPED_AT_MOST: Duration = Duration::from_secs(8);

/// What a clone has come to, by what is on the volume.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Bytes in the directory that is being made.
    copied: u64,
    /// Which of the directories beside are there, by the end of their names.
    beside: BTreeSet<String>,
    /// The data directory has all of it.
    in_place: bool,
}

impl Seen {
    fn look(volume: &Path) -> Self {
        let mut seen = Seen::default();
        for major in ["17", "15"].map(|major| volume.join(major)) {
            for entry in fs::read_dir(major).into_iter().flatten().flatten() {
                match entry.file_name().to_string_lossy().split_once('.') {
                    // It is there and empty from early on.
                    None => seen.in_place = entry.path().join("PG_VERSION").exists(),
                    Some((_, end)) => {
                        if end == "clone" {
                            seen.copied = bytes_in(&entry.path());
                        }
                        seen.beside.insert(end.to_owned());
                    }
                }
            }
        }
        seen
    }

    fn is_there(&self, end: &str) -> bool {
        self.beside.contains(end)
    }

    /// All of it is copied, and what follows has begun.
    fn is_complete(&self) -> bool {
        self.is_there("cloned") || self.is_there("moving-in") || self.in_place
    }
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0, // It was there a moment ago.
        })
        .sum()
}

/// Looks a few hundred times a second until `reached`, and returns what was seen last.
fn await_moment(process: Pid, volume: &Path, reached: impl Fn(&Seen) -> bool) -> Seen {
    let process = PathBuf::from(format!("/proc/{process}"));
    let began = Instant::now();
    loop {
        let seen = Seen::look(volume);
        if reached(&seen) {
            return seen;
        }
        assert!(process.exists(), "it ended before the moment came: {seen:?}");
        assert!(began.elapsed() < PATIENCE, "the moment never came: {seen:?}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Whoever sends the copy, frozen: there is time to look, and nothing goes on meanwhile.
struct Held(Pid);

impl Held {
    fn sender_of(master: Pid) -> Self {
        let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let of_master = network(&master.to_string());
        let sends = |pid: &str| {
            let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            title.contains("walsender") && title.contains("sending backup")
        };
        let processes = fs::read_dir("/proc").expect("stories run on Linux").flatten();
        let mut pids = processes.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let pid = pids.find(|pid| sends(pid) && network(pid) == of_master).expect("one sends");
        let pid = Pid::from_raw(pid.parse().expect("a number"));
        let held = Held(pid);
        held.signal(Signal::SIGSTOP);
        held
    }

    /// A few megabytes go on: pg_basebackup tells how far it is when something comes in, once a
    /// second.
    fn let_some_through(&self) {
        self.signal(Signal::SIGCONT);
        std::thread::park_timeout(Duration::from_millis(2));
        self.signal(Signal::SIGSTOP);
    }

    fn signal(&self, signal: Signal) {
        kill(self.0, signal).expect("it lives, and stories run as root");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT); // It may have ended meanwhile.
    }
}

/// A slave whose clone has come so far and does not go on until this is let go of.
fn held_clone(cluster: &Cluster) -> Held {
    let master = cluster.node(1).host_pid();
    let slave = cluster.start(2);
    let volume = slave.data.mountpoint();
    await_moment(slave.host_pid(), &volume, copied_at_least(2));
    let held = Held::sender_of(master);
    let seen = Seen::look(&volume);
    assert!(!seen.is_complete(), "it was too fast: {seen:?}");
    held
}

fn copied_at_least(tenths: u32) -> impl Fn(&Seen) -> bool {
    let bytes = u64::from(MEGABYTES) * 1024 * 1024 / 10 * u64::from(tenths);
    move |seen| seen.copied >= bytes || seen.is_complete()
}

type Moment = (String, Box<dyn Fn(&Seen) -> bool>);

/// Ten tenths, and what comes after.
fn moments() -> Vec<Moment> {
    let tenths: &[u32] = if trials() { &[1, 2, 3, 4, 5, 6, 7, 8, 9] } else { &[3, 8] };
    let mut moments: Vec<Moment> =
        vec![("its first file".to_owned(), Box::new(|seen| seen.copied > 0))];
    for n in tenths {
        moments.push((format!("{n} tenths"), Box::new(copied_at_least(*n))));
    }
    moments.push(("all of it".to_owned(), Box::new(Seen::is_complete)));
    let moves = |seen: &Seen| seen.is_there("moving-in") || seen.in_place;
    moments.push(("it moves in".to_owned(), Box::new(moves)));
    let moved = |seen: &Seen| seen.in_place && !seen.is_there("moving-in");
    moments.push(("it has moved in".to_owned(), Box::new(moved)));
    moments
}

/// One with so much in it, and a slave that was never started.
fn master_alone() -> Cluster {
    let cluster = Cluster::of(2);
    cluster.start(1).await_ready().fill(MEGABYTES);
    cluster
}

/// As if the slave had never been there.
fn forget_the_slave(cluster: &mut Cluster) {
    cluster.kill(2);
    cluster.lose_data(2);
    let master = cluster.node(1);
    let forget = "DELETE FROM repmgr.nodes WHERE node_id = 2";
    master.exec_as("postgres", ["psql", "-XAtq", "-d", "repmgr", "-c", forget]).ok();
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
    master.await_that("its slot can be dropped", || (master.sql(drop).status == 0).then_some(()));
}

#[test]
#[ignore = "needs docker: make test"]
fn a_clone_that_is_killed_is_made_anew_and_nothing_is_left_over() {
    let mut cluster = master_alone();
    for (name, reached) in moments() {
        let slave = cluster.start(2);
        let volume = slave.data.mountpoint();
        let process = slave.host_pid();
        let seen = await_moment(process, &volume, &reached);
        cluster.kill_at_once(2, process);
        println!("killed at {name}: {seen:?}, left {:?}", Seen::look(&volume));

        cluster.start(2);
        cluster.await_following(1, &[2]);
        assert_eq!(cluster.node(2).ask("SELECT count(*) FROM bulk"), (MEGABYTES * 896).to_string());
        forget_the_slave(&mut cluster);
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn a_slaves_first_start_that_is_killed_before_any_step_ends_the_same() {
    let mut cluster = Cluster::of(2);
    cluster.start(1).await_ready();
    let entrypoint = |cluster: &mut Cluster, words: Vec<String>| {
        cluster.recreate(2, |recipe| {
            recipe.entrypoint("pgherd").command(words.iter().map(String::as_str))
        });
        cluster.start(2);
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    entrypoint(&mut cluster, words("plan --json"));
    assert_eq!(cluster.node(2).await_end(), 0);
    let plan = docker(["logs", cluster.node(2).name()]).stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    let stages = plan["stages"].as_array().expect("a plan has stages");
    let all: usize = stages.iter().map(|stage| stage["steps"].as_array().map_or(0, Vec::len)).sum();
    assert!(all > 3, "{plan:#}");

    let stride = if trials() { 1 } else { 3 };
    for step in (1..=all).step_by(stride) {
        entrypoint(&mut cluster, words(&format!("run --hold-at {step} -- postgres")));
        cluster.node(2).await_log(&format!("held before step {step}"));
        cluster.kill(2);
        entrypoint(&mut cluster, words("run -- postgres"));
        cluster.await_following(1, &[2]);
        forget_the_slave(&mut cluster);
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn a_stop_during_a_clone_is_prompt_and_in_order_and_gives_its_slot_back() {
    let cluster = master_alone();
    let held = held_clone(&cluster);
    let began = Instant::now();
    cluster.stop(2); // With status 0.
    let took = began.elapsed();
    assert!(took < STOPPED_AT_MOST, "stopped after {took:?}");
    drop(held);
    assert_eq!(cluster.node(1).ask("SELECT slot_name FROM pg_replication_slots"), "");

    cluster.start(2);
    cluster.await_order(1, &[2]);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_clone_whose_master_is_lost_is_made_anew_when_it_is_back() {
    let cluster = master_alone();
    let slave = cluster.start(2);
    let master = cluster.node(1).host_pid();
    let prober = cluster.probe();
    await_moment(slave.host_pid(), &slave.data.mountpoint(), copied_at_least(2));
    cluster.kill_at_once(1, master);
    cluster.start(1).await_ready();
    // It may wait, or end for a restart policy to start it again.
    if slave.exit_status().is_some() {
        cluster.start(2);
    }
    cluster.await_order(1, &[2]);
    let record = prober.end(&cluster, 1, &[2]);
    assert_eq!(record.writers(), ["node1"].into());
}

#[test]
#[ignore = "needs docker: make test"]
fn a_clone_tells_how_far_it_is_and_is_alive_and_not_ready() {
    let cluster = master_alone();
    let held = held_clone(&cluster);
    let slave = cluster.node(2);
    let shown = slave.await_showing("its state says that it clones", || {
        let json = slave.status_json();
        let rows = json["nodes"].as_array().cloned().unwrap_or_default();
        let ours = rows.into_iter().find(|row| row["name"] == "node2");
        ours.filter(|row| row["state"] == "cloning").ok_or_else(|| format!("{json:#}"))
    });
    let title = "Create pg instance as a clone of master";
    assert_eq!(shown["scenario"]["stage_title"], title, "{shown:#}");
    let (code, body) = slave.http("/replica").expect("an answer");
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("cloning"), "{body}");
    assert_eq!(slave.http("/liveness").map(|(code, _)| code), Some(200));
    assert_eq!(slave.exec(["pgherd", "health", "--ready"]).status, 1);
    // Bytes of bytes, for a person and in what is read by programs.
    let status = slave.await_showing("status tells how far it is", || {
        held.let_some_through();
        let status = slave.status();
        status.lines().any(tells_bytes_of_bytes).then_some(status.clone()).ok_or(status)
    });
    println!("{status}");

    drop(held);
    cluster.await_order(1, &[2]);
    let log = slave.log();
    let told = log.lines().filter(|line| tells_bytes_of_bytes(line)).count();
    assert!((1..100).contains(&told), "progress is told, and not too often: {told} lines\n{log}");
}

fn tells_bytes_of_bytes(line: &str) -> bool {
    line.contains(" of ") && ["MB", "MiB"].iter().any(|unit| line.contains(unit))
}
