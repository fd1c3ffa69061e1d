//! What there is of backups, for people: from barman's files, as [`super::catalog`] reads them.

use super::catalog::{self, Status};
use crate::cluster::{BackupState, Backups};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The backups in `directory`, with their ages at `now`. barman writes a backup's file when it is
/// complete, so that file's time is taken for that moment.
pub fn shelf(directory: &Path, now: SystemTime) -> Backups {
    let all = catalog::backups(directory);
    let complete = || all.iter().filter(|(_, (status, _))| *status == Status::Done);
    let since = |then: SystemTime| now.duration_since(then).unwrap_or_default();
    let seconds = |then: SystemTime| since(then).as_secs();
    let state = match all.values().next_back() {
        Some((Status::Failed, _)) => BackupState::Failed,
        Some((Status::Done | Status::WaitingForWals, _)) => BackupState::Ok,
        None => BackupState::None,
    };
    let ages = || complete().map(|(_, (_, written))| seconds(*written));
    Backups {
        last: complete().next_back().map(|(id, _)| id.clone()),
        age_seconds: ages().next_back(),
        window_seconds: ages().max(),
        count: complete().count() as u64,
        state: if complete().next().is_none() && state == BackupState::Ok {
            BackupState::None
        } else {
            state
        },
        wal_age_seconds: newest_wal(directory).map(since).as_ref().map(Duration::as_secs),
    }
}

/// When a WAL file was written to last: in `streaming`, where it grows, or in the newest directory of
/// `wals`, where barman puts those that are full.
fn newest_wal(directory: &Path) -> Option<SystemTime> {
    let wals = fs::read_dir(directory.join("wals")).into_iter().flatten().flatten();
    let newest = wals.map(|entry| entry.path()).filter(|path| path.is_dir()).max();
    let directories = newest.into_iter().chain([directory.join("streaming")]);
    let files = directories.filter_map(|path| fs::read_dir(path).ok()).flatten().flatten();
    files.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_backup_counts_and_a_failed_one_after_it_shows() {
        let directory = std::env::temp_dir().join(format!("pgherd-shelf-{}", std::process::id()));
        let now = || SystemTime::now() + Duration::from_secs(60);
        assert_eq!(shelf(&directory, now()), Backups::default());
        let backup = |id: &str, status: &str| {
            let info = directory.join("base").join(id).join("backup.info");
            fs::create_dir_all(info.parent().unwrap()).unwrap();
            fs::write(info, format!("begin_wal=x\nstatus={status}\n")).unwrap();
        };
        backup("20261120T030001", "WAITING_FOR_WALS");
        assert_eq!(shelf(&directory, now()).state, BackupState::None);
        backup("20261119T030001", "DONE");
        backup("20261120T030001", "DONE");
        let streaming = directory.join("streaming");
        fs::create_dir_all(&streaming).unwrap();
        fs::write(streaming.join("000000010000000000000003.partial"), "").unwrap();
        let seen = shelf(&directory, now());
        assert_eq!((seen.count, seen.last.as_deref()), (2, Some("20261120T030001")));
        assert_eq!(seen.state, BackupState::Ok);
        assert!(seen.age_seconds.is_some_and(|age| (60..120).contains(&age)), "{seen:?}");
        assert!(seen.wal_age_seconds.is_some_and(|age| (60..120).contains(&age)), "{seen:?}");
        backup("20261121T030001", "FAILED");
        let seen = shelf(&directory, now());
        assert_eq!((seen.state, seen.count), (BackupState::Failed, 2));
        fs::remove_dir_all(&directory).unwrap();
    }
}
