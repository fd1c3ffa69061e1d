//! Base backups that come to nothing, most often because another node became primary while they were taken.
//!
//! barman keeps them until a person deletes them. One that began on one timeline and ended on another is worse:
//! barman calls it waiting for WAL, fails on it at each look ("must have the same timeline part"), and looks at
//! no later one that waits (3.4 and 3.13).

use super::catalog::{self, Status};
use crate::cluster::Timeline;
use std::path::Path;

/// One that nobody can restore.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Useless {
    pub(super) id: String,
    /// What became of it.
    pub(super) why: String,
    /// barman may be at it still, and refuses to delete it then.
    pub(super) may_run: bool,
}

/// Those to be taken away, where the primary writes `now`. One that failed where nothing has changed since stays
/// until another is complete: a person may want to see why, and how often it is tried follows from it.
pub(super) fn useless(directory: &Path, now: Option<Timeline>) -> Vec<Useless> {
    let backups = catalog::backups(directory);
    let done = backups.iter().filter(|(_, (status, _))| *status == Status::Done);
    let newest_done = done.map(|(id, _)| id).next_back();
    let mut found = Vec::new();
    for (id, (status, _)) in &backups {
        let info = catalog::info(directory, id).unwrap_or_default();
        let timeline = catalog::value(&info, "timeline").and_then(|number| number.parse().ok());
        let is_left = now.zip(timeline).is_some_and(|(now, of)| Timeline(of) < now);
        let is_overtaken = newest_done.is_some_and(|newest| newest > id);
        let why = match (status, catalog::torn(&info)) {
            (Status::Failed, Some((begin, end))) => {
                format!("it began on timeline {begin} and ended on timeline {end}")
            }
            (Status::Failed, None) if is_left || is_overtaken => {
                let error = catalog::value(&info, "error").filter(|error| *error != "None");
                format!("it failed ({})", error.unwrap_or("barman does not say why"))
            }
            (Status::Begun, _) if is_left => "another node became primary meanwhile".to_owned(),
            (Status::Done | Status::WaitingForWals | Status::Failed | Status::Begun, _) => continue,
        };
        found.push(Useless { id: id.clone(), why, may_run: *status == Status::Begun });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_backup_that_a_handover_interrupted_is_taken_away_and_no_other() {
        let name = format!("pgherd-interrupted-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&directory);
        let write = |id: &str, status: &str, timeline: u32, begin: u32, end: u32| {
            let path = directory.join(format!("meta/{id}-backup.info"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let wal = |timeline: u32| format!("{timeline:08X}0000000000000007");
            let (begin, end) = (wal(begin), wal(end));
            let text = format!(
                "begin_wal={begin}\nend_wal={end}\nerror=no\nstatus={status}\ntimeline={timeline}\n"
            );
            fs::write(path, text).unwrap();
        };
        write("20261121T010000", "DONE", 1, 1, 1);
        write("20261121T020000", "WAITING_FOR_WALS", 1, 1, 2);
        write("20261121T030000", "FAILED", 1, 1, 1);
        write("20261121T040000", "STARTED", 1, 1, 1);
        write("20261121T050000", "WAITING_FOR_WALS", 1, 1, 1);
        let ids = |now: u32| {
            let found = useless(&directory, Some(Timeline(now)));
            found.into_iter().map(|one| one.id[9..11].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(ids(1), ["02"], "nobody else leads: the others may be looked at");
        assert_eq!(ids(2), ["02", "03", "04"]);
        let torn = &useless(&directory, None)[0];
        assert_eq!(torn.why, "it began on timeline 1 and ended on timeline 2");
        write("20261121T060000", "DONE", 1, 1, 1);
        assert_eq!(ids(1), ["02", "03"], "a later one is complete");
        fs::remove_dir_all(&directory).unwrap();
    }
}
