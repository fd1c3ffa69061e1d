//! What people want of a node, beside who is to lead: Postgres restarted, its configuration read again,
//! its data cloned again.

use super::lead::Granted;
use super::{ClusterState, Event, Node, Phase};
use crate::cluster::{NodeState, Role};
use crate::scenario::Scenario;
use crate::service::Shutdown;
use crate::settings::NodeKind;
use std::sync::Arc;
use tokio::time::timeout;
use tracing::{info, warn};

impl Node {
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
            let limit = hands.settings.herd.stop_timeout;
            if timeout(limit, hands.supervisor.stop_postgres(Shutdown::Fast)).await.is_err() {
                warn!(
                    "postgres has not ended within {} s (PGHERD_STOP_TIMEOUT): it stops at once, and \
                     recovers when it starts",
                    limit.as_secs()
                );
                hands.supervisor.stop_postgres(Shutdown::Immediate).await;
            }
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
        self.has_postgres_and_time()?;
        let name = self.name();
        if self.leads || self.made == Role::Primary {
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
        if self.snapshot.primary.is_none() {
            return Err("no primary is there to clone: pgherd status shows why".to_owned());
        }
        info!("clones the data again, as asked");
        self.begin(Scenario::Replace);
        Ok(format!("{name} is cloned again"))
    }

    fn has_postgres_and_time(&self) -> Result<(), String> {
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
