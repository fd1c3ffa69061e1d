//! What has happened to the backups between two looks, whoever did it: cron, a person, barman's retention.

use crate::barman::{Shelf, Status};
use crate::cluster::Verified;

/// As it goes to the journal: what kind of thing, and words. What went by between two looks was not seen.
pub(super) fn between(before: &Shelf, now: &Shelf) -> Vec<(&'static str, String)> {
    if before.archive.name != now.archive.name {
        return Vec::new(); // Another history has begun, with backups of its own.
    }
    let mut news = Vec::new();
    for (id, status) in &now.stages {
        if before.stages.get(id) == Some(status) {
            continue;
        }
        match status {
            Status::Begun => news.push(("backup.begun", format!("base backup {id} is taken"))),
            Status::Done => news.push(("backup.done", format!("base backup {id} is complete"))),
            Status::Failed => news.push(("backup.failed", format!("base backup {id} failed"))),
            Status::WaitingForWals => {}
        }
    }
    for (id, status) in &before.stages {
        // Retention takes away what was complete.
        if *status != Status::Done && !now.stages.contains_key(id) {
            let text = format!("base backup {id} came to nothing and was deleted");
            news.push(("backup.deleted", text));
        }
    }
    for backup in &now.archive.backups {
        let known = before.archive.backups.iter().find(|known| known.id == backup.id);
        let id = &backup.id;
        match &backup.verified {
            verified if known.is_some_and(|known| known.verified == *verified) => {}
            Some(Verified { wrong: None, .. }) => {
                news.push(("backup.verified", format!("backup {id} was verified: it restores")));
            }
            Some(Verified { wrong: Some(why), .. }) => {
                news.push(("backup.spoilt", format!("backup {id} does not restore: {why}")));
            }
            None => {}
        }
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Archive;

    #[test]
    fn what_becomes_of_a_backup_is_told_once() {
        let shelf = |name: &str, stages: &[(&str, Status)]| Shelf {
            archive: Archive {
                name: name.to_owned(),
                backups: Vec::new(),
                histories: Vec::new(),
                ends: Vec::new(),
            },
            stages: stages.iter().map(|(id, status)| ((*id).to_owned(), *status)).collect(),
            running_bytes: None,
            free_mib: None,
            failed: false,
            copied: None,
            wal_age: None,
        };
        let one = |status| shelf("pgherd", &[("1", status)]);
        let kinds = |before: &Shelf, now: &Shelf| {
            between(before, now).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>()
        };
        let none = shelf("pgherd", &[]);
        assert_eq!(kinds(&none, &one(Status::Begun)), ["backup.begun"]);
        assert_eq!(kinds(&one(Status::Begun), &one(Status::WaitingForWals)), [""; 0]);
        assert_eq!(kinds(&one(Status::WaitingForWals), &one(Status::Done)), ["backup.done"]);
        assert_eq!(kinds(&one(Status::Done), &one(Status::Done)), [""; 0]);
        assert_eq!(kinds(&one(Status::Done), &none), [""; 0], "its time was over");
        assert_eq!(kinds(&one(Status::Begun), &one(Status::Failed)), ["backup.failed"]);
        assert_eq!(kinds(&one(Status::Failed), &none), ["backup.deleted"]);
        assert_eq!(kinds(&one(Status::Failed), &shelf("pgherd.2", &[])), [""; 0]);
    }
}
