//! barman: its configuration, and what cron has it do.

mod jobs;

pub use jobs::{JobError, backup, cron};

use crate::cluster::Address;
use crate::layout::Layout;
use crate::settings::{Secret, Settings};
use crate::system::account::Account;
use crate::system::files::{FileError, ensure_directory, ensure_file, rendered};
use askama::Template;
use std::path::{Path, PathBuf};

/// How long the primary may take to answer barman.
const CONNECT_TIMEOUT_S: u32 = 5;

#[derive(Template)]
#[template(path = "conf/barman-global.conf", escape = "none")]
struct GlobalConf {
    user: String,
    home: String,
    conf_dir: String,
    log: String,
}

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
    ensure_file(&layout.barman_passfile, passfile(&passwords), 0o600, account)?;
    ensure_directory(&barman.backup_dir, 0o700, account)?;
    ensure_directory(&barman.config_dir, 0o755, account)?;
    let global = GlobalConf {
        user: account.to_string(),
        home: barman.backup_dir.display().to_string(),
        conf_dir: barman.config_dir.display().to_string(),
        log: layout.barman_log_pipe.display().to_string(),
    };
    ensure_file(&layout.barman_global_conf, rendered(&global), 0o644, account)?;
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
