//! What follows from the cluster's record of who leads, and what people ask about it.

use super::{Event, Node, Phase};
use crate::cluster::{Role, Standing};
use crate::execute::{Other, StepError};
use crate::keeper::{LeadError, Seen};
use crate::lead::{Candidate, Rival};
use crate::scenario::Scenario;
use crate::service::{Listen, Shutdown};
use crate::settings::Failover;
use std::fmt;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// What a person asks for.
#[derive(Debug)]
pub enum Wish {
    /// Another node is to lead; a standby of the node's choice without a name.
    Switchover {
        /// The node's name.
        to: Option<String>,
        /// What would happen is said, and nothing is done.
        dry_run: bool,
    },
    /// This standby is to lead, because nobody does.
    Failover {
        /// What it has not may be lost.
        allow_data_loss: bool,
    },
    /// No change of roles by itself, or again.
    Pause(bool),
    /// This node is not chosen, or is again.
    Maintenance {
        /// Which.
        node: String,
        /// It begins.
        on: bool,
    },
    /// Postgres stops and starts.
    Restart,
    /// Postgres reads its configuration.
    Reload,
    /// What this standby has is thrown away for a new clone.
    Reinitialize,
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Switchover { to: Some(to), .. } => write!(f, "switchover to {to}"),
            Wish::Switchover { to: None, .. } => f.write_str("switchover"),
            Wish::Failover { allow_data_loss: true } => f.write_str("failover, whatever is lost"),
            Wish::Failover { allow_data_loss: false } => f.write_str("failover"),
            Wish::Pause(true) => f.write_str("pause"),
            Wish::Pause(false) => f.write_str("resume"),
            Wish::Maintenance { node, on: true } => write!(f, "maintenance of {node}"),
            Wish::Maintenance { node, on: false } => write!(f, "no maintenance of {node}"),
            Wish::Restart => f.write_str("restart"),
            Wish::Reload => f.write_str("reload"),
            Wish::Reinitialize => f.write_str("a new clone"),
        }
    }
}

/// What becomes of it: what is done now, or why not and what would make it possible.
pub type Granted = Result<String, String>;

/// A wish, and who is told what becomes of it.
#[derive(Debug)]
pub struct Asked {
    /// The wish.
    pub wish: Wish,
    /// Who asked.
    pub reply: oneshot::Sender<Granted>,
}

impl Node {
    /// The record has changed, or could not be read, or the lease is over.
    pub(super) fn lead_seen(&mut self, seen: Seen) {
        self.snapshot.paused = seen.desired.paused;
        self.snapshot.epoch = seen.record.as_ref().map(|record| record.epoch);
        self.snapshot.holder = seen.record.as_ref().map(|record| record.holder.clone());
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
        if seen.over && self.may_take_over(&seen) {
            self.begin_anyway(Scenario::TakeOver);
        }
        if seen.handed_to.is_none() && seen.record.is_some() && !seen.over {
            self.wants_nothing_more();
        }
        self.follow_the_new_leader(&seen);
    }

    /// At once, where the next look at everybody would wait for whoever is gone.
    fn follow_the_new_leader(&mut self, seen: &Seen) {
        let Some(record) = &seen.record else { return };
        let leads = record.promoting.is_none() && record.released.is_none() && !seen.over;
        if !leads || self.followed_epoch == Some(record.epoch) {
            return;
        }
        let before = self.followed_epoch.replace(record.epoch);
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
        let allowed = asked
            || (!seen.desired.paused
                && self.hands.settings.repmgr.priority > 0
                && !seen.desired.maintenance.contains(name));
        self.made == Role::Standby
            && serves
            && free
            && seen.handed_to.is_none()
            && allowed
            && self.take_over_rest.is_over()
    }

    /// What it was doing is about a primary that is gone.
    fn begin_anyway(&mut self, scenario: Scenario) {
        if let Phase::Planned(_, task) = &self.phase {
            task.abort();
        }
        self.take_over_rest.begin();
        info!("the lead is to be had: this node takes it, if it may");
        self.begin(scenario);
    }

    fn wants_nothing_more(&mut self) {
        self.take_over_rest = Default::default();
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

    /// Does it, or says why not.
    pub(super) fn asked(&mut self, Asked { wish, reply }: Asked) {
        let words = wish.to_string();
        let asks_only = matches!(wish, Wish::Switchover { dry_run: true, .. });
        let is_written = matches!(wish, Wish::Pause(_) | Wish::Maintenance { .. });
        if !asks_only && !is_written {
            self.note("asked", None, format!("a person asks for: {words}"));
        }
        let granted = match wish {
            Wish::Switchover { to, dry_run } => self.switch_over(to, dry_run),
            Wish::Failover { allow_data_loss } => self.fail_over(allow_data_loss),
            Wish::Pause(on) => {
                return self.desire(reply, words, move |desired| desired.paused = on);
            }
            Wish::Maintenance { node, on } => {
                return self.desire(reply, words, move |desired| {
                    if on {
                        desired.maintenance.insert(node.clone());
                    } else {
                        desired.maintenance.remove(&node);
                    }
                });
            }
            Wish::Restart => self.restart(),
            Wish::Reload => self.reload(),
            Wish::Reinitialize => self.reinitialize(),
        };
        if let (Err(why), false) = (&granted, asks_only) {
            self.note("refused", Some(why), words);
        }
        let _ = reply.send(granted); // Whoever asked has gone.
    }

    fn desire(
        &self,
        reply: oneshot::Sender<Granted>,
        words: String,
        change: impl Fn(&mut crate::lead::Desired) + Send + 'static,
    ) {
        let Some(keeper) = self.hands.keeper.clone() else {
            let _ = reply.send(Err(self.no_record())); // Whoever asked has gone.
            return;
        };
        let (journal, epoch) = (self.hands.journal.clone(), self.snapshot.epoch);
        let seen = keeper.now();
        if let (Some(why), _) | (None, Some(why)) =
            (seen.unreachable, (!seen.read).then(|| "they were not asked yet".to_owned()))
        {
            let _ = reply.send(Err(format!("the voters do not answer: {why}"))); // It has gone.
            return;
        }
        tokio::spawn(async move {
            let mut desired = seen.desired;
            change(&mut desired);
            let done = keeper.desire(desired).await;
            if done.is_ok() {
                journal.note("asked", epoch, None, format!("a person asks for: {words}"));
            }
            let _ = reply.send(done.map(|()| "done".to_owned()).map_err(|error| error.to_string()));
        });
    }

    fn no_record(&self) -> String {
        "roles are changed by hand in this cluster (PGHERD_FAILOVER is manual): name three or five \
         nodes in PGHERD_VOTERS, the same on each node; or promote by hand: docker exec -u postgres \
         NODE repmgr standby promote"
            .to_owned()
    }

    fn switch_over(&mut self, to: Option<String>, dry_run: bool) -> Granted {
        if self.hands.settings.herd.failover != Failover::Quorum {
            return Err(self.no_record());
        }
        if !self.leads {
            return Err("this node does not lead: ask the one that does".to_owned());
        }
        if !matches!(self.phase, Phase::Serving) {
            return Err("this node is doing something else just now: ask again soon".to_owned());
        }
        let to = self.successor(to)?;
        let name = self.hands.settings.repmgr.node_name.clone();
        if dry_run {
            return Ok(format!("{name} would hand over to {to}"));
        }
        info!("hands over to {to}, as asked");
        self.begin(Scenario::HandOver { to: to.clone() });
        Ok(format!("{name} hands over to {to}"))
    }

    /// Who can go on: `to`, or the best there is.
    pub(super) fn successor(&self, to: Option<String>) -> Granted {
        let keeper = self.hands.keeper.as_ref().ok_or_else(|| self.no_record())?;
        let seen = keeper.now();
        let others = self.hands.others.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |other: &&Other| {
            other.rival.running
                && !other.leaves
                && other.rival.says.as_ref().is_some_and(|says| {
                    says.role == Role::Standby
                        && Some(says.timeline) == seen.record.as_ref().map(|one| one.timeline)
                })
        };
        let Some(to) = to else {
            let sync = seen.record.as_ref().map(|one| one.sync.clone()).unwrap_or_default();
            let mut fit: Vec<&Other> = others
                .iter()
                .filter(fits)
                .filter(|other| {
                    let says = other.rival.says.as_ref();
                    says.is_some_and(|says| says.priority > 0)
                        && !seen.desired.maintenance.contains(&other.rival.name)
                })
                .collect();
            fit.sort_by_key(|other| !sync.contains(&other.rival.name));
            let first = fit.first().map(|other| other.rival.name.clone());
            return first.ok_or_else(|| {
                "no standby runs, follows this node and may lead: pgherd status shows why"
                    .to_owned()
            });
        };
        let Some(other) = others.iter().find(|other| other.rival.name == to) else {
            let names: Vec<_> = others.iter().map(|other| other.rival.name.as_str()).collect();
            return Err(format!("there is no standby {to}; there are: {}", names.join(", ")));
        };
        if !fits(&other) {
            return Err(format!(
                "{to} does not stream from this node just now, so it could not go on: see pgherd status"
            ));
        }
        Ok(to)
    }

    fn fail_over(&mut self, allow_data_loss: bool) -> Granted {
        let Some(keeper) = &self.hands.keeper else { return Err(self.no_record()) };
        let seen = keeper.now();
        if self.made != Role::Standby || !matches!(self.phase, Phase::Serving) {
            return Err("this node is no standby that serves".to_owned());
        }
        if seen.unreachable.is_some() {
            return Err("more than half of the voters must answer for that".to_owned());
        }
        if !seen.over {
            let holder = seen.record.map(|record| record.holder).unwrap_or_default();
            return Err(format!(
                "{holder} leads, or may write until its lease is over: to have another one lead, \
                 pgherd switchover"
            ));
        }
        self.hands.asked.store(true, Ordering::Relaxed);
        self.hands.allow_data_loss.store(allow_data_loss, Ordering::Relaxed);
        warn!(
            "a person gives the lead to this node{}",
            if allow_data_loss { ", whatever is lost by that" } else { "" }
        );
        self.begin(Scenario::TakeOver);
        Ok(format!("{} takes the lead, if it may", self.hands.settings.repmgr.node_name))
    }

    /// A stop of the primary hands over first, where somebody can go on.
    pub(super) fn hands_over_first(&mut self, how: Shutdown) -> bool {
        if !self.leads || how != Shutdown::Fast || !matches!(self.phase, Phase::Serving) {
            return false;
        }
        let paused = self.hands.keeper.as_ref().is_some_and(|keeper| keeper.now().desired.paused);
        let Ok(to) = self.successor(None) else { return false };
        if paused {
            return false;
        }
        info!("stopping: hands over to {to} first");
        self.stops_after = Some(how);
        self.begin(Scenario::HandOver { to });
        true
    }
}

/// The rules say no, or another node was sooner.
pub(super) fn is_refused(error: &StepError) -> bool {
    matches!(error, StepError::Lead(LeadError::Why(_) | LeadError::Changed))
}

/// It is the lead that could not be had: the record says more at the next look.
pub(super) fn is_about_the_lead(error: &StepError) -> bool {
    matches!(error, StepError::Lead(_) | StepError::NotSynchronous { .. })
}
