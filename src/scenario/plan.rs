//! A scenario written out: numbered stages, each with its steps.

use super::{Scenario, Step};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// What will be done, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The section this plan writes out.
    #[serde(flatten)]
    pub scenario: Scenario,
    /// In order; a stage begins when the one before it is complete.
    pub stages: Vec<Stage>,
}

/// One numbered line of the scenario document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// The document's own words, with the port that is in force. Log, dashboard and
    /// `pgherd plan` show them.
    pub title: Cow<'static, str>,
    /// What this line takes. May be empty: the document has lines that only check.
    pub steps: Vec<Step>,
}

pub(super) fn stage(
    title: impl Into<Cow<'static, str>>,
    steps: impl IntoIterator<Item = Step>,
) -> Stage {
    Stage { title: title.into(), steps: steps.into_iter().collect() }
}

impl Plan {
    /// Number of steps in all stages.
    pub fn step_count(&self) -> usize {
        self.stages.iter().map(|stage| stage.steps.len()).sum()
    }
}

impl Scenario {
    /// The section's title in the scenario document.
    pub fn title(&self) -> &'static str {
        match self {
            Scenario::PrimaryFirstStart { .. } => "Master is started for the first time",
            Scenario::Restore { .. } | Scenario::RestoreInPlace { .. } => "Restore DB from backup",
            Scenario::MoveInRestored => "What was restored takes its place",
            Scenario::PrimaryRestart { .. } => "Master is restarted but still is the master",
            Scenario::Recovery => "Master was killed and recovers out of reach",
            Scenario::StandbyFirstStart { .. } => "Slave is started for the first time",
            Scenario::StandbyRestart { .. } => "Slave is restarted but still is slave",
            Scenario::Rejoin { as_standby: false } => "Master was replaced and becomes a slave",
            Scenario::Rejoin { as_standby: true } => "Slave has another history than its master",
            Scenario::Replace => "Slave is cloned again, beside what it has",
            Scenario::FromArchive => "Slave catches up from the archive",
            Scenario::Follow { .. } => "Slave follows whoever is the master now",
            Scenario::Promoted => "Slave was promoted and becomes the master",
            Scenario::TakeOver => "Automatic failover: slave takes over",
            Scenario::HandOver { .. } => "Master hands over to a slave",
            Scenario::BackupNodeStart => "Backup node is started",
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.scenario.title())?;
        let mut step_number = 0;
        for (number, stage) in (1..).zip(&self.stages) {
            writeln!(f, "{number:>4}. {}", stage.title)?;
            for step in &stage.steps {
                step_number += 1;
                writeln!(f, "      {step_number:>2}) {step}")?;
            }
        }
        Ok(())
    }
}
