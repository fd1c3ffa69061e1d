//! "Master is restarted but still is the master." The document has the title only; the stages
//! are ours. Everything that the environment may have changed is made true again, so that the
//! same stages adopt a new password, a new address, or a new version of a template.

use super::plan::{Stage, stage};
use super::primary_first_start::ROLES;
use super::step::Step;
use crate::service::{Durability, Listen, ServiceName};
use crate::settings::Settings;

#[rustfmt::skip] // Laid out as the document is: a line, then what it takes.
pub(super) fn stages(settings: &Settings) -> Vec<Stage> {
    vec![
        configuration(),
        consumers(settings, None, None),
        records(settings),
        helpers(),
    ]
}

/// A cluster that another image made, or that was restored, has users to get, and maybe a record of another address: nobody
/// is served before it has.
#[rustfmt::skip]
pub(super) fn adoption(settings: &Settings) -> Vec<Stage> {
    let technical = Listen::Technical { port: settings.postgres.technical_port };
    vec![
        configuration(),
        stage("Start PG on technical port with specified directory", [
            Step::StartPostgres { listen: technical, durability: Durability::Durable },
        ]),
        with_others_forgotten(records(settings)),
        consumers(settings, Some(Step::StopPostgres), Some(Step::DiscardOld)),
        helpers(),
    ]
}

/// What others do meanwhile is asked afterwards: somebody may have been promoted.
#[rustfmt::skip]
pub(super) fn recovery(settings: &Settings) -> Vec<Stage> {
    vec![
        configuration(),
        stage("Start PG on technical port with specified directory", [
            Step::EndInOrder { port: settings.postgres.technical_port },
        ]),
    ]
}

fn configuration() -> Stage {
    stage(
        "Bring the configuration up to date",
        [
            Step::DiscardCopy,
            Step::WritePostgresConf,
            Step::WriteRepmgrConf,
            Step::WriteBarmanConf,
            Step::WriteBarmanCron,
            Step::CheckServerSettings,
        ],
    )
}

fn consumers(settings: &Settings, before: Option<Step>, after: Option<Step>) -> Stage {
    let port = settings.postgres.port;
    let start =
        Step::StartPostgres { listen: Listen::Consumer { port }, durability: Durability::Durable };
    let steps = before.into_iter().chain([Step::TakeLead, start]).chain(after);
    stage(format!("Start postgresql on consumer port {port}"), steps)
}

/// Users, the database repmgr and its record of this node are those that the settings ask for.
pub(super) fn records(settings: &Settings) -> Stage {
    // Without the variable the password is what it was: the official image needs it once,
    // and many take it away afterwards.
    let given = settings.postgres.password_given.then_some(Step::EnsureSuperuserPassword);
    let roles = ROLES.map(|role| Step::EnsureRole { role });
    stage(
        "Bring users and repmgr's records up to date",
        given.into_iter().chain(roles).chain([
            Step::EnsureDatabase { name: "repmgr".to_owned() },
            Step::EnsureRepmgrExtension,
            Step::RegisterPrimary,
        ]),
    )
}

/// Before this node is registered: repmgr refuses a second primary.
pub(super) fn with_others_forgotten(mut records: Stage) -> Stage {
    let at = records.steps.iter().position(|step| *step == Step::RegisterPrimary);
    records.steps.insert(at.unwrap_or(records.steps.len()), Step::ForgetOthers);
    records
}

/// What runs beside a master.
pub(super) fn helpers() -> Stage {
    stage(
        "Start crond",
        [
            Step::Supervise { service: ServiceName::Crond },
            Step::Supervise { service: ServiceName::Repmgrd },
        ],
    )
}
