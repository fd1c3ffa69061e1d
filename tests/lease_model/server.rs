//! What the servers do: start, promotion, the sync set, acknowledging, following, stopping.

use crate::model::Herd;
use crate::real::{self};
use crate::state::{Hold, NODES, Names, Node, One, Rec, Set, State};
use pgherd::cluster::{Lsn, SyncMode};
use pgherd::lead::{Change, sync};
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Record(Set),
    Postgres(Names),
}

impl Herd {
    pub(crate) fn start_primary(&self, next: &mut State, node: usize) -> Option<()> {
        let one = &mut next.nodes[node];
        let held = one.hold?;
        let mut judged = held;
        judged.gives_up &= self.guards.released_stays_down;
        (one.primary && !one.serves && self.may_write(&judged)).then_some(())?;
        one.serves = true;
        one.hands_to = None;
        if held.record.before.is_some() && self.guards.opened_before_acknowledging {
            one.names = Names::NoStandby;
        }
        one.since = one.has.count_ones() as u8;
        Some(())
    }

    pub(crate) fn promote(&self, next: &mut State, node: usize) -> Option<()> {
        let one = &mut next.nodes[node];
        let held = one.hold?;
        // Not while it is being given back.
        let settled = one.request.is_none() && held.open == [None; 3];
        (!one.primary && one.serves && settled && held.record.before.is_some()).then_some(())?;
        self.may_write(&held).then_some(())?;
        one.primary = true;
        one.timeline += 1;
        one.names = match self.guards.opened_before_acknowledging {
            true => Names::NoStandby,
            false => Names::Nobody,
        };
        one.since = one.has.count_ones() as u8;
        Some(())
    }

    pub(crate) fn synchronous(
        &self,
        next: &mut State,
        node: usize,
        preferred: Option<Node>,
    ) -> Option<()> {
        // Somebody who is preferred is about to be handed the lead.
        (preferred.is_none() || next.left.handovers > 0).then_some(())?;
        let one = next.nodes[node];
        let held = one.hold?;
        let settled = held.open == [None; 3] && held.current && one.request.is_none();
        (one.writes() && settled).then_some(())?;
        let streams = [0, 1, 2]
            .map(|other| (next.upstream(other) == Some(node)).then_some(next.nodes[other].has));
        let key = (held.record, one.names, one.since, one.has, streams, preferred);
        match self.steps.remembered(&key, || self.step(&one, &held, streams, preferred))? {
            Step::Record(set) => self.send(next, node, Change::Sync(real::names(set))),
            Step::Postgres(names) => {
                let one = &mut next.nodes[node];
                one.names = names;
                one.since = one.has.count_ones() as u8;
                Some(())
            }
        }
    }

    /// What is to be done about who is synchronous; `streams` is what those have who stream.
    pub(crate) fn step(
        &self,
        one: &One,
        held: &Hold,
        streams: [Option<u8>; NODES],
        preferred: Option<Node>,
    ) -> Option<Step> {
        real::hold(held, self.mode).is_open().then_some(())?;
        let standby = |(other, has): (usize, &Option<u8>)| {
            let flush = Lsn((*has)?.count_ones().into());
            Some(sync::StandbySeen {
                name: real::name(other as Node),
                streaming: true,
                is_sync: real::in_postgres(one.names).wait_for(&real::name(other as Node)),
                flush,
                replay: flush,
                flush_lag: None,
                replay_lag: None,
                eligible: true,
            })
        };
        let standbys: Vec<_> = streams.iter().enumerate().filter_map(standby).collect();
        let preferred = preferred.map(real::name);
        let steps = |record: &BTreeSet<String>, names: &sync::Names, since: u8| {
            sync::next(&sync::Seen {
                mode: self.mode,
                record,
                in_postgres: names,
                in_force_since: Some(Lsn(since.into())),
                written: Lsn(one.has.count_ones().into()),
                standbys: &standbys,
                limits: sync::Limits { bytes_max: 100, lag_max: Duration::from_secs(9) },
                preferred: preferred.as_deref(),
            })
        };
        let since = if self.guards.what_was_before_is_flushed { one.since } else { 0 };
        let (record, names) = (real::names(held.record.sync), real::in_postgres(one.names));
        let mut step = steps(&record, &names, since);
        if !self.guards.shrinks_in_the_record_first
            && let Some(early @ sync::Step::Postgres(_)) = steps(&BTreeSet::new(), &names, since)
        {
            step = Some(early);
        }
        if !self.guards.grows_in_postgres_first
            && let Some(sync::Step::Postgres(sync::Names::Only(name) | sync::Names::Both(_, name))) =
                &step
            && *name != sync::NO_STANDBY
        {
            step = Some(sync::Step::Record(BTreeSet::from([name.clone()])));
        }
        Some(match step? {
            sync::Step::Record(set) => Step::Record(real::set(&set)),
            sync::Step::Postgres(names) => Step::Postgres(real::written(&names)),
        })
    }

    pub(crate) fn acknowledge(&self, next: &mut State, node: usize) -> Option<()> {
        let one = &next.nodes[node];
        let write = one.waits.filter(|_| one.writes())?;
        let has_it = |standby: Node| {
            next.upstream(standby as usize) == Some(node)
                && next.nodes[standby as usize].has & write != 0
        };
        let reached = match one.names {
            Names::Nobody => true,
            Names::NoStandby => false,
            Names::Only(standby) => has_it(standby),
            Names::Both(first, second) => has_it(first) && has_it(second),
        };
        reached.then_some(())?;
        next.nodes[node].waits = None;
        next.acknowledged |= write;
        Some(())
    }

    /// A node follows whoever leads, by the record that it has seen; what the other has not, it
    /// loses.
    pub(crate) fn follow(&self, next: &mut State, node: usize) -> Option<()> {
        let one = next.nodes[node];
        let free = one.hold.is_none() && one.request.is_none() && next.reaches_record(node);
        free.then_some(())?;
        let leader: Rec = next.record;
        let theirs = next.nodes[leader.holder as usize];
        let open = leader.before.is_none() && leader.released.is_none();
        let leads = leader.holder as usize != node
            && open
            && theirs.writes()
            && theirs.timeline == leader.timeline
            && next.linked(node as Node, leader.holder);
        let behind = one.primary || one.timeline != theirs.timeline;
        (leads && behind && !(one.serves && one.primary)).then_some(())?;
        self.sees(next, node);
        let one = &mut next.nodes[node];
        one.primary = false;
        one.serves = true;
        one.timeline = theirs.timeline;
        one.has &= theirs.has;
        one.names = Names::Nobody;
        one.since = 0;
        one.waits = None;
        Some(())
    }

    pub(crate) fn stop(&self, next: &mut State, node: usize, to: Node) -> Option<()> {
        next.left.handovers = next.left.handovers.checked_sub(1)?;
        let streams = next.upstream(to as usize) == Some(node);
        let one = next.nodes[node];
        let held = one.hold.filter(|_| one.writes() && one.request.is_none())?;
        let settled = held.open == [None; 3] && held.current;
        let named = held.record.sync & (1 << to) != 0 || self.mode == SyncMode::Off;
        (streams && named && settled && held.record.before.is_none()).then_some(())?;
        // The server sends everything before it ends; a client that still waits hears nothing.
        next.nodes[to as usize].has |= one.has;
        let one = &mut next.nodes[node];
        (one.serves, one.waits, one.hands_to) = (false, None, Some(to));
        Some(())
    }
}
