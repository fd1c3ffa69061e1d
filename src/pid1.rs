//! The init half: PID 1 of the container.
//!
//! **It starts one child, passes signals on to it, and reaps.** One thread, no
//! runtime, nothing that can block: what is not needed for that is in the other
//! half. Reaping and running children do not mix in one process, as
//! `waitpid(-1)` takes exit statuses away from `tokio::process` (377 of 500 lost
//! in a trial); in two processes each half is simple.
//!
//! There is more to do in two cases. When the lease of the node half has run out (`fence.rs`), Postgres is
//! stopped hard, whatever the node half is doing. And when the node half has ended, what it left
//! behind is ended, and Postgres in order: if PID 1 just went away too, the kernel would
//! kill Postgres in the middle of a write.

mod family;
mod fence;

use crate::system::guard::ForNode;
use crate::system::output::{Format, Stream, Tag, format_line};
use crate::system::priority;
use crate::system::process::{Process, is_proc_ours};
use crate::system::signals::{self, Caught};
use fence::Fence;
use nix::libc::{self, c_int};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpid, setpgid, tcsetpgrp};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long stray processes have to end after SIGTERM once nothing else is left.
const STRAYS_AT_MOST: Duration = Duration::from_secs(2);

/// The one child.
#[derive(Clone, Debug)]
pub enum MainChild {
    /// This program again, with these arguments: the node half. It gets the [`TO_NODE`] signals
    /// only, held back until it can take them.
    Node(Vec<OsString>),
    /// Any program with its arguments, as if it were started without us: same
    /// terminal, signal mask and ignored signals.
    Command(Vec<OsString>),
}

/// What a node understands. Of any other signal it would die or stand still, and Postgres with it.
pub const TO_NODE: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];

impl MainChild {
    fn wants(&self, signal: c_int) -> bool {
        match self {
            MainChild::Node(_) => TO_NODE.iter().any(|&wanted| wanted as c_int == signal),
            MainChild::Command(_) => signal != libc::SIGCHLD,
        }
    }
}

/// How to be init.
#[derive(Clone, Copy, Debug)]
pub struct InitOptions {
    /// Signals go to all processes of the child's group, and SIGTERM to those
    /// left when the child has ended, as with `tini -g` and `dumb-init`.
    pub group: bool,
    /// How long a Postgres that lost its node half may take for a fast
    /// shutdown before it is told to shut down immediately.
    pub stop_timeout: Duration,
    /// How our own few lines are written.
    pub format: Format,
}

/// Runs `main` to its end and returns what to exit with: its status, 128 + n
/// if signal n ended it, 127 if there is no such program, 126 if it cannot be
/// run; never 0 if Postgres had to be stopped here.
pub fn run(main: &MainChild, options: InitOptions) -> u8 {
    let say = |text: &str| say(options.format, text);
    if getpid() != Pid::from_raw(1)
        && let Err(error) = prctl::set_child_subreaper(true)
    {
        say(&format!("orphans will not be reaped: {error}"));
    }
    // All signals are caught before there is a child to miss them.
    let mut at_exec = AtExec::of(main);
    let caught = match Caught::all(&NOT_CAUGHT) {
        Ok(caught) => caught,
        Err(error) => {
            say(&format!("cannot catch signals: {error}"));
            return 1;
        }
    };
    // Else we could be stopped for writing a line.
    signals::set_ignored(libc::SIGTTIN);
    signals::set_ignored(libc::SIGTTOU);

    let mut fence = None;
    if let MainChild::Node(_) = main {
        match Fence::new() {
            Ok((new, for_node)) => (fence, at_exec.guard) = (Some(new), Some(for_node)),
            // It sees that it has no guard, and what it must not do without one.
            Err(error) => say(&format!("cannot watch over the lease: {error}")),
        }
    }
    let child = match start(main, at_exec) {
        Ok(child) => child,
        Err((program, error)) => {
            say(&format!("cannot run {}: {error}", program.display()));
            return if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        }
    };
    let _ = std::env::set_current_dir("/"); // keeps no volume busy
    if fence.is_some() {
        priority::raise();
    }

    let to = if options.group { Pid::from_raw(-child.as_raw()) } else { child };
    let status = loop {
        look(&mut fence, say);
        if let Some(status) = reap(|_| {}, child) {
            break status;
        }
        match caught.take() {
            Some(signal) if main.wants(signal) => {
                let _ = signals::send(to, signal); // ESRCH: it has ended, as `reap` will find
            }
            Some(_) => {}
            None => wait(&caught, &fence, None),
        }
    };
    match main {
        MainChild::Command(_) => {
            if options.group {
                let _ = signals::send(to, libc::SIGTERM); // ESRCH: none left
            }
            exit_code(status)
        }
        MainChild::Node(_) => {
            let had_postgres = end_what_is_left(&caught, &mut fence, status, options);
            if had_postgres && status.success() { 1 } else { exit_code(status) }
        }
    }
}

fn look(fence: &mut Option<Fence>, say: impl Fn(&str)) {
    if let Some(fence) = fence {
        fence.look(say);
    }
}

fn wait(caught: &Caught, fence: &Option<Fence>, deadline: Option<Instant>) {
    let others: Vec<_> = fence.iter().flat_map(Fence::descriptors).collect();
    caught.wait(&others, deadline);
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// All other signals are for the child, but SIGCHLD and what [`TO_NODE`] leaves out. These say that we did
/// something wrong ourselves, or are for processes in the background, which we
/// are once the child has the terminal.
const NOT_CAUGHT: [Signal; 9] = [
    Signal::SIGSEGV,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGBUS,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// How the child's signals are set just before its `exec`.
struct AtExec {
    signals: Vec<c_int>,
    ignored: Vec<c_int>,
    mask: SigSet,
    /// The terminal on standard input, if there is one.
    terminal: Option<OwnedFd>,
    /// What the node half tells us of its lease through.
    guard: Option<ForNode>,
}

impl AtExec {
    /// To be asked before this process changes its own.
    fn of(main: &MainChild) -> Self {
        let signals = signals::all().collect();
        match main {
            MainChild::Node(_) => {
                let mask = SigSet::from_iter(TO_NODE);
                AtExec { signals, ignored: vec![], mask, terminal: None, guard: None }
            }
            MainChild::Command(_) => AtExec {
                // SIGPIPE was ignored by Rust's runtime, not by who started us.
                ignored: signals::all()
                    .filter(|&signal| signal != libc::SIGPIPE && signals::is_ignored(signal))
                    .collect(),
                signals,
                mask: SigSet::thread_get_mask().unwrap_or(SigSet::empty()),
                terminal: Some(io::stdin())
                    .filter(IsTerminal::is_terminal)
                    .and_then(|stdin| stdin.as_fd().try_clone_to_owned().ok()),
                guard: None,
            },
        }
    }

    /// Runs in the child, where nothing may allocate.
    fn apply(&self) -> nix::Result<()> {
        let this = Pid::from_raw(0);
        // Its own group, so that a ^C reaches it once: from the terminal or from us.
        setpgid(this, this)?;
        if let Some(terminal) = &self.terminal {
            // SIGTTOU cannot stop us: the init half ignores it. Fails where the
            // terminal is not ours to give, which is no reason not to run.
            let _ = tcsetpgrp(terminal, getpid());
        }
        if let Some(guard) = &self.guard {
            guard.keep()?;
        }
        for &signal in &self.signals {
            if self.ignored.contains(&signal) {
                signals::set_ignored(signal);
            } else {
                signals::set_default(signal);
            }
        }
        self.mask.thread_set_mask()
    }
}

fn start(main: &MainChild, at_exec: AtExec) -> Result<Pid, (OsString, io::Error)> {
    let (program, args) = match main {
        MainChild::Node(args) => (this_program().into_os_string(), args.as_slice()),
        MainChild::Command(argv) => match argv.split_first() {
            Some((program, args)) => (program.clone(), args),
            None => {
                let error = io::Error::new(io::ErrorKind::NotFound, "no command given");
                return Err((OsString::from("nothing"), error));
            }
        },
    };
    #[expect(clippy::disallowed_methods, reason = "the init half has no runtime")]
    let mut command = Command::new(&program);
    command.args(args);
    before_exec(&mut command, at_exec);
    match command.spawn() {
        Ok(child) => Ok(Pid::from_raw(i32::try_from(child.id()).expect("pids fit"))),
        Err(error) => Err((program, error)),
    }
}

#[expect(unsafe_code, reason = "the only way to do something between fork and exec")]
fn before_exec(command: &mut Command, at_exec: AtExec) {
    // SAFETY: `apply` makes async-signal-safe calls only and does not allocate.
    unsafe { command.pre_exec(move || Ok(at_exec.apply()?)) };
}

/// By its path, which `ps` shows, and if that is gone by the kernel's link.
fn this_program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Reaps all that have ended, as one SIGCHLD may stand for many, and tells
/// `ended` of each. Returns the status of `main` if it is among them.
fn reap(mut ended: impl FnMut(Pid), main: Pid) -> Option<ExitStatus> {
    let mut main_status = None;
    while let Some((pid, status)) = reap_one() {
        ended(pid);
        if pid == main {
            main_status = Some(status);
        }
    }
    main_status
}

#[expect(unsafe_code, reason = "nix's waitpid fails for a child that a real-time signal ended")]
fn reap_one() -> Option<(Pid, ExitStatus)> {
    let mut status = 0;
    // SAFETY: the call writes one integer to `status`.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then(|| (Pid::from_raw(pid), ExitStatus::from_raw(status)))
}

/// Ends all our children: Postgres by a fast shutdown, and at `stop_timeout` or a
/// SIGTERM, SIGINT or SIGQUIT from outside by an immediate one, and by SIGKILL only
/// if a lease runs out meanwhile; others by SIGTERM. Returns when none is left, or none but strays that ignore
/// it; says whether Postgres was among them.
///
/// Who lost a parent is our child before SIGCHLD tells of that parent's end, so
/// none is overlooked.
fn end_what_is_left(
    caught: &Caught,
    fence: &mut Option<Fence>,
    node: ExitStatus,
    options: InitOptions,
) -> bool {
    let say = |text: &str| say(options.format, text);
    let mut stop_postgres = libc::SIGINT;
    let mut stop_deadline = Instant::now().checked_add(options.stop_timeout);
    let mut strays_deadline = None;
    let mut had_postgres = false;
    let mut told = HashMap::new();
    loop {
        look(fence, say);
        reap(|pid| _ = told.remove(&pid), Pid::from_raw(0));
        let left = children();
        for child in &left {
            let signal = if child.is_postgres() { stop_postgres } else { libc::SIGTERM };
            if told.insert(child.pid, signal) != Some(signal) {
                let _ = signals::send(child.pid, signal); // not reaped, so it is there
            }
        }
        let has_postgres = left.iter().any(Process::is_postgres);
        if has_postgres && !had_postgres {
            had_postgres = true;
            say(&format!(
                "the node half has ended ({node}) and left Postgres running: shutting it down \
                 fast; SIGTERM, or {} s, make it an immediate shutdown",
                options.stop_timeout.as_secs()
            ));
        }
        let deadline = if left.is_empty() {
            return had_postgres;
        } else if has_postgres {
            stop_deadline
        } else {
            let deadline = *strays_deadline.get_or_insert(Instant::now() + STRAYS_AT_MOST);
            if Instant::now() >= deadline {
                return had_postgres;
            }
            Some(deadline)
        };
        let signal = caught.take();
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        match signal {
            Some(libc::SIGTERM | libc::SIGINT | libc::SIGQUIT) | None
                if has_postgres && (signal.is_some() || is_over) =>
            {
                if stop_postgres != libc::SIGQUIT {
                    say("shutting Postgres down immediately; it will recover at its next start");
                }
                stop_postgres = libc::SIGQUIT;
                stop_deadline = None;
            }
            None if !is_over => wait(caught, fence, deadline),
            Some(_) | None => {}
        }
    }
}

/// Our living children.
fn children() -> Vec<Process> {
    if !is_proc_ours() {
        return Vec::new();
    }
    let this = getpid();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Process::read(&entry.file_name()))
        .filter(|process| process.parent == this && process.is_alive())
        .collect()
}

/// Writes a line to standard error, unless that is a pipe that nobody empties:
/// a line of at most 4 KiB then does not block after `poll` has said so.
fn say(format: Format, text: &str) {
    let stderr = io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, PollTimeout::ZERO) == Ok(1) {
        let line = format_line(format, &Tag::pgherd(), Stream::Stderr, text.as_bytes(), false);
        let _ = (&stderr).write_all(&line);
    }
}
