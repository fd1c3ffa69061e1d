//! Where etcd is found, and where it listens.

use super::{Expected, entries, number};
use crate::cluster::Address;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv6Addr;

/// The port of an endpoint that names none: etcd's own default.
pub(in crate::settings) const DEFAULT_ETCD_PORT: u16 = 2379;

/// Where an etcd listens for clients: `https://node1:2379`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct EtcdEndpoint {
    /// It speaks TLS.
    pub tls: bool,
    /// A name or an IP address, without brackets.
    pub host: String,
    /// Its client port.
    pub port: u16,
}

impl fmt::Display for EtcdEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let address = Address { host: self.host.clone(), port: self.port };
        write!(f, "{scheme}://{address}")
    }
}

impl From<EtcdEndpoint> for String {
    fn from(endpoint: EtcdEndpoint) -> Self {
        endpoint.to_string()
    }
}

/// One as written: without a scheme it speaks TLS if files for that are given.
#[derive(Clone, Debug)]
pub(in crate::settings) struct Endpoint {
    tls: Option<bool>,
    address: Address,
}

impl Endpoint {
    fn parse(entry: &str) -> Option<Self> {
        let (tls, rest) = match (entry.strip_prefix("http://"), entry.strip_prefix("https://")) {
            (Some(rest), _) => (Some(false), rest),
            (None, Some(rest)) => (Some(true), rest),
            (None, None) => (None, entry),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let completed = match rest.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{DEFAULT_ETCD_PORT}"),
            Err(_) => format!("{rest}:{DEFAULT_ETCD_PORT}"),
        };
        // What has a port does not parse with a second one.
        let address = completed.parse().or_else(|_| rest.parse()).ok()?;
        Some(Endpoint { tls, address })
    }

    pub(in crate::settings) fn meant(&self, has_tls_files: bool) -> EtcdEndpoint {
        let Address { host, port } = self.address.clone();
        EtcdEndpoint { tls: self.tls.unwrap_or(has_tls_files), host, port }
    }
}

/// Where etcd listens, as written: `http://host:port`, `https://host:port` or `host:port`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "Vec<String>")]
pub(in crate::settings) struct Endpoints(pub(in crate::settings) Vec<Endpoint>);

impl TryFrom<String> for Endpoints {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let parsed: Option<Vec<_>> = entries(&text).map(Endpoint::parse).collect();
        parsed.filter(|endpoints| !endpoints.is_empty()).map(Endpoints).ok_or(
            "etcd's addresses as http://host:port or https://host:port, with commas or blanks \
             between them (name and password go to PGHERD_ETCD_USER and PGHERD_ETCD_PASSWORD)",
        )
    }
}

impl From<Endpoints> for Vec<String> {
    fn from(Endpoints(endpoints): Endpoints) -> Self {
        let shown = |one: &Endpoint| match one.tls {
            Some(tls) => one.meant(tls).to_string(),
            None => one.address.to_string(),
        };
        endpoints.iter().map(shown).collect()
    }
}

/// Of the voters' etcd, which uses the next port too.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct EtcdPort(pub(in crate::settings) u16);

impl TryFrom<String> for EtcdPort {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let port = number(&text).filter(|port| (1..u16::MAX).contains(port));
        port.map(EtcdPort).ok_or("a port number from 1 to 65534 (the next one is used, too)")
    }
}
