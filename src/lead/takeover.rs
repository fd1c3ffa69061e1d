//! Who may take the lead. The rules stand in [`may_take`], in their order.

use super::desired::Desired;
use super::lease::look_every;
use super::record::Record;
use super::view::View;
use super::why::Why;
use crate::cluster::{Lsn, NodeId, Role, SyncMode, SystemId, Timeline};
use std::cmp::Reverse;
use std::time::Duration;

/// A node with data, as far as leading goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// `REPMGR_NODE_NAME`.
    pub name: String,
    /// repmgr's number.
    pub id: Option<NodeId>,
    /// What its directory is a copy of.
    pub system: SystemId,
    /// What its directory is, or its server does.
    pub role: Role,
    /// On which branch of history.
    pub timeline: Timeline,
    /// What it has on its disk: received and flushed, whether it was replayed or not.
    pub lsn: Lsn,
    /// `REPMGR_NODE_PRIORITY`; 0 is never chosen.
    pub priority: u32,
    /// It has been seen to have all that its primary had, since it was copied.
    pub complete: bool,
}

/// Another member with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// `REPMGR_NODE_NAME`, or its address where only that is known.
    pub name: String,
    /// What it says of itself. None: it is silent, or has no data yet.
    pub says: Option<Candidate>,
    /// Its server serves, so it could take the lead just now.
    pub running: bool,
}

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The node itself.
    ByRule,
    /// A person, and this very node.
    Person {
        /// Acknowledged writes may be lost.
        allow_data_loss: bool,
    },
}

/// How the lead is taken. First the record ([`Record::taken_by`]), then the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// It was ours, and our directory is a primary's: start it and go on. Before it is opened,
    /// Postgres' setting must name whom `record.sync` names, if anybody.
    Resume,
    /// Our directory is a primary's, and the record does not say so yet: start it so that commits
    /// wait, then [`Record::opened`].
    Open,
    /// We are a standby: let commits wait, promote, then [`Record::opened`].
    Promote,
}

/// Whether we may take the lead just now. Then try it: for the revision that `view` has seen, with
/// [`View::tries`].
pub fn may_take(
    us: &Candidate,
    view: &View,
    desired: &Desired,
    others: &[Rival],
    ask: Ask,
    now: Duration,
) -> Result<Taking, Why> {
    let record = view.record().ok_or(Why::NoRecord)?;
    if view.read_at.is_none_or(|read| read + look_every(record.lease()) < now) {
        return Err(Why::NotRead);
    }
    is_able(us, record, desired, ask)?;
    is_free(us, record, view, now)?;
    let has_all = has_everything(us, record, desired, others, view, now);
    if ask != (Ask::Person { allow_data_loss: true }) {
        has_all?;
    }
    if ask == Ask::ByRule {
        may_have_opened(us, record)?;
        goes_first(us, record, desired, others, view, now)?;
    }
    Ok(match us.role {
        Role::Standby => Taking::Promote,
        Role::Primary if goes_on(us, record) => Taking::Resume,
        Role::Primary => Taking::Open,
    })
}

/// It led, and nothing has happened since.
fn goes_on(us: &Candidate, record: &Record) -> bool {
    record.holder == us.name && record.promoting.is_none() && record.timeline == us.timeline
}

fn is_able(us: &Candidate, record: &Record, desired: &Desired, ask: Ask) -> Result<(), Why> {
    let name = || us.name.clone();
    if us.system != record.system {
        return Err(Why::OtherCluster { us: name(), ours: us.system, theirs: record.system });
    }
    if !us.complete && ask != (Ask::Person { allow_data_loss: true }) {
        return Err(Why::Behind { us: name() });
    }
    if ask != Ask::ByRule {
        return Ok(());
    }
    if desired.paused && !is_released_to(us, record) {
        return Err(Why::Paused { us: name() });
    }
    // Who leads goes on leading, whatever it would be chosen for.
    if record.holder == us.name {
        return Ok(());
    }
    if us.priority == 0 {
        return Err(Why::NeverChosen { us: name() });
    }
    if desired.maintenance.contains(&us.name) {
        return Err(Why::InMaintenance { us: name() });
    }
    Ok(())
}

/// While paused nobody takes it from a primary that is lost. What a person has had a primary give, in order,
/// whoever was named takes, and the one that gave it may have it back.
fn is_released_to(us: &Candidate, record: &Record) -> bool {
    record
        .released
        .as_ref()
        .is_some_and(|released| released.to.as_ref() == Some(&us.name) || record.holder == us.name)
}

/// Nobody else writes, and it is nobody else's turn.
fn is_free(us: &Candidate, record: &Record, view: &View, now: Duration) -> Result<(), Why> {
    if let Some(released) = &record.released {
        // Its turn ends after a lease, or it would be waited for for ever.
        let until = view.changed_at + record.lease();
        return match &released.to {
            Some(to) if *to != us.name && now < until => {
                Err(Why::HandedTo { to: to.clone(), left: until - now })
            }
            Some(_) | None => Ok(()),
        };
    }
    // A former life of ours has ended: one volume, one server.
    if record.holder == us.name || view.is_over(now) {
        return Ok(());
    }
    let left = view.over_at().unwrap_or(now).saturating_sub(now);
    Err(Why::Leads { holder: record.holder.clone(), left })
}

fn has_everything(
    us: &Candidate,
    record: &Record,
    desired: &Desired,
    others: &[Rival],
    view: &View,
    now: Duration,
) -> Result<(), Why> {
    match is_complete(us, record) {
        Ok(()) => Ok(()),
        Err(why @ Why::OtherHistory { .. }) => Err(why),
        Err(_) if record.synchronous == SyncMode::Off && record.promoting.is_none() => {
            has_most(us, record, desired, others, view, now)
        }
        Err(why) => Err(why),
    }
}

/// It surely has every acknowledged write.
fn is_complete(us: &Candidate, record: &Record) -> Result<(), Why> {
    let is_holder = record.holder == us.name;
    // It was promoted and could not say so.
    if is_holder
        && record.promoting.is_some()
        && us.role == Role::Primary
        && us.timeline > record.timeline
    {
        return Ok(());
    }
    if us.timeline != record.timeline {
        return Err(Why::OtherHistory {
            us: us.name.clone(),
            ours: us.timeline,
            holder: record.holder.clone(),
            theirs: record.timeline,
            complete: who_is_complete(record),
        });
    }
    let ends_at = record.released.as_ref().and_then(|released| released.at);
    let led_before = record.promoting.as_ref().is_some_and(|before| before.holder == us.name);
    let complete = match ends_at {
        Some(end) if us.lsn >= end => true,
        Some(_) | None if record.sync.contains(&us.name) => true,
        Some(_) => false,
        None => is_holder || led_before,
    };
    if complete {
        return Ok(());
    }
    Err(Why::NotSynchronous {
        us: us.name.clone(),
        holder: record.holder.clone(),
        complete: who_is_complete(record),
    })
}

/// "node1 or node3".
fn who_is_complete(record: &Record) -> String {
    let before = record.promoting.iter().map(|before| &before.holder);
    let mut names: Vec<&str> = Vec::new();
    for name in [&record.holder].into_iter().chain(before).chain(&record.sync) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.join(" or ")
}

/// Nothing was promised: whoever has most, of more than half of those that have data.
fn has_most(
    us: &Candidate,
    record: &Record,
    desired: &Desired,
    others: &[Rival],
    view: &View,
    now: Duration,
) -> Result<(), Why> {
    let (answer, members) =
        (1 + others.iter().filter(|other| other.says.is_some()).count(), 1 + others.len());
    if answer * 2 <= members {
        let (us, holder) = (us.name.clone(), record.holder.clone());
        return Err(Why::TooFewAnswer { us, answer, members, holder });
    }
    // One that does not take what it could does not keep the others from it for ever.
    let waits_until = view.over_at().unwrap_or_default() + record.lease();
    let more = chosen(record, desired, others).find(|other| {
        (other.timeline, other.lsn) > (us.timeline, us.lsn)
            && other.timeline == record.timeline
            && now < waits_until
    });
    match more {
        Some(other) => Err(Why::HasLess { us: us.name.clone(), to: other.name.clone() }),
        None => Ok(()),
    }
}

/// The others that run and could be chosen.
fn chosen<'a>(
    record: &'a Record,
    desired: &'a Desired,
    others: &'a [Rival],
) -> impl Iterator<Item = &'a Candidate> {
    let running = others.iter().filter(|other| other.running);
    running.filter_map(|other| other.says.as_ref()).filter(|other| {
        other.complete
            && other.system == record.system
            && other.priority > 0
            && !desired.maintenance.contains(&other.name)
    })
}

/// Nothing was acknowledged since it was taken; but there may be a new history, and another one must
/// not get the same number.
fn may_have_opened(us: &Candidate, record: &Record) -> Result<(), Why> {
    if record.promoting.is_none() || record.holder == us.name {
        return Ok(());
    }
    Err(Why::Opening { holder: record.holder.clone(), us: us.name.clone() })
}

/// Of several that may the best goes first: a moment's patience, so that it can.
fn goes_first(
    us: &Candidate,
    record: &Record,
    desired: &Desired,
    others: &[Rival],
    view: &View,
    now: Duration,
) -> Result<(), Why> {
    let patience = view.over_at().unwrap_or_default() + 2 * look_every(record.lease());
    if record.holder == us.name || now >= patience {
        return Ok(());
    }
    // Where nothing is synchronous, whoever has as much may as well.
    let may = |other: &&Candidate| {
        let free = is_free(other, record, view, now).is_ok();
        free && (is_complete(other, record).is_ok()
            || (record.synchronous == SyncMode::Off && other.timeline == record.timeline))
    };
    let rank = |one: &Candidate| {
        (one.lsn, one.priority, Reverse((one.id.is_none(), one.id)), Reverse(one.name.clone()))
    };
    match chosen(record, desired, others).filter(may).find(|other| rank(other) > rank(us)) {
        Some(other) => Err(Why::GivesWay { to: other.name.clone() }),
        None => Ok(()),
    }
}
