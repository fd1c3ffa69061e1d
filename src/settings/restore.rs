//! What the operator asks for with `RESTORE_*`, all of it together.

use super::input::Input;
use super::values::{TargetAction, TargetTimeline};
use super::{Problem, Secret};
use crate::cluster::{Lsn, Moment};
use serde::Serialize;
use std::fmt;

/// What an empty data directory gets instead of a new cluster.
#[derive(Clone, Debug)]
pub struct RestoreSettings {
    /// `RESTORE_FROM`.
    pub from: RestoreFrom,
    /// How far its WAL is replayed: to its end without one. `RESTORE_TARGET_TIME`, `_LSN`, `_NAME`, `_XID`.
    pub target: Option<RestoreTarget>,
    /// A person looks at what was restored before it takes writes. `RESTORE_TARGET_ACTION`.
    pub pauses: bool,
    /// `RESTORE_TARGET_TIMELINE`.
    pub timeline: TargetTimeline,
    /// Whose backups: a name of barman's. `RESTORE_CLUSTER`, else `PGHERD_CLUSTER`.
    pub cluster: String,
    /// A node that keeps them, and its HTTP port. `RESTORE_SOURCE`; else this node's own barman, and
    /// the members.
    pub source: Option<(String, u16)>,
    /// What that node is shown. `RESTORE_TOKEN`, else `PGHERD_CONTROL_TOKEN`.
    pub token: Secret,
}

/// Which backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreFrom {
    /// The newest that serves the target.
    Latest,
    /// This one, by its id or name.
    Backup(String),
}

/// Up to where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RestoreTarget {
    /// All that was committed until then.
    Time(Moment),
    /// All that stands before this in the WAL.
    Lsn(Lsn),
    /// `pg_create_restore_point`.
    Name(String),
    /// All that was committed before this transaction, and this one.
    Xid(u64),
}

impl RestoreTarget {
    /// The parameter of Postgres' that says so, and its value.
    pub fn parameter(&self) -> (&'static str, String) {
        match self {
            RestoreTarget::Time(moment) => ("recovery_target_time", moment.to_string()),
            RestoreTarget::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string()),
            RestoreTarget::Name(name) => ("recovery_target_name", name.clone()),
            RestoreTarget::Xid(xid) => ("recovery_target_xid", xid.to_string()),
        }
    }
}

impl fmt::Display for RestoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreTarget::Time(moment) => moment.fmt(f),
            RestoreTarget::Lsn(lsn) => lsn.fmt(f),
            RestoreTarget::Name(name) => write!(f, "restore point {name}"),
            RestoreTarget::Xid(xid) => write!(f, "transaction {xid}"),
        }
    }
}

fn targets(input: &Input) -> Vec<(&'static str, RestoreTarget)> {
    let time = input.restore_target_time.map(|time| RestoreTarget::Time(time.0));
    let lsn = input.restore_target_lsn.map(|lsn| RestoreTarget::Lsn(lsn.0));
    let name = input.restore_target_name.clone().map(|name| RestoreTarget::Name(name.0));
    let xid = input.restore_target_xid.map(|xid| RestoreTarget::Xid(xid.0));
    [
        ("RESTORE_TARGET_TIME", time),
        ("RESTORE_TARGET_LSN", lsn),
        ("RESTORE_TARGET_NAME", name),
        ("RESTORE_TARGET_XID", xid),
    ]
    .into_iter()
    .filter_map(|(variable, target)| Some((variable, target?)))
    .collect()
}

/// What does not go together, as far as the variables could be read.
pub(super) fn problems(input: &Input, unread: &[Problem]) -> Vec<Problem> {
    let targets = targets(input);
    if let [(one, _), (other, _), ..] = targets.as_slice() {
        let message = format!("and {other} are both set. Give one target only.");
        return vec![Problem::new(one, message)];
    }
    let is_unread = unread.iter().any(|problem| problem.variable.starts_with("RESTORE_TARGET_"));
    if let (TargetAction::Pause, true, false) =
        (input.restore_target_action, targets.is_empty(), is_unread)
    {
        let message = "is pause, and no target says where. Set RESTORE_TARGET_TIME, _LSN, _NAME or \
                       _XID, or leave it out.";
        return vec![Problem::new("RESTORE_TARGET_ACTION", message)];
    }
    Vec::new()
}

/// A target alone restores nothing, and a new cluster may not be what was meant.
pub(super) fn warning(input: &Input) -> Option<String> {
    let targets = targets(input);
    let (variable, _) = targets.first().filter(|_| input.restore_from.is_none())?;
    Some(format!("{variable} has no effect without RESTORE_FROM (latest, or the id of a backup)"))
}

pub(super) fn meant(input: &mut Input, control_token: &Secret) -> Option<RestoreSettings> {
    let from = input.restore_from.take()?.0;
    let source = input.restore_source.take();
    Some(RestoreSettings {
        from: match from.eq_ignore_ascii_case("latest") {
            true => RestoreFrom::Latest,
            false => RestoreFrom::Backup(from),
        },
        target: targets(input).into_iter().next().map(|(_, target)| target),
        pauses: matches!(input.restore_target_action, TargetAction::Pause),
        timeline: input.restore_target_timeline,
        cluster: match input.restore_cluster.take() {
            Some(cluster) => cluster.0,
            None => input.pgherd_cluster.0.clone(),
        },
        source: source.map(|node| (node.host, node.port.unwrap_or(input.pgherd_http_port.0))),
        token: input.restore_token.take().unwrap_or_else(|| control_token.clone()),
    })
}
