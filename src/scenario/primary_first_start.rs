//! "Master is started for the first time."
//!
//! Stage titles are the scenario document's lines, in its order (it numbers its second and
//! third line "3.").
//!
//! Until [`Step::Complete`] the data directory bears a mark and nobody can reach the server, so
//! an interrupted start is begun anew. It need not be careful with the disk either: everything
//! is brought there once, at the end, instead of at each of three shutdowns.

use super::plan::{Stage, stage};
use super::step::Step;
use crate::layout::Layout;
use crate::service::{Durability, Listen, ServiceName};
use crate::settings::Settings;
use std::path::Path;

/// The roles that the tools log in as.
pub(super) const ROLES: [&str; 4] = ["repmgr", "repmgr_streaming", "barman", "barman_streaming"];

#[rustfmt::skip] // Laid out as the document is: a line, then what it takes.
pub(super) fn stages(settings: &Settings, layout: &Layout, begun_anew: bool) -> Vec<Stage> {
    let postgres = &settings.postgres;
    let pgdata = &layout.pgdata;
    let discard = begun_anew.then(|| Step::DiscardUnfinished { pgdata: pgdata.clone() });
    let start_out_of_reach = || Step::StartPostgres {
        listen: Listen::Technical { port: postgres.technical_port },
        durability: Durability::UntilComplete,
    };

    vec![
        stage("Check flag for master", [
            // It is what selected this plan.
        ]),
        stage("Start PG on technical port with specified directory",
            discard.into_iter().chain([
                Step::InitDataDirectory { pgdata: pgdata.clone() },
                start_out_of_reach(),
            ]),
        ),
        stage("Add replication/backup properties to postgresql.conf and restart PG", [
            Step::WritePostgresConf,
            Step::CheckServerSettings,
            Step::StopPostgres,
            start_out_of_reach(),
        ]),
        stage("Initialize users: repmgr, repmgr_streaming, barman, barman_streaming",
            ROLES.map(|role| Step::EnsureRole { role }),
        ),
        stage("Create DB repmgr", [
            Step::EnsureDatabase { name: "repmgr".to_owned() },
            Step::EnsureRepmgrExtension,
            Step::EnsureDatabase { name: postgres.database.clone() },
            Step::RunInitHooks,
            Step::CheckServerSettings,
        ]),
        stage("Register current node as a master of the cluster with repmgr", [
            Step::WriteRepmgrConf,
            Step::RegisterPrimary,
        ]),
        stage("Create barman config", [
            Step::WriteBarmanConf,
        ]),
        stage("Touch cron for barman", [
            Step::WriteBarmanCron,
        ]),
        serve(postgres.port, pgdata),
        stage("Start crond", [
            Step::Supervise { service: ServiceName::Crond },
            Step::Supervise { service: ServiceName::Repmgrd },
        ]),
    ]
}

/// What was made out of reach is complete, and consumers may come.
pub(super) fn serve(port: u16, pgdata: &Path) -> Stage {
    let complete = Step::Complete { pgdata: pgdata.to_owned() };
    let (listen, durability) = (Listen::Consumer { port }, Durability::Durable);
    let start = Step::StartPostgres { listen, durability };
    let title = format!("Start postgresql on consumer port {port}");
    stage(title, [Step::StopPostgres, complete, Step::TakeLead, start])
}
