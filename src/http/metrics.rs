//! `GET /metrics`: this node, for Prometheus, in its text format. Each node tells about itself, and
//! what it knows of the cluster's record.

use crate::cluster::{BackupsState, NodeState};
use crate::control::{ClusterState, NodeRole, Snapshot};
use std::fmt::Write;

/// What Prometheus asks to be told (its "Text-based format", 0.0.4).
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const ROLES: [NodeRole; 4] =
    [NodeRole::Primary, NodeRole::Standby, NodeRole::Backup, NodeRole::Witness];
const STATES: [NodeState; 11] = [
    NodeState::Starting,
    NodeState::Cloning,
    NodeState::Running,
    NodeState::CatchingUp,
    NodeState::Rewinding,
    NodeState::Restoring,
    NodeState::Promoting,
    NodeState::Demoting,
    NodeState::Fenced,
    NodeState::Stopped,
    NodeState::Unreachable,
];
const CLUSTER_STATES: [ClusterState; 5] = [
    ClusterState::Provisioning,
    ClusterState::Healthy,
    ClusterState::Degraded,
    ClusterState::FailingOver,
    ClusterState::Unhealthy,
];

/// All of it. `seen` is as of now.
pub fn page(seen: &Snapshot) -> String {
    let Some(own) = seen.nodes.first() else { return String::new() };
    let mut page = Page::of(&seen.cluster, &own.name);
    page.one("build_info", "The version that runs.", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.set("role", "What the node is to the cluster: 1 at its role.", &ROLES, own.role);
    page.set("state", "What the node does: 1 at its state.", &STATES, Some(own.state));
    let states = "How this node sees the cluster: 1 at its state.";
    page.set("cluster_state", states, &CLUSTER_STATES, Some(seen.state));
    let others = seen.nodes.iter().filter(|node| node.state == NodeState::Unreachable).count();
    page.gauge("members", "Members that the node knows of, itself included.", seen.nodes.len());
    page.gauge("members_unreachable", "Those of them that do not answer.", others);
    page.some("timeline", "The branch of history that it is on.", own.timeline.map(|it| it.0));
    let help = "Written (a primary) or replayed (a standby) up to this byte of the WAL.";
    page.some("wal_position_bytes", help, own.lsn.map(|lsn| lsn.0));
    page.some("lag_bytes", "Behind the primary, as it was seen last.", own.lag_bytes);
    page.some("lag_seconds", "Behind the primary, by the last replayed commit.", own.lag_seconds);
    page.flag("synchronous", "An acknowledged write is surely on this standby.", own.sync);
    page.lead(seen);
    page.services(seen);
    page.stages(seen);
    let silent = "More than half of the voters do not answer.";
    page.gauge("voters", "Hosts that have a vote.", seen.voters.len());
    page.flag("voters_silent", silent, seen.voters_silent);
    page.disk_and_backups(seen);
    let passwords = "Documented default passwords that are in use.";
    page.gauge("default_passwords", passwords, seen.default_passwords);
    page.gauge("warnings", "Sentences that pgherd status warns with.", seen.warnings.len());
    page.text
}

/// The page as far as it is written.
struct Page {
    text: String,
    /// Of every sample.
    labels: String,
}

impl Page {
    fn of(cluster: &str, node: &str) -> Self {
        let labels = format!("cluster=\"{}\",node=\"{}\"", escaped(cluster), escaped(node));
        Page { text: String::new(), labels }
    }

    fn lead(&mut self, seen: &Snapshot) {
        let lease = seen.lease.as_ref();
        let left = "What is left of the holder's lease, as this node has seen it renewed.";
        let late = "Renewals of the node's own lease later than half of it after the last.";
        self.some("epoch", "Counts who took the lead, by the record.", seen.epoch);
        self.some("lease_seconds", "The length of the lease.", lease.map(|it| it.seconds));
        self.some("lease_left_seconds", left, lease.map(|it| it.seconds_left));
        self.counter("lease_renewals_late_total", late, &[], seen.counts.renewals_late);
        let takeovers = "Times that this node took the lead, since it started.";
        self.counter("takeovers_total", takeovers, &[], seen.counts.takeovers);
        let waits = "Commits wait for a standby that is not there.";
        self.flag("writes_waiting", waits, seen.writes_wait);
        self.flag("paused", "No roles change by themselves.", seen.paused);
        let chosen = "A person asked that this node is not chosen.";
        self.flag("maintenance", chosen, seen.nodes[0].maintenance);
    }

    fn services(&mut self, seen: &Snapshot) {
        let names = ["postgres", "repmgrd", "crond", "etcd"];
        let restarts = &seen.counts.restarts;
        self.family("service_restarts_total", "Services that ended unasked.", "counter");
        for name in names {
            let count = restarts.iter().find(|(service, _)| service.as_str() == name);
            self.sample(
                "service_restarts_total",
                &[("service", name)],
                count.map_or(0, |(_, count)| *count),
            );
        }
        let helpers = &seen.nodes[0].services;
        self.family("service_running", "A helper runs.", "gauge");
        for name in names.into_iter().skip(1) {
            let runs = helpers.iter().any(|helper| helper == name);
            self.sample("service_running", &[("service", name)], u8::from(runs));
        }
    }

    fn stages(&mut self, seen: &Snapshot) {
        let name = "stage_duration_seconds";
        if seen.counts.stages.is_empty() {
            return;
        }
        self.family(name, "How long the stages of plans took.", "summary");
        for ((scenario, stage), (count, took)) in &seen.counts.stages {
            let labels = [("scenario", scenario.as_str()), ("stage", stage.as_str())];
            self.sample(&format!("{name}_sum"), &labels, took.as_secs_f64());
            self.sample(&format!("{name}_count"), &labels, *count);
        }
    }

    fn disk_and_backups(&mut self, seen: &Snapshot) {
        let disk = seen.facts.disk;
        let size = "Of the volume with the data, or with the backups where there are only those.";
        self.some("disk_size_bytes", size, disk.map(|disk| disk.total_bytes));
        let free = "What Postgres could still write to it.";
        self.some("disk_free_bytes", free, disk.map(|disk| disk.free_bytes));
        let own = |node: &String| seen.nodes.first().is_some_and(|own| own.name == *node);
        let Some(backups) = seen.backups.as_ref().filter(|one| own(&one.node)) else { return };
        self.gauge("backups", "Base backups on this node that are complete.", backups.count);
        let age = "Since the newest complete base backup.";
        self.some("backup_age_seconds", age, backups.age_seconds);
        let window = "How far back the cluster can be brought.";
        self.some("backup_window_seconds", window, backups.window_seconds);
        let ok = "There are base backups, and the last try for one did not fail.";
        self.flag(
            "backup_last_ok",
            ok,
            !matches!(backups.state, BackupsState::Failed | BackupsState::None),
        );
        let wal = "Since WAL was written to the archive; also grows where nobody writes.";
        self.some("wal_archive_age_seconds", wal, backups.wal_age_seconds);
        let Some(copies) = &backups.copies else { return };
        let age = "Since the newest base backup was complete that is also at BARMAN_CLOUD_URL.";
        self.some("backup_copy_age_seconds", age, copies.age_seconds);
        let waiting = "Files of WAL that are not at BARMAN_CLOUD_URL yet.";
        self.gauge("wal_copies_waiting", waiting, copies.wal_waiting);
        let ok = "The last copy that was tried did not fail.";
        self.flag("copies_last_ok", ok, copies.error.is_none());
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.text, "# HELP pgherd_{name} {help}"); // A String takes everything.
        let _ = writeln!(self.text, "# TYPE pgherd_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let mut all = self.labels.clone();
        for (label, value) in labels {
            let _ = write!(all, ",{label}=\"{}\"", escaped(value));
        }
        let _ = writeln!(self.text, "pgherd_{name}{{{all}}} {value}");
    }

    fn one(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u8) {
        self.family(name, help, "gauge");
        self.sample(name, labels, value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, help, "gauge");
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.family(name, help, "counter");
        self.sample(name, labels, value);
    }

    fn flag(&mut self, name: &str, help: &str, holds: bool) {
        self.gauge(name, help, u8::from(holds));
    }

    /// Nothing, where it is not known.
    fn some(&mut self, name: &str, help: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.gauge(name, help, value);
        }
    }

    /// 1 at what it is, 0 at what it could be.
    fn set<T: PartialEq + ToString>(&mut self, name: &str, help: &str, all: &[T], is: Option<T>) {
        self.family(name, help, "gauge");
        for one in all {
            let holds = is.as_ref() == Some(one);
            self.sample(name, &[(label_of(name), &one.to_string())], u8::from(holds));
        }
    }
}

/// `cluster_state{state="healthy"}`.
fn label_of(name: &str) -> &str {
    name.rsplit('_').next().unwrap_or(name)
}

/// A label's value as the format has it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
