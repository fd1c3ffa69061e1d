//! Postgres writes as long as the lease says, and not longer.

use crate::cases::{SOON, assert_sleeps, cases, until};
use crate::container::{As, Container, both, children, directory, first, this_program};
use nix::libc;
use nix::unistd::Pid;
use pgherd::system::clock::since_boot;
use pgherd::system::process::{Process, ProcessId};
use pgherd::system::signals;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

pub(crate) const ALL: &[(&str, fn())] = cases![
    a_frozen_node_half_does_not_keep_postgres_writing,
    a_real_postgres_is_stopped_as_well,
    an_extended_deadline_leaves_postgres_alone,
    without_a_deadline_or_a_server_nothing_is_done,
    a_deadline_is_acted_on_once_and_the_next_one_too,
    the_deadline_holds_while_a_node_halfs_leavings_are_shut_down,
    after_a_frozen_container_thaws_the_deadline_comes_first,
    with_a_deadline_ahead_it_sleeps,
    no_child_of_the_node_half_can_speak_for_it,
    being_served_first_is_not_inherited,
];

/// What is left of the lease at the deadline. A quarter of it is for quitting.
const FENCE: Duration = Duration::from_millis(1200);
const TO_QUIT: Duration = Duration::from_millis(300);

/// A container with a leader in it.
struct Leader {
    container: Container,
    postmaster: ProcessId,
    /// Where its programs are.
    directory: PathBuf,
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Sessions of their own: what is left, if a test fails, is left by the container as well.
        for one in self.family() {
            let _ = signals::send(one.pid, libc::SIGKILL);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Leader {
    /// Its postmaster behaves in this `manner`, and its backends each in its own.
    fn start(way: As, manner: &str, backends: &[&str]) -> Self {
        let directory = directory(&format!("leader-{way:?}"));
        let postgres = directory.join("postgres");
        symlink(this_program(), &postgres).unwrap();
        let server = [postgres.to_str().unwrap(), "--role=postmaster", manner];
        let server = [&server, backends].concat();
        Self::start_with(way, &server, directory.clone())
    }

    fn start_with(way: As, server: &[&str], directory: PathBuf) -> Self {
        let args = [&["--role=init-of-leader"], server].concat();
        let mut command = first(way, &this_program(), &args);
        command.stderr(Stdio::piped());
        let mut container = Container::start(way, command);
        container.expect("ready");
        let node = children(container.init())[0];
        let postmaster = process(children(node)[0]).unwrap().id();
        Leader { container, postmaster, directory }
    }

    fn node(&self) -> Pid {
        children(self.container.init())[0]
    }

    fn tell(&mut self, order: &str) -> String {
        self.container.write(&format!("{order}\n"));
        self.container.line()
    }

    /// Returns when that is.
    fn may_write_for(&mut self, time: Duration) -> Duration {
        let nanos = self.tell(&format!("until {} {}", time.as_millis(), FENCE.as_millis()));
        Duration::from_nanos(nanos.parse().unwrap())
    }

    fn is_stopped(&self, pid: Pid) -> bool {
        fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("T (stopped)")
    }

    fn freeze_node(&mut self) {
        assert_eq!(self.tell("freeze"), "ok");
        until("the node half is frozen", || self.is_stopped(self.node()));
    }

    /// The postmaster with all that came from it.
    fn family(&self) -> Vec<ProcessId> {
        let mut family = vec![self.postmaster.pid];
        let mut seen = 0;
        while let Some(&pid) = family.get(seen) {
            let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let list = list.unwrap_or_default(); // It has just ended.
            family.extend(list.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())));
            seen += 1;
        }
        family.into_iter().filter_map(|pid| Some(process(pid)?.id())).collect()
    }
}

fn process(pid: Pid) -> Option<Process> {
    Process::read(&OsString::from(pid.to_string()))
}

fn is_alive(one: &ProcessId) -> bool {
    process(one.pid).is_some_and(|process| process.id() == *one && process.is_alive())
}

/// How long after `deadline` the last of them was gone. Asserts that all lived until then.
fn outlived_by(deadline: Duration, family: &[ProcessId]) -> Duration {
    loop {
        let alive = family.iter().filter(|one| is_alive(one)).count();
        let now = since_boot();
        if alive < family.len() {
            assert!(now >= deadline, "{:?} too early", deadline - now);
        }
        if alive == 0 {
            return now - deadline;
        }
        assert!(now < deadline + SOON, "{alive} of {} live on", family.len());
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[track_caller]
fn assert_unharmed(family: &[ProcessId]) {
    assert!(family.iter().all(is_alive), "some were killed");
}

/// For what must not happen there is nothing to wait for.
fn let_pass(time: Duration) {
    let end = since_boot() + time;
    while let Some(left) = end.checked_sub(since_boot()) {
        std::thread::park_timeout(left);
    }
}

fn a_frozen_node_half_does_not_keep_postgres_writing() {
    let many = ["obeys"; 20];
    for &way in both() {
        for (manner, backends, quits) in [
            ("orderly", &["obeys", "obeys", "obeys"][..], true),
            ("orderly", &many, true),
            ("ignores", &["ignores", "stopped", "ignores-with-a-program"], false),
            ("orderly", &["obeys", "obeys-with-a-program"], false),
            ("stopped", &["obeys", "ignores"], false),
            ("hasty", &["ignores", "stopped", "ignores-with-a-program", "obeys"], false),
        ] {
            let mut leader = Leader::start(way, manner, backends);
            let family = leader.family();
            let deadline = leader.may_write_for(Duration::from_millis(300));
            leader.tell("watch");
            leader.freeze_node();
            let late = outlived_by(deadline, &family);
            println!("  as {way:?}: {manner} with {}: {late:?} after it", backends.len());
            assert!(late < FENCE, "{late:?}");
            assert_eq!(late < TO_QUIT, quits, "{late:?}");
            let lines = leader.container.stderr_lines(2);
            assert!(lines[0].starts_with("pgherd | the lease ran out "), "{lines:?}");
            let pid = if way == As::Pid1 { "" } else { &*leader.postmaster.pid.to_string() };
            assert!(lines[0].contains(&format!(": Postgres (pid {pid}")), "{lines:?}");
            assert!(lines[0].ends_with(" is stopped hard, so that another node may lead"));
            assert!(lines[1].starts_with("pgherd | nothing is left of Postgres "), "{lines:?}");
            signals::send(leader.node(), libc::SIGCONT).unwrap();
            assert_eq!(leader.tell("wait"), "ok");
            leader.container.write("end 4\n");
            assert_eq!(leader.container.wait(), 4);
        }
    }
}

/// Where there is one: of it we know least how long it takes.
fn a_real_postgres_is_stopped_as_well() {
    let found = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let Some(bin) = found.map(|version| version.path().join("bin")).next() else {
        return println!("skipped: no Postgres here");
    };
    let data = directory("real");
    let script = format!(
        "chown postgres {data}; cd {data}; umask 077; export LC_ALL=C; as() {{ setpriv \
         --reuid=postgres --regid=postgres --init-groups \"$@\"; }}; test -d d || as {bin}/initdb -D \
         {data}/d -A trust -N >&2; exec setpriv --reuid=postgres --regid=postgres --init-groups \
         {bin}/postgres -D {data}/d -c listen_addresses= -c unix_socket_directories={data} \
         -c logging_collector=off -c shared_buffers=256MB -c log_destination=stderr 2>&1",
        data = data.display(),
        bin = bin.display()
    );
    if nix::unistd::geteuid().is_root() {
        for &way in both() {
            for frozen in [false, true] {
                let run = directory(&format!("real-{way:?}"));
                let mut leader = Leader::start_with(way, &["bash", "-c", &script], run);
                until("its processes are there", || leader.family().len() >= 6);
                let family = leader.family();
                let deadline = leader.may_write_for(Duration::from_millis(500));
                leader.tell("watch");
                if frozen {
                    for one in &family {
                        signals::send(one.pid, libc::SIGSTOP).unwrap();
                    }
                }
                leader.freeze_node();
                let late = outlived_by(deadline, &family);
                println!(
                    "  as {way:?}: {} processes of Postgres, frozen: {frozen}: {late:?} after it",
                    family.len()
                );
                assert!(late < FENCE, "{late:?}");
            }
        }
    }
    fs::remove_dir_all(data).unwrap();
}

fn an_extended_deadline_leaves_postgres_alone() {
    for &way in both() {
        let mut leader = Leader::start(way, "orderly", &["obeys", "ignores"]);
        let family = leader.family();
        leader.tell("watch");
        for _ in 0..10 {
            leader.may_write_for(Duration::from_millis(600));
            let_pass(Duration::from_millis(150));
        }
        assert_unharmed(&family);
        // The word of one that froze right after it counts as well.
        let deadline = leader.may_write_for(Duration::from_millis(300));
        leader.freeze_node();
        assert!(outlived_by(deadline, &family) < FENCE);
    }
}

fn without_a_deadline_or_a_server_nothing_is_done() {
    let short = Duration::from_millis(100);
    for &way in both() {
        let mut leader = Leader::start(way, "orderly", &["obeys", "ignores"]);
        let family = leader.family();
        leader.tell("watch");
        let_pass(3 * short);
        leader.may_write_for(10 * short);
        leader.tell("lift");
        let_pass(15 * short);
        leader.tell("no-server");
        leader.may_write_for(short);
        let_pass(3 * short);
        assert_unharmed(&family);
        // What is named when the time is over has no time left.
        leader.tell("watch");
        let now = since_boot();
        assert!(outlived_by(now.saturating_sub(short), &family) < FENCE);
    }
}

fn a_deadline_is_acted_on_once_and_the_next_one_too() {
    for &way in both() {
        let mut leader = Leader::start(way, "orderly", &["obeys"]);
        for _ in 0..2 {
            let family = leader.family();
            let deadline = leader.may_write_for(Duration::from_millis(200));
            leader.tell("watch");
            outlived_by(deadline, &family);
            leader.tell("wait");
            leader.tell("start");
            leader.tell("watch");
            leader.postmaster = process(children(leader.node())[0]).unwrap().id();
            let family = leader.family();
            let_pass(TO_QUIT * 2);
            assert_unharmed(&family);
        }
    }
}

fn the_deadline_holds_while_a_node_halfs_leavings_are_shut_down() {
    for &way in both() {
        let mut leader = Leader::start(way, "ignores", &["ignores", "stopped"]);
        let family = leader.family();
        let deadline = leader.may_write_for(Duration::from_millis(700));
        leader.tell("watch");
        signals::send(leader.node(), libc::SIGKILL).unwrap();
        let late = outlived_by(deadline, &family);
        assert!(late < FENCE, "{late:?}");
        assert_eq!(leader.container.wait(), 137);
        let said = leader.container.stderr();
        assert!(said.contains("shutting it down fast"), "{said}");
        assert!(said.contains("the lease ran out "), "{said}");
    }
}

fn after_a_frozen_container_thaws_the_deadline_comes_first() {
    for &way in both() {
        let mut leader = Leader::start(way, "ignores", &["ignores", "ignores"]);
        let init = leader.container.init();
        let family = leader.family();
        let deadline = leader.may_write_for(Duration::from_millis(300));
        leader.tell("watch");
        let all: Vec<Pid> =
            [init, leader.node()].into_iter().chain(family.iter().map(|one| one.pid)).collect();
        all.iter().for_each(|&pid| signals::send(pid, libc::SIGSTOP).unwrap());
        until("all are frozen", || all.iter().all(|&pid| leader.is_stopped(pid)));
        while since_boot() < deadline + FENCE {
            let_pass(FENCE);
        }
        assert_unharmed(&family);
        let thawed = since_boot();
        for &pid in &all {
            let _ = signals::send(pid, libc::SIGCONT); // ESRCH: the first has seen to the others
        }
        let late = outlived_by(thawed, &family);
        println!("  as {way:?}: {late:?} after the thaw");
        // The time to quit is over as well.
        assert!(late < TO_QUIT, "{late:?}");
    }
}

fn with_a_deadline_ahead_it_sleeps() {
    for &way in both() {
        let mut leader = Leader::start(way, "orderly", &["obeys"]);
        let init = leader.container.init();
        assert_sleeps(init);
        leader.tell("watch");
        assert_sleeps(init);
        leader.may_write_for(Duration::from_secs(30));
        assert_sleeps(init);
        leader.tell("no-server");
        leader.may_write_for(Duration::from_millis(300));
        assert_sleeps(init); // though the time comes
        leader.tell("watch");
        until("it is stopped", || !is_alive(&leader.postmaster));
        leader.tell("wait");
        let_pass(TO_QUIT / 4); // to see that nobody is left
        assert_sleeps(init);
        leader.tell("lift");
        assert_sleeps(init);
    }
}

/// Who holds the other end of the pipe could extend the lease, and keep its end from being noticed.
fn no_child_of_the_node_half_can_speak_for_it() {
    for &way in both() {
        let leader = Leader::start(way, "orderly", &["obeys"]);
        let pipes = |pid: Pid| {
            let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            let all = all.filter_map(|fd| fs::read_link(fd.path()).ok());
            all.filter(|link| link.to_string_lossy().starts_with("pipe:")).collect::<Vec<_>>()
        };
        let guard = fs::read_link(format!("/proc/{}/fd/30", leader.node())).unwrap();
        let init = pipes(leader.container.init());
        assert_eq!(init.iter().filter(|one| **one == guard).count(), 1, "its own end");
        for one in leader.family() {
            assert!(!pipes(one.pid).contains(&guard), "{one:?} has it");
        }
    }
}

fn being_served_first_is_not_inherited() {
    let priority = |pid: Pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let rest = stat.rsplit_once(") ").unwrap().1;
        rest.split(' ').nth(15).unwrap().parse::<i32>().unwrap()
    };
    for &way in both() {
        let leader = Leader::start(way, "orderly", &["obeys"]);
        let ours = priority(Pid::this());
        let init = priority(leader.container.init());
        println!("  as {way:?}: {init} instead of {ours}");
        assert!(init <= ours);
        assert_eq!(priority(leader.node()), ours);
        leader.family().iter().for_each(|one| assert_eq!(priority(one.pid), ours));
    }
}
