//! "Backup node is started": the node that keeps the cluster's backups and has no Postgres of its
//! own. The document knows these lines as part of a master's start; here they are all there is.
//!
//! First start and restart are the same: nothing is made here that is not made true again, and
//! what is kept, backups and WAL, is barman's.

use super::plan::{Stage, stage};
use super::step::Step;
use crate::service::ServiceName;

#[rustfmt::skip] // Laid out as the document is: a line, then what it takes.
pub(super) fn stages() -> Vec<Stage> {
    vec![
        stage("Create barman config", [
            Step::WriteBarmanConf,
        ]),
        stage("Touch cron for barman", [
            Step::WriteBarmanCron,
        ]),
        stage("Start crond", [
            Step::Supervise { service: ServiceName::Crond },
        ]),
    ]
}
