//! What every child is promised.

use super::*;
use crate::system::output::Format;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use tokio::io::AsyncBufReadExt;
use tokio::net::unix::pipe::Receiver;

const SOON: Duration = Duration::from_secs(10);

/// Tests may use a shell: it is what is tested that may not.
fn shell(script: &str) -> Program {
    Program::new("bash").args(["-c", script])
}

fn someone() -> Account {
    Account {
        name: Some("someone".into()),
        uid: Uid::from_raw(12345),
        gid: Gid::from_raw(23456),
        groups: [23456, 103, 104].map(Gid::from_raw).into(),
        home: "/home/of/someone".into(),
    }
}

fn root() -> bool {
    let root = unistd::geteuid().is_root();
    if !root {
        println!("skipped: only root can become someone else");
    }
    root
}

type Lines = tokio::io::Lines<tokio::io::BufReader<Receiver>>;

fn lines(read: io::PipeReader) -> Lines {
    tokio::io::BufReader::new(Receiver::from_owned_fd(read.into()).unwrap()).lines()
}

/// Output to a pipe, and what arrives there.
fn output() -> (OutputHandle, Lines) {
    let (read, out) = io::pipe().unwrap();
    let err = out.try_clone().unwrap();
    (OutputHandle::new(Format::Text, out.into(), err.into()).unwrap(), lines(read))
}

/// The next line; `None` when all writers are gone.
async fn next(lines: &mut Lines) -> Option<String> {
    timeout(SOON, lines.next_line()).await.expect("something arrives soon").unwrap()
}

/// The fields of the child's own `/proc/self/status`.
async fn status_of(program: impl FnOnce(Program) -> Program) -> impl Fn(&str) -> String {
    let cat = program(Program::new("cat").arg("/proc/self/status"));
    let status = cat.output(SOON).await.unwrap().text();
    move |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[tokio::test]
async fn a_tools_output_is_returned() {
    let output = shell("echo out; echo err >&2").output(SOON).await.unwrap();
    assert_eq!((output.text(), output.stderr), ("out\n".into(), b"err\n".into()));
}

#[tokio::test]
async fn the_input_is_read_and_then_ends() {
    let input = vec![b'x'; 300_000];
    let output = Program::new("cat").stdin(input.clone()).output(SOON).await.unwrap();
    assert_eq!(output.stdout, input);
    assert_eq!(Program::new("cat").output(SOON).await.unwrap().stdout, b"");
    // One that does not want it all is none the worse for it.
    Program::new("true").stdin(input).output(SOON).await.unwrap();
}

#[tokio::test]
async fn a_failure_says_what_the_tool_said_last() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11; do echo line $i >&2; done; exit 3";
    let error = shell(script).output(SOON).await.unwrap_err();
    let text = error.to_string();
    let ProgramError::Failed { status, last_words, .. } = error else { panic!("{text}") };
    assert_eq!(status.code(), Some(3));
    assert_eq!((last_words.len(), &*last_words[0]), (LAST_WORDS_LINES_MAX, "line 2"));
    assert!(text.starts_with("`bash` ended with exit status: 3: line 2; line 3"), "{text}");

    let error = shell("echo on stdout; kill -9 $$").output(SOON).await.unwrap_err();
    assert_eq!(error.to_string(), "`bash` ended with signal: 9 (SIGKILL): on stdout");
}

#[tokio::test]
async fn an_exit_status_may_be_an_answer() {
    let output = shell("echo no; exit 2").outcome(SOON).await.unwrap();
    assert_eq!((output.status.code(), output.text()), (Some(2), "no\n".into()));
}

#[tokio::test]
async fn the_ways_not_to_start_are_told_apart() {
    let kind = async |program: Program| match program.output(SOON).await {
        Err(ProgramError::Start { source, .. }) => (source.kind(), source.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(Program::new("no-such-program")).await.0, io::ErrorKind::NotFound);
    assert_eq!(kind(Program::new("/etc/passwd")).await.0, io::ErrorKind::PermissionDenied);
    let (other, text) = kind(Program::new("true").current_dir("/no/such/dir")).await;
    assert_eq!(other, io::ErrorKind::Other);
    assert!(text.contains("/no/such/dir"), "{text}");
}

#[tokio::test]
async fn the_time_limit_ends_the_whole_group() {
    // Its child ignores SIGTERM and tells by the pipe's end that it is gone.
    let (read, write) = io::pipe().unwrap();
    let fd = write.as_raw_fd();
    let script = format!(
        "(trap '' TERM; echo started >&{fd}; exec >&- 2>&-; while :; do sleep 100; done) & 
         echo so far >&2; wait"
    );
    let at_most = Duration::from_millis(500);
    let error = shell(&script).keep_fd(write.into()).output(at_most).await.unwrap_err();
    assert_eq!(error.to_string(), "`bash` was still running after 0.5 s and was stopped: so far");
    let mut lines = lines(read);
    assert_eq!(next(&mut lines).await.unwrap(), "started");
    assert_eq!(next(&mut lines).await, None, "its child is gone");
}

#[tokio::test]
async fn who_loses_interest_leaves_no_process_behind() {
    let (read, write) = io::pipe().unwrap();
    let mut lines = lines(read);
    let fd = write.as_raw_fd();
    let script = format!("sleep 100 & echo >&{fd}; wait");
    let tool = shell(&script).keep_fd(write.into()).output(SOON);
    tokio::select! {
        _ = tool => panic!("it ends with its sleep"),
        line = next(&mut lines) => assert!(line.is_some()),
    }
    assert_eq!(next(&mut lines).await, None, "both sleeps are killed");
}

#[tokio::test]
async fn memory_is_bounded_whatever_a_tool_writes() {
    let error = shell("head -c 3000000 /dev/zero").output(SOON).await.unwrap_err();
    assert!(matches!(error, ProgramError::TooMuchOutput { .. }), "{error}");

    let script = "head -c 3000000 /dev/zero >&2; echo the end >&2";
    let output = shell(script).output(SOON).await.unwrap();
    assert_eq!(output.stderr.len(), CAPTURED_BYTES_MAX);
    assert!(output.stderr.ends_with(b"the end\n"));
}

#[tokio::test]
async fn a_daemon_that_keeps_the_pipe_does_not_keep_the_caller() {
    // As `pg_ctl start` leaves a server that holds its standard error.
    let (read, write) = io::pipe().unwrap();
    let fd = write.as_raw_fd();
    let script = format!("(read _ <&{fd}) & echo done");
    let output = shell(&script).keep_fd(read.into()).output(SOON).await.unwrap();
    assert_eq!(output.text(), "done\n");
    drop(write);
}

#[tokio::test]
async fn signals_are_as_at_the_beginning_of_the_world() {
    let blocked = SigSet::all();
    blocked.thread_block().unwrap();
    signals::set_ignored(libc::SIGHUP);
    let status = status_of(|program| program).await;
    blocked.thread_unblock().unwrap();
    signals::set_default(libc::SIGHUP);
    for field in ["SigBlk", "SigIgn"] {
        let signals = u64::from_str_radix(&status(field), 16).unwrap();
        // 32 and 33 are glibc's own; cargo leaves 32 ignored in its children.
        assert_eq!(signals & !(0b11 << 31), 0, "{field}");
    }
}

#[tokio::test]
async fn a_child_becomes_its_account_with_all_its_groups() {
    if !root() {
        return;
    }
    let status = status_of(|program| program.account(&someone())).await;
    assert_eq!(status("Uid"), "12345 12345 12345 12345");
    assert_eq!(status("Gid"), "23456 23456 23456 23456");
    assert_eq!(status("Groups"), "103 104 23456");
    assert_eq!(status("CapEff"), "0000000000000000");

    let script = "echo $HOME $USER $LOGNAME";
    let output = shell(script).account(&someone()).output(SOON).await.unwrap();
    assert_eq!(output.text(), "/home/of/someone someone someone\n");
}

#[tokio::test]
async fn the_account_we_are_already_changes_no_id() {
    let before = fs::read_to_string("/proc/self/status").unwrap();
    let status = status_of(|program| program.account(&Account::current())).await;
    for field in ["Uid", "Gid", "Groups"] {
        let line = before.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        let ours = line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(status(field), ours);
    }
}

#[tokio::test]
async fn surroundings_are_as_asked_for() {
    let umask = status_of(|program| program.umask(0o077)).await;
    assert_eq!(umask("Umask"), "0077");

    let output = shell("pwd; echo $X").current_dir("/usr").env("X", "1").output(SOON);
    assert_eq!(output.await.unwrap().text(), "/usr\n1\n");

    let script = "read _ _ _ _ pgrp _ </proc/$$/stat; test $pgrp = $$";
    shell(script).output(SOON).await.expect("it leads a group of its own");
}

#[tokio::test]
async fn the_oom_score_is_raised_and_never_lowered() {
    let score = async |at_least| {
        let cat = Program::new("cat").arg("/proc/self/oom_score_adj").oom_score_adj(at_least);
        cat.output(SOON).await.unwrap().text().trim().parse::<i32>().unwrap()
    };
    let ours: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    assert_eq!(score(1000).await, 1000);
    assert_eq!(score(-1000).await, ours);
    if root() {
        let cat = Program::new("cat").arg("/proc/self/oom_score_adj").oom_score_adj(900);
        assert_eq!(cat.account(&someone()).output(SOON).await.unwrap().text(), "900\n");
    }
}

#[tokio::test]
async fn a_service_is_tagged_waited_for_and_signalled() {
    let (output, mut lines) = output();
    let script = "trap 'echo got it >&2; exit 5' USR1; echo ready; while :; do sleep 0.01; done";
    let service = shell(script).start("svc".into(), &output).unwrap();
    assert_eq!(next(&mut lines).await.unwrap(), "svc | ready");
    assert_eq!(service.exited(), None);
    let (waiting, signalling) = (service.clone(), service.clone());
    let (status, ()) = tokio::join!(waiting.wait(), async {
        signalling.signal(Signal::SIGUSR1).unwrap();
    });
    assert_eq!((status.code(), service.exited()), (Some(5), Some(status)));
    assert_eq!(next(&mut lines).await.unwrap(), "svc | got it");
    assert_eq!(service.last_words(), ["got it"]);
    let gone = service.signal(Signal::SIGKILL).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(Errno::ESRCH as i32));
}

#[tokio::test]
async fn a_service_is_never_blocked_by_who_reads_our_output() {
    let (output, mut unread) = output();
    let script = "echo first; yes 'a line of some length' | head -c 5000000; echo done >&2";
    let service = shell(script).start("postgres".into(), &output).unwrap();
    let status = timeout(SOON, service.wait()).await.expect("nothing holds it up");
    assert!(status.success());
    assert_eq!(service.last_words(), ["done"]);
    assert_eq!(next(&mut unread).await.unwrap(), "postgres | first");
}

#[tokio::test]
async fn a_service_outlives_our_interest_in_it() {
    let (output, mut lines) = output();
    let (read, write) = io::pipe().unwrap();
    let fd = read.as_raw_fd();
    let script = format!("read _ <&{fd}; echo still here");
    drop(shell(&script).keep_fd(read.into()).start("svc".into(), &output).unwrap());
    drop(write);
    assert_eq!(next(&mut lines).await.unwrap(), "svc | still here");
}

#[tokio::test]
async fn a_signal_to_the_group_reaches_all_of_it() {
    let (output, mut lines) = output();
    let script = "sleep 100 & echo ready; wait; sleep 100";
    let service = shell(script).start("svc".into(), &output).unwrap();
    assert_eq!(next(&mut lines).await.unwrap(), "svc | ready");
    service.signal_group(Signal::SIGTERM).unwrap();
    assert_eq!(service.wait().await.signal(), Some(15));
}

#[tokio::test]
async fn a_tool_can_be_watched() {
    let (output, mut lines) = output();
    shell("echo one").run("tool".into(), &output, SOON).await.unwrap();
    assert_eq!(next(&mut lines).await.unwrap(), "tool | one");
    let error = shell("echo why >&2; exit 1").run("tool".into(), &output, SOON).await;
    assert_eq!(error.unwrap_err().to_string(), "`bash` ended with exit status: 1: why");
    assert_eq!(next(&mut lines).await.unwrap(), "tool | why");
}

/// Finding 1 of the notes: none of the statuses is lost.
#[tokio::test]
async fn each_of_many_children_tells_its_own_status() {
    let (output, _lines) = output();
    let start = |code: i32| shell(&format!("exit {code}")).start("svc".into(), &output);
    let services: Vec<_> = (0..100).map(|code| start(code).unwrap()).collect();
    for (code, service) in (0..).zip(services) {
        assert_eq!(service.wait().await.code(), Some(code));
    }
}

#[test]
fn a_program_shows_neither_environment_nor_input() {
    let program = Program::new("psql").env("PGPASSWORD", "secret").stdin("secret");
    assert_eq!(format!("{program:?}"), "Program(\"psql\")");
}

#[tokio::test]
async fn lines_that_somebody_takes_are_not_passed_on() {
    let (output, mut lines) = output();
    let taken = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let takes = {
        let taken = std::sync::Arc::clone(&taken);
        move |line: &[u8]| {
            let is_ours = line.starts_with(b"50%");
            if is_ours {
                taken.lock().unwrap().push(line.to_vec());
            }
            is_ours
        }
    };
    let script = "echo begins >&2; echo 50% >&2; echo 50% on stdout; exit 1";
    let error = shell(script).run_with(Tag::from("tool"), &output, SOON, takes).await.unwrap_err();
    assert!(error.to_string().ends_with("exit status: 1: begins"), "{error}");
    assert_eq!(*taken.lock().unwrap(), [b"50%"]);
    let mut passed = [next(&mut lines).await.unwrap(), next(&mut lines).await.unwrap()];
    passed.sort();
    assert_eq!(passed, ["tool | 50% on stdout", "tool | begins"]);
}
