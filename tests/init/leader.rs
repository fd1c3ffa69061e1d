//! A node half that leads, as far as the init half can tell, and what it leads with.

use crate::container::command;
use nix::libc;
use nix::unistd::{Pid, alarm, pause, setsid};
use pgherd::system::clock::since_boot;
use pgherd::system::guard::Guard;
use pgherd::system::signals::{self, Caught};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

/// If a test fails, what it started goes away after this many seconds.
const LIVES_AT_MOST: u32 = 50;

/// Starts `server`, a program and its arguments, which writes a line when it is up. Then does what it
/// is told, line by line, and confirms each.
pub(crate) fn node(server: &[String]) -> ExitCode {
    alarm::set(LIVES_AT_MOST);
    let guard = Guard::inherited().unwrap();
    assert!(Guard::inherited().is_none(), "it is one");
    let mut postmaster = start(server);
    println!("ready");
    for line in io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let pid = Pid::from_raw(postmaster.id() as i32);
        match words.as_slice() {
            ["until", millis, fence] => {
                let [in_time, fence] =
                    [millis, fence].map(|word| Duration::from_millis(word.parse().unwrap()));
                let until = since_boot() + in_time;
                guard.may_write_until(until, fence).unwrap();
                println!("{}", until.as_nanos());
                continue;
            }
            ["watch"] => guard.watch(pid).unwrap(),
            ["no-server"] => guard.no_server().unwrap(),
            ["lift"] => guard.lift().unwrap(),
            ["freeze"] => {
                println!("ok");
                signals::send(Pid::this(), libc::SIGSTOP).unwrap();
                continue;
            }
            ["wait"] => {
                let _ = postmaster.wait().unwrap();
            }
            ["start"] => postmaster = start(server),
            ["end", status] => return ExitCode::from(status.parse::<u8>().unwrap()),
            _ => panic!("what is {line}?"),
        }
        println!("ok");
    }
    ExitCode::SUCCESS
}

fn start(server: &[String]) -> Child {
    let mut command = command(&server[0]);
    command.args(&server[1..]).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    first_line(&mut child);
    child
}

fn first_line(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "it did not come up");
}

/// Starts a backend for each of `backends`. On SIGQUIT it passes that on and waits for them
/// (`orderly`), or ends at once (`hasty`), or does what [`backend`] does.
pub(crate) fn postmaster(manner: &str, backends: &[String]) -> ExitCode {
    alarm::set(LIVES_AT_MOST);
    let this = std::env::args().next().unwrap(); // The link: it makes the name.
    let start = |kind: &String| {
        let mut command = command(&this);
        let mut child =
            command.args(["--role=backend", kind]).stdout(Stdio::piped()).spawn().unwrap();
        first_line(&mut child);
        child
    };
    let mut backends: Vec<Child> = backends.iter().map(start).collect();
    println!("started");
    if !matches!(manner, "orderly" | "hasty") {
        return behave(manner);
    }
    let caught = Caught::all(&[]).unwrap();
    while caught.next(None) != Some(libc::SIGQUIT) {}
    if manner == "orderly" {
        for backend in &mut backends {
            let _ = signals::send(Pid::from_raw(backend.id() as i32), libc::SIGQUIT);
        }
        backends.iter_mut().for_each(|backend| _ = backend.wait().unwrap());
    }
    ExitCode::SUCCESS
}

/// Leads a session of its own, as Postgres' processes do.
#[expect(clippy::zombie_processes, reason = "nobody waits for what runs under one that is killed")]
pub(crate) fn backend(kind: &str) -> ExitCode {
    alarm::set(LIVES_AT_MOST);
    setsid().unwrap();
    let kind = match kind.split_once("-with-a-program") {
        None => kind,
        Some((kind, _)) => {
            command("sleep").arg("50").stdout(Stdio::null()).spawn().unwrap();
            kind
        }
    };
    println!("started");
    behave(kind)
}

fn behave(kind: &str) -> ExitCode {
    match kind {
        "obeys" => {
            let caught = Caught::all(&[]).unwrap();
            while caught.next(None) != Some(libc::SIGQUIT) {}
        }
        "ignores" => {
            for signal in [libc::SIGQUIT, libc::SIGINT, libc::SIGTERM] {
                signals::set_ignored(signal);
            }
            pause();
        }
        "stopped" => signals::send(Pid::this(), libc::SIGSTOP).unwrap(),
        _ => panic!("no such kind: {kind}"),
    }
    ExitCode::SUCCESS
}
