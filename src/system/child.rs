//! The one place that creates processes, apart from the init half.
//!
//! Every child gets its own process group, so that it can be stopped with all
//! it started and a `^C` on a terminal reaches only us; an empty signal mask
//! and default dispositions, because std passes on ours (rust-lang/rust#101077);
//! and no `NOTIFY_SOCKET`, which is for whoever started the container.
//! Arguments never hold passwords, `ps` shows them; errors never show the
//! environment.

mod process;
mod words;

pub use process::Running;
pub use words::{CAPTURED_BYTES_MAX, LAST_WORDS_LINES_MAX};

use super::account::Account;
use super::output::{OutputHandle, Stream, Tag};
use super::signals;
use nix::fcntl::{self, FcntlArg, FdFlag, OFlag};
use nix::libc::{self, c_int};
use nix::sys::signal::SigSet;
use nix::sys::stat::{self, Mode};
use nix::unistd::{self, Gid, Uid};
use process::{GroupKilledOnDrop, Process};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use words::{Captured, Keep, LastWords, SharedLastWords};

/// How long after a child's end its output is waited for. Usually it is there
/// at once; but whoever inherited the pipe may keep it open for ever.
const DRAIN_AT_MOST: Duration = Duration::from_millis(200);

/// A program about to be started, and as whom and in which surroundings.
pub struct Program {
    name: String,
    command: Command,
    account: Option<Account>,
    umask: Option<Mode>,
    oom_score_adj: Option<i32>,
    kept_fds: Vec<OwnedFd>,
    input: Option<Vec<u8>>,
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started. The source's kind is `NotFound` if there is no
    /// such program and `PermissionDenied` if it is not executable.
    #[error("cannot start `{program}`")]
    Start {
        /// Which program.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It ran past its limit and was ended, with all processes of its group.
    #[error("`{program}` was still running after {} s and was stopped{}", .at_most.as_secs_f32(), said(.last_words))]
    TimedOut {
        /// Which program.
        program: String,
        /// Its limit.
        at_most: Duration,
        /// The last lines of its standard error, or output if that is empty.
        last_words: Vec<String>,
    },
    /// It ended, but not with success.
    #[error("`{program}` ended with {status}{}", said(.last_words))]
    Failed {
        /// Which program.
        program: String,
        /// Its exit status or signal.
        status: ExitStatus,
        /// The last lines of its standard error, or output if that is empty.
        last_words: Vec<String>,
    },
    /// It wrote more to standard output than can be kept.
    #[error("`{program}` wrote more than {CAPTURED_BYTES_MAX} bytes")]
    TooMuchOutput {
        /// Which program.
        program: String,
    },
}

fn said(last_words: &[String]) -> String {
    if last_words.is_empty() { String::new() } else { format!(": {}", last_words.join("; ")) }
}

fn succeeded(
    program: String,
    status: ExitStatus,
    last_words: impl FnOnce() -> Vec<String>,
) -> Result<(), ProgramError> {
    if status.success() {
        return Ok(());
    }
    Err(ProgramError::Failed { program, status, last_words: last_words() })
}

/// What a tool said, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// The end of its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Program {
    /// A run of `program`, a path or a name to be found on `PATH`. It inherits
    /// our environment and works in our directory, as us, with an empty
    /// standard input, unless told otherwise.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let mut command = Command::new(program);
        command.env_remove("NOTIFY_SOCKET");
        Program {
            name: program.to_string_lossy().into_owned(),
            command,
            account: None,
            umask: None,
            oom_score_adj: None,
            kept_fds: Vec::new(),
            input: None,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Keeps a variable of our environment from it.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Starts it in `dir`.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.command.current_dir(dir.into());
        self
    }

    /// Runs it as `account`, with all the account's groups, and `HOME`, `USER`
    /// and `LOGNAME` accordingly. Changes nothing if we are neither root nor
    /// that user, because then nothing can be changed.
    pub fn account(mut self, account: &Account) -> Self {
        let me = unistd::geteuid();
        if me.is_root() || me == account.uid {
            self.command.env("HOME", &account.home);
            if let Some(name) = &account.name {
                self.command.env("USER", name).env("LOGNAME", name);
            }
            self.account = Some(account.clone());
        }
        self
    }

    /// The mode bits its new files shall lack, such as 0o077.
    pub fn umask(mut self, bits: u32) -> Self {
        self.umask = Some(Mode::from_bits_truncate(bits));
        self
    }

    /// Makes it likelier to be chosen by the OOM killer: raises its
    /// `oom_score_adj` to `at_least` (at most 1000). Never lowers it, which
    /// needs a right that containers do not have.
    pub fn oom_score_adj(mut self, at_least: i32) -> Self {
        self.oom_score_adj = Some(at_least);
        self
    }

    /// Lets it inherit `fd`, under the same number. A lock held through `fd`
    /// (flock or OFD) then lasts until the last process that has it is gone.
    pub fn keep_fd(mut self, fd: OwnedFd) -> Self {
        self.kept_fds.push(fd);
        self
    }

    /// What it finds on its standard input. A place for secrets.
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Runs it to its end, which must be a success within `at_most`, and returns
    /// what it said. Past its limit its process group gets SIGTERM and soon
    /// SIGKILL. Dropping the future kills the group.
    pub async fn output(self, at_most: Duration) -> Result<Output, ProgramError> {
        let program = self.name.clone();
        let output = self.outcome(at_most).await?;
        let last_words = || LastWords::of(&output.stderr, &output.stdout);
        succeeded(program, output.status, last_words)?;
        Ok(output)
    }

    /// As [`Program::output`], for tools whose exit status is an answer: any
    /// will do.
    pub async fn outcome(self, at_most: Duration) -> Result<Output, ProgramError> {
        let program = self.name.clone();
        let Spawned { process, stdout, stderr } = self.spawn()?;
        let (stdout, out_read) = Captured::start(stdout, Keep::Head);
        let (stderr, err_read) = Captured::start(stderr, Keep::Tail);
        let status = ended_within(at_most, process, (out_read, err_read)).await;
        let (overflown, stdout, stderr) = (stdout.is_overflown(), stdout.take(), stderr.take());
        match status {
            None => {
                let last_words = LastWords::of(&stderr, &stdout);
                Err(ProgramError::TimedOut { program, at_most, last_words })
            }
            Some(_) if overflown => Err(ProgramError::TooMuchOutput { program }),
            Some(status) => {
                tracing::debug!(%program, %status, "tool ended");
                Ok(Output { status, stdout, stderr })
            }
        }
    }

    /// As [`Program::output`], for tools that people want to watch: its lines go
    /// to `output`, tagged, as they come.
    pub async fn run(
        self,
        tag: Tag,
        output: &OutputHandle,
        at_most: Duration,
    ) -> Result<(), ProgramError> {
        let program = self.name.clone();
        let Spawned { process, stdout, stderr } = self.spawn()?;
        let (last_words, pumps) = pump(tag, output, stdout, stderr);
        match ended_within(at_most, process, pumps).await {
            None => {
                Err(ProgramError::TimedOut { program, at_most, last_words: last_words.lines() })
            }
            Some(status) => succeeded(program, status, || last_words.lines()),
        }
    }

    /// Starts it and returns at once. Its lines go to `output`, tagged.
    /// It runs on when the [`Running`] is dropped: nothing here ever kills
    /// Postgres by accident.
    pub fn start(self, tag: Tag, output: &OutputHandle) -> Result<Running, ProgramError> {
        let Spawned { process, stdout, stderr } = self.spawn()?;
        let (last_words, pumps) = pump(tag, output, stdout, stderr);
        Ok(Running::new(process, pumps, last_words))
    }

    fn spawn(mut self) -> Result<Spawned, ProgramError> {
        let start_error = |source| ProgramError::Start { program: self.name.clone(), source };
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if let Some(dir) = self.command.as_std().get_current_dir() {
            // Else its absence would look like the program's.
            fs::metadata(dir).map_err(|error| {
                start_error(io::Error::other(format!(
                    "working directory {}: {error}",
                    dir.display()
                )))
            })?;
        }
        let before_exec = BeforeExec {
            switch_to: self
                .account
                .filter(|account| unistd::geteuid().is_root() && !account.is_root()),
            umask: self.umask,
            oom_score_adj: self.oom_score_adj.and_then(raised_oom_score_adj),
            kept_fds: self.kept_fds,
            signals: signals::all().collect(),
        };
        let switches = before_exec.switch_to.clone();
        before_exec.install(&mut self.command);

        let mut child = signals::held_back(|| self.command.spawn()).map_err(|error| {
            start_error(match (&switches, error.raw_os_error()) {
                (Some(account), Some(libc::EPERM)) => io::Error::other(format!(
                    "not allowed to become {account}: the container needs the capabilities SETUID and SETGID"
                )),
                _ => error,
            })
        })?;

        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(unistd::Pid::from_raw);
        let pid = pid.expect("a child not waited for has a pid, which fits");
        let stdout = child.stdout.take().expect("piped above");
        let stderr = child.stderr.take().expect("piped above");
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), self.input) {
            // It may end without having read everything; then that is its answer.
            tokio::spawn(async move { stdin.write_all(&input).await });
        }
        Ok(Spawned { process: Process::new(pid, child), stdout, stderr })
    }
}

/// Shows the name only: the rest may hold secrets.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({:?})", self.name)
    }
}

struct Spawned {
    process: Process,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

/// The two tasks that read a child's streams. They read on when nobody waits for
/// them any more, or the next write of whoever holds the pipe would fail.
type Readers = (JoinHandle<()>, JoinHandle<()>);

fn pump(
    tag: Tag,
    output: &OutputHandle,
    stdout: ChildStdout,
    stderr: ChildStderr,
) -> (SharedLastWords, Readers) {
    let last_words = SharedLastWords::default();
    let seen = last_words.clone();
    let stdout = output.clone().pump(tag.clone(), Stream::Stdout, stdout, |_| {});
    let stderr = output.clone().pump(tag, Stream::Stderr, stderr, move |line| seen.push(line));
    (last_words, (tokio::spawn(stdout), tokio::spawn(stderr)))
}

/// Waits for the end of `process`, which is brought about after `at_most`, and
/// for its last lines. `None` if it had to be ended.
async fn ended_within(at_most: Duration, process: Process, readers: Readers) -> Option<ExitStatus> {
    let group = GroupKilledOnDrop(process);
    let status = timeout(at_most, group.0.ended()).await.ok();
    if status.is_none() {
        group.0.end_group().await;
    }
    drained(readers).await;
    status
}

async fn drained(readers: Readers) {
    let _ = timeout(DRAIN_AT_MOST, async { tokio::join!(readers.0, readers.1) }).await;
}

/// What the child does between `fork` and `exec`. All of it is prepared before,
/// because there nothing may allocate or lock.
struct BeforeExec {
    switch_to: Option<Account>,
    umask: Option<Mode>,
    oom_score_adj: Option<String>,
    kept_fds: Vec<OwnedFd>,
    signals: Vec<c_int>,
}

impl BeforeExec {
    #[expect(unsafe_code, reason = "the only way to do something between fork and exec")]
    fn install(self, command: &mut Command) {
        // SAFETY: `apply` makes async-signal-safe calls only and does not allocate.
        unsafe { command.pre_exec(move || Ok(self.apply()?)) };
    }

    fn apply(&self) -> nix::Result<()> {
        if let Some(value) = &self.oom_score_adj {
            // Before the switch: afterwards the file belongs to root.
            let _ = fcntl::open(c"/proc/self/oom_score_adj", OFlag::O_WRONLY, Mode::empty())
                .and_then(|file| unistd::write(file, value.as_bytes()));
        }
        if let Some(umask) = self.umask {
            stat::umask(umask);
        }
        for fd in &self.kept_fds {
            fcntl::fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        if let Some(Account { uid, gid, groups, .. }) = &self.switch_to {
            become_user(*uid, *gid, groups)?;
        }
        for &signal in &self.signals {
            signals::set_default(signal);
        }
        SigSet::empty().thread_set_mask()
    }
}

/// In this order, as with the uid goes the right to change the groups. std's
/// `Command::uid` clears the supplementary ones and leaves gid 0.
fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> nix::Result<()> {
    unistd::setgroups(groups)?;
    unistd::setresgid(gid, gid, gid)?;
    unistd::setresuid(uid, uid, uid)
}

/// What to write to the child's `oom_score_adj`, unless ours is as high already.
fn raised_oom_score_adj(at_least: i32) -> Option<String> {
    let ours: i32 = fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok()?;
    (ours < at_least).then(|| at_least.to_string())
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            error.to_string(),
            "`bash` was still running after 0.5 s and was stopped: so far"
        );
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
        let ours: i32 =
            fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
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
        let script =
            "trap 'echo got it >&2; exit 5' USR1; echo ready; while :; do sleep 0.01; done";
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
}
