//! A process under the init half, as if in a container.

use nix::libc;
use nix::unistd::Pid;
use pgherd::system::signals;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

/// How the init half comes to reap orphans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    Pid1,
    Subreaper,
}

/// Both ways, or what this machine can do of it.
pub(crate) fn both() -> &'static [As] {
    static BOTH: LazyLock<&'static [As]> = LazyLock::new(|| {
        let unshared = command("unshare")
            .args(["--pid", "--fork", "--mount-proc", "true"])
            .stderr(Stdio::null())
            .status();
        if unshared.is_ok_and(|status| status.success()) {
            &[As::Pid1, As::Subreaper]
        } else {
            println!("skipped: as PID 1 (needs root and unshare(1))");
            &[As::Subreaper]
        }
    });
    *BOTH
}

#[expect(clippy::disallowed_methods, reason = "a test starts the program from outside")]
pub(crate) fn command(program: &str) -> Command {
    Command::new(program)
}

/// This program, which can play the part of any other.
pub(crate) fn this_program() -> String {
    std::env::current_exe().unwrap().into_os_string().into_string().unwrap()
}

/// `program` with `args` as the first process of something like a container.
pub(crate) fn first(way: As, program: &str, args: &[&str]) -> Command {
    let mut command = match way {
        As::Pid1 => {
            let mut unshare = command("unshare");
            unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child", program]);
            unshare
        }
        As::Subreaper => command(program),
    };
    command.args(args);
    command
}

/// `pgherd run …`.
pub(crate) fn run(way: As, args: &[&str]) -> Command {
    first(way, env!("CARGO_BIN_EXE_pgherd"), &[&["run"], args].concat())
}

/// `pgherd run -- bash -c script`.
pub(crate) fn bash(way: As, script: &str) -> Command {
    run(way, &["--", "bash", "-c", script])
}

/// How it ended, as a container's exit code.
pub(crate) fn status(mut command: Command) -> i32 {
    code(command.status().unwrap())
}

fn code(status: std::process::ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| panic!("init itself was ended: {status}"))
}

/// A running one. Killed at the end of the test.
pub(crate) struct Container {
    way: As,
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Container {
    pub(crate) fn start(way: As, mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        Container { way, stdin: process.stdin.take(), stdout, process }
    }

    /// The next line that something in it writes.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it ended instead of writing a line; it wrote {line:?}");
        line.trim_end().to_owned()
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn init(&self) -> Pid {
        init_of(self.way, &self.process)
    }

    pub(crate) fn signal(&self, signal: i32) {
        signals::send(self.init(), signal).unwrap();
    }

    /// All that is written to its standard error, which must be a pipe.
    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// The first `count` lines that are written to it; what comes after them is lost.
    pub(crate) fn stderr_lines(&mut self, count: usize) -> Vec<String> {
        let lines = BufReader::new(self.process.stderr.take().unwrap()).lines();
        lines.take(count).map(Result::unwrap).collect()
    }

    /// What it exits with.
    pub(crate) fn wait(&mut self) -> i32 {
        drop(self.stdin.take());
        code(self.process.wait().unwrap())
    }

    /// What it exits with, and the rest of what is written in it.
    pub(crate) fn end(mut self) -> (i32, String) {
        let code = self.wait();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (code, rest)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        kill(self.way, &mut self.process);
    }
}

/// The process id of the init half, once something has been started by it.
pub(crate) fn init_of(way: As, process: &Child) -> Pid {
    let process = Pid::from_raw(process.id() as i32);
    match way {
        As::Subreaper => process,
        As::Pid1 => *children(process).first().expect("unshare has started it"),
    }
}

/// Leaves nothing behind. Killing PID 1 does that by itself.
pub(crate) fn kill(way: As, process: &mut Child) {
    if way == As::Subreaper && process.try_wait().is_ok_and(|status| status.is_none()) {
        for child in children(init_of(way, process)) {
            let _ = signals::send(Pid::from_raw(-child.as_raw()), libc::SIGKILL);
        }
    }
    let _ = process.kill();
    let _ = process.wait();
}

/// The children of `pid`, zombies included.
pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

/// A number of `/proc/PID/status`.
pub(crate) fn status_number(pid: Pid, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// An empty directory of this process's own.
pub(crate) fn directory(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("init-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}
