//! `pgherd status` for people.

use super::{NodeStatus, RunningScenario, Snapshot};
use crate::cluster::{BackupsSeen, CopiesSeen};
use crate::control::backups::span;
use std::fmt;

impl Snapshot {
    /// `node2 leads (epoch 3); failover: quorum; paused`.
    pub(crate) fn who_leads(&self) -> String {
        let epoch = self.epoch.map(|epoch| format!(" (epoch {epoch})")).unwrap_or_default();
        let leads = match (&self.primary, &self.holder) {
            (Some(primary), Some(holder)) if primary != holder => {
                format!("{holder} leads by the record{epoch}, and {primary} takes writes")
            }
            (Some(primary), _) => format!("{primary} leads{epoch}"),
            (None, Some(holder)) if self.promoting => {
                format!("nobody takes writes yet; {holder} is about to{epoch}")
            }
            (None, Some(holder)) => format!("nobody takes writes; {holder} led last{epoch}"),
            (None, None) => "nobody takes writes".to_owned(),
        };
        let paused = if self.paused { "; paused: no roles change by themselves" } else { "" };
        let later = self.scheduled_switchover.as_ref().map(|later| {
            let to = later.to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
            format!("; switchover{to} at {}", later.at)
        });
        format!("{leads}; failover: {}{paused}{}", self.failover, later.unwrap_or_default())
    }
}

impl Snapshot {
    /// `votes: node1, node2, node3`, `lease: 3.2 of 4 s left`.
    fn about_the_lease(&self) -> Vec<String> {
        let voters =
            (!self.voters.is_empty()).then(|| format!("votes: {}", self.voters.join(", ")));
        let lease = self
            .lease
            .as_ref()
            .map(|lease| format!("lease: {:.1} of {} s left", lease.seconds_left, lease.seconds));
        voters.into_iter().chain(lease).collect()
    }
}

impl RunningScenario {
    /// `1.2 of 4.0 GB, 30 %, about 40 s to go`.
    pub(crate) fn bytes(&self) -> Option<String> {
        let (done, total) = (self.bytes_done?, self.bytes_total.filter(|total| *total > 0)?);
        let rest = self.seconds_left.map(|seconds| format!(", about {seconds} s to go"));
        Some(format!(
            "{} of {}, {} %{}",
            bytes_in_words(done),
            bytes_in_words(total),
            (done.min(total) as f64 / total as f64 * 100.0) as u64,
            rest.unwrap_or_default()
        ))
    }
}

/// With three digits at most.
pub(crate) fn bytes_in_words(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 1000.0 {
            let digits = if size < 10.0 && unit != "B" { 1 } else { 0 };
            return format!("{size:.digits$} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.1} TB")
}

/// `backups on node3: 3, the newest of 20261121T030001, 5 h old; ok`.
fn backups_in_words(seen: &BackupsSeen) -> String {
    let BackupsSeen { node, last, age_seconds, count, state, running_bytes, .. } = seen;
    let newest = last.as_ref().zip(*age_seconds);
    let newest = newest.map(|(id, age)| format!(", the newest {id}, {} old", span(age)));
    let running = running_bytes.map(|bytes| format!("; {} of another", bytes_in_words(bytes)));
    let (newest, running) = (newest.unwrap_or_default(), running.unwrap_or_default());
    format!("backups on {node}: {count}{newest}{running}; {state}")
}

/// `copies in s3://bucket/path: the newest 20261121T030001, 5 h old; 2 files of WAL wait`.
fn copies_in_words(seen: &CopiesSeen) -> String {
    let CopiesSeen { url, last, age_seconds, wal_waiting, error, .. } = seen;
    let newest = match last.as_ref().zip(*age_seconds) {
        Some((id, age)) => format!("the newest {id}, {} old", span(age)),
        None => "none yet".to_owned(),
    };
    let waits = match wal_waiting {
        0 => "no WAL waits".to_owned(),
        1 => "1 file of WAL waits".to_owned(),
        count => format!("{count} files of WAL wait"),
    };
    let failed = if error.is_some() { "; failed" } else { "" };
    format!("copies in {url}: {newest}; {waits}{failed}")
}

/// For a person: 80 columns, a row a node.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is {}", self.cluster, self.state)?;
        writeln!(f, "{}", self.who_leads())?;
        let width = |of: fn(&NodeStatus) -> usize, least: usize| {
            self.nodes.iter().map(of).max().unwrap_or_default().max(least)
        };
        let name = width(|node| node.name.len(), 4);
        let address = width(|node| node.address.to_string().len(), 7);
        let state = width(|node| node.state.to_string().len(), 8);
        writeln!(
            f,
            "{:<name$}  {:>2}  {:<address$}  {:<8}  {:<state$}  {:>2}  {:<10}  {:<6}  SYNC",
            "NODE", "ID", "ADDRESS", "ROLE", "STATE", "TL", "LSN", "LAG"
        )?;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let mut nodes: Vec<&NodeStatus> = self.nodes.iter().collect();
        nodes.sort_by_key(|node| (node.id.is_none(), node.id, &node.name));
        for node in nodes {
            writeln!(
                f,
                "{:<name$}  {:>2}  {:<address$}  {:<8}  {:<state$}  {:>2}  {:<10}  {:<6}  {}",
                node.name,
                or_dash(node.id.map(|id| id.to_string())),
                node.address.to_string(),
                or_dash(node.role.map(|role| role.to_string())),
                node.state.to_string(),
                or_dash(node.timeline.map(|timeline| timeline.to_string())),
                or_dash(node.lsn.map(|lsn| lsn.to_string())),
                or_dash(node.lag_bytes.map(bytes_in_words)),
                if node.sync { "yes" } else { "-" },
            )?;
            if let Some(RunningScenario { title, stage, stages, stage_title, .. }) = &node.scenario
            {
                writeln!(f, "  {title}: {stage}/{stages} {stage_title}")?;
            }
            if let Some(done) = node.scenario.as_ref().and_then(RunningScenario::bytes) {
                writeln!(f, "  {done}")?;
            }
            if node.maintenance {
                writeln!(f, "  in maintenance: it is not chosen")?;
            }
            if let Some(reason) = &node.waits_for {
                writeln!(f, "  waits: {reason}")?;
            }
        }
        self.about_the_lease().iter().try_for_each(|line| writeln!(f, "{line}"))?;
        if let Some(backups) = &self.backups {
            writeln!(f, "{}", backups_in_words(backups))?;
            if let Some(copies) = &backups.copies {
                writeln!(f, "{}", copies_in_words(copies))?;
            }
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "! {warning}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{NodeId, NodeState, Timeline};
    use crate::control::snapshot::Lease;
    use crate::control::{ClusterState, NodeRole};
    use std::time::{Duration, Instant};

    fn snapshot() -> Snapshot {
        let row = |name: &str, role, sync| NodeStatus {
            id: Some(NodeId::FIRST),
            role: Some(role),
            state: NodeState::Unreachable,
            timeline: Some(Timeline(12)),
            lsn: Some("2F/D5000148".parse().unwrap()),
            lag_bytes: Some(1 << 29),
            sync,
            ..NodeStatus::unknown(name, format!("{name}:5432").parse().unwrap())
        };
        Snapshot {
            cluster: "pgherd".to_owned(),
            state: ClusterState::Healthy,
            primary: Some("node1".to_owned()),
            timeline: None,
            epoch: Some(3),
            holder: Some("node1".to_owned()),
            promoting: false,
            paused: true,
            scheduled_switchover: None,
            failover: "quorum".to_owned(),
            warnings: Vec::new(),
            nodes: vec![
                row("node1", NodeRole::Primary, false),
                row("node2", NodeRole::Standby, true),
            ],
            backups: None,
            end: None,
            lease: None,
            http_port: 8008,
            tls: false,
            voters: Vec::new(),
            voters_silent: false,
            writes_wait: false,
            default_passwords: 0,
            facts: Default::default(),
            counts: Default::default(),
            lags: Default::default(),
            elsewhere: Default::default(),
            report: None,
            looked: None,
        }
    }

    #[test]
    fn the_table_says_who_leads_and_who_is_synchronous_within_80_columns() {
        let shown = snapshot().to_string();
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        let who = "node1 leads (epoch 3); failover: quorum; paused: no roles change by themselves";
        assert_eq!(shown.lines().nth(1), Some(who));
        let ends: Vec<_> = shown.lines().skip(2).map(|line| line.rsplit("  ").next()).collect();
        assert_eq!(ends, [Some("SYNC"), Some("-"), Some("yes")], "{shown}");
    }

    #[test]
    fn while_nobody_may_write_it_fails_over_and_is_unhealthy_when_nobody_can() {
        let lease = |seconds_left, ago| Lease {
            seconds: 4.0,
            renewed: Instant::now() - Duration::from_secs_f64(ago),
            seconds_left,
        };
        let state = |seen: Snapshot| {
            let now = seen.now();
            (now.state, now.primary.is_some())
        };
        let seen = |lease, paused| Snapshot { lease: Some(lease), paused, ..snapshot() };
        assert_eq!(state(seen(lease(4.0, 3.0), false)), (ClusterState::Healthy, true));
        // Nobody has told this node anything; its clock has.
        assert_eq!(state(seen(lease(4.0, 4.1), false)), (ClusterState::FailingOver, false));
        assert_eq!(state(seen(lease(0.0, 0.1), false)), (ClusterState::FailingOver, false));
        assert_eq!(state(seen(lease(0.0, 0.1), true)), (ClusterState::Unhealthy, false));
        assert_eq!(state(seen(lease(0.0, 40.0), false)), (ClusterState::Unhealthy, false));
        let promoting = Snapshot { promoting: true, ..seen(lease(4.0, 1.0), true) };
        assert_eq!(state(promoting), (ClusterState::FailingOver, false));
        // Whoever leads is gone, and its lease is not over yet.
        let mut gone = seen(lease(4.0, 1.0), false);
        (gone.primary, gone.state) = (None, ClusterState::Unhealthy);
        gone.nodes.reverse();
        assert_eq!(state(gone), (ClusterState::FailingOver, false));
        // Members agree that it goes on.
        let silent = Snapshot { voters_silent: true, ..seen(lease(4.0, 9.0), false) };
        assert_eq!(state(silent), (ClusterState::Healthy, true));
    }

    #[test]
    fn without_a_primary_the_record_says_who_led_last() {
        let nobody = Snapshot { primary: None, paused: false, ..snapshot() };
        assert_eq!(
            nobody.who_leads(),
            "nobody takes writes; node1 led last (epoch 3); failover: quorum"
        );
        let manual = Snapshot { epoch: None, holder: None, paused: false, ..snapshot() };
        assert_eq!(manual.who_leads(), "node1 leads; failover: quorum");
    }
}
