//! "Automatic failover", from the sides of those who did not fail: the primary that was replaced,
//! the standbys that have another primary now, and the standby that somebody promoted.

use super::plan::{Stage, stage};
use super::primary_restart::{helpers, records};
use super::standby_restart::{register, serve};
use super::step::{Patience, Step};
use crate::service::ServiceName;
use crate::settings::Settings;

/// Begins with a server that runs, or with none.
#[rustfmt::skip] // A line, then what it takes.
pub(super) fn stages(settings: &Settings, as_standby: bool) -> Vec<Stage> {
    // What a primary wrote last it recovers by itself, single-user, within `pg_rewind`: no
    // background worker of somebody's extension runs then. A standby must not: that would end its
    // recovery, and write WAL of its own on the primary's timeline (tried).
    let end = as_standby.then_some(Step::EndInOrder { port: settings.postgres.technical_port });
    let mut stages = vec![
        stage("Take no more writes", step_down()),
        stage("Wait until consumer port is open on the master", [
            Step::AwaitPrimary { patience: Patience::Short },
        ]),
        stage("Go back to where the histories part",
            end.into_iter().chain([
                Step::DiscardCopy,
                Step::WriteRepmgrConf,
                Step::Rewind,
                Step::WriteRepmgrConf,
                Step::FollowPrimary { drop_slots: true },
                Step::WritePostgresConf,
                Step::CheckServerSettings,
            ]),
        ),
    ];
    stages.push(serve(settings, [Step::AwaitReplay, Step::DiscardOld]));
    stages.push(register());
    stages
}

/// Begins with a server that runs, or with none.
#[rustfmt::skip]
pub(super) fn replacement(settings: &Settings) -> Vec<Stage> {
    vec![
        stage("Take no more writes", step_down()),
        stage("Wait until consumer port is open on the master", [
            Step::AwaitPrimary { patience: Patience::Short },
        ]),
        stage("Create pg instance as a clone of master", [
            Step::DiscardCopy,
            Step::WriteRepmgrConf,
            Step::TakeCopy { from: settings.repmgr.clone_from },
            Step::MoveIn,
            Step::WriteRepmgrConf,
            Step::WritePostgresConf,
            Step::CheckServerSettings,
        ]),
        serve(settings, [Step::AwaitReplay, Step::DiscardOld]),
        register(),
    ]
}

/// cron is for whoever leads, and repmgrd looks at a server that ends.
fn step_down() -> [Step; 3] {
    [
        Step::Cease { service: ServiceName::Crond },
        Step::Cease { service: ServiceName::Repmgrd },
        Step::Fence,
    ]
}

/// On a running standby. Whoever leads now may be gone in a moment: nothing here waits for long.
#[rustfmt::skip]
pub(super) fn follow(replaces: bool) -> Vec<Stage> {
    // Nobody's only copy is thrown away before this one is known to be good.
    let seen = if replaces {
        vec![Step::AwaitReplay, Step::DiscardOld]
    } else {
        vec![Step::AwaitStream]
    };
    vec![
        stage("Find the master", [
            Step::AwaitPrimary { patience: Patience::Short },
            Step::ClaimIdentity,
            Step::WriteRepmgrConf,
        ]),
        stage("Follow it", [
            // It looks at the one that was followed before.
            Step::Cease { service: ServiceName::Repmgrd },
            Step::FollowPrimary { drop_slots: false },
        ].into_iter().chain(seen)),
        register(),
    ]
}

/// On a running standby that follows already. What it fetches, the primary need not send.
#[rustfmt::skip]
pub(super) fn from_archive() -> Vec<Stage> {
    vec![
        stage("Find the master", [
            Step::AwaitPrimary { patience: Patience::Short },
        ]),
        stage("Fetch from barman's archive what it has no more", [
            // Its slot there may be of no use any more either.
            Step::FollowPrimary { drop_slots: false },
            Step::AskArchive,
            Step::AwaitReplay,
            Step::DiscardOld,
        ]),
        register(),
    ]
}

/// On a server that was a standby and takes writes now.
#[rustfmt::skip]
pub(super) fn promoted(settings: &Settings) -> Vec<Stage> {
    vec![
        stage("Take over", [
            // It looks at the one that was followed before.
            Step::Cease { service: ServiceName::Repmgrd },
        ]),
        stage("Create barman config", [
            Step::WriteBarmanConf,
        ]),
        stage("Touch cron for barman", [
            Step::WriteBarmanCron,
        ]),
        records(settings),
        helpers(),
    ]
}
