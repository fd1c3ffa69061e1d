//! Keeps the sync set of a primary: for whom commits wait, and what the record says of it. One step at a
//! time, in the order that [`sync::next`] gives them; each is harmless if the next never comes.

use super::node::Event;
use crate::cluster::{Lsn, Role, SyncMode};
use crate::execute::Hands;
use crate::keeper::{Keeper, Seen};
use crate::lead::{lease, sync};
use crate::postgres::leading::{self, Standbys};
use crate::postgres::{Session, SqlError};
use crate::service::Listen;
use crate::system::clock;
use crate::system::error::chain;
use crate::system::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// A standby that is behind by more is not waited for: it would be long in replaying, too.
pub(super) const BYTES_MAX: u64 = 64 << 20;
/// Questions to our own server. One that is stuck is for the node's rules.
const ANSWER_AT_MOST: Duration = Duration::from_secs(5);
/// So many steps at a time; more would mean that they go in a circle.
const STEPS_MAX: usize = 8;

/// What is remembered from one look to the next.
#[derive(Default)]
struct Memory {
    session: Option<Session>,
    /// The setting that `in_force_since` is about.
    names: String,
    in_force_since: Option<Lsn>,
    /// What each standby had on its disk, and had replayed, when that changed last, and when that was.
    moved: BTreeMap<String, [(Lsn, Duration); 2]>,
}

/// As long as there is a node. Tells `sender` of a server that takes writes though another node leads:
/// somebody has promoted it by hand.
pub(super) async fn keep(hands: Arc<Hands>, sender: mpsc::Sender<Event>) {
    let Some(keeper) = hands.keeper.clone() else { return };
    let every = lease::look_every(hands.settings.herd.lease);
    let mut memory = Memory::default();
    loop {
        tokio::select! {
            () = wait::back_off(every) => {}
            () = hands.synchronous_now.notified() => {}
        }
        let consumers = matches!(hands.supervisor.serving(), Some(Listen::Consumer { .. }));
        if !consumers {
            memory = Memory::default();
            continue;
        }
        if !keeper.now().leads {
            let usurps = timeout(ANSWER_AT_MOST, takes_writes(&hands, &mut memory.session)).await;
            memory = Memory { session: memory.session.take(), ..Memory::default() };
            // Asked again: the lead may have been taken meanwhile.
            if usurps == Ok(Some(true))
                && !keeper.now().leads
                && sender.send(Event::Usurps).await.is_err()
            {
                return;
            }
            continue;
        }
        for _ in 0..STEPS_MAX {
            match timeout(ANSWER_AT_MOST, step(&hands, &keeper, &mut memory)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => break,
                Ok(Err(why)) => {
                    debug!("the sync set is left as it is: {why}");
                    memory.session = None;
                    break;
                }
                Err(_) => {
                    memory.session = None;
                    break;
                }
            }
        }
    }
}

/// What our server says; none where it does not answer.
async fn takes_writes(hands: &Hands, kept: &mut Option<Session>) -> Option<bool> {
    if kept.as_ref().is_none_or(Session::is_closed) {
        let listen = hands.supervisor.serving()?;
        *kept = Session::open(&hands.settings, &hands.layout, listen, "postgres").await.ok();
    }
    let health = kept.as_ref()?.health().await;
    if health.is_err() {
        *kept = None;
    }
    Some(health.ok()?.role == Role::Primary)
}

/// Takes the next step. Says whether there was one.
async fn step(hands: &Hands, keeper: &Keeper, memory: &mut Memory) -> Result<bool, String> {
    let words = |error: SqlError| chain(&error);
    if memory.session.as_ref().is_none_or(Session::is_closed) {
        let listen = hands.supervisor.serving().ok_or("the server does not serve")?;
        let opened = Session::open(&hands.settings, &hands.layout, listen, "postgres").await;
        memory.session = Some(opened.map_err(words)?);
    }
    let session = memory.session.as_ref().ok_or("there is no connection")?;
    let standbys = session.standbys().await.map_err(words)?;
    let streaming = standbys.iter().flat_map(|standbys| &standbys.streaming);
    let streaming = streaming.filter(|one| one.streams).map(|one| one.name.clone()).collect();
    *hands.streaming.lock().unwrap_or_else(PoisonError::into_inner) = streaming;
    let Some(standbys) = standbys else { return Ok(false) };
    let seen = keeper.now();
    let Some(record) = seen.record.as_ref().filter(|_| seen.leads) else { return Ok(false) };
    if record.promoting.is_some() {
        // It was promoted, and could not say so.
        let timeline = session.health().await.map_err(words)?.timeline;
        hands.open(session, timeline).await.map_err(|error| chain(&error))?;
        return Ok(true);
    }
    let mode = hands.settings.herd.synchronous;
    let names = parsed(&standbys.names);
    if mode == SyncMode::Off && matches!(names, sync::Names::Other) && record.sync.is_empty() {
        return Ok(false); // The operator's own.
    }
    if memory.names != standbys.names {
        memory.names.clone_from(&standbys.names);
        memory.in_force_since = None;
    }
    // Somebody is waited for that the record does not know yet.
    let comes = match &names {
        sync::Names::Only(name) | sync::Names::Both(_, name) => !record.sync.contains(name),
        sync::Names::Nobody | sync::Names::Other => false,
    };
    if memory.in_force_since.is_none() && comes {
        in_force(session).await.map_err(words)?;
        let now = session.standbys().await.map_err(words)?;
        memory.in_force_since = now.filter(|now| now.names == standbys.names).map(|now| now.lsn);
    }
    let preferred = hands.preferred();
    let standbys_seen = seen_standbys(hands, &seen, &standbys, &mut memory.moved);
    let looked = sync::Seen {
        mode,
        record: &record.sync,
        in_postgres: &names,
        in_force_since: memory.in_force_since,
        written: standbys.lsn,
        standbys: &standbys_seen,
        limits: sync::Limits { bytes_max: BYTES_MAX, lag_max: hands.settings.herd.lease / 2 },
        preferred: preferred.as_deref(),
    };
    match sync::next(&looked) {
        None => Ok(false),
        Some(sync::Step::Record(set)) => {
            say(&set);
            keeper.synchronous(set).await.map_err(|error| error.to_string())?;
            hands.look_around.notify_one();
            Ok(true)
        }
        Some(sync::Step::Postgres(wanted)) => {
            let names = match &wanted {
                sync::Names::Only(name) => vec![name.as_str()],
                sync::Names::Both(first, second) => vec![first.as_str(), second.as_str()],
                sync::Names::Nobody | sync::Names::Other => Vec::new(),
            };
            session.wait_for_standbys(&names).await.map_err(words)?;
            Ok(true)
        }
    }
}

fn say(set: &BTreeSet<String>) {
    match set.first() {
        Some(name) => info!("{name} is synchronous: it has every acknowledged write"),
        None => warn!("no standby is synchronous just now"),
    }
}

/// Afterwards every process of the server waits as the setting says. New sessions have it, so the
/// postmaster has told the others; the process that tells them all for whom to wait is the one that
/// writes checkpoints, and it reads what it was told before it begins one.
async fn in_force(session: &Session) -> Result<(), SqlError> {
    session.checkpoint().await
}

fn parsed(names: &str) -> sync::Names {
    match leading::waits_for(names).as_deref() {
        Some([name]) => sync::Names::Only(name.clone()),
        Some([first, second]) => sync::Names::Both(first.clone(), second.clone()),
        None if names.is_empty() => sync::Names::Nobody,
        Some(_) | None => sync::Names::Other,
    }
}

/// For how long a position has stood still that is behind `goal`. The last one, and when that was, are
/// kept.
fn stands_still(last: &mut (Lsn, Duration), position: Lsn, goal: Lsn, now: Duration) -> Duration {
    if last.0 != position || position >= goal {
        *last = (position, now);
    }
    now.saturating_sub(last.1)
}

/// As the rules look at them.
fn seen_standbys(
    hands: &Hands,
    seen: &Seen,
    standbys: &Standbys,
    moved: &mut BTreeMap<String, [(Lsn, Duration); 2]>,
) -> Vec<sync::StandbySeen> {
    let now = clock::since_boot();
    let others = hands.others.lock().unwrap_or_else(PoisonError::into_inner);
    moved.retain(|name, _| standbys.streaming.iter().any(|one| one.name == *name));
    standbys
        .streaming
        .iter()
        // barman's, and what takes a copy, are no standbys.
        .filter(|one| others.iter().any(|other| other.rival.name == one.name))
        .map(|one| {
            let flush = one.flushed.unwrap_or_default();
            let replay = one.replayed.unwrap_or_default();
            let [flushed, replayed] =
                moved.entry(one.name.clone()).or_insert([(flush, now), (replay, now)]);
            let flush_lag = stands_still(flushed, flush, standbys.lsn, now);
            // What is not here yet cannot be replayed.
            let replay_lag = stands_still(replayed, replay, flush, now);
            let rival = others.iter().find(|other| other.rival.name == one.name);
            let says = rival.and_then(|other| other.rival.says.as_ref());
            sync::StandbySeen {
                name: one.name.clone(),
                streaming: one.streams,
                is_sync: one.is_sync,
                flush,
                replay,
                flush_lag: Some(flush_lag),
                replay_lag: Some(replay_lag),
                eligible: says.is_none_or(|says| says.priority > 0)
                    && !rival.is_some_and(|other| other.leaves)
                    && !seen.desired.maintenance.contains(&one.name),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_still_is_late_and_what_moves_or_has_all_is_not() {
        let seconds = Duration::from_secs;
        let mut last = (Lsn(1), seconds(0));
        let mut at = |position, goal, now| {
            stands_still(&mut last, Lsn(position), Lsn(goal), seconds(now)).as_secs()
        };
        assert_eq!(at(1, 1, 5), 0, "it has all");
        assert_eq!(at(1, 2, 6), 1);
        assert_eq!(at(1, 9, 8), 3);
        assert_eq!(at(2, 9, 9), 0, "it moves");
        assert_eq!(at(9, 9, 99), 0);
    }
}
