//! Which standby commits wait for: at most one, so that each that is named has every acknowledged
//! write, and whoever is promoted leaves none behind that still acknowledges for its predecessor.

use crate::cluster::{Lsn, SyncMode};
use std::collections::BTreeSet;
use std::time::Duration;

/// A name that no node has: commits wait. Set before a promotion, and where one standby is required
/// and there never was one.
pub const NO_STANDBY: &str = "pgherd_no_standby";

/// What `synchronous_standby_names` says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Names {
    /// Nothing: commits do not wait.
    Nobody,
    /// `FIRST 1 ("name")`.
    Only(String),
    /// `FIRST 2 ("first", "second")`: for each of them, while the record goes from the first to the
    /// second.
    Both(String, String),
    /// Something that is not ours.
    Other,
}

impl Names {
    /// Nothing is acknowledged that `name` has not.
    pub fn wait_for(&self, name: &str) -> bool {
        match self {
            Names::Only(only) => only == name,
            Names::Both(first, second) => first == name || second == name,
            Names::Nobody | Names::Other => false,
        }
    }
}

/// A standby as the primary sees it (`pg_stat_replication`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandbySeen {
    /// Its `application_name`: `REPMGR_NODE_NAME`.
    pub name: String,
    /// `state` is `streaming`.
    pub streaming: bool,
    /// `sync_state` is `sync`.
    pub is_sync: bool,
    /// What it has on its disk.
    pub flush: Lsn,
    /// What it has replayed.
    pub replay: Lsn,
    /// How long flushing took lately, if anything was.
    pub flush_lag: Option<Duration>,
    /// How long replaying took lately.
    pub replay_lag: Option<Duration>,
    /// It may be chosen: not in maintenance, priority not 0, not about to stop.
    pub eligible: bool,
}

/// Who lags too much to be waited for. One that comes back must be much better than one that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Behind the primary's WAL by so much, in bytes, flushed or replayed.
    pub bytes_max: u64,
    /// … or so late.
    pub lag_max: Duration,
}

/// What is done next; then look again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `Record::with_sync`.
    Record(BTreeSet<String>),
    /// `synchronous_standby_names`, and a reload.
    Postgres(Names),
}

/// All that is looked at.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The setting that we want to keep.
    pub mode: SyncMode,
    /// `record.sync`, as it surely stands there: no change of ours is on its way.
    pub record: &'a BTreeSet<String>,
    /// The setting as it was written last.
    pub in_postgres: &'a Names,
    /// A position of the primary's WAL that was read *after* `in_postgres` was seen to be in force in
    /// every process of the server. Begins anew (None) with each change of it and each start.
    pub in_force_since: Option<Lsn>,
    /// The primary's WAL now.
    pub written: Lsn,
    /// Who streams from us.
    pub standbys: &'a [StandbySeen],
    /// Who lags.
    pub limits: Limits,
    /// The lead is to be handed to this one: it is chosen, if it is good enough to be waited for.
    pub preferred: Option<&'a str>,
}

/// One step at a time, each of them harmless if the next never comes, and if it is done twice:
/// shrinks in the record first, grows in Postgres first. From one that is well to another the record
/// goes in one step, while commits wait for both; so there is always one that may lead. None: all is
/// as it should be, or has to be waited for.
pub fn next(seen: &Seen<'_>) -> Option<Step> {
    let wanted = wanted(seen);
    let then = |names: Names| (names != *seen.in_postgres).then_some(Step::Postgres(names));
    let Names::Only(name) = &wanted else { return emptied(seen).or(then(wanted)) };
    let only = BTreeSet::from([name.clone()]);
    let waits = seen.in_postgres.wait_for(name);
    if seen.record.contains(name) {
        return match waits {
            true if *seen.record == only => then(wanted),
            true => Some(Step::Record(only)),
            false => emptied(seen),
        };
    }
    if waits && seen.standbys.iter().any(|one| one.name == *name && has_everything(one, seen)) {
        return Some(Step::Record(only));
    }
    match seen.record.first() {
        None => then(wanted),
        Some(before) if seen.in_postgres.wait_for(before) && answers(before, seen) => {
            then(Names::Both(before.clone(), name.clone()))
        }
        Some(_) => emptied(seen),
    }
}

/// Commits that wait for it are not held up.
fn answers(name: &str, seen: &Seen<'_>) -> bool {
    let is_it = |one: &&StandbySeen| one.name == name;
    seen.standbys.iter().find(is_it).is_some_and(|one| one.is_sync && keeps_up(one, seen, 1))
}

fn emptied(seen: &Seen<'_>) -> Option<Step> {
    (!seen.record.is_empty()).then(|| Step::Record(BTreeSet::new()))
}

/// Nothing is acknowledged without it any more, and what was before it has too.
fn has_everything(one: &StandbySeen, seen: &Seen<'_>) -> bool {
    one.streaming && one.is_sync && seen.in_force_since.is_some_and(|since| one.flush >= since)
}

/// What Postgres is to wait for in the end.
fn wanted(seen: &Seen<'_>) -> Names {
    let named = match seen.in_postgres {
        Names::Only(name) => Some(name),
        Names::Both(..) | Names::Nobody | Names::Other => seen.record.first(),
    };
    let find = |is_it: &dyn Fn(&str) -> bool| {
        seen.standbys.iter().find(|one| is_it(&one.name) && is_good(one, seen, 1))
    };
    let preferred = find(&|name| seen.preferred == Some(name));
    let stays = || find(&|name| named.is_some_and(|named| named == name));
    let comes = || {
        let good = seen.standbys.iter().filter(|one| is_good(one, seen, 4));
        // Not with who is a byte ahead just now: then it would change all the time.
        good.min_by(|one, other| one.name.cmp(&other.name))
    };
    match (seen.mode, preferred.or_else(stays).or_else(comes)) {
        (SyncMode::Off, _) | (SyncMode::Preferred, None) => Names::Nobody,
        (SyncMode::Preferred | SyncMode::Required, Some(one)) => Names::Only(one.name.clone()),
        // Commits wait, for whom they waited before.
        (SyncMode::Required, None) => {
            let recorded = seen.record.first();
            Names::Only(named.or(recorded).cloned().unwrap_or_else(|| NO_STANDBY.to_owned()))
        }
    }
}

/// It may be chosen, and commits can wait for it; `part` of the limits are used.
fn is_good(one: &StandbySeen, seen: &Seen<'_>, part: u32) -> bool {
    let near = one.replay.bytes_behind(seen.written) <= seen.limits.bytes_max / u64::from(part);
    let quick = one.replay_lag.is_none_or(|lag| lag <= seen.limits.lag_max / part);
    one.eligible && near && quick && keeps_up(one, seen, part)
}

/// What is written reaches its disk; `part` of the limits are used.
fn keeps_up(one: &StandbySeen, seen: &Seen<'_>, part: u32) -> bool {
    let near = one.flush.bytes_behind(seen.written) <= seen.limits.bytes_max / u64::from(part);
    let quick = one.flush_lag.is_none_or(|lag| lag <= seen.limits.lag_max / part);
    one.streaming && near && quick
}

#[cfg(test)]
mod tests;
