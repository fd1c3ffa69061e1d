//! From the model's small numbers to what the product decides with, and back.

use crate::state::{Hold, NODES, Names, Node, OLD, Rec, Set, View};
use pgherd::cluster::{Address, Lsn, NodeId, Role, SyncMode, SystemId, Timeline};
use pgherd::lead::{self, Attempt, Before, Candidate, Record, Released, Rival, Us, sync};
use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) const LEASE: Duration = Duration::from_secs(4);
/// Every clock says this, always: ages are counted from it.
pub(crate) const NOW: Duration = Duration::from_secs(100);
/// The revision of the record; everything else was before.
pub(crate) const PRESENT: u64 = 9;
const PAST: u64 = 8;

pub(crate) fn at(age: u8) -> Duration {
    NOW - Duration::from_secs(age.into())
}

fn age(instant: Duration) -> u8 {
    ((NOW - instant).as_secs() as u8).min(OLD)
}

pub(crate) fn revision(current: bool) -> u64 {
    if current { PRESENT } else { PAST }
}

pub(crate) fn name(node: Node) -> String {
    ["n0", "n1", "n2"][node as usize].to_owned()
}

pub(crate) fn node(name: &str) -> Node {
    name.as_bytes()[1] - b'0'
}

pub(crate) fn names(set: Set) -> BTreeSet<String> {
    (0..NODES as Node).filter(|node| set & (1 << node) != 0).map(name).collect()
}

pub(crate) fn set(names: &BTreeSet<String>) -> Set {
    names.iter().fold(0, |set, name| set | (1 << node(name)))
}

fn address(node: Node) -> Address {
    Address { host: name(node), port: 5432 }
}

/// Lives of one node need no names here: what an earlier one has sent is of an epoch before.
pub(crate) fn us(node: Node, mode: SyncMode) -> Us {
    Us {
        name: name(node),
        address: address(node),
        instance: String::new(),
        lease: LEASE,
        synchronous: mode,
    }
}

pub(crate) fn record(rec: &Rec, mode: SyncMode) -> Record {
    let released =
        rec.released.map(|(to, at)| Released { to: to.map(name), at: at.map(|at| Lsn(at.into())) });
    Record {
        holder: name(rec.holder),
        address: address(rec.holder),
        instance: String::new(),
        epoch: rec.epoch.into(),
        renewals: rec.renewals.into(),
        lease_ms: 4000,
        system: SystemId(7),
        timeline: Timeline(rec.timeline.into()),
        synchronous: mode,
        sync: names(rec.sync),
        promoting: rec.before.map(|node| Before { holder: name(node), address: address(node) }),
        released,
    }
}

pub(crate) fn rec(record: &Record) -> Rec {
    let released = record.released.as_ref();
    Rec {
        holder: node(&record.holder),
        epoch: record.epoch as u8,
        renewals: record.renewals as u8,
        timeline: record.timeline.0 as u8,
        sync: set(&record.sync),
        before: record.promoting.as_ref().map(|before| node(&before.holder)),
        released: released.map(|one| (one.to.as_deref().map(node), one.at.map(|at| at.0 as u8))),
    }
}

pub(crate) fn view(view: &View, mode: SyncMode) -> lead::View {
    lead::View {
        seen: view.seen.map(|seen| (revision(view.current), record(&seen, mode))),
        changed_at: at(view.changed),
        read_at: None, // Never before what it does next.
        agreed_at: view.agreed.map(at),
        tries_at: view.tries.map(revision),
    }
}

/// After it has looked: the record is the present one.
pub(crate) fn seen(view: &lead::View) -> View {
    View {
        seen: view.record().map(rec),
        current: view.seen.as_ref().is_some_and(|(revision, _)| *revision == PRESENT),
        changed: age(view.changed_at),
        agreed: view.agreed_at.map(age).filter(|age| *age < OLD),
        tries: view.tries_at.map(|tried| tried == PRESENT),
    }
}

pub(crate) fn hold(hold: &Hold, mode: SyncMode) -> lead::Hold {
    let open = hold.open.iter().flatten();
    lead::Hold {
        record: record(&hold.record, mode),
        revision: revision(hold.current),
        good_since: at(hold.good),
        tried_at: at(hold.tried),
        open: open
            .map(|(sent, one)| Attempt { sent: at(*sent), record: record(one, mode) })
            .collect(),
        gives_up: hold.gives_up,
        attempts: hold.attempts.into(),
    }
}

pub(crate) fn held(hold: &lead::Hold) -> Hold {
    let mut open = [None; 3];
    for (place, attempt) in open.iter_mut().zip(&hold.open) {
        *place = Some((age(attempt.sent), rec(&attempt.record)));
    }
    assert!(hold.open.len() <= open.len(), "more is on its way than there are kinds of changes");
    Hold {
        record: rec(&hold.record),
        current: hold.revision == PRESENT,
        good: age(hold.good_since),
        tried: age(hold.tried_at),
        open,
        gives_up: hold.gives_up,
        attempts: hold.attempts as u8,
    }
}

pub(crate) fn candidate(node: Node, primary: bool, timeline: u8, has: u8) -> Candidate {
    Candidate {
        name: name(node),
        id: NodeId::try_from(u32::from(node) + 1).ok(),
        system: SystemId(7),
        role: if primary { Role::Primary } else { Role::Standby },
        timeline: Timeline(timeline.into()),
        lsn: Lsn(has.count_ones().into()),
        priority: 100,
        complete: true,
    }
}

/// Who, whether its server serves, and its data if it answers.
pub(crate) type RivalSays = (Node, bool, Option<(bool, u8, u8)>);

pub(crate) fn rival((other, running, says): RivalSays) -> Rival {
    let says = says.map(|(primary, timeline, has)| candidate(other, primary, timeline, has));
    Rival { name: name(other), says, running }
}

pub(crate) fn in_postgres(names: Names) -> sync::Names {
    match names {
        Names::Nobody => sync::Names::Nobody,
        Names::Only(node) => sync::Names::Only(name(node)),
        Names::Both(first, second) => sync::Names::Both(name(first), name(second)),
        Names::NoStandby => sync::Names::Only(sync::NO_STANDBY.to_owned()),
    }
}

pub(crate) fn written(names: &sync::Names) -> Names {
    match names {
        sync::Names::Only(name) if name == sync::NO_STANDBY => Names::NoStandby,
        sync::Names::Only(name) => Names::Only(node(name)),
        sync::Names::Both(first, second) => Names::Both(node(first), node(second)),
        sync::Names::Nobody | sync::Names::Other => Names::Nobody,
    }
}
