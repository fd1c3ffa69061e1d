//! The steps of a node that follows another, and of one that comes back to find itself replaced.

mod error;

pub use error::StandbyError;
pub(super) use error::Taken;

use super::upstream::{PAUSE_MAX, PAUSE_MIN, Upstream};
use super::{Hands, StepError, Teller};
use crate::cluster::{History, Lsn, Role, Timeline};
use crate::layout::Layout;
use crate::members::{self, AsOf};
use crate::postgres::peer::{As, Slot};
use crate::postgres::{self, Bytes, Session, copy, restore, rewind, standby, timelines};
use crate::repmgr;
use crate::service::{Durability, Listen, Shutdown};
use crate::settings::CloneFrom;
use crate::system::account::Account;
use crate::system::error::chain;
use crate::system::files::FileError;
use crate::system::wait;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// A standby that does not stream is looked into after this long: connecting takes less.
const STREAMS_AFTER: Duration = Duration::from_secs(5);
/// What was registered is replayed at once, unless replay is behind.
const RECORDED_WITHIN: Duration = Duration::from_secs(5);
/// And is given up if nothing at all happens.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// From one file to the next. What the primary has no more barman has had time to archive, unless its
/// node has just come back.
pub(super) const ARCHIVED_WITHIN: Duration = Duration::from_secs(20);
/// A file of 16 MB or more over a slow link: nothing is replayed before it is there.
const FETCHED_WITHIN: Duration = Duration::from_secs(15 * 60);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// That what the primary had written is replayed.
    Replayed,
    /// That WAL comes, or is there.
    Streams,
}

impl Hands {
    pub(super) async fn discard_copy(&self) -> Result<(), StepError> {
        self.on_files(copy::discard_unfinished_copy).await
    }

    pub(super) async fn move_in(&self) -> Result<(), StepError> {
        self.on_files(copy::move_in).await
    }

    pub(super) async fn discard_old(&self) -> Result<(), StepError> {
        if !copy::has_old(&self.layout) {
            return Ok(copy::settled(&self.layout, &self.postgres)?);
        }
        if self.settings.herd.keep_old_data {
            let (layout, account) = (&self.layout, &self.postgres);
            if let Some(kept) = copy::keep_old(layout, account)? {
                info!("what was replaced is kept in {} (PGHERD_KEEP_OLD_DATA)", kept.display());
            }
            return Ok(copy::settled(layout, account)?);
        }
        info!("the new copy is good: what it replaced is thrown away");
        self.on_files(copy::discard_old).await?;
        Ok(copy::settled(&self.layout, &self.postgres)?)
    }

    /// On a thread of its own: it may be much, and the node goes on answering and hearing signals.
    pub(super) async fn on_files(
        &self,
        act: fn(&Layout, &Account) -> Result<(), FileError>,
    ) -> Result<(), StepError> {
        let (layout, account) = (self.layout.clone(), self.postgres.clone());
        let acting = move || act(&layout, &account);
        Ok(tokio::task::spawn_blocking(acting).await.expect("it does not panic")?)
    }

    pub(super) async fn take_copy(
        &self,
        from: CloneFrom,
        teller: &Teller,
    ) -> Result<(), StepError> {
        let Hands { layout, postgres: account, .. } = self;
        let upstream = self.upstream()?;
        let slot = repmgr::slot_name(self.identity().id);
        // Before the copy begins, so that the primary keeps what is written meanwhile; anew, so that
        // it does not keep what an earlier try would have needed.
        self.peer(As::Streaming).await?.make_slot_anew(&slot).await?;
        let copied = match from {
            CloneFrom::Primary => self.copy_primary(&upstream, &slot, teller).await,
            CloneFrom::Barman => match self.usable_backup(&upstream, &slot).await {
                Ok(Ok(backup)) => self.copy_backup(backup, teller.clone()).await,
                Ok(Err(why)) => {
                    warn!("no backup can be copied, so the primary is: {why}");
                    self.copy_primary(&upstream, &slot, teller).await
                }
                Err(failed) => Err(failed),
            },
        };
        if let Err(failed) = copied {
            self.give_up_copy().await;
            return Err(failed);
        }
        let stream = self.stream(&upstream, &slot).await;
        standby::write_signal_and_conninfo(&layout.work.clone, layout, &stream, account)?;
        self.on_files(copy::finish_copy).await
    }

    async fn copy_primary(
        &self,
        upstream: &Upstream,
        slot: &str,
        teller: &Teller,
    ) -> Result<(), StepError> {
        let Hands { settings, layout, postgres: account, .. } = self;
        info!("copies {} from {}", layout.pgdata.display(), upstream.address);
        let bytes = tell_bytes(teller.clone(), "copied");
        copy::take(settings, layout, account, &upstream.address, slot, &self.output, bytes).await?;
        // What it looked into when it was a standby.
        Ok(restore::leave_alone_at_start(&layout.work.clone, account)?)
    }

    /// Afterwards the primary keeps no WAL for a copy that is not made, as far as it can be reached.
    /// Does nothing where no copy was begun.
    pub async fn give_up_copy(&self) {
        if copy::left(&self.layout) != copy::Left::Clone {
            return;
        }
        let slot = repmgr::slot_name(self.identity().id);
        if let Ok(peer) = self.peer(As::Streaming).await
            // Its walsender may not have noticed yet that we are gone.
            && let Err(error) =
                async { peer.make_slot_anew(&slot).await?; peer.drop_slot(&slot).await }.await
        {
            warn!("cannot drop the slot {slot} on the primary: {}", chain(&error));
        }
    }

    /// A primary has to stop taking writes at once; a standby has none to take, and one that was
    /// shut down in order need not recover.
    pub(super) async fn fence(&self) -> Result<(), StepError> {
        let standby = self.layout.pgdata.join("standby.signal").exists();
        let how = if standby { Shutdown::Fast } else { Shutdown::Immediate };
        self.supervisor.stop_postgres(how).await;
        // A killed one's sessions may live on, and write.
        Ok(postgres::leftovers::ensure_none().await?)
    }

    pub(super) async fn end_in_order(&self, port: u16) -> Result<(), StepError> {
        let Hands { layout, postgres: account, .. } = self;
        let control = postgres::control_data(&layout.bin_dir, &layout.pgdata, account).await?;
        if control.shut_down {
            return Ok(());
        }
        self.start_postgres(Listen::Technical { port }, Durability::Durable).await?;
        self.supervisor.stop_postgres(Shutdown::Fast).await;
        let control = postgres::control_data(&layout.bin_dir, &layout.pgdata, account).await?;
        if control.shut_down { Ok(()) } else { Err(StepError::NotShutDown) }
    }

    pub(super) async fn rewind(&self, teller: &Teller) -> Result<(), StepError> {
        let Hands { settings, layout, postgres: account, .. } = self;
        let upstream = self.upstream()?;
        self.ensure_one_history().await?;
        let bytes = tell_bytes(teller.clone(), "rewound");
        rewind::rewind(settings, layout, account, &upstream.address, &self.output, bytes).await?;
        Ok(())
    }

    /// Timelines that were begun on two nodes which had not heard of each other have one number, and
    /// Postgres and pg_rewind take them for one: what tells them apart is where they begin.
    async fn ensure_one_history(&self) -> Result<(), StepError> {
        let Hands { layout, postgres: account, .. } = self;
        let timeline = self.peer(As::Repmgr).await?.serving().await?.timeline;
        let Some(ours) = timelines::history(&layout.pgdata, timeline, account) else {
            return Ok(());
        };
        if self.peer(As::Streaming).await?.history(timeline).await? != ours {
            return Err(StandbyError::TwoOfOneNumber(timeline).into());
        }
        Ok(())
    }

    pub(super) async fn follow_primary(&self, drop_slots: bool) -> Result<(), StepError> {
        let Hands { layout, postgres: account, .. } = self;
        let upstream = self.upstream()?;
        self.ensure_one_history().await?;
        let slot = repmgr::slot_name(self.identity().id);
        let stream = self.stream(&upstream, &slot).await;
        if self.supervisor.listening().is_some() {
            self.ensure_own_slot(&slot).await?;
            let session = self.session("postgres").await?;
            for statement in standby::primary_conninfo_sql(layout, &stream) {
                session.run("follow the primary", &statement).await?;
            }
            session.close().await;
        } else {
            let pgdata = &layout.pgdata;
            if drop_slots {
                standby::drop_slots_on_disk(pgdata, account)?;
            }
            standby::write_signal_and_conninfo(pgdata, layout, &stream, account)?;
            rewind::rewound(layout, account)?;
            // After what may not be interrupted: without the slot it follows, only not for as long.
            self.ensure_own_slot(&slot).await?;
        }
        info!("follows {} at {}", upstream.name, upstream.address);
        Ok(())
    }

    async fn ensure_own_slot(&self, slot: &str) -> Result<(), StepError> {
        let peer = self.peer(As::Streaming).await?;
        match peer.slot(slot).await? {
            // It keeps nothing any more, and nobody is let stream from it.
            Some(Slot { lost: true, .. }) => peer.make_slot_anew(slot).await?,
            _ => peer.ensure_slot(slot).await?,
        }
        Ok(())
    }

    /// An exit status, a signal file or a line in the log is no proof: positions are.
    pub(super) async fn await_replay(&self, teller: &Teller) -> Result<(), StepError> {
        let session = self.session("postgres").await?;
        let replayed = self.see_replay(&session, Goal::Replayed, teller).await;
        // Whatever came of it: a start from now on begins with what is on the disk.
        let left_alone = self.leave_archive_alone(&session).await;
        session.close().await;
        if replayed.is_ok() {
            self.on_files(copy::caught_up).await?;
        }
        replayed.and(left_alone)
    }

    /// Nothing keeps it from streaming, or it has enough to replay first. Not more: replay may be
    /// paused, delayed or far behind for days, and other things are to be looked at meanwhile.
    pub(super) async fn await_stream(&self, teller: &Teller) -> Result<(), StepError> {
        let session = self.session("postgres").await?;
        let streams = self.see_replay(&session, Goal::Streams, teller).await;
        let left_alone = self.leave_archive_alone(&session).await;
        session.close().await;
        streams.and(left_alone)
    }

    async fn see_replay(
        &self,
        session: &Session,
        wanted: Goal,
        teller: &Teller,
    ) -> Result<(), StepError> {
        let serving = self.peer(As::Repmgr).await?.serving().await?;
        let goal = serving.lsn;
        let began = Instant::now();
        let first = session.health().await?;
        if first.role == Role::Standby && first.timeline != serving.timeline {
            // Whoever reads here reads what the cluster has left: that is not waited for.
            self.refuse_another_way(serving.timeline, first.timeline, first.lsn).await?;
        }
        let mut moved = (first.lsn, Instant::now());
        let mut looked = Instant::now();
        loop {
            let health = session.health().await?;
            if health.role == Role::Primary {
                return Err(StandbyError::Promoted.into());
            }
            if health.lsn.is_some_and(|lsn| lsn >= goal) && health.upstream.is_some() {
                let took = began.elapsed().as_secs_f32();
                info!("replayed up to {goal}, after {took:.1} s");
                return Ok(());
            }
            let is_busy = !health.waits_for_wal && began.elapsed() > STREAMS_AFTER;
            if wanted == Goal::Streams && (health.upstream.is_some() || is_busy) {
                return Ok(());
            }
            if health.lsn > moved.0 {
                moved = (health.lsn, Instant::now());
            }
            // One that replays what it has, or is paused, is not short of anything.
            let is_short = health.upstream.is_none() && health.waits_for_wal;
            if is_short && looked.elapsed() > STREAMS_AFTER {
                let lsn = health.lsn.unwrap_or_default();
                let stood = moved.1.elapsed();
                match self.look_into(health.timeline, lsn).await {
                    Err(StepError::Standby(gone @ StandbyError::WalGone { .. })) => {
                        let may_come = restore::asks_an_archive(session).await?
                            && self.may_come(lsn, stood).await?;
                        if !may_come {
                            return Err(gone.into());
                        }
                    }
                    looked_into => {
                        looked_into?;
                        if stood > STUCK_AFTER {
                            return Err(StandbyError::Stuck(STUCK_AFTER).into());
                        }
                    }
                }
                looked = Instant::now();
            }
            let behind = health.lsn.unwrap_or_default().bytes_behind(goal);
            teller.tell(|progress| {
                progress.waits_for = Some(format!("{behind} bytes more to be replayed"));
            });
            wait::back_off((began.elapsed() / 10).clamp(PAUSE_MIN / 10, PAUSE_MAX)).await;
        }
    }

    /// A standby that was killed says for a while that it replays an older `timeline` than it has received and
    /// replayed: its control file names it.
    fn ensure_on_the_way(
        &self,
        history: &History,
        timeline: Timeline,
        lsn: Lsn,
    ) -> Result<(), StepError> {
        let Hands { layout, postgres: account, .. } = self;
        let timeline = timeline.max(postgres::newest_received(&layout.pgdata, account));
        match history.leads_on_from(timeline, lsn) {
            true => Ok(()),
            false => Err(StandbyError::Forked { timeline, lsn }.into()),
        }
    }

    /// What has been replayed leads to where the primary is.
    async fn refuse_another_way(
        &self,
        theirs: Timeline,
        timeline: Timeline,
        lsn: Option<Lsn>,
    ) -> Result<(), StepError> {
        let Some(lsn) = lsn else { return Ok(()) };
        let history = self.peer(As::Streaming).await?.history(theirs).await?;
        self.ensure_on_the_way(&history, timeline, lsn)
    }

    /// Whether what it replays next, after `lsn`, is still to be expected from the archive, where it
    /// has replayed nothing for so long.
    async fn may_come(&self, lsn: Lsn, stood: Duration) -> Result<bool, StepError> {
        if stood < ARCHIVED_WITHIN {
            return Ok(true);
        }
        Ok(match self.is_next_archived(lsn).await? {
            Some(true) => stood < FETCHED_WITHIN,
            Some(false) => false,
            // Its node may be about to come back.
            None => stood < STUCK_AFTER,
        })
    }

    /// Why a standby does not stream, if the primary's history or its WAL is the reason. An error,
    /// too, if that one does not lead any more.
    async fn look_into(&self, timeline: Timeline, lsn: Lsn) -> Result<(), StepError> {
        let peer = self.peer(As::Streaming).await?;
        let serving = self.peer(As::Repmgr).await?.serving().await?;
        if serving.role != Role::Primary {
            return Err(StandbyError::NobodyLeads.into());
        }
        let history = peer.history(serving.timeline).await?;
        self.ensure_on_the_way(&history, timeline, lsn)?;
        if timeline == serving.timeline && lsn > serving.lsn {
            return Err(StandbyError::Ahead { timeline, lsn, theirs: serving.lsn }.into());
        }
        if !peer.has_wal_from(&history, timeline, lsn).await? {
            return Err(StandbyError::WalGone { timeline, lsn }.into());
        }
        Ok(())
    }

    pub(super) async fn register_standby(&self) -> Result<(), StepError> {
        let Hands { settings, layout, postgres: account, .. } = self;
        let upstream = self.upstream()?;
        let identity = self.identity();
        let recorded = repmgr::is_recorded_standby_sql(settings, layout, &identity, upstream.id);
        let session: Session = self.session("repmgr").await?;
        let doing = "look this node up in repmgr.nodes";
        if !session.is_true(doing, &recorded).await? {
            repmgr::register_standby(layout, upstream.id, account).await?;
            // It is written on the primary; it is known here when it has been replayed.
            let began = Instant::now();
            while !session.is_true(doing, &recorded).await? && began.elapsed() < RECORDED_WITHIN {
                wait::back_off(PAUSE_MIN / 10).await;
            }
        }
        session.close().await;
        self.await_known(&upstream).await;
        Ok(())
    }

    /// Afterwards the primary keeps on its disk that this node is a member, and asks it before it
    /// leads again; unless it is slow to say so, which it then does by itself within seconds.
    async fn await_known(&self, upstream: &Upstream) {
        let asked = [(upstream.address.clone(), true)];
        let began = Instant::now();
        while began.elapsed() < RECORDED_WITHIN {
            // To be asked makes it look around.
            let sightings =
                members::ask(&self.settings, &asked, &self.address, &self.instance, AsOf::Now)
                    .await;
            let report = sightings.iter().find_map(|one| one.report());
            let is_known = report.is_none_or(|report| report.members.contains(&self.address));
            if is_known {
                return;
            }
            wait::back_off(PAUSE_MIN / 2).await;
        }
    }
}

/// To the status each time, to the log each tenth.
pub(super) fn tell_bytes(teller: Teller, verb: &'static str) -> impl FnMut(Bytes) + Send + 'static {
    let began = Instant::now();
    let mut next_tenth = 1;
    move |bytes| {
        let Bytes { done, total } = bytes;
        let elapsed = began.elapsed().as_secs_f64();
        let left = (done > 0).then(|| elapsed * total.saturating_sub(done) as f64 / done as f64);
        let seconds_left = left.map(|seconds| seconds.ceil() as u64);
        teller.tell(|progress| {
            progress.bytes = Some(bytes);
            progress.seconds_left = seconds_left;
        });
        if total > 0 && done * 10 / total >= next_tenth {
            next_tenth = done * 10 / total + 1;
            let mib = |bytes: u64| bytes / (1 << 20);
            info!(
                "{verb} {} of {} MiB ({} %), about {} s to go",
                mib(done),
                mib(total),
                done * 100 / total,
                seconds_left.unwrap_or_default()
            );
        }
    }
}
