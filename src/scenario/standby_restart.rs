//! "Slave is restarted but still is slave." The document has the title only; the stages are ours.
//! It is started, and nothing is copied. Whether it follows the right node is seen to once it
//! serves, and repmgrd starts then: reads need no primary.

use super::plan::{Stage, stage};
use super::step::Step;
use crate::service::{Durability, Listen, ServiceName};
use crate::settings::Settings;

#[rustfmt::skip] // Laid out as the document is: a line, then what it takes.
pub(super) fn stages(settings: &Settings, moves_in: bool) -> Vec<Stage> {
    vec![
        stage("Bring the configuration up to date",
            moves_in.then_some(Step::MoveIn).into_iter().chain([
                Step::DiscardCopy,
                Step::FollowByName,
                Step::WritePostgresConf,
                Step::WriteRepmgrConf,
                Step::CheckServerSettings,
            ]),
        ),
        serve(settings, []),
    ]
}

/// Reads are served, and then more is done.
pub(super) fn serve(settings: &Settings, then: impl IntoIterator<Item = Step>) -> Stage {
    let port = settings.postgres.port;
    let start =
        Step::StartPostgres { listen: Listen::Consumer { port }, durability: Durability::Durable };
    let title = format!("Start postgresql on consumer port {port}");
    stage(title, [start].into_iter().chain(then))
}

/// The records on the primary know this node.
pub(super) fn register() -> Stage {
    stage(
        "Register current node as a slave of the cluster with repmgr",
        [Step::RegisterStandby, Step::Supervise { service: ServiceName::Repmgrd }],
    )
}
