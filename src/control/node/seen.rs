//! What follows from a look at the server and at the members, and what is shown of it.

use super::{ClusterState, Node, NodeRole, NodeStatus, Observation, Phase, decide};
use crate::cluster::{Answer, BackupsSeen, NodeState, Role, Shown, Sighting, Standing, Timeline};
use crate::control::decide::Local;
use crate::control::observer::Seen;
use crate::postgres::peer::Record;
use crate::postgres::{Health, SqlError};
use crate::scenario::{Scenario, Situation};
use crate::service::ServiceName;
use crate::settings::Failover;
use crate::system::error::chain;
use std::time::Instant;
use tracing::{debug, info, warn};

/// So many questions in a row must stay without an answer before the server counts as silent: one
/// may meet a checkpoint on a slow disk, or a crash that Postgres recovers from within seconds.
const UNANSWERED_MAX: u32 = 3;

impl Node {
    pub(super) fn observed(&mut self, seen: Result<Box<Seen>, SqlError>) {
        let serves = match &self.phase {
            Phase::Serving => true,
            // It is shown; the rules wait until the plan is done.
            Phase::Planned(scenario, _) => {
                super::plan::serves_meanwhile(scenario) && self.is_open()
            }
            Phase::Looking(_) | Phase::BackingOff | Phase::Stopping => false,
        };
        if !serves {
            return; // Of a server that is no more.
        }
        match seen {
            Ok(seen) => self.answered(&seen),
            Err(failed) => {
                debug!("the server does not say how it is: {}", chain(&failed));
                if failed.is_silence() {
                    self.unanswered += 1;
                }
                if self.unanswered == UNANSWERED_MAX {
                    self.fell_silent(&failed);
                }
            }
        }
    }

    fn answered(&mut self, seen: &Seen) {
        if self.learns_who_votes(&seen.sightings) {
            return;
        }
        self.unanswered = 0;
        if self.row().state == NodeState::Unreachable {
            info!("postgres answers again");
            self.serves();
        }
        let services = self.hands.supervisor.helpers();
        let id = self.hands.id.get().copied().filter(|_| seen.local.is_some());
        let row = self.row();
        row.answered = Instant::now();
        row.services = services.iter().map(ToString::to_string).collect();
        row.id = id;
        let records = match &seen.local {
            Some((health, records)) => {
                self.own_row(health);
                records.as_slice()
            }
            None => &[],
        };
        self.others(records, &seen.sightings);
        self.tell_the_others(&seen.sightings);
        self.overview();
        self.note_the_others(&seen.sightings);
        if let Some(report) = &mut self.snapshot.report {
            report.newest = seen.memory.newest;
            report.given_up = seen.memory.given_up;
            report.members = seen.memory.addresses();
        }
        self.backups_said(&seen.sightings);
        self.disagreement = self.disagreement(&seen.sightings);
        self.gather_warnings();
        if let Some((health, records)) = &seen.local
            && (matches!(self.phase, Phase::Serving) || self.copies_a_backup())
        {
            self.follow_the_rules(seen, health, records);
        }
    }

    pub(super) fn own_row(&mut self, health: &Health) {
        let Health { role, lsn, timeline, system, .. } = *health;
        let lsn_now = lsn.unwrap_or_default();
        let behind = lsn.zip(self.snapshot.end).map(|(lsn, end)| lsn.bytes_behind(end));
        let row = self.row();
        row.role = Some(role.into());
        (row.timeline, row.lsn) = (Some(timeline), lsn);
        row.lag_bytes = if role == Role::Primary { Some(0) } else { behind };
        row.lag_seconds = health.lag_seconds;
        row.follows.clone_from(&health.upstream);
        self.say(Standing::Serving { role, timeline, lsn: lsn_now });
        if let Some(report) = &mut self.snapshot.report {
            report.system = Some(system);
        }
    }

    /// This node keeps the backups itself.
    pub(super) fn backups_seen(&mut self, seen: Option<Box<BackupsSeen>>) {
        let seen = seen.map(|seen| *seen);
        if let Some(report) = &mut self.snapshot.report {
            report.backups.clone_from(&seen);
        }
        if seen.is_some() {
            self.snapshot.backups = seen;
            self.gather_warnings();
        }
    }

    /// Another node keeps them, and says how they are. One that is silent has said it last.
    fn backups_said(&mut self, sightings: &[Sighting]) {
        let own = self.snapshot.report.as_ref().is_some_and(|report| report.backups.is_some());
        let mut said = sightings.iter().filter_map(|one| one.report()?.backups.as_ref());
        if let Some(said) = said.next().filter(|_| !own) {
            self.snapshot.backups = Some(said.clone());
        }
    }

    /// Their rows, by number and name: as they say themselves, else as the records have them.
    fn others(&mut self, records: &[Record], sightings: &[Sighting]) {
        let own = self.row().name.clone();
        let mut rows: Vec<NodeStatus> = Vec::new();
        for record in records.iter().filter(|record| record.name != own) {
            let Some(address) = record.address.clone() else { continue };
            let mut row = NodeStatus::unknown(&record.name, address);
            row.id = Some(record.id);
            (row.priority, row.location) = (record.priority, record.location.clone());
            rows.push(row);
        }
        let before = self.snapshot.nodes.split_off(1);
        for sighting in sightings {
            take_down(&mut rows, sighting, &before);
        }
        rows.sort_by(|a, b| (a.id.is_none(), a.id, &a.name).cmp(&(b.id.is_none(), b.id, &b.name)));
        self.snapshot.nodes.extend(rows);
        let seen = self.hands.keeper.as_ref().map(|keeper| keeper.now()).unwrap_or_default();
        self.mark_rows(&seen);
    }

    /// Two that lead at the same time, ourselves among them, are for a person to see.
    fn disagreement(&self, sightings: &[Sighting]) -> Option<String> {
        let own = self.snapshot.report.as_ref().filter(|report| report.leads_on().is_some());
        let other = sightings
            .iter()
            .find(|one| one.report().is_some_and(|report| report.leads_on().is_some()));
        if let (Some(own), Some(other)) = (own, other) {
            return Some(format!(
                "{} and {} both take writes: stop the one whose data you do not want (docker stop)",
                own.address, other.address
            ));
        }
        Situation::leader_among(sightings).err().map(|two| two.to_string())
    }

    /// What the others say while this node does not serve, to be shown. Who is not heard of stays as it was.
    pub(super) fn heard(&mut self, sightings: &[Sighting]) {
        if matches!(self.row().state, NodeState::Running | NodeState::Unreachable) {
            return; // It sees for itself.
        }
        let before = self.snapshot.nodes.split_off(1);
        let mut rows = before.clone();
        rows.iter_mut().for_each(|row| row.state = NodeState::Unreachable);
        for sighting in sightings {
            let name = sighting.report().map(|report| report.name.as_str());
            if name == Some(self.snapshot.nodes[0].name.as_str()) {
                continue;
            }
            take_down(&mut rows, sighting, &before);
        }
        rows.sort_by(|a, b| (a.id.is_none(), a.id, &a.name).cmp(&(b.id.is_none(), b.id, &b.name)));
        let leads = |row: &&NodeStatus| {
            row.role == Some(NodeRole::Primary) && row.state == NodeState::Running
        };
        let leader = rows.iter().filter(leads).max_by_key(|row| row.timeline);
        self.snapshot.primary = leader.map(|row| row.name.clone());
        self.snapshot.timeline = leader.and_then(|row| row.timeline);
        self.snapshot.end = leader.and_then(|row| row.lsn).or(self.snapshot.end);
        self.snapshot.nodes.extend(rows);
        let seen = self.hands.keeper.as_ref().map(|keeper| keeper.now()).unwrap_or_default();
        self.mark_rows(&seen);
        self.backups_said(sightings);
        self.note_the_others(sightings);
    }

    /// What follows from the rows for the cluster as a whole, and for each of them.
    fn overview(&mut self) {
        let leads = |row: &&NodeStatus| {
            row.role == Some(NodeRole::Primary) && row.state == NodeState::Running
        };
        let one_leads = self.snapshot.nodes.iter().filter(leads).count() == 1;
        let leader = self.snapshot.nodes.iter().filter(leads).max_by_key(|row| row.timeline);
        let leader = leader.map(|row| (row.name.clone(), row.timeline, row.lsn));
        // While nobody leads, one is as far behind as when somebody did.
        self.snapshot.end = leader.as_ref().and_then(|(_, _, end)| *end).or(self.snapshot.end);
        for row in &mut self.snapshot.nodes {
            if let (Some(end), Some(lsn)) = (self.snapshot.end, row.lsn) {
                row.lag_bytes = Some(lsn.bytes_behind(end));
            }
        }
        let is_with_it = |row: &NodeStatus| is_with(row, leader.as_ref().and_then(|one| one.1));
        let all_run = self.snapshot.nodes.iter().all(is_with_it);
        self.snapshot.state = match &leader {
            Some(_) if all_run && one_leads => ClusterState::Healthy,
            Some(_) => ClusterState::Degraded,
            None => ClusterState::Unhealthy,
        };
        self.snapshot.timeline = leader.as_ref().and_then(|(_, timeline, _)| *timeline);
        self.snapshot.primary = leader.map(|(name, _, _)| name);
    }

    fn follow_the_rules(&mut self, seen: &Seen, health: &Health, records: &[Record]) {
        self.mind_the_primary(seen, health);
        let own = self.hands.id.get();
        let record = records.iter().find(|record| Some(&record.id) == own);
        let is_there = |record: &&Record, kind: &str| {
            record.active
                && record.kind == kind
                && record.address.as_ref() == Some(&self.hands.address)
        };
        let recorded = record.filter(|record| is_there(record, "standby"));
        let local = Local {
            role: health.role,
            id: own.copied(),
            timeline: health.timeline,
            lsn: health.lsn.unwrap_or_default(),
            system: health.system,
            streams_from: health.upstream.clone(),
            waits_for_wal: health.waits_for_wal,
            recorded_under: recorded.and_then(|record| record.upstream),
            recorded_as_primary: record.is_some_and(|record| is_there(&record, "primary")),
            watched: self.hands.supervisor.keeps(ServiceName::Repmgrd),
            replaces: seen.replaces,
            leads_by_the_record: self.leads,
        };
        let herd = &self.hands.settings.herd;
        let observation = Observation {
            local,
            made: self.made,
            sightings: &seen.sightings,
            left_alone_for: self.left_alone.map(|since| since.elapsed()),
            eager_after: (herd.failover == Failover::Eager
                && self.hands.settings.repmgr.priority > 0)
                .then_some(herd.lease),
        };
        let decided = decide::decide(&observation).filter(|(_, scenario)| {
            // While a backup is copied this primary serves, for hours maybe. Another one is no less its end.
            !self.copies_a_backup() || matches!(scenario, Scenario::Rejoin { .. })
        });
        if let Some((rule, scenario)) = decided
            && self.rules_rest.is_over()
        {
            if let Phase::Planned(_, task) = &self.phase {
                task.abort();
            }
            info!("{}", rule.name);
            self.note("rule", Some(rule.name), scenario.title());
            self.begin(scenario);
        }
    }

    /// Since when this standby has no primary, if it had one in this life: what one has that only
    /// starts may be days old. A connection that is still open says nothing: whoever is cut off closes
    /// none.
    fn mind_the_primary(&mut self, seen: &Seen, health: &Health) {
        let leads = |one: &Sighting| one.report().is_some_and(|report| report.leads_on().is_some());
        let has_one = seen.sightings.iter().any(leads);
        if health.role == Role::Primary {
            (self.had_a_primary, self.left_alone) = (false, None);
        } else if has_one {
            self.had_a_primary |= health.upstream.is_some();
            self.left_alone = None;
        } else if self.had_a_primary {
            self.left_alone.get_or_insert_with(Instant::now);
        }
    }

    /// Nobody is sent to a server that answers nobody. It is not restarted: what keeps it from
    /// answering, a disk say, would keep it from stopping too.
    fn fell_silent(&mut self, failed: &SqlError) {
        let warning = format!("postgres runs and does not answer: {}", chain(failed));
        warn!("{warning}");
        self.silence = Some(warning);
        self.snapshot.state = ClusterState::Unhealthy;
        self.snapshot.primary = None;
        self.row().state = NodeState::Unreachable;
        self.gather_warnings();
    }

    /// Consumers may come.
    pub(super) fn serves(&mut self) {
        self.row().state = NodeState::Running;
        if self.made == Role::Primary {
            // How the others are, and whether they follow what it serves now, is seen in a moment.
            self.snapshot.state = match self.snapshot.nodes.len() {
                1 => ClusterState::Healthy,
                _ => ClusterState::Degraded,
            };
            self.snapshot.primary = Some(self.row().name.clone());
        }
        self.unanswered = 0;
        self.silence = None;
        self.gather_warnings();
    }

    pub(super) fn gather_warnings(&mut self) {
        let lately = self.undone.iter().chain(&self.stands).chain(&self.disagreement);
        let lately = lately.chain(&self.silence);
        let lately =
            lately.chain(&self.voters_silent).chain(&self.vote_missing).chain(&self.writes_wait);
        let backups = self.snapshot.backups.iter().flat_map(|seen| &seen.warnings);
        let lately = lately.chain(backups);
        self.snapshot.voters_silent = self.voters_silent.is_some();
        self.snapshot.writes_wait = self.writes_wait.is_some();
        self.snapshot.warnings = self.standing_warnings.iter().chain(lately).cloned().collect();
    }
}

/// It runs, and serves no other history than the one that leads: after a restore a slave may have one that the
/// cluster has left.
fn is_with(row: &NodeStatus, leads: Option<Timeline>) -> bool {
    let is_left = row.role == Some(NodeRole::Standby)
        && row.timeline.zip(leads).is_some_and(|(its, leads)| its != leads);
    row.state == NodeState::Running && !is_left
}

/// Its row is as it says of itself; it gets one where it has none.
fn take_down(rows: &mut Vec<NodeStatus>, sighting: &Sighting, before: &[NodeStatus]) {
    let name = sighting.report().map(|report| report.name.as_str());
    let is_its =
        |row: &NodeStatus| Some(row.name.as_str()) == name || row.address == sighting.address;
    let at = rows.iter().position(is_its).unwrap_or_else(|| {
        let name = name.unwrap_or(&sighting.address.host);
        rows.push(NodeStatus::unknown(name, sighting.address.clone()));
        rows.len() - 1
    });
    as_it_says(&mut rows[at], &sighting.answer, before);
}

/// A row as the node itself has it. Of one that says nothing, the last that it said stays.
fn as_it_says(row: &mut NodeStatus, answer: &Answer, before: &[NodeStatus]) {
    let last = before.iter().find(|last| last.name == row.name);
    let Answer::Report(report) = answer else {
        if let Some(last) = last {
            (row.role, row.timeline, row.lsn) = (last.role, last.timeline, last.lsn);
            row.answered = last.answered;
        }
        return;
    };
    row.name.clone_from(&report.name);
    row.address = report.address.clone();
    row.id = report.id.or(row.id);
    row.state = report.state;
    row.answered = Instant::now();
    row.role = match report.standing {
        Standing::Serving { role, .. } => Some(role.into()),
        Standing::NoData if report.witness => Some(NodeRole::Witness),
        Standing::NoData => Some(NodeRole::Backup),
        Standing::Empty { .. } | Standing::Preparing { .. } | Standing::AtRest { .. } => None,
    };
    (row.timeline, row.lsn) = report.position().unzip();
    let Shown { scenario, waits_for, follows, lag_ms, services, warnings, .. } =
        report.shown.clone();
    (row.scenario, row.waits_for, row.follows) = (scenario, waits_for, follows);
    (row.services, row.warnings) = (services, warnings);
    row.lag_seconds = lag_ms.map(|ms| ms as f64 / 1000.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slave_that_serves_a_history_that_was_left_is_not_well() {
        let mut row = NodeStatus::unknown("node2", "node2".parse().unwrap());
        (row.role, row.state) = (Some(NodeRole::Standby), NodeState::Running);
        row.timeline = Some(Timeline(2));
        assert!(is_with(&row, Some(Timeline(2))) && !is_with(&row, Some(Timeline(3))));
        row.role = Some(NodeRole::Backup);
        row.timeline = None;
        assert!(is_with(&row, Some(Timeline(3))));
        row.state = NodeState::Rewinding;
        assert!(!is_with(&row, Some(Timeline(3))));
    }
}
