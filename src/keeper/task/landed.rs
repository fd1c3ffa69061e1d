//! What comes of a question to etcd: the record was read, changed, taken, or nobody answered.

use super::super::LeadError;
use super::super::flight::{self, Came, Landed, Read, Wrote};
use super::{Task, answer};
use crate::cluster::{SystemId, Timeline};
use crate::etcd::Expected;
use crate::lead::{Answer, Hold, Record};
use futures_util::future::FutureExt;
use std::time::Duration;
use tracing::{debug, info};

impl Task {
    pub(super) fn landed(&mut self, now: Duration, landed: Landed) {
        match landed {
            Landed::Looked(Ok((read, desired))) => {
                self.seen.unreachable = None;
                self.seen.desired = desired;
                self.read_first = false;
                self.read(now, read);
            }
            Landed::Looked(Err(why)) => self.silent(why),
            Landed::Desired(Ok(Came::Stands(desired))) => {
                self.seen.desired = desired;
                answer(self.reply.take(), Ok(()));
            }
            Landed::Desired(Ok(Came::Refused)) => answer(self.reply.take(), Err(LeadError::Last)),
            Landed::Desired(Ok(Came::Late)) => answer(self.reply.take(), Err(LeadError::Changed)),
            Landed::Desired(Err(why)) => {
                answer(self.reply.take(), Err(LeadError::Silent(why)));
            }
            Landed::Tried(wrote) => self.tried(now, wrote),
            Landed::Took(wrote) => self.took(now, wrote),
        }
    }

    pub(super) fn silent(&mut self, why: String) {
        if self.seen.unreachable.is_none() {
            debug!("the voters do not answer: {why}");
        }
        self.seen.unreachable = Some(why);
    }

    pub(super) fn read(&mut self, now: Duration, read: Read) {
        // Before anything is written: whoever starts after that must not found another cluster.
        if let Some(note) = &self.first_read
            && let Err(error) = note()
        {
            return self.silent(error);
        }
        self.first_read = None;
        if let Some((system, timeline)) = self.founds {
            return self.founded(now, read, system, timeline);
        }
        let Some((revision, record)) = read else {
            if self.hold.is_some() {
                return self.lose(now, "the record of who leads is gone");
            }
            return self.view.saw_nothing(now);
        };
        if let Some(hold) = &mut self.hold {
            if let Err(lost) = hold.read(now, revision, &record) {
                let why = lost.to_string();
                self.view.saw(now, revision, record);
                return self.lose(now, &why);
            }
            if hold.record.released.is_some() {
                self.hold = None; // The answer was lost, and it is done.
            }
            self.tell_guard();
        }
        self.view.saw(now, revision, record);
    }

    /// The voters have a majority for the first time while this node leads without them.
    pub(super) fn founded(
        &mut self,
        now: Duration,
        read: Read,
        system: SystemId,
        timeline: Timeline,
    ) {
        match read {
            None => {
                self.view.saw_nothing(now);
                let record = Record::found(&self.us, system, timeline);
                // The same once more: what was sent first may be what is done.
                let before = self.taking.take_if(|(ours, _)| *ours == record);
                self.taking = Some((record.clone(), before.map_or(now, |(_, sent)| sent)));
                let (client, keys, within) =
                    (self.client.clone(), self.keys.clone(), self.within());
                let wrote = flight::write(client, keys, Expected::Absent, record, within);
                self.flight = Some(wrote.map(Landed::Took).boxed());
            }
            Some((revision, record)) => {
                self.founds = None;
                if let Some((ours, sent)) = self.taking.take_if(|(ours, _)| *ours == record) {
                    // Its answer was lost. Late or not, it is ours.
                    let _ = self.holds(now, Hold::begun(ours, revision, sent));
                    self.view.saw(now, revision, record);
                } else {
                    self.view.saw(now, revision, record);
                    self.lose(now, "the voters know of a cluster that was made before this one");
                }
            }
        }
    }

    pub(super) fn tried(&mut self, now: Duration, wrote: Wrote) {
        let Some(hold) = &mut self.hold else { return };
        let (came, said) = match wrote {
            Wrote::Done(revision) => (Answer::Done(revision), Ok(())),
            Wrote::Changed(read) => (Answer::Changed(read), Err(LeadError::Changed)),
            Wrote::Unknown(why) => {
                self.read_first = true;
                (Answer::Unknown, Err(LeadError::Silent(why)))
            }
        };
        let seen = match &came {
            Answer::Changed(Some(read)) => Some(read.clone()),
            Answer::Done(_) | Answer::Changed(None) | Answer::Unknown => None,
        };
        let lost = hold.answered(now, came).err();
        let released = hold.record.released.is_some();
        let (record, revision) = (hold.record.clone(), hold.revision);
        match &said {
            Ok(()) => self.seen.unreachable = None,
            Err(LeadError::Silent(why)) => self.silent(why.clone()),
            Err(_) => {}
        }
        match lost {
            Some(lost) => {
                if let Some((revision, record)) = seen {
                    self.view.saw(now, revision, record);
                }
                self.lose(now, &lost.to_string());
            }
            // By this change, or by one before it whose answer was lost.
            None if released => {
                self.hold = None;
                self.view.saw(now, revision, record);
            }
            None => self.tell_guard(),
        }
        answer(self.reply.take(), said);
    }

    pub(super) fn took(&mut self, now: Duration, wrote: Wrote) {
        match wrote {
            Wrote::Done(revision) => {
                let Some((record, sent)) = self.taking.take() else { return };
                self.founds = None;
                self.view.saw(now, revision, record.clone());
                let said = self.holds(now, Hold::begun(record, revision, sent));
                answer(self.reply.take(), said);
            }
            Wrote::Changed(read) => {
                let ours = |(_, record): &(_, Record)| record.instance == self.us.instance;
                let was_done = read.as_ref().is_some_and(ours);
                self.read(now, read);
                self.taking = None;
                let said = match was_done {
                    true => LeadError::Silent("the answer was lost".to_owned()),
                    false => LeadError::Changed,
                };
                answer(self.reply.take(), Err(said));
            }
            // It is read back. Whoever claims it claims it again then, and may, if it is ours by now. Until
            // somebody does, it is not renewed: a lead that nobody does anything with would be nobody's for ever.
            Wrote::Unknown(why) => {
                self.read_first = true;
                self.silent(why.clone());
                answer(self.reply.take(), Err(LeadError::Silent(why)));
            }
        }
    }

    /// The record says that we lead.
    pub(super) fn holds(&mut self, now: Duration, hold: Hold) -> Result<(), LeadError> {
        info!("this node has the lead (epoch {})", hold.record.epoch);
        if !hold.may_write(now) {
            return Err(LeadError::Silent("the answer came too late".to_owned()));
        }
        self.hold = Some(hold);
        self.tell_guard();
        if self.hold.is_some() { Ok(()) } else { Err(LeadError::Unguarded(String::new())) }
    }
}
