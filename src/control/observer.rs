//! Looks around, again and again: at the server, and at the other members.

use super::node::Event;
use super::snapshot::Snapshot;
use crate::cluster::{Address, Answer, NodeState, Report, Role, Sighting, Standing, Timeline};
use crate::execute::Hands;
use crate::members::{self, AsOf, Member, Memory};
use crate::postgres::peer::Record;
use crate::postgres::{Health, Session, SqlError, copy};
use crate::scenario::Situation;
use crate::service::Listen;
use crate::settings::NodeKind;
use crate::system::error::chain;
use crate::system::wait;
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

/// How often one looks while all is well, and while it is not: what is about to change is to be
/// seen soon.
const OBSERVE_EVERY: Duration = Duration::from_secs(3);
const OBSERVE_EVERY_OTHERWISE: Duration = Duration::from_millis(500);
/// A server that serves answers within milliseconds.
const ANSWER_AT_MOST: Duration = Duration::from_secs(5);
/// So many questions are asked over one connection: each new one costs the server a process, but
/// a postmaster that is stuck shows in nothing else.
const QUESTIONS_PER_SESSION: usize = 10;

/// What was seen in one look.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What our own server says, and repmgr's records in it; none where there is no server.
    pub local: Option<(Health, Vec<Record>)>,
    /// What the other members say.
    pub sightings: Vec<Sighting>,
    /// What the data directory replaced is still there.
    pub replaces: bool,
    /// What is known of the others now.
    pub memory: Memory,
}

/// Reports as long as there is a node.
pub(super) async fn observe(
    hands: Arc<Hands>,
    mut snapshots: watch::Receiver<Snapshot>,
    sender: mpsc::Sender<Event>,
) {
    let mut session = None;
    for number in 0_usize.. {
        // Nothing is asked of a server that is being prepared.
        let serving = |seen: &Snapshot| {
            matches!(seen.nodes[0].state, NodeState::Running | NodeState::Unreachable)
        };
        if snapshots.wait_for(serving).await.is_err() {
            return;
        }
        // Each time: a person's word is written there while the node starts.
        let mut memory = Memory::read(&hands.layout);
        if number % QUESTIONS_PER_SESSION == 0 {
            session = None;
        }
        // One that is late is waited for: to ask again and again would leave the server, when it
        // wakes up, with a process for each.
        let mut asked = pin!(own_server(&hands, &mut session));
        let local = loop {
            if let Ok(local) = timeout(ANSWER_AT_MOST, &mut asked).await {
                break local;
            }
            let doing = "ask the server for its state".to_owned();
            let late = SqlError::Late { doing, at_most: ANSWER_AT_MOST };
            if sender.send(Event::Observed(Err(late))).await.is_err() {
                return;
            }
        };
        let seen = match local {
            Ok(local) => Ok(look(&hands, local, &mut memory).await),
            Err(error) => Err(error),
        };
        let all_is_well = seen.as_ref().is_ok_and(all_is_well);
        if sender.send(Event::Observed(seen.map(Box::new))).await.is_err() {
            return;
        }
        let pause = if all_is_well { OBSERVE_EVERY } else { OBSERVE_EVERY_OTHERWISE };
        tokio::select! {
            () = wait::back_off(pause) => {}
            () = hands.look_around.notified() => {}
        }
    }
}

/// Reports what the others say while this node does not serve: it starts, is cloned, or is rewound. Shown, and
/// nothing else.
pub(super) async fn hear_of_others(
    hands: Arc<Hands>,
    mut snapshots: watch::Receiver<Snapshot>,
    sender: mpsc::Sender<Event>,
) {
    let is_at_work = |seen: &Snapshot| {
        !matches!(seen.nodes[0].state, NodeState::Running | NodeState::Unreachable)
    };
    while snapshots.wait_for(is_at_work).await.is_ok() {
        let memory = Memory::read(&hands.layout);
        let everybody = members::everybody(&hands.settings, &memory, &hands.address);
        let Hands { settings, address, instance, .. } = &*hands;
        let mut sightings =
            members::ask(settings, &everybody, address, instance, AsOf::Lately).await;
        disbelieve_strangers(&hands, None, &mut sightings);
        if sender.send(Event::Heard(sightings)).await.is_err() {
            return;
        }
        wait::back_off(OBSERVE_EVERY).await;
    }
}

/// Reports what our server is each time when somebody wants to know it as of now: who is about to
/// lead must not rely on what was true seconds ago.
pub(super) async fn look_when_asked(hands: Arc<Hands>, sender: mpsc::Sender<Event>) {
    loop {
        hands.look_now.notified().await;
        let began = Instant::now();
        // A connection of its own: the other one may be waiting for an answer.
        let asked = async {
            let Hands { settings, layout, supervisor, .. } = &*hands;
            let listen = supervisor.listening()?;
            let session = Session::open(settings, layout, listen, "postgres").await.ok()?;
            let health = session.health().await.ok()?;
            session.close().await;
            Some(health)
        };
        // Without an answer of the server there is none of ours: whoever asked takes us for silent.
        if let Ok(Some(health)) = timeout(ANSWER_AT_MOST, asked).await
            && sender.send(Event::LookedNow(Box::new(health), began)).await.is_err()
        {
            return;
        }
    }
}

/// Everybody who answers runs, and one leads. Whoever is silent may be so for days, and is no reason
/// to hurry.
fn all_is_well(seen: &Seen) -> bool {
    let mut reports = seen.sightings.iter().filter_map(Sighting::report);
    let leads = |health: &Health| health.role == Role::Primary;
    let we_lead = seen.local.as_ref().is_some_and(|(health, _)| leads(health));
    let one_leads = we_lead || reports.clone().any(|report| report.leads_on().is_some());
    one_leads && reports.all(|report| report.state == NodeState::Running)
}

/// What our server says, where there is one.
async fn own_server(
    hands: &Hands,
    session: &mut Option<Session>,
) -> Result<Option<(Health, Vec<Record>)>, SqlError> {
    match hands.settings.herd.kind {
        NodeKind::Data => Ok(Some(ask(hands, session).await?)),
        NodeKind::Backup | NodeKind::Witness => Ok(None),
    }
}

async fn look(hands: &Hands, local: Option<(Health, Vec<Record>)>, memory: &mut Memory) -> Seen {
    let records = local.as_ref().map(|(_, records)| records.as_slice()).unwrap_or_default();
    let everybody = everybody(hands, memory, records);
    let mut sightings =
        members::ask(&hands.settings, &everybody, &hands.address, &hands.instance, AsOf::Lately)
            .await;
    disbelieve_strangers(hands, local.as_ref().map(|(health, _)| health), &mut sightings);
    let own = local.as_ref().map(|(health, _)| health.timeline);
    let seen = remembered(memory, hands, own, records, &sightings);
    if seen != *memory {
        let account = match hands.settings.herd.kind {
            NodeKind::Data | NodeKind::Witness => &hands.postgres,
            NodeKind::Backup => &hands.barman,
        };
        if let Err(error) = seen.write(&hands.layout, account) {
            warn!("what is known of the members is not kept: {}", chain(&error));
        }
        *memory = seen;
    }
    // What is to be kept and cannot be moved out of the way stays as it is.
    let stays = hands.settings.herd.keep_old_data
        && hands.layout.work.old.parent() == Some(&hands.layout.pgdata);
    let replaces = local.is_some()
        && (copy::is_behind(&hands.layout) || (!stays && copy::has_old(&hands.layout)));
    Seen { local, sightings, replaces, memory: memory.clone() }
}

/// What another cluster's node says, or who cannot show that it is a member, is not to be kept: it
/// would outlive them.
fn disbelieve_strangers(hands: &Hands, health: Option<&Health>, sightings: &mut [Sighting]) {
    for sighting in sightings {
        let Some(report) = sighting.report() else { continue };
        let other_system = health.zip(report.system).is_some_and(|(own, it)| own.system != it);
        let reason = if report.cluster != hands.settings.herd.cluster || other_system {
            "it belongs to another cluster"
        } else if !sighting.proved {
            "it does not show the control token: is REPMGR_PASSWORD, or PGHERD_CONTROL_TOKEN, the \
             same there?"
        } else {
            continue;
        };
        debug!("{} is not believed: {reason}", sighting.address);
        sighting.answer = Answer::Refuses(reason.to_owned());
    }
}

/// Whoever is configured, remembered or registered.
fn everybody(hands: &Hands, memory: &Memory, records: &[Record]) -> Vec<(Address, bool)> {
    let mut all = members::everybody(&hands.settings, memory, &hands.address);
    for record in records {
        if let Some(address) = &record.address
            && *address != hands.address
            && !all.iter().any(|(known, _)| known == address)
        {
            all.push((address.clone(), record.active));
        }
    }
    all
}

/// Members with data are those that repmgr's records have as active; whoever has none and was seen
/// once is one until it is configured no more.
fn remembered(
    before: &Memory,
    hands: &Hands,
    own: Option<Timeline>,
    records: &[Record],
    sightings: &[Sighting],
) -> Memory {
    let newest = sightings.iter().filter_map(|one| one.report()?.newest()).max();
    let newest = before.newest.max(own).max(newest);
    let with_data = records.iter().filter(|record| record.active).filter_map(|record| {
        let address = record.address.clone().filter(|address| *address != hands.address)?;
        Some(Member { address, name: record.name.clone(), id: Some(record.id) })
    });
    let no_data = sightings.iter().filter_map(|one| {
        let report = one.report()?;
        let member = Member { address: one.address.clone(), name: report.name.clone(), id: None };
        (report.standing == Standing::NoData).then_some(member)
    });
    let configured = members::everybody(&hands.settings, &Memory::default(), &hands.address);
    let still = |member: &&Member| {
        member.id.is_none() && configured.iter().any(|(address, _)| *address == member.address)
    };
    let mut members: BTreeSet<Member> = before.members.iter().filter(still).cloned().collect();
    members.extend(no_data);
    if records.is_empty() {
        // They could not be read, or are of a node that never has any.
        members.extend(before.members.iter().cloned());
    }
    members.extend(with_data);
    // Of whoever leads by it, and of nobody else: who was told and never led may be told in vain, and
    // what was heard of since has the same number.
    let leads = |report: &&Report| report.leads_on().is_some();
    let reports = sightings.iter().filter_map(Sighting::report).filter(leads);
    let given_up = reports.filter_map(|report| report.given_up).max();
    let leader = Situation::leader_among(sightings).ok().flatten().map(|(timeline, _)| timeline);
    let given_up = before.given_up.max(given_up);
    let given_up = given_up.map(|word| leader.map_or(word, |on| word.after_a_leader_on(on)));
    Memory { newest, given_up, members }
}

async fn ask(hands: &Hands, kept: &mut Option<Session>) -> Result<(Health, Vec<Record>), SqlError> {
    if kept.as_ref().is_none_or(Session::is_closed) {
        let Hands { settings, layout, .. } = hands;
        let consumers = Listen::Consumer { port: settings.postgres.port };
        let listen = hands.supervisor.listening().unwrap_or(consumers);
        *kept = Some(match Session::open(settings, layout, listen, "repmgr").await {
            // Somebody dropped it: that the server serves is to be known all the same.
            Err(error) if !error.is_silence() => {
                Session::open(settings, layout, listen, "postgres").await?
            }
            opened => opened?,
        });
    }
    let Some(session) = kept else { unreachable!("opened above") };
    let seen = async {
        let health = session.health().await?;
        // Not there, or not to be read: then nobody is known by it.
        let records = session.records().await.unwrap_or_default();
        Ok((health, records))
    };
    let seen = seen.await;
    if seen.is_err() {
        *kept = None;
    }
    seen
}
