//! What there is to restore from.

use super::{Asking, Bearings};
use crate::barman;
use crate::cluster::{Address, Moment};
use crate::members::{self, Memory};
use crate::scenario::{DataDirectory, Kept, KeptBy};
use crate::settings::{CloudSettings, RestoreSettings, RestoreSource, Settings};
use crate::system::account::Account;
use crate::system::download;
use crate::system::error::chain;
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::timeout;

/// A host that is gone holds up nobody who asks the others, and waits for it.
const SAID_WITHIN: Duration = Duration::from_secs(2);

/// Where that is asked for and there is room for it: this node's barman's, or, where that has none, what the
/// other members have.
pub(super) async fn for_a_start(
    settings: &Settings,
    bearings: &Bearings,
    data_directory: &DataDirectory,
    everybody: &[(Address, bool)],
    asking: Asking<'_>,
) -> Kept {
    let is_empty = matches!(data_directory, DataDirectory::Empty | DataDirectory::Unfinished);
    let Some(asked) = settings.restore.as_ref().filter(|_| is_empty) else {
        return Kept::default();
    };
    let mut kept = kept_here(settings, asked, &bearings.barman).await;
    if kept.archives.iter().any(|(_, archive)| !archive.backups.is_empty()) {
        kept.asked = true;
        return kept;
    }
    if let Asking::Nobody = asking {
        return kept;
    }
    let nodes = match &asked.source {
        Some(RestoreSource::Cloud(cloud)) => {
            return kept_in(kept, cloud, &asked.cluster, &bearings.postgres).await;
        }
        Some(RestoreSource::Node(host, port)) => vec![(host.clone(), *port)],
        None => http_ports(settings, everybody),
    };
    kept_there(kept, settings, asked, nodes).await
}

/// The same for a cluster that runs: what any member has.
pub async fn kept_anywhere(
    settings: &Settings,
    bearings: &Bearings,
    asked: &RestoreSettings,
) -> Kept {
    let everybody =
        members::everybody(settings, &Memory::read(&bearings.layout), &bearings.address);
    let here = kept_here(settings, asked, &bearings.barman).await;
    kept_there(here, settings, asked, http_ports(settings, &everybody)).await
}

fn http_ports(settings: &Settings, everybody: &[(Address, bool)]) -> Vec<(String, u16)> {
    let port = settings.herd.http_port;
    everybody.iter().map(|(address, _)| (address.host.clone(), port)).collect()
}

async fn kept_here(settings: &Settings, asked: &RestoreSettings, barman: &Account) -> Kept {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    let mut kept = Kept { now: Moment::from_seconds(now.as_secs() + 1), ..Kept::default() };
    if settings.herd.keeps_backups() && asked.source.is_none() {
        // On a thread of its own: a disk with years of WAL on it takes its time, and a lease is renewed meanwhile.
        let (settings, asked, barman) = (settings.clone(), asked.clone(), barman.clone());
        let look = move || barman::archives(&settings, &asked.cluster, &barman);
        let here = tokio::task::spawn_blocking(look).await.expect("it does not panic");
        kept.archives = here.into_iter().map(|archive| (KeptBy::Here, archive)).collect();
    }
    kept
}

async fn kept_in(mut kept: Kept, cloud: &CloudSettings, cluster: &str, account: &Account) -> Kept {
    match barman::archives_in(cloud, cluster, account).await {
        Ok(archives) => {
            let at = |archive| (KeptBy::Cloud(cloud.url.clone()), archive);
            kept.archives.extend(archives.into_iter().map(at));
        }
        Err(error) => kept.unclear.push(format!("{} ({})", cloud.url, chain(&error))),
    }
    kept.asked = true;
    kept
}

async fn kept_there(
    mut kept: Kept,
    settings: &Settings,
    asked: &RestoreSettings,
    nodes: Vec<(String, u16)>,
) -> Kept {
    let ask = async |(host, port): (String, u16)| {
        let node = download::Node { host: &host, port, tls: settings.herd.tls_files() };
        let said = barman::archives_at(node, &asked.token, &asked.cluster);
        let said = timeout(SAID_WITHIN, said).await;
        ((host, port), said)
    };
    for ((host, port), said) in join_all(nodes.into_iter().map(ask)).await {
        match said {
            Ok(Ok(archives)) => {
                let at = |archive| (KeptBy::Node(host.clone(), port), archive);
                kept.archives.extend(archives.into_iter().map(at));
            }
            Ok(Err(error)) => kept.unclear.push(format!("{host}:{port} ({error})")),
            Err(_) => kept.unclear.push(format!("{host}:{port} (no answer in time)")),
        }
    }
    kept.asked = true;
    kept
}
