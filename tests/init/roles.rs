//! The programs that the init half is tried on.

use crate::container::{children, command};
use crate::leader;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid, fork, getpgrp, getppid, pause, setsid, tcgetpgrp};
use pgherd::pid1::{self, InitOptions, MainChild};
use pgherd::system::guard::Guard;
use pgherd::system::output::Format;
use pgherd::system::signals::{self, Caught};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

pub(crate) fn play(role: &str, args: &[String]) -> ExitCode {
    match (role, args) {
        ("print-signals", []) => print_signals(),
        ("signals-set", command) => signals_set(command),
        ("on-terminal", command) => on_terminal(command),
        ("foreground", []) => {
            println!("{}", tcgetpgrp(io::stdin()).unwrap() == getpgrp());
            ExitCode::SUCCESS
        }
        ("orphans", [waves, each]) => orphans(waves.parse().unwrap(), each.parse().unwrap()),
        ("init-of-node", [stop_millis, node @ ..]) => {
            init_of_node("node", stop_millis.parse().unwrap(), node)
        }
        ("init-of-leader", server) => init_of_node("leader", 20_000, server),
        ("leader", server) => leader::node(server),
        ("postmaster", [manner, backends @ ..]) => leader::postmaster(manner, backends),
        ("backend", [kind]) => leader::backend(kind),
        ("node", [end, children @ ..]) => node(end, children),
        ("service", [name, end_on @ ..]) => service(name, end_on),
        _ => panic!("no such role: {role} {args:?}"),
    }
}

/// Prints each signal it gets; ends when killed.
fn print_signals() -> ExitCode {
    let caught = Caught::all(&[]).unwrap();
    println!("ready");
    loop {
        println!("{}", caught.next(None).unwrap());
    }
}

/// Ignores and blocks some signals, then becomes `args`.
fn signals_set(args: &[String]) -> ExitCode {
    for signal in [libc::SIGTTOU, libc::SIGSEGV, libc::SIGINT, libc::SIGCHLD] {
        signals::set_ignored(signal);
    }
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGTTIN, Signal::SIGILL, Signal::SIGTERM] {
        blocked.add(signal);
    }
    blocked.thread_set_mask().unwrap();
    become_command(args)
}

/// Makes standard input the terminal of a new session, then becomes `args`.
#[expect(unsafe_code, reason = "there is no safe TIOCSCTTY")]
fn on_terminal(args: &[String]) -> ExitCode {
    setsid().unwrap();
    // SAFETY: this request takes an integer and touches no memory.
    assert_eq!(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }, 0);
    become_command(args)
}

fn become_command(args: &[String]) -> ExitCode {
    panic!("{}", command(&args[0]).args(&args[1..]).exec())
}

/// Leaves `each` orphans that end at the same moment, `waves` times, and says
/// so; then waits for the end of its input.
#[expect(unsafe_code, reason = "fork, ten thousand times")]
fn orphans(waves: usize, each: usize) -> ExitCode {
    println!("ready");
    io::stdin().read_exact(&mut [0]).unwrap();
    for _ in 0..waves {
        let (mut hold, release) = io::pipe().unwrap();
        // SAFETY: this program has one thread.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => {
                nix::sys::wait::waitpid(child, None).unwrap();
                assert!(children(getppid()).len() > each, "init has not got them all");
                drop(release);
            }
            ForkResult::Child => {
                drop(release);
                for _ in 0..each {
                    // SAFETY: as above.
                    if unsafe { fork() }.unwrap().is_child() {
                        let _ = hold.read(&mut [0]);
                        break;
                    }
                }
                // SAFETY: it ends without running anything of this program.
                unsafe { libc::_exit(0) };
            }
        }
    }
    println!("done");
    let _ = io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

/// The init half with a node half of ours.
fn init_of_node(role: &str, stop_millis: u64, node: &[String]) -> ExitCode {
    let role = format!("--role={role}").into();
    let args = [role].into_iter().chain(node.iter().map(Into::into)).collect();
    let stop_timeout = Duration::from_millis(stop_millis);
    let options = InitOptions { group: false, stop_timeout, format: Format::Text };
    ExitCode::from(pid1::run(&MainChild::Node(args), options))
}

/// A node half that starts services, each `DIRECTORY/NAME:SIGNAL,SIGNAL`, waits
/// for a line, and ends.
#[expect(clippy::zombie_processes, reason = "it leaves them to the init half: that is its part")]
fn node(end: &str, services: &[String]) -> ExitCode {
    let _guard = Guard::inherited(); // Else the services would have it.
    for service in services {
        let (program, end_on) = service.split_once(':').unwrap();
        let name = program.rsplit('/').next().unwrap();
        let mut command = command(program);
        command.args(["--role=service", name]).args(end_on.split(',')).process_group(0);
        command.stdin(Stdio::null()).spawn().unwrap();
    }
    println!("ready");
    let _ = io::stdin().read(&mut [0]);
    match end {
        "killed" => {
            signals::send(Pid::this(), libc::SIGKILL).unwrap();
            unreachable!()
        }
        "panics" => panic!("as the test wants it"),
        "takes-signals" => {
            SigSet::empty().thread_set_mask().unwrap();
            pause();
            unreachable!("one of them ends it")
        }
        status => ExitCode::from(status.parse::<u8>().unwrap()),
    }
}

/// Prints the signals it gets and ends on those of `end_on`.
fn service(name: &str, end_on: &[String]) -> ExitCode {
    let caught = Caught::all(&[]).unwrap();
    println!("{name} started");
    loop {
        let signal = caught.next(None).unwrap();
        println!("{name} got {signal}");
        if end_on.contains(&signal.to_string()) {
            return ExitCode::SUCCESS;
        }
    }
}
