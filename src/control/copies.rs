//! Copies of the backups elsewhere, on the node that keeps them. Nothing here holds up barman, or Postgres: what
//! cannot be copied waits, and is warned of.

use super::backups::{keeps_them_now, primary, span};
use super::snapshot::Snapshot;
use crate::barman::{CloudError, Copied, Copier};
use crate::cluster::{CopiesSeen, Moment};
use crate::execute::Hands;
use crate::system::error::chain;
use crate::system::wait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// It costs a few reads of directories.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Each try costs Python's start, and Amazon's library has tried again itself.
const PAUSE: Duration = Duration::from_secs(60);
/// WAL comes in bursts.
const WAL_WAITS_AT_MOST: Duration = Duration::from_secs(10 * 60);

/// What keeps them, if anything does.
#[derive(Clone, Debug, Default)]
pub(super) struct Tried {
    backups: Option<String>,
    wal: Option<String>,
}

/// Begins to copy what there is, as long as there is a node; what comes of it is told.
pub(super) fn begin(
    hands: &Arc<Hands>,
    snapshots: &watch::Receiver<Snapshot>,
) -> watch::Receiver<Tried> {
    let (sender, receiver) = watch::channel(Tried::default());
    if hands.settings.barman.cloud.is_some() {
        let (hands, snapshots) = (Arc::clone(hands), snapshots.clone());
        tokio::spawn(async move {
            // A backup may take hours, and WAL does not wait for it.
            tokio::join!(
                backups(&hands, snapshots.clone(), &sender),
                wal(&hands, snapshots.clone(), &sender)
            );
        });
    }
    receiver
}

/// This node's, where its backups are in use.
fn copier(hands: &Hands, snapshots: &watch::Receiver<Snapshot>) -> Option<Copier> {
    let primary = primary(&snapshots.borrow());
    // A restore in between has begun another directory.
    Copier::new(&hands.settings, &hands.barman).filter(|_| keeps_them_now(hands, primary.as_ref()))
}

async fn backups(hands: &Hands, seen: watch::Receiver<Snapshot>, told: &watch::Sender<Tried>) {
    let mut is_thinned_out = false;
    while seen.has_changed().is_ok() {
        let Some(copier) = copier(hands, &seen) else {
            wait::back_off(LOOK_EVERY).await;
            continue;
        };
        let copied = copier.copy_a_backup().await;
        is_thinned_out &= !matches!(copied, Ok(true));
        let done = match copied {
            Ok(_) if !is_thinned_out => copier.thin_out().await,
            copied => copied.map(drop),
        };
        is_thinned_out |= done.is_ok();
        pause_after(done.map(|()| false), told, |tried| &mut tried.backups).await;
    }
}

async fn wal(hands: &Hands, seen: watch::Receiver<Snapshot>, told: &watch::Sender<Tried>) {
    let mut part = None;
    while seen.has_changed().is_ok() {
        let Some(copier) = copier(hands, &seen) else {
            wait::back_off(LOOK_EVERY).await;
            continue;
        };
        let copied = copier.copy_wal(&mut part).await;
        pause_after(copied, told, |tried| &mut tried.wal).await;
    }
}

/// `Ok(true)`: there may be more.
async fn pause_after(
    done: Result<bool, CloudError>,
    told: &watch::Sender<Tried>,
    of: fn(&mut Tried) -> &mut Option<String>,
) {
    let (error, pause) = match done {
        Ok(true) => (None, None),
        Ok(false) => (None, Some(LOOK_EVERY)),
        Err(error) => (Some(chain(&error)), Some(PAUSE)),
    };
    told.send_if_modified(|tried| {
        let tried = of(tried);
        match (&error, &*tried) {
            (Some(error), None) => warn!("copies elsewhere: {error}"),
            (None, Some(_)) => info!("copies elsewhere go on"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        let is_news = *tried != error;
        *tried = error;
        is_news
    });
    if let Some(pause) = pause {
        wait::back_off(pause).await;
    }
}

/// What people are told, and a warning where it is for them to do something.
pub(super) fn judged(
    url: &str,
    copied: &Copied,
    tried: &Tried,
    now: Moment,
) -> (CopiesSeen, Option<String>) {
    let error = tried.backups.clone().or_else(|| tried.wal.clone());
    let waits = copied.wal_waits.filter(|_| copied.wal_waiting > 0);
    let newest = copied.newest.as_ref();
    let seen = CopiesSeen {
        url: url.to_owned(),
        last: newest.map(|(id, _)| id.clone()),
        age_seconds: newest.map(|(_, ended)| now.seconds_since(*ended)),
        wal_waiting: copied.wal_waiting,
        wal_wait_seconds: waits.map(|waits| waits.as_secs()),
        error: error.clone(),
    };
    let late = waits.filter(|waits| *waits > WAL_WAITS_AT_MOST);
    let warning = match (error, late) {
        (Some(error), _) => Some(format!("backups and WAL are not copied to {url}: {error}")),
        (None, Some(waits)) => Some(format!(
            "{} files of WAL wait to be copied to {url}, the first for {}: they come faster than they go",
            copied.wal_waiting,
            span(waits.as_secs())
        )),
        (None, None) => None,
    };
    (seen, warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_copied_is_warned_of() {
        let now: Moment = "2026-11-21 02:00:00".parse().unwrap();
        let newest = ("20261121T000000".to_owned(), "2026-11-21 00:30:00".parse().unwrap());
        let copied = |wal_waiting, waits: Option<u64>| Copied {
            newest: Some(newest.clone()),
            wal_waiting,
            wal_waits: waits.map(Duration::from_secs),
        };
        let url = "s3://bucket";
        let fine = Tried::default();
        let (seen, warning) = judged(url, &copied(2, Some(30)), &fine, now);
        assert_eq!((seen.age_seconds, seen.wal_waiting, warning), (Some(5400), 2, None));
        let (_, warning) = judged(url, &copied(900, Some(3600)), &fine, now);
        assert!(warning.is_some_and(|text| text.contains("60 min")));
        let tried = Tried { wal: Some("no route to host".to_owned()), backups: None };
        let (seen, warning) = judged(url, &copied(0, None), &tried, now);
        assert!(warning.is_some_and(|text| text.contains("no route")) && seen.error.is_some());
    }
}
