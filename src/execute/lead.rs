//! The steps of a node that takes the lead, or hands it over.

use super::{Hands, StepError, Teller};
use crate::cluster::{Address, Lsn, NodeState, Report, Role, Standing, Timeline};
use crate::keeper::{Claim, Keeper, LeadError};
use crate::lead::{Ask, Candidate, Why, sync};
use crate::members::{self, Memory};
use crate::postgres::{self, Session, timelines};
use crate::service::Shutdown;
use crate::system::download;
use crate::system::error::chain;
use crate::system::wait;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Between two tries to read or write the record.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// A standby that streams has caught up within seconds, and a record is written at once.
const SYNCHRONOUS_WITHIN: Duration = Duration::from_secs(30);
/// What the shutdown sent is replayed at once.
const RECEIVED_WITHIN: Duration = Duration::from_secs(10);
/// So many questions without an answer, and it is gone.
const UNANSWERED_MAX: u32 = 2;
/// While a standby is waited for: whether it is there still.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// One that did not answer.
const ASK_SOON_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// A word to a node in the same network.
const WORD_AT_MOST: Duration = Duration::from_millis(500);

impl Hands {
    /// By the record, and while its lease is kept, nobody else leads.
    pub(super) async fn take_lead(&self, teller: &Teller) -> Result<(), StepError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        if keeper.now().leads {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            let claim = self.claim().await?;
            // Nobody waits for a primary that starts to give up. Of a standby that has no answer it may stand in
            // the record that it leads: until that is known or of no use any more, nobody else can.
            let waits = claim.role == Role::Primary || began.elapsed() < self.settings.herd.lease;
            match keeper.take(claim).await {
                Ok(()) => return Ok(()),
                Err(error @ (LeadError::Silent(_) | LeadError::Why(Why::NotRead))) if waits => {
                    teller.tell(|progress| progress.waits_for = Some(error.to_string()));
                    keeper.look();
                    wait::back_off(TRY_AGAIN_AFTER).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What this node has, at this moment.
    async fn claim(&self) -> Result<Claim, StepError> {
        let Hands { settings, layout, postgres: account, .. } = self;
        let control = postgres::control_data(&layout.bin_dir, &layout.pgdata, account).await?;
        let is_standby = layout.pgdata.join("standby.signal").exists();
        let role = if is_standby { Role::Standby } else { Role::Primary };
        let (timeline, lsn) = if self.supervisor.listening().is_some() {
            let session = self.session("postgres").await?;
            let health = session.health().await?;
            let received = session.received().await?;
            session.close().await;
            let timeline = match role {
                Role::Primary => health.timeline,
                Role::Standby => {
                    postgres::newest_received(&layout.pgdata, account).max(health.timeline)
                }
            };
            (timeline, received.or(health.lsn).unwrap_or(control.lsn))
        } else {
            let timeline = match role {
                Role::Primary => postgres::newest_history(&layout.pgdata, account),
                Role::Standby => control.timeline,
            };
            (timeline.max(control.timeline), control.lsn)
        };
        let allow_data_loss = self.allow_data_loss.load(Ordering::Relaxed);
        Ok(Claim {
            candidate: Candidate {
                name: settings.repmgr.node_name.clone(),
                id: self.id.get().copied(),
                system: control.system,
                role,
                timeline,
                lsn,
                priority: settings.repmgr.priority,
                complete: role == Role::Primary || !postgres::copy::is_behind(layout),
            },
            system: control.system,
            timeline,
            role,
            rivals: self.rivals(),
            ask: match (self.asked.load(Ordering::Relaxed), allow_data_loss) {
                (false, false) => Ask::ByRule,
                (_, allow_data_loss) => Ask::Person { allow_data_loss },
            },
        })
    }

    /// Afterwards this server takes writes, and the record says so.
    pub(super) async fn promote(&self) -> Result<(), StepError> {
        let (session, timeline) = match self.promote_server().await {
            Ok(promoted) => promoted,
            Err(error) => {
                self.give_the_lead_back().await;
                return Err(error);
            }
        };
        info!("promoted: timeline {timeline}");
        postgres::copy::caught_up(&self.layout, &self.postgres)?; // Nobody has more.
        self.open(&session, timeline).await?;
        session.close().await;
        self.look_now.notify_one();
        self.look_around.notify_one();
        Ok(())
    }

    async fn promote_server(&self) -> Result<(Session, Timeline), StepError> {
        let session = self.session("postgres").await?;
        // What an interrupted plan has left there would be asked of nodes that are gone or frozen, and
        // the end of the recovery would wait for each (seen: 50 s).
        self.leave_archive_alone(&session).await?;
        if self.keeper.is_some() {
            // Between the promotion and the record's word, commits wait.
            session.wait_for_standbys(&[sync::NO_STANDBY]).await?;
        }
        self.reserve_timelines(&session).await?;
        let timeline = session.promote().await?;
        Ok((session, timeline))
    }

    /// A promotion that nobody followed has its number for itself.
    async fn reserve_timelines(&self, session: &Session) -> Result<(), StepError> {
        let Hands { layout, postgres: account, .. } = self;
        let health = session.health().await?;
        let record = self.keeper.as_ref().and_then(|keeper| keeper.now().record);
        let newest = Memory::read(layout).newest.max(record.map(|record| record.timeline));
        let newest = newest.unwrap_or(health.timeline);
        Ok(timelines::reserve(&layout.pgdata, health.timeline, newest, account)?)
    }

    /// Afterwards commits are acknowledged: the record says that this server leads on `timeline`.
    pub(crate) async fn open(
        &self,
        session: &Session,
        timeline: Timeline,
    ) -> Result<(), StepError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        record_opened(keeper, timeline).await?;
        if self.settings.herd.synchronous != crate::cluster::SyncMode::Required {
            session.wait_for_standbys(&[]).await?;
        }
        self.synchronous_now.notify_one();
        Ok(())
    }

    /// Afterwards the record says that the cluster goes on with what this node was restored to, on
    /// `timeline`. Our server does not run. Whoever has what was before may not lead any more, and commits
    /// wait for none of them.
    pub(super) async fn record_restored(&self, timeline: Timeline) -> Result<(), StepError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let name = &self.settings.repmgr.node_name;
        let said = |one: crate::lead::Record| one.holder == *name && one.timeline == timeline;
        // In a life before this one.
        if keeper.now().record.is_some_and(said) {
            return Ok(());
        }
        record_opened(keeper, timeline).await
    }

    /// A server that could not be promoted is stopped and seen to be a standby still; then another may
    /// lead.
    async fn give_the_lead_back(&self) {
        let Hands { layout, postgres: account, .. } = self;
        let Some(keeper) = &self.keeper else { return };
        self.supervisor.stop_postgres(Shutdown::Immediate).await;
        if let Err(error) = timelines::forget_reserved(&layout.pgdata, account) {
            warn!("{}", chain(&error));
        }
        let control = postgres::control_data(&layout.bin_dir, &layout.pgdata, account).await;
        let newest = postgres::newest_history(&layout.pgdata, account);
        let record = keeper.now().record;
        let epoch = record.as_ref().map(|record| record.epoch);
        let led = record.map(|record| record.timeline);
        let is_standby = layout.pgdata.join("standby.signal").exists()
            && control.is_ok_and(|control| Some(control.timeline) <= led)
            && Some(newest) <= led;
        if !is_standby {
            warn!("the promotion failed half-way: this node keeps the lead, and tries again");
            if layout.pgdata.join("standby.signal").exists() {
                keeper.let_go(); // As a standby, which takes it when its lease is over.
            }
            return;
        }
        match keeper.give_back().await {
            Ok(()) => {
                let name = &self.settings.repmgr.node_name;
                let text = format!("{name} could not be promoted: gives the lead back");
                info!("{text}");
                self.journal.note("lead.given-back", epoch, None, text);
            }
            Err(error) => warn!("the lead is not given back: {error}"),
        }
    }

    /// The record names `to`: nothing is acknowledged any more that is not on it.
    pub(super) async fn await_synchronous(&self, to: &str) -> Result<(), StepError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        self.refuse_one_that_leaves(to).await?;
        if self.settings.herd.synchronous == crate::cluster::SyncMode::Off {
            return Ok(()); // It is seen after the shutdown that it has everything.
        }
        self.prefer(Some(to.to_owned()));
        self.synchronous_now.notify_one();
        let mut seen = keeper.seen();
        let until = Instant::now() + SYNCHRONOUS_WITHIN;
        while Instant::now() < until {
            let named = seen.wait_for(|seen| {
                seen.record.as_ref().is_some_and(|record| record.sync.contains(to))
            });
            let named = tokio::time::timeout(ASK_AGAIN_AFTER, named).await;
            match named.map(|named| named.map(drop)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(LeadError::Ends.into()),
                Err(_) => self.refuse_one_that_leaves(to).await?,
            }
        }
        Err(StepError::NotSynchronous { to: to.to_owned() })
    }

    /// `to` has replayed what the shutdown wrote last.
    pub(super) async fn await_received(&self, to: &str) -> Result<(), StepError> {
        let end = self.end_of_shutdown().await?;
        let Some(address) = self.address_of(to) else {
            return Err(StepError::NotSynchronous { to: to.to_owned() });
        };
        let began = Instant::now();
        let mut unanswered = 0;
        while began.elapsed() < RECEIVED_WITHIN && unanswered < UNANSWERED_MAX {
            let said = members::ask_soon(&self.settings, &address, WORD_AT_MOST).await;
            let Some(report) = said else {
                unanswered += 1;
                continue;
            };
            if report.name != to || report.state == NodeState::Stopped {
                break;
            }
            if let Standing::Serving { role: Role::Standby, lsn, .. } = report.standing
                && lsn >= end
            {
                return Ok(());
            }
            wait::back_off(Duration::from_millis(10)).await;
        }
        Err(StepError::NotSynchronous { to: to.to_owned() })
    }

    /// It serves, and is not about to stop: asked now, for what was seen last may be seconds old. Writes go
    /// on meanwhile, so that an answer that is late on a busy machine may be asked for again.
    async fn refuse_one_that_leaves(&self, to: &str) -> Result<(), StepError> {
        let silent = || StepError::SuccessorSilent { to: to.to_owned() };
        let address = self.address_of(to).ok_or_else(silent)?;
        for _ in 0..=UNANSWERED_MAX {
            match members::ask_soon(&self.settings, &address, WORD_AT_MOST).await {
                Some(Report { name, state, standing: Standing::Serving { .. }, .. })
                    if name == to && state != NodeState::Stopped =>
                {
                    return Ok(());
                }
                Some(_) => return Err(StepError::SuccessorLeaves { to: to.to_owned() }),
                // One whose port refuses has answered at once, and may be starting.
                None => wait::back_off(ASK_SOON_AGAIN_AFTER).await,
            }
        }
        Err(silent())
    }

    /// Where the shutdown's checkpoint begins: nothing but it was written after.
    async fn end_of_shutdown(&self) -> Result<Lsn, StepError> {
        let Hands { layout, postgres: account, .. } = self;
        let control = postgres::control_data(&layout.bin_dir, &layout.pgdata, account).await?;
        let record = self.keeper.as_ref().and_then(|keeper| keeper.now().record);
        // Else what was restored is to take its place, and this is not where the cluster ends.
        let is_ours = record.is_none_or(|record| record.timeline <= control.timeline);
        if control.shut_down && is_ours { Ok(control.lsn) } else { Err(StepError::NotShutDown) }
    }

    /// Our server is down; the record lets `to` lead, or, without one, whoever has everything.
    pub(crate) async fn release_lead(&self, to: Option<&str>) -> Result<(), StepError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let end = self.end_of_shutdown().await?;
        keeper.release(to.map(str::to_owned), end).await?;
        if let Some(address) = to.and_then(|to| self.address_of(to)) {
            let node = members::door(&self.settings, &address);
            // It would look by itself soon.
            let _ = download::ask_soon("POST", node, "/lease/look", None, WORD_AT_MOST).await;
        }
        Ok(())
    }

    fn address_of(&self, name: &str) -> Option<Address> {
        let others = self.others.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        others.iter().find(|other| other.rival.name == name).map(|other| other.address.clone())
    }

    fn rivals(&self) -> Vec<crate::lead::Rival> {
        let others = self.others.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        others.iter().map(|other| other.rival.clone()).collect()
    }

    /// For whom commits are to wait, of several.
    pub(crate) fn prefer(&self, name: Option<String>) {
        *self.preferred.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = name;
    }

    /// See [`Hands::prefer`].
    pub(crate) fn preferred(&self) -> Option<String> {
        self.preferred.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// Whether it was done where no answer came is found out by the next try.
async fn record_opened(keeper: &Keeper, timeline: Timeline) -> Result<(), StepError> {
    loop {
        match keeper.open(timeline).await {
            Ok(()) => return Ok(()),
            Err(LeadError::Silent(_)) if keeper.now().leads => {
                wait::back_off(TRY_AGAIN_AFTER).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
