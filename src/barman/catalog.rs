//! Which backups barman has, from its files and not from `barman list-backup`: this is asked every
//! minute, and Python takes half a second to start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Of a backup, in its `backup.info`. The others (EMPTY, STARTED, SYNCING) decide nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Done,
    WaitingForWals,
    Failed,
}

/// By id, with the time when barman last wrote about it.
pub(super) fn backups(directory: &Path) -> BTreeMap<String, (Status, SystemTime)> {
    let look = |(id, path): (String, PathBuf)| {
        let info = fs::read_to_string(&path).ok()?;
        let status = match value(&info, "status")? {
            "DONE" => Status::Done,
            "WAITING_FOR_WALS" => Status::WaitingForWals,
            "FAILED" => Status::Failed,
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

/// A line `key=value` of a `backup.info`.
pub(super) fn value<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}
