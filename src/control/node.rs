//! The running node: its events, and what follows from each.

use super::observer;
use super::snapshot::{ClusterState, NodeState, NodeStatus, RunningScenario, Snapshot};
use crate::cluster::Role;
use crate::execute::{Hands, PlanError, Progress, StepError};
use crate::layout::Means;
use crate::postgres::{self, Health, HookError, SqlError};
use crate::scenario::{self, Plan, Scenario};
use crate::service::{RestartBudget, Shutdown, Verdict};
use crate::settings::BAD_SETTINGS;
use crate::supervisor::PostgresEnded;
use crate::system::error::chain;
use crate::system::wait;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    /// A plan has come to its next stage.
    Progress(Progress),
    /// The plan that was running is done, but for what may wait, or failed.
    PlanEnded(Result<Vec<PlanError>, PlanError>),
    /// Postgres ended, and nobody had asked it to.
    PostgresEnded(PostgresEnded),
    /// It is time to start Postgres again.
    RestartDue,
    /// The server has said how it is, or has not.
    Observed(Result<Health, SqlError>),
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
/// So many questions in a row must stay without an answer before the server counts as silent: one
/// may meet a checkpoint on a slow disk, or a crash that Postgres recovers from within seconds.
const UNANSWERED_MAX: u32 = 3;

/// The exclusive owner of everything that changes.
#[derive(Debug)]
pub struct Node {
    hands: Arc<Hands>,
    means: Means,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    published: watch::Sender<Snapshot>,
    snapshot: Snapshot,
    phase: Phase,
    budget: RestartBudget,
    /// What holds for the container's whole life.
    standing_warnings: Vec<String>,
    /// What the last start did not do, though it served.
    undone: Vec<String>,
    /// Questions to the server since its last answer.
    unanswered: u32,
    /// What is said of them, once they are too many.
    silence: Option<String>,
}

/// What the node is doing.
#[derive(Debug)]
enum Phase {
    /// Carrying out a plan.
    Planned(JoinHandle<()>),
    /// Serving.
    Serving,
    /// Waiting to start Postgres again.
    BackingOff,
    /// Ending; `status` is the container's if all goes well.
    Stopping,
}

impl Node {
    /// A node, and where to look at it. `ended` is what the supervisor reports to; events come
    /// from whoever has a clone of `sender`.
    pub fn new(
        hands: Arc<Hands>,
        means: Means,
        mut ended: mpsc::Receiver<PostgresEnded>,
        (sender, events): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    ) -> (Self, watch::Receiver<Snapshot>) {
        let snapshot = Snapshot::first(&hands, means);
        let (published, watcher) = watch::channel(snapshot.clone());
        let forward = sender.clone();
        tokio::spawn(async move {
            while let Some(ended) = ended.recv().await {
                let _ = forward.send(Event::PostgresEnded(ended)).await;
            }
        });
        let budget = RestartBudget::for_postgres();
        let phase = Phase::BackingOff;
        let standing_warnings = snapshot.warnings.clone();
        let node = Node {
            hands,
            means,
            events,
            sender,
            published,
            snapshot,
            phase,
            budget,
            standing_warnings,
            undone: Vec::new(),
            unanswered: 0,
            silence: None,
        };
        (node, watcher)
    }

    /// Carries out `scenario`, then serves until something says stop. Returns the container's
    /// exit status.
    pub async fn run(mut self, scenario: Scenario) -> u8 {
        self.begin(scenario);
        let (hands, sender) = (Arc::clone(&self.hands), self.sender.clone());
        tokio::spawn(observer::observe(hands, self.published.subscribe(), sender));
        while let Some(event) = self.events.recv().await {
            if let Event::Stopped(status) = event {
                return status;
            }
            self.apply(event);
            self.published.send_replace(self.snapshot.clone());
        }
        unreachable!("the node holds a sender itself")
    }

    /// Handles one event. Not async on purpose: nothing here may wait.
    fn apply(&mut self, event: Event) {
        match event {
            Event::Progress(progress) => {
                if let Some(running) = &mut self.row().scenario {
                    running.advance(progress);
                }
            }
            Event::PlanEnded(ended) => self.plan_ended(ended),
            Event::PostgresEnded(PostgresEnded { status }) => match self.phase {
                Phase::Serving => {
                    warn!("postgres ended with {status}, unasked");
                    self.start_again();
                }
                // A plan that needs the server fails by itself.
                Phase::Planned(_) => warn!("postgres ended with {status} during a plan"),
                Phase::BackingOff | Phase::Stopping => {}
            },
            Event::RestartDue => {
                if let Phase::BackingOff = self.phase {
                    self.begin(Scenario::PrimaryRestart);
                }
            }
            Event::Observed(seen) => self.observed(seen),
            Event::StopRequested(how) => self.stop_requested(how),
            Event::ReloadRequested => match self.phase {
                Phase::Serving => {
                    info!("reloading the configuration of postgres and repmgrd");
                    self.hands.supervisor.reload();
                }
                // A start reads everything anyway.
                Phase::Planned(_) | Phase::BackingOff | Phase::Stopping => {}
            },
            Event::Stopped(_) => unreachable!("`run` ends on it"),
        }
    }

    fn begin(&mut self, scenario: Scenario) {
        let Hands { settings, layout, .. } = &*self.hands;
        let plan = scenario::plan(settings, layout, self.means, scenario);
        self.row().state = NodeState::Starting;
        self.row().scenario = Some(RunningScenario::begun(plan.scenario.title()));
        self.phase = Phase::Planned(tokio::spawn(carry_out(
            Arc::clone(&self.hands),
            plan,
            self.sender.clone(),
        )));
    }

    fn plan_ended(&mut self, ended: Result<Vec<PlanError>, PlanError>) {
        if let Phase::Stopping = self.phase {
            return;
        }
        self.row().scenario = None;
        match ended {
            Ok(undone) if self.hands.supervisor.listening().is_some() => {
                self.phase = Phase::Serving;
                self.undone = undone.iter().map(undone_warning).collect();
                self.undone.iter().for_each(|warning| error!("{warning}"));
                self.serves();
                let row = self.row();
                row.role = Some(Role::Primary);
                info!("{} takes reads and writes at {}", row.name, row.address);
            }
            // It ended in the moment between; its own event came while the plan still ran.
            Ok(_) => self.start_again(),
            Err(failed) => {
                say(&failed);
                let served_before = self.snapshot.state == ClusterState::Unhealthy;
                if served_before && self.hands.supervisor.listening().is_none() {
                    self.start_again();
                } else {
                    self.stop(Shutdown::Fast, status_of(&failed.source));
                }
            }
        }
    }

    /// Postgres ended after it had served: it is started again, unless that happens too often.
    fn start_again(&mut self) {
        self.snapshot.state = ClusterState::Unhealthy;
        self.snapshot.primary = None;
        self.row().state = NodeState::Stopped;
        self.silence = None;
        self.gather_warnings();
        self.phase = Phase::BackingOff;
        match self.budget.spend(Instant::now()) {
            Verdict::RestartAfter(delay) => {
                info!("postgres is started again in {:.1} s", delay.as_secs_f32());
                let sender = self.sender.clone();
                tokio::spawn(async move {
                    wait::back_off(delay).await;
                    let _ = sender.send(Event::RestartDue).await;
                });
            }
            Verdict::GiveUp => {
                error!(
                    "postgres ended too often and is not started again; its last lines above say \
                     why. The container stops; its data is left as it is."
                );
                self.stop(Shutdown::Fast, 1);
            }
        }
    }

    fn stop_requested(&mut self, how: Shutdown) {
        if let Phase::Stopping = self.phase {
            warn!("asked to stop again: postgres stops at once, and recovers at its next start");
            self.hands.supervisor.signal_postgres(Shutdown::Immediate);
            return;
        }
        info!("stopping");
        self.stop(how, 0);
    }

    fn stop(&mut self, how: Shutdown, status: u8) {
        if let Phase::Planned(plan) = std::mem::replace(&mut self.phase, Phase::Stopping) {
            plan.abort(); // Its tools end with it.
        }
        self.row().state = NodeState::Stopped;
        self.snapshot.primary = None;
        let (hands, sender) = (Arc::clone(&self.hands), self.sender.clone());
        tokio::spawn(async move {
            let stopped = stop(&hands, how).await;
            let _ = sender.send(Event::Stopped(if stopped { status } else { status.max(1) })).await;
        });
    }

    fn observed(&mut self, seen: Result<Health, SqlError>) {
        let Phase::Serving = self.phase else { return }; // Of a server that is no more.
        match seen {
            Ok(health) => self.answered(health),
            Err(failed) => {
                debug!("the server does not say how it is: {}", chain(&failed));
                if failed.is_silence() {
                    self.unanswered += 1;
                }
                if self.unanswered == UNANSWERED_MAX {
                    self.fell_silent(&failed);
                }
            }
        }
    }

    fn answered(&mut self, Health { in_recovery, lsn, timeline }: Health) {
        self.unanswered = 0;
        if self.row().state == NodeState::Unreachable {
            info!("postgres answers again");
            self.serves();
        }
        let services = self.hands.supervisor.helpers();
        let row = self.row();
        row.answered = Instant::now();
        row.role = Some(if in_recovery { Role::Standby } else { Role::Primary });
        (row.timeline, row.lsn) = (Some(timeline), lsn);
        row.lag_bytes = (!in_recovery).then_some(0);
        row.lag_seconds = (!in_recovery).then_some(0.0);
        row.services = services.iter().map(ToString::to_string).collect();
        self.snapshot.timeline = Some(timeline);
    }

    /// Nobody is sent to a server that answers nobody. It is not restarted: what keeps it from
    /// answering, a disk say, would keep it from stopping too.
    fn fell_silent(&mut self, failed: &SqlError) {
        let warning = format!("postgres runs and does not answer: {}", chain(failed));
        warn!("{warning}");
        self.silence = Some(warning);
        self.snapshot.state = ClusterState::Unhealthy;
        self.snapshot.primary = None;
        self.row().state = NodeState::Unreachable;
        self.gather_warnings();
    }

    /// Consumers may come.
    fn serves(&mut self) {
        self.snapshot.state = ClusterState::Healthy;
        self.snapshot.primary = Some(self.hands.identity.name.clone());
        self.row().state = NodeState::Running;
        self.unanswered = 0;
        self.silence = None;
        self.gather_warnings();
    }

    fn gather_warnings(&mut self) {
        let all = self.standing_warnings.iter().chain(&self.undone).chain(&self.silence);
        self.snapshot.warnings = all.cloned().collect();
    }

    fn row(&mut self) -> &mut NodeStatus {
        &mut self.snapshot.nodes[0]
    }
}

async fn carry_out(hands: Arc<Hands>, plan: Plan, sender: mpsc::Sender<Event>) {
    let (progress, mut told) = mpsc::channel(EVENTS_MAX);
    let forward = sender.clone();
    tokio::spawn(async move {
        while let Some(progress) = told.recv().await {
            let _ = forward.send(Event::Progress(progress)).await;
        }
    });
    let ended = hands.carry_out(&plan, &progress).await;
    let _ = sender.send(Event::PlanEnded(ended)).await; // Nobody asks after the end.
}

/// Afterwards nothing of the node runs. Says whether Postgres' data is as an orderly stop
/// leaves it: its exit status does not tell (an immediate shutdown ends with 0 too).
async fn stop(hands: &Hands, how: Shutdown) -> bool {
    let supervisor = &hands.supervisor;
    let began = Instant::now();
    let limit = hands.settings.herd.stop_timeout;
    supervisor.stop_helpers(limit).await;
    let Hands { layout, postgres: account, .. } = hands;
    // What is unfinished is made anew anyway. And a server that was just about to recover from a
    // full disk, which may be why the plan failed, does not always take a fast shutdown (tried).
    let unfinished = layout.unfinished_marker().exists();
    let how = if unfinished { Shutdown::Immediate } else { how };
    let running = supervisor.signal_postgres(how);
    if let Some(running) = &running {
        let left = limit.saturating_sub(began.elapsed());
        if tokio::time::timeout(left, running.wait()).await.is_err() {
            warn!(
                "postgres has not ended within {} s (PGHERD_STOP_TIMEOUT): it stops at once, and \
                 recovers at its next start",
                limit.as_secs()
            );
            supervisor.signal_postgres(Shutdown::Immediate);
            running.wait().await;
        }
    }
    if unfinished || !layout.pgdata.join("PG_VERSION").exists() {
        return true; // There is nothing that anybody was served from.
    }
    // Also where none ran: one that crashed may have been about to be started again.
    match postgres::control_data(&layout.bin_dir, &layout.pgdata, account).await {
        Ok(control) if control.shut_down => {
            if running.is_some() {
                info!("postgres was shut down in {:.1} s", began.elapsed().as_secs_f32());
            }
            true
        }
        Ok(_) => {
            warn!("postgres ended without a shutdown checkpoint: its next start recovers from WAL");
            false
        }
        Err(failed) => {
            warn!("cannot tell whether postgres was shut down: {}", chain(&failed));
            false
        }
    }
}

/// What the container ends with.
fn status_of(failed: &StepError) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    if let StepError::Unsafe(_) = failed {
        return BAD_SETTINGS;
    }
    // As the official image does.
    if let StepError::Hook(HookError::Failed { status, .. }) = failed {
        let status = status.code().or(status.signal().map(|signal| 128 + signal));
        return status.and_then(|status| u8::try_from(status).ok()).unwrap_or(1);
    }
    1
}

fn undone_warning(failed: &PlanError) -> String {
    let PlanError { step, source, .. } = failed;
    format!("cannot {step}: {}; it is tried again at the next start", chain(source))
}

fn say(failed: &PlanError) {
    if let StepError::Unsafe(refused) = &failed.source {
        refused.iter().for_each(|one| error!("{one}"));
    } else {
        error!("{}", chain(failed));
    }
}
