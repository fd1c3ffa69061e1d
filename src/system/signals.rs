//! Signals by number, real-time ones included, which `nix::Signal` leaves out.
//!
//! A child inherits its signal mask and what is ignored; handlers fall back to
//! the default at `exec`. So whoever starts a process has to put these right
//! between `fork` and `exec`, where only async-signal-safe calls are allowed:
//! the free functions here are, and none allocates.

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// Every signal number of this system. glibc keeps 32 and 33 to itself; the
/// functions below do nothing for them.
pub fn all() -> impl Iterator<Item = c_int> {
    1..=libc::SIGRTMAX()
}

/// Restores the default action.
pub fn set_default(signal: c_int) {
    set(signal, libc::SIG_DFL);
}

/// Ignores `signal` from now on.
pub fn set_ignored(signal: c_int) {
    set(signal, libc::SIG_IGN);
}

#[expect(unsafe_code, reason = "nix knows no real-time signals")]
fn set(signal: c_int, action: libc::sighandler_t) {
    // SAFETY: private, and only called with SIG_DFL and SIG_IGN: no handler
    // runs, so none can break anything. A bad number is an error (EINVAL).
    unsafe { libc::signal(signal, action) };
}

/// Whether this process ignores `signal`.
#[expect(unsafe_code, reason = "nix knows no real-time signals and cannot ask without setting")]
pub fn is_ignored(signal: c_int) -> bool {
    // SAFETY: with no new action the call only writes the present one to `now`,
    // for which zeros are a valid value.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut now) == 0
            && now.sa_sigaction == libc::SIG_IGN
    }
}

/// Sends `signal` to a process, or to a process group if `pid` is negative.
#[expect(unsafe_code, reason = "nix knows no real-time signals")]
pub fn send(pid: Pid, signal: c_int) -> nix::Result<()> {
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// Runs `fork`, which starts a process, with all signals held back from this
/// thread; they arrive afterwards.
///
/// Without it a signal that hits the child before its `exec` runs our handler
/// there, and the handler reports it through the pipe shared with us: the
/// child misses it and we see one that was not meant for us.
pub fn held_back<T>(fork: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let result = fork();
    if let Ok(before) = before {
        let _ = before.thread_set_mask(); // fails only for a bad `how`
    }
    result
}

/// Signals held back from this process, to be taken one by one.
///
/// They wait in the kernel, which drops a waiting SIGTSTP when a SIGCONT comes
/// and keeps each real-time signal. Handlers, as `signal_hook` has them, cannot
/// do that: one can interrupt another before its first instruction, so that the
/// SIGCONT is seen before the SIGTSTP (once in some 2,000 pairs tried), and passed on
/// like this they leave the receiver stopped.
#[derive(Debug)]
pub struct Caught(SignalFd);

impl Caught {
    /// Catches all signals `except` these from now on, even those ignored before.
    /// For a process with one thread; a child has to undo it, see [`SigSet`].
    pub fn all(except: &[Signal]) -> nix::Result<Self> {
        let mut signals = SigSet::all();
        for &signal in except {
            signals.remove(signal);
        }
        // Were it ignored, the kernel would reap our children itself.
        set_default(libc::SIGCHLD);
        signals.thread_set_mask()?;
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Caught)
    }

    /// The next signal; waits for it, until `deadline` if there is one.
    pub fn next(&self, deadline: Option<Instant>) -> Option<c_int> {
        loop {
            if let Some(signal) = self.take() {
                return Some(signal);
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return None;
            }
            self.wait(&[], deadline);
        }
    }

    /// The next signal, if one has come.
    pub fn take(&self) -> Option<c_int> {
        let signal = self.0.read_signal().ok().flatten()?;
        c_int::try_from(signal.ssi_signo).ok()
    }

    /// Comes back when there is a signal to take, one of `others` can be read, or `deadline` has
    /// come; rarely for nothing.
    pub fn wait(&self, others: &[BorrowedFd<'_>], deadline: Option<Instant>) {
        let timeout = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            Some(left) if left.is_zero() => return,
            // Rounded up, or the last millisecond would be spent spinning.
            Some(left) => i32::try_from(left.as_millis() + 1)
                .ok()
                .and_then(|millis| PollTimeout::try_from(millis).ok())
                .unwrap_or(PollTimeout::MAX),
        };
        let all = others.iter().copied().chain([self.0.as_fd()]);
        let mut all: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let _ = poll(&mut all, timeout);
    }
}
