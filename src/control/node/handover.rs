//! The lead is given to another node because a person says so, or because this one is to stop.

use super::super::synchronous::BYTES_MAX;
use super::wishes::Granted;
use super::{Event, Node, Phase, ScheduledSwitchover};
use crate::cluster::Role;
use crate::control::bytes_in_words;
use crate::execute::Other;
use crate::keeper::Seen;
use crate::lead::{Appointment, Desire, Why};
use crate::scenario::Scenario;
use crate::service::Shutdown;
use crate::settings::Failover;
use crate::system::clock;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use tracing::{info, warn};

/// A handover that was asked for at a time when nobody led is not done at any later time: the night is
/// over then.
const LATE_MAX_SECONDS: i64 = 300;

/// `2026-11-21T03:00:00Z`.
pub(super) fn utc(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(at) => at.to_string(),
        Err(_) => format!("{seconds} s after 1970"),
    }
}

impl Node {
    pub(super) fn switch_over(
        &mut self,
        to: Option<String>,
        at: Option<i64>,
        dry_run: bool,
    ) -> Granted {
        let to = self.may_switch_over(to)?;
        let name = self.name();
        if dry_run {
            let at = at.map(|at| format!(" at {}", utc(at))).unwrap_or_default();
            return Ok(format!("{name} would hand over to {to}{at}"));
        }
        info!("hands over to {to}, as asked");
        self.begin(Scenario::HandOver { to: to.clone() });
        Ok(format!("{name} hands over to {to}"))
    }

    /// To whom.
    fn may_switch_over(&self, to: Option<String>) -> Granted {
        if self.hands.settings.herd.failover != Failover::Quorum {
            return Err(self.no_record());
        }
        if !self.leads {
            return Err("this node does not lead: ask the one that does".to_owned());
        }
        if !matches!(self.phase, Phase::Serving) {
            return Err("this node is doing something else just now: ask again soon".to_owned());
        }
        self.successor(to)
    }

    /// What could be done now, and is to be done then.
    pub(super) fn appointment(&self, to: Option<String>, at: i64) -> Result<Desire, String> {
        let now = clock::since_1970();
        if at <= now {
            return Err(format!("{} has passed: it is {}", utc(at), utc(now)));
        }
        self.may_switch_over(to.clone())?;
        Ok(Desire::Appointment(Some(Appointment { at, to })))
    }

    /// Whoever leads does what people have put off, when the time has come; once.
    pub(super) fn keep_appointment(&mut self, seen: &Seen) {
        self.snapshot.scheduled_switchover = seen
            .desired
            .appointment
            .as_ref()
            .map(|Appointment { at, to }| ScheduledSwitchover { at: utc(*at), to: to.clone() });
        let Some(appointment) = &seen.desired.appointment else { return };
        let late = clock::since_1970() - appointment.at;
        if late < 0 || !self.leads || !matches!(self.phase, Phase::Serving) {
            return;
        }
        let Some(keeper) = self.hands.keeper.clone() else { return };
        if self.kept.replace(appointment.clone()).as_ref() == Some(appointment) {
            return; // It is on its way.
        }
        let (appointment, sender) = (appointment.clone(), self.sender.clone());
        tokio::spawn(async move {
            let kept = keeper.desire(Desire::Kept(appointment.clone())).await;
            let event = match kept {
                Ok(()) => Event::Due(Some(appointment)),
                Err(_) => Event::Due(None), // At the next look.
            };
            let _ = sender.send(event).await; // The node has ended.
        });
    }

    /// It stands among the desires no more. Without one it could not be taken from there.
    pub(super) fn due(&mut self, appointment: Option<Appointment>) {
        self.kept = None;
        let Some(Appointment { at, to }) = appointment else { return };
        let to_whom = to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
        let words = format!("switchover{to_whom}, asked for at {}", utc(at));
        let late = clock::since_1970() - at;
        let granted = match late > LATE_MAX_SECONDS {
            true => Err(format!("nobody led at that time, and it is {late} s late")),
            false => self.switch_over(to, None, false),
        };
        if let Err(why) = granted {
            warn!("{words}: not done: {why}");
            self.note("refused", Some(&why), words);
        }
    }

    /// Who can go on: `to`, or the best there is.
    pub(super) fn successor(&self, to: Option<String>) -> Granted {
        let keeper = self.hands.keeper.as_ref().ok_or_else(|| self.no_record())?;
        let seen = keeper.now();
        let others = self.hands.others.lock().unwrap_or_else(PoisonError::into_inner);
        let streaming = self.hands.streaming.lock().unwrap_or_else(PoisonError::into_inner);
        // Our own server knows best; what a node says of itself may be seconds old.
        let fits = |other: &&Other| {
            !other.leaves
                && streaming.contains(&other.rival.name)
                && other.rival.says.as_ref().is_none_or(|says| says.role == Role::Standby)
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
        self.refuse_successor(other, &seen)?;
        Ok(to)
    }

    /// What it would not be chosen for, or would not end in time for: better said now than found out when
    /// writes have stopped.
    fn refuse_successor(&self, other: &Other, seen: &Seen) -> Result<(), String> {
        let to = &other.rival.name;
        if seen.desired.maintenance.contains(to) {
            return Err(format!(
                "{to} is in maintenance: end that first (pgherd maintenance off {to})"
            ));
        }
        let Some(says) = &other.rival.says else { return Ok(()) };
        if says.priority == 0 {
            return Err(format!(
                "{to} has REPMGR_PRIORITY 0 and is never promoted: give it another one, or name another node"
            ));
        }
        let is_sync = seen.record.as_ref().is_some_and(|record| record.sync.contains(to));
        let lag = self.snapshot.nodes[0].lsn.map_or(0, |lsn| says.lsn.bytes_behind(lsn));
        if !is_sync && lag > BYTES_MAX {
            return Err(format!(
                "{to} is {} behind: ask again when it has caught up (pgherd status)",
                bytes_in_words(lag)
            ));
        }
        Ok(())
    }

    /// This standby takes the lead, if nobody has it.
    pub(super) fn fail_over(&mut self, allow_data_loss: bool) -> Granted {
        let Some(keeper) = &self.hands.keeper else { return Err(self.no_record()) };
        let seen = keeper.now();
        if self.made != Role::Standby || !matches!(self.phase, Phase::Serving) {
            return Err("this node is no standby that serves".to_owned());
        }
        if seen.unreachable.is_some() {
            return Err("more than half of the voters must answer for that".to_owned());
        }
        if seen.read && seen.record.is_none() && !allow_data_loss {
            return Err(format!("{}, if nobody has more than it has", Why::NoRecord));
        }
        if !seen.over && seen.record.is_some() {
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
        let Some(keeper) = self.hands.keeper.as_ref().filter(|_| self.leads) else {
            return false; // Without a record people decide who leads.
        };
        let seen = keeper.now();
        let to = if how != Shutdown::Fast {
            Err("asked to stop at once".to_owned())
        } else if !matches!(self.phase, Phase::Serving) {
            Err("this node is doing something else just now".to_owned())
        } else if seen.desired.paused {
            Err("paused (pgherd resume)".to_owned())
        } else {
            self.successor(None)
        };
        let to = match to {
            Ok(to) => to,
            Err(why) => {
                warn!("stopping: the lead is not handed over first: {why}");
                return false;
            }
        };
        info!("stopping: hands over to {to} first");
        self.stops_after = Some(how);
        self.begin(Scenario::HandOver { to });
        true
    }
}
