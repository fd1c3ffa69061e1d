//! Signals by number, real-time ones included, which `nix::Signal` leaves out.
//!
//! A child inherits its signal mask and what is ignored; handlers fall back to
//! the default at `exec`. So whoever starts a process has to put these right
//! between `fork` and `exec`, where only async-signal-safe calls are allowed:
//! all functions here are, and none allocates.

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::Pid;

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
