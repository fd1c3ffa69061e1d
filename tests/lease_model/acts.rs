//! What each action does. Everything that is decided is decided by `pgherd::lead`.

use crate::model::{Action, Herd};
use crate::real::{self, LEASE, NOW, PRESENT, RivalSays};
use crate::state::{Hold, NODES, Node, OLD, Rec, Request, State};
use pgherd::cluster::Lsn;
use pgherd::lead::{self, Answer, Ask, Change, Desired, Rival, may_take};

#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Outcome {
    Cannot,
    Leads(State),
}

impl Herd {
    pub(crate) fn after(&self, state: &State, action: Action) -> Outcome {
        match self.done(state, action) {
            Some(next) => Outcome::Leads(next),
            None => Outcome::Cannot,
        }
    }

    fn done(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Tick(slow) => self.tick(&mut next, slow)?,
            Action::Look(node) => self.look(&mut next, node, Ask::ByRule)?,
            Action::Word(node) => {
                next.left.words = next.left.words.checked_sub(1)?;
                self.look(&mut next, node, Ask::Person { allow_data_loss: false })?;
                next.nodes[node].request?;
            }
            Action::Arrives(node) => self.arrives(&mut next, node)?,
            Action::NoAnswer(node) => self.no_answer(&mut next, node)?,
            Action::ArrivesLate(node) => {
                let late = next.nodes[node].late.take()?;
                (!next.outage).then_some(())?;
                next.changes_to(late);
            }
            Action::Renew(node) => self.renew(&mut next, node)?,
            Action::ReadBack(node) => self.read_back(&mut next, node)?,
            Action::StartPrimary(node) => self.start_primary(&mut next, node)?,
            Action::Promote(node) => self.promote(&mut next, node)?,
            Action::Open(node) => {
                let (one, hold) = (&next.nodes[node], next.nodes[node].hold?);
                hold.record.before.filter(|_| one.writes())?;
                let timeline = pgherd::cluster::Timeline(one.timeline.into());
                self.send(&mut next, node, Change::Open(timeline))?;
            }
            Action::GiveBack(node) => {
                next.left.failed_promotions = next.left.failed_promotions.checked_sub(1)?;
                let one = &next.nodes[node];
                (!one.primary && one.hold?.record.before.is_some()).then_some(())?;
                self.send(&mut next, node, Change::GiveBack)?;
            }
            Action::Synchronous(node, preferred) => self.synchronous(&mut next, node, preferred)?,
            Action::Write(node) => {
                let bit = 1 << next.writes;
                let one = &mut next.nodes[node];
                (one.writes() && one.waits.is_none() && state.writes < self.writes_max)
                    .then_some(())?;
                one.has |= bit;
                one.waits = Some(bit);
                next.writes += 1;
            }
            Action::Acknowledge(node) => self.acknowledge(&mut next, node)?,
            Action::Stream(node) => {
                let theirs = next.nodes[next.upstream(node)?].has;
                let missing = theirs & !next.nodes[node].has;
                (missing != 0).then_some(())?;
                next.nodes[node].has |= 1 << missing.trailing_zeros();
            }
            Action::Follow(node) => self.follow(&mut next, node)?,
            Action::Stop(node, to) => self.stop(&mut next, node, to)?,
            Action::Release(node) => {
                let one = &next.nodes[node];
                let to = one.hands_to.filter(|_| !one.serves)?;
                // It has seen that the other has it all.
                (one.has & !next.nodes[to as usize].has == 0).then_some(())?;
                let at = Lsn(one.has.count_ones().into());
                self.send(&mut next, node, Change::Release { to: Some(real::name(to)), at })?;
            }
            Action::Crash(_)
            | Action::Restart(_)
            | Action::Pause(_)
            | Action::Thaw(_)
            | Action::Stall(_)
            | Action::GoOn(_)
            | Action::Cut(_)
            | Action::Mend(_)
            | Action::CutLink(_)
            | Action::MendLink
            | Action::Outage
            | Action::OutageEnds => self.weather(&mut next, action)?,
        }
        Some(next)
    }

    /// Time goes on for everybody, or for all but one. Before it does, whoever is well has looked, and
    /// renewed if that was due, and what was sent has arrived (or what was sent before the last
    /// tick, where requests are slow): all else is a fault.
    fn tick(&self, next: &mut State, slow: Option<usize>) -> Option<()> {
        if slow.is_some() {
            next.left.slow_ticks = next.left.slow_ticks.checked_sub(1)?;
        }
        for node in (0..NODES).filter(|node| next.nodes[*node].acts()).collect::<Vec<_>>() {
            if next.nodes[node].hold.is_some() && !next.reaches_record(node) {
                self.renew(next, node);
                self.ask(next, node);
            }
        }
        let well = |next: &State, node: usize| next.nodes[node].acts() && next.reaches_record(node);
        for node in (0..NODES).filter(|node| well(next, *node)).collect::<Vec<_>>() {
            let one = &next.nodes[node];
            if one.request.is_some_and(|request| !self.slow_requests || request.sent >= 1) {
                return None;
            }
            if one.hold.is_some() && one.request.is_none() {
                self.read_back(next, node);
                if self.renew(next, node).is_some() {
                    self.arrives(next, node)?;
                }
            }
        }
        for node in (0..NODES).filter(|node| well(next, *node)).collect::<Vec<_>>() {
            if !next.nodes[node].view.current {
                self.sees(next, node);
            }
        }
        for node in (0..NODES).filter(|node| Some(*node) != slow) {
            let one = &mut next.nodes[node];
            one.view.changed = older(one.view.changed);
            one.view.agreed = one.view.agreed.map(older).filter(|age| *age < OLD);
            if let Some(request) = &mut one.request {
                request.sent = older(request.sent);
            }
            if let Some(hold) = &mut one.hold {
                for age in [&mut hold.good, &mut hold.tried] {
                    *age = older(*age);
                }
                hold.open.iter_mut().flatten().for_each(|(sent, _)| *sent = older(*sent));
            }
        }
        (0..NODES).for_each(|node| self.fence_now(next, node));
        Some(())
    }

    /// PID 1 sees the deadline pass. A thawed node's does so before its server takes a write.
    pub(crate) fn fence_now(&self, next: &mut State, node: usize) {
        let one = &mut next.nodes[node];
        if !one.up || one.paused || !self.guards.fence_before_the_lease_ends {
            return;
        }
        let over = one.hold.is_none_or(|hold| !hold.gives_up && !self.may_write(&hold));
        if over && (one.hold.is_some() || one.serves && one.primary) {
            one.is_fenced();
        }
    }

    fn look(&self, next: &mut State, node: usize, ask: Ask) -> Option<()> {
        let one = &next.nodes[node];
        (one.request.is_none() && next.reaches_record(node)).then_some(())?;
        let mut view = self.sees(next, node);
        let may_promote = next.nodes[node].primary || next.record.timeline < self.timelines_max;
        may_promote.then_some(())?;
        let one = &next.nodes[node];
        let rivals: Vec<_> = (0..NODES).map(|other| rival(next, node, other)).collect();
        let own = (node, one.primary, one.timeline, one.has, one.view, next.record);
        let key = (own, &rivals, ask == Ask::ByRule);
        // Where it may not, it has seen the record; so it does before each tick.
        let record = self.looks.remembered(&key, || self.takes(next, node, &view, ask))?;
        view.tries();
        let one = &mut next.nodes[node];
        one.view = real::seen(&view);
        one.request = Some(Request { record, current: true, takes: true, sent: 0 });
        Some(())
    }

    /// What is to stand in the record, if it may take the lead.
    pub(crate) fn takes(
        &self,
        state: &State,
        node: usize,
        view: &lead::View,
        ask: Ask,
    ) -> Option<Rec> {
        let one = &state.nodes[node];
        let us = real::candidate(node as Node, one.primary, one.timeline, one.has);
        let others: Vec<Rival> =
            (0..NODES).filter_map(|other| rival(state, node, other)).map(real::rival).collect();
        let mut judged = view.clone();
        let mut now = NOW;
        if !self.guards.whole_lease_is_waited {
            now += LEASE / 2;
            judged.read_at = Some(now);
        }
        if !self.guards.waits_after_agreement {
            judged.agreed_at = None;
        }
        let ask = match (ask, self.guards.only_the_synchronous_take) {
            (_, false) => Ask::Person { allow_data_loss: true },
            (ask, true) => ask,
        };
        let taking = may_take(&us, &judged, &Desired::default(), &others, ask, now).ok()?;
        let ours = real::us(node as Node, self.mode);
        Some(real::rec(&view.record()?.taken_by(&ours, taking)))
    }

    /// It reads the record.
    pub(crate) fn sees(&self, next: &mut State, node: usize) -> lead::View {
        let mut view = real::view(&next.nodes[node].view, self.mode);
        view.saw(NOW, PRESENT, real::record(&next.record, self.mode));
        next.nodes[node].view = real::seen(&view);
        view
    }

    fn arrives(&self, next: &mut State, node: usize) -> Option<()> {
        let one = &next.nodes[node];
        let request = one.request?;
        (next.reaches_record(node) && !one.stalled).then_some(())?;
        let swaps = request.current || !self.guards.swaps_only_what_was_seen;
        if swaps {
            next.changes_to(request.record);
        }
        let present = next.record;
        let one = &mut next.nodes[node];
        one.request = None;
        let mut view = real::view(&one.view, self.mode);
        if swaps && request.takes {
            view.saw(NOW, PRESENT, real::record(&present, self.mode));
            one.view = real::seen(&view);
            one.hold = Some(Hold::begun(request.record, request.sent));
            self.fence_now(next, node); // It may be late already.
            return Some(());
        }
        if request.takes {
            return Some(()); // It looks again.
        }
        let answer = match swaps {
            true => Answer::Done(PRESENT),
            false => Answer::Changed(Some((PRESENT, real::record(&present, self.mode)))),
        };
        self.told(next, node, |hold| hold.answered(NOW, answer))
    }

    /// The holder hears something, and what it holds then is what it sees.
    fn told(
        &self,
        next: &mut State,
        node: usize,
        hears: impl FnOnce(&mut lead::Hold) -> Result<(), lead::Lost>,
    ) -> Option<()> {
        let present = next.record;
        let one = &mut next.nodes[node];
        let mut hold = real::hold(&one.hold?, self.mode);
        if hears(&mut hold).is_err() {
            one.is_fenced();
            return Some(());
        }
        let held = real::held(&hold);
        one.hold = Some(held);
        if held.current && held.record == present {
            let mut view = real::view(&one.view, self.mode);
            view.saw(NOW, PRESENT, real::record(&present, self.mode));
            one.view = real::seen(&view);
        }
        if held.record.released.is_some() {
            one.hold = None; // It is somebody else's.
            one.hands_to = None;
            one.late = None;
        }
        Some(())
    }

    fn no_answer(&self, next: &mut State, node: usize) -> Option<()> {
        let one = &next.nodes[node];
        let request = one.request?;
        if next.reaches_record(node) {
            self.faults.answers.then_some(())?;
            next.left.faults = next.left.faults.checked_sub(1)?;
        }
        let one = &mut next.nodes[node];
        one.request = None;
        if request.current {
            one.late = Some(request.record);
        }
        if request.takes {
            return Some(());
        }
        self.told(next, node, |hold| hold.answered(NOW, Answer::Unknown))
    }

    pub(crate) fn send(&self, next: &mut State, node: usize, change: Change) -> Option<()> {
        let one = &next.nodes[node];
        let held = one.hold.filter(|_| one.request.is_none())?;
        if !matches!(change, Change::Renew | Change::Release { .. }) {
            // One thing after the other: what is on its way is awaited first.
            (held.open == [None; 3] && held.current).then_some(())?;
        }
        let reaches = next.reaches_record(node);
        if !reaches && change != Change::Renew {
            return None;
        }
        let mut hold = real::hold(&held, self.mode);
        let sent = hold.sends(NOW, change)?;
        let record = real::rec(&sent.record);
        let one = &mut next.nodes[node];
        one.hold = Some(real::held(&hold));
        if reaches {
            one.request = Some(Request { record, current: held.current, takes: false, sent: 0 });
            return Some(());
        }
        self.told(next, node, |hold| hold.answered(NOW, Answer::Unknown))
    }

    pub(crate) fn renews(&self, hold: &Hold) -> bool {
        self.bits.remembered(&(0, hold), || real::hold(hold, self.mode).renew_at() <= NOW)
    }

    pub(crate) fn may_write(&self, hold: &Hold) -> bool {
        self.bits.remembered(&(1, hold), || real::hold(hold, self.mode).may_write(NOW))
    }

    fn renew(&self, next: &mut State, node: usize) -> Option<()> {
        let hold = next.nodes[node].hold?;
        (!hold.gives_up && self.renews(&hold)).then_some(())?;
        self.send(next, node, Change::Renew)
    }

    fn read_back(&self, next: &mut State, node: usize) -> Option<()> {
        let one = &next.nodes[node];
        let held = one.hold?;
        let asks = one.request.is_none() && next.reaches_record(node);
        (asks && (!held.current || held.open != [None; 3])).then_some(())?;
        let present = real::record(&next.record, self.mode);
        self.told(next, node, |hold| hold.read(NOW, PRESENT, &present))
    }

    fn ask(&self, next: &mut State, node: usize) -> Option<()> {
        let held = next.nodes[node].hold?;
        (!held.gives_up && !next.reaches_record(node)).then_some(())?;
        let hold = real::hold(&held, self.mode);
        (hold.ask_at() <= NOW).then_some(())?;
        let mut all = true;
        for other in (0..NODES).filter(|other| *other != node) {
            let theirs = &next.nodes[other];
            if !theirs.acts() || !next.linked(node as Node, other as Node) {
                all = false;
                continue;
            }
            let mut view = real::view(&theirs.view, self.mode);
            let agreed = view.agree(NOW, hold.record.epoch, &hold.record.holder).is_ok();
            if agreed {
                next.nodes[other].view.agreed = Some(0);
            }
            all &= agreed;
        }
        if all {
            self.told(next, node, |hold| hold.all_agreed(NOW, NOW))?;
        }
        Some(())
    }
}

/// What another says of itself: silent or not, whether it runs, and its data.
pub(crate) fn rival(state: &State, node: usize, other: usize) -> Option<RivalSays> {
    let theirs = &state.nodes[other];
    let answers = state.linked_to(node, other) && theirs.acts();
    let says = answers.then_some((theirs.primary, theirs.timeline, theirs.has));
    (other != node).then_some((other as Node, theirs.serves, says))
}

pub(crate) fn older(age: u8) -> u8 {
    (age + 1).min(OLD)
}
