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
    let postgres = &settings.postgres;

    vec![
        stage("Bring the configuration up to date", [
            Step::WritePostgresConf,
            Step::WriteRepmgrConf,
            Step::WriteBarmanConf,
            Step::WriteBarmanCron,
            Step::CheckServerSettings,
        ]),
        stage(format!("Start postgresql on consumer port {}", postgres.port), [
            Step::StartPostgres {
                listen: Listen::Consumer { port: postgres.port },
                durability: Durability::Durable,
            },
        ]),
        stage("Bring users and repmgr's records up to date",
            // Without the variable the password is what it was: the official image needs it once,
            // and many take it away afterwards.
            settings.postgres.password_given.then_some(Step::EnsureSuperuserPassword).into_iter()
                .chain(ROLES.map(|role| Step::EnsureRole { role }))
                .chain([
                    Step::EnsureDatabase { name: "repmgr".to_owned() },
                    Step::EnsureRepmgrExtension,
                    Step::RegisterPrimary,
                ]),
        ),
        stage("Start crond", [
            Step::Supervise { service: ServiceName::Crond },
            Step::Supervise { service: ServiceName::Repmgrd },
        ]),
    ]
}
