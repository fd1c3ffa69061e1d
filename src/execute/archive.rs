//! What barman's archive spares the primary: a copy of it all, and WAL that it has no more.

use super::standby::{ARCHIVED_WITHIN, StandbyError, tell_bytes};
use super::upstream::{PAUSE_MIN, Upstream};
use super::{Hands, StepError, Teller};
use crate::barman::{self, Offer};
use crate::cluster::{History, Lsn, Timeline, wal_file_name};
use crate::members::{self, Memory};
use crate::postgres::peer::{As, Peer, Serving};
use crate::postgres::{self, Bytes, Missing, Session, copy, restore};
use crate::system::error::chain;
use crate::system::wait;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// The postmaster passes a reload on at once, unless the machine is busy.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// What a standby that starts may miss; most serve before the first look.
const LOOKS_EVERY: Duration = Duration::from_secs(5);

/// What the primary says of its WAL.
struct Wal {
    peer: Peer,
    serving: Serving,
    history: History,
    segment_bytes: u64,
}

impl Wal {
    /// The names under which the file with `lsn` in it may be in the archive.
    fn names(&self, lsn: Lsn) -> Vec<String> {
        let timelines = self.history.timelines_of_file(lsn, self.segment_bytes);
        let name = |timeline| wal_file_name(timeline, lsn, self.segment_bytes);
        timelines.into_iter().map(name).collect()
    }

    /// The first position in the file after that with `lsn` in it.
    fn next_file(&self, lsn: Lsn) -> Lsn {
        Lsn((lsn.0 / self.segment_bytes + 1) * self.segment_bytes)
    }
}

impl Hands {
    /// The backup to copy, and the slot's keeping all WAL that the archive need not have; or why
    /// the primary has to be copied, in one line.
    pub(super) async fn usable_backup(
        &self,
        upstream: &Upstream,
        slot: &str,
    ) -> Result<Result<Offer, String>, StepError> {
        let wal = self.wal_of_primary().await?;
        if !wal.peer.tablespaces().await?.is_empty() {
            return Ok(
                Err("the cluster has tablespaces, which are not copied this way".to_owned()),
            );
        }
        let kept_from = wal.peer.slot(slot).await?.and_then(|slot| slot.restart_lsn);
        let offers = match barman::latest_backups(&self.layout.archive_sources).await {
            Ok(offers) => offers,
            Err(error) => return Ok(Err(chain(&error))),
        };
        let mut why_not = offers.unclear;
        let mut backups = offers.backups;
        // The newest, and rather not from the node that is to be spared.
        backups.sort_by_key(|offer| (offer.host != upstream.address.host, offer.id.clone()));
        while let Some(offer) = backups.pop() {
            let at = format!("{} has backup {}", offer.node, offer.id);
            let begin = match suits(&offer, &wal.serving, &wal.history) {
                Ok(begin) => begin,
                Err(why) => {
                    why_not.push(format!("{at}, {why}"));
                    continue;
                }
            };
            match self.first_gap(&wal, begin, kept_from.unwrap_or(wal.serving.lsn)).await? {
                None => return Ok(Ok(offer)),
                Some(gap) => why_not.push(format!("{at}, and nobody the WAL file {gap} after it")),
            }
        }
        Ok(Err(match why_not.is_empty() {
            true => "no node has a complete base backup".to_owned(),
            false => why_not.join("; "),
        }))
    }

    /// The first file of those with WAL from `begin` to `end` that neither the archive nor the primary
    /// has. That one's is kept from `end` on.
    async fn first_gap(
        &self,
        wal: &Wal,
        begin: Lsn,
        end: Lsn,
    ) -> Result<Option<String>, StepError> {
        let mut lsn = begin;
        while wal.next_file(lsn) <= end {
            let names = wal.names(lsn);
            let archived = self.is_archived(&names).await.unwrap_or_default();
            // What comes after it, that one has too. It is asked second, to be spared.
            if !archived {
                let timelines = wal.history.timelines_of_file(lsn, wal.segment_bytes);
                let oldest = timelines.last().copied().unwrap_or(wal.serving.timeline);
                let has = wal.peer.has_wal_from(&wal.history, oldest, lsn).await?;
                return Ok(names.into_iter().next().filter(|_| !has));
            }
            lsn = wal.next_file(lsn);
        }
        Ok(None)
    }

    pub(super) async fn copy_backup(&self, offer: Offer, teller: Teller) -> Result<(), StepError> {
        let Hands { settings, layout, postgres: account, .. } = self;
        info!("copies backup {} from {} to {}", offer.id, offer.node, layout.pgdata.display());
        copy::unpacked::begin(layout, account)?;
        let mut tell = tell_bytes(teller, "copied");
        offer
            .unpack_into(&layout.work.clone, account, |done, total| tell(Bytes { done, total }))
            .await?;
        copy::unpacked::complete(settings, layout, account).await?;
        Ok(restore::ask_at_start(&layout.work.clone, account)?)
    }

    pub(super) async fn ask_archive(&self) -> Result<(), StepError> {
        let session = self.session("postgres").await?;
        let health = session.health().await?;
        let wal = self.wal_of_primary().await?;
        let lsn = health.lsn.unwrap_or_default();
        if !wal.peer.has_wal_from(&wal.history, health.timeline, lsn).await? {
            let names = wal.names(lsn);
            if self.is_archived(&names).await == Some(false) {
                let file = names.into_iter().next().unwrap_or_default();
                return Err(StandbyError::NotArchived { file }.into());
            }
            restore::ask(&session).await?;
            info!("looks into the archive for what comes after {lsn}");
            await_heard(&session, true).await?;
        }
        session.close().await;
        Ok(())
    }

    /// While a standby starts: sees to it that what it misses comes from the archive. A server that has not
    /// replayed enough takes no connections, and waits for ever. Ends only where nobody has what it misses.
    pub(super) async fn mind_missing_wal(&self, teller: &Teller) -> StepError {
        let Hands { settings, layout, postgres: account, .. } = self;
        if !layout.pgdata.join("standby.signal").exists() {
            return std::future::pending().await;
        }
        let mut stands: Option<(Missing, Instant)> = None;
        loop {
            wait::back_off(LOOKS_EVERY).await;
            let missing = match postgres::first_missing_wal(layout, account).await {
                Ok(Some(missing)) => missing,
                Ok(None) => continue,
                Err(error) => {
                    debug!("cannot tell what WAL is missing: {}", chain(&error));
                    continue;
                }
            };
            let file = missing.names.first().cloned().unwrap_or_default();
            if stands.is_none() {
                let members = members::everybody(settings, &Memory::read(layout), &self.address);
                let members = members.iter().map(|(address, _)| address);
                let asks = barman::write_sources(settings, layout, &self.address, members, account)
                    .and_then(|()| restore::ask_at_start(&layout.pgdata, account));
                if let Err(error) = asks {
                    return error.into();
                }
                self.supervisor.reload();
                info!("the server starts and misses the WAL file {file}: looks into the archive");
            }
            let since = match stands.take() {
                Some((before, since)) if before == missing => since,
                _ => Instant::now(),
            };
            if since.elapsed() > ARCHIVED_WITHIN && self.nobody_has(&missing).await {
                return StandbyError::NotArchived { file }.into();
            }
            teller.tell(|progress| {
                let misses = format!("the WAL file {file}, which is looked for in barman's archive");
                progress.waits_for = Some(misses);
                if since.elapsed() > LOOKS_EVERY {
                    progress.stands = Some(format!(
                        "{name} starts and waits for the WAL file {file}, which is looked for in barman's \
                         archive; pgherd reinit {name} clones it anew instead",
                        name = settings.repmgr.node_name
                    ));
                }
            });
            stands = Some((missing, since));
        }
    }

    /// It is known that neither the primary nor any archive has it.
    async fn nobody_has(&self, missing: &Missing) -> bool {
        if self.is_archived(&missing.names).await != Some(false) {
            return false;
        }
        let Ok(wal) = self.wal_of_primary().await else { return false };
        let has = wal.peer.has_wal_from(&wal.history, missing.timeline, missing.begin).await;
        has.is_ok_and(|has| !has)
    }

    /// Nothing of ours has the server look into the archive any more.
    pub(super) async fn leave_archive_alone(&self, session: &Session) -> Result<(), StepError> {
        if restore::asks_ours(session).await? {
            restore::leave_alone(session).await?;
            info!("looks into the archive no more");
            await_heard(session, false).await?;
        }
        Ok(())
    }

    /// Whether the archive has what a standby at `lsn` replays next; `None` if that cannot be told.
    pub(super) async fn is_next_archived(&self, lsn: Lsn) -> Result<Option<bool>, StepError> {
        let names = self.wal_of_primary().await?.names(lsn);
        Ok(self.is_archived(&names).await)
    }

    /// Whether the archive has a file of one of these names.
    async fn is_archived(&self, names: &[String]) -> Option<bool> {
        for name in names {
            match barman::has_wal(&self.layout.archive_sources, name).await {
                Ok(true) => return Some(true),
                Ok(false) => {}
                Err(error) => {
                    warn!("cannot tell whether {name} is archived: {}", chain(&error));
                    return None;
                }
            }
        }
        Some(false)
    }

    async fn wal_of_primary(&self) -> Result<Wal, StepError> {
        let serving = self.peer(As::Repmgr).await?.serving().await?;
        let peer = self.peer(As::Streaming).await?;
        let history = peer.history(serving.timeline).await?;
        let segment_bytes = peer.wal_segment_bytes().await?;
        Ok(Wal { peer, serving, history, segment_bytes })
    }
}

/// A reload is asked for and not waited for; who looks next should see what came of it.
async fn await_heard(session: &Session, asks: bool) -> Result<(), StepError> {
    let began = std::time::Instant::now();
    while restore::asks_an_archive(session).await? != asks && began.elapsed() < HEARD_WITHIN {
        wait::back_off(PAUSE_MIN / 10).await;
    }
    Ok(())
}

/// Where the WAL begins that the backup needs, if it is on the way to where the primary is; or why
/// it cannot be used.
fn suits(offer: &Offer, serving: &Serving, history: &History) -> Result<Lsn, String> {
    let (Some(system), Some(timeline)) = (offer.system, offer.timeline) else {
        return Err("and does not say of which cluster".to_owned());
    };
    let (Some(begin), Some(end)) = (offer.begin, offer.end) else {
        return Err("and does not say what WAL it needs".to_owned());
    };
    if system != serving.system {
        let ours = serving.system;
        return Err(format!("of another cluster (system identifier {system}, not {ours})"));
    }
    let on_the_way = history.leads_on_from(timeline, end) && end <= serving.lsn;
    on_the_way.then_some(begin).ok_or_else(|| {
        let Timeline(number) = timeline;
        format!("of timeline {number} up to {end}, and the primary's history went another way")
    })
}
