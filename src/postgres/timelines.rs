//! Which branches of history a data directory knows of, from the names of its files.

use crate::cluster::{History, Timeline};
use crate::system::account::Account;
use crate::system::files::{FileError, acting_as, ensure_file, failed, sync_directory};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// The way to `timeline`, as `pgdata` has it. None where there is no such file; what [`reserve`] wrote is none.
pub fn history(pgdata: &Path, timeline: Timeline, account: &Account) -> Option<History> {
    let file = pgdata.join("pg_wal").join(format!("{:08X}.history", timeline.0));
    let text = acting_as(account, || fs::read_to_string(file)).ok()?;
    History::parse(timeline, &text).filter(|_| !text.contains(RESERVED))
}

/// The newest timeline that `pgdata` has a history file of, else the first. A primary's own, also
/// where it was killed before its first checkpoint after its promotion: until then its control file
/// names the one before.
pub fn newest_history(pgdata: &Path, account: &Account) -> Timeline {
    let wal = pgdata.join("pg_wal");
    let names = acting_as(account, || {
        let entries = fs::read_dir(&wal).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect::<Vec<_>>()
    });
    names.iter().filter_map(number).max().unwrap_or(Timeline(1))
}

/// The timeline that a history file is named after.
fn number(name: &OsString) -> Option<Timeline> {
    let number = name.to_str()?.strip_suffix(".history")?;
    u32::from_str_radix(number, 16).ok().map(Timeline)
}

/// The newest timeline that a standby in `pgdata` has received WAL of: its segments are named after it.
/// Its control file names it only after the next restartpoint, and its WAL receiver, which knows, is
/// gone with the primary. A history file alone proves nothing: it comes before the WAL, also to a
/// standby that went another way.
pub fn newest_received(pgdata: &Path, account: &Account) -> Timeline {
    let wal = pgdata.join("pg_wal");
    let names = acting_as(account, || {
        let entries = fs::read_dir(&wal).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect::<Vec<_>>()
    });
    let timeline = |name: &OsString| {
        let name = name.to_str().filter(|name| name.len() == 24)?;
        u32::from_str_radix(name.get(..8)?, 16).ok().map(Timeline)
    };
    names.iter().filter_map(timeline).max().unwrap_or(Timeline(1))
}

/// The reason in a history file that only keeps a number from being given twice.
const RESERVED: &str = "another node has begun it, which nobody followed";

/// Afterwards a promotion of the standby in `pgdata`, which is on `ours`, begins a timeline after `newest`,
/// whether the standby has heard of that or not.
///
/// Postgres takes the first number that it has no history file of (`findNewestTimeLine` in its timeline.c); two
/// histories of one number would be taken for one, by pg_rewind, too. As these files have it, the timeline left
/// `ours` at its very beginning, so that no recovery takes it for its target (`rescanLatestTimeLine`; tried: with
/// a later place it does, and the promotion's history leads through it).
///
/// They stay while it leads: other standbys fetch each number on their way (`WalRcvFetchTimeLineHistoryFiles`).
pub fn reserve(
    pgdata: &Path,
    ours: Timeline,
    newest: Timeline,
    account: &Account,
) -> Result<(), FileError> {
    let wal = pgdata.join("pg_wal");
    let text = format!("{ours}\t0/1\t{RESERVED}\n");
    let files = (ours.0 + 1..=newest.0).map(|number| wal.join(format!("{number:08X}.history")));
    let missing = files.filter(|file| !acting_as(account, || file.exists())).collect::<Vec<_>>();
    for file in &missing {
        ensure_file(file, &text, 0o600, account)?; // Whole, or not at all.
    }
    if missing.is_empty() { Ok(()) } else { acting_as(account, || sync_directory(&wal)) }
}

/// Afterwards a standby in `pgdata` believes nothing that [`reserve`] wrote for a promotion which then did not
/// come to be, nor what it fetched of it from another: it would take it for the way to that timeline. Numbers
/// below one that it has WAL of stay: without them its recovery would not find the way there.
pub fn forget_reserved(pgdata: &Path, account: &Account) -> Result<(), FileError> {
    let received = newest_received(pgdata, account);
    acting_as(account, || {
        for entry in fs::read_dir(pgdata.join("pg_wal")).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_newer = number(&entry.file_name()).is_some_and(|number| number > received);
            if is_newer && fs::read_to_string(&path).is_ok_and(|text| text.contains(RESERVED)) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Lsn;

    #[test]
    fn a_promotion_shows_before_its_first_checkpoint() {
        let dir = std::env::temp_dir().join(format!("pgherd-history-{}", std::process::id()));
        fs::create_dir_all(dir.join("pg_wal")).unwrap();
        let ourselves = Account::current();
        assert_eq!(newest_history(&dir, &ourselves), Timeline(1));
        for name in
            ["00000002.history", "0000000A.history", "0000000A0000000000000003", "x.history"]
        {
            fs::write(dir.join("pg_wal").join(name), "").unwrap();
        }
        assert_eq!(newest_history(&dir, &ourselves), Timeline(10));
        let there = |name: &str| dir.join("pg_wal").join(name).exists();
        fs::remove_file(dir.join("pg_wal/0000000A0000000000000003")).unwrap();
        reserve(&dir, Timeline(1), Timeline(4), &ourselves).unwrap();
        assert!(there("00000003.history") && there("00000004.history"));
        assert!(!there("00000001.history") && !there("00000005.history"));
        let text = fs::read_to_string(dir.join("pg_wal/00000004.history")).unwrap();
        let history = History::parse(Timeline(4), &text).unwrap();
        assert_eq!(history.before, [(Timeline(1), Lsn(1))]);
        fs::write(dir.join("pg_wal/000000030000000000000007"), "").unwrap();
        forget_reserved(&dir, &ourselves).unwrap();
        assert!(there("00000003.history"), "it is on the way to what it has received");
        assert!(!there("00000004.history"));
        fs::remove_file(dir.join("pg_wal/000000030000000000000007")).unwrap();
        forget_reserved(&dir, &ourselves).unwrap();
        assert!(there("00000002.history") && !there("00000003.history"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
