//! What barman's tools for S3 are told, and what there is to restore from: `barman-cloud-backup-list`,
//! `barman-cloud-restore`, `barman-cloud-wal-restore`.

use super::generation;
use crate::cluster::{Archive, Backup, History, Moment, SystemId, Timeline};
use crate::settings::{CloudSettings, Secret};
use crate::system::account::Account;
use crate::system::child::{Program, ProgramError};
use crate::system::files::{FileError, acting_as, failed};
use crate::system::nonce::nonce;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Each backup has a small file that is read.
const LIST_AT_MOST: Duration = Duration::from_secs(10 * 60);
/// 20 TB over a slow line.
const RESTORE_AT_MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// 1 GB, the largest there is, over a slow line.
const WAL_AT_MOST: Duration = Duration::from_secs(60 * 60);
/// `barman-cloud-wal-restore` has asked, and there is none.
const NOT_THERE: i32 = 1;

/// Why nothing was copied, or brought back.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// A tool failed.
    #[error(transparent)]
    Tool(#[from] ProgramError),
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody else's are there.
    #[error(
        "{place} has backups of another cluster (system {there}, and this one is {here}): nothing is copied \
         there; give BARMAN_CLOUD_URL another path, or remove what is there"
    )]
    Anothers {
        /// Where.
        place: String,
        /// Whose.
        there: String,
        /// Ours.
        here: SystemId,
    },
    /// It answers with something else than it did.
    #[error("cannot read what barman-cloud-backup-list says of {0}")]
    List(String),
}

/// One of barman's directories in a store, as a `restore_command` reads it from a file of the node's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Place {
    url: String,
    server: String,
    endpoint: Option<String>,
    keys: Option<(String, String)>,
}

impl Place {
    pub(super) fn new(cloud: &CloudSettings, server: &str) -> Self {
        let CloudSettings { url, endpoint, keys } = cloud.clone();
        let keys = keys.map(|(key, secret)| (key, secret.expose().to_owned()));
        Place { url, server: server.to_owned(), endpoint, keys }
    }

    fn words(&self) -> [&str; 2] {
        [&self.url, &self.server]
    }

    /// One of barman's tools, without what it is to do. The keys stand in its environment.
    fn tool(&self, name: &str) -> Program {
        let keys = self.keys.as_ref().map(|(key, secret)| (key.as_str(), secret.as_str()));
        program(name, self.endpoint.as_deref(), keys)
    }

    /// Afterwards the file of WAL or the history of that name is at `path`. `false`: there is none.
    pub(super) async fn fetch(
        &self,
        name: &str,
        path: &Path,
        account: Option<&Account>,
    ) -> Result<bool, ProgramError> {
        // Beside, so that a part of it is nobody's.
        let mut beside = path.as_os_str().to_owned();
        beside.push(".pgherd-part");
        let tool = self.tool("barman-cloud-wal-restore");
        let tool = account.iter().fold(tool, |tool, account| tool.account(account).umask(0o077));
        let tool = tool.args(self.words()).arg(name).arg(&beside);
        let outcome = tool.outcome(WAL_AT_MOST).await?;
        if outcome.status.success() {
            let program = "rename".to_owned();
            return fs::rename(&beside, path)
                .map(|()| true)
                .map_err(|source| ProgramError::Start { program, source });
        }
        let _ = fs::remove_file(&beside); // Mostly there is none.
        let said = String::from_utf8_lossy(&outcome.stderr).lines().map(str::to_owned).collect();
        match outcome.status.code() {
            // Python itself ends so, too, but not without a word.
            Some(NOT_THERE) if outcome.stderr.is_empty() => Ok(false),
            _ => Err(ProgramError::Failed {
                program: "barman-cloud-wal-restore".to_owned(),
                status: outcome.status,
                last_words: said,
            }),
        }
    }
}

/// One of barman's tools for that store, as whom it runs, without what it is to do.
pub(super) fn tool(cloud: &CloudSettings, name: &str) -> Program {
    let keys =
        cloud.keys.as_ref().map(|(key, secret): &(String, Secret)| (key.as_str(), secret.expose()));
    program(name, cloud.endpoint.as_deref(), keys).current_dir("/")
}

fn program(name: &str, endpoint: Option<&str>, keys: Option<(&str, &str)>) -> Program {
    let tool = Program::new(name);
    let tool = match keys {
        Some((key, secret)) => tool
            .env("AWS_ACCESS_KEY_ID", key)
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .env_remove("AWS_SESSION_TOKEN")
            .env_remove("AWS_PROFILE"),
        None => tool,
    };
    match endpoint {
        // Amazon's library adds checksums since 2025 that others refuse.
        Some(endpoint) => tool
            .env("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
            .env("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
            .args(["--endpoint-url", endpoint]),
        None => tool,
    }
}

/// A backup, as `barman-cloud-backup-list` has it.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    backup_id: String,
    backup_name: Option<String>,
    status: Option<String>,
    pub(super) systemid: Option<String>,
    timeline: Option<u32>,
    begin_xlog: Option<String>,
    end_xlog: Option<String>,
    /// `Sat Nov 21 13:03:10 2026`, in the zone of whoever took it.
    end_time: Option<String>,
    /// Since barman 3.13 or so.
    end_time_iso: Option<String>,
    size: Option<u64>,
    version: Option<u32>,
    tablespaces: Option<Vec<serde_json::Value>>,
}

/// What is there of one of barman's directories.
pub(super) async fn list(
    cloud: &CloudSettings,
    server: &str,
    account: &Account,
) -> Result<Vec<Listed>, CloudError> {
    let list = tool(cloud, "barman-cloud-backup-list").account(account);
    let list = list.args(["--format", "json", &cloud.url, server]);
    let said = list.output(LIST_AT_MOST).await?.text();
    listed(&said).ok_or_else(|| CloudError::List(format!("{}/{server}", cloud.url)))
}

fn listed(json: &str) -> Option<Vec<Listed>> {
    #[derive(Deserialize)]
    struct All {
        backups_list: Vec<Listed>,
    }
    let all: All = serde_json::from_str(json.trim()).ok()?;
    Some(all.backups_list)
}

impl Listed {
    fn backup(self) -> Option<Backup> {
        let is_done = self.status.as_deref() == Some("DONE");
        let has_tablespaces = self.tablespaces.is_some_and(|list| !list.is_empty());
        let iso = self.end_time_iso.and_then(|at| at.parse().ok());
        // Its fraction is cut off, and what ends too early here would be taken for what it cannot reach.
        let in_words = || Moment::from_ctime(&self.end_time?).map(|at| Moment(at.0 + 1_000_000));
        is_done.then_some(())?;
        Some(Backup {
            id: self.backup_id,
            name: self.backup_name,
            system: SystemId(self.systemid?.parse().ok()?),
            timeline: Timeline(self.timeline?),
            begin: self.begin_xlog?.parse().ok()?,
            end: self.end_xlog?.parse().ok()?,
            ended: iso.or_else(in_words)?,
            bytes: self.size.unwrap_or_default(),
            major: self.version? / 10_000,
            unfit: has_tablespaces.then(|| "has tablespaces".to_owned()),
            verified: None,
        })
    }
}

/// What there is of the cluster of that name, the youngest directory first. Where the WAL ends only a
/// recovery finds out.
pub async fn archives_in(
    cloud: &CloudSettings,
    cluster: &str,
    account: &Account,
) -> Result<Vec<Archive>, CloudError> {
    // Nobody else can enter it, and nothing stays in it.
    let scratch = std::env::temp_dir().join(format!("pgherd-{}", nonce()));
    let make = || DirBuilder::new().mode(0o700).create(&scratch);
    acting_as(account, make).map_err(failed("create", &scratch))?;
    let found = archives(cloud, cluster, &scratch, account).await;
    let _ = acting_as(account, || fs::remove_dir_all(&scratch)); // It is some hundred bytes.
    found
}

async fn archives(
    cloud: &CloudSettings,
    cluster: &str,
    scratch: &Path,
    account: &Account,
) -> Result<Vec<Archive>, CloudError> {
    let mut found = Vec::new();
    for number in 1.. {
        let name = generation::name(cluster, number);
        let listed = list(cloud, &name, account).await?;
        let backups: Vec<_> = listed.into_iter().filter_map(Listed::backup).collect();
        // A first one may have been removed by hand.
        if backups.is_empty() && number > 1 {
            break;
        }
        let newest = backups.iter().map(|backup| backup.timeline).max();
        let histories = match newest {
            Some(newest) => histories(&Place::new(cloud, &name), newest, scratch, account).await?,
            None => Vec::new(),
        };
        found.push(Archive { name, backups, histories, ends: Vec::new() });
    }
    found.reverse();
    Ok(found)
}

/// Of `from` and of all timelines after it, as Postgres looks for them: up to the first that is not there.
async fn histories(
    place: &Place,
    from: Timeline,
    scratch: &Path,
    account: &Account,
) -> Result<Vec<History>, CloudError> {
    let mut found = Vec::new();
    for number in from.0.. {
        let name = format!("{number:08X}.history");
        let path: PathBuf = scratch.join(format!("pgherd-{name}"));
        let is_there = place.fetch(&name, &path, Some(account)).await?;
        if is_there {
            let text = acting_as(account, || fs::read_to_string(&path));
            let text = text.map_err(failed("read", &path))?;
            let _ = fs::remove_file(&path);
            found.extend(History::parse(Timeline(number), &text));
        } else if number > from.0 {
            break; // The first one has none, and of any other it would be lost.
        }
    }
    Ok(found)
}

/// Afterwards the backup of that id is in `directory`, which was empty, as `account`'s.
pub async fn restore_from(
    cloud: &CloudSettings,
    server: &str,
    id: &str,
    directory: &Path,
    account: &Account,
) -> Result<(), CloudError> {
    let restore = tool(cloud, "barman-cloud-restore").account(account).umask(0o077);
    restore.args([&cloud.url, server, id]).arg(directory).output(RESTORE_AT_MOST).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Lsn;

    const LIST: &str = r#"{"backups_list": [{"backup_label": "x", "backup_name": null,
        "begin_xlog": "0/3000028", "end_xlog": "0/3000158", "end_time": "Sat Nov 21 13:03:10 2026",
        "size": 31422577, "status": "DONE", "systemid": "7710489154689290258", "tablespaces": null,
        "timeline": 1, "version": 150017, "backup_id": "20261121T130307"},
        {"backup_id": "20261121T140000", "status": "FAILED"}]}"#;

    #[test]
    fn a_list_is_read_as_barman_of_either_version_writes_it() {
        let backups: Vec<_> =
            listed(LIST).unwrap().into_iter().filter_map(Listed::backup).collect();
        assert_eq!(backups.len(), 1);
        let Backup { id, major, end, ended, .. } = &backups[0];
        assert_eq!((id.as_str(), *major, *end), ("20261121T130307", 15, Lsn(0x300_0158)));
        assert_eq!(ended.to_string(), "2026-11-21 13:03:11+00:00");
        let iso = LIST.replacen(
            "\"size\"",
            "\"end_time_iso\": \"2026-11-21T14:03:10.25+01:00\", \"size\"",
            1,
        );
        let newer = listed(&iso).unwrap().remove(0).backup().unwrap();
        assert_eq!(newer.ended.to_string(), "2026-11-21 13:03:10.25+00:00");
        assert!(listed("Backup ID").is_none());
    }
}
