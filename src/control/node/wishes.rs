//! What people ask of a node. Who is to lead has a file of its own (`handover`).

use super::handover::utc;
use super::{ClusterState, Event, Found, Node, NodeRole, NodeStatus, Phase};
use crate::cluster::{NodeState, Role};
use crate::execute::Departed;
use crate::lead::Desire;
use crate::scenario::Scenario;
use crate::settings::{NodeKind, RestoreFrom, RestoreSettings};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError};
use tokio::sync::oneshot;
use tracing::info;

/// What a person asks for.
#[derive(Debug)]
pub enum Wish {
    /// Another node is to lead; a standby of the node's choice without a name.
    Switchover {
        /// The node's name.
        to: Option<String>,
        /// Then, in seconds since 1970; at once without one.
        at: Option<i64>,
        /// What would happen is said, and nothing is done.
        dry_run: bool,
    },
    /// No handover at the time that was said before.
    CancelSwitchover,
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
        /// Also where nobody else could lead then.
        forced: bool,
    },
    /// A member that is gone for good is taken out.
    TakeOut {
        /// Which.
        node: String,
    },
    /// The cluster goes back to a backup, or to a moment since.
    Restore {
        /// To which.
        asked: Box<RestoreSettings>,
        /// From what; it is looked for where nothing is said.
        found: Option<Box<Found>>,
        /// What would happen is said, and nothing is done.
        dry_run: bool,
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
            Wish::Switchover { to, at, .. } => {
                f.write_str("switchover")?;
                to.iter().try_for_each(|to| write!(f, " to {to}"))?;
                at.iter().try_for_each(|at| write!(f, " at {}", utc(*at)))
            }
            Wish::CancelSwitchover => f.write_str("no switchover at a later time"),
            Wish::Failover { allow_data_loss: true } => f.write_str("failover, whatever is lost"),
            Wish::Failover { allow_data_loss: false } => f.write_str("failover"),
            Wish::Pause(true) => f.write_str("pause"),
            Wish::Pause(false) => f.write_str("resume"),
            Wish::Maintenance { node, on: true, .. } => write!(f, "maintenance of {node}"),
            Wish::Maintenance { node, on: false, .. } => write!(f, "no maintenance of {node}"),
            Wish::TakeOut { node } => write!(f, "{node} to be taken out"),
            Wish::Restore { asked, .. } => {
                f.write_str("restore")?;
                match &asked.from {
                    RestoreFrom::Latest => {}
                    RestoreFrom::Backup(id) => write!(f, " of {id}")?,
                }
                asked.target.iter().try_for_each(|target| write!(f, " up to {target}"))
            }
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
    /// Does it, or says why not.
    pub(super) fn asked(&mut self, Asked { wish, reply }: Asked) {
        if let Wish::Restore { asked, found: None, dry_run } = wish {
            return self.look_for_backups(asked, dry_run, reply);
        }
        let words = wish.to_string();
        let asks_only = matches!(
            wish,
            Wish::Switchover { dry_run: true, .. } | Wish::Restore { dry_run: true, .. }
        );
        let stands = match &wish {
            Wish::Pause(on) => Some(Ok(Desire::Paused(*on))),
            Wish::Maintenance { node, on, forced } => {
                let among = if *forced { BTreeSet::new() } else { self.candidates() };
                Some(Ok(Desire::Maintenance { node: node.clone(), on: *on, among }))
            }
            Wish::Switchover { to, at: Some(at), dry_run: false } => {
                Some(self.appointment(to.clone(), *at))
            }
            Wish::CancelSwitchover => Some(Ok(Desire::Appointment(None))),
            Wish::Switchover { .. }
            | Wish::Failover { .. }
            | Wish::TakeOut { .. }
            | Wish::Restore { .. }
            | Wish::Restart
            | Wish::Reload
            | Wish::Reinitialize => None,
        };
        if let Some(Ok(desire)) = stands {
            return self.desire(reply, words, desire);
        }
        if !asks_only {
            self.note("asked", None, format!("a person asks for: {words}"));
        }
        if let Some(Err(why)) = stands {
            return self.refuse(reply, words, why);
        }
        let granted = match wish {
            Wish::Switchover { to, at, dry_run } => self.switch_over(to, at, dry_run),
            Wish::Failover { allow_data_loss } => self.fail_over(allow_data_loss),
            Wish::TakeOut { node } => match self.may_be_taken_out(&node) {
                Ok(member) => return self.take_out(reply, words, member),
                Err(why) => Err(why),
            },
            Wish::Restore { asked, found: Some(found), dry_run } => {
                self.restore(&asked, *found, dry_run)
            }
            Wish::Restart => self.restart(),
            Wish::Reload => self.reload(),
            Wish::Reinitialize => self.reinitialize(),
            Wish::Pause(_)
            | Wish::Maintenance { .. }
            | Wish::CancelSwitchover
            | Wish::Restore { found: None, .. } => {
                unreachable!("it was seen to above")
            }
        };
        if let (Err(why), false) = (&granted, asks_only) {
            self.note("refused", Some(why), words);
        }
        let _ = reply.send(granted); // Whoever asked has gone.
    }

    fn desire(&self, reply: oneshot::Sender<Granted>, words: String, desire: Desire) {
        let Some(keeper) = self.hands.keeper.clone() else {
            return self.refuse(reply, words, self.no_record());
        };
        let (journal, epoch) = (self.hands.journal.clone(), self.snapshot.epoch);
        tokio::spawn(async move {
            let done = keeper.desire(desire).await;
            let said = done.map(|()| "done".to_owned()).map_err(|error| error.to_string());
            match &said {
                Ok(_) => journal.note("asked", epoch, None, format!("a person asks for: {words}")),
                Err(why) => journal.note("refused", epoch, Some(why), words),
            }
            let _ = reply.send(said); // Whoever asked has gone.
        });
    }

    /// The standbys that run and may be chosen, as far as this node knows.
    fn candidates(&self) -> BTreeSet<String> {
        let may_lead = |row: &&NodeStatus| {
            row.role == Some(NodeRole::Standby)
                && row.state == NodeState::Running
                && row.priority > 0
        };
        self.snapshot.nodes.iter().filter(may_lead).map(|row| row.name.clone()).collect()
    }

    /// It is gone, as far as this primary can see.
    fn may_be_taken_out(&self, name: &str) -> Result<Departed, String> {
        if self.made != Role::Primary || !matches!(self.phase, Phase::Serving) {
            return Err("this node is no primary that serves: ask the one that is".to_owned());
        }
        let Some(row) = self.snapshot.nodes[1..].iter().find(|row| row.name == name) else {
            return Err(format!("there is no other node {name}: see pgherd node list"));
        };
        let answers = row.state != NodeState::Unreachable;
        let streaming = self.hands.streaming.lock().unwrap_or_else(PoisonError::into_inner);
        if answers || streaming.contains(name) {
            return Err(format!("{name} runs: stop it first (docker stop), for good"));
        }
        let record = self.hands.keeper.as_ref().and_then(|keeper| keeper.now().record);
        if record.is_some_and(|record| record.sync.contains(name)) {
            return Err(format!(
                "commits wait for {name} (PGHERD_SYNCHRONOUS is required): bring another standby up \
                 first, or set it to preferred"
            ));
        }
        let host = row.address.host.clone();
        Ok(Departed { name: name.to_owned(), id: row.id, host })
    }

    fn take_out(&self, reply: oneshot::Sender<Granted>, words: String, member: Departed) {
        let hands = Arc::clone(&self.hands);
        let epoch = self.snapshot.epoch;
        tokio::spawn(async move {
            let said = hands.take_out(&member).await;
            let why = said.as_ref().err().map(String::as_str);
            let id = if why.is_none() { "asked" } else { "refused" };
            hands.journal.note(id, epoch, why, words);
            hands.look_around.notify_one();
            let _ = reply.send(said); // Whoever asked has gone.
        });
    }

    fn refuse(&self, reply: oneshot::Sender<Granted>, words: String, why: String) {
        self.note("refused", Some(&why), words);
        let _ = reply.send(Err(why)); // Whoever asked has gone.
    }

    /// Roles are not changed by this cluster.
    pub(super) fn no_record(&self) -> String {
        "roles are changed by hand in this cluster (PGHERD_FAILOVER is manual): name three or five \
         nodes in PGHERD_VOTERS, the same on each node; or promote by hand: docker exec -u postgres \
         NODE repmgr standby promote"
            .to_owned()
    }

    /// Postgres is stopped in order and started again; a primary keeps its lead, which is renewed
    /// meanwhile.
    pub(super) fn restart(&mut self) -> Granted {
        self.has_postgres_and_time()?;
        info!("restarts postgres, as asked");
        self.serves_no_more();
        self.snapshot.state = ClusterState::Unhealthy;
        self.snapshot.primary = None;
        self.row().state = NodeState::Starting;
        self.phase = Phase::BackingOff;
        let (hands, sender) = (Arc::clone(&self.hands), self.sender.clone());
        tokio::spawn(async move {
            hands.supervisor.stop_postgres_within(hands.settings.herd.stop_timeout).await;
            let _ = sender.send(Event::RestartDue).await; // The node has ended.
        });
        Ok(format!("{} restarts postgres", self.name()))
    }

    /// What SIGHUP does.
    pub(super) fn reload(&mut self) -> Granted {
        match self.phase {
            Phase::Serving => {
                info!("reloading the configuration of postgres and repmgrd");
                self.hands.supervisor.reload();
                Ok(format!("{} reads its configuration again", self.name()))
            }
            // A start reads everything anyway.
            Phase::Looking(_) | Phase::Planned(..) | Phase::BackingOff | Phase::Stopping => {
                Ok(format!("{} starts, and reads everything anyway", self.name()))
            }
        }
    }

    /// What it has is replaced by a clone, which is made beside it.
    pub(super) fn reinitialize(&mut self) -> Granted {
        // A standby that waits for what it misses need not come to an end first. Nothing is changed on its disk
        // just then.
        let waits = self.row().waits_for.is_some();
        let at_work = match &self.phase {
            Phase::Planned(scenario, task) if waits && ends_as_standby(scenario) => {
                Some(task.abort_handle())
            }
            Phase::Planned(..)
            | Phase::Looking(_)
            | Phase::Serving
            | Phase::BackingOff
            | Phase::Stopping => None,
        };
        if at_work.is_none() {
            self.has_postgres_and_time()?;
        }
        let name = self.name();
        if self.leads || (self.made == Role::Primary && at_work.is_none()) {
            return Err(format!(
                "{name} is the primary, whose data is the cluster's: have another node lead first \
                 (pgherd switchover)"
            ));
        }
        // While the record says that it has every acknowledged write, it must.
        let record = self.hands.keeper.as_ref().and_then(|keeper| keeper.now().record);
        if record.is_some_and(|record| record.sync.contains(&name)) {
            return Err(format!(
                "{name} is the standby that has every acknowledged write: first have another one \
                 chosen (pgherd maintenance on {name})"
            ));
        }
        // While it does not serve it need not know: the plan looks for one before it touches anything.
        if self.snapshot.primary.is_none() && at_work.is_none() {
            return Err("no primary is there to clone: pgherd status shows why".to_owned());
        }
        if let Some(task) = at_work {
            task.abort();
        }
        info!("clones the data again, as asked");
        self.begin(Scenario::Replace);
        Ok(format!("{name} is cloned again"))
    }

    pub(super) fn has_postgres_and_time(&self) -> Result<(), String> {
        let name = self.name();
        if self.hands.settings.herd.kind != NodeKind::Data {
            return Err(format!("{name} has no postgres"));
        }
        match &self.phase {
            Phase::Serving => Ok(()),
            Phase::Planned(scenario, _) => Err(format!(
                "{name} is at work (\"{}\"): ask again when it is done",
                scenario.title()
            )),
            Phase::Looking(_) | Phase::BackingOff => {
                Err(format!("{name} starts just now: ask again when it serves"))
            }
            Phase::Stopping => Err(format!("{name} is about to end")),
        }
    }

    pub(super) fn name(&self) -> String {
        self.hands.settings.repmgr.node_name.clone()
    }
}

/// What it changes may be thrown away at any moment for a new clone.
fn ends_as_standby(scenario: &Scenario) -> bool {
    match scenario {
        Scenario::StandbyRestart { .. }
        | Scenario::Rejoin { .. }
        | Scenario::FromArchive
        | Scenario::Follow { .. } => true,
        Scenario::PrimaryFirstStart { .. }
        | Scenario::Restore { .. }
        | Scenario::RestoreInPlace { .. }
        | Scenario::MoveInRestored
        | Scenario::PrimaryRestart { .. }
        | Scenario::Recovery
        | Scenario::StandbyFirstStart { .. }
        | Scenario::Replace
        | Scenario::Promoted
        | Scenario::TakeOver
        | Scenario::HandOver { .. }
        | Scenario::BackupNodeStart => false,
    }
}
