//! The holder's side of the lease.

use super::lease::{look_every, renew_every, writes_for};
use super::record::Record;
use super::view::Revision;
use crate::cluster::{Lsn, Timeline};
use std::collections::BTreeSet;
use std::time::Duration;

/// We lead. It begins with a taking that succeeded, and once it is [`Lost`] it does not come back:
/// the lead must be taken again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hold {
    /// What we know to stand in the record.
    pub record: Record,
    /// At this revision.
    pub revision: Revision,
    /// When we sent what was answered well last, or asked what all agreed to.
    pub good_since: Duration,
    /// When we sent anything last.
    pub tried_at: Duration,
    /// Changes whose answer did not come. Any of them may have been done, or may be done yet.
    pub open: Vec<Attempt>,
    /// We have said that our server is down, or tried to: it must not write.
    pub gives_up: bool,
    /// The number of the last attempt.
    pub attempts: u64,
}

/// A change on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// When it was sent for the first time.
    pub sent: Duration,
    /// What is to stand there.
    pub record: Record,
}

/// What is to be sent: the record, if it is still at `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Only if it is at this revision.
    pub revision: Revision,
    /// What then stands there.
    pub record: Record,
}

/// What a holder changes. Each renews the lease as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing else.
    Renew,
    /// The server takes writes on this timeline.
    Open(Timeline),
    /// Who is synchronous.
    Sync(BTreeSet<String>),
    /// The server has stopped in order.
    Release {
        /// Who goes on.
        to: Option<String>,
        /// The end of its shutdown checkpoint.
        at: Lsn,
    },
    /// The server could not be promoted, and was seen to be a standby.
    GiveBack,
}

/// What came of a [`Try`].
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is short-lived")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It stands there, at this revision.
    Done(Revision),
    /// Something else stood there; this, where the answer says so (a transaction that reads where
    /// it may not write). Without it, read; it is the same then as [`Hold::read`].
    Changed(Option<(Revision, Record)>),
    /// No answer: it may have been done, or may be done yet.
    Unknown,
}

/// Another has it, or our time has passed: the server must not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The record is not ours any more.
    #[error("another node has taken the lead")]
    Taken,
    /// Neither renewed nor agreed to in time.
    #[error("the lease was not renewed in time")]
    Late,
}

impl Hold {
    /// `record` was sent at `sent` and stands at `revision`.
    pub fn begun(record: Record, revision: Revision, sent: Duration) -> Self {
        let attempts = record.renewals;
        Hold {
            record,
            revision,
            good_since: sent,
            tried_at: sent,
            open: Vec::new(),
            gives_up: false,
            attempts,
        }
    }

    /// Until this instant the server may write; then it is stopped, whatever happens. The fence is
    /// told this before the server is opened, and each time it grows.
    pub fn writes_until(&self) -> Duration {
        if self.gives_up {
            return Duration::ZERO;
        }
        self.good_since + writes_for(self.record.lease())
    }

    /// Whether the server may write, and be opened.
    pub fn may_write(&self, now: Duration) -> bool {
        !self.gives_up && now < self.writes_until()
    }

    /// Commits may be acknowledged: the record says that we lead, and on which timeline.
    pub fn is_open(&self) -> bool {
        self.record.promoting.is_none() && self.record.released.is_none()
    }

    /// When the next renewal is due, if no attempt is on its way: soon, if the last one failed.
    pub fn renew_at(&self) -> Duration {
        let lease = self.record.lease();
        let went_well = self.open.is_empty() && self.good_since >= self.tried_at;
        self.tried_at + if went_well { renew_every(lease) } else { look_every(lease) }
    }

    /// When all other members that have data are asked to agree: nobody could be reached who keeps
    /// the record. Then with every attempt that fails.
    pub fn ask_at(&self) -> Duration {
        self.good_since + renew_every(self.record.lease())
    }

    /// Sends `change`. None if there is nothing to change (giving back what was opened). What has no
    /// answer when this is called counts as [`Answer::Unknown`].
    pub fn sends(&mut self, now: Duration, change: Change) -> Option<Try> {
        let changed = match change {
            Change::Renew => self.record.renewed(),
            Change::Open(timeline) => self.record.opened(timeline),
            Change::Sync(sync) => self.record.with_sync(sync),
            Change::Release { to, at } => self.record.released(to.as_deref(), at),
            Change::GiveBack => self.record.given_back()?,
        };
        // The same once more, so that there is no more of them however long nobody answers.
        let numbered =
            |attempt: &Attempt| Record { renewals: attempt.record.renewals, ..changed.clone() };
        let again = self.open.iter().position(|attempt| attempt.record == numbered(attempt));
        let attempt = match again {
            Some(at) => self.open.remove(at),
            None => {
                self.attempts += 1;
                Attempt { sent: now, record: Record { renewals: self.attempts, ..changed } }
            }
        };
        let record = attempt.record.clone();
        self.open.push(attempt);
        self.tried_at = now;
        // It may stand there from now on, and then another may write.
        self.gives_up |= record.released.is_some();
        Some(Try { revision: self.revision, record })
    }

    /// What came of the last [`Try`].
    pub fn answered(&mut self, now: Duration, answer: Answer) -> Result<(), Lost> {
        match answer {
            Answer::Done(revision) => match self.open.pop() {
                Some(attempt) => {
                    self.stands(now, revision, Attempt { sent: self.tried_at, ..attempt })
                }
                None => Ok(()),
            },
            Answer::Changed(Some((revision, record))) => self.read(now, revision, &record),
            Answer::Changed(None) | Answer::Unknown => self.in_time(now),
        }
    }

    /// The record was read, because an answer was lost or somebody has changed it.
    pub fn read(&mut self, now: Duration, revision: Revision, record: &Record) -> Result<(), Lost> {
        if revision == self.revision {
            return self.in_time(now); // What is on its way may still arrive.
        }
        match self.open.iter().find(|attempt| attempt.record == *record).cloned() {
            Some(attempt) => self.stands(now, revision, attempt),
            None => Err(Lost::Taken),
        }
    }

    /// All other members that have data were asked at `asked`, and each has agreed.
    pub fn all_agreed(&mut self, now: Duration, asked: Duration) -> Result<(), Lost> {
        self.in_time(now)?;
        self.good_since = self.good_since.max(asked);
        Ok(())
    }

    fn stands(&mut self, now: Duration, revision: Revision, done: Attempt) -> Result<(), Lost> {
        let gave_up = done.record.released.is_some();
        // A server that was stopped too late is stopped all the same: what it leaves may stand.
        if !gave_up {
            self.in_time(now)?;
        }
        self.record = done.record;
        self.revision = revision;
        self.good_since = self.good_since.max(done.sent);
        // None of the others can be done any more: they were for the revision before.
        self.open.clear();
        self.gives_up = gave_up;
        Ok(())
    }

    fn in_time(&self, now: Duration) -> Result<(), Lost> {
        let until = self.good_since + writes_for(self.record.lease());
        if self.gives_up || now < until { Ok(()) } else { Err(Lost::Late) }
    }
}
