//! What the node half tells the init half about its lease: until when Postgres may write, and which
//! process it is. The init half acts on it (`pid1/fence.rs`) when the node half cannot.
//!
//! It is told through a **pipe**. Each word is one small `write`, which the kernel does whole or
//! not at all (`PIPE_BUF`), in order, and which wakes the reader; a node half that is frozen in the
//! middle of telling has told it or not. Memory shared by the two would need all of this made by hand:
//! a lock that a frozen writer cannot keep, and something to wake the reader with when there is
//! suddenly a deadline. What a pipe lacks is room for ever: with some thousand words unread a
//! word is refused, and as each carries everything, the next that is taken makes up for it.

use super::process::{Process, ProcessId, is_proc_ours};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::fstat;
use nix::unistd::{Pid, pipe2, read, write};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The descriptor under which the node half finds its end. High enough to be free, low enough for any limit.
const GUARD_FD: RawFd = 30;

/// Until when Postgres may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// On the clock of [`since_boot`](super::clock::since_boot).
    pub until: Duration,
    /// How much later somebody else may write: what the fence has for its work.
    pub fence: Duration,
}

/// All that the init half has to know. The newest one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// None: nothing has to happen.
    pub deadline: Option<Deadline>,
    /// The postmaster, if there is one.
    pub server: Option<ProcessId>,
}

const WORD_BYTES: usize = 32;
/// In place of a deadline.
const NEVER: u64 = u64::MAX;

impl Word {
    fn to_bytes(self) -> [u8; WORD_BYTES] {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(NEVER - 1);
        let (until, fence) =
            self.deadline.map_or((NEVER, 0), |it| (nanos(it.until), nanos(it.fence)));
        let (pid, started) = self.server.map_or((0, 0), |it| (it.pid.as_raw(), it.started));
        let mut bytes = [0; WORD_BYTES];
        let numbers = [until, fence, u64::from(pid.unsigned_abs()), started];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: [u8; WORD_BYTES]) -> Self {
        let (numbers, _) = bytes.as_chunks();
        let [until, fence, pid, started] = [0, 1, 2, 3].map(|nth| u64::from_ne_bytes(numbers[nth]));
        let deadline =
            Deadline { until: Duration::from_nanos(until), fence: Duration::from_nanos(fence) };
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).map(Pid::from_raw);
        Word {
            deadline: (until != NEVER).then_some(deadline),
            server: pid.map(|pid| ProcessId { pid, started }),
        }
    }
}

/// The node half's end. Every call is one `write` that does not wait.
///
/// **An error means that the word was not taken**: the init half is gone, or has not read for a
/// thousand words. Whoever was about to open a server for writes must not.
#[derive(Debug)]
pub struct Guard {
    pipe: OwnedFd,
    /// Locked while writing, so that what is sent last is what was said last.
    word: Mutex<Word>,
}

impl Guard {
    /// What the init half left to us. To be asked for before anything is opened or started: from
    /// then on no child inherits it. `None` if there is no init half, and for who asks again.
    #[expect(unsafe_code, reason = "an inherited descriptor is a number")]
    pub fn inherited() -> Option<Guard> {
        // What this process opens itself has the flag that closes it at `exec`, and so has what was
        // taken already.
        // SAFETY: no memory is involved; it fails if nothing is open there.
        if unsafe { libc::fcntl(GUARD_FD, libc::F_GETFD) } != 0 {
            return None;
        }
        // SAFETY: it is open, nobody in this process knows it, and it goes away only with it.
        let fd = unsafe { BorrowedFd::borrow_raw(GUARD_FD) };
        let is_pipe = fstat(fd).is_ok_and(|it| it.st_mode & libc::S_IFMT == libc::S_IFIFO);
        let is_ours = fcntl(fd, FcntlArg::F_GETFL).is_ok_and(|flags| {
            flags & (libc::O_ACCMODE | libc::O_NONBLOCK) == libc::O_WRONLY | libc::O_NONBLOCK
        });
        if !(is_pipe && is_ours) {
            return None;
        }
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
        // SAFETY: as above, and the flag just set keeps a second call from owning it as well.
        let pipe = unsafe { OwnedFd::from_raw_fd(GUARD_FD) };
        Some(Guard { pipe, word: Mutex::default() })
    }

    /// Moves the deadline to `until`, on the clock of [`since_boot`](super::clock::since_boot). If it
    /// passes, Postgres is told to quit, and after a quarter of `fence` it is killed; at the end of
    /// `fence` another may lead.
    pub fn may_write_until(&self, until: Duration, fence: Duration) -> io::Result<()> {
        self.tell(|word| word.deadline = Some(Deadline { until, fence }))
    }

    /// Names the postmaster, which must not have been waited for yet. One that is named after the
    /// deadline has passed is stopped at once, unless that deadline has stopped another already.
    pub fn watch(&self, postmaster: Pid) -> io::Result<()> {
        if !is_proc_ours() {
            return Err(io::Error::other("/proc belongs to another namespace"));
        }
        let server = Process::read(&OsString::from(postmaster.to_string()));
        let server = server.ok_or(Errno::ESRCH)?.id();
        self.tell(|word| word.server = Some(server))
    }

    /// The postmaster has ended, and all that it started. The deadline holds for the next.
    pub fn no_server(&self) -> io::Result<()> {
        self.tell(|word| word.server = None)
    }

    /// There is no deadline: the server is a standby, or stopped.
    pub fn lift(&self) -> io::Result<()> {
        self.tell(|word| word.deadline = None)
    }

    fn tell(&self, change: impl FnOnce(&mut Word)) -> io::Result<()> {
        let mut word = self.word.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut word);
        write(&self.pipe, &word.to_bytes())?; // Whole or not at all.
        Ok(())
    }
}

/// The init half's end.
#[derive(Debug)]
pub struct Words(OwnedFd);

/// The other end, on its way to the node half.
#[derive(Debug)]
pub struct ForNode(OwnedFd);

/// Why there is no more to be read for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// More may come.
    Empty,
    /// The node half is gone.
    Ended,
}

/// Both ends. Fails if the node half's descriptor is in use.
#[expect(unsafe_code, reason = "nix returns the copy of a descriptor as a number")]
pub fn pipe() -> io::Result<(Words, ForNode)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let copy = fcntl(&theirs, FcntlArg::F_DUPFD_CLOEXEC(GUARD_FD))?;
    // SAFETY: just opened, and nobody else knows it.
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };
    if copy.as_raw_fd() != GUARD_FD {
        return Err(io::Error::other(format!("descriptor {GUARD_FD} is in use")));
    }
    Ok((Words(ours), ForNode(copy)))
}

impl ForNode {
    /// Lets it through the next `exec`. Async-signal-safe.
    pub fn keep(&self) -> nix::Result<()> {
        fcntl(&self.0, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
    }
}

impl Words {
    /// Empties the pipe. Returns the newest word, if one came, and whether there may be others.
    pub fn newest(&self) -> (Option<Word>, Unread) {
        let mut newest = None;
        let mut bytes = [0; 64 * WORD_BYTES];
        loop {
            match read(&self.0, &mut bytes) {
                Ok(0) => return (newest, Unread::Ended),
                Ok(length) => {
                    let (words, _) = bytes[..length].as_chunks();
                    newest = words.last().copied().map(Word::from_bytes).or(newest);
                }
                Err(Errno::EINTR) => {}
                Err(_) => return (newest, Unread::Empty),
            }
        }
    }
}

impl AsFd for Words {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> (Words, Guard) {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        (Words(ours), Guard { pipe: theirs, word: Mutex::default() })
    }

    #[test]
    fn the_newest_word_wins_and_says_everything() {
        let (words, guard) = guard();
        assert_eq!(words.newest(), (None, Unread::Empty));
        for second in 1..=1000 {
            guard.may_write_until(Duration::from_secs(second), Duration::from_millis(5)).unwrap();
        }
        guard.watch(Pid::this()).unwrap();
        let (Some(word), Unread::Empty) = words.newest() else { panic!("nothing came") };
        let (until, fence) = (Duration::from_secs(1000), Duration::from_millis(5));
        assert_eq!(word.deadline, Some(Deadline { until, fence }));
        assert_eq!(word.server.map(|server| server.pid), Some(Pid::this()));
        guard.lift().unwrap();
        guard.no_server().unwrap();
        drop(guard);
        assert_eq!(words.newest(), (Some(Word::default()), Unread::Ended));
    }

    #[test]
    fn a_word_that_finds_no_room_is_refused_and_made_up_for() {
        let (words, guard) = guard();
        let mut taken = 0;
        while guard.may_write_until(Duration::from_secs(taken), Duration::ZERO).is_ok() {
            taken += 1;
        }
        assert!(taken > 1000, "{taken}");
        let (Some(word), _) = words.newest() else { panic!("nothing came") };
        assert_eq!(word.deadline.unwrap().until, Duration::from_secs(taken - 1));
        guard.watch(Pid::this()).unwrap();
        let (Some(word), _) = words.newest() else { panic!("nothing came") };
        assert_eq!(word.deadline.unwrap().until, Duration::from_secs(taken));
    }

    #[test]
    fn who_is_not_there_cannot_be_watched() {
        let (words, guard) = guard();
        guard.watch(Pid::from_raw(i32::MAX)).unwrap_err();
        drop(words);
        assert_eq!(guard.lift().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
