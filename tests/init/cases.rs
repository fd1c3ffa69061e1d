//! The promises of the init half to any command.

use crate::container::{
    As, Container, bash, both, children, first, init_of, kill, run, status, status_number,
    this_program,
};
use nix::libc;
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::Pid;
use pgherd::system::signals;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Pairs each case with its name.
macro_rules! cases {
    ($($case:ident),* $(,)?) => { &[$((stringify!($case), $case as fn())),*] };
}
pub(crate) use cases;

pub(crate) const ALL: &[(&str, fn())] = cases![
    every_exit_status_is_passed_on,
    death_by_a_signal_is_128_and_its_number,
    a_missing_program_is_127_and_one_that_cannot_run_126,
    standard_streams_are_left_alone,
    no_descriptor_of_init_reaches_the_child,
    the_child_works_where_it_was_started_and_init_in_the_root,
    every_signal_is_forwarded,
    a_stop_and_a_continue_keep_their_order,
    real_time_signals_are_forwarded_as_often_as_they_came,
    a_default_action_ends_the_child_and_so_the_container,
    ten_thousand_orphans_are_reaped_in_level_memory,
    a_signal_is_for_the_child_alone,
    with_g_a_signal_is_for_the_whole_group,
    with_g_those_left_are_told_to_end,
    inherited_signals_are_passed_on_as_they_were,
    the_child_is_in_the_foreground_of_its_terminal,
    a_terminal_round_trip_works,
    ctrl_c_reaches_the_child_once,
    idle_it_does_not_wake_up,
];

pub(crate) const SOON: Duration = Duration::from_secs(20);

fn every_exit_status_is_passed_on() {
    for code in 0..=255 {
        assert_eq!(status(run(As::Subreaper, &["--", "sh", "-c", &format!("exit {code}")])), code);
    }
    for code in [0, 1, 42, 255] {
        assert_eq!(status(bash(both()[0], &format!("exit {code}"))), code);
    }
}

fn death_by_a_signal_is_128_and_its_number() {
    for &way in both() {
        for signal in [1, 2, 3, 9, 15, 34, 64] {
            let script = format!("ulimit -c 0; kill -{signal} $$");
            // Not bash, which ignores SIGQUIT.
            let ended = status(run(way, &["--", "sh", "-c", &script]));
            assert_eq!(ended, 128 + signal, "as {way:?}");
        }
    }
}

fn a_missing_program_is_127_and_one_that_cannot_run_126() {
    for &way in both() {
        for (program, code) in [("no-such-program", 127), ("/etc", 126), ("/etc/passwd", 126)] {
            let output = run(way, &["--", program]).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{program}: {text}");
            assert!(text.starts_with(&format!("pgherd | cannot run {program}: ")), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }
}

fn standard_streams_are_left_alone() {
    for &way in both() {
        let mut shell = Container::start(way, run(way, &["--", "sh"]));
        shell.write("echo \"Hello $((6 * 7))\"\nexit 5\n");
        assert_eq!(shell.end(), (5, "Hello 42\n".into()));

        let output = run(way, &["--", "sh", "-c", "echo out; echo err >&2"]).output().unwrap();
        assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
    }
}

fn no_descriptor_of_init_reaches_the_child() {
    for &way in both() {
        let ls = ["ls", "/proc/self/fd"];
        let bare = first(way, ls[0], &ls[1..]).output().unwrap();
        let child = run(way, &["--", ls[0], ls[1]]).output().unwrap();
        assert_eq!(child.stdout, bare.stdout, "{}", String::from_utf8_lossy(&child.stdout));
    }
}

fn the_child_works_where_it_was_started_and_init_in_the_root() {
    for &way in both() {
        let mut command = bash(way, "pwd; read");
        command.current_dir("/usr");
        let mut container = Container::start(way, command);
        container.expect("/usr");
        let cwd = format!("/proc/{}/cwd", container.init());
        until("init is in the root", || fs::read_link(&cwd).unwrap() == *"/");
    }
}

/// A container that prints the signals its child gets.
fn signal_printer(way: As) -> Container {
    let program = this_program();
    let mut container = Container::start(way, run(way, &["--", &program, "--role=print-signals"]));
    container.expect("ready");
    container
}

fn every_signal_is_forwarded() {
    let not_forwarded = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGCHLD,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGSEGV,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGBUS,
        libc::SIGABRT,
        libc::SIGTRAP,
        libc::SIGSYS,
        32,
        33, // glibc's own
    ];
    for &way in both() {
        let mut printer = signal_printer(way);
        for signal in (1..=64).filter(|signal| !not_forwarded.contains(signal)) {
            printer.signal(signal);
            printer.expect(&signal.to_string());
        }
        printer.signal(libc::SIGTTIN);
        printer.signal(libc::SIGTTOU);
        printer.signal(libc::SIGCHLD);
        printer.signal(64); // of those waiting, the kernel gives the lowest first
        printer.expect("64");
    }
}

/// Else the child would stay stopped.
fn a_stop_and_a_continue_keep_their_order() {
    for &way in both() {
        let mut printer = signal_printer(way);
        for _ in 0..200 {
            printer.signal(libc::SIGTSTP);
            printer.signal(libc::SIGCONT);
            // The kernel drops a pending TSTP when a CONT comes.
            let seen = printer.line();
            if seen == libc::SIGTSTP.to_string() {
                printer.expect(&libc::SIGCONT.to_string());
            } else {
                assert_eq!(seen, libc::SIGCONT.to_string());
            }
            printer.signal(libc::SIGUSR1);
            printer.expect(&libc::SIGUSR1.to_string());
        }
    }
}

fn real_time_signals_are_forwarded_as_often_as_they_came() {
    let mut printer = signal_printer(both()[0]);
    for _ in 0..100 {
        printer.signal(40);
    }
    for _ in 0..100 {
        printer.expect("40");
    }
}

fn a_default_action_ends_the_child_and_so_the_container() {
    for &way in both() {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2] {
            let mut container = Container::start(way, bash(way, "echo ready; exec sleep 100"));
            container.expect("ready");
            container.signal(signal);
            assert_eq!(container.end().0, 128 + signal);
        }
    }
}

fn ten_thousand_orphans_are_reaped_in_level_memory() {
    for &way in both() {
        let program = this_program();
        let args = ["--", &*program, "--role=orphans", "10", "1000"];
        let mut container = Container::start(way, run(way, &args));
        container.expect("ready");
        let init = container.init();
        let before = status_number(init, "RssAnon");
        let started = Instant::now();
        container.write("\n");
        container.expect("done");
        let made = started.elapsed();
        // A zombie is a child too.
        until("only the main child is left", || children(init).len() == 1);
        let reaped = started.elapsed();
        let after = status_number(init, "RssAnon");
        println!(
            "  as {way:?}: made in {made:?}, reaped in {reaped:?}, anonymous memory {before} -> {after} kB"
        );
        assert!(after < before + 256, "anonymous memory went from {before} to {after} kB");
        assert_eq!(container.end().0, 0);
    }
}

pub(crate) fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !ready() {
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn a_signal_is_for_the_child_alone() {
    for &way in both() {
        let script = "trap 'kill $! && echo it lived; exit 3' USR1; \
                      bash -c 'echo ready; exec sleep 100' & while :; do wait; done";
        let mut container = Container::start(way, bash(way, script));
        container.expect("ready");
        container.signal(libc::SIGUSR1);
        container.expect("it lived");
        assert_eq!(container.end().0, 3);
    }
}

fn with_g_a_signal_is_for_the_whole_group() {
    for &way in both() {
        // Its child dies of the signal; the shell itself only stops waiting once.
        let script = "trap : USR1; bash -c 'echo ready; exec sleep 100' & \
                      while wait $!; status=$?; kill -0 $!; do :; done 2>&-; exit $status";
        let container = run(way, &["-g", "--", "bash", "-c", script]);
        let mut container = Container::start(way, container);
        container.expect("ready");
        container.signal(libc::SIGUSR1);
        assert_eq!(container.end().0, 128 + libc::SIGUSR1);
    }
}

fn with_g_those_left_are_told_to_end() {
    // As PID 1 takes all with it, only a subreaper shows the difference.
    let script = "(trap 'echo told; exit' TERM; trap 'echo not told; exit' USR1; \
                   echo $BASHPID; while :; do sleep 0.01; done) & read _";
    let mut container =
        Container::start(As::Subreaper, run(As::Subreaper, &["-g", "--", "bash", "-c", script]));
    container.line();
    assert_eq!(container.end(), (1, "told\n".into()));

    let mut container = Container::start(As::Subreaper, bash(As::Subreaper, script));
    let left = Pid::from_raw(container.line().parse().unwrap());
    assert_eq!(container.wait(), 1);
    signals::send(left, libc::SIGUSR1).unwrap();
    container.expect("not told");
}

/// tini's `sigconf-test`.
fn inherited_signals_are_passed_on_as_they_were() {
    let program = this_program();
    let pgherd = env!("CARGO_BIN_EXE_pgherd");
    let cat = ["cat", "/proc/self/status"]; // grep would set SIGSEGV itself
    for &way in both() {
        let seen = |init: &[&str]| {
            let args = [&["--role=signals-set"], init, &cat].concat();
            let output = first(way, &program, &args).output().unwrap();
            let status = String::from_utf8(output.stdout).unwrap();
            ["SigBlk", "SigIgn"].map(|field| {
                let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
                u64::from_str_radix(line[1..].trim(), 16).unwrap()
            })
        };
        let bare = seen(&[]);
        let [blocked, ignored] = bare;
        let set = |signals: &[i32]| signals.iter().map(|signal| 1 << (signal - 1)).sum::<u64>();
        assert_eq!(blocked, set(&[libc::SIGTTIN, libc::SIGILL, libc::SIGTERM]));
        let wanted = set(&[libc::SIGTTOU, libc::SIGSEGV, libc::SIGINT, libc::SIGCHLD]);
        assert_eq!(ignored & wanted, wanted, "{ignored:x}");
        assert_eq!(seen(&[pgherd, "run", "--"]), bare);
    }
}

/// `pgherd run -- command` on a terminal of its own.
struct Terminal {
    keyboard: File,
    screen: BufReader<File>,
    container: std::process::Child,
    way: As,
}

impl Terminal {
    fn start(way: As, command: &[&str]) -> Self {
        let pty = openpty(None, None).unwrap();
        let mut settings = tcgetattr(&pty.slave).unwrap();
        settings.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).unwrap();
        let pgherd = [env!("CARGO_BIN_EXE_pgherd"), "run", "--"];
        let args = [&["--role=on-terminal"], &pgherd[..], command].concat();
        let mut first = first(way, &this_program(), &args);
        let slave = || Stdio::from(pty.slave.try_clone().unwrap());
        let container = first.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        let keyboard = File::from(pty.master.try_clone().unwrap());
        Terminal { keyboard, screen: BufReader::new(pty.master.into()), container, way }
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn expect(&mut self, line: &str) {
        let mut seen = String::new();
        self.screen.read_line(&mut seen).unwrap();
        assert_eq!(seen.trim_end(), line);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        kill(self.way, &mut self.container);
    }
}

fn the_child_is_in_the_foreground_of_its_terminal() {
    for &way in both() {
        let mut terminal = Terminal::start(way, &[&this_program(), "--role=foreground"]);
        terminal.expect("true");
        assert_eq!(terminal.container.wait().unwrap().code(), Some(0));
    }
}

fn a_terminal_round_trip_works() {
    for &way in both() {
        let mut terminal = Terminal::start(way, &["tac"]);
        terminal.type_in("one\ntwo\n\x04");
        terminal.expect("two");
        terminal.expect("one");
        assert_eq!(terminal.container.wait().unwrap().code(), Some(0));
    }
}

fn ctrl_c_reaches_the_child_once() {
    for &way in both() {
        let mut terminal = Terminal::start(way, &[&this_program(), "--role=print-signals"]);
        terminal.expect("ready");
        for _ in 0..20 {
            terminal.type_in("\x03");
            terminal.expect("2");
            signals::send(init_of(way, &terminal.container), libc::SIGUSR1).unwrap();
            terminal.expect("10");
        }
        let mut terminal = Terminal::start(way, &["sh", "-c", "echo ready; exec sleep 100"]);
        terminal.expect("ready");
        terminal.type_in("\x03");
        assert_eq!(terminal.container.wait().unwrap().code(), Some(130));
    }
}

fn idle_it_does_not_wake_up() {
    for &way in both() {
        let mut container = Container::start(way, bash(way, "echo ready; exec sleep 100"));
        container.expect("ready");
        let init = container.init();
        assert_sleeps(init);
        assert_eq!(status_number(init, "Threads"), 1);
    }
}

/// Asserts that `init` comes to rest and stays there.
pub(crate) fn assert_sleeps(init: Pid) {
    until("it waits for signals", || {
        fs::read_to_string(format!("/proc/{init}/wchan")).unwrap().contains("poll")
    });
    let wake_ups = || {
        status_number(init, "voluntary_ctxt_switches")
            + status_number(init, "nonvoluntary_ctxt_switches")
    };
    let before = wake_ups();
    // Nothing is to happen, and for that no condition can be waited for.
    std::thread::park_timeout(Duration::from_secs(1));
    assert_eq!(wake_ups(), before, "it woke up");
}
