//! "Slave is started for the first time." The document's three lines, then ours, which make the
//! copy a member.

use super::plan::{Stage, stage};
use super::standby_restart::{register, serve};
use super::step::{Patience, Step};
use crate::layout::Layout;
use crate::settings::Settings;

#[rustfmt::skip] // Laid out as the document is: a line, then what it takes.
pub(super) fn stages(settings: &Settings, layout: &Layout, begun_anew: bool) -> Vec<Stage> {
    let discard = begun_anew.then(|| Step::DiscardUnfinished { pgdata: layout.pgdata.clone() });
    let from = settings.repmgr.clone_from;
    vec![
        stage("Check flag for master", [
            // It is what selected this plan.
        ]),
        stage("Wait until consumer port is open on the master", [
            Step::AwaitPrimary { patience: Patience::Endless },
            Step::ClaimIdentity,
        ]),
        stage("Create pg instance as a clone of master",
            discard.into_iter().chain([
                Step::DiscardCopy,
                Step::WriteRepmgrConf,
                Step::TakeCopy { from },
                Step::MoveIn,
                Step::WritePostgresConf,
                Step::CheckServerSettings,
            ]),
        ),
        serve(settings, [Step::AwaitReplay]),
        register(),
    ]
}
