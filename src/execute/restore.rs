//! The steps of a node that brings a backup back.

use super::standby::tell_bytes;
use super::{Hands, StepError, Teller};
use crate::barman;
use crate::cluster::{Lsn, Role};
use crate::postgres::{Bytes, Session, brought_back};
use crate::scenario::{KeptBy, Restore};
use crate::service::{Durability, Listen};
use crate::settings::{RestoreTarget, Secret};
use crate::system::wait;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// While WAL is replayed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// While a person looks at what there is.
const LOOK_WHEN_PAUSED: Duration = Duration::from_secs(1);
/// The last file is as likely to be half full as not, and no part of the estimate.
const ALMOST: u64 = 1;

impl Hands {
    pub(super) async fn bring_back(
        &self,
        restore: &Restore,
        teller: &Teller,
    ) -> Result<(), StepError> {
        let Hands { settings, layout, postgres: account, .. } = self;
        let (node, token) = self.keeper_of(restore);
        let id = &restore.backup.id;
        info!("brings back {restore}, usable from {} on", restore.backup.ended);
        let directory = brought_back::begin(layout, account)?;
        let offer = barman::backup_at(node, &token, &restore.archive, id).await?;
        let mut tell = tell_bytes(teller.clone(), "copied");
        offer.unpack_into(&directory, account, |done, total| tell(Bytes { done, total })).await?;
        match brought_back::verify(layout, account).await? {
            true => info!("each file of backup {id} has the checksum that was noted for it"),
            false => warn!("backup {id} has no list of checksums: what came is not compared"),
        }
        Ok(brought_back::complete(settings, layout, account).await?)
    }

    /// Where the archive is asked for, and what is shown there.
    fn keeper_of(&self, restore: &Restore) -> ((String, u16), Secret) {
        let own = &self.settings.herd.control_token;
        match &restore.kept_by {
            KeptBy::Here => (("127.0.0.1".to_owned(), self.settings.herd.http_port), own.clone()),
            KeptBy::Node(host, port) => {
                let token = self.settings.restore.as_ref().map(|asked| &asked.token);
                ((host.clone(), *port), token.unwrap_or(own).clone())
            }
        }
    }

    pub(super) async fn recover(
        &self,
        restore: &Restore,
        port: u16,
        teller: &Teller,
    ) -> Result<(), StepError> {
        let (node, token) = self.keeper_of(restore);
        let Hands { layout, postgres: account, .. } = self;
        barman::write_restore_source(layout, node, &token, &restore.archive, account)?;
        let listen = Listen::Technical { port };
        self.start_postgres_with(listen, Durability::UntilComplete, &parameters(restore)).await?;
        let session = self.session("postgres").await.map_err(|error| self.ended_or(error))?;
        let recovered = self.see_recovery(&session, restore, teller).await;
        let recovered = recovered.map_err(|error| self.ended_or(error));
        session.close().await;
        recovered
    }

    /// A question to a server that has ended fails for that.
    fn ended_or(&self, error: StepError) -> StepError {
        if self.supervisor.listening().is_some() { error } else { StepError::RecoveryEnded }
    }

    async fn see_recovery(
        &self,
        session: &Session,
        restore: &Restore,
        teller: &Teller,
    ) -> Result<(), StepError> {
        let begin = restore.backup.begin;
        let end = match &restore.target {
            Some(RestoreTarget::Lsn(lsn)) => Some(*lsn),
            Some(_) | None => restore.end,
        };
        let mut tell = tell_bytes(teller.clone(), "replayed");
        let mut said = false;
        let began = Instant::now();
        loop {
            let health = session.health().await?;
            let lsn = health.lsn.unwrap_or(begin);
            if health.role == Role::Primary {
                let took = began.elapsed().as_secs();
                info!("recovered up to {lsn} in {took} s: timeline {} begins", health.timeline);
                return Ok(());
            }
            if restore.pauses && session.is_replay_paused().await? {
                let words = self.how_to_look(session).await?;
                if !std::mem::replace(&mut said, true) {
                    info!("recovered up to {lsn}; {words}");
                }
                teller.tell(|progress| progress.waits_for = Some(words));
                wait::back_off(LOOK_WHEN_PAUSED).await;
                continue;
            }
            let done = begin.bytes_behind(lsn);
            let total = end.map_or(done, |end: Lsn| begin.bytes_behind(end));
            tell(Bytes { done, total: total.max(done + ALMOST) });
            wait::back_off(LOOK_EVERY).await;
        }
    }

    async fn how_to_look(&self, session: &Session) -> Result<String, StepError> {
        let sockets = self.layout.technical_socket_dir.display();
        let port = self.settings.postgres.technical_port;
        let psql = format!("psql -h {sockets} -p {port} -U {}", self.settings.postgres.user);
        let last = session.last_replayed().await?;
        let last = last.map_or(String::new(), |at| format!(" (last commit {at})"));
        Ok(format!(
            "a person's word{last}: look with docker exec -it -u postgres {} {psql}; SELECT \
             pg_wal_replay_resume() there lets it take writes; another target begins anew",
            self.settings.repmgr.node_name
        ))
    }
}

/// What the server is told for this one recovery; its files know nothing of it.
fn parameters(restore: &Restore) -> Vec<(&'static str, String)> {
    let mut parameters = vec![
        // Also the segment that was being received when the cluster was lost; and rather no recovery than
        // one that ends because a node did not answer.
        ("restore_command", "pgherd wal fetch --restoring --partial --sure %f %p".to_owned()),
        ("recovery_target_timeline", restore.timeline.to_string()),
        ("recovery_target_action", if restore.pauses { "pause" } else { "promote" }.to_owned()),
        ("recovery_end_command", String::new()),
        ("archive_cleanup_command", String::new()),
        ("primary_conninfo", String::new()),
        ("archive_mode", "off".to_owned()),
        ("synchronous_standby_names", String::new()),
        // A copy of a subscriber would take what its publisher sends to the other.
        ("max_logical_replication_workers", "0".to_owned()),
    ];
    parameters.extend(restore.target.as_ref().map(RestoreTarget::parameter));
    parameters
}
