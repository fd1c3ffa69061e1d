//! Which branches of history a data directory knows of, from the names of its files.

use crate::cluster::Timeline;
use crate::system::account::Account;
use crate::system::files::acting_as;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// The newest timeline that `pgdata` has a history file of, else the first. A primary's own, also
/// where it was killed before its first checkpoint after its promotion: until then its control file
/// names the one before.
pub fn newest_history(pgdata: &Path, account: &Account) -> Timeline {
    let wal = pgdata.join("pg_wal");
    let names = acting_as(account, || {
        let entries = fs::read_dir(&wal).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect::<Vec<_>>()
    });
    let timeline = |name: &OsString| {
        let number = name.to_str()?.strip_suffix(".history")?;
        u32::from_str_radix(number, 16).ok().map(Timeline)
    };
    names.iter().filter_map(timeline).max().unwrap_or(Timeline(1))
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

#[cfg(test)]
mod tests {
    use super::*;

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
        fs::remove_dir_all(&dir).unwrap();
    }
}
