//! The fence of the lease: Postgres is stopped hard when the time is over that it may write in.
//!
//! Another node may lead from a known moment on, and counts on nothing being acknowledged here by
//! then. The node half cannot promise that: it may be frozen, starved or in a system call that does not
//! come back. So it only moves a [`Deadline`] ahead, and this half, which has nothing else to do, acts when that
//! is not done in time.
//!
//! Who waits does so on a timer of `CLOCK_BOOTTIME`: the limit of a `poll` stands still while the host sleeps.

use super::family;
use crate::system::clock::since_boot;
use crate::system::guard::{self, Deadline, ForNode, Unread, Word, Words};
use crate::system::process::{Process, ProcessId};
use crate::system::signals;
use nix::libc;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::getpid;
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// What part of the time for the fence Postgres may take to quit by itself.
const TO_QUIT: u32 = 4;
/// How often one looks whether it has; each look reads all of `/proc`.
const QUIT_PAUSE: Duration = Duration::from_millis(10);
/// The same after SIGKILL, which takes as long as memory takes to be given back; at first, and at most.
const KILL_PAUSE: Duration = Duration::from_millis(2);
const KILL_PAUSE_MAX: Duration = Duration::from_millis(500);

/// What is known of the lease, and what is being done about it.
#[derive(Debug)]
pub(super) struct Fence {
    /// None once the node half is gone; its last word holds.
    words: Option<Words>,
    timer: TimerFd,
    /// When the timer goes off.
    set_to: Option<Duration>,
    word: Word,
    /// What has been acted on; it is not a second time.
    acted_on: Option<Deadline>,
    stop: Option<Stop>,
}

impl Fence {
    /// With a way to be told, to be handed to the node half.
    pub(super) fn new() -> io::Result<(Self, ForNode)> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
        let (words, for_node) = guard::pipe()?;
        let word = Word::default();
        let fence =
            Fence { words: Some(words), timer, set_to: None, word, acted_on: None, stop: None };
        Ok((fence, for_node))
    }

    /// One of these can be read when [`Fence::look`] is due.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.words.iter().map(AsFd::as_fd).chain([self.timer.as_fd()])
    }

    /// Does what is due, without waiting. To be called first whenever this process wakes up, as it may
    /// have been frozen, too.
    pub(super) fn look(&mut self, say: impl Fn(&str)) {
        self.listen();
        let now = since_boot();
        if let (None, Word { deadline: Some(deadline), server: Some(server) }) =
            (&self.stop, self.word)
            && now >= deadline.until
            && self.acted_on != Some(deadline)
        {
            self.acted_on = Some(deadline);
            self.stop = Some(Stop::new(server, deadline));
        }
        self.stop.take_if(|stop| now >= stop.next_look && stop.go_on(now, &say));
        self.set_timer();
    }

    fn listen(&mut self) {
        let Some(words) = &self.words else { return };
        let (newest, unread) = words.newest();
        self.word = newest.unwrap_or(self.word);
        if unread == Unread::Ended {
            self.words = None; // It would be readable for ever.
        }
    }

    fn set_timer(&mut self) {
        let wanted = match (&self.stop, self.word) {
            (Some(stop), _) => Some(stop.next_look),
            (None, Word { deadline: Some(deadline), server: Some(_) }) => {
                Some(deadline.until).filter(|_| self.acted_on != Some(deadline))
            }
            (None, _) => None,
        };
        if self.set_to == wanted {
            return;
        }
        let set = match wanted {
            // A time of zero would switch it off.
            Some(at) => self.timer.set(
                Expiration::OneShot(TimeSpec::from(at.max(Duration::from_nanos(1)))),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            ),
            None => self.timer.unset(),
        };
        if set.is_ok() {
            self.set_to = wanted;
        }
    }
}

/// A postmaster that is being stopped, with all that came from it.
#[derive(Debug)]
struct Stop {
    server: ProcessId,
    deadline: Deadline,
    /// All that were seen to belong to it.
    family: HashSet<ProcessId>,
    killed: HashSet<ProcessId>,
    has_begun: bool,
    next_look: Duration,
    pause: Duration,
}

impl Stop {
    fn new(server: ProcessId, deadline: Deadline) -> Self {
        Stop {
            server,
            deadline,
            family: HashSet::from([server]),
            killed: HashSet::new(),
            has_begun: false,
            next_look: Duration::ZERO,
            pause: KILL_PAUSE,
        }
    }

    /// Sees who is left, and to their end. Says whether nobody is.
    fn go_on(&mut self, now: Duration, say: impl Fn(&str)) -> bool {
        let kill_at = self.deadline.until + self.deadline.fence / TO_QUIT;
        let left = match self.left() {
            Ok(left) => left,
            Err(error) => {
                // Without knowing the others, at least those that take orders from it, in a moment.
                let _ = signals::send(self.server.pid, libc::SIGKILL);
                if self.begin(now, &say) {
                    say(&format!("cannot see which processes are left of Postgres: {error}"));
                }
                self.next_look = now + KILL_PAUSE_MAX;
                return false;
            }
        };
        if left.is_empty() {
            self.report(now, say);
            return true;
        }
        if now >= kill_at {
            for one in &left {
                let _ = signals::send(one.pid, libc::SIGKILL); // ESRCH: it has just ended
            }
            self.killed.extend(left);
            self.next_look = now + self.pause;
            self.pause = (self.pause * 2).min(KILL_PAUSE_MAX);
        } else {
            if !self.has_begun {
                // To the postmaster, which tells the others; without it, to them.
                let told = if left[0] == self.server { &left[..1] } else { &left[..] };
                for one in told {
                    let _ = signals::send(one.pid, libc::SIGQUIT);
                }
            }
            self.next_look = (now + QUIT_PAUSE).min(kill_at);
        }
        self.begin(now, say);
        false
    }

    /// Those alive, the postmaster first: it makes new ones.
    fn left(&mut self) -> io::Result<Vec<ProcessId>> {
        let all = Process::all()?;
        let found = family::of(self.server, &self.family, &all, getpid());
        self.family.extend(&found);
        let alive = all.iter().filter(|one| one.is_alive()).map(Process::id);
        let mut left: Vec<_> = alive.filter(|one| found.contains(one)).collect();
        left.sort_by_key(|one| *one != self.server);
        Ok(left)
    }

    /// Says, at the first time, what is being done, and whether this is it.
    fn begin(&mut self, now: Duration, say: impl Fn(&str)) -> bool {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        if is_first {
            say(&format!(
                "the lease ran out {} ms ago and was not renewed: Postgres (pid {}) is stopped hard, \
                 so that another node may lead",
                self.since_deadline(now),
                self.server.pid
            ));
        }
        is_first
    }

    fn report(&self, now: Duration, say: impl Fn(&str)) {
        if self.has_begun {
            say(&format!(
                "nothing is left of Postgres {} ms after the lease ran out ({} of {} processes were killed)",
                self.since_deadline(now),
                self.killed.len(),
                self.family.len()
            ));
        }
    }

    fn since_deadline(&self, now: Duration) -> u128 {
        now.saturating_sub(self.deadline.until).as_millis()
    }
}
