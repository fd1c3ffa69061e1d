//! Containers for stories: started, asked, killed and removed through the docker command.
//!
//! What a story makes goes away with the value that stands for it. What a story leaves behind that
//! was itself killed has labels: `pgherd.story=1` for `make clean`, and `pgherd.story.run`, which
//! tells one run's from another's.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stderr,
    reason = "a library of its own, in a test"
)]

mod browser;
mod cluster;
mod container;
mod network;
mod node;
mod prober;
mod volume;
mod voting;

pub use browser::Browser;
pub use cluster::{Cluster, PASSWORDS, password};
pub use container::{Container, Process, Recipe, Server, client, is_postmaster};
pub use network::Network;
pub use node::{Node, await_follows};
pub use prober::Prober;
pub use volume::Volume;
pub use voting::{LEADS_WITHIN, LEASE, TOKEN};

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Long enough for a noisy machine; a story that runs into it has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Which image: `pgherd:17` unless `PGHERD_IMAGE` names another.
#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
pub fn image() -> String {
    std::env::var("PGHERD_IMAGE").unwrap_or_else(|_| "pgherd:17".to_owned())
}

/// A binary to mount over the image's, so that a change can be tried without building an image:
/// `cargo build && PGHERD_BINARY=$PWD/target/debug/pgherd cargo test --test stories -- --ignored`.
#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
fn binary() -> Option<String> {
    std::env::var("PGHERD_BINARY").ok()
}

/// The options of `docker run` that put [`binary`] in its place.
pub fn binary_mount() -> Vec<String> {
    binary().map_or(Vec::new(), |binary| {
        vec!["-v".to_owned(), format!("{binary}:/usr/local/bin/pgherd:ro")]
    })
}

/// `make trials` runs the long stories too.
pub fn trials() -> bool {
    std::env::var_os("PGHERD_TRIALS").is_some_and(|value| !value.is_empty())
}

/// What a command in a container, or docker itself, answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// Its standard output without blanks at the end; panics with everything it said if it failed.
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "failed: {self:#?}");
        self.stdout.trim_end().to_owned()
    }

    /// Both streams, for those who look for something in either.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a program of this machine's to its end.
pub fn run<S: AsRef<std::ffi::OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Answer {
    #[expect(clippy::disallowed_methods, reason = "stories drive this machine")]
    let mut command = Command::new(program);
    answer(command.args(args).stdin(Stdio::null()).output().expect("it can be run"))
}

/// Runs `docker` with these arguments to its end.
pub fn docker<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Answer {
    let output = docker_command(args).output().expect("docker can be run");
    answer(output)
}

fn docker_command<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    #[expect(clippy::disallowed_methods, reason = "stories drive docker")]
    let mut command = Command::new("docker");
    command.args(args).stdin(Stdio::null());
    command
}

fn answer(output: Output) -> Answer {
    Answer {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// This run of the stories: a process id alone comes back.
fn this_run() -> &'static str {
    static RUN: OnceLock<String> = OnceLock::new();
    RUN.get_or_init(|| {
        say_at_once_what_failed();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        format!("{}-{:x}", std::process::id(), now.as_secs())
    })
}

/// The runner keeps what a story said until all have ended; why one failed is a line among those of the others.
fn say_at_once_what_failed() {
    let then = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let line = panic.to_string().replace('\n', " ");
        let line: String = line.chars().take(400).collect();
        // Not eprintln, whose text the runner takes.
        let _ =
            writeln!(std::io::stderr(), "test {} ... {line}", thread.name().unwrap_or("(helper)"));
        then(panic);
    }));
}

/// A name that no other story, nor another run of them, has.
pub fn unique(what: &str) -> String {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("pgherd-story-{}-{number}-{what}", this_run())
}

/// What docker is told about everything that a story makes.
fn labels() -> [String; 4] {
    let run = format!("pgherd.story.run={}", this_run());
    ["--label".to_owned(), "pgherd.story=1".to_owned(), "--label".to_owned(), run]
}

/// Waits until `condition` has an answer; panics when [`PATIENCE`] is at its end.
pub fn await_that<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    await_within(PATIENCE, what, condition)
}

/// The same with another limit.
pub fn await_within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(began.elapsed() < limit, "waited {} s in vain: {what}", limit.as_secs());
        // Each question is a docker command of some 30 ms already; this only spares the machine.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
