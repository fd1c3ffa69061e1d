//! Where a cluster's histories part: the content of a `.history` file.

use super::{Lsn, Timeline};
use serde::{Deserialize, Serialize};

/// The way from the first timeline to `timeline`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Where it ends.
    pub timeline: Timeline,
    /// The timelines before, each with the position where the next one begins. Oldest first.
    pub before: Vec<(Timeline, Lsn)>,
}

impl History {
    /// A cluster that nobody was promoted in.
    pub fn first() -> Self {
        History { timeline: Timeline(1), before: Vec::new() }
    }

    /// Reads `0000000N.history`: a line for each timeline before it, number, position and reason
    /// (`readTimeLineHistory` in Postgres' timeline.c). `None` if it is something else.
    pub fn parse(timeline: Timeline, text: &str) -> Option<Self> {
        let lines = text.lines().map(str::trim);
        let before = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
            let mut fields = line.split_whitespace();
            Some((Timeline(fields.next()?.parse().ok()?), fields.next()?.parse().ok()?))
        });
        Some(History { timeline, before: before.collect::<Option<_>>()? })
    }

    /// Whether whoever has replayed `timeline` up to `lsn` is on the way to this history's end. If
    /// not, it has something that this history has not.
    pub fn leads_on_from(&self, timeline: Timeline, lsn: Lsn) -> bool {
        timeline == self.timeline
            || self.before.iter().any(|(before, end)| *before == timeline && lsn <= *end)
    }

    /// The timelines that the WAL file with `lsn` in it may be named after, the best first: one that
    /// begins in a file has that file for itself, with the beginning of it copied.
    pub fn timelines_of_file(&self, lsn: Lsn, segment_bytes: u64) -> Vec<Timeline> {
        let number = |lsn: Lsn| lsn.0 / segment_bytes;
        let ends = self.before.iter().map(|(timeline, end)| (*timeline, Some(*end)));
        let mut begins = None;
        let mut found = Vec::new();
        for (timeline, end) in ends.chain([(self.timeline, None)]) {
            let has_begun = begins.is_none_or(|begins| number(begins) <= number(lsn));
            if has_begun && end.is_none_or(|end| number(lsn) <= number(end)) {
                found.push(timeline);
            }
            begins = end;
        }
        found.reverse();
        found
    }

    /// Whether the WAL file `name` is of a timeline that was left behind there or before. What is in
    /// it may not be what came to be.
    pub fn has_left_behind(&self, name: &str, segment_bytes: u64) -> bool {
        let Some((timeline, lsn)) = parse_wal_file_name(name, segment_bytes) else { return false };
        let ended = |(before, end): &(Timeline, Lsn)| {
            *before == timeline && lsn.0 / segment_bytes >= end.0 / segment_bytes
        };
        self.before.iter().any(ended)
    }
}

/// The name of the WAL file of `timeline` with `lsn` in it (`XLogFileName` in Postgres'
/// xlog_internal.h).
pub fn wal_file_name(timeline: Timeline, lsn: Lsn, segment_bytes: u64) -> String {
    let (number, in_one) = (lsn.0 / segment_bytes, (1 << 32) / segment_bytes);
    format!("{:08X}{:08X}{:08X}", timeline.0, number / in_one, number % in_one)
}

/// The timeline in a WAL file's name, and where the file ends. `None` if it is another name.
pub fn end_of_wal_file(name: &str, segment_bytes: u64) -> Option<(Timeline, Lsn)> {
    let (timeline, begin) = parse_wal_file_name(name, segment_bytes)?;
    Some((timeline, Lsn(begin.0 + segment_bytes)))
}

/// The timeline in a WAL file's name, and where the file begins. `None` if it is another name.
fn parse_wal_file_name(name: &str, segment_bytes: u64) -> Option<(Timeline, Lsn)> {
    let field = |at: usize| u32::from_str_radix(name.get(at..at + 8)?, 16).ok();
    let lsn = (u64::from(field(8)?) << 32) + u64::from(field(16)?) * segment_bytes;
    (name.len() == 24).then_some((Timeline(field(0)?), Lsn(lsn)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_which_histories_part_counts_under_the_newer_name_only() {
        const SEGMENT: u64 = 16 << 20;
        let history = History::parse(Timeline(3), "1\t0/3000100\tx\n2\t0/5000000\tx\n").unwrap();
        let timelines = |lsn| {
            let found = history.timelines_of_file(Lsn(lsn), SEGMENT);
            found.into_iter().map(|timeline| timeline.0).collect::<Vec<_>>()
        };
        assert_eq!(timelines(0x2fffff8), [1]);
        assert_eq!(timelines(0x3000000), [2, 1]);
        assert_eq!(timelines(0x4000000), [2]);
        assert_eq!(timelines(0x5000000), [3, 2]);
        assert_eq!(timelines(0x2_0000_0000), [3]);
        let name = |timeline, lsn| wal_file_name(Timeline(timeline), Lsn(lsn), SEGMENT);
        assert_eq!(name(10, 0x1_ff00_0001), "0000000A00000001000000FF");
        let left_behind = |name: &str| history.has_left_behind(name, SEGMENT);
        assert!(!left_behind(&name(1, 0x2000000)) && !left_behind(&name(2, 0x4000000)));
        assert!(left_behind(&name(1, 0x3000000)) && left_behind(&name(1, 0x1_0000_0000)));
        assert!(left_behind(&name(2, 0x5000000)) && !left_behind(&name(3, 0x5000000)));
        assert!(!left_behind("00000002.history"));
    }

    #[test]
    fn whoever_went_past_the_fork_is_on_another_branch() {
        let text = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000148\tno recovery target specified\n";
        let history = History::parse(Timeline(3), text).unwrap();
        let leads_on =
            |timeline, lsn: &str| history.leads_on_from(Timeline(timeline), lsn.parse().unwrap());
        assert!(leads_on(1, "0/3000000") && leads_on(2, "0/5000148") && leads_on(3, "9/0"));
        assert!(!leads_on(1, "0/3000001") && !leads_on(2, "0/5000149"));
        assert!(!leads_on(4, "0/0"), "it has never heard of it");
        assert!(History::parse(Timeline(2), "<html>").is_none());
        assert!(History::first().leads_on_from(Timeline(1), Lsn(7)));
    }
}
