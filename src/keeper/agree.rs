//! Going on while etcd is silent: everybody who could take the lead is asked, and agrees not to.

use crate::cluster::Address;
use crate::settings::{Settings, proof};
use crate::system::download::{self, Said};
use crate::system::nonce::nonce;
use futures_util::future::join_all;
use std::time::Duration;

/// What a member is asked to agree to, as it stands in a request to its HTTP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The life of the holder that asks.
    pub instance: String,
    /// Of its taking.
    pub epoch: u64,
    /// For this question only.
    pub nonce: String,
    /// Shows that a member asks.
    pub mac: String,
}

impl Agreement {
    /// From the query of the request.
    pub fn parse(query: &str) -> Option<Self> {
        let value = |name: &str| {
            query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        Some(Agreement {
            instance: value("instance")?.to_owned(),
            epoch: value("epoch")?.parse().ok()?,
            nonce: value("nonce")?.to_owned(),
            mac: value("mac")?.to_owned(),
        })
    }

    /// Only who has the control token can have asked.
    pub fn is_proved(&self, settings: &Settings) -> bool {
        self.mac == mac(settings, &self.nonce, &self.instance, self.epoch)
    }
}

/// The answer of a member that agrees.
pub const AGREED: &str = "agreed";

fn mac(settings: &Settings, nonce: &str, instance: &str, epoch: u64) -> String {
    let text = format!("agree {} {instance} {epoch}", settings.herd.cluster);
    proof(&settings.herd.control_token, nonce, &text)
}

/// What is asked of a member, and the nonce that its answer must be about.
pub(super) fn agreement_path(settings: &Settings, instance: &str, epoch: u64) -> (String, String) {
    let nonce = nonce();
    let mac = mac(settings, &nonce, instance, epoch);
    let path = format!("/lease/agree?instance={instance}&epoch={epoch}&nonce={nonce}&mac={mac}");
    (path, nonce)
}

/// Asks each of `members` at the same time. `Err` names who did not agree.
pub(super) async fn ask_all(
    settings: &Settings,
    members: &[(String, Address)],
    instance: &str,
    epoch: u64,
    at_most: Duration,
) -> Result<(), Vec<String>> {
    let asked = members.iter().map(async |(name, address)| {
        let (path, nonce) = agreement_path(settings, instance, epoch);
        let node = download::Node {
            host: &address.host,
            port: settings.herd.http_port,
            tls: settings.herd.tls_files(),
        };
        let said = download::ask_soon("POST", node, &path, None, at_most).await;
        let right = proof(&settings.herd.control_token, &nonce, AGREED);
        let agrees = matches!(
            said,
            Ok(Said { code: 200, proof: Some(shown), .. }) if shown == right
        );
        (!agrees).then(|| name.clone())
    });
    let missing: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}
