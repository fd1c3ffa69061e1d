//! A plan is begun, and tells how far it is.

use super::{ClusterState, EVENTS_MAX, Event, Node, NodeState, Phase, RunningScenario};
use crate::cluster::{Role, Standing};
use crate::execute::{Hands, Progress};
use crate::scenario::{self, Activity, Plan, Scenario};
use crate::service::Listen;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::warn;

impl Node {
    pub(super) fn begin(&mut self, scenario: Scenario) {
        let Hands { settings, layout, .. } = &*self.hands;
        let plan = scenario::plan(settings, layout, self.bearings.means, scenario.clone());
        match &scenario {
            Scenario::PrimaryFirstStart { .. } | Scenario::Restore { .. } => {
                self.say(Standing::Preparing { role: Role::Primary });
            }
            Scenario::StandbyFirstStart { .. } => {
                self.say(Standing::Preparing { role: Role::Standby });
            }
            // It has what it has until that is changed, and stops serving.
            Scenario::Rejoin { .. } | Scenario::Replace => self.serves_no_more(),
            // They have what they have.
            Scenario::RestoreInPlace { .. }
            | Scenario::MoveInRestored
            | Scenario::PrimaryRestart { .. }
            | Scenario::Recovery
            | Scenario::StandbyRestart { .. }
            | Scenario::FromArchive
            | Scenario::Follow { .. }
            | Scenario::Promoted
            | Scenario::TakeOver
            | Scenario::HandOver { .. }
            | Scenario::BackupNodeStart => {}
        }
        if !serves_meanwhile(&scenario) {
            self.row().state = NodeState::Starting;
        }
        self.stands = None;
        self.plan += 1;
        self.row().scenario = Some(RunningScenario::begun(&plan));
        self.note("scenario.begun", None, plan.scenario.title());
        let carried_out =
            carry_out(Arc::clone(&self.hands), (self.plan, plan), self.sender.clone());
        self.phase = Phase::Planned(scenario, tokio::spawn(carried_out));
    }

    pub(super) fn progressed(&mut self, progress: Progress) {
        let Phase::Planned(scenario, _) = &self.phase else { return };
        let hands_over = matches!(scenario, Scenario::HandOver { .. });
        let ends = hands_over || matches!(scenario, Scenario::RestoreInPlace { .. });
        let serves_meanwhile = serves_meanwhile(scenario) && (!ends || self.is_open());
        if ends && !serves_meanwhile {
            self.serves_no_more();
            self.snapshot.primary = None;
            if hands_over {
                self.snapshot.state = ClusterState::FailingOver;
            }
        }
        let id = self.hands.id.get().copied();
        let row = self.row();
        row.id = id;
        if !serves_meanwhile {
            row.state = match progress.activity {
                Activity::Starting => NodeState::Starting,
                Activity::Cloning => NodeState::Cloning,
                Activity::Restoring => NodeState::Restoring,
                Activity::Rewinding => NodeState::Rewinding,
                Activity::CatchingUp => NodeState::CatchingUp,
                Activity::Promoting => NodeState::Promoting,
                Activity::Demoting => NodeState::Demoting,
            };
        }
        row.waits_for.clone_from(&progress.waits_for);
        let stands = progress.stands.clone();
        let takes_back = progress.activity == Activity::Rewinding;
        if let Some(running) = &mut row.scenario {
            running.advance(progress);
            let (scenario, stage) = (running.title.clone(), running.stage_title.clone());
            self.note_stage(Some((&scenario, &stage)));
        }
        if self.stands != stands {
            stands.iter().for_each(|stands| warn!("{stands}"));
            self.stands = stands;
            self.gather_warnings();
        }
        if takes_back {
            // Half of one history and half of another.
            self.say(Standing::Preparing { role: Role::Standby });
        }
    }

    /// Afterwards nobody takes it for one that serves; it still has what it has.
    pub(super) fn serves_no_more(&mut self) {
        let standing = self.snapshot.report.as_ref().map(|report| report.standing);
        if let Some(Standing::Serving { role, timeline, lsn }) = standing {
            self.say(Standing::AtRest { role, timeline, lsn });
        }
    }

    /// Consumers can connect.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.hands.supervisor.serving(), Some(Listen::Consumer { .. }))
    }
}

/// Consumers are served before, during and after it, or up to where it stops the server.
pub(super) fn serves_meanwhile(scenario: &Scenario) -> bool {
    matches!(
        scenario,
        Scenario::FromArchive
            | Scenario::Follow { .. }
            | Scenario::Promoted
            | Scenario::TakeOver
            | Scenario::HandOver { .. }
            | Scenario::RestoreInPlace { .. }
    )
}

async fn carry_out(hands: Arc<Hands>, (number, plan): (u64, Plan), sender: mpsc::Sender<Event>) {
    let (progress, mut told) = mpsc::channel(EVENTS_MAX);
    let forward = sender.clone();
    let forwarding = tokio::spawn(async move {
        while let Some(progress) = told.recv().await {
            let _ = forward.send(Event::Progress(progress)).await;
        }
    });
    let ended = hands.carry_out(&plan, &progress).await;
    drop(progress);
    let _ = forwarding.await; // What was told last comes before the end.
    let _ = sender.send(Event::PlanEnded(number, ended)).await; // Nobody asks after the end.
}
