//! Backends that outlive a killed postmaster.
//!
//! A backend that computes does not notice that its postmaster is gone, keeps the shared memory
//! attached, and a new postmaster refuses to start (`pre-existing shared memory block is still
//! in use`; tried). It may also still write, so nothing is started before all of them are gone.

use crate::system::process::Process;
use crate::system::wait::{self, GaveUp};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use std::fs;
use std::time::{Duration, Instant};
use tracing::warn;

/// Most notice by themselves: they wait for the postmaster's pipe as well.
const UNASKED: Duration = Duration::from_secs(1);
/// After SIGQUIT, which a backend answers wherever it is not inside a kernel call.
const ASKED: Duration = Duration::from_secs(4);
/// A process that survives SIGKILL for so long hangs in the kernel, on storage that is gone.
const AT_MOST: Duration = Duration::from_secs(60);

/// Afterwards none is left. Only ever called while no postmaster of ours runs.
pub async fn ensure_none() -> Result<(), GaveUp> {
    let began = Instant::now();
    let mut said = false;
    wait::until("the processes of the last postgres to end", AT_MOST, || {
        let left = adopted();
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

/// Processes called postgres that the init half, our parent, has adopted: a backend becomes its
/// child when its postmaster dies, and nothing else of that name does.
fn adopted() -> Vec<Pid> {
    let init = getppid();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| Process::read(&entry.file_name()))
        .filter(|process| process.parent == init && process.is_postgres() && process.is_alive())
        .map(|process| process.pid)
        .collect()
}
