//! The one place that creates processes, apart from the init half.
//!
//! Every child gets its own process group, so that it can be stopped with all
//! it started and a `^C` on a terminal reaches only us; an empty signal mask
//! and default dispositions, because std passes on ours (rust-lang/rust#101077);
//! and neither `NOTIFY_SOCKET`, which is for whoever started the container, nor
//! the [`SECRET_VARIABLES`].
//! Arguments never hold passwords, `ps` shows them; errors never show the
//! environment.

mod process;
mod stream;
mod words;

pub use process::Running;
pub use stream::{Fed, Streamed};
pub use words::{CAPTURED_BYTES_MAX, LAST_WORDS_LINES_MAX};

use super::account::Account;
use super::output::{OutputHandle, Say, Stream, Tag};
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
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use words::{Captured, Keep, LastWords, SharedLastWords};

/// How long after a child's end its output is waited for. Usually it is there
/// at once; but whoever inherited the pipe may keep it open for ever.
const DRAIN_AT_MOST: Duration = Duration::from_millis(200);

/// Variables of ours that hold secrets. No child inherits them; one that needs
/// such a variable is given it.
pub const SECRET_VARIABLES: [&str; 9] = [
    "POSTGRES_PASSWORD",
    "REPMGR_PASSWORD",
    "REPMGR_STREAMING_PASSWORD",
    "BARMAN_PASSWORD",
    "BARMAN_STREAMING_PASSWORD",
    "PGHERD_ETCD_PASSWORD",
    "PGHERD_CONTROL_TOKEN",
    "BARMAN_CLOUD_SECRET_KEY",
    "RESTORE_TOKEN",
];

/// A program about to be started, and as whom and in which surroundings.
pub struct Program {
    name: String,
    command: Command,
    account: Option<Account>,
    umask: Option<Mode>,
    oom_score_adj: Option<i32>,
    kept_fds: Vec<OwnedFd>,
    input: Option<Vec<u8>>,
    is_fed: bool,
    reword: Reword,
}

/// Another wording of a line that a program says; `None`: its own.
pub type Reword = fn(&[u8]) -> Option<Vec<u8>>;

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
    /// our environment without its secrets and works in our directory, as us,
    /// with an empty standard input, unless told otherwise.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let mut command = Command::new(program);
        command.env_remove("NOTIFY_SOCKET");
        SECRET_VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
        Program {
            name: program.to_string_lossy().into_owned(),
            command,
            account: None,
            umask: None,
            oom_score_adj: None,
            kept_fds: Vec::new(),
            input: None,
            is_fed: false,
            reword: |_| None,
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

    /// Each line of its standard error in another wording, where there is one.
    pub fn reworded(mut self, reword: Reword) -> Self {
        self.reword = reword;
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
        let Spawned { process, stdout, stderr, .. } = self.spawn()?;
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
        self.run_with(tag, output, at_most, |_| false).await
    }

    /// As [`Program::run`], for tools that also say how far they are: `takes` sees each line of
    /// standard error, and one that it takes is neither passed on nor one of the last words.
    pub async fn run_with(
        self,
        tag: Tag,
        output: &OutputHandle,
        at_most: Duration,
        takes: impl FnMut(&[u8]) -> bool + Send + 'static,
    ) -> Result<(), ProgramError> {
        let program = self.name.clone();
        let reword = self.reword;
        let Spawned { process, stdout, stderr, .. } = self.spawn()?;
        let (last_words, pumps) = pump(tag, output, stdout, stderr, reword, takes);
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
        let reword = self.reword;
        let Spawned { process, stdout, stderr, .. } = self.spawn()?;
        let (last_words, pumps) = pump(tag, output, stdout, stderr, reword, |_| false);
        Ok(Running::new(process, pumps, last_words))
    }

    fn spawn(mut self) -> Result<Spawned, ProgramError> {
        let start_error = |source| ProgramError::Start { program: self.name.clone(), source };
        let piped = self.is_fed || self.input.is_some();
        let stdin = if piped { Stdio::piped() } else { Stdio::null() };
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
        let mut stdin = child.stdin.take();
        if let (Some(mut stdin), Some(input)) = (stdin.take_if(|_| !self.is_fed), self.input) {
            // It may end without having read everything; then that is its answer.
            tokio::spawn(async move { stdin.write_all(&input).await });
        }
        Ok(Spawned { process: Process::new(pid, child), stdin, stdout, stderr })
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
    /// Of one that is fed.
    stdin: Option<ChildStdin>,
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
    reword: Reword,
    mut takes: impl FnMut(&[u8]) -> bool + Send + 'static,
) -> (SharedLastWords, Readers) {
    let last_words = SharedLastWords::default();
    let kept = last_words.clone();
    let says = move |line: &[u8]| {
        if takes(line) {
            return Say::Nothing;
        }
        let reworded = reword(line);
        kept.push(reworded.as_deref().unwrap_or(line));
        reworded.map_or(Say::It, Say::Instead)
    };
    let stdout = output.clone().pump(tag.clone(), Stream::Stdout, stdout, |_| Say::It);
    let stderr = output.clone().pump(tag, Stream::Stderr, stderr, says);
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
mod tests;
