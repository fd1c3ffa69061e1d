//! barman: its configuration, and what cron has it do.

mod archive;
mod catalog;
mod cloud;
mod copies;
mod fetch;
mod generation;
mod interrupted;
mod jobs;
mod left_behind;
mod look;
mod primary;
mod remote;
mod verify;

pub use archive::{Archive, Backup, NoBackup, Wal};
pub use catalog::Status;
pub use cloud::{CloudError, archives_in, restore_from};
pub use copies::{Copied, Copier, Part};
pub use fetch::{
    FetchError, Keeper, fetch_wal, is_left_behind, write_restore_source, write_sources,
};
pub use generation::{archives, backup_directory, begin_archive};
pub use jobs::{JobError, backup, cron};
pub use look::{Shelf, begin_job, look, take_backup, takes_another};
pub use remote::{CopyError, Offer, Offers, archives_at, backup_at, has_wal, latest_backups};
pub use verify::{VerifyError, to_verify, verify};

use crate::cluster::Address;
use crate::layout::Layout;
use crate::settings::{NodeKind, Secret, Settings, WalCompression};
use crate::system::account::Account;
use crate::system::files::{FileError, ensure_directory, ensure_file, rendered};
use askama::Template;
use std::path::Path;

/// How long the primary may take to answer barman.
const CONNECT_TIMEOUT_S: u32 = 5;

/// Of barman.conf: its receiver's on the primary.
pub const SLOT: &str = "barman";

/// A host that is gone without a word: without these, what waits for it waits for hours, and does not ask
/// for whoever leads by then.
const GONE: &str =
    "keepalives_idle=10 keepalives_interval=5 keepalives_count=3 tcp_user_timeout=30000";

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
    gzip: bool,
}

/// Afterwards barman's configuration and password file are those that the settings ask for, and
/// its directory is there and its own. `own` is this node's address.
pub fn write_conf(
    settings: &Settings,
    layout: &Layout,
    own: &Address,
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
    primary::forget(&backup_directory(settings));
    let primary = where_the_primary_is(settings, own);
    let conninfo = |user: &str| {
        format!(
            "{primary} user={user} dbname=postgres connect_timeout={CONNECT_TIMEOUT_S} {GONE} passfile={}",
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
        gzip: barman.compression == WalCompression::Gzip,
    };
    let text = rendered(&conf);
    ensure_file(&layout.barman_conf, &text, 0o644, account)?;
    Ok(())
}

/// libpq's words for it. A data node's barman looks at the server beside it. Without one, every
/// member is asked in turn, and the one that takes writes is meant: barman follows the primary by
/// itself, whoever that becomes (tried with barman 3.4 and 3.13).
fn where_the_primary_is(settings: &Settings, own: &Address) -> String {
    match settings.herd.kind {
        NodeKind::Data | NodeKind::Witness => format!("host={} port={}", own.host, own.port),
        NodeKind::Backup => {
            let members = settings.members();
            let (hosts, ports): (Vec<_>, Vec<_>) = members
                .iter()
                .filter(|address| address.host != own.host)
                .map(|address| (address.host.clone(), address.port.to_string()))
                .unzip();
            let (hosts, ports) = (hosts.join(","), ports.join(","));
            format!("host={hosts} port={ports} target_session_attrs=read-write")
        }
    }
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
