//! What the `RESTORE_*` variables may hold: barman's backup ids, and what the server's
//! `recovery_target_*` parameters take.

use super::{Expected, number};
use crate::cluster::Lsn;
use serde::{Deserialize, Serialize};

/// `RESTORE_FROM`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct BackupId(String);

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

/// `RESTORE_TARGET_LSN`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct TargetLsn(Lsn);

impl TryFrom<String> for TargetLsn {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        text.parse().map(TargetLsn).map_err(|_| "a log sequence number, such as 16/B374D848")
    }
}

/// `RESTORE_TARGET_XID`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct TransactionId(u64);

impl TryFrom<String> for TransactionId {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        number(&text).map(TransactionId).ok_or("a transaction id: a whole number")
    }
}

/// `RESTORE_TARGET_TIMELINE`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct TargetTimeline(String);

impl TargetTimeline {
    pub(in crate::settings) fn latest() -> Self {
        TargetTimeline("latest".to_owned())
    }
}

impl TryFrom<String> for TargetTimeline {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let text = text.to_ascii_lowercase();
        let number = match text.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
            _ => number(&text),
        };
        match ["latest", "current"].contains(&text.as_str()) || number.is_some_and(|n| n > 0) {
            true => Ok(TargetTimeline(text)),
            false => Err("latest, current or the number of a timeline"),
        }
    }
}
