//! The kernel's table of processes.

use nix::errno::Errno;
use nix::unistd::{Pid, getpid};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

/// A process as `/proc/PID/stat` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number in our namespace.
    pub pid: Pid,
    /// The number of whoever started or adopted it.
    pub parent: Pid,
    /// The number of the leader of its session, which keeps that number as long as the session lasts.
    pub session: Pid,
    started: u64,
    name: String,
    state: char,
}

/// One process and no later one: numbers are given again, but not with the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Its number in our namespace.
    pub pid: Pid,
    /// When it was started, in clock ticks (10 ms) since boot.
    pub started: u64,
}

impl Process {
    /// The process with this number, given as a name in `/proc`.
    pub fn read(pid: &OsStr) -> Option<Process> {
        Self::look_up(pid).ok().flatten()
    }

    /// All processes of our namespace, zombies included. Fails if not all of them can
    /// be seen.
    pub fn all() -> io::Result<Vec<Process>> {
        if !is_proc_ours() {
            return Err(io::Error::other("/proc belongs to another namespace"));
        }
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            all.extend(Self::look_up(&entry?.file_name())?);
        }
        Ok(all)
    }

    /// `None` if there is none with this number, or none that we may know of.
    fn look_up(pid: &OsStr) -> io::Result<Option<Process>> {
        let Some(pid) = pid.to_str().and_then(|pid| pid.parse().ok()) else {
            return Ok(None);
        };
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => Ok(Self::parse(Pid::from_raw(pid), &String::from_utf8_lossy(&stat))),
            Err(error) => {
                let none = [Errno::ENOENT, Errno::ESRCH, Errno::EACCES, Errno::EPERM];
                let is_none = none.iter().any(|&one| error.raw_os_error() == Some(one as i32));
                if is_none { Ok(None) } else { Err(error) }
            }
        }
    }

    /// See proc_pid_stat(5): `pid (name) state ppid pgrp session …`, the 22nd is the time of its
    /// start, and the name may contain anything.
    fn parse(pid: Pid, stat: &str) -> Option<Process> {
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect(); // Begins with the third.
        let number = |nth: usize| fields.get(nth - 3)?.parse().ok().map(Pid::from_raw);
        Some(Process {
            pid,
            parent: number(4)?,
            session: number(6)?,
            started: fields.get(22 - 3)?.parse().ok()?,
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
        })
    }

    /// Which one it is.
    pub fn id(&self) -> ProcessId {
        ProcessId { pid: self.pid, started: self.started }
    }

    /// It is no zombie.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// A postmaster or a backend: from the outside they look the same.
    pub fn is_postgres(&self) -> bool {
        matches!(self.name.as_str(), "postgres" | "postmaster")
    }
}

/// A `/proc` of another namespace would name other processes.
pub fn is_proc_ours() -> bool {
    fs::read_link("/proc/self").is_ok_and(|link| link == Path::new(&getpid().to_string()))
}

#[cfg(test)]
impl Process {
    /// As `/proc` would show it.
    pub(crate) fn fake(pid: i32, parent: i32, session: i32, started: u64, name: &str) -> Process {
        let rest = "-1 0 0 0 0 0 0 0 0 0 20 0 1 0";
        let stat = format!("{pid} ({name}) S {parent} {pid} {session} 0 {rest} {started} 1 2");
        Self::parse(Pid::from_raw(pid), &stat).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_from_its_line_whatever_its_name() {
        let stat = "57 (a) S 1 (b) T 1 57 56 0 -1 4194560 2 0 0 0 1 2 3 4 20 0 1 0 4711 8 9";
        let process = Process::parse(Pid::from_raw(57), stat).unwrap();
        assert_eq!((process.parent, process.session), (Pid::from_raw(1), Pid::from_raw(56)));
        assert_eq!(process.id(), ProcessId { pid: Pid::from_raw(57), started: 4711 });
        assert_eq!((&*process.name, process.state), ("a) S 1 (b", 'T'));
        assert!(Process::all().unwrap().iter().any(|one| one.pid == getpid()));
    }
}
