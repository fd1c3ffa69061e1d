//! What the variables may hold, one type each. A value arrives trimmed and never empty; an error is
//! the answer to "what may it hold?", and never repeats the value, which may have a secret in it.

mod barman;
mod cloud;
mod directories;
mod etcd;
mod postgres;
mod restore;
mod words;

pub use barman::{Retention, Schedule, WindowUnit};
pub(super) use cloud::{CloudUrl, EndpointUrl};
pub(super) use directories::{BackupDir, ConfigDir};
pub use etcd::EtcdEndpoint;
pub(super) use etcd::{DEFAULT_ETCD_PORT, Endpoints, EtcdPort};
pub(super) use postgres::{
    DatabaseName, HostAuthMethod, InitdbArgs, OomScore, RoleName, TOOL_ROLES,
};
pub use restore::TargetTimeline;
pub(super) use restore::{BackupId, Source, SourceNode, TargetLsn, TargetTime, TransactionId};
pub use words::{Backups, CloneFrom, Failover, LogFormat, NodeKind, WalCompression};
pub(super) use words::{Flag, Synchronous, TargetAction};

use crate::cluster::{Address, NodeId};
use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

type Expected = &'static str;

/// A whole number without a sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `text`, if all of it is fit to stand in it and it is not too long for a Postgres identifier.
fn name(text: String, fits: impl Fn(u8) -> bool, expected: Expected) -> Result<String, Expected> {
    if text.len() <= 63 && text.bytes().all(fits) { Ok(text) } else { Err(expected) }
}

/// The entries of a list, with commas or blanks between them.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty())
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct Port(pub(super) u16);

impl TryFrom<String> for Port {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let port = number(&text).filter(|port| *port > 0);
        port.map(Port).ok_or("a port number from 1 to 65535")
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct AbsolutePath(pub(super) PathBuf);

impl TryFrom<String> for AbsolutePath {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        if text.starts_with('/') && !text.contains(char::is_control) {
            Ok(AbsolutePath(text.into()))
        } else {
            Err("an absolute path, such as /var/lib/postgresql")
        }
    }
}

/// Any text that does not break the line it is written into.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct Line(pub(super) String);

impl TryFrom<String> for Line {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        if text.contains(char::is_control) { Err("text on one line") } else { Ok(Line(text)) }
    }
}

/// It becomes `application_name` too, where Postgres would replace what is not ASCII.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct NodeName(pub(super) String);

impl TryFrom<String> for NodeName {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let expected = "a node name that repmgr and application_name take: 1 to 63 printable ASCII \
                        characters without blanks, quotes and backslashes";
        name(text, |c| c.is_ascii_graphic() && !b"'\"`\\".contains(&c), expected).map(NodeName)
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct Location(pub(super) String);

impl TryFrom<String> for Location {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let expected = "a location for repmgr: 1 to 63 printable ASCII characters without quotes \
                        and backslashes";
        let fits = |c: u8| (c == b' ' || c.is_ascii_graphic()) && !b"'\"`\\".contains(&c);
        name(text, fits, expected).map(Location)
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct ClusterName(pub(super) String);

impl TryFrom<String> for ClusterName {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let expected = "a name that begins with a letter or digit and has only those, `-` and `_` \
                        (it is barman's server name too, so neither `all` nor `barman`)";
        // `all` means every server on barman's command line; `[barman]` is its global section.
        if ["all", "barman"].contains(&text.as_str()) || text.starts_with(['-', '_']) {
            return Err(expected);
        }
        name(text, |c| c.is_ascii_alphanumeric() || b"-_".contains(&c), expected).map(ClusterName)
    }
}

/// A host name or an IP address, without a port.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct Host(pub(super) String);

impl TryFrom<String> for Host {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let has_port = text.contains(':') && text.parse::<Ipv6Addr>().is_err();
        match text.parse::<Address>() {
            Ok(address) if !has_port => Ok(Host(address.host)),
            _ => Err("a host name or an IP address (the port is that of POSTGRES_PORT)"),
        }
    }
}

/// Where a member of the cluster listens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct Member(pub(super) Address);

impl TryFrom<String> for Member {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        text.parse().map(Member).map_err(|_| "an address as host or host:port")
    }
}

/// A list of [`Member`]s.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct Members(pub(super) Vec<Address>);

impl TryFrom<String> for Members {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = entries(&text).enumerate().map(|(index, entry)| {
            entry.parse().map_err(|_| {
                format!(
                    "addresses as host or host:port, with commas or blanks between them, and entry \
                     {} is none",
                    index + 1
                )
            })
        });
        parsed.collect::<Result<_, _>>().map(Members)
    }
}

/// Members that vote.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct Voters(pub(super) Vec<Address>);

impl Voters {
    /// These, if they can vote.
    pub(super) fn of(voters: Vec<Address>) -> Result<Self, String> {
        let same = |one: &Address, other: &Address| one.host == other.host;
        let is_twice = |one: &&Address| voters.iter().filter(|other| same(one, other)).count() > 1;
        if let Some(twice) = voters.iter().find(is_twice) {
            let host = &twice.host;
            return Err(format!("addresses on hosts of their own, and {host} is there twice"));
        }
        match voters.len() {
            3 | 5 => Ok(Voters(voters)),
            count => Err(format!("three or five addresses (a vote needs a majority), not {count}")),
        }
    }
}

impl TryFrom<String> for Voters {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Voters::of(Members::try_from(text)?.0)
    }
}

/// A node id that the operator gave.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct GivenNodeId(pub(super) NodeId);

impl TryFrom<String> for GivenNodeId {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let id = number::<u32>(&text).and_then(|number| NodeId::try_from(number).ok());
        id.map(GivenNodeId).ok_or("a whole number from 1 to 2147483647")
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(super) struct Priority(pub(super) u32);

impl TryFrom<String> for Priority {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        // repmgr's column is a signed integer.
        let priority = number(&text).filter(|priority| i32::try_from(*priority).is_ok());
        priority.map(Priority).ok_or("a whole number from 0 (never promoted) to 2147483647")
    }
}

/// A time span of `MIN` to `MAX` seconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Span<const MIN: u64, const MAX: u64>(pub(super) Duration);

impl<const MIN: u64, const MAX: u64> TryFrom<String> for Span<MIN, MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let limits = Duration::from_secs(MIN)..=Duration::from_secs(MAX);
        let span = duration(&text).filter(|span| limits.contains(span));
        span.map(Span)
            .ok_or_else(|| format!("a duration such as 4s, 500ms or 2min, from {MIN}s to {MAX}s"))
    }
}

impl<const MIN: u64, const MAX: u64> From<Span<MIN, MAX>> for String {
    fn from(Span(span): Span<MIN, MAX>) -> Self {
        match span.subsec_millis() {
            0 => format!("{}s", span.as_secs()),
            _ => format!("{}ms", span.as_millis()),
        }
    }
}

/// Postgres' own units, and docker's `m`. A number without one is refused: Postgres would read
/// it as milliseconds here and as seconds there.
fn duration(text: &str) -> Option<Duration> {
    let (count, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let milliseconds = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "min" | "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number::<u64>(count)?.checked_mul(milliseconds).map(Duration::from_millis)
}
