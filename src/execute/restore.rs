//! The steps of a node that brings a backup back.

use super::standby::tell_bytes;
use super::{Hands, StepError, Teller};
use crate::barman::{self, Keeper};
use crate::cluster::{Lsn, Role};
use crate::layout::Layout;
use crate::members::{self, AsOf, Memory};
use crate::postgres::{self, Bytes, Session, brought_back, copy};
use crate::scenario::{KeptBy, Plan, Restore, Scenario};
use crate::service::{Durability, Listen, Shutdown};
use crate::settings::{RestoreSource, RestoreTarget, Settings};
use crate::supervisor::StartError;
use crate::system::account::Account;
use crate::system::download::Node;
use crate::system::error::chain;
use crate::system::files::FileError;
use crate::system::wait;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// While WAL is replayed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// While a person looks at what there is.
const LOOK_WHEN_PAUSED: Duration = Duration::from_secs(1);
/// barman's own cron starts its receiver again, once a minute.
const RECEIVED_AGAIN_WITHIN: Duration = Duration::from_secs(90);
/// The last file is as likely to be half full as not, and no part of the estimate.
const ALMOST: u64 = 1;

impl Hands {
    pub(super) async fn bring_back(
        &self,
        restore: &Restore,
        pgdata: &Path,
        teller: &Teller,
    ) -> Result<(), StepError> {
        if *pgdata == self.layout.pgdata {
            return self.unpack(restore, &self.layout, brought_back::begin, teller).await;
        }
        if copy::has_old(&self.layout) {
            // In it there is no room for a second one, and this one is never thrown away.
            return Err(StepError::StillKept { old: self.layout.work.old.clone() });
        }
        let (begin, beside) = (brought_back::begin_beside, self.layout.beside());
        self.unpack(restore, &beside, begin, teller).await?;
        postgres::write_conf(&self.settings, &beside, &self.postgres)?;
        self.check_settings(&beside)?;
        self.write_what_comes_after(restore).await?;
        self.await_receiver(restore, teller).await
    }

    /// Where nothing may be lost, the archive has to have the last record of all; without a receiver it has
    /// not, and that would be seen only when the server has been stopped for it.
    async fn await_receiver(&self, restore: &Restore, teller: &Teller) -> Result<(), StepError> {
        let session = self.session("postgres").await?;
        let ours = session.health().await?.timeline;
        let is_copy = matches!(restore.kept_by, KeptBy::Cloud(_));
        if restore.target.is_none() && restore.timeline == ours && !is_copy {
            let began = Instant::now();
            while !session.streams_to(barman::SLOT).await? {
                if began.elapsed() > RECEIVED_AGAIN_WITHIN {
                    return Err(StepError::NothingReceived);
                }
                let words = "barman to receive WAL again (barman check says why it does not)";
                teller.tell(|progress| progress.waits_for = Some(words.to_owned()));
                wait::back_off(LOOK_EVERY).await;
            }
        }
        session.close().await;
        Ok(())
    }

    async fn unpack(
        &self,
        restore: &Restore,
        layout: &Layout,
        begin: fn(&Layout, &Account) -> Result<PathBuf, FileError>,
        teller: &Teller,
    ) -> Result<(), StepError> {
        let Hands { settings, postgres: account, .. } = self;
        let id = &restore.backup.id;
        info!("brings back {restore}, usable from {} on", restore.backup.ended);
        let directory = begin(layout, account)?;
        match self.keeper_of(restore) {
            Keeper::Node((host, port), token) => {
                let node = Node { host: &host, port, tls: settings.herd.tls_files() };
                let offer = barman::backup_at(node, &token, &restore.archive, id).await?;
                let mut tell = tell_bytes(teller.clone(), "copied");
                let tell = |done, total| tell(Bytes { done, total });
                offer.unpack_into(&directory, account, tell).await?;
            }
            Keeper::Cloud(cloud) => {
                let archive = &restore.archive;
                barman::restore_from(cloud, archive, id, &directory, account).await?;
            }
        }
        match brought_back::verify(layout, account).await? {
            true => info!("each file of backup {id} has the checksum that was noted for it"),
            false => warn!("backup {id} has no list of checksums: what came is not compared"),
        }
        // On a thread of its own: directories are brought to the disk, which has much to write just then, and
        // a primary's lease is renewed meanwhile.
        let (settings, layout, account) = (settings.clone(), layout.clone(), account.clone());
        let complete = move || brought_back::complete(&settings, &layout, &account);
        Ok(tokio::task::spawn_blocking(complete).await.expect("it does not panic")?)
    }

    /// What was brought back beside the data directory, up to its end.
    pub(super) async fn recover_beside(
        &self,
        restore: &Restore,
        port: u16,
        teller: &Teller,
    ) -> Result<(), StepError> {
        let Hands { layout, postgres: account, .. } = self;
        let beside = layout.beside();
        brought_back::learn_histories(layout, &beside, account)?;
        let recovered = self.recover(restore, &beside, port, teller).await;
        // Whatever came of it: the next server is another directory's.
        self.supervisor.stop_postgres(Shutdown::Fast).await;
        recovered?;
        let had = postgres::control_data(&layout.bin_dir, &layout.pgdata, account).await?;
        let now = postgres::control_data(&layout.bin_dir, &beside.pgdata, account).await?;
        if !now.shut_down {
            return Err(StepError::NotShutDown);
        }
        let ours = had.timeline.max(postgres::newest_history(&layout.pgdata, account));
        if now.timeline <= ours {
            return Err(StepError::NotNewer { theirs: now.timeline, ours });
        }
        let end = brought_back::begins_at(&beside, now.timeline, account).unwrap_or_default();
        // With everything the last record of the shutdown has come, too.
        if restore.target.is_none() && restore.timeline == had.timeline && end <= had.lsn {
            return Err(StepError::ArchiveEnds { end, had: had.lsn });
        }
        postgres::complete(&beside, account).await?;
        let text = format!(
            "restored up to {end} (asked for: {}, from backup {}): timeline {} begins there; what was written \
             after it, up to {} on timeline {}, is no part of it",
            restore.up_to(),
            restore.backup.id,
            now.timeline,
            had.lsn,
            had.timeline
        );
        info!("{text}");
        self.note_restored(text);
        Ok(())
    }

    /// A restore that failed while the cluster still runs leaves it the room.
    pub(super) async fn tidy_up_after(&self, plan: &Plan) {
        let serves = matches!(self.supervisor.serving(), Some(Listen::Consumer { .. }));
        if matches!(plan.scenario, Scenario::RestoreInPlace { .. })
            && serves
            && let Err(error) = self.discard_copy().await
        {
            warn!("what was copied is still there: {}", chain(&error));
        }
    }

    pub(super) fn note_restored(&self, text: String) {
        let record = self.keeper.as_ref().and_then(|keeper| keeper.now().record);
        self.journal.note("restored", record.map(|record| record.epoch), None, text);
    }

    /// Afterwards nobody goes on with what was before.
    pub(super) async fn replace_history(&self) -> Result<(), StepError> {
        let Hands { layout, postgres: account, .. } = self;
        let beside = layout.beside();
        if !copy::restored_beside(layout) {
            return Ok(()); // It has gone further.
        }
        let control = postgres::control_data(&layout.bin_dir, &beside.pgdata, account).await?;
        if self.keeper.is_none() {
            self.ensure_nobody_went_on().await?;
        }
        self.record_restored(control.timeline).await?;
        self.on_files(copy::finish_restored).await
    }

    /// Where no record decides: nobody was promoted by hand while this node was at it. Who does not answer
    /// is not waited for, as at any restart of a primary's.
    async fn ensure_nobody_went_on(&self) -> Result<(), StepError> {
        let Hands { settings, layout, postgres: account, .. } = self;
        let had = postgres::control_data(&layout.bin_dir, &layout.pgdata, account).await?;
        let everybody = members::everybody(settings, &Memory::read(layout), &self.address);
        let asked = members::ask(settings, &everybody, &self.address, &self.instance, AsOf::Now);
        for (address, report) in asked.await.iter().filter_map(|one| {
            let report = one.report().filter(|report| report.system == Some(had.system))?;
            Some((one.address.clone(), report.clone()))
        }) {
            let went_on = report.newest() > Some(had.timeline);
            if report.leads_on().is_some() || went_on {
                return Err(StepError::WentOn { address });
            }
        }
        Ok(())
    }

    /// Where the archive is asked for, and what is shown there.
    fn keeper_of(&self, restore: &Restore) -> Keeper<'_> {
        let Settings { herd, restore: asked, .. } = &self.settings;
        let own = &herd.control_token;
        let asked = asked.as_ref();
        match (&restore.kept_by, asked.and_then(|asked| asked.source.as_ref())) {
            (KeptBy::Cloud(_), Some(RestoreSource::Cloud(cloud))) => Keeper::Cloud(cloud),
            (KeptBy::Cloud(_), Some(RestoreSource::Node(..)) | None) => {
                unreachable!("nothing else has the plan look there")
            }
            (KeptBy::Here, _) => {
                Keeper::Node(("127.0.0.1".to_owned(), herd.http_port), own.clone())
            }
            (KeptBy::Node(host, port), source) => {
                let is_source = source.is_none_or(|source| match source {
                    RestoreSource::Node(at, on) => (at, on) == (host, port),
                    RestoreSource::Cloud(_) => false,
                });
                let token = asked.filter(|_| is_source).map(|asked| &asked.token);
                Keeper::Node((host.clone(), *port), token.unwrap_or(own).clone())
            }
        }
    }

    pub(super) async fn recover(
        &self,
        restore: &Restore,
        layout: &Layout,
        port: u16,
        teller: &Teller,
    ) -> Result<(), StepError> {
        let Hands { settings, postgres: account, .. } = self;
        let keeper = self.keeper_of(restore);
        barman::write_restore_source(settings, layout, &keeper, &restore.archive, account)?;
        let listen = Listen::Technical { port };
        let parameters = parameters(restore);
        let started =
            self.start_postgres_with(layout, listen, Durability::UntilComplete, &parameters).await;
        started.map_err(|error| not_reached(error, restore))?;
        let mut last = None;
        let session = self.session("postgres").await;
        let session = session.map_err(|error| self.ended_or(error, &last))?;
        let recovered = self.see_recovery(&session, restore, teller, &mut last).await;
        let recovered = recovered.map_err(|error| self.ended_or(error, &last));
        session.close().await;
        recovered
    }

    /// A question to a server that has ended fails for that. `last` is the last commit that it told of.
    fn ended_or(&self, error: StepError, last: &Option<String>) -> StepError {
        match self.supervisor.listening() {
            Some(_) => error,
            None => StepError::RecoveryEnded { last: last.clone() },
        }
    }

    /// Afterwards there is a commit after any moment that has been, so that a target after the last one is
    /// reached. What it writes is no part of what is restored.
    async fn write_what_comes_after(&self, restore: &Restore) -> Result<(), StepError> {
        if let Some(RestoreTarget::Time(_)) = restore.target {
            let session = self.session("postgres").await?;
            let commit = "SET synchronous_commit = local; SELECT txid_current()";
            session.run("write a commit that comes after the target", commit).await?;
            session.close().await;
        }
        Ok(())
    }

    async fn see_recovery(
        &self,
        session: &Session,
        restore: &Restore,
        teller: &Teller,
        last: &mut Option<String>,
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
            *last = session.last_replayed().await?.or(last.take());
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
             pg_wal_replay_resume() there lets it take writes; a restart of this node begins anew, or goes \
             on with what was there before",
            self.settings.repmgr.node_name
        ))
    }
}

/// Postgres' own words for it, as `error` has them (`StartupXLOG` in its xlogrecovery.c).
fn not_reached(error: StepError, restore: &Restore) -> StepError {
    let StepError::Start(StartError::Ended { last_words, .. }) = &error else { return error };
    let says = |words: &str| last_words.iter().find_map(|line| Some(line.split_once(words)?.1));
    if says("recovery ended before configured recovery target was reached").is_none() {
        return error;
    }
    let last = says("last completed transaction was at log time ").map(str::to_owned);
    StepError::TargetNotReached { target: restore.up_to(), last }
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
