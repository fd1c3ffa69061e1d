//! Who belongs to a postmaster, seen from outside.

use crate::system::process::{Process, ProcessId};
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};

/// Which of `all` are the postmaster `server` or come from it. `known` are those that were seen to
/// before, itself among them; `init` is who adopts orphans.
///
/// No process group holds them, as each backend leads a session of its own; but that keeps
/// what a backend started (an `archive_command`, `COPY … TO PROGRAM`) recognisable by its session when
/// the backend is gone. An orphan that nobody had seen before is known by its name.
pub(super) fn of(
    server: ProcessId,
    known: &HashSet<ProcessId>,
    all: &[Process],
    init: Pid,
) -> HashSet<ProcessId> {
    let there: HashMap<Pid, ProcessId> = all.iter().map(|one| (one.pid, one.id())).collect();
    let is_root = |process: &&Process| {
        let is_orphan = process.parent == init && process.is_postgres();
        // The number of a leader that is gone is not given again as long as its session lasts.
        let has_lost_leader = !there.contains_key(&process.session)
            && known.iter().any(|one| one.pid == process.session);
        process.id() == server
            || known.contains(&process.id())
            || (is_orphan && process.id().started >= server.started)
            || has_lost_leader
    };
    let mut belonging: HashMap<Pid, Vec<&Process>> = HashMap::new();
    for process in all {
        belonging.entry(process.parent).or_default().push(process);
        belonging.entry(process.session).or_default().push(process);
    }
    let mut found = HashSet::new();
    let mut to_ask: Vec<&Process> = all.iter().filter(is_root).collect();
    while let Some(process) = to_ask.pop() {
        if found.insert(process.id()) {
            to_ask.extend(belonging.get(&process.pid).into_iter().flatten());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const INIT: i32 = 1;
    const NODE: i32 = 7;

    fn pids(found: &HashSet<ProcessId>) -> Vec<i32> {
        let mut pids: Vec<_> = found.iter().map(|one| one.pid.as_raw()).collect();
        pids.sort_unstable();
        pids
    }

    /// PID, parent, session, start, name.
    fn table(rows: &[(i32, i32, i32, u64, &str)]) -> Vec<Process> {
        rows.iter().map(|row| Process::fake(row.0, row.1, row.2, row.3, row.4)).collect()
    }

    #[test]
    fn a_family_is_found_whole_and_nobody_else() {
        let server = ProcessId { pid: Pid::from_raw(57), started: 100 };
        let before = table(&[
            (INIT, 0, 0, 1, "pgherd"),
            (NODE, INIT, 0, 2, "pgherd"),
            (20, NODE, 20, 50, "repmgrd"),
            (57, NODE, 0, 100, "postgres"),
            (60, 57, 60, 101, "postgres"),
            (61, 60, 60, 150, "bash"),
            (62, 61, 62, 151, "curl"),
            (70, INIT, 70, 140, "psql"),    // of a `docker exec`
            (71, INIT, 71, 90, "postgres"), // was there before
        ]);
        let known = of(server, &HashSet::new(), &before, Pid::from_raw(INIT));
        assert_eq!(pids(&known), [57, 60, 61, 62]);

        let after = table(&[
            (NODE, INIT, 0, 2, "pgherd"),
            (20, NODE, 20, 50, "repmgrd"),
            (57, NODE, 57, 200, "postgres"), // another with its number
            (62, INIT, 62, 151, "curl"),
            (63, INIT, 60, 152, "cp"), // not seen before; who led its session is gone
            (64, INIT, 64, 153, "postgres"), // not seen before, and an orphan
            (70, INIT, 70, 140, "psql"),
            (80, 57, 80, 201, "postgres"), // the other one's
        ]);
        let left = of(server, &known, &after, Pid::from_raw(INIT));
        assert_eq!(pids(&left), [62, 63, 64]);
    }
}
