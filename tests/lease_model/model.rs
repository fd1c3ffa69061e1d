//! What may happen, and what must hold whatever does.

use crate::acts::Outcome;
use crate::search::{self, Memory};
use crate::server::Step;
use crate::state::{Left, NODES, Names, Node, Rec, Set, State};
use pgherd::cluster::SyncMode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Time goes on; the clock of this one stands still meanwhile.
    Tick(Option<usize>),
    /// It reads the record, and tries to take the lead if it may.
    Look(usize),
    /// A person says: this one.
    Word(usize),
    /// Its request arrives, and the answer with it.
    Arrives(usize),
    /// Its request has no answer. It may arrive yet.
    NoAnswer(usize),
    ArrivesLate(usize),
    Renew(usize),
    ReadBack(usize),
    StartPrimary(usize),
    Promote(usize),
    Open(usize),
    GiveBack(usize),
    /// The next step of the sync set; a person may prefer a standby meanwhile.
    Synchronous(usize, Option<Node>),
    Write(usize),
    Acknowledge(usize),
    Stream(usize),
    Follow(usize),
    /// It stops its server, for that one.
    Stop(usize, Node),
    Release(usize),
    Crash(usize),
    Restart(usize),
    Pause(usize),
    Thaw(usize),
    Stall(usize),
    GoOn(usize),
    Cut(usize),
    Mend(usize),
    CutLink(Node),
    MendLink,
    Outage,
    OutageEnds,
}

/// Each is taken away once, and then something must go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guards {
    pub(crate) fence_before_the_lease_ends: bool,
    pub(crate) whole_lease_is_waited: bool,
    pub(crate) waits_after_agreement: bool,
    pub(crate) only_the_synchronous_take: bool,
    pub(crate) shrinks_in_the_record_first: bool,
    pub(crate) grows_in_postgres_first: bool,
    pub(crate) what_was_before_is_flushed: bool,
    pub(crate) swaps_only_what_was_seen: bool,
    pub(crate) opened_before_acknowledging: bool,
    pub(crate) released_stays_down: bool,
}

pub(crate) const ALL: Guards = Guards {
    fence_before_the_lease_ends: true,
    whole_lease_is_waited: true,
    waits_after_agreement: true,
    only_the_synchronous_take: true,
    shrinks_in_the_record_first: true,
    grows_in_postgres_first: true,
    what_was_before_is_flushed: true,
    swaps_only_what_was_seen: true,
    opened_before_acknowledging: true,
    released_stays_down: true,
};

/// Which faults there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) crash: bool,
    pub(crate) pause: bool,
    pub(crate) stall: bool,
    pub(crate) cut: bool,
    pub(crate) link: bool,
    pub(crate) answers: bool,
    pub(crate) outage: bool,
}

pub(crate) struct Herd {
    pub(crate) mode: SyncMode,
    pub(crate) guards: Guards,
    pub(crate) faults: Faults,
    /// To which of the nodes they happen.
    pub(crate) fail: Set,
    pub(crate) left: Left,
    pub(crate) writes_max: u8,
    pub(crate) timelines_max: u8,
    /// One may take a tick.
    pub(crate) slow_requests: bool,
    pub(crate) looks: Memory<Option<Rec>>,
    pub(crate) bits: Memory<bool>,
    pub(crate) steps: Memory<Option<Step>>,
}

impl search::Model for Herd {
    type State = State;
    type Action = Action;

    fn first(&self) -> State {
        State::first(self.left)
    }

    fn next(&self, state: &State) -> Vec<(Action, Result<State, String>)> {
        let mut found = Vec::new();
        for action in self.actions(state) {
            let Outcome::Leads(next) = self.after(state, action) else { continue };
            let next = next.normal();
            if next != *state {
                found.push((action, self.holds(state, &next).map(|()| next)));
            }
        }
        found
    }
}

impl Herd {
    /// All that might; `after` says what does.
    fn actions(&self, state: &State) -> Vec<Action> {
        let mut all = vec![Action::Tick(None)];
        all.push(if state.outage { Action::OutageEnds } else { Action::Outage });
        if state.left.slow_ticks > 0 {
            all.extend((0..NODES).map(|node| Action::Tick(Some(node))));
        }
        match state.cut_link {
            Some(_) => all.push(Action::MendLink),
            None => all.extend((0..NODES as Node).map(Action::CutLink)),
        }
        for node in 0..NODES {
            let one = &state.nodes[node];
            if !one.up {
                all.push(Action::Restart(node));
                continue;
            }
            if one.paused {
                all.push(Action::Thaw(node));
                continue;
            }
            all.extend([
                Action::Arrives(node),
                Action::NoAnswer(node),
                Action::ArrivesLate(node),
                Action::Write(node),
                Action::Acknowledge(node),
                Action::Stream(node),
                Action::Crash(node),
                Action::Pause(node),
                if one.cut { Action::Mend(node) } else { Action::Cut(node) },
                if one.stalled { Action::GoOn(node) } else { Action::Stall(node) },
            ]);
            if one.acts() {
                all.extend(self.own_acts(node, state));
            }
        }
        // What a dead or frozen node has sent may arrive.
        let silent = (0..NODES).filter(|node| !state.nodes[*node].up || state.nodes[*node].paused);
        all.extend(silent.map(Action::ArrivesLate));
        all
    }

    fn own_acts(&self, node: usize, state: &State) -> Vec<Action> {
        let mut all = vec![Action::Follow(node)];
        if state.nodes[node].hold.is_none() {
            all.extend([Action::Look(node), Action::Word(node)]);
            return all;
        }
        // Where it can, each tick sees to that; only its answer may be lost.
        if self.faults.answers && state.reaches_record(node) && state.left.faults > 0 {
            all.push(Action::Renew(node));
        }
        all.extend([
            Action::ReadBack(node),
            Action::StartPrimary(node),
            Action::Promote(node),
            Action::Open(node),
            Action::GiveBack(node),
            Action::Synchronous(node, None),
            Action::Release(node),
        ]);
        for other in (0..NODES).filter(|other| *other != node) {
            all.push(Action::Synchronous(node, Some(other as Node)));
            all.push(Action::Stop(node, other as Node));
        }
        all
    }

    fn holds(&self, before: &State, state: &State) -> Result<(), String> {
        let writers: Vec<_> = (0..NODES).filter(|node| state.nodes[*node].writes()).collect();
        if writers.len() > 1 {
            return Err(format!("{writers:?} take writes at once"));
        }
        // What was acknowledged last was acknowledged by what was true then.
        let lost = |node: &usize| {
            let one = &state.nodes[*node];
            one.names != Names::NoStandby && before.acknowledged & !one.has != 0
        };
        if self.mode != SyncMode::Off
            && let Some(node) = writers.iter().copied().find(lost)
        {
            return Err(format!("n{node} leads without an acknowledged write"));
        }
        Ok(())
    }
}

impl State {
    /// Somebody leads, and a client's write can be acknowledged (or waits for a standby by wish).
    pub(crate) fn is_led(&self) -> bool {
        self.nodes.iter().any(|one| {
            one.writes()
                && one.names != Names::NoStandby
                && one.hold.is_some_and(|hold| {
                    hold.record.before.is_none() && hold.record.released.is_none()
                })
        })
    }
}
