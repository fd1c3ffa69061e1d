//! What the operator asks for with `RESTORE_*`, all of it together.

use super::input::Input;
use super::values::{
    BackupId, Line, Source, SourceNode, TargetAction, TargetLsn, TargetTime, TargetTimeline,
    TransactionId,
};
use super::{CloudSettings, Problem, Secret, cloud};
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
    /// Who has them. `RESTORE_SOURCE`; else this node's own barman, and the members.
    pub source: Option<RestoreSource>,
    /// What that node is shown. `RESTORE_TOKEN`, else `PGHERD_CONTROL_TOKEN`.
    pub token: Secret,
}

/// Who has the backups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreSource {
    /// A node that keeps them, and its HTTP port.
    Node(String, u16),
    /// A store of S3's kind; the keys to it are those of `BARMAN_CLOUD_*`.
    Cloud(CloudSettings),
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

impl RestoreSettings {
    /// What a person asks for while the cluster runs, of its own backups. `value` has what was said for each
    /// of `from`, `time`, `lsn`, `name`, `xid`, `timeline` and `action`.
    ///
    /// # Errors
    /// Which of them cannot be used, and what it may be.
    pub fn wished(
        value: impl Fn(&str) -> Option<String>,
        cluster: &str,
        token: &Secret,
    ) -> Result<Self, String> {
        fn read<T: TryFrom<String, Error = &'static str>>(
            name: &str,
            value: Option<String>,
        ) -> Result<Option<T>, String> {
            let read = value.map(T::try_from).transpose();
            read.map_err(|expected| format!("{name}: {expected}"))
        }
        let from: BackupId = read("the backup", value("from"))?.unwrap_or_default();
        let time = read("the target's time", value("time"))?;
        let lsn = read("the target's position", value("lsn"))?;
        let name = read("the target's name", value("name"))?;
        let xid = read("the target's transaction", value("xid"))?;
        let targets: Vec<_> = [
            time.map(|TargetTime(time)| RestoreTarget::Time(time)),
            lsn.map(|TargetLsn(lsn)| RestoreTarget::Lsn(lsn)),
            name.map(|Line(name)| RestoreTarget::Name(name)),
            xid.map(|TransactionId(xid)| RestoreTarget::Xid(xid)),
        ]
        .into_iter()
        .flatten()
        .collect();
        if targets.len() > 1 {
            return Err("there is more than one target: give one".to_owned());
        }
        let pauses = match value("action").as_deref() {
            None | Some("promote") => false,
            Some("pause") if targets.is_empty() => {
                return Err("to pause takes a target that says where".to_owned());
            }
            Some("pause") => true,
            Some(_) => return Err("the target's action: promote or pause".to_owned()),
        };
        let timeline = read("the target's timeline", value("timeline"))?;
        Ok(RestoreSettings {
            from: restore_from(from),
            target: targets.into_iter().next(),
            pauses,
            timeline: timeline.unwrap_or(TargetTimeline::Latest),
            cluster: cluster.to_owned(),
            source: None,
            token: token.clone(),
        })
    }
}

fn restore_from(BackupId(from): BackupId) -> RestoreFrom {
    match from.eq_ignore_ascii_case("latest") {
        true => RestoreFrom::Latest,
        false => RestoreFrom::Backup(from),
    }
}

pub(super) fn meant(input: &mut Input, control_token: &Secret) -> Option<RestoreSettings> {
    let from = input.restore_from.take()?;
    let source = input.restore_source.take();
    Some(RestoreSettings {
        from: restore_from(from),
        target: targets(input).into_iter().next().map(|(_, target)| target),
        pauses: matches!(input.restore_target_action, TargetAction::Pause),
        timeline: input.restore_target_timeline,
        cluster: match input.restore_cluster.take() {
            Some(cluster) => cluster.0,
            None => input.pgherd_cluster.0.clone(),
        },
        source: source.map(|source| match source {
            Source::Node(SourceNode { host, port }) => {
                RestoreSource::Node(host, port.unwrap_or(input.pgherd_http_port.0))
            }
            Source::Cloud(url) => RestoreSource::Cloud(cloud::at(url, input)),
        }),
        token: input.restore_token.take().unwrap_or_else(|| control_token.clone()),
    })
}
