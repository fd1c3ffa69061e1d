//! The others' side of the lease: when is it over, by our own clock?

use super::Why;
use super::record::Record;
use std::time::Duration;

/// What the store counts a key's changes with (`mod_revision`).
pub type Revision = u64;

/// What a node that does not lead has seen of the record. A process begins with an empty one, so
/// that the first sight counts as a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// What stood there last, at which revision.
    pub seen: Option<(Revision, Record)>,
    /// When we saw it for the first time.
    pub changed_at: Duration,
    /// When we looked last, and had an answer. None: never.
    pub read_at: Option<Duration>,
    /// When we told the holder last that it may go on without the record.
    pub agreed_at: Option<Duration>,
    /// Our own try to take the lead, if the record is still at this revision: it may have been done,
    /// or may be done yet.
    pub tries_at: Option<Revision>,
}

impl View {
    /// The record was read, and the answer came at `now`.
    pub fn saw(&mut self, now: Duration, revision: Revision, record: Record) {
        if self.tries_at.is_some_and(|tried| tried != revision) {
            self.tries_at = None;
        }
        self.read_at = Some(now);
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != revision) {
            self.changed_at = now;
            self.seen = Some((revision, record));
        }
    }

    /// There is no record.
    pub fn saw_nothing(&mut self, now: Duration) {
        *self = View { read_at: Some(now), ..View::default() };
    }

    /// What stood there last.
    pub fn record(&self) -> Option<&Record> {
        self.seen.as_ref().map(|(_, record)| record)
    }

    /// We try to take the lead: [`super::may_take`] allowed it, and the request is about to be sent,
    /// for this revision. From now on we agree to nothing, until the record is seen to have changed.
    pub fn tries(&mut self) -> Option<Revision> {
        self.tries_at = self.seen.as_ref().map(|(revision, _)| *revision);
        self.tries_at
    }

    /// The request surely never left.
    pub fn has_not_tried(&mut self) {
        self.tries_at = None;
    }

    /// `holder`, which took the lead as the `epoch`th, cannot reach the record, and asks whether it
    /// may go on. If so we wait a whole lease from now on.
    pub fn agree(&mut self, now: Duration, epoch: u64, holder: &str) -> Result<(), Why> {
        if self.tries_at.is_some() {
            return Err(Why::TriesItself);
        }
        if let Some(record) = self.record() {
            let same = record.epoch == epoch && record.holder == holder;
            // Further on than one taking: its record is another one than ours, which has begun anew.
            let is_another = record.epoch > epoch || epoch > record.epoch + 1;
            if is_another || (record.epoch == epoch && !same) || record.released.is_some() {
                return Err(Why::Succeeded { by: record.holder.clone(), epoch: record.epoch });
            }
        }
        self.agreed_at = Some(now);
        Ok(())
    }

    /// Whoever held the lead has stopped writing: a whole lease has passed since we saw the record
    /// change, and since we agreed to anything; or it was released.
    pub fn is_over(&self, now: Duration) -> bool {
        self.over_at().is_some_and(|over| over <= now)
    }

    /// When that was, or will be, if nothing happens until then. None: there is no record.
    pub fn over_at(&self) -> Option<Duration> {
        let record = self.record()?;
        if record.released.is_some() {
            return Some(self.changed_at);
        }
        Some(self.changed_at.max(self.agreed_at.unwrap_or_default()) + record.lease())
    }
}
