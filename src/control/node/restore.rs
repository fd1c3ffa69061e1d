//! The cluster is brought back to a backup because a person says so: its primary does it.

use super::wishes::{Asked, Granted, Wish};
use super::{Event, Node, NodeRole, NodeState, Phase};
use crate::cluster::Role;
use crate::observe;
use crate::scenario::{self, Kept, RestoredFrom, Scenario};
use crate::settings::RestoreSettings;
use crate::system::files;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

/// What there is to restore from, and room for it.
#[derive(Debug)]
pub struct Found {
    kept: Kept,
    free_mib: Option<u64>,
}

/// The nodes that keep backups answer from their disks; whoever asked waits for it.
const FOUND_WITHIN: Duration = Duration::from_secs(3);

impl Node {
    /// Looks for backups, and comes back with the same wish and them.
    pub(super) fn look_for_backups(
        &self,
        asked: Box<RestoreSettings>,
        dry_run: bool,
        reply: oneshot::Sender<Granted>,
    ) {
        if let Err(why) = self.may_be_restored() {
            let _ = reply.send(Err(why)); // Whoever asked has gone.
            return;
        }
        let (hands, bearings) = (Arc::clone(&self.hands), Arc::clone(&self.bearings));
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let looked = observe::kept_anywhere(&hands.settings, &bearings, &asked);
            let Ok(kept) = timeout(FOUND_WITHIN, looked).await else {
                let why = "the nodes that keep backups do not answer in time: ask again soon";
                let _ = reply.send(Err(why.to_owned()));
                return;
            };
            let free_mib = files::free_mib(&hands.layout.pgdata);
            let found = Some(Box::new(Found { kept, free_mib }));
            let wish = Wish::Restore { asked, found, dry_run };
            let _ = sender.send(Event::Asked(Asked { wish, reply })).await; // The node has ended.
        });
    }

    pub(super) fn restore(
        &mut self,
        asked: &RestoreSettings,
        found: Found,
        dry_run: bool,
    ) -> Granted {
        let Found { kept, free_mib } = found;
        let from = RestoredFrom { free_mib, ..self.may_be_restored()? };
        let restore = scenario::choose_in_place(asked, kept, &from);
        let restore = restore.map_err(|why| format!("{why}; nothing was changed"))?;
        let is_standby = |role: Option<NodeRole>| role == Some(NodeRole::Standby);
        let standbys = self.snapshot.nodes[1..].iter().filter(|row| is_standby(row.role));
        let standbys: Vec<_> = standbys.map(|row| row.name.clone()).collect();
        let name = self.name();
        if dry_run {
            return Ok(scenario::foreseen(&restore, &from, &name, &standbys));
        }
        info!("restores the cluster from {restore}, as asked");
        self.begin(Scenario::RestoreInPlace { restore: Box::new(restore) });
        Ok(format!("{name} restores the cluster"))
    }

    /// The cluster as it is now, but for the room. Else why not.
    fn may_be_restored(&self) -> Result<RestoredFrom, String> {
        self.has_postgres_and_time()?;
        let name = self.name();
        if self.made != Role::Primary || (self.hands.keeper.is_some() && !self.leads) {
            return Err(format!("{name} does not lead: ask the node that does (pgherd status)"));
        }
        // It is the record that decides, when nobody is served any more.
        let seen = self.hands.keeper.as_ref().map(|keeper| keeper.now());
        if let Some(seen) = seen.filter(|seen| seen.record.is_none() || seen.unreachable.is_some())
        {
            let why = seen.unreachable.unwrap_or_else(|| "they have not met yet".to_owned());
            return Err(format!("the voters do not answer ({why}): ask again when they do"));
        }
        let row = &self.snapshot.nodes[0];
        let system = self.snapshot.report.as_ref().and_then(|report| report.system);
        let seen = row.timeline.zip(row.lsn).zip(system);
        let Some(((timeline, lsn), system)) = seen.filter(|_| row.role == Some(NodeRole::Primary))
        else {
            return Err(format!("{name} has not looked at its server yet: ask again soon"));
        };
        let major = self.hands.layout.major;
        Ok(RestoredFrom { major, system, timeline, lsn, free_mib: None })
    }

    /// A restore is under way that has not stopped the server yet.
    pub(super) fn copies_a_backup(&self) -> bool {
        let restores = matches!(&self.phase, Phase::Planned(Scenario::RestoreInPlace { .. }, _));
        restores && self.is_open()
    }

    /// While the backup is copied the server runs as ever, and is started again as ever.
    pub(super) fn ended_while_copied(&mut self, status: ExitStatus) {
        warn!("postgres ended with {status}, unasked: the restore is given up");
        self.note("postgres.ended", Some(&status.to_string()), "postgres ended, unasked");
        if let Phase::Planned(_, task) = &self.phase {
            task.abort();
        }
        self.start_again();
    }

    pub(super) fn is_shown_running(&self) -> bool {
        self.snapshot.nodes[0].state == NodeState::Running
    }

    /// Whatever it came to: what is on the disk and in the record says what goes on.
    pub(super) fn restore_failed(&mut self, why: &str) {
        if self.is_open() {
            self.undone =
                vec![format!("the cluster was not restored, and nothing was changed: {why}")];
            self.phase = Phase::Serving;
            self.serves();
        } else {
            self.look(Duration::ZERO);
        }
    }
}
