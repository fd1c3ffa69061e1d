//! "Automatic failover", seen from the slave that takes the lead, and the planned way of the same:
//! the master hands it over.

use super::plan::{Stage, stage};
use super::rejoin::promoted;
use super::step::Step;
use crate::service::ServiceName;
use crate::settings::Settings;

/// On a standby that serves, has every acknowledged write, and whose primary's lease is over.
#[rustfmt::skip] // A line, then what it takes.
pub(super) fn take_over(settings: &Settings) -> Vec<Stage> {
    let mut stages = vec![
        stage("Take the lead", [
            Step::TakeLead,
        ]),
        stage("Promote", [
            Step::Promote,
        ]),
    ];
    stages.extend(promoted(settings));
    stages
}

/// On the primary, which serves. Every step but the last leaves it the one that leads, so that a plan
/// that fails before it is followed by a restart.
#[rustfmt::skip]
pub(super) fn hand_over(to: &str) -> Vec<Stage> {
    let to = || to.to_owned();
    vec![
        stage(format!("See that {} has every write", to()), [
            Step::AwaitSynchronous { to: to() },
            Step::Checkpoint,
            Step::AnnounceHandover,
            Step::AwaitSynchronous { to: to() },
        ]),
        stage("Take no more writes", [
            Step::Cease { service: ServiceName::Crond },
            Step::Cease { service: ServiceName::Repmgrd },
            Step::StopPostgres,
        ]),
        stage(format!("Give the lead to {}", to()), [
            Step::AwaitReceived { to: to() },
            Step::ReleaseLead { to: to() },
        ]),
    ]
}
