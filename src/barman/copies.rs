//! Copies of the backups and of the WAL elsewhere, made by barman's own tools (`barman-cloud-backup` and
//! its kin), one after the other, of what is complete here. Not by barman's hooks: those that are tried again are
//! tried for ever, while barman holds the lock of its archive (barman 3.4 and 3.13, `RetryHookScriptRunner`).
//!
//! What has been copied is noted beside the backups. A note that is lost costs another copy of the same.

use super::cloud::{self, CloudError};
use super::{archive, catalog};
use crate::cluster::{Backup, Lsn, Moment, end_of_wal_file};
use crate::settings::{CloudSettings, Settings};
use crate::system::account::Account;
use crate::system::child::Program;
use crate::system::files::{FileError, acting_as, ensure_directory, ensure_file, failed};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use tracing::{debug, info};

/// In the directory of the cluster's backups.
const NOTES: &str = ".pgherd-copies";
/// There: where the copies are that are noted; else they are somebody else's, or elsewhere.
const PLACE: &str = "place";
/// A line for each backup: its id, where the WAL begins that it needs, and when it was complete.
const BACKUPS: &str = "backups";
/// A line for each file of WAL.
const WALS: &str = "wals";
/// A file of WAL on its way, where barman keeps it compressed.
const SCRATCH: &str = "unpacked";
const OOM_SCORE_ADJ: i32 = 800;
/// So many lines more than there are files, and the note is written anew.
const WALS_EXTRA_MAX: usize = 1000;
/// 20 TB over a slow line.
const BACKUP_AT_MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// 1 GB, the largest there is, over a slow line.
const WAL_AT_MOST: Duration = Duration::from_secs(60 * 60);
/// A thousand files a question.
const DELETE_AT_MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// The file that is being received is copied as far as it has come: where little is written, it would be
/// nowhere else for days. Each copy costs up to 16 MB, far less where the rest of it is empty.
const PART_EVERY: Duration = Duration::from_secs(5 * 60);

/// What is elsewhere, as far as it is noted here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The newest backup's id, and when that was complete here.
    pub newest: Option<(String, Moment)>,
    /// Files of WAL that are still here only, and needed there.
    pub wal_waiting: usize,
    /// Since when the one has waited that has waited longest.
    pub wal_waits: Option<Duration>,
}

/// One of barman's directories, and where its copies go.
#[derive(Clone, Debug)]
pub struct Copier {
    cloud: CloudSettings,
    retention: String,
    account: Account,
    directory: PathBuf,
    server: String,
}

/// The file that is being received, as it was copied last.
#[derive(Clone, Debug)]
pub struct Part {
    name: String,
    written: SystemTime,
    copied: Instant,
}

impl Copier {
    /// Of the directory that is in use. `None`: nobody wants copies.
    pub fn new(settings: &Settings, account: &Account) -> Option<Self> {
        let cloud = settings.barman.cloud.clone()?;
        let directory = super::backup_directory(settings);
        // A restored cluster's are apart there, too.
        let server = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let retention = settings.barman.retention.to_string();
        Some(Copier { cloud, retention, account: account.clone(), directory, server })
    }

    /// What is there already, and what waits.
    pub fn look(&self) -> Copied {
        acting_as(&self.account, || {
            let backups = self.copied_backups();
            let waiting = self.waiting_wal();
            let age = |path: &PathBuf| fs::metadata(path).ok()?.modified().ok()?.elapsed().ok();
            Copied {
                newest: backups.into_iter().map(|(id, _, ended)| (id, ended)).max(),
                wal_waiting: waiting.len(),
                wal_waits: waiting.iter().filter_map(age).max(),
            }
        })
    }

    /// Copies the newest backup that is not there, and then those before it. `false`: there is none.
    pub async fn copy_a_backup(&self) -> Result<bool, CloudError> {
        let Some(backup) = self.on_disk(Copier::next_backup).await else {
            return Ok(false);
        };
        self.claim(&backup).await?;
        let place = self.place();
        debug!("copies backup {} to {place}", backup.id);
        let base = self.directory.join("base").join(&backup.id);
        // What barman would call it with after the backup.
        let tool = self.tool("barman-cloud-backup").env("BARMAN_PHASE", "post");
        let tool = tool.env("BARMAN_HOOK", "backup_script").env("BARMAN_STATUS", "DONE");
        let tool = tool.env("BARMAN_BACKUP_ID", &backup.id).env("BARMAN_BACKUP_DIR", &base);
        let id = backup.id.clone();
        let info = self.on_disk(move |copier| catalog::info_path(&copier.directory, &id)).await;
        let tool = tool.env("BARMAN_BACKUP_INFO_PATH", info.unwrap_or_default());
        tool.args([&self.cloud.url, &self.server]).output(BACKUP_AT_MOST).await?;
        let line = format!("{} {} {}", backup.id, backup.begin, backup.ended);
        self.on_disk(move |copier| copier.note(BACKUPS, &line)).await?;
        info!("backup {} is in {place}", backup.id);
        Ok(true)
    }

    /// Removes what is older than `BARMAN_RETENTION` wants it.
    pub async fn thin_out(&self) -> Result<(), CloudError> {
        if self.on_disk(Copier::has_place).await {
            let delete = self.tool("barman-cloud-backup-delete");
            let delete = delete.args(["--retention-policy", &self.retention]);
            delete.args([&self.cloud.url, &self.server]).output(DELETE_AT_MOST).await?;
        }
        Ok(())
    }

    /// Copies the first file of WAL that is not there; where all are, the one that is being received, now and
    /// then. `false`: there is nothing to be done.
    pub async fn copy_wal(&self, part: &mut Option<Part>) -> Result<bool, CloudError> {
        let next = self.on_disk(|copier| copier.waiting_wal().into_iter().next()).await;
        if let Some(path) = next {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if self.copy_file(path).await? {
                self.on_disk(move |copier| copier.note(WALS, &name)).await?;
            }
            return Ok(true);
        }
        let before = part.clone();
        let found = self.on_disk(move |copier| copier.part(before.as_ref())).await;
        let Some((path, now)) = found else {
            return Ok(false);
        };
        let is_copied = self.copy_file(path).await?;
        *part = is_copied.then_some(now).or(part.take());
        Ok(!is_copied)
    }

    /// `false`: it is not here any more: barman has removed it, or it is full by now and has another name.
    async fn copy_file(&self, path: PathBuf) -> Result<bool, CloudError> {
        // Compressed there in any case, because of two names of one file barman 3.4 takes the part for the whole
        // else, and a file that is mostly empty is not 16 MB then. Compressed twice, it could not be read.
        let looked_at = path.clone();
        let copied = match self.on_disk(move |_| archive::is_gzip_file(&looked_at)).await {
            true => self.unpack_and_upload(&path).await,
            false => self.upload(&path).await,
        };
        match copied {
            Err(_) if !self.on_disk(move |_| path.exists()).await => Ok(false),
            copied => Ok(copied.map(|_| true)?),
        }
    }

    async fn upload(&self, path: &Path) -> Result<(), CloudError> {
        let tool = self.tool("barman-cloud-wal-archive").arg("--gzip");
        let tool = tool.args([&self.cloud.url, &self.server]).arg(path);
        Ok(tool.output(WAL_AT_MOST).await.map(drop)?)
    }

    async fn unpack_and_upload(&self, path: &Path) -> Result<(), CloudError> {
        let scratch = self.directory.join(NOTES).join(SCRATCH);
        let plain = scratch.join(path.file_name().unwrap_or_default());
        let make = scratch.clone();
        self.on_disk(move |copier| ensure_directory(&make, 0o700, &copier.account)).await?;
        let unpacked = archive::copy_as_written(path, &plain, &self.account, WAL_AT_MOST).await;
        let uploaded = match unpacked {
            Ok(()) => self.upload(&plain).await,
            Err(error) => Err(error.into()),
        };
        // Left behind, it is overwritten by the next.
        let _ = self.on_disk(move |_| fs::remove_dir_all(&scratch)).await;
        uploaded
    }

    /// Where nothing of ours is yet, nothing of anybody else's may be: files of WAL have the same names everywhere.
    async fn claim(&self, backup: &Backup) -> Result<(), CloudError> {
        if self.on_disk(Copier::has_place).await {
            return Ok(());
        }
        let there = cloud::list(&self.cloud, &self.server, &self.account).await?;
        let mut there = there.into_iter().filter_map(|one| one.systemid);
        let ours = backup.system.0.to_string();
        if let Some(there) = there.find(|there| *there != ours) {
            return Err(CloudError::Anothers { place: self.place(), there, here: backup.system });
        }
        Ok(self.on_disk(Copier::begin_notes).await?)
    }

    fn begin_notes(&self) -> Result<(), FileError> {
        let notes = self.directory.join(NOTES);
        ensure_directory(&notes, 0o700, &self.account)?;
        for name in [BACKUPS, WALS] {
            ensure_file(&notes.join(name), "", 0o600, &self.account)?;
        }
        ensure_file(&notes.join(PLACE), self.note_of_place(), 0o600, &self.account).map(drop)
    }

    /// On a thread of its own, as whom the backups belong to: a disk with years of WAL on it takes its time, and
    /// a lease is renewed meanwhile.
    async fn on_disk<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Copier) -> T + Send + 'static,
    ) -> T {
        let copier = self.clone();
        let act = move || acting_as(&copier.account, || act(&copier));
        tokio::task::spawn_blocking(act).await.expect("it does not panic")
    }

    fn tool(&self, name: &str) -> Program {
        // Rather this than a server.
        cloud::tool(&self.cloud, name).account(&self.account).oom_score_adj(OOM_SCORE_ADJ)
    }

    fn place(&self) -> String {
        format!("{}/{}", self.cloud.url, self.server)
    }

    fn note_of_place(&self) -> String {
        format!("{} {}\n", self.place(), self.cloud.endpoint.as_deref().unwrap_or_default())
    }

    /// The notes are about the place that the settings name.
    fn has_place(&self) -> bool {
        let noted = fs::read_to_string(self.directory.join(NOTES).join(PLACE));
        noted.is_ok_and(|noted| noted == self.note_of_place())
    }

    fn noted(&self, name: &str) -> String {
        let read = || fs::read_to_string(self.directory.join(NOTES).join(name));
        if self.has_place() { read().unwrap_or_default() } else { String::new() }
    }

    fn note(&self, name: &str, line: &str) -> Result<(), FileError> {
        let path = self.directory.join(NOTES).join(name);
        let append = || {
            let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
            file.write_all(format!("{line}\n").as_bytes())
        };
        append().map_err(failed("write", &path))
    }

    fn copied_backups(&self) -> Vec<(String, Lsn, Moment)> {
        let line = |line: &str| {
            let (id, rest) = line.split_once(' ')?;
            let (begin, ended) = rest.split_once(' ')?;
            Some((id.to_owned(), begin.parse().ok()?, ended.parse().ok()?))
        };
        self.noted(BACKUPS).lines().filter_map(line).collect()
    }

    /// The newest that is not there. One that was there before the first copy is of no more use than that.
    fn next_backup(&self) -> Option<Backup> {
        let copied = self.copied_backups();
        let first = copied.iter().map(|(id, ..)| id).min();
        let is_there = |id: &String| copied.iter().any(|(copied, ..)| copied == id);
        let backups = catalog::archive(&self.directory).backups.into_iter();
        backups.rev().find(|backup| !is_there(&backup.id) && first.is_none_or(|id| backup.id > *id))
    }

    /// What the first backup that was copied needs, and all after it: each timeline's history first.
    fn waiting_wal(&self) -> Vec<PathBuf> {
        let Some(from) = self.copied_backups().into_iter().map(|(_, begin, _)| begin).min() else {
            return Vec::new();
        };
        let noted = self.noted(WALS);
        let copied: BTreeSet<&str> = noted.lines().collect();
        let wals = self.directory.join("wals");
        let segment_bytes = catalog::segment_bytes(&self.directory);
        let hundreds = catalog::names(&wals).filter(|name| name.len() == 16);
        let in_hundreds = hundreds.flat_map(|hundred| {
            let directory = wals.join(hundred);
            let names: Vec<_> = catalog::names(&directory).collect();
            names.into_iter().map(move |name| directory.join(name))
        });
        let files = catalog::names(&wals).map(|name| wals.join(name)).chain(in_hundreds);
        let mut found: Vec<(String, PathBuf)> = files
            .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)))
            .filter(|(name, _)| is_needed(name, from, segment_bytes))
            .collect();
        let there = found.len();
        if copied.len() > there + WALS_EXTRA_MAX {
            let kept = found.iter().filter(|(name, _)| copied.contains(name.as_str()));
            let text: String = kept.map(|(name, _)| format!("{name}\n")).collect();
            let _ = ensure_file(&self.directory.join(NOTES).join(WALS), text, 0o600, &self.account);
        }
        found.retain(|(name, _)| !copied.contains(name.as_str()));
        found.sort();
        found.into_iter().map(|(_, path)| path).collect()
    }

    /// What is being received, where that is worth another copy.
    fn part(&self, before: Option<&Part>) -> Option<(PathBuf, Part)> {
        if self.copied_backups().is_empty() {
            return None;
        }
        let streaming = self.directory.join("streaming");
        let parts = catalog::names(&streaming).filter(|name| name.ends_with(".partial"));
        let name = parts.max()?;
        let path = streaming.join(&name);
        let written = fs::metadata(&path).ok()?.modified().ok()?;
        let is_due = before.is_none_or(|before| {
            (&before.name, before.written) != (&name, written)
                && before.copied.elapsed() >= PART_EVERY
        });
        is_due.then(|| (path, Part { name, written, copied: Instant::now() }))
    }
}

/// A history, or a file of WAL that does not end before `from`.
fn is_needed(name: &str, from: Lsn, segment_bytes: u64) -> bool {
    let whole = name.strip_suffix(".partial").unwrap_or(name);
    super::archive::is_wal_name(whole)
        && end_of_wal_file(whole, segment_bytes).is_none_or(|(_, end)| end > from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(begin: &str) -> String {
        format!(
            "begin_xlog={begin}\nend_xlog=0/9000000\nend_time=2026-11-21 05:15:59+00:00\nstatus=DONE\n\
             systemid=7\ntimeline=1\nversion=170012\ntablespaces=None\nxlog_segment_size=16777216\n"
        )
    }

    #[test]
    fn what_the_first_copied_backup_needs_waits_until_it_is_noted() {
        let directory = std::env::temp_dir().join(format!("pgherd-copies-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let write = |path: &str, text: &str| {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (id, begin) in [("1", "0/3000028"), ("2", "0/5000028"), ("3", "0/7000028")] {
            write(&format!("meta/{id}-backup.info"), &info(begin));
        }
        for number in 4..=7 {
            write(&format!("wals/0000000100000000/00000001000000000000000{number}"), "");
        }
        write("wals/0000000100000000/000000010000000000000008.partial", "");
        write("wals/00000002.history", "");
        write("wals/xlog.db", "");
        write("streaming/000000020000000000000008.partial", "");
        let cloud = CloudSettings { url: "s3://bucket".to_owned(), endpoint: None, keys: None };
        let copier = Copier {
            cloud,
            retention: "REDUNDANCY 3".to_owned(),
            account: Account::current(),
            server: "pgherd".to_owned(),
            directory: directory.clone(),
        };
        let next = |copier: &Copier| copier.next_backup().map(|backup| backup.id);
        assert_eq!(next(&copier).as_deref(), Some("3"), "the newest");
        assert!(copier.waiting_wal().is_empty() && copier.part(None).is_none(), "of no use yet");

        write(".pgherd-copies/place", &copier.note_of_place());
        copier.note(BACKUPS, "2 0/5000028 2026-11-21 05:15:59+00:00").unwrap();
        let names = |copier: &Copier| {
            let waiting = copier.waiting_wal().into_iter();
            waiting
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let (five, six) = ("000000010000000000000005", "000000010000000000000006");
        let (seven, part) = ("000000010000000000000007", "000000010000000000000008.partial");
        assert_eq!(names(&copier), [five, six, seven, part, "00000002.history"]);
        copier.note(WALS, six).unwrap();
        copier.note(WALS, part).unwrap();
        assert_eq!(names(&copier), [five, seven, "00000002.history"]);
        assert_eq!(copier.look().wal_waiting, 3);
        assert_eq!(next(&copier).as_deref(), Some("3"));
        copier.note(BACKUPS, "3 0/7000028 2026-11-21 06:15:59+00:00").unwrap();
        assert_eq!(next(&copier), None, "one from before the first copy is of no more use");
        assert_eq!(copier.look().newest.map(|(id, _)| id).as_deref(), Some("3"));
        let (_, now) = copier.part(None).unwrap();
        assert!(copier.part(Some(&now)).is_none(), "nothing has come since");

        let elsewhere = CloudSettings { url: "s3://other".to_owned(), ..copier.cloud.clone() };
        let elsewhere = Copier { cloud: elsewhere, ..copier };
        assert_eq!(next(&elsewhere).as_deref(), Some("3"), "nothing is there");
        assert!(elsewhere.waiting_wal().is_empty());
        fs::remove_dir_all(&directory).unwrap();
    }
}
