//! Variables that hold one word of a few, in any case.

use super::Expected;
use crate::cluster::SyncMode;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The meaning of the word that `text` is, in any case.
fn word<T: Copy>(text: &str, words: &[(&str, T)], expected: Expected) -> Result<T, Expected> {
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    found.map(|(_, meaning)| *meaning).ok_or(expected)
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct Flag(pub(in crate::settings) bool);

impl TryFrom<String> for Flag {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let words = [
            ("true", true),
            ("yes", true),
            ("on", true),
            ("1", true),
            ("false", false),
            ("no", false),
            ("off", false),
            ("0", false),
        ];
        word(&text, &words, "true or false").map(Flag)
    }
}

/// `PGHERD_LOG_FORMAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all(serialize = "lowercase"))]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// An object a line, for machines.
    Json,
}

impl TryFrom<String> for LogFormat {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        word(&text, &[("text", Self::Text), ("json", Self::Json)], "text or json")
    }
}

/// What a node is for. `PGHERD_ROLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all(serialize = "lowercase"))]
pub enum NodeKind {
    /// It has a Postgres.
    Data,
    /// It keeps the cluster's backups, and has no Postgres.
    Backup,
    /// It has a vote, and nothing else.
    Witness,
}

impl TryFrom<String> for NodeKind {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let words = [("data", Self::Data), ("backup", Self::Backup), ("witness", Self::Witness)];
        word(&text, &words, "data, backup or witness")
    }
}

/// Who keeps the backups of a data node's cluster. `PGHERD_BACKUPS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all(serialize = "lowercase"))]
pub enum Backups {
    /// The node itself.
    Here,
    /// Another one: a node of kind [`NodeKind::Backup`], or the operator's own barman.
    Elsewhere,
}

impl TryFrom<String> for Backups {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let words = [("here", Self::Here), ("elsewhere", Self::Elsewhere)];
        word(&text, &words, "here or elsewhere")
    }
}

/// How barman keeps WAL in its archive. `BARMAN_COMPRESSION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all(serialize = "lowercase"))]
pub enum WalCompression {
    /// As Postgres wrote it.
    None,
    /// Each file by itself.
    Gzip,
}

impl TryFrom<String> for WalCompression {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        word(&text, &[("none", Self::None), ("gzip", Self::Gzip)], "none or gzip")
    }
}

/// What a new standby's data is copied from. `REPMGR_CLONE_FROM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all(serialize = "lowercase"))]
pub enum CloneFrom {
    /// The running primary.
    Primary,
    /// barman's newest base backup where there is one, which spares the primary.
    Barman,
}

impl TryFrom<String> for CloneFrom {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let words = [("primary", Self::Primary), ("barman", Self::Barman)];
        word(&text, &words, "primary or barman")
    }
}

/// Who changes the roles when the primary fails. `PGHERD_FAILOVER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all(serialize = "lowercase"))]
pub enum Failover {
    /// Whom a majority of the voters lets.
    Quorum,
    /// People only.
    Manual,
    /// Two nodes without a third vote.
    Eager,
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failover::Quorum => "quorum",
            Failover::Manual => "manual",
            Failover::Eager => "eager",
        })
    }
}

impl TryFrom<String> for Failover {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let words = [("quorum", Self::Quorum), ("manual", Self::Manual), ("eager", Self::Eager)];
        word(&text, &words, "quorum, manual or eager")
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct Synchronous(pub(in crate::settings) SyncMode);

impl TryFrom<String> for Synchronous {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let words = [SyncMode::Off, SyncMode::Preferred, SyncMode::Required];
        word(&text, &words.map(|mode| (mode.as_str(), mode)), "off, preferred or required")
            .map(Synchronous)
    }
}

/// `RESTORE_TARGET_ACTION`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all(serialize = "lowercase"))]
pub(in crate::settings) enum TargetAction {
    Promote,
    Pause,
}

impl TryFrom<String> for TargetAction {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let words = [("promote", Self::Promote), ("pause", Self::Pause)];
        word(&text, &words, "promote or pause")
    }
}
