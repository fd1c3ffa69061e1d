//! What a data directory misses of the WAL that it has to replay before anybody can use it. Until then its server
//! takes no connections, and says nowhere what it waits for.

use super::{CONTROL_DATA_AT_MOST, PostgresError};
use crate::cluster::{History, Lsn, Timeline, wal_file_name};
use crate::layout::Layout;
use crate::system::account::Account;
use crate::system::child::Program;
use crate::system::files::acting_as;
use std::collections::BTreeSet;
use std::fs;

/// A WAL file that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The names that it may have, the best first.
    pub names: Vec<String>,
    /// Where it begins.
    pub begin: Lsn,
    /// The first timeline that it may be of.
    pub timeline: Timeline,
}

/// The first file of what the data directory replays at least that is not in its `pg_wal`; `None` where
/// nothing is missing. Its server may run.
pub async fn first_missing_wal(
    layout: &Layout,
    account: &Account,
) -> Result<Option<Missing>, PostgresError> {
    let pg_controldata = Program::new(layout.bin_dir.join("pg_controldata")).account(account);
    let said = pg_controldata.env("LC_ALL", "C").arg(&layout.pgdata);
    let said = said.output(CONTROL_DATA_AT_MOST).await?.text();
    let (label, history, files) = acting_as(account, || {
        let pg_wal = layout.pgdata.join("pg_wal");
        let label = fs::read_to_string(layout.pgdata.join("backup_label")).unwrap_or_default();
        let text = |of: Timeline| fs::read_to_string(pg_wal.join(format!("{:08X}.history", of.0)));
        let timeline = number(&said, "Min recovery ending loc's timeline");
        let timeline = Timeline(u32::try_from(timeline.unwrap_or_default()).unwrap_or_default());
        let history = text(timeline).ok().and_then(|text| History::parse(timeline, &text));
        let history = history.unwrap_or(History { timeline, before: Vec::new() });
        let files = fs::read_dir(&pg_wal).into_iter().flatten().flatten();
        let files: BTreeSet<_> =
            files.filter_map(|file| file.file_name().into_string().ok()).collect();
        (label, history, files)
    });
    Ok(first_missing(&said, &label, &history, &files))
}

/// A line of `pg_controldata`'s, `key: value`.
fn value<'a>(said: &'a str, key: &str) -> Option<&'a str> {
    said.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
}

fn number(said: &str, key: &str) -> Option<u64> {
    value(said, key)?.parse().ok()
}

/// By what `pg_controldata` says, the `backup_label`, the way to where replay has to come, and what is there.
fn first_missing(
    said: &str,
    label: &str,
    history: &History,
    files: &BTreeSet<String>,
) -> Option<Missing> {
    let bytes = number(said, "Bytes per WAL segment").filter(|bytes| bytes.is_power_of_two())?;
    // `START WAL LOCATION: 0/9000028 (file 000000010000000000000009)`.
    let labelled = label.lines().find_map(|line| line.strip_prefix("START WAL LOCATION: "));
    let labelled = labelled.and_then(|line| line.split_once(' ')?.0.parse().ok());
    let redo = || value(said, "Latest checkpoint's REDO location")?.parse().ok();
    let from: Lsn = labelled.or_else(redo)?;
    let end: Lsn = value(said, "Minimum recovery ending location")?.parse().ok()?; // 0/0: none.
    let mut begin = Lsn(from.0 / bytes * bytes);
    while begin < end {
        let timelines = history.timelines_of_file(begin, bytes);
        let names: Vec<_> =
            timelines.iter().map(|timeline| wal_file_name(*timeline, begin, bytes)).collect();
        // One in which the histories part is replayed from the newer one's file.
        if !names.first().is_some_and(|name| files.contains(name)) {
            return Some(Missing { names, begin, timeline: *timelines.last()? });
        }
        begin = Lsn(begin.0 + bytes);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_found_and_a_file_of_another_history_does_not_fill_it() {
        let said = "Latest checkpoint's REDO location:    0/B000028\n\
            Minimum recovery ending location:     0/C000100\nBytes per WAL segment:     16777216\n";
        let label = "START WAL LOCATION: 0/9000028 (file 000000010000000000000009)\n";
        let history = History::parse(Timeline(4), "1\t0/A000100\tx\n2\t0/B000200\tx\n").unwrap();
        let missing = |label: &str, there: &[&str]| {
            let files = there.iter().map(|name| (*name).to_owned()).collect();
            first_missing(said, label, &history, &files).map(|one| one.names.join(" "))
        };
        let name = |timeline: u32, number: u32| format!("{timeline:08X}{number:016X}");
        let (nine, ten) = (name(1, 9), name(2, 10));
        let (eleven, twelve) = (name(4, 11), name(4, 12));
        let all = [nine.as_str(), &ten, &eleven, &twelve];
        assert_eq!(missing(label, &all), None);
        assert_eq!(missing(label, &all[1..]), Some(nine.clone()));
        let old = [nine.as_str(), &name(1, 10), &eleven, &twelve];
        assert_eq!(missing(label, &old), Some(format!("{ten} {}", name(1, 10))));
        assert_eq!(missing("", &all[2..]), None, "it replays from its checkpoint on");
        let gap = [nine.as_str(), &ten, &twelve];
        let expected = format!("{eleven} {}", name(2, 11));
        assert_eq!(missing(label, &gap), Some(expected.clone()));
        let other = name(3, 11);
        let of_another = [nine.as_str(), &ten, &other, &twelve];
        assert_eq!(missing(label, &of_another), Some(expected), "that is no way to timeline 4");
        let primary = said.replace("0/C000100", "0/0");
        assert_eq!(first_missing(&primary, "", &history, &BTreeSet::new()), None);
    }
}
