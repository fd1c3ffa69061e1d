//! What the init half owes to Postgres when the node half ends.

use crate::cases::{SOON, assert_sleeps, cases};
use crate::container::{As, Container, both, children, directory, first, this_program};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use pgherd::system::signals;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub(crate) const ALL: &[(&str, fn())] = cases![
    the_nodes_status_is_the_containers_if_nothing_is_left,
    a_killed_or_panicked_node_leaves_postgres_to_be_stopped_in_order,
    a_node_that_forgot_postgres_did_not_succeed,
    a_node_gets_the_signals_that_it_understands_once_it_can_take_them,
    a_stubborn_postgres_is_stopped_immediately_at_the_time_limit,
    a_signal_from_outside_makes_the_stop_immediate,
    a_postgres_that_does_not_end_is_waited_for_without_killing_it,
    strays_are_told_to_end_and_not_waited_for_long,
    a_full_standard_error_does_not_keep_postgres_from_being_stopped,
];

/// A container whose node half ends as told once it gets a line, after it has
/// started `services`, such as `postgres:2,3`: the name, and the signals that
/// end it.
fn with_node(way: As, stop_timeout: Duration, end: &str, services: &[&str]) -> Container {
    with_node_saying_to(Stdio::piped(), way, stop_timeout, end, services)
}

fn with_node_saying_to(
    stderr: Stdio,
    way: As,
    stop_timeout: Duration,
    end: &str,
    services: &[&str],
) -> Container {
    let directory = directory(&format!("{end}-{way:?}"));
    let stop_millis = stop_timeout.as_millis().to_string();
    let mut args = vec!["--role=init-of-node".to_owned(), stop_millis, end.to_owned()];
    for service in services {
        let name = service.split(':').next().unwrap();
        let _ = symlink(this_program(), directory.join(name));
        args.push(directory.join(service).into_os_string().into_string().unwrap());
    }
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mut command = first(way, &this_program(), &args);
    command.stderr(stderr);
    let mut container = Container::start(way, command);
    let mut started: Vec<_> = (0..=services.len()).map(|_| container.line()).collect();
    started.sort_unstable();
    let mut expected: Vec<_> = services
        .iter()
        .map(|service| format!("{} started", service.split(':').next().unwrap()))
        .chain(["ready".to_owned()])
        .collect();
    expected.sort_unstable();
    assert_eq!(started, expected);
    fs::remove_dir_all(directory).unwrap();
    container
}

fn the_nodes_status_is_the_containers_if_nothing_is_left() {
    for &way in both() {
        for (end, status) in [("0", 0), ("42", 42), ("killed", 137), ("panics", 101)] {
            let mut container = with_node(way, SOON, end, &[]);
            let started = Instant::now();
            assert_eq!(container.wait(), status);
            assert!(started.elapsed() < Duration::from_secs(2), "there was nothing to wait for");
        }
    }
}

fn a_killed_or_panicked_node_leaves_postgres_to_be_stopped_in_order() {
    for &way in both() {
        for (end, status) in [("killed", 137), ("panics", 101), ("3", 3)] {
            let mut container = with_node(way, SOON, end, &["postgres:2", "repmgrd:15"]);
            container.write("\n");
            let mut lines = [container.line(), container.line()];
            lines.sort_unstable();
            assert_eq!(lines, ["postgres got 2", "repmgrd got 15"]);
            let said = container.stderr();
            assert_eq!(container.end(), (status, String::new()));
            let line = said.lines().find(|line| line.starts_with("pgherd | the node half has"));
            assert!(line.is_some_and(|line| line.contains("left Postgres running")), "{said}");
        }
    }
}

fn a_node_that_forgot_postgres_did_not_succeed() {
    for &way in both() {
        let mut container = with_node(way, SOON, "0", &["postgres:2"]);
        container.write("\n");
        assert_eq!(container.end(), (1, "postgres got 2\n".into()));
    }
}

fn a_node_gets_the_signals_that_it_understands_once_it_can_take_them() {
    for &way in both() {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
            let mut container = with_node(way, SOON, "takes-signals", &[]);
            for other in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGPIPE, libc::SIGALRM, 40] {
                container.signal(other);
            }
            container.signal(signal);
            assert_eq!(container.wait(), 128 + signal);
        }
    }
}

fn a_stubborn_postgres_is_stopped_immediately_at_the_time_limit() {
    for &way in both() {
        let limit = Duration::from_millis(300);
        let mut container = with_node(way, limit, "killed", &["postgres:3"]);
        container.write("\n");
        container.expect("postgres got 2");
        let started = Instant::now();
        container.expect("postgres got 3");
        assert!(started.elapsed() > limit / 2, "{:?}", started.elapsed());
        assert_eq!(container.end().0, 137);
    }
}

fn a_signal_from_outside_makes_the_stop_immediate() {
    for &way in both() {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
            let mut container = with_node(way, SOON, "killed", &["postgres:3"]);
            container.write("\n");
            container.expect("postgres got 2");
            container.signal(libc::SIGHUP); // means nothing now
            container.signal(signal);
            container.expect("postgres got 3");
            assert_eq!(container.end(), (137, String::new()));
        }
    }
}

fn a_postgres_that_does_not_end_is_waited_for_without_killing_it() {
    for &way in both() {
        let limit = Duration::from_millis(100);
        let mut container = with_node(way, limit, "killed", &["postgres:15"]);
        container.write("\n");
        container.expect("postgres got 2");
        container.expect("postgres got 3");
        let init = container.init();
        container.signal(libc::SIGTERM); // once more changes nothing
        assert_sleeps(init);
        signals::send(children(init)[0], libc::SIGTERM).unwrap();
        container.expect("postgres got 15");
        assert_eq!(container.end(), (137, String::new()));
    }
}

fn strays_are_told_to_end_and_not_waited_for_long() {
    for &way in both() {
        let mut container = with_node(way, SOON, "7", &["cron:15"]);
        assert_eq!(container.wait(), 7);
        container.expect("cron got 15");

        let mut container = with_node(way, SOON, "7", &["cron:99"]);
        container.write("\n");
        container.expect("cron got 15");
        let left = children(container.init());
        let started = Instant::now();
        assert_eq!(container.wait(), 7);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        for stray in left {
            let _ = signals::send(stray, libc::SIGKILL); // as PID 1, init took it along
        }
    }
}

/// Our few lines must not keep Postgres from being stopped.
fn a_full_standard_error_does_not_keep_postgres_from_being_stopped() {
    for &way in both() {
        let (unread, stderr) = io::pipe().unwrap();
        let stderr: OwnedFd = stderr.into();
        fcntl(&stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        while nix::unistd::write(&stderr, &[0; 512]).is_ok() {}
        fcntl(&stderr, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let limit = Duration::from_millis(300);
        let mut container =
            with_node_saying_to(stderr.into(), way, limit, "killed", &["postgres:3"]);
        container.write("\n");
        container.expect("postgres got 2");
        container.expect("postgres got 3");
        assert_eq!(container.end().0, 137);
        drop(unread);
    }
}
