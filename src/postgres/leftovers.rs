//! Backends that outlive a killed postmaster.
//!
//! A backend that computes does not notice that its postmaster is gone, keeps the shared memory
//! attached, and a new postmaster refuses to start (`pre-existing shared memory block is still
//! in use`; tried). It may also still write, so nothing is started before all of them are gone.

use crate::system::wait::{self, GaveUp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, setfsgid, setfsuid};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::warn;

/// Most notice by themselves: they wait for the postmaster's pipe as well.
const UNASKED: Duration = Duration::from_secs(1);
/// After SIGQUIT, which a backend answers wherever it is not inside a kernel call.
const ASKED: Duration = Duration::from_secs(4);
/// A process that survives SIGKILL for so long hangs in the kernel, on storage that is gone.
const AT_MOST: Duration = Duration::from_secs(60);

/// Afterwards no process works in `pgdata`. Only ever called while no postmaster of ours runs.
pub async fn ensure_none(pgdata: &Path) -> Result<(), GaveUp> {
    let began = Instant::now();
    let mut said = false;
    wait::until("the processes of the last postgres to end", AT_MOST, || {
        let left = in_directory(pgdata);
        if left.is_empty() {
            return Some(());
        }
        let waited = began.elapsed();
        if waited > UNASKED {
            if !said {
                warn!("{} processes of the last postgres are still there: ending them", left.len());
                said = true;
            }
            let signal = if waited > UNASKED + ASKED { Signal::SIGKILL } else { Signal::SIGQUIT };
            for pid in left {
                let _ = kill(pid, signal); // ESRCH: it has ended by now.
            }
        }
        None
    })
    .await
}

/// Processes called postgres whose working directory is `pgdata`: every one of a server has it.
fn in_directory(pgdata: &Path) -> Vec<Pid> {
    let Ok(pgdata) = fs::canonicalize(pgdata) else { return Vec::new() };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim_end() == "postgres" && working_directory(*pid).is_some_and(|it| it == pgdata)
        })
        .map(Pid::from_raw)
        .collect()
}

/// Asked as the process's owner: a container's root lacks the capability (`CAP_SYS_PTRACE`) to
/// ask it of another user's process. See ptrace(2), "access mode checking".
fn working_directory(pid: i32) -> Option<PathBuf> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let owner = fs::metadata(&process).ok()?;
    // Of this thread alone, and nothing is awaited in between.
    let ours = (setfsgid(Gid::from_raw(owner.gid())), setfsuid(Uid::from_raw(owner.uid())));
    let found = fs::read_link(process.join("cwd"));
    setfsuid(ours.1);
    setfsgid(ours.0);
    found.ok()
}
