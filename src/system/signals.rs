//! Signals by number, real-time ones included, which `nix::Signal` leaves out.
//!
//! A child inherits its signal mask and what is ignored; handlers fall back to
//! the default at `exec`. So whoever starts a process has to put these right
//! between `fork` and `exec`, where only async-signal-safe calls are allowed:
//! all functions here are, and none allocates.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{self, c_int};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{self, Pid};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
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

/// The signals sent to this process, in the order of their arrival.
///
/// `signal_hook`'s own iterator gives them by number: of a SIGTSTP and a SIGCONT
/// that came in this order, the SIGTSTP would be last. Here its handlers write
/// each to a pipe, as one byte.
#[derive(Debug)]
pub struct Caught {
    pipe: OwnedFd,
}

impl Caught {
    /// Catches `signals` from now on, for the rest of this process's life,
    /// whether or not they were blocked or ignored before.
    pub fn start(signals: impl IntoIterator<Item = c_int>) -> io::Result<Self> {
        let (pipe, handlers_end) = unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let handlers_end = Arc::new(handlers_end);
        for signal in signals {
            write_when_caught(signal, Arc::clone(&handlers_end))?;
        }
        SigSet::empty().thread_set_mask()?;
        Ok(Caught { pipe })
    }

    /// The next signal; waits for it, until `deadline` if there is one.
    pub fn next(&self, deadline: Option<Instant>) -> Option<c_int> {
        loop {
            let mut signal = [0];
            // EAGAIN: none is there. EINTR is the handler of one that now is.
            if unistd::read(&self.pipe, &mut signal) == Ok(1) {
                return Some(c_int::from(signal[0]));
            }
            let timeout = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(left) if left.is_zero() => return None,
                // Rounded up, or the last millisecond would be spent spinning.
                Some(left) => i32::try_from(left.as_millis() + 1)
                    .ok()
                    .and_then(|millis| PollTimeout::try_from(millis).ok())
                    .unwrap_or(PollTimeout::MAX),
            };
            let _ = poll(&mut [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)], timeout);
        }
    }
}

#[expect(unsafe_code, reason = "signal_hook cannot know what a handler does")]
fn write_when_caught(signal: c_int, pipe: Arc<OwnedFd>) -> io::Result<()> {
    let number = [u8::try_from(signal).map_err(io::Error::other)?];
    // The pipe is full after 65,536 signals that nobody took; more are lost.
    let handler = move || _ = unistd::write(&pipe, &number);
    // SAFETY: the handler makes one write(2), which is async-signal-safe, and
    // does not allocate, free or lock.
    unsafe { signal_hook::low_level::register(signal, handler) }.map(drop)
}
