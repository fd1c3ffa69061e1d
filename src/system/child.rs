//! The one place that creates processes, apart from the init half.
//!
//! Every child gets its own process group, so that it can be stopped with all
//! it started and a `^C` on a terminal reaches only us; an empty signal mask
//! and default dispositions, because std passes on ours (rust-lang/rust#101077);
//! and no `NOTIFY_SOCKET`, which is for whoever started the container.
//! Arguments never hold passwords, `ps` shows them; errors never show the
//! environment.

use super::account::Account;
use super::output::{OutputHandle, Stream, Tag, read_to_end};
use super::signals;
use nix::errno::Errno;
use nix::fcntl::{self, FcntlArg, FdFlag, OFlag};
use nix::libc::{self, c_int};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{self, Mode};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{self, Gid, Pid, Uid};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

/// The most that is kept of a tool's output, for each of the two streams.
pub const CAPTURED_BYTES_MAX: usize = 1 << 20;

/// So many lines of standard error are kept to explain a failure.
pub const LAST_WORDS_LINES_MAX: usize = 10;

/// A line of the last words is cut at so many bytes.
const LAST_WORDS_LINE_BYTES_MAX: usize = 1 << 10;

/// How long a tool past its limit has to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(3);

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

    /// Runs it to its end, which must be a success within `at_most`. Past that
    /// its process group gets SIGTERM and soon SIGKILL. Dropping the future
    /// kills the group.
    pub async fn output(self, at_most: Duration) -> Result<Output, ProgramError> {
        let program = self.name.clone();
        let output = self.outcome(at_most).await?;
        if output.status.success() {
            return Ok(output);
        }
        let last_words = last_words_of(&output.stderr, &output.stdout);
        Err(ProgramError::Failed { program, status: output.status, last_words })
    }

    /// As [`Program::output`], for tools whose exit status is an answer: any is
    /// fine.
    pub async fn outcome(self, at_most: Duration) -> Result<Output, ProgramError> {
        let program = self.name.clone();
        let Spawned { process, stdout, stderr } = self.spawn()?;
        let group = GroupKilledOnDrop(process);
        let stdout = Captured::start(stdout, Keep::Head);
        let stderr = Captured::start(stderr, Keep::Tail);

        let status = timeout(at_most, group.0.ended()).await;
        if status.is_err() {
            group.0.end_group().await;
        }
        let _ = timeout(DRAIN_AT_MOST, async { tokio::join!(stdout.done, stderr.done) }).await;
        let (stdout, stderr) = (take(&stdout.buffer), take(&stderr.buffer));
        let overflown = stdout.overflown;
        let (stdout, stderr) = (Vec::from(stdout.bytes), Vec::from(stderr.bytes));
        match status {
            Err(_) => {
                let last_words = last_words_of(&stderr, &stdout);
                Err(ProgramError::TimedOut { program, at_most, last_words })
            }
            Ok(_) if overflown => Err(ProgramError::TooMuchOutput { program }),
            Ok(status) => {
                tracing::debug!(%program, %status, "tool ended");
                Ok(Output { status, stdout, stderr })
            }
        }
    }

    /// Starts it and returns at once. Its lines go to `output`, tagged.
    /// It runs on when the [`Running`] is dropped: nothing here ever kills
    /// Postgres by accident.
    pub fn start(self, tag: Tag, output: &OutputHandle) -> Result<Running, ProgramError> {
        let Spawned { process, stdout, stderr } = self.spawn()?;
        let (process, last_words) = (Arc::new(process), Arc::<Mutex<LastWords>>::default());
        let pumps = {
            let last_words = Arc::clone(&last_words);
            let keep = move |line: &[u8]| lock(&last_words).push(line);
            let stdout = output.clone().pump(tag.clone(), Stream::Stdout, stdout, |_| {});
            let stderr = output.clone().pump(tag, Stream::Stderr, stderr, keep);
            (tokio::spawn(stdout), tokio::spawn(stderr))
        };
        let (ended, status) = watch::channel(None);
        let waited_for = Arc::clone(&process);
        tokio::spawn(async move {
            let status = waited_for.ended().await;
            // Given up or not, the pumps read on: see the law of `output`.
            let _ = timeout(DRAIN_AT_MOST, async { tokio::join!(pumps.0, pumps.1) }).await;
            let _ = ended.send(Some(status));
        });
        Ok(Running { process, status, last_words })
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

        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        let pid = pid.expect("a child not waited for has a pid, which fits");
        let stdout = child.stdout.take().expect("piped above");
        let stderr = child.stderr.take().expect("piped above");
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), self.input) {
            // It may end without having read everything; then that is its answer.
            tokio::spawn(async move { stdin.write_all(&input).await });
        }
        let process = Process { pid, child: Mutex::new(child) };
        Ok(Spawned { process, stdout, stderr })
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
    stdout: tokio::process::ChildStdout,
    stderr: tokio::process::ChildStderr,
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

/// A child that is ours to wait for.
///
/// The lock makes waiting and signalling exclude each other: as long as the
/// child is not reaped its number is its own.
struct Process {
    pid: Pid,
    child: Mutex<Child>,
}

impl Process {
    async fn ended(&self) -> ExitStatus {
        let status = poll_fn(|context| {
            let mut child = self.child();
            pin!(child.wait()).poll(context)
        });
        status.await.expect("nobody else waits for our children")
    }

    /// Fails with ESRCH if it has ended.
    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.signal_to(self.pid, signal)
    }

    /// As `signal`, for the whole group, which must still have its leader.
    fn signal_group(&self, signal: Signal) -> io::Result<()> {
        self.signal_to(Pid::from_raw(-self.pid.as_raw()), signal)
    }

    fn signal_to(&self, to: Pid, signal: Signal) -> io::Result<()> {
        match self.child().id() {
            Some(_) => Ok(signals::send(to, signal as c_int)?),
            None => Err(Errno::ESRCH.into()),
        }
    }

    /// Ends all processes of the group, and reaps the leader.
    async fn end_group(&self) {
        let _ = self.signal_group(Signal::SIGTERM);
        // Looked at, not reaped: a zombie still keeps the group's number.
        let mut look = interval(Duration::from_millis(20));
        let _ = timeout(TERM_GRACE, async {
            while self.is_alive() {
                look.tick().await;
            }
        })
        .await;
        let _ = self.signal_group(Signal::SIGKILL);
        // Stuck in the kernel, say on a dead disk, it may outlive even that.
        let _ = timeout(TERM_GRACE, self.ended()).await;
    }

    fn is_alive(&self) -> bool {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        matches!(waitid(Id::Pid(self.pid), look), Ok(WaitStatus::StillAlive))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        lock(&self.child)
    }
}

/// Leaves nothing behind of a tool whose caller has lost interest.
struct GroupKilledOnDrop(Process);

impl Drop for GroupKilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.signal_group(Signal::SIGKILL); // ESRCH: it has ended
    }
}

/// A started program. Clones are the same: one task may wait while another
/// signals.
#[derive(Clone)]
pub struct Running {
    process: Arc<Process>,
    status: watch::Receiver<Option<ExitStatus>>,
    last_words: Arc<Mutex<LastWords>>,
}

impl Running {
    /// Its process id, which is also its group's. For display: to signal it
    /// use [`Running::signal`], which cannot hit another by mistake.
    pub fn pid(&self) -> Pid {
        self.process.pid
    }

    /// Waits for its end. By then its last lines are in the output and in
    /// [`Running::last_words`], unless someone else still holds its pipes.
    pub async fn wait(&self) -> ExitStatus {
        let mut status = self.status.clone();
        let ended = status.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        ended.expect("the task that waits tells the status before it ends")
    }

    /// Its exit status, if it has ended.
    pub fn exited(&self) -> Option<ExitStatus> {
        *self.status.borrow()
    }

    /// Signals it, and not its children. ESRCH if it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.process.signal(signal)
    }

    /// Signals it and all it started that stayed in its group. Not for
    /// Postgres, which manages its own children. ESRCH if it has ended.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        self.process.signal_group(signal)
    }

    /// The last lines of its standard error, at most [`LAST_WORDS_LINES_MAX`].
    pub fn last_words(&self) -> Vec<String> {
        lock(&self.last_words).0.iter().cloned().collect()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({})", self.process.pid)
    }
}

#[derive(Default)]
struct LastWords(VecDeque<String>);

impl LastWords {
    fn push(&mut self, line: &[u8]) {
        let line = &line[..line.len().min(LAST_WORDS_LINE_BYTES_MAX)];
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if !text.is_empty() {
            if self.0.len() == LAST_WORDS_LINES_MAX {
                self.0.pop_front();
            }
            self.0.push_back(text.to_owned());
        }
    }
}

/// Of standard error, or, for tools that complain there, of standard output.
fn last_words_of(stderr: &[u8], stdout: &[u8]) -> Vec<String> {
    let of = |bytes: &[u8]| {
        let mut words = LastWords::default();
        bytes.split(|&byte| byte == b'\n').for_each(|line| words.push(line));
        Vec::from(words.0)
    };
    Some(of(stderr)).filter(|words| !words.is_empty()).unwrap_or_else(|| of(stdout))
}

/// A tool's stream, read in the background until its end.
struct Captured {
    buffer: Arc<Mutex<Capture>>,
    done: JoinHandle<()>,
}

/// What to keep when there is more than can be kept.
#[derive(Clone, Copy)]
enum Keep {
    Head,
    Tail,
}

#[derive(Default)]
struct Capture {
    bytes: VecDeque<u8>,
    overflown: bool,
}

impl Captured {
    fn start(mut pipe: impl AsyncRead + Unpin + Send + 'static, keep: Keep) -> Self {
        let buffer = Arc::<Mutex<Capture>>::default();
        let filled = Arc::clone(&buffer);
        let done = tokio::spawn(async move {
            read_to_end(&mut pipe, |bytes| lock(&filled).push(bytes, keep)).await;
        });
        Captured { buffer, done }
    }
}

impl Capture {
    fn push(&mut self, bytes: &[u8], keep: Keep) {
        self.bytes.extend(bytes);
        if let Some(excess) = self.bytes.len().checked_sub(CAPTURED_BYTES_MAX).filter(|n| *n > 0) {
            self.overflown = true;
            match keep {
                Keep::Head => self.bytes.truncate(CAPTURED_BYTES_MAX),
                Keep::Tail => drop(self.bytes.drain(..excess)),
            }
        }
    }
}

fn take(buffer: &Mutex<Capture>) -> Capture {
    std::mem::take(&mut lock(buffer))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this")
}
