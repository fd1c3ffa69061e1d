//! Which backups barman has, from its files and not from `barman list-backup`: this is asked every
//! minute, and Python takes half a second to start.

use super::archive;
use crate::cluster::{Archive, Backup, History, Lsn, SystemId, Timeline, end_of_wal_file};
use flate2::read::MultiGzDecoder;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Of a backup, in its `backup.info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is complete.
    Done,
    /// Its files are there.
    WaitingForWals,
    /// It came to nothing, or cannot be completed.
    Failed,
    /// Its files are being copied, or barman was killed while they were.
    Begun,
}

/// By id, with the time when barman last wrote about it.
pub(super) fn backups(directory: &Path) -> BTreeMap<String, (Status, SystemTime)> {
    let look = |(id, path): (String, PathBuf)| {
        let info = fs::read_to_string(&path).ok()?;
        let status = match value(&info, "status")? {
            "DONE" => Status::Done,
            "WAITING_FOR_WALS" if torn(&info).is_none() => Status::WaitingForWals,
            "WAITING_FOR_WALS" | "FAILED" => Status::Failed,
            "EMPTY" | "STARTED" => Status::Begun,
            _ => return None,
        };
        Some((id, (status, fs::metadata(&path).and_then(|meta| meta.modified()).ok()?)))
    };
    infos(directory).filter_map(look).collect()
}

/// Each backup's id and its `backup.info`: `meta/ID-backup.info` since 3.13, `base/ID/backup.info`
/// before.
fn infos(directory: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let list = |name: &str| {
        let entries = fs::read_dir(directory.join(name)).into_iter().flatten();
        entries
            .flatten()
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
    };
    let base = list("base").map(|(id, path)| (id, path.join("backup.info")));
    let meta = list("meta")
        .filter_map(|(name, path)| Some((name.strip_suffix("-backup.info")?.to_owned(), path)));
    base.chain(meta)
}

/// What `backup.info` says of a backup.
pub(super) fn info(directory: &Path, id: &str) -> Option<String> {
    infos(directory)
        .filter(|(found, _)| found == id)
        .find_map(|(_, path)| fs::read_to_string(path).ok())
}

/// Where that stands.
pub(super) fn info_path(directory: &Path, id: &str) -> Option<PathBuf> {
    let found = infos(directory).filter(|(found, _)| found == id).map(|(_, path)| path);
    found.into_iter().find(|path| path.is_file())
}

/// A line `key=value` of a `backup.info`.
pub(super) fn value<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

/// On which timelines it began and ended, where these are two: another node became primary in between, and
/// barman can never complete it.
pub(super) fn torn(info: &str) -> Option<(Timeline, Timeline)> {
    let timeline = |key| {
        let number = value(info, key)?.get(..8)?;
        u32::from_str_radix(number, 16).ok().map(Timeline)
    };
    let (begin, end) = (timeline("begin_wal")?, timeline("end_wal")?);
    (begin != end).then_some((begin, end))
}

/// Where the base backup's files go that is being taken, if one is: its `backup.info` says neither that it
/// is done nor that it failed.
pub(super) fn running(directory: &Path) -> Option<PathBuf> {
    let (id, path) = infos(directory).max()?;
    let info = fs::read_to_string(path).ok()?;
    let is_running = matches!(value(&info, "status"), Some("EMPTY" | "STARTED"));
    is_running.then(|| directory.join("base").join(id).join("data"))
}

/// Postgres' own, unless a cluster was made with another.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Of a WAL file of the cluster, as the newest of these `backup.info`s has it.
fn newest_segment_bytes<'a>(infos: impl DoubleEndedIterator<Item = &'a str>) -> u64 {
    let mut said = infos.rev().filter_map(|info| value(info, "xlog_segment_size")?.parse().ok());
    said.find(|bytes: &u64| bytes.is_power_of_two()).unwrap_or(SEGMENT_BYTES)
}

/// The size of a WAL file, as the backup of that id has it.
pub(super) fn segment_bytes_of(directory: &Path, id: &str) -> u64 {
    newest_segment_bytes(info(directory, id).as_deref().into_iter())
}

/// The size of a WAL file, as the newest backup has it that says so.
pub(super) fn segment_bytes(directory: &Path) -> u64 {
    let infos: Vec<_> = backups(directory).keys().filter_map(|id| info(directory, id)).collect();
    newest_segment_bytes(infos.iter().map(String::as_str))
}

/// What stands in a file of the archive, which barman may keep compressed, small as it is: `BARMAN_COMPRESSION`
/// is for histories, too (3.4 and 3.13).
fn text_as_written(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path)?;
    let mut text = String::new();
    match archive::is_gzip(&bytes) {
        true => MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text)?,
        false => bytes.as_slice().read_to_string(&mut text)?,
    };
    Ok(text)
}

/// What barman keeps in `directory`, a cluster's own. Oldest backup first; only those that are complete.
pub(super) fn archive(directory: &Path) -> Archive {
    let done = backups(directory).into_iter().filter(|(_, (status, _))| *status == Status::Done);
    let infos = done.filter_map(|(id, _)| Some((info(directory, &id)?, id)));
    let infos: Vec<_> = infos.collect();
    let segment_bytes = newest_segment_bytes(infos.iter().map(|(info, _)| info.as_str()));
    let found = infos.into_iter().filter_map(|(info, id)| backup(directory, id, &info)).collect();
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut archive = Archive { name, backups: found, histories: Vec::new(), ends: Vec::new() };
    let mut ends: BTreeMap<Timeline, Lsn> = BTreeMap::new();
    let (wals, streaming) = (directory.join("wals"), directory.join("streaming"));
    let aside = directory.join(super::left_behind::DIRECTORY);
    let last_of = |directory: &Path| names(directory).filter(|name| name.len() >= 24).max();
    // A directory for each 4 GB of a timeline: its last file is all that counts.
    let kept = names(&wals).filter(|name| name.len() == 16);
    let kept = kept.filter_map(|hundred| last_of(&wals.join(hundred)));
    for name in kept.chain(names(&streaming)).chain(names(&aside)) {
        let whole = name.strip_suffix(".partial").unwrap_or(&name);
        if let Some((timeline, end)) = end_of_wal_file(whole, segment_bytes) {
            let known = ends.entry(timeline).or_default();
            *known = end.max(*known);
        }
    }
    archive.ends = ends.into_iter().collect();
    for place in [&wals, &streaming] {
        for name in names(place) {
            let Some(number) = name.strip_suffix(".history") else { continue };
            let timeline = u32::from_str_radix(number, 16).ok().map(Timeline);
            let text = text_as_written(&place.join(&name)).ok();
            let history = timeline.zip(text).and_then(|(one, text)| History::parse(one, &text));
            let is_new = |one: &History| !archive.histories.iter().any(|known| known == one);
            if let Some(history) = history.filter(is_new) {
                archive.histories.push(history);
            }
        }
    }
    archive
}

fn backup(directory: &Path, id: String, info: &str) -> Option<Backup> {
    let value = |key| value(info, key).filter(|value| *value != "None");
    let number = |key| value(key).and_then(|value| value.parse::<u64>().ok());
    let data = directory.join("base").join(&id).join("data");
    let unfit = match (value("tablespaces"), value("parent_backup_id")) {
        (Some(list), _) if list != "[]" => Some("has tablespaces"),
        (_, Some(_)) => Some("is incremental"),
        _ if !super::archive::is_plain_backup(&data) => Some("is not a plain copy"),
        _ => None,
    };
    Some(Backup {
        name: value("backup_name").map(str::to_owned),
        system: SystemId(number("systemid")?),
        timeline: Timeline(value("timeline")?.parse().ok()?),
        begin: value("begin_xlog")?.parse().ok()?,
        end: value("end_xlog")?.parse().ok()?,
        ended: value("end_time")?.parse().ok()?,
        bytes: number("size").unwrap_or_default(),
        // 170005, and 90624 for those that nobody has any more.
        major: u32::try_from(number("version")? / 10_000).ok()?,
        unfit: unfit.map(str::to_owned),
        verified: super::verify::noted(directory, &id),
        id,
    })
}

pub(super) fn names(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "backup_name=None\nbegin_xlog=0/3000028\nend_xlog=0/4000000\n\
        end_time=2026-11-21 05:15:59.015472+00:00\nsize=31422577\nstatus=DONE\n\
        systemid=7710489154689290258\ntablespaces=None\ntimeline=1\nversion=170012\n\
        xlog_segment_size=16777216\nparent_backup_id=None\n";

    #[test]
    fn an_archive_is_read_as_barman_writes_it() {
        let directory = std::env::temp_dir().join(format!("pgherd-catalog-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let write = |path: &str, text: &str| {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("meta/20261121T051558-backup.info", INFO);
        write("meta/20261121T061558-backup.info", &INFO.replace("DONE", "WAITING_FOR_WALS"));
        write("base/20261121T051558/data/PG_VERSION", "17\n");
        write("base/20261121T051558/data/backup_label", "");
        write(
            "base/20261120T000000/backup.info",
            &INFO.replace("tablespaces=None", "tablespaces=[('a', 1, '/a')]"),
        );
        write("wals/0000000100000000/000000010000000000000003", "");
        write("wals/0000000100000000/000000010000000000000005", "");
        // As with BARMAN_COMPRESSION=gzip.
        let history = fs::File::create(directory.join("wals/00000002.history")).unwrap();
        let mut history = flate2::write::GzEncoder::new(history, flate2::Compression::default());
        std::io::Write::write_all(&mut history, b"1\t0/6000100\tx\n").unwrap();
        history.finish().unwrap();
        write("streaming/000000020000000000000006.partial", "");
        let archive = archive(&directory);
        let ids: Vec<_> = archive.backups.iter().map(|backup| backup.id.as_str()).collect();
        assert_eq!(ids, ["20261120T000000", "20261121T051558"]);
        assert_eq!(archive.backups[0].unfit.as_deref(), Some("has tablespaces"));
        let newest = &archive.backups[1];
        assert_eq!(
            (newest.unfit.as_deref(), newest.major, newest.end),
            (None, 17, Lsn(0x400_0000))
        );
        assert_eq!(archive.ends, [(Timeline(1), Lsn(0x600_0000)), (Timeline(2), Lsn(0x700_0000))]);
        let way = archive.history(archive.newest_timeline()).unwrap();
        assert!(way.leads_on_from(newest.timeline, newest.end));
        assert_eq!(segment_bytes(&directory), 16 << 20);
        let large = INFO.replace("=16777216", "=67108864");
        write("base/20261122T000000/backup.info", &large);
        assert_eq!(segment_bytes(&directory), 64 << 20, "initdb --wal-segsize=64");
        assert_eq!(segment_bytes_of(&directory, "20261122T000000"), 64 << 20);
        assert_eq!(segment_bytes_of(&directory, "20261121T051558"), 16 << 20);
        fs::remove_dir_all(&directory).unwrap();
    }
}
