//! What the `RESTORE_*` variables may hold: barman's backup ids, and what the server's
//! `recovery_target_*` parameters take.

use super::cloud::CloudUrl;
use super::{Expected, number};
use crate::cluster::{Lsn, Moment, Timeline};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `RESTORE_FROM`: a word on barman's command line, and a directory's name.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct BackupId(pub(in crate::settings) String);

impl Default for BackupId {
    fn default() -> Self {
        BackupId("latest".to_owned())
    }
}

impl TryFrom<String> for BackupId {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        match text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits) {
            true => Ok(BackupId(text)),
            false => Err("latest, or the id or name of a backup, such as 20261120T030001"),
        }
    }
}

/// `RESTORE_TARGET_TIME`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct TargetTime(pub(in crate::settings) Moment);

impl TryFrom<String> for TargetTime {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        text.parse().map(TargetTime).map_err(|_| {
            "a date and a time, such as 2026-11-20 03:00:00+01:00 (without an offset it is UTC)"
        })
    }
}

/// `RESTORE_TARGET_LSN`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct TargetLsn(pub(in crate::settings) Lsn);

impl TryFrom<String> for TargetLsn {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        text.parse().map(TargetLsn).map_err(|_| "a log sequence number, such as 16/B374D848")
    }
}

/// `RESTORE_TARGET_XID`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct TransactionId(pub(in crate::settings) u64);

impl TryFrom<String> for TransactionId {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        number(&text).map(TransactionId).ok_or("a transaction id: a whole number")
    }
}

/// `RESTORE_TARGET_TIMELINE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum TargetTimeline {
    /// The newest that the archive knows of.
    Latest,
    /// That on which the backup was taken.
    Current,
    /// This one.
    Number(Timeline),
}

impl TryFrom<String> for TargetTimeline {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let text = text.to_ascii_lowercase();
        let number = match text.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
            _ => number(&text),
        };
        match (text.as_str(), number) {
            ("latest", _) => Ok(TargetTimeline::Latest),
            ("current", _) => Ok(TargetTimeline::Current),
            (_, Some(number)) if number > 0 => Ok(TargetTimeline::Number(Timeline(number))),
            _ => Err("latest, current or the number of a timeline"),
        }
    }
}

impl fmt::Display for TargetTimeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetTimeline::Latest => f.write_str("latest"),
            TargetTimeline::Current => f.write_str("current"),
            TargetTimeline::Number(timeline) => timeline.fmt(f),
        }
    }
}

impl From<TargetTimeline> for String {
    fn from(timeline: TargetTimeline) -> Self {
        timeline.to_string()
    }
}

/// `RESTORE_SOURCE`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(in crate::settings) enum Source {
    Node(SourceNode),
    Cloud(CloudUrl),
}

impl TryFrom<String> for Source {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let expected =
            "the address of a node that keeps backups, host or host:port, or s3://BUCKET/PATH";
        let source = match text.starts_with("s3://") {
            true => CloudUrl::try_from(text).map(Source::Cloud),
            false => SourceNode::try_from(text).map(Source::Node),
        };
        source.map_err(|_| expected)
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        match source {
            Source::Node(node) => node.into(),
            Source::Cloud(CloudUrl(url)) => url,
        }
    }
}

/// Where a node's HTTP port is; without one, this node's own is meant.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(in crate::settings) struct SourceNode {
    pub(in crate::settings) host: String,
    pub(in crate::settings) port: Option<u16>,
}

impl TryFrom<String> for SourceNode {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let address: crate::cluster::Address = text
            .parse()
            .map_err(|_| "the address of a node that keeps backups, host or host:port")?;
        // An IPv6 address is in brackets where it has a port.
        let has_port = match text.strip_prefix('[') {
            Some(rest) => rest.contains("]:"),
            None => text.matches(':').count() == 1,
        };
        Ok(SourceNode { host: address.host, port: has_port.then_some(address.port) })
    }
}

impl From<SourceNode> for String {
    fn from(source: SourceNode) -> Self {
        match source.port {
            Some(port) => crate::cluster::Address { host: source.host, port }.to_string(),
            None => source.host,
        }
    }
}
