//! Why a node does not take the lead, or does not agree; and what would change that.

use crate::cluster::{SystemId, Timeline};
use std::time::Duration;

/// One line for people each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The cluster has not been made; or its voters have begun anew, and its last primary is gone.
    #[error(
        "nobody has led this cluster as far as the voters know: start the node that makes it, or that led it \
         last; to have a standby lead with what it has: pgherd failover --to NODE --allow-data-loss"
    )]
    NoRecord,
    /// The store did not answer lately.
    #[error(
        "it could not be read just now who leads: more than half of the voters must run and be reached"
    )]
    NotRead,
    /// The directory is a copy of something else.
    #[error("{us} has data of another cluster ({ours}, not {theirs}): give it an empty volume")]
    OtherCluster {
        /// Who asks.
        us: String,
        /// What it has.
        ours: SystemId,
        /// What the record is about.
        theirs: SystemId,
    },
    /// Its copy is younger than what the record knows of it.
    #[error(
        "{us} was copied, and not seen yet to have all that its primary had: it has to follow a primary first, or: pgherd failover --to {us} --allow-data-loss"
    )]
    Behind {
        /// Who asks.
        us: String,
    },
    /// A person said so.
    #[error("failover is paused: pgherd resume, or: pgherd failover --to {us}")]
    Paused {
        /// Who asks.
        us: String,
    },
    /// Priority 0.
    #[error("{us} has priority 0, so it is never chosen: pgherd failover --to {us}")]
    NeverChosen {
        /// Who asks.
        us: String,
    },
    /// A person said so.
    #[error("{us} is in maintenance: end that, or: pgherd failover --to {us}")]
    InMaintenance {
        /// Who asks.
        us: String,
    },
    /// The lease is not over yet.
    #[error("{holder} leads, or may write for {} ms yet", left.as_millis())]
    Leads {
        /// Who has it.
        holder: String,
        /// How long that is so, if nothing is heard of it.
        left: Duration,
    },
    /// Another goes first.
    #[error("the lead was handed to {to}: it is its for {} ms yet", left.as_millis())]
    HandedTo {
        /// To whom.
        to: String,
        /// How long that is so.
        left: Duration,
    },
    /// A holder was promoted, or not, and has not said so.
    #[error(
        "{holder} was about to lead and may have begun a new history: start {holder}, or: pgherd failover --to {us}"
    )]
    Opening {
        /// Who has it.
        holder: String,
        /// Who asks.
        us: String,
    },
    /// It may lack what was acknowledged.
    #[error(
        "{us} was not synchronous with the last primary, {holder}: it may lack acknowledged writes; start {complete}, or: pgherd failover --to {us} --allow-data-loss"
    )]
    NotSynchronous {
        /// Who asks.
        us: String,
        /// Who led.
        holder: String,
        /// Who has everything: "node1 or node3".
        complete: String,
    },
    /// It did not follow whoever led last, or went its own way.
    #[error(
        "{us} is on timeline {ours}, and {holder} led on {theirs}: start {complete}, or: pgherd failover --to {us} --allow-data-loss"
    )]
    OtherHistory {
        /// Who asks.
        us: String,
        /// Where it is.
        ours: Timeline,
        /// Who led.
        holder: String,
        /// On what.
        theirs: Timeline,
        /// Who has everything.
        complete: String,
    },
    /// Nothing is synchronous, and too few answer to say who has most.
    #[error(
        "only {answer} of {members} nodes with data answer, so nobody knows who has most: start {holder}, or more of them, or: pgherd failover --to {us} --allow-data-loss"
    )]
    TooFewAnswer {
        /// Who asks.
        us: String,
        /// So many, with us.
        answer: usize,
        /// Of so many.
        members: usize,
        /// Who led.
        holder: String,
    },
    /// Nothing is synchronous, and another has more.
    #[error(
        "{to} has more than {us}: let it lead, or: pgherd failover --to {us} --allow-data-loss"
    )]
    HasLess {
        /// Who asks.
        us: String,
        /// Who has more.
        to: String,
    },
    /// Another that may as well is the better one.
    #[error("{to} may lead as well, and goes first")]
    GivesWay {
        /// Which.
        to: String,
    },
    /// No agreement: we try to take the lead.
    #[error("it tries to take the lead itself")]
    TriesItself,
    /// No agreement: the asker's lead is gone.
    #[error("{by} has the lead (epoch {epoch}), or had it last")]
    Succeeded {
        /// Who.
        by: String,
        /// At which taking.
        epoch: u64,
    },
}

impl Why {
    /// It is over after a lease or two, and nothing else changes when it is.
    pub fn passes_with_time(&self) -> bool {
        match self {
            Why::NotRead
            | Why::Leads { .. }
            | Why::HandedTo { .. }
            | Why::HasLess { .. }
            | Why::GivesWay { .. } => true,
            Why::NoRecord
            | Why::OtherCluster { .. }
            | Why::Behind { .. }
            | Why::TooFewAnswer { .. }
            | Why::Paused { .. }
            | Why::NeverChosen { .. }
            | Why::InMaintenance { .. }
            | Why::Opening { .. }
            | Why::NotSynchronous { .. }
            | Why::OtherHistory { .. }
            | Why::TriesItself
            | Why::Succeeded { .. } => false,
        }
    }
}
