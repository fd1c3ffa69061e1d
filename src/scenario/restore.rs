//! "Restore DB from backup." The document has the title only; the stages are ours.
//!
//! Like a first start: until [`Step::Complete`] the data directory bears the mark and nobody can reach the
//! server, so an interrupted restore is begun anew. What it recovers ends on a timeline of its own, and the
//! archive that it came from is read and never written: the restored cluster begins another.

use super::plan::{Stage, stage};
use super::primary_first_start::serve;
use super::primary_restart::{helpers, records, with_others_forgotten};
use super::step::Step;
use crate::cluster::{Archive, Backup, History, Lsn, Moment, Timeline};
use crate::layout::{Layout, Major};
use crate::settings::{RestoreFrom, RestoreSettings, RestoreTarget, Settings, TargetTimeline};
use serde::Serialize;
use std::fmt;

/// Who keeps an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeptBy {
    /// This node's own barman.
    Here,
    /// Another node, at its HTTP port.
    Node(String, u16),
    /// A store of S3's kind, by its URL.
    Cloud(String),
}

/// What there is to restore from, as far as it was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What was found, the directory that is in use first.
    pub archives: Vec<(KeptBy, Archive)>,
    /// Who could not be asked, and why.
    pub unclear: Vec<String>,
    /// Everybody was asked.
    pub asked: bool,
    /// By this node's clock.
    pub now: Moment,
}

/// Which backup is brought back, and how far its WAL is replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restore {
    /// Who has it.
    pub kept_by: KeptBy,
    /// In which of barman's directories.
    pub archive: String,
    /// The backup.
    pub backup: Backup,
    /// To the end of the WAL on `timeline` without one.
    pub target: Option<RestoreTarget>,
    /// On the way to this one.
    pub timeline: Timeline,
    /// Where the WAL ends that there is.
    pub end: Option<Lsn>,
    /// A person looks at it first.
    pub pauses: bool,
}

/// Why no backup serves. `Display` ends in what there is, or in the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackup {
    /// Nobody has any.
    #[error("there is no complete base backup of cluster {0}")]
    None(String),
    /// No such id or name.
    #[error("there is no backup {asked}; there are {}", listed(.there))]
    Unknown {
        /// What was asked for.
        asked: String,
        /// What there is.
        there: Vec<Backup>,
    },
    /// The target was before any of them could be used.
    #[error(
        "{target} is before the end of every backup that leads there, so it cannot be reached; the \
         earliest moment is {}", earliest(.there)
    )]
    TooEarly {
        /// What was asked for.
        target: RestoreTarget,
        /// What there is.
        there: Vec<Backup>,
    },
    /// The WAL does not go so far.
    #[error("{target} is after the end of the archive, which has WAL up to {end}")]
    TooLate {
        /// What was asked for.
        target: RestoreTarget,
        /// What there is.
        end: String,
    },
    /// There are several histories, and only a replay could tell in which of them it is.
    #[error(
        "{target} may be in any of {}, of which each is another history: name the backup to begin from \
         with RESTORE_FROM; there are {}", .archives.join(" and "), listed(.there)
    )]
    Ambiguous {
        /// What was asked for.
        target: RestoreTarget,
        /// Where it may be.
        archives: Vec<String>,
        /// What there is.
        there: Vec<Backup>,
    },
    /// Nothing here is on that branch, or leads there.
    #[error("no backup leads to timeline {timeline}; there are {}", listed(.there))]
    OtherTimeline {
        /// What was asked for.
        timeline: Timeline,
        /// What there is.
        there: Vec<Backup>,
    },
    /// Made by another PostgreSQL.
    #[error(
        "backup {id} is of PostgreSQL {theirs}, and this image carries {ours}; use the image for {theirs}"
    )]
    OtherMajor {
        /// Which.
        id: String,
        /// Of the backup.
        theirs: Major,
        /// Of the image.
        ours: Major,
    },
    /// It needs barman's own hands.
    #[error("backup {id} {why}: barman recover brings it back by hand")]
    Unfit {
        /// Which.
        id: String,
        /// What is in the way.
        why: String,
    },
}

fn listed(backups: &[Backup]) -> String {
    let line = |backup: &Backup| {
        let Backup { id, timeline, ended, .. } = backup;
        let called = backup.name.iter().map(|name| format!("called {name}, "));
        let called: String = called.collect();
        format!("{id} ({called}timeline {timeline}, usable from {ended} on)")
    };
    if backups.is_empty() { "none".to_owned() } else { list(backups.iter().map(line)) }
}

fn list(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn earliest(backups: &[Backup]) -> String {
    let first = backups.iter().min_by_key(|backup| backup.end);
    let at = |backup: &Backup| format!("{} ({}, backup {})", backup.ended, backup.end, backup.id);
    first.map_or_else(|| "not known".to_owned(), at)
}

/// The backup that serves what was asked for. Of several archives the one in use is asked first: an older
/// one has what was before the restore that began the newer one.
pub(super) fn choose(
    asked: &RestoreSettings,
    kept: &Kept,
    major: Major,
) -> Result<Restore, NoBackup> {
    let mut why = None;
    refuse_to_guess(asked, kept)?;
    for (kept_by, archive) in &kept.archives {
        match choose_from(asked, kept_by, archive, kept.now, major) {
            Ok(restore) => return Ok(restore),
            Err(none @ NoBackup::None(_)) => why = why.or(Some(none)),
            Err(unknown @ NoBackup::Unknown { .. }) => {
                why = why.filter(|why| !matches!(why, NoBackup::None(_))).or(Some(unknown));
            }
            Err(better) => why = Some(better),
        }
    }
    Err(why.unwrap_or_else(|| NoBackup::None(asked.cluster.clone())))
}

/// A name, or a transaction's number, comes again in each history.
fn refuse_to_guess(asked: &RestoreSettings, kept: &Kept) -> Result<(), NoBackup> {
    let with_backups = || {
        let archives = kept.archives.iter().map(|(_, archive)| archive);
        archives.filter(|archive| !archive.backups.is_empty())
    };
    match (&asked.from, &asked.target) {
        (RestoreFrom::Latest, Some(target @ (RestoreTarget::Name(_) | RestoreTarget::Xid(_))))
            if with_backups().count() > 1 =>
        {
            Err(NoBackup::Ambiguous {
                target: target.clone(),
                archives: with_backups().map(|archive| archive.name.clone()).collect(),
                there: with_backups().flat_map(|archive| archive.backups.clone()).collect(),
            })
        }
        _ => Ok(()),
    }
}

fn choose_from(
    asked: &RestoreSettings,
    kept_by: &KeptBy,
    archive: &Archive,
    now: Moment,
    major: Major,
) -> Result<Restore, NoBackup> {
    let there = || archive.backups.clone();
    let named = |backup: &&Backup| match &asked.from {
        RestoreFrom::Latest => true,
        RestoreFrom::Backup(word) => backup.id == *word || backup.name.as_ref() == Some(word),
    };
    let named: Vec<&Backup> = archive.backups.iter().filter(named).collect();
    let Some(newest) = named.last() else {
        return Err(match &asked.from {
            RestoreFrom::Backup(word) if !archive.backups.is_empty() => {
                NoBackup::Unknown { asked: word.clone(), there: there() }
            }
            RestoreFrom::Backup(_) | RestoreFrom::Latest => NoBackup::None(asked.cluster.clone()),
        });
    };
    let timeline = match asked.timeline {
        TargetTimeline::Latest => archive.newest_timeline(),
        TargetTimeline::Current => newest.timeline,
        TargetTimeline::Number(timeline) => timeline,
    };
    let way = archive.history(timeline);
    let leads_there = |backup: &&&Backup| {
        way.as_ref().is_some_and(|way: &History| way.leads_on_from(backup.timeline, backup.end))
    };
    let on_the_way: Vec<&Backup> = named.iter().filter(leads_there).copied().collect();
    if on_the_way.is_empty() {
        return Err(NoBackup::OtherTimeline { timeline, there: there() });
    }
    let end = archive.end_of(timeline);
    if let Some(target) = &asked.target {
        refuse_what_never_was(target, end, now)?;
    }
    let serves = |backup: &&&Backup| match &asked.target {
        Some(RestoreTarget::Time(moment)) => backup.ended <= *moment,
        Some(RestoreTarget::Lsn(lsn)) => backup.end <= *lsn,
        Some(RestoreTarget::Name(_) | RestoreTarget::Xid(_)) | None => true,
    };
    let mut serving = on_the_way.iter().filter(serves);
    let chosen = match &asked.target {
        // Where it stands in the WAL only a replay can tell, and the first one is certainly before it.
        Some(RestoreTarget::Name(_) | RestoreTarget::Xid(_)) => serving.next(),
        Some(RestoreTarget::Time(_) | RestoreTarget::Lsn(_)) | None => serving.next_back(),
    };
    let Some(backup) = chosen else {
        let target = asked.target.clone().expect("every backup serves where there is none");
        let there = on_the_way.into_iter().cloned().collect();
        return Err(NoBackup::TooEarly { target, there });
    };
    if backup.major != major {
        let id = backup.id.clone();
        return Err(NoBackup::OtherMajor { id, theirs: backup.major, ours: major });
    }
    if let Some(why) = &backup.unfit {
        return Err(NoBackup::Unfit { id: backup.id.clone(), why: why.clone() });
    }
    Ok(Restore {
        kept_by: kept_by.clone(),
        archive: archive.name.clone(),
        backup: (*backup).clone(),
        target: asked.target.clone(),
        timeline,
        end,
        pauses: asked.pauses,
    })
}

/// Before a server finds out, hours later, that it recovers for nothing.
fn refuse_what_never_was(
    target: &RestoreTarget,
    end: Option<Lsn>,
    now: Moment,
) -> Result<(), NoBackup> {
    let too_late = |end: String| Err(NoBackup::TooLate { target: target.clone(), end });
    match (target, end) {
        (RestoreTarget::Lsn(lsn), Some(end)) if *lsn > end => too_late(end.to_string()),
        (RestoreTarget::Time(moment), _) if *moment > now => too_late(format!("now, {now}")),
        _ => Ok(()),
    }
}

impl Restore {
    /// What the volume must have: the copy, and WAL on its way through it.
    pub fn needs_mib(&self) -> u64 {
        /// `max_wal_size` is 1 GB where nobody says otherwise, and is rarely used up by a replay.
        const WAL_MIB: u64 = 512;
        self.backup.bytes / (1 << 20) + WAL_MIB
    }
}

impl Restore {
    /// Up to where, in words.
    pub fn up_to(&self) -> String {
        match &self.target {
            Some(target) => target.to_string(),
            None => format!("the end of timeline {}", self.timeline),
        }
    }
}

impl fmt::Display for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Backup { id, timeline, bytes, .. } = &self.backup;
        let mib = bytes / (1 << 20);
        write!(f, "backup {id} (timeline {timeline}, {mib} MiB) from ")?;
        match &self.kept_by {
            KeptBy::Here => write!(f, "{}", self.archive),
            KeptBy::Node(host, _) => write!(f, "{} on {host}", self.archive),
            KeptBy::Cloud(url) => write!(f, "{} in {url}", self.archive),
        }
    }
}

#[rustfmt::skip] // A line, then what it takes.
pub(super) fn stages(
    settings: &Settings,
    layout: &Layout,
    begun_anew: bool,
    restore: &Restore,
) -> Vec<Stage> {
    let postgres = &settings.postgres;
    let pgdata = &layout.pgdata;
    let discard = begun_anew.then(|| Step::DiscardUnfinished { pgdata: pgdata.clone() });
    let restore = || Box::new(restore.clone());
    vec![
        stage("Find the backup that serves", [
            // It is what selected this plan.
        ]),
        stage("Bring the backup back",
            discard.into_iter().chain([
                Step::BringBack { restore: restore(), pgdata: pgdata.clone() },
                Step::WritePostgresConf,
                Step::CheckServerSettings,
                Step::WriteRepmgrConf,
            ]),
        ),
        stage("Recover on technical port", [
            Step::Recover { restore: restore(), port: postgres.technical_port },
        ]),
        with_others_forgotten(records(settings)),
        stage("Create barman config", [
            Step::BeginArchive,
            Step::WriteBarmanConf,
        ]),
        stage("Touch cron for barman", [
            Step::WriteBarmanCron,
        ]),
        serve(postgres.port, pgdata),
        helpers(),
    ]
}
