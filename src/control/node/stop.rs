//! The end of a node.

use super::{Event, Hands, Node, Phase};
use crate::cluster::{NodeState, Sighting};
use crate::postgres;
use crate::service::Shutdown;
use crate::settings::NodeKind;
use crate::system::error::chain;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

impl Node {
    pub(super) fn stop_requested(&mut self, how: Shutdown) {
        *self.hands.learned.lock().unwrap_or_else(PoisonError::into_inner) = None; // For good, then.
        if let Some(how) = self.stops_after.take() {
            warn!("asked to stop again: the lead is not handed over");
            return self.stop(how, 0);
        }
        if let Phase::Stopping = self.phase {
            warn!("asked to stop again: postgres stops at once, and recovers at its next start");
            self.hands.supervisor.signal_postgres(Shutdown::Immediate);
            return;
        }
        if self.hands_over_first(how) {
            return;
        }
        info!("stopping");
        self.stop(how, 0);
    }

    /// Nothing here says who votes, and the master does: this node begins again as one that knows. Says
    /// whether it is so.
    pub(super) fn learns_who_votes(&mut self, sightings: &[Sighting]) -> bool {
        let herd = &self.hands.settings.herd;
        if !herd.voters_may_be_learned || matches!(self.phase, Phase::Stopping) {
            return false;
        }
        let told = sightings.iter().filter(|one| one.proved).filter_map(Sighting::report);
        let mut told = told.filter(|report| report.cluster == herd.cluster).map(|one| &one.voters);
        let told = told.find(|voters| !voters.is_empty() && **voters != herd.voters);
        let Some(voters) = told.cloned() else { return false };
        let names: Vec<_> = voters.iter().map(|voter| voter.host.as_str()).collect();
        info!(
            "{} vote by the master's variables (PGHERD_VOTERS, REPMGR_SLAVES): this node begins again \
             as one that knows",
            names.join(", ")
        );
        *self.hands.learned.lock().unwrap_or_else(PoisonError::into_inner) = Some(voters);
        self.stop(Shutdown::Fast, 0);
        true
    }

    pub(super) fn stop(&mut self, how: Shutdown, status: u8) {
        match std::mem::replace(&mut self.phase, Phase::Stopping) {
            Phase::Planned(_, task) | Phase::Looking(task) => task.abort(), // Its tools end with it.
            Phase::Serving | Phase::BackingOff | Phase::Stopping => {}
        }
        self.note("stopping", None, format!("stops, to end with status {status}"));
        self.row().state = NodeState::Stopped;
        self.row().scenario = None;
        self.snapshot.primary = None;
        let (hands, sender) = (Arc::clone(&self.hands), self.sender.clone());
        tokio::spawn(async move {
            let stopped = stop(&hands, how).await;
            let _ = sender.send(Event::Stopped(if stopped { status } else { status.max(1) })).await;
        });
    }
}

/// Afterwards nothing of the node runs. Says whether Postgres' data is as an orderly stop
/// leaves it: its exit status does not tell (an immediate shutdown ends with 0 too).
async fn stop(hands: &Hands, how: Shutdown) -> bool {
    let stopped = stop_server(hands, how).await;
    if hands.keeper.as_ref().is_some_and(|keeper| keeper.now().leads) && stopped {
        // Nobody has to wait for the lease to end: whoever has everything may go on, this node too.
        let released = tokio::time::timeout(RELEASE_WITHIN, hands.release_lead(None)).await;
        if !matches!(released, Ok(Ok(()))) {
            warn!("the lead is not released: it is over when the lease is");
        }
    }
    // What the record needs ends last.
    hands.supervisor.stop_helpers(hands.settings.herd.stop_timeout).await;
    stopped
}

/// etcd answers at once, or has no majority: then it is of no use to wait.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

async fn stop_server(hands: &Hands, how: Shutdown) -> bool {
    let supervisor = &hands.supervisor;
    let began = Instant::now();
    let limit = hands.settings.herd.stop_timeout;
    supervisor.stop_helpers_of_postgres(limit).await;
    if hands.settings.herd.kind != NodeKind::Data {
        return true; // No server's data is this node's, wherever some may lie.
    }
    hands.give_up_copy().await;
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
    let half_made = unfinished || layout.rewinding_marker().exists();
    if half_made || !layout.pgdata.join("PG_VERSION").exists() {
        return true; // There is nothing that anybody is served from.
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
