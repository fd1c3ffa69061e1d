//! The running node: its events, and what follows from each.

mod ended;
mod handover;
mod lead;
mod noted;
mod plan;
mod rest;
mod restore;
mod seen;
mod shown;
mod standing;
mod stop;
mod wishes;

pub use restore::Found;
pub use wishes::{Asked, Granted, Wish};

use super::backups;
use super::decide::{self, Observation};
use super::node_role::NodeRole;
use super::observer::{self, Seen};
use super::snapshot::{
    ClusterState, Facts, NodeStatus, RunningScenario, ScheduledSwitchover, Snapshot,
};
use super::{survey, synchronous};
use crate::cluster::{BackupsSeen, NodeState, Role, Sighting};
use crate::execute::{Hands, PlanError, Progress};
use crate::lead::Appointment;
use crate::members::Memory;
use crate::observe::{self, Asking, Bearings, Ports};
use crate::postgres::{Health, SqlError};
use crate::scenario::{self, DataDirectory, Decision, Lead, Scenario, Situation, Wait};
use crate::service::{Listen, RestartBudget, Shutdown};
use crate::supervisor::PostgresEnded;
use crate::system::error::chain;
use crate::system::wait;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use rest::RulesRest;

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    /// The disk was looked at and the members were asked, for a start.
    Looked(Box<Situation>),
    /// A plan has come to its next stage.
    Progress(Progress),
    /// The plan that was running is done, but for what may wait, or failed.
    PlanEnded(u64, Result<Vec<PlanError>, PlanError>),
    /// Postgres ended, and nobody had asked it to.
    PostgresEnded(PostgresEnded),
    /// It is time to start again.
    RestartDue,
    /// The server and the members have said how they are, or the server has not.
    Observed(Result<Box<Seen>, SqlError>),
    /// What the others say while this node does not serve.
    Heard(Vec<Sighting>),
    /// Somebody wants to know what this node is as of now.
    LookNow,
    /// Our server has said how it is; it was asked then.
    LookedNow(Box<Health>, Instant),
    /// A person says that whoever is silent is gone.
    LeadAlone,
    /// The disk was looked at.
    Surveyed(Box<Facts>),
    /// What is known of who leads by the cluster's record has changed.
    Lead(Box<crate::keeper::Seen>),
    /// How this node's vote is has changed.
    Votes(crate::etcd::Voting),
    /// A person wants something.
    Asked(Asked),
    /// How the backups are that this node keeps; none where it keeps none just now.
    Backups(Option<Box<BackupsSeen>>),
    /// Our server takes writes, and another node leads by the record.
    Usurps,
    /// The time has come for what people have put off, which stands among their wishes no more; or it
    /// could not be taken from there.
    Due(Option<Appointment>),
    /// The container is to stop. Said again, it is in a hurry.
    StopRequested(Shutdown),
    /// The configuration is to be read again.
    ReloadRequested,
    /// Everything has stopped; the container ends with this status.
    Stopped(u8),
}

/// Events come one at a time from a handful of tasks, and none takes long: more than these
/// waiting would mean that the loop stands still, and then whoever reports waits.
pub const EVENTS_MAX: usize = 64;
/// How soon one looks again where nothing could be begun.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How long a start waits for the voters before it says so.
const RECORD_READ_AT_MOST: Duration = Duration::from_secs(2);

/// The exclusive owner of everything that changes.
#[derive(Debug)]
pub struct Node {
    hands: Arc<Hands>,
    bearings: Arc<Bearings>,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    published: watch::Sender<Snapshot>,
    snapshot: Snapshot,
    phase: Phase,
    budget: RestartBudget,
    /// The same for what depends on others.
    copies: RestartBudget,
    /// What the last plan made of the server.
    made: Role,
    /// How many have been begun.
    plan: u64,
    /// What is waited for; said when it changes.
    waits: Option<Wait>,
    /// A person has said that whoever is silent is gone.
    leads_alone: bool,
    /// A rule that fired in vain does not fire again before this.
    rules_rest: RulesRest,
    /// What holds for the container's whole life.
    standing_warnings: Vec<String>,
    /// What the last plan did not do, though the server serves.
    undone: Vec<String>,
    /// What the plan waits for, once that takes long.
    stands: Option<String>,
    /// What the members say that a person should know.
    disagreement: Option<String>,
    /// Questions to the server since its last answer.
    unanswered: u32,
    /// What is said of them, once they are too many.
    silence: Option<String>,
    /// By the record this node leads, and may write.
    leads: bool,
    /// The lead was handed over, or is, because the container is to stop.
    stops_after: Option<Shutdown>,
    /// This standby has streamed from a primary in this life.
    had_a_primary: bool,
    /// … and has seen none since then.
    left_alone: Option<Instant>,
    /// What people have put off, and is taken from among their wishes just now.
    kept: Option<Appointment>,
    /// A lead that could not be taken is not tried for again before this.
    take_over_rest: RulesRest,
    /// … unless something has changed since the last try: the record, people's wishes, who is there.
    tried: Option<lead::Circumstances>,
    /// No commit is acknowledged, and why.
    writes_wait: Option<String>,
    /// The voters do not answer.
    voters_silent: Option<String>,
    /// This node's vote does not count.
    vote_missing: Option<String>,
    /// The last taking of the lead that this node has followed, or brought about.
    followed: Option<(u64, String)>,
    /// As it was seen last.
    record: Option<crate::lead::Record>,
    /// Of the plan that is carried out.
    stage: shown::Stage,
}

/// What the node is doing.
#[derive(Debug)]
enum Phase {
    /// Looking around, or about to do so again.
    Looking(JoinHandle<()>),
    /// Carrying out a plan.
    Planned(Scenario, JoinHandle<()>),
    /// Serving.
    Serving,
    /// Waiting to start again.
    BackingOff,
    /// Ending.
    Stopping,
}

impl Node {
    /// A node, and where to look at it. `ended` is what the supervisor reports to; events come
    /// from whoever has a clone of `sender`. `on_disk` is what was seen before anybody was asked.
    pub fn new(
        hands: Arc<Hands>,
        bearings: Bearings,
        on_disk: &DataDirectory,
        mut ended: mpsc::Receiver<PostgresEnded>,
        (sender, events): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    ) -> (Self, watch::Receiver<Snapshot>) {
        let snapshot = Snapshot::first(&hands, bearings.means);
        let forward = sender.clone();
        tokio::spawn(async move {
            while let Some(ended) = ended.recv().await {
                let _ = forward.send(Event::PostgresEnded(ended)).await;
            }
        });
        let mut node = Node {
            standing_warnings: snapshot.warnings.clone(),
            published: watch::channel(snapshot.clone()).0,
            hands,
            bearings: Arc::new(bearings),
            events,
            sender,
            snapshot,
            phase: Phase::BackingOff,
            budget: RestartBudget::for_postgres(),
            copies: RestartBudget::for_copies(),
            made: Role::Standby,
            plan: 0,
            waits: None,
            leads_alone: false,
            rules_rest: RulesRest::default(),
            undone: Vec::new(),
            stands: None,
            disagreement: None,
            unanswered: 0,
            silence: None,
            leads: false,
            stops_after: None,
            kept: None,
            had_a_primary: false,
            left_alone: None,
            take_over_rest: RulesRest::default(),
            tried: None,
            writes_wait: None,
            voters_silent: None,
            vote_missing: None,
            followed: None,
            record: None,
            stage: None,
        };
        // Said before the others are asked: of two that would lead, one sees the other.
        node.say(node.standing_of(on_disk, false));
        let (published, watcher) = watch::channel(node.snapshot.clone());
        node.published = published;
        (node, watcher)
    }

    /// Finds out what is to be done and does it, then serves until something says stop. Returns
    /// the container's exit status.
    pub async fn run(mut self) -> u8 {
        self.note("started", None, concat!("pgherd ", env!("CARGO_PKG_VERSION"), " starts"));
        self.look(Duration::ZERO);
        let (hands, sender) = (Arc::clone(&self.hands), self.sender.clone());
        tokio::spawn(observer::look_when_asked(Arc::clone(&hands), sender.clone()));
        tokio::spawn(synchronous::keep(Arc::clone(&hands), sender.clone()));
        if let Some(keeper) = &hands.keeper {
            tokio::spawn(lead::tell_who_leads(keeper.seen(), sender.clone()));
        }
        let (mut voting, says) = (hands.voting.subscribe(), sender.clone());
        tokio::spawn(async move {
            while voting.changed().await.is_ok() {
                let now = voting.borrow_and_update().clone();
                if says.send(Event::Votes(now)).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(backups::watch(
            Arc::clone(&hands),
            self.published.subscribe(),
            sender.clone(),
        ));
        let snapshots = self.published.subscribe();
        tokio::spawn(survey::run(Arc::clone(&hands), snapshots, sender.clone()));
        let snapshots = self.published.subscribe();
        tokio::spawn(observer::hear_of_others(Arc::clone(&hands), snapshots, sender.clone()));
        tokio::spawn(observer::observe(hands, self.published.subscribe(), sender));
        while let Some(event) = self.events.recv().await {
            if let Event::Stopped(status) = event {
                return status;
            }
            self.apply(event);
            self.tell_people();
            self.published.send_replace(self.snapshot.clone());
        }
        unreachable!("the node holds a sender itself")
    }

    /// Handles one event. Not async on purpose: nothing here may wait.
    fn apply(&mut self, event: Event) {
        match event {
            Event::Looked(situation) => self.looked(&situation),
            Event::Progress(progress) => self.progressed(progress),
            Event::PlanEnded(plan, ended) if plan == self.plan => self.plan_ended(ended),
            Event::PlanEnded(..) => {} // It was broken off for another.
            Event::PostgresEnded(PostgresEnded { status }) => match self.phase {
                Phase::Serving => {
                    warn!("postgres ended with {status}, unasked");
                    let why = status.to_string();
                    self.note("postgres.ended", Some(&why), "postgres ended, unasked");
                    let lost = self.hands.keeper.as_ref().is_some_and(|one| !one.now().leads);
                    if self.made == Role::Primary && lost {
                        return self.fenced();
                    }
                    self.start_again();
                }
                Phase::Planned(Scenario::RestoreInPlace { .. }, _) if self.is_shown_running() => {
                    self.ended_while_copied(status);
                }
                // A plan that needs the server fails by itself.
                Phase::Planned(..) => warn!("postgres ended with {status} during a plan"),
                Phase::Looking(_) | Phase::BackingOff | Phase::Stopping => {}
            },
            Event::RestartDue => {
                if let Phase::BackingOff = self.phase {
                    self.look(Duration::ZERO);
                }
            }
            Event::Observed(seen) => self.observed(seen),
            Event::Heard(sightings) => self.heard(&sightings),
            Event::LookNow => match self.hands.supervisor.serving() {
                Some(Listen::Consumer { .. }) => {
                    self.hands.look_now.notify_one();
                    self.hands.look_around.notify_one();
                }
                // Nobody can have promoted a server that takes no connections.
                Some(Listen::Technical { .. }) | None => {
                    self.serves_no_more();
                    self.snapshot.looked = Some(Instant::now());
                }
            },
            Event::LookedNow(health, began) => {
                if let Some(Listen::Consumer { .. }) = self.hands.supervisor.serving() {
                    self.own_row(&health);
                    self.snapshot.looked = Some(began);
                }
            }
            Event::LeadAlone => {
                warn!("a person says that whoever is silent is gone");
                self.note("asked", None, "a person says that whoever is silent is gone");
                self.leads_alone = true;
            }
            Event::Surveyed(facts) => self.surveyed(*facts),
            Event::Lead(seen) => self.lead_seen(*seen),
            Event::Votes(voting) => self.vote_seen(voting),
            Event::Asked(asked) => self.asked(asked),
            Event::Usurps => self.usurps(),
            Event::Due(appointment) => self.due(appointment),
            Event::Backups(seen) => self.backups_seen(seen),
            Event::StopRequested(how) => self.stop_requested(how),
            Event::ReloadRequested => drop(self.reload()),
            Event::Stopped(_) => unreachable!("`run` ends on it"),
        }
    }

    /// Looks around after a while, and comes back with [`Event::Looked`].
    fn look(&mut self, after: Duration) {
        let (hands, bearings) = (Arc::clone(&self.hands), Arc::clone(&self.bearings));
        let (sender, leads_alone) = (self.sender.clone(), self.leads_alone);
        self.phase = Phase::Looking(tokio::spawn(async move {
            wait::back_off(after).await;
            let lead = match &hands.keeper {
                Some(keeper) => keeper.read(RECORD_READ_AT_MOST).await,
                None => Lead::NotKept,
            };
            let asking = Asking::Everybody { instance: &hands.instance, leads_alone, lead: &lead };
            let seen = observe::situation(&hands.settings, &bearings, Ports::Ours, asking).await;
            let _ = sender.send(Event::Looked(Box::new(seen))).await; // Nobody asks after the end.
        }));
    }

    fn looked(&mut self, situation: &Situation) {
        let Phase::Looking(_) = self.phase else { return };
        if self.learns_who_votes(&situation.sightings) {
            return;
        }
        let recognised = scenario::recognise(&self.hands.settings, situation);
        let gives_way = matches!(&recognised, Ok(Decision::Wait(wait)) if wait.gives_way());
        self.say(self.standing_of(&situation.data_directory, gives_way));
        match recognised {
            Err(refusal) => {
                error!("{refusal}");
                self.stop(Shutdown::Fast, 1);
            }
            Ok(Decision::Wait(wait)) => {
                if self.waits.as_ref() != Some(&wait) {
                    info!("{wait}");
                }
                if situation.ourselves.leads_alone {
                    // In vain: it would be about something else later. Not by a look that had
                    // begun before it was said.
                    self.leads_alone = false;
                }
                if let Some(keeper) =
                    self.hands.keeper.as_ref().filter(|_| wait.is_about_this_node())
                {
                    keeper.let_go();
                }
                self.row().waits_for = Some(wait.to_string());
                self.waits = Some(wait);
                self.look(LOOK_AGAIN_AFTER);
            }
            Ok(Decision::Begin(scenario)) => {
                if let (Scenario::StandbyFirstStart { .. }, Role::Primary) =
                    (&scenario, self.hands.settings.repmgr.first_role)
                {
                    warn!(
                        "REPMGR_MASTER is true, this node has no data, and another node leads \
                         already: joins it as a slave"
                    );
                }
                if self.leads_alone {
                    self.keep_the_word(situation);
                    self.hands.asked.store(true, Ordering::Relaxed);
                    self.hands.allow_data_loss.store(true, Ordering::Relaxed);
                }
                self.waits = None;
                self.row().waits_for = None;
                self.begin(scenario);
            }
        }
    }

    /// So that it need not be said again at the next start. One small file, once in a cluster's life.
    fn keep_the_word(&self, situation: &Situation) {
        let Hands { layout, postgres, .. } = &*self.hands;
        let given_up = situation.ourselves.given_up;
        let memory = Memory { given_up, ..Memory::read(layout) };
        if let Err(error) = memory.write(layout, postgres) {
            warn!("a person's word is not kept: {}", chain(&error));
        }
    }

    fn row(&mut self) -> &mut NodeStatus {
        &mut self.snapshot.nodes[0]
    }
}
