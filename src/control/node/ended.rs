//! What follows when a plan is done or has failed, and when Postgres has ended.

use super::lead::{is_about_the_lead, is_refused};
use super::{ClusterState, Event, LOOK_AGAIN_AFTER, Node, NodeRole, Phase};
use crate::cluster::{NodeState, Role};
use crate::execute::{PlanError, StandbyError, StepError};
use crate::postgres::{HookError, PostgresError};
use crate::scenario::{Scenario, Step};
use crate::service::{RestartBudget, Shutdown, Verdict};
use crate::settings::{BAD_SETTINGS, Failover, NodeKind};
use crate::system::error::chain;
use crate::system::wait;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

impl Node {
    pub(super) fn plan_ended(&mut self, ended: Result<Vec<PlanError>, PlanError>) {
        let scenario = match std::mem::replace(&mut self.phase, Phase::BackingOff) {
            Phase::Planned(scenario, _) => scenario,
            other @ (Phase::Looking(_) | Phase::Serving | Phase::BackingOff | Phase::Stopping) => {
                return self.phase = other; // It is stopping.
            }
        };
        self.row().scenario = None;
        self.row().waits_for = None;
        self.stands = None;
        self.note_stage(None);
        match &ended {
            Ok(_) => self.note("scenario.ended", None, scenario.title()),
            Err(failed) => self.note("scenario.failed", Some(&chain(failed)), scenario.title()),
        }
        let serves = self.hands.supervisor.listening().is_some();
        match ended {
            Ok(_) if scenario == Scenario::BackupNodeStart => self.keeps_backups(),
            Ok(_) if looks_again(&scenario) => self.look(Duration::ZERO),
            Ok(_) if matches!(scenario, Scenario::HandOver { .. }) => self.handed_over(),
            Ok(undone) if serves => {
                self.undone = undone.iter().map(undone_warning).collect();
                self.undone.iter().for_each(|warning| error!("{warning}"));
                if undone.is_empty() {
                    self.rules_rest = Default::default();
                } else {
                    self.rules_rest.begin();
                }
                self.leads_alone = false; // It was said for once.
                if is_copy(&scenario) {
                    self.copies = RestartBudget::for_copies();
                }
                self.forget_the_word();
                self.serves_as(made_by(&scenario));
            }
            // It ended in the moment between; its own event came while the plan still ran.
            Ok(_) => self.start_again(),
            Err(failed) => self.plan_failed(&scenario, &failed),
        }
    }

    fn plan_failed(&mut self, scenario: &Scenario, failed: &PlanError) {
        if self.stops_after.is_some() {
            info!("the lead is not handed over: {}", chain(&failed.source));
        } else if let (Scenario::TakeOver, true) = (scenario, is_refused(&failed.source)) {
            warn!("this node does not take the lead: {}", chain(&failed.source));
        } else {
            say(failed);
        }
        if let Some(instead) = instead_of(scenario, failed) {
            return self.begin(instead);
        }
        let serves = self.hands.supervisor.listening().is_some();
        let is_final = matches!(
            &failed.source,
            StepError::Unsafe(_) | StepError::Standby(StandbyError::Taken(_))
        );
        if is_about_the_lead(&failed.source) {
            self.forget_the_word();
        }
        match scenario {
            Scenario::RestoreInPlace { .. } => self.restore_failed(&chain(failed)),
            Scenario::HandOver { .. } => self.not_handed_over(serves),
            Scenario::TakeOver if serves => {
                self.rest_before_the_next_try(&failed.source);
                if self.hands.settings.herd.failover == Failover::Eager {
                    self.rules_rest.begin(); // It is a rule that has it take over.
                }
                self.undone = vec![match is_refused(&failed.source) {
                    true => format!("nobody leads: {}", chain(&failed.source)),
                    false => undone_warning(failed),
                }];
                self.phase = Phase::Serving;
                // Half-way: it leads, and the rest is owed.
                self.serves();
            }
            Scenario::TakeOver => self.look(Duration::ZERO),
            _ if !serves && is_about_the_lead(&failed.source) => self.look(LOOK_AGAIN_AFTER),
            _ if is_final => self.stop(Shutdown::Fast, status_of(&failed.source)),
            Scenario::FromArchive
            | Scenario::Follow { .. }
            | Scenario::Promoted
            | Scenario::Rejoin { .. }
            | Scenario::Replace
            | Scenario::StandbyFirstStart { .. }
                if serves =>
            {
                // The server is as good as it was before; the rules look at it again.
                self.undone = vec![undone_warning(failed)];
                self.rules_rest.begin();
                if *scenario == Scenario::Promoted {
                    // Still owed: what the last plan made stays what the rule looks at.
                    self.phase = Phase::Serving;
                    self.serves();
                } else {
                    self.serves_as(Role::Standby);
                }
            }
            // It looks again who leads, and whether it may itself by now; that is no failure.
            Scenario::Rejoin { .. } | Scenario::Replace
                if matches!(&failed.source, StepError::Standby(StandbyError::NobodyLeads)) =>
            {
                self.look(LOOK_AGAIN_AFTER);
            }
            // What it needs of the others may be there the next time.
            Scenario::StandbyFirstStart { .. } | Scenario::Rejoin { .. } | Scenario::Replace => {
                self.try_again();
            }
            // Whoever has the backup may be back then.
            Scenario::Restore { .. }
                if matches!(&failed.source, StepError::Backup(_) | StepError::Cloud(_)) =>
            {
                self.try_again();
            }
            // The server ended meanwhile.
            Scenario::Follow { .. } | Scenario::FromArchive | Scenario::Promoted => {
                self.start_again();
            }
            Scenario::PrimaryFirstStart { .. }
            | Scenario::Restore { .. }
            | Scenario::MoveInRestored
            | Scenario::PrimaryRestart { .. }
            | Scenario::Recovery
            | Scenario::StandbyRestart { .. }
            | Scenario::BackupNodeStart => {
                let served_before = self.snapshot.state == ClusterState::Unhealthy;
                if served_before && !serves {
                    self.start_again();
                } else {
                    self.stop(Shutdown::Fast, status_of(&failed.source));
                }
            }
        }
    }

    /// A person's word is for one taking.
    pub(super) fn forget_the_word(&self) {
        self.hands.asked.store(false, Ordering::Relaxed);
        self.hands.allow_data_loss.store(false, Ordering::Relaxed);
    }

    /// It joins whoever leads now, unless the container is to stop.
    fn handed_over(&mut self) {
        self.note("handed-over", None, "another node leads now, or is about to");
        self.hands.prefer(None);
        self.made = Role::Standby;
        self.serves_no_more();
        match self.stops_after.take() {
            Some(how) => self.stop(how, 0),
            None => self.look(Duration::ZERO),
        }
    }

    /// It goes on as it was: it leads still.
    fn not_handed_over(&mut self, serves: bool) {
        self.hands.prefer(None);
        if let Some(how) = self.stops_after.take() {
            return self.stop(how, 0);
        }
        if serves {
            self.phase = Phase::Serving;
            self.serves();
        } else {
            self.look(Duration::ZERO);
        }
    }

    /// What depends on others is never given up; but a copy that fails after an hour is not to be
    /// begun again at once.
    fn try_again(&mut self) {
        self.snapshot.state = ClusterState::Unhealthy;
        self.row().state = NodeState::Stopped;
        self.gather_warnings();
        self.phase = Phase::BackingOff;
        if let Verdict::RestartAfter(delay) = self.copies.spend(Instant::now()) {
            self.restart_after(delay);
        }
    }

    fn restart_after(&self, delay: Duration) {
        info!("starts again in {:.1} s", delay.as_secs_f32());
        let sender = self.sender.clone();
        tokio::spawn(async move {
            wait::back_off(delay).await;
            let _ = sender.send(Event::RestartDue).await;
        });
    }

    /// Postgres ended after it had served, or could not be made to: it is tried again, unless that
    /// happens too often.
    pub(super) fn start_again(&mut self) {
        self.snapshot.state = ClusterState::Unhealthy;
        self.snapshot.primary = None;
        self.row().state = NodeState::Stopped;
        self.silence = None;
        self.serves_no_more();
        self.gather_warnings();
        self.phase = Phase::BackingOff;
        match self.budget.spend(Instant::now()) {
            Verdict::RestartAfter(delay) => self.restart_after(delay),
            Verdict::GiveUp => {
                error!(
                    "that failed too often and is not tried again; the lines above say why. The \
                     container stops; its data is left as it is."
                );
                self.stop(Shutdown::Fast, 1);
            }
        }
    }

    /// Consumers may come.
    fn serves_as(&mut self, role: Role) {
        let before = std::mem::replace(&mut self.made, role);
        self.phase = Phase::Serving;
        self.serves();
        let row = self.row();
        let told = row.role.is_some() && before == role;
        row.role = Some(role.into());
        if !told {
            let what = if role == Role::Primary { "reads and writes" } else { "reads" };
            let takes = format!("{} takes {what} at {}", row.name, row.address);
            info!("{takes}");
            self.note("serves", None, takes);
        }
    }

    /// It has no Postgres, by the operator's choice: cron runs, and that is all.
    fn keeps_backups(&mut self) {
        self.phase = Phase::Serving;
        let votes_only = self.hands.settings.herd.kind == NodeKind::Witness;
        let row = self.row();
        row.role = Some(if votes_only { NodeRole::Witness } else { NodeRole::Backup });
        row.state = NodeState::Running;
        let does = if votes_only { "has a vote" } else { "keeps the cluster's backups" };
        info!("{} {does}", row.name);
        self.gather_warnings();
    }
}

/// It has what a primary has, rewound or copied, and streams.
fn is_copy(scenario: &Scenario) -> bool {
    matches!(
        scenario,
        Scenario::StandbyFirstStart { .. } | Scenario::Rejoin { .. } | Scenario::Replace
    )
}

/// It leaves no server, and what is on the disk then is a primary's.
fn looks_again(scenario: &Scenario) -> bool {
    matches!(
        scenario,
        Scenario::Recovery | Scenario::RestoreInPlace { .. } | Scenario::MoveInRestored
    )
}

/// What the server is after `scenario`.
fn made_by(scenario: &Scenario) -> Role {
    match scenario {
        Scenario::PrimaryFirstStart { .. }
        | Scenario::Restore { .. }
        | Scenario::RestoreInPlace { .. }
        | Scenario::MoveInRestored
        | Scenario::PrimaryRestart { .. }
        | Scenario::Recovery
        | Scenario::Promoted
        | Scenario::TakeOver => Role::Primary,
        Scenario::StandbyFirstStart { .. }
        | Scenario::StandbyRestart { .. }
        | Scenario::Rejoin { .. }
        | Scenario::Replace
        | Scenario::FromArchive
        | Scenario::Follow { .. }
        | Scenario::HandOver { .. }
        | Scenario::BackupNodeStart => Role::Standby,
    }
}

/// Some failures say themselves what is to be done.
fn instead_of(scenario: &Scenario, failed: &PlanError) -> Option<Scenario> {
    let instead = match (&failed.source, &failed.failed) {
        (StepError::Standby(StandbyError::Forked { .. }), _) => {
            Scenario::Rejoin { as_standby: true }
        }
        // It could not be asked: nothing was changed, and it may be there the next time.
        (StepError::Postgres(PostgresError::Peer(_)), _) => return None,
        (StepError::Standby(StandbyError::WalGone { .. }), _)
            if *scenario != Scenario::FromArchive =>
        {
            Scenario::FromArchive
        }
        (
            StepError::Standby(
                StandbyError::WalGone { .. }
                | StandbyError::NotArchived { .. }
                | StandbyError::TwoOfOneNumber(_),
            ),
            _,
        )
        | (_, Step::Rewind) => Scenario::Replace,
        _ => return None,
    };
    warn!("next: {}", instead.title());
    Some(instead)
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
    let PlanError { failed, source, .. } = failed;
    format!("cannot {failed}: {}; it is tried again", chain(source))
}

fn say(failed: &PlanError) {
    if let StepError::Unsafe(refused) = &failed.source {
        refused.iter().for_each(|one| error!("{one}"));
    } else {
        error!("{}", chain(failed));
    }
}
