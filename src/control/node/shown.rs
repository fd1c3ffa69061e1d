//! What is kept to be shown: to people, by this node and by the others. Nothing is decided by it.

use super::{Node, Phase};
use crate::cluster::{Entry, Role, Shown, Sighting, Standing};
use crate::control::snapshot::{Facts, Lags, Lease};
use crate::hooks::Told;
use crate::keeper::Seen;
use crate::scenario::Scenario;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many of a node's last events go with each answer to the others, which ask every few seconds.
const LATELY_MAX: usize = 6;
/// So many of the others' are kept.
const ELSEWHERE_MAX: usize = 200;
/// There are some dozen scenarios, of some ten stages.
const STAGES_MAX: usize = 200;

/// The stage under way: of which scenario, which one, since when.
pub(super) type Stage = Option<(String, String, Instant)>;

impl Node {
    /// Tells the others what is to be shown of this node.
    pub(super) fn tell_people(&mut self) {
        let restarts = self.hands.supervisor.restarts();
        if self.snapshot.counts.restarts != restarts {
            Arc::make_mut(&mut self.snapshot.counts).restarts = restarts;
        }
        self.tell_hooks();
        let Some(report) = &mut self.snapshot.report else { return };
        let row = &self.snapshot.nodes[0];
        report.state = row.state;
        report.shown = Shown {
            scenario: row.scenario.clone(),
            waits_for: row.waits_for.clone(),
            follows: row.follows.clone(),
            lag_ms: row.lag_seconds.map(|seconds| (seconds * 1000.0) as u64),
            services: row.services.clone(),
            warnings: self.snapshot.warnings.clone(),
            lately: self.hands.journal.last(LATELY_MAX),
        };
    }

    /// Tells the operator's executables what this node is to consumers.
    fn tell_hooks(&self) {
        let (role, timeline) = match self.snapshot.report.as_ref().map(|report| report.standing) {
            Some(Standing::Serving { role, timeline, .. }) => (Some(role), Some(timeline)),
            Some(
                Standing::Empty { .. }
                | Standing::Preparing { .. }
                | Standing::AtRest { .. }
                | Standing::NoData,
            )
            | None => (None, None),
        };
        let hands_over = matches!(&self.phase, Phase::Planned(Scenario::HandOver { .. }, _));
        if hands_over && role == Some(Role::Primary) {
            return; // They were told what comes.
        }
        let rows = &self.snapshot.nodes;
        let primary = rows.iter().find(|row| Some(&row.name) == self.snapshot.primary.as_ref());
        let primary = match role {
            Some(Role::Primary) => Some(&rows[0]),
            Some(Role::Standby) | None => primary,
        };
        let primary = primary.map(|row| row.address.clone());
        self.hands.hooks.tell(Told { role, timeline, primary });
    }

    /// The disk was looked at.
    pub(super) fn surveyed(&mut self, facts: Facts) {
        self.snapshot.facts = Arc::new(facts);
    }

    /// Everybody was looked at.
    pub(super) fn note_the_others(&mut self, sightings: &[Sighting]) {
        let now = Instant::now();
        let Self { snapshot, .. } = self;
        let due = snapshot.nodes.iter().any(|row| snapshot.lags.is_due(&row.name, now));
        if due {
            let lags = Arc::make_mut(&mut snapshot.lags);
            lags.keep(|name| snapshot.nodes.iter().any(|row| row.name == name));
            for row in snapshot.nodes.iter().filter(|row| row.id.is_some()) {
                let known = row.lag_bytes.filter(|_| row.answered.elapsed() < STALE_AFTER);
                lags.note(&row.name, known, now);
            }
        }
        let reports = sightings.iter().filter_map(Sighting::report);
        let lately: Vec<&Entry> = reports.flat_map(|report| &report.shown.lately).collect();
        if lately.iter().any(|entry| !snapshot.elsewhere.contains(entry)) {
            let kept: &mut VecDeque<Entry> = Arc::make_mut(&mut snapshot.elsewhere);
            for entry in lately {
                if !kept.contains(entry) {
                    kept.push_back(entry.clone());
                }
            }
            while kept.len() > ELSEWHERE_MAX {
                kept.pop_front();
            }
        }
    }

    /// The record was read or written.
    pub(super) fn note_lease(&mut self, seen: &Seen) {
        let Some(record) = &seen.record else {
            self.snapshot.lease = None;
            return;
        };
        let lease = record.lease();
        let is_same = self.record.as_ref().is_some_and(|before| {
            before.instance == record.instance
                && before.epoch == record.epoch
                && before.renewals == record.renewals
        });
        let now = Instant::now();
        let over = seen.over || record.released.is_some();
        match &mut self.snapshot.lease {
            Some(kept) if is_same && !over => kept.seconds = lease.as_secs_f64(),
            kept => {
                let ours = record.instance == self.hands.instance && self.leads && !over;
                let late = kept.as_ref().filter(|before| {
                    ours && before.seconds_left > 0.0 && before.renewed.elapsed() > lease / 2
                });
                if late.is_some() {
                    Arc::make_mut(&mut self.snapshot.counts).renewals_late += 1;
                }
                let seconds_left = if over { 0.0 } else { lease.as_secs_f64() };
                // How long nobody leads begins once.
                let since = kept.as_ref().filter(|before| over && before.seconds_left == 0.0);
                let renewed = since.map_or(now, |before| before.renewed);
                *kept = Some(Lease { seconds: lease.as_secs_f64(), renewed, seconds_left });
            }
        }
    }

    /// A stage of a plan begins, or, without one, the plan has ended.
    pub(super) fn note_stage(&mut self, stage: Option<(&str, &str)>) {
        let same = |(scenario, title, _): &(String, String, Instant)| {
            stage == Some((scenario.as_str(), title.as_str()))
        };
        if self.stage.as_ref().is_some_and(same) {
            return;
        }
        if let Some((scenario, title, began)) = self.stage.take() {
            let stages = &mut Arc::make_mut(&mut self.snapshot.counts).stages;
            if stages.len() < STAGES_MAX {
                let (count, took) = stages.entry((scenario, title)).or_default();
                *count += 1;
                *took += began.elapsed();
            }
        }
        self.stage = stage.map(|(scenario, title)| (scenario.into(), title.into(), Instant::now()));
    }
}

/// What was said longer ago than this is not how it is.
const STALE_AFTER: Duration = Duration::from_secs(10);
/// A node that is gone is not plotted for longer than everything else.
const _: () = assert!(STALE_AFTER.as_secs() < Lags::KEPT.as_secs());
