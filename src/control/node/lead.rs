//! What follows from the cluster's record of who leads.

use super::{Event, Node, Phase};
use crate::cluster::{Role, Standing};
use crate::etcd::Voting;
use crate::execute::{Other, StepError};
use crate::keeper::{LeadError, Seen};
use crate::lead::{Candidate, Rival};
use crate::scenario::Scenario;
use crate::service::{Listen, Shutdown};
use crate::system::wait;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

/// A lead that nobody has.
const OFFERED_EVERY: Duration = Duration::from_secs(1);
/// Between two tries, where what stands in the way passes by itself.
const TRIES_AGAIN_WITHIN: Duration = Duration::from_secs(2);

/// In which the lead was tried for.
#[derive(Debug, PartialEq)]
pub(super) struct Circumstances {
    seen: Seen,
    /// Who says what it has, and who serves.
    others: Vec<(String, bool, bool)>,
}

impl Node {
    /// The record has changed, or could not be read, or the lease is over.
    pub(super) fn lead_seen(&mut self, seen: Seen) {
        self.snapshot.paused = seen.desired.paused;
        self.snapshot.epoch = seen.record.as_ref().map(|record| record.epoch);
        self.snapshot.holder = seen.record.as_ref().map(|record| record.holder.clone());
        self.snapshot.promoting =
            seen.record.as_ref().is_some_and(|record| record.promoting.is_some());
        self.voters_silent = seen
            .unreachable
            .as_ref()
            .map(|why| format!("the voters do not answer, so nobody is promoted: {why}"));
        self.note_lease(&seen);
        self.note_lead(&seen);
        self.mark_rows(&seen);
        self.gather_warnings();
        let had_it = std::mem::replace(&mut self.leads, seen.leads);
        if had_it && !seen.leads && self.made == Role::Primary {
            self.lost_the_lead();
        }
        let stands = Circumstances { seen: seen.clone(), others: self.who_is_there() };
        if self.tried.as_ref().is_some_and(|tried| *tried != stands) {
            self.wants_nothing_more(); // What stood in the way may be gone.
        }
        if seen.over && self.may_take_over(&seen) {
            self.tried = Some(stands);
            self.begin_anyway(Scenario::TakeOver);
        }
        if seen.handed_to.is_none() && seen.record.is_some() && !seen.over {
            self.wants_nothing_more();
        }
        self.follow_the_new_leader(&seen);
        self.keep_appointment(&seen);
    }

    /// What the voters ask each other is answered with it from now on.
    pub(super) fn vote_seen(&mut self, Voting { vote, trouble }: Voting) {
        if let Some(report) = &mut self.snapshot.report {
            report.vote = vote;
        }
        self.vote_missing = trouble;
        self.gather_warnings();
    }

    /// At once, where the next look at everybody would wait for whoever is gone.
    fn follow_the_new_leader(&mut self, seen: &Seen) {
        let Some(record) = &seen.record else { return };
        let leads = record.promoting.is_none() && record.released.is_none() && !seen.over;
        let taking = (record.epoch, record.instance.clone());
        if !leads || self.followed.as_ref() == Some(&taking) {
            return;
        }
        let before = self.followed.replace(taking);
        let is_other = record.holder != self.hands.settings.repmgr.node_name;
        if before.is_some() && is_other && self.made == Role::Standby {
            match &self.phase {
                Phase::Serving if self.hands.supervisor.serving().is_some() => {
                    info!("{} leads now (epoch {}): follows it", record.holder, record.epoch);
                    self.begin(Scenario::Follow { replaces: false });
                }
                // The rules see to it.
                Phase::Serving
                | Phase::Planned(..)
                | Phase::Looking(_)
                | Phase::BackingOff
                | Phase::Stopping => self.hands.look_around.notify_one(),
            }
        }
    }

    /// What the record and people's wishes say of each node.
    pub(super) fn mark_rows(&mut self, seen: &Seen) {
        let voters = &self.hands.settings.herd.voters;
        for row in &mut self.snapshot.nodes {
            row.sync = seen.record.as_ref().is_some_and(|record| record.sync.contains(&row.name));
            row.maintenance = seen.desired.maintenance.contains(&row.name);
            row.votes = voters.iter().any(|voter| voter.host == row.address.host);
        }
    }

    /// Worth a try: the rules themselves are asked when the lead is taken.
    fn may_take_over(&self, seen: &Seen) -> bool {
        let name = &self.hands.settings.repmgr.node_name;
        let serves = matches!(self.hands.supervisor.serving(), Some(Listen::Consumer { .. }));
        let free = match &self.phase {
            Phase::Serving => true,
            Phase::Planned(scenario, _) => matches!(scenario, Scenario::Follow { .. }),
            Phase::Looking(_) | Phase::BackingOff | Phase::Stopping => false,
        };
        let asked = self.hands.asked.load(Ordering::Relaxed);
        let named = seen.record.as_ref().and_then(|record| record.released.as_ref());
        let is_named = named.is_some_and(|released| released.to.as_ref() == Some(name));
        let allowed = asked
            || ((!seen.desired.paused || is_named)
                && self.hands.settings.repmgr.priority > 0
                && !seen.desired.maintenance.contains(name));
        self.made == Role::Standby
            && serves
            && free
            && seen.unreachable.is_none()
            && seen.handed_to.is_none()
            && allowed
            && self.take_over_rest.is_over()
    }

    /// Of the others: who says what it has, and who serves.
    fn who_is_there(&self) -> Vec<(String, bool, bool)> {
        let others = self.hands.others.lock().unwrap_or_else(PoisonError::into_inner);
        let rivals = others.iter().map(|other| &other.rival);
        rivals.map(|one| (one.name.clone(), one.says.is_some(), one.running)).collect()
    }

    /// What it was doing is about a primary that is gone.
    fn begin_anyway(&mut self, scenario: Scenario) {
        if let Phase::Planned(_, task) = &self.phase {
            task.abort();
        }
        info!("the lead is to be had: this node takes it, if it may");
        self.begin(scenario);
    }

    /// It could not: it is tried again, later each time.
    pub(super) fn rest_before_the_next_try(&mut self, failed: &StepError) {
        match matches!(failed, StepError::Lead(why) if why.passes_with_time()) {
            true => self.take_over_rest.begin_at_most(TRIES_AGAIN_WITHIN),
            false => self.take_over_rest.begin(),
        }
    }

    fn wants_nothing_more(&mut self) {
        self.take_over_rest = Default::default();
        self.tried = None;
    }

    /// The init half stops the server in time in any case; this is for who has been told at once.
    fn lost_the_lead(&mut self) {
        if self.stops_after.is_some() || matches!(self.phase, Phase::Stopping) {
            return;
        }
        if let Phase::Planned(Scenario::HandOver { .. }, _) = self.phase {
            return; // It gave it away.
        }
        error!("this node must not take writes any more: postgres is stopped at once");
        self.note("lead.lost", None, "must not take writes any more: postgres is stopped at once");
        self.hands.supervisor.signal_postgres(Shutdown::Immediate);
        if let Phase::Planned(_, task) = &self.phase {
            task.abort();
        }
        self.fenced();
    }

    /// Nothing promotes but the node itself, as the record allows. Somebody else did.
    pub(super) fn usurps(&mut self) {
        let leads = self.hands.keeper.as_ref().is_none_or(|keeper| keeper.now().leads);
        let at_work = match &self.phase {
            Phase::Planned(scenario, _) => matches!(scenario, Scenario::TakeOver),
            Phase::Stopping => true,
            Phase::Serving | Phase::Looking(_) | Phase::BackingOff => false,
        };
        if leads || at_work {
            return;
        }
        error!(
            "postgres was promoted by hand, and this node does not lead by the cluster's record: it is \
             stopped at once (to have another node lead: pgherd switchover, or pgherd failover)"
        );
        self.hands.supervisor.signal_postgres(Shutdown::Immediate);
        if let Phase::Planned(_, task) = &self.phase {
            task.abort();
        }
        self.fenced();
    }

    /// Afterwards it looks who leads, and joins.
    pub(super) fn fenced(&mut self) {
        self.note("lead.fenced", None, "postgres is stopped; then this node looks who leads");
        self.serves_no_more();
        self.snapshot.primary = None;
        self.row().state = crate::cluster::NodeState::Fenced;
        self.made = Role::Standby;
        self.phase = Phase::BackingOff;
        let (hands, sender) = (std::sync::Arc::clone(&self.hands), self.sender.clone());
        tokio::spawn(async move {
            hands.supervisor.stop_postgres(Shutdown::Immediate).await;
            let _ = sender.send(Event::RestartDue).await; // The node has ended.
        });
    }

    /// The others with data, for the rules of who leads, and for whoever is asked to agree.
    pub(super) fn tell_the_others(&mut self, sightings: &[crate::cluster::Sighting]) {
        let Some(keeper) = &self.hands.keeper else { return };
        let rows = &self.snapshot.nodes[1..];
        let others: Vec<Other> = rows
            .iter()
            .filter(|row| row.id.is_some())
            .map(|row| {
                let sighting = sightings
                    .iter()
                    .find(|one| one.report().is_some_and(|report| report.name == row.name));
                let report = sighting.and_then(|one| one.report());
                let says = report.and_then(|report| {
                    let (timeline, lsn) = report.position()?;
                    let role = match report.standing {
                        Standing::Serving { role, .. } | Standing::AtRest { role, .. } => role,
                        Standing::Empty { .. } | Standing::Preparing { .. } | Standing::NoData => {
                            return None;
                        }
                    };
                    Some(Candidate {
                        name: report.name.clone(),
                        id: report.id,
                        system: report.system?,
                        role,
                        timeline,
                        lsn,
                        priority: row.priority,
                        complete: true,
                    })
                });
                let running =
                    matches!(report.map(|report| report.standing), Some(Standing::Serving { .. }));
                let leaves =
                    report.is_some_and(|report| report.state == crate::cluster::NodeState::Stopped);
                let rival = Rival { name: row.name.clone(), says, running };
                Other { address: row.address.clone(), rival, leaves }
            })
            .collect();
        let is_there = |name: &String| {
            others.iter().any(|one| one.rival.name == *name && one.rival.running && !one.leaves)
        };
        let sync = keeper.now().record.map(|record| record.sync).unwrap_or_default();
        let waits = self.leads
            && self.hands.settings.herd.synchronous == crate::cluster::SyncMode::Required
            && !sync.iter().any(is_there);
        self.writes_wait = waits.then(|| {
            "writes wait: PGHERD_SYNCHRONOUS is required, and no standby runs that has every write; \
             start one, or set it to preferred on this node and start that again"
                .to_owned()
        });
        let named = others.iter().map(|one| (one.rival.name.clone(), one.address.clone()));
        keeper.tell_members(named.collect());
        *self.hands.others.lock().unwrap_or_else(PoisonError::into_inner) = others;
    }
}

/// The rules say no, or another node was sooner.
pub(super) fn is_refused(error: &StepError) -> bool {
    matches!(error, StepError::Lead(LeadError::Why(_) | LeadError::Changed))
}

/// The lead is offered again and again as long as nobody has it: whoever may take it may have had something
/// else to do, or been refused for a reason that has passed since, and nothing in the record changes by that.
pub(super) async fn tell_who_leads(mut seen: watch::Receiver<Seen>, sender: mpsc::Sender<Event>) {
    loop {
        let is_free = seen.borrow().over;
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { return },
            () = wait::back_off(OFFERED_EVERY), if is_free => {}
        }
        let now = Box::new(seen.borrow_and_update().clone());
        if sender.send(Event::Lead(now)).await.is_err() {
            return;
        }
    }
}

/// It is the lead that could not be had: the record says more at the next look.
pub(super) fn is_about_the_lead(error: &StepError) -> bool {
    use StepError::{Lead, NotSynchronous, SuccessorLeaves, SuccessorSilent};
    matches!(
        error,
        Lead(_) | NotSynchronous { .. } | SuccessorSilent { .. } | SuccessorLeaves { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node was refused for want of an answer that came a moment later, and nobody led any more.
    #[tokio::test]
    async fn a_lead_that_nobody_has_is_offered_again_though_nothing_changes() {
        let (says, seen) = watch::channel(Seen::default());
        let (sender, mut events) = mpsc::channel(8);
        tokio::spawn(tell_who_leads(seen, sender));
        let free = Seen { over: true, ..Seen::default() };
        says.send_replace(free.clone());
        for _ in 0..2 {
            let told = tokio::time::timeout(10 * OFFERED_EVERY, events.recv()).await;
            let Ok(Some(Event::Lead(told))) = told else { panic!("it is not offered") };
            assert_eq!(*told, free);
        }
        drop(says);
        while events.recv().await.is_some() {}
    }
}
