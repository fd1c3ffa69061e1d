//! What a node knows beside the rows of its table, for metrics and pages.

use crate::cluster::{Lsn, Timeline};
use crate::service::ServiceName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The word of whoever leads, as this node has seen it last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// `PGHERD_LEASE` of the holder, in seconds.
    pub seconds: f64,
    /// When the renewal was seen here.
    #[serde(skip, default = "Instant::now")]
    pub renewed: Instant,
    /// What is left of it then, in seconds, by this node's clock; 0: it is over. True in what
    /// [`super::Snapshot::now`] returns.
    pub seconds_left: f64,
}

/// What the disk says, looked at now and then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Of the volume with the data (of the backups, where there are only those).
    pub disk: Option<Disk>,
    /// Where the cluster's histories part, the oldest first.
    pub history: Vec<Fork>,
}

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size.
    pub total_bytes: u64,
    /// What Postgres could still write.
    pub free_bytes: u64,
}

/// The end of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Which one ended,
    pub timeline: Timeline,
    /// there.
    pub end: Lsn,
    /// When the next one began, as far as that can be told: RFC 3339, in UTC.
    pub at: Option<String>,
}

/// What was counted since the node half started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// So often this node took the lead.
    pub takeovers: u64,
    /// Renewals of its own lease that came later than half of it after the one before.
    pub renewals_late: u64,
    /// Services that ended unasked, and were started again.
    pub restarts: BTreeMap<ServiceName, u64>,
    /// By scenario and stage: how many were finished, and how long they took together.
    pub stages: BTreeMap<(String, String), (u64, Duration)>,
}

/// How far each node was behind, over the last minutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lags {
    of: BTreeMap<String, VecDeque<(Instant, Option<u64>)>>,
}

impl Lags {
    /// As long as that is kept.
    pub const KEPT: Duration = Duration::from_secs(10 * 60);
    /// Not more often than this, so 300 of each node.
    const EVERY: Duration = Duration::from_secs(2);
    /// A cluster has fewer.
    const NODES_MAX: usize = 64;

    /// A sample of this node is due.
    pub(in crate::control) fn is_due(&self, name: &str, now: Instant) -> bool {
        let last = self.of.get(name).and_then(VecDeque::back);
        last.is_none_or(|(then, _)| now.duration_since(*then) >= Self::EVERY)
    }

    /// So many bytes is the node behind. None: that is not known.
    pub(in crate::control) fn note(&mut self, name: &str, bytes: Option<u64>, now: Instant) {
        if !self.of.contains_key(name) && self.of.len() >= Self::NODES_MAX {
            return;
        }
        let samples = self.of.entry(name.to_owned()).or_default();
        samples.push_back((now, bytes));
        while samples.front().is_some_and(|(then, _)| now.duration_since(*then) > Self::KEPT) {
            samples.pop_front();
        }
    }

    /// Who is a member no more is forgotten.
    pub(in crate::control) fn keep(&mut self, is_member: impl Fn(&str) -> bool) {
        self.of.retain(|name, _| is_member(name));
    }

    /// What was noted of the node, the oldest first.
    pub fn of(&self, name: &str) -> impl Iterator<Item = (Instant, Option<u64>)> {
        self.of.get(name).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lags_are_kept_for_some_minutes_and_sampled_now_and_then() {
        let (mut lags, began) = (Lags::default(), Instant::now());
        for tenth in 0..36_000 {
            let now = began + Duration::from_millis(100 * tenth);
            if lags.is_due("node1", now) {
                lags.note("node1", Some(tenth), now);
            }
        }
        let kept = lags.of("node1").count();
        assert!((295..=301).contains(&kept), "{kept}");
        assert_eq!(lags.of("node1").last().map(|(_, bytes)| bytes), Some(Some(35_980)));
        lags.keep(|name| name != "node1");
        assert_eq!(lags.of("node1").count(), 0);
        (0..100).for_each(|number| lags.note(&format!("node{number}"), None, began));
        assert_eq!(lags.of.len(), Lags::NODES_MAX);
    }
}
