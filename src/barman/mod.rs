//! barman: its configuration, and what cron has it do.

use crate::cluster::Address;
use crate::layout::Layout;
use crate::settings::{Secret, Settings};
use crate::system::account::Account;
use crate::system::child::{Program, ProgramError};
use crate::system::files::{FileError, ensure_directory, ensure_file, rendered};
use askama::Template;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::info;

/// Python starts, one look at each server, a few WAL files are moved.
const CRON_AT_MOST: Duration = Duration::from_secs(10 * 60);
/// Lists a directory.
const LIST_AT_MOST: Duration = Duration::from_secs(60);
/// A base backup of a large cluster over a slow network.
const BACKUP_AT_MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long the primary may take to answer barman.
const CONNECT_TIMEOUT_S: u32 = 5;

#[derive(Template)]
#[template(path = "conf/barman.conf", escape = "none")]
struct BarmanConf {
    server: String,
    conninfo: String,
    streaming_conninfo: String,
    backup_directory: String,
    bin_dir: String,
    retention: String,
}

/// Afterwards barman's configuration and password file are those that the settings ask for, and
/// its directory is there and its own.
pub fn write_conf(
    settings: &Settings,
    layout: &Layout,
    primary: &Address,
    account: &Account,
    passfile: impl Fn(&[(&str, &Secret)]) -> String,
) -> Result<(), FileError> {
    let barman = &settings.barman;
    let passwords =
        [("barman", &barman.password), ("barman_streaming", &barman.streaming_password)];
    ensure_file(&layout.barman_passfile, &passfile(&passwords), 0o600, account)?;
    ensure_directory(&barman.backup_dir, 0o700, account)?;
    ensure_directory(&barman.config_dir, 0o1777, account)?;
    let conninfo = |user: &str| {
        format!(
            "host={} port={} user={user} dbname=postgres connect_timeout={CONNECT_TIMEOUT_S} \
             passfile={}",
            primary.host,
            primary.port,
            layout.barman_passfile.display()
        )
    };
    let conf = BarmanConf {
        server: settings.herd.cluster.clone(),
        conninfo: conninfo("barman"),
        streaming_conninfo: conninfo("barman_streaming"),
        backup_directory: backup_directory(settings).display().to_string(),
        bin_dir: layout.bin_dir.display().to_string(),
        retention: barman.retention.to_string(),
    };
    let text = rendered(&conf);
    ensure_file(&layout.barman_conf, &text, 0o644, account)?;
    Ok(())
}

/// Where this cluster's backups and WAL are.
pub fn backup_directory(settings: &Settings) -> PathBuf {
    settings.barman.backup_dir.join(&settings.herd.cluster)
}

/// The system identifier of the cluster whose backups are in `directory`, if barman has noted
/// one (its `identity.json`).
pub fn backups_of(directory: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Identity {
        systemid: Option<String>,
    }
    let text = std::fs::read(directory.join("identity.json")).ok()?;
    serde_json::from_slice::<Identity>(&text).ok()?.systemid
}

/// Each minute: streams WAL, archives it, applies the retention policy. Where there is no backup
/// yet, takes the first: until then nothing could be restored.
pub async fn cron(server: &str) -> Result<(), ProgramError> {
    barman().args(["--quiet", "cron"]).output(CRON_AT_MOST).await?;
    let backups = barman().args(["list-backup", "--minimal", server]).output(LIST_AT_MOST).await?;
    if backups.text().trim().is_empty() {
        info!("there is no backup yet: taking the first");
        // WAL must be kept from here on, whether barman's receiver has connected by now or not.
        // Fails where the slot is there, which is as good.
        let _ = barman().args(["receive-wal", "--create-slot", server]).outcome(LIST_AT_MOST).await;
        backup(server).await?;
    }
    Ok(())
}

/// Takes a base backup and waits until the WAL that it needs is archived.
pub async fn backup(server: &str) -> Result<(), ProgramError> {
    let output = barman()
        .args(["backup", "--wait", "--immediate-checkpoint", server])
        .output(BACKUP_AT_MOST)
        .await?;
    output.text().lines().for_each(|line| info!("{line}"));
    Ok(())
}

fn barman() -> Program {
    Program::new("barman").current_dir("/")
}
