//! The kernel's table of processes.

use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;

/// A process as `/proc/PID/stat` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number in our namespace.
    pub pid: Pid,
    /// The number of whoever started or adopted it.
    pub parent: Pid,
    name: String,
    state: char,
}

impl Process {
    /// The process with this number, given as a name in `/proc`. See proc_pid_stat(5):
    /// `pid (name) state ppid …`, and the name may contain anything.
    pub fn read(pid: &OsStr) -> Option<Process> {
        let pid: i32 = pid.to_str()?.parse().ok()?;
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        let (state, rest) = rest.split_once(' ')?;
        let parent: i32 = rest.split(' ').next()?.parse().ok()?;
        Some(Process {
            pid: Pid::from_raw(pid),
            parent: Pid::from_raw(parent),
            name: name.to_owned(),
            state: state.chars().next()?,
        })
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
