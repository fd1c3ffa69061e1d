//! A child that has been started: to wait for and to signal.

use super::words::SharedLastWords;
use super::{Readers, drained};
use crate::system::signals;
use nix::errno::Errno;
use nix::libc::c_int;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{interval, timeout};

/// How long a group has to end after SIGTERM, and then after SIGKILL.
const END_GRACE: Duration = Duration::from_secs(3);

/// A child that is ours to wait for.
///
/// The lock makes waiting and signalling exclude each other: as long as the
/// child is not reaped its number is its own.
pub(super) struct Process {
    pid: Pid,
    child: Mutex<Child>,
}

impl Process {
    pub(super) fn new(pid: Pid, child: Child) -> Self {
        Process { pid, child: Mutex::new(child) }
    }

    pub(super) async fn ended(&self) -> ExitStatus {
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
    pub(super) async fn end_group(&self) {
        let _ = self.signal_group(Signal::SIGTERM);
        // Looked at, not reaped: a zombie still keeps the group's number.
        let mut look = interval(Duration::from_millis(20));
        let _ = timeout(END_GRACE, async {
            while self.is_alive() {
                look.tick().await;
            }
        })
        .await;
        let _ = self.signal_group(Signal::SIGKILL);
        // Stuck in the kernel, say on a dead disk, it may outlive even that.
        let _ = timeout(END_GRACE, self.ended()).await;
    }

    fn is_alive(&self) -> bool {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        matches!(waitid(Id::Pid(self.pid), look), Ok(WaitStatus::StillAlive))
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().expect("nothing panics while it holds this")
    }
}

/// Leaves nothing behind of a tool whose caller has lost interest.
pub(super) struct GroupKilledOnDrop(pub(super) Process);

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
    last_words: SharedLastWords,
}

impl Running {
    pub(super) fn new(process: Process, readers: Readers, last_words: SharedLastWords) -> Self {
        let process = Arc::new(process);
        let (tell, status) = watch::channel(None);
        let waited_for = Arc::clone(&process);
        tokio::spawn(async move {
            let status = waited_for.ended().await;
            drained(readers).await;
            let _ = tell.send(Some(status)); // nobody may be interested
        });
        Running { process, status, last_words }
    }

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

    /// The last lines of its standard error, at most [`LAST_WORDS_LINES_MAX`](super::LAST_WORDS_LINES_MAX).
    pub fn last_words(&self) -> Vec<String> {
        self.last_words.lines()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({})", self.process.pid)
    }
}
