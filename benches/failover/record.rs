//! What the prober saw, and what follows from it (`tests/bench_record.rs` tries that it does).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// An acknowledged write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) node: usize,
    pub(crate) timeline: u32,
    pub(crate) number: i64,
    /// It was taken some time between these two.
    pub(crate) sent: Instant,
    pub(crate) acknowledged: Instant,
}

/// Every acknowledged write, in the order of the acknowledgements.
#[derive(Clone, Debug)]
pub(crate) struct Record(Vec<Write>);

impl Record {
    pub(crate) fn new(mut writes: Vec<Write>) -> Self {
        writes.sort_by_key(|write| write.acknowledged);
        Record(writes)
    }

    /// The longest time without an acknowledgement by anybody.
    pub(crate) fn longest_gap(&self) -> Duration {
        let gaps = self.0.windows(2).map(|pair| pair[1].acknowledged - pair[0].acknowledged);
        gaps.max().unwrap_or_default()
    }

    /// From the last acknowledgement of `node` to the first one of another's after it. What a node had
    /// taken before it froze, and answers when it is thawed, was acknowledged too late to count.
    pub(crate) fn until_elsewhere(&self, node: usize) -> Option<Duration> {
        let first = self.0.iter().position(|write| write.node != node)?;
        let last = self.0[..first].last()?;
        Some(self.0[first].acknowledged - last.acknowledged)
    }

    /// Writes that `node` was sent after another had acknowledged one, and took.
    pub(crate) fn taken_after_another(&self, node: usize) -> usize {
        let Some(first) = self.0.iter().find(|write| write.node != node) else { return 0 };
        let own = self.0.iter().filter(|write| write.node == node);
        own.filter(|write| write.sent > first.acknowledged).count()
    }

    /// Acknowledged and not among these.
    pub(crate) fn missing(&self, there: &BTreeSet<i64>) -> usize {
        self.0.iter().filter(|write| !there.contains(&write.number)).count()
    }

    /// The number of the first row.
    pub(crate) fn first_number(&self) -> i64 {
        self.0.iter().map(|write| write.number).min().unwrap_or_default()
    }

    /// What must not be: two nodes on one timeline, and two that took writes at the same time.
    pub(crate) fn two_at_once(&self) -> Vec<String> {
        let mut reigns: BTreeMap<(u32, usize), (Instant, Instant)> = BTreeMap::new();
        for write in &self.0 {
            // Surely taken after its first acknowledgement and before its last request.
            let reign = (write.acknowledged, write.sent);
            let entry = reigns.entry((write.timeline, write.node)).or_insert(reign);
            *entry = (entry.0.min(write.acknowledged), entry.1.max(write.sent));
        }
        let reigns: Vec<_> = reigns.into_iter().collect();
        // If two overlap that are not neighbours, one of them overlaps what is between them.
        let pairs = reigns.iter().zip(reigns.iter().skip(1));
        let wrong = pairs.filter_map(|(((timeline, node), before), ((next, other), after))| {
            let (node, other) = (format!("node{}", node + 1), format!("node{}", other + 1));
            if timeline == next {
                return Some(format!("{node} and {other} both wrote on timeline {timeline}"));
            }
            (before.1 > after.0).then(|| {
                let late = (before.1 - after.0).as_millis();
                format!(
                    "{node} on timeline {timeline} went on for {late} ms beside {other} on {next}"
                )
            })
        });
        wrong.collect()
    }
}
