//! Why a node that could start does not do so yet, and what would end that.

use crate::cluster::{Address, Timeline};
use std::path::PathBuf;

/// What is waited for. One line each, with the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wait {
    /// Too few members answer to know that none of the silent ones leads.
    #[error(
        "nobody is known to lead, and {} not answer, who might, or might have newer data; waits \
         for {} (if what is silent is gone for good: docker exec … pgherd failover \
         --allow-data-loss on this node)", does(silent), more(*.missing)
    )]
    Silence {
        /// Who says nothing.
        silent: Vec<Address>,
        /// So many more answers are needed.
        missing: usize,
    },
    /// It was not shut down, and would end again for the same reason.
    #[error(
        "{} has {free_mib} MiB free, and postgres, which was not shut down, needs {needed_mib} to recover and \
         go on: waits until there is more room", .directory.display()
    )]
    NoRoom {
        /// Where its WAL goes.
        directory: PathBuf,
        /// What there is.
        free_mib: u64,
        /// What is needed.
        needed_mib: u64,
    },
    /// Somebody has, or knows of, data that this node has not.
    #[error(
        "{address} knows of newer data (timeline {newer}) than this node has (timeline {ours}); \
         waits until a node that has it leads (if whoever has it is gone for good: docker exec … \
         pgherd failover --allow-data-loss on this node)"
    )]
    NewerData {
        /// Who knows.
        address: Address,
        /// Its timeline.
        newer: Timeline,
        /// Ours.
        ours: Timeline,
    },
    /// Somebody leads on an older branch of history than ours.
    #[error(
        "{address} takes writes on timeline {older}, and this node has newer data (timeline {ours}): \
         stop that one (docker stop); this node leads then, and that one rejoins when it is \
         started again"
    )]
    OlderPrimary {
        /// Who leads.
        address: Address,
        /// On which timeline.
        older: Timeline,
        /// Ours.
        ours: Timeline,
    },
    /// Two lead at the same time.
    #[error(
        "{first} and {second} both take writes on timeline {timeline}: stop one of them; the other \
         is joined then"
    )]
    TwoPrimaries {
        /// One.
        first: Address,
        /// The other.
        second: Address,
        /// Of both.
        timeline: Timeline,
    },
    /// Another directory was the primary's on our own branch of history.
    #[error(
        "{address} was the primary on timeline {timeline} too: one is a copy of the other, or both were \
         promoted by hand; stop the one whose data you do not want and give it an empty volume"
    )]
    TwoFormerPrimaries {
        /// Where it is.
        address: Address,
        /// Of both.
        timeline: Timeline,
    },
    /// Our data was put back to an earlier state.
    #[error(
        "{address} has more on timeline {timeline} than this node, which led on it: was this volume \
         put back to an earlier state? Promote that one (docker exec -u postgres … repmgr standby \
         promote), and this one joins it; or, to go on with less, remove that one's data first"
    )]
    MoreData {
        /// Who has more.
        address: Address,
        /// Of both.
        timeline: Timeline,
    },
    /// There are traces of a cluster, and no data.
    #[error(
        "{} is empty, and this node has been a member of a cluster with others, of whom nobody who \
         answers leads: is the right volume mounted? Waits until somebody leads, and joins; to begin a \
         new cluster, empty the whole volume", .pgdata.display()
    )]
    DataMissing {
        /// The data directory.
        pgdata: PathBuf,
    },
    /// We would begin a new cluster, and there is one.
    #[error(
        "this node has no data and REPMGR_MASTER is true, but {address} has data of this cluster \
         and nobody leads: waits until somebody does (promote it: docker exec -u postgres … \
         repmgr standby promote), and joins"
    )]
    NobodyLeads {
        /// Who has data.
        address: Address,
    },
    /// Another one with REPMGR_MASTER=true has no data either.
    #[error(
        "{address} ({name}) has no data and REPMGR_MASTER=true either: {} first; set \
         REPMGR_MASTER=false on all but one", if *.gives_way { "it goes" } else { "this node goes" }
    )]
    Rival {
        /// Where it is.
        address: Address,
        /// What it is called.
        name: String,
        /// It goes first.
        gives_way: bool,
    },
    /// More than half of the voters do not answer.
    #[error(
        "the cluster's record of who leads cannot be read ({why}): waits for the voters; nobody \
         takes writes without them"
    )]
    Voters {
        /// In words.
        why: String,
    },
    /// Another one holds the lead, and does not serve yet, or any more.
    #[error(
        "{holder} ({address}) leads by the cluster's record, on timeline {timeline}, and does \
         not answer as the primary: waits until it serves, or another one leads, and joins it (if \
         it is gone for good, and no slave may lead without it: pgherd failover --to NODE \
         --allow-data-loss)"
    )]
    LeadElsewhere {
        /// The node's name.
        holder: String,
        /// Where it is.
        address: Address,
        /// Its timeline.
        timeline: Timeline,
    },
    /// The lead was handed over just now.
    #[error("the lead was handed to {to}: waits until it leads, and joins it")]
    Handed {
        /// The node's name.
        to: String,
    },
    /// By the record we led on a timeline that our disk has not.
    #[error(
        "by the cluster's record this node led on timeline {recorded}, and its volume ends on timeline          {ours}: was it put back to an earlier state? Waits until a node that has that history leads"
    )]
    OlderThanTheRecord {
        /// Of the record.
        recorded: Timeline,
        /// Of our disk.
        ours: Timeline,
    },
    /// Whoever could have a backup does not say so.
    #[error("RESTORE_FROM is set, and nobody who answers has a backup: waits for {why}")]
    Backups {
        /// Who is waited for.
        why: String,
    },
    /// There is a record of a cluster that lives, or has.
    #[error(
        "RESTORE_FROM is set, and by the cluster's record {holder} leads on timeline {timeline}: waits until \
         it does, and joins it; if all of that cluster's data is gone, and what is restored here is to take \
         its place: pgherd failover --allow-data-loss on this node"
    )]
    RestoreBesideRecord {
        /// The node's name.
        holder: String,
        /// Its timeline.
        timeline: Timeline,
    },
    /// Another one makes the cluster at this moment.
    #[error("{address} makes the cluster just now: waits until it leads, and joins it")]
    FirstStartElsewhere {
        /// Where.
        address: Address,
    },
}

impl Wait {
    /// Nothing that others do ends it, and meanwhile one of them might lead.
    pub fn is_about_this_node(&self) -> bool {
        matches!(self, Wait::NoRoom { .. })
    }

    /// Another one goes first.
    pub fn gives_way(&self) -> bool {
        matches!(self, Wait::Rival { gives_way: true, .. })
    }
}

fn does(silent: &[Address]) -> String {
    let names: Vec<_> = silent.iter().map(ToString::to_string).collect();
    let does = if names.len() == 1 { "does" } else { "do" };
    format!("{} {does}", names.join(", "))
}

fn more(missing: usize) -> String {
    if missing == 1 { "one more answer".to_owned() } else { format!("{missing} more answers") }
}
