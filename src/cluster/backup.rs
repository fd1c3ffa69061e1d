//! Base backups and the WAL behind them, as the node that keeps them describes them to the others.

use super::{History, Lsn, Moment, SystemId, Timeline};
use serde::{Deserialize, Serialize};

/// A base backup that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// barman's id: the time when it began.
    pub id: String,
    /// What a person called it.
    pub name: Option<String>,
    /// Of which cluster.
    pub system: SystemId,
    /// On which branch of history it was taken.
    pub timeline: Timeline,
    /// Where the WAL begins that it needs.
    pub begin: Lsn,
    /// From where on it can be used.
    pub end: Lsn,
    /// When that was, by the clock of barman's node.
    pub ended: Moment,
    /// How large it is, as barman has counted.
    pub bytes: u64,
    /// The major version of its PostgreSQL.
    pub major: u32,
    /// Why it cannot be brought back by pgherd.
    pub unfit: Option<String>,
    /// That it was restored on trial, and what came of that.
    #[serde(default)]
    pub verified: Option<Verified>,
}

/// What came of restoring a backup on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// When that was.
    pub at: Moment,
    /// Why it is no good; nothing was found without one.
    pub wrong: Option<String>,
}

/// What became of the base backup that was asked for last since the node began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// It is being taken.
    pub running: bool,
    /// So much of it is there,
    pub bytes: Option<u64>,
    /// of so much, if it is as large as the one before it.
    pub bytes_before: Option<u64>,
    /// Why there is none.
    pub failed: Option<String>,
    /// Which one it is, once it is complete.
    pub id: Option<String>,
    /// Another one is being taken, by cron for instance, and this one comes after it.
    #[serde(default)]
    pub waits: bool,
}

/// What a barman keeps of one cluster in one directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// The directory's name below `BARMAN_BACKUP_DIR`.
    pub name: String,
    /// Oldest first.
    pub backups: Vec<Backup>,
    /// Of timelines that came from others.
    pub histories: Vec<History>,
    /// Each timeline's last WAL file's end: nothing after it is here.
    pub ends: Vec<(Timeline, Lsn)>,
}

impl Archive {
    /// The way to `timeline`; `None` where nothing here is on it.
    pub fn history(&self, timeline: Timeline) -> Option<History> {
        let found = self.histories.iter().find(|history| history.timeline == timeline).cloned();
        let is_known = timeline == Timeline(1)
            || self.backups.iter().any(|backup| backup.timeline == timeline)
            || self.ends.iter().any(|(known, _)| *known == timeline);
        found.or_else(|| is_known.then_some(History { timeline, before: Vec::new() }))
    }

    /// The newest that anything here is on.
    pub fn newest_timeline(&self) -> Timeline {
        let histories = self.histories.iter().map(|history| history.timeline);
        let backups = self.backups.iter().map(|backup| backup.timeline);
        let ends = self.ends.iter().map(|(timeline, _)| *timeline);
        histories.chain(backups).chain(ends).max().unwrap_or(Timeline(1))
    }

    /// Where the WAL of the way to `timeline` ends.
    pub fn end_of(&self, timeline: Timeline) -> Option<Lsn> {
        self.ends.iter().find(|(known, _)| *known == timeline).map(|(_, end)| *end)
    }
}

/// How the cluster's backups are, as the node that keeps them sees it and tells the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupsSeen {
    /// `REPMGR_NODE_NAME` of that node.
    #[serde(default)]
    pub node: String,
    /// The newest complete one's id.
    pub last: Option<String>,
    /// Since it was complete.
    pub age_seconds: Option<u64>,
    /// Since the oldest one was: the cluster can go back to any moment since then.
    #[serde(default)]
    pub window_seconds: Option<u64>,
    /// How many are complete.
    pub count: usize,
    /// The worst that can be said of them.
    pub state: BackupsState,
    /// Since WAL was written to the archive. It grows where nobody writes to the cluster, too.
    #[serde(default)]
    pub wal_age_seconds: Option<u64>,
    /// What of them is elsewhere; where `BARMAN_CLOUD_URL` says so.
    #[serde(default)]
    pub copies: Option<CopiesSeen>,
    /// A base backup is being taken, and so many bytes of it are there.
    #[serde(default)]
    pub running_bytes: Option<u64>,
    /// A sentence for each thing that a person should see to.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Copies of backups and WAL elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiesSeen {
    /// `BARMAN_CLOUD_URL`.
    pub url: String,
    /// The newest backup that is there.
    pub last: Option<String>,
    /// Since that one was complete here.
    pub age_seconds: Option<u64>,
    /// Files of WAL that are not there yet.
    pub wal_waiting: usize,
    /// Since the one was written that has waited longest.
    pub wal_wait_seconds: Option<u64>,
    /// The last that was tried came to nothing, and why.
    pub error: Option<String>,
}

/// The worst that can be said of a cluster's backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupsState {
    /// There are some, and WAL comes.
    Ok,
    /// None is complete yet.
    None,
    /// The newest is more than twice as old as the schedule has it.
    Overdue,
    /// WAL that the primary has written does not come.
    Standing,
    /// Another backup may not fit.
    Filling,
    /// The last one that was tried came to nothing.
    Failed,
}

impl std::fmt::Display for BackupsState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BackupsState::Ok => "ok",
            BackupsState::None => "none",
            BackupsState::Overdue => "overdue",
            BackupsState::Standing => "standing",
            BackupsState::Filling => "filling",
            BackupsState::Failed => "failed",
        })
    }
}
