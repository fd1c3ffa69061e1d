//! Looks at the disk now and then, on a thread that may wait for it: how much room there is, where
//! histories part. For people only.

use super::node::Event;
use super::snapshot::{Disk, Facts, Fork, Snapshot};
use crate::cluster::{History, Timeline};
use crate::execute::Hands;
use crate::settings::NodeKind;
use crate::system::files::acting_as;
use crate::system::{clock, disk, wait};
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A disk fills in minutes at worst, a backup takes as long.
const EVERY: Duration = Duration::from_secs(15);

/// Reports as long as there is a node.
pub(super) async fn run(
    hands: Arc<Hands>,
    snapshots: watch::Receiver<Snapshot>,
    sender: mpsc::Sender<Event>,
) {
    loop {
        let timeline = snapshots.borrow().nodes[0].timeline;
        let of_hands = Arc::clone(&hands);
        let facts = tokio::task::spawn_blocking(move || look(&of_hands, timeline)).await;
        let Ok(facts) = facts else { return };
        if sender.send(Event::Surveyed(Box::new(facts))).await.is_err() {
            return;
        }
        wait::back_off(EVERY).await;
    }
}

fn look(hands: &Hands, timeline: Option<Timeline>) -> Facts {
    let Hands { settings, layout, .. } = hands;
    let volume = match settings.herd.kind {
        NodeKind::Data | NodeKind::Witness => &settings.postgres.data_dir,
        NodeKind::Backup => &settings.barman.backup_dir,
    };
    let room = disk::space(volume).ok();
    let forks = || acting_as(&hands.postgres, || history(&layout.pgdata.join("pg_wal"), timeline?));
    Facts {
        disk: room.map(|room| Disk { total_bytes: room.total, free_bytes: room.free }),
        history: forks().unwrap_or_default(),
    }
}

/// The way to `timeline`, by the history files that Postgres has. A file is as old as the timeline that
/// it is of, on the node that began it; elsewhere it came a little later.
fn history(pg_wal: &std::path::Path, timeline: Timeline) -> Option<Vec<Fork>> {
    let file = |timeline: Timeline| pg_wal.join(format!("{:08X}.history", timeline.0));
    let text = fs::read_to_string(file(timeline)).ok()?;
    let ways = History::parse(timeline, &text)?.before;
    let next = ways.iter().skip(1).map(|(timeline, _)| *timeline).chain([timeline]);
    let forks = ways.iter().zip(next).map(|((timeline, end), next)| {
        let began = fs::metadata(file(next)).and_then(|file| file.modified()).ok();
        Fork { timeline: *timeline, end: *end, at: began.map(clock::rfc3339) }
    });
    Some(forks.collect())
}
