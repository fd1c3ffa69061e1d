//! What the kernel says of processes in containers, read from the host.

use std::fs;
use std::time::{Duration, Instant};

/// KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Pages shared with others count in part.
    pub(crate) pss: u64,
    pub(crate) rss: u64,
}

/// `root` and, below it, every process of the same name: for pgherd, both halves.
pub(crate) fn halves(root: u32) -> Vec<u32> {
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let children = fs::read_to_string(format!("/proc/{root}/task/{root}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    std::iter::once(root).chain(children.filter(|pid| name(*pid) == name(root))).collect()
}

/// Of all these together.
pub(crate) fn memory(pids: &[u32]) -> Memory {
    let mut all = Memory::default();
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
        let text = text.expect("the bench runs as root, and the process is there");
        let field = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
        };
        all.pss += field("Pss:");
        all.rss += field("Rss:");
    }
    all
}

/// CPU time used so far, in ms. The scheduler counts nanoseconds for each thread that lives; the
/// process' own count has 10 ms steps and those that ended. The truth is the larger one.
pub(crate) fn cpu_ms(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| threads_ms(*pid).max(process_ms(*pid))).sum()
}

fn threads_ms(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e6
}

fn process_ms(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name in parentheses; user and system time are fields 14 and 15 of proc(5).
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    (ticks(12).unwrap_or_default() + ticks(13).unwrap_or_default()) * 10.0
}

/// Waits until the processes have used no CPU to speak of for a second.
pub(crate) fn settle(pids: &[u32]) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        let before = cpu_ms(pids);
        std::thread::park_timeout(Duration::from_secs(1));
        if cpu_ms(pids) - before < 5.0 {
            return;
        }
    }
}
