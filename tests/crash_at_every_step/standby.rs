//! The steps of a node that follows another. Those that change more than one thing, one after the
//! other, can be stopped after so many `changes`.

use crate::elsewhere::Record;
use crate::world::{Data, Done, Failure, Fault, Way, Work, World, must};
use pgherd::service::Listen;

impl World {
    /// A slot, some of the files, all of them.
    pub(crate) const COPY_HALVES: usize = 3;
    /// At most: `PG_VERSION`, then the rest move out, and are discarded; what moves in has another
    /// name; the rest, then `PG_VERSION` move in; the mark of a rewind goes.
    pub(crate) const MOVE_HALVES: usize = 7;
    /// The mark; a recovery that ended; files of both.
    pub(crate) const REWIND_HALVES: usize = 3;
    /// A slot; what the server reads.
    pub(crate) const FOLLOW_HALVES: usize = 2;

    /// The slot's name has the node's number in it, and without one the first node's.
    fn slot(&self) -> &'static str {
        if self.id { "repmgr_slot_2" } else { "repmgr_slot_1" }
    }

    fn upstream(&self) -> Result<u32, Fault> {
        self.upstream.ok_or("it is not known who leads".into())
    }

    pub(crate) fn claim_identity(&mut self) -> Done {
        let upstream = Some(self.upstream()?);
        let records = &mut self.elsewhere()?.record;
        records.get_or_insert(Record { active: false, upstream });
        self.id = true;
        Ok(())
    }

    pub(crate) fn take_copy(&mut self, changes: usize) -> Done {
        let upstream = self.upstream()?;
        must(self.work.clone.is_none(), "what is left of a copy is in the way")?;
        must(self.server.is_none(), "a server runs on what will be replaced")?;
        let slot = self.slot();
        let elsewhere = self.elsewhere()?;
        elsewhere.slots.insert(slot);
        let copy = Data {
            initialised: true,
            on_disk: true,
            is_standby: elsewhere.copies_have_a_signal,
            follows: Some(upstream),
            configured: false, // Somebody else's name and address are in it.
            slots: false,
            asks_archive: elsewhere.archives,
            ..elsewhere.content.clone()
        };
        match changes {
            1 => {}
            2 => self.work.clone = Some(Data { garbage: true, ..copy }),
            3 => self.work.clone = Some(copy),
            _ => {
                must(self.work.cloned.is_none(), "a complete copy is in the way")?;
                self.work.cloned = Some(copy);
            }
        }
        Ok(())
    }

    pub(crate) fn move_in(&mut self, changes: usize) -> Done {
        must(self.server.is_none(), "files are moved under a server")?;
        for _ in 0..changes {
            let is_done = self.work.cloned.is_none() && self.work.moving_in.is_none();
            if is_done {
                return must(self.data.is_some(), "there is nothing to move in");
            }
            self.move_once()?;
        }
        Ok(())
    }

    /// The next change, as `postgres::copy::swap` has them.
    fn move_once(&mut self) -> Done {
        let World { data, rewinding, work: Work { clone, cloned, moving_in, old }, .. } = self;
        if let Some(moving) = moving_in {
            if !moving.missing {
                *data = Some(Data { initialised: false, missing: true, ..moving.clone() });
                moving.missing = true;
            } else if moving.initialised {
                *data = Some(Data { initialised: true, missing: false, ..moving.clone() });
                moving.initialised = false;
            } else if *rewinding {
                *rewinding = false;
            } else {
                *moving_in = None;
            }
            return Ok(());
        }
        let Some(out) = data else {
            match clone {
                Some(_) => *clone = None,
                None => *moving_in = cloned.take(),
            }
            return Ok(());
        };
        let first = match old {
            Some(old) if out.initialised && old.initialised => {
                // It was to replace that, and is replaced itself.
                let kept = old.is_worth_keeping() || !out.is_worth_keeping();
                must(kept, "what only this node has is thrown away")?;
                clone
            }
            Some(_) if out.initialised => {
                *old = None; // What is left of one that was being discarded.
                return Ok(());
            }
            _ if clone.is_some() => clone,
            _ => old,
        };
        match first {
            None => {
                *first = Some(Data { missing: true, ..out.clone() });
                out.initialised = false;
                out.missing = true;
            }
            Some(out) => {
                out.missing = false;
                *data = None;
            }
        }
        Ok(())
    }

    pub(crate) fn fence(&mut self) -> Done {
        if self.server.take().is_some() {
            let in_order = !self.is_killed_first;
            let data = self.data()?;
            data.shut_down = data.is_standby && in_order;
        }
        Ok(())
    }

    pub(crate) fn end_in_order(&mut self) -> Done {
        must(self.server.is_none(), "two servers on one directory")?;
        must(!self.rewinding, "half of a rewound directory is started")?;
        let leads_elsewhere = self.elsewhere.is_some();
        let data = self.data()?;
        must(data.is_standby || !leads_elsewhere, "it takes writes beside the primary")?;
        data.shut_down = true;
        Ok(())
    }

    pub(crate) fn rewind(&mut self, changes: usize) -> Done {
        self.upstream()?;
        must(self.server.is_none(), "a server runs on what is rewound")?;
        let data = self.data()?;
        let whole = data.initialised && !data.garbage && !data.missing;
        must(whole, "half of a cluster is rewound")?;
        // It would end its recovery and write on the primary's timeline (tried).
        must(!data.is_standby || data.shut_down, "a crashed standby is recovered as a primary")?;
        self.rewinding = true;
        let source = self.elsewhere()?.clone();
        let data = self.data()?;
        if changes >= 2 {
            data.shut_down = true;
        }
        if changes >= 3 {
            // All but the tables is the source's, and that is no standby.
            let slots = data.slots;
            let rewound = Data { slots, configured: false, ..source.content };
            *data = Data { garbage: true, initialised: true, on_disk: true, ..rewound };
        }
        if changes > World::REWIND_HALVES {
            if source.rewind_fails {
                return Err(Fault::Fails(Failure::Rewind));
            }
            data.garbage = false;
            data.shut_down = true;
        }
        Ok(())
    }

    pub(crate) fn follow(&mut self, drop_slots: bool, changes: usize) -> Done {
        let upstream = self.upstream()?;
        let (slot, runs) = (self.slot(), self.server.is_some());
        self.elsewhere()?.slots.insert(slot);
        if changes == 1 {
            return Ok(());
        }
        let data = self.data()?;
        must(!data.garbage, "half of something is made a standby")?;
        data.follows = Some(upstream);
        if runs {
            return must(data.is_standby, "a primary that runs cannot follow");
        }
        data.is_standby = true;
        data.slots &= !drop_slots;
        self.rewinding &= changes == 2;
        Ok(())
    }

    pub(crate) fn ask_archive(&mut self) -> Done {
        let archives = self.elsewhere()?.archives;
        let data = self.asked()?;
        if data.way == Way::WalGone {
            if !archives {
                return Err(Fault::Fails(Failure::NotArchived));
            }
            data.asks_archive = true;
        }
        Ok(())
    }

    pub(crate) fn await_replay(&mut self) -> Done {
        let (upstream, slot) = (self.upstream()?, self.slot());
        let elsewhere = self.elsewhere()?;
        let (has_slot, archives) = (elsewhere.slots.contains(slot), elsewhere.archives);
        let data = self.asked()?;
        must(data.is_standby, "a primary replays nothing")?;
        let from_archive = std::mem::take(&mut data.asks_archive);
        match data.way {
            Way::Forked => return Err(Fault::Fails(Failure::Forked)),
            Way::WalGone if !(from_archive && archives) => {
                return Err(Fault::Fails(Failure::WalGone));
            }
            Way::WalGone | Way::Same => data.way = Way::Same,
        }
        must(data.follows == Some(upstream) && has_slot, "it streams from nobody")?;
        data.streamed = true;
        data.timeline = upstream;
        Ok(())
    }

    pub(crate) fn register_standby(&mut self) -> Done {
        must(self.files.contains("repmgr.conf"), "repmgr needs its configuration")?;
        must(self.asked()?.streamed, "its record would never come here")?;
        let upstream = Some(self.upstream()?);
        self.elsewhere()?.record = Some(Record { active: true, upstream });
        Ok(())
    }

    pub(crate) fn discard_old(&mut self) -> Done {
        let serves = matches!(self.server, Some(Listen::Consumer { .. }));
        let is_kept = self.work.old.is_some();
        let data = self.data()?;
        let is_good = data.streamed || (data.in_place && serves);
        must(!is_kept || is_good, "old data goes before what replaced it streams")?;
        data.in_place = false;
        self.work.old = None;
        Ok(())
    }

    /// repmgr's records have this node as what it is.
    pub(crate) fn is_recorded(&self) -> bool {
        match &self.elsewhere {
            None => self.data.as_ref().is_some_and(|data| data.registered),
            Some(elsewhere) => {
                let upstream = Some(elsewhere.generation);
                elsewhere.record == Some(Record { active: true, upstream })
            }
        }
    }

    /// Nothing is left to be done by the rules of a running node.
    pub(crate) fn is_settled(&self) -> bool {
        let Some(elsewhere) = &self.elsewhere else { return true };
        let leads = Some(elsewhere.generation);
        let watched = !self.helpers.is_empty();
        let follows = self.data.as_ref().is_some_and(|data| data.follows == leads);
        follows && self.is_recorded() && watched && self.work.old.is_none()
    }
}
