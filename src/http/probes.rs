//! What load balancers and orchestrators ask: 200 or 503, by Patroni's paths and their meaning.

use crate::cluster::NodeState;
use crate::control::{NodeRole, NodeStatus, Snapshot};

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It takes writes, and may.
    Primary,
    /// It serves reads as a standby.
    Replica,
    /// It serves reads.
    ReadOnly,
    /// A standby with every acknowledged write.
    Sync,
    /// A standby that may lack some.
    Async,
    /// Reads that see every acknowledged write, or nearly so: the primary or such a standby.
    ReadOnlySync,
    /// Postgres runs and serves; on a node without one, what it is for.
    Running,
    /// The node half's loop runs.
    Alive,
}

/// Every path, and what it asks. `/` asks the same as `/primary` of whoever is no browser.
pub(super) const PATHS: &[(&str, Probe)] = &[
    ("/primary", Probe::Primary),
    ("/master", Probe::Primary),
    ("/leader", Probe::Primary),
    ("/read-write", Probe::Primary),
    ("/replica", Probe::Replica),
    ("/read-only", Probe::ReadOnly),
    ("/sync", Probe::Sync),
    ("/synchronous", Probe::Sync),
    ("/async", Probe::Async),
    ("/asynchronous", Probe::Async),
    ("/read-only-sync", Probe::ReadOnlySync),
    ("/read-only-synchronous", Probe::ReadOnlySync),
    ("/health", Probe::Running),
    ("/readiness", Probe::Running),
    ("/liveness", Probe::Alive),
];

impl Probe {
    /// Of the node that answers. A standby that is more than `lag_max` bytes behind does not count, nor
    /// does one of which that is not known. While nobody leads, it is as far behind as when somebody did.
    pub(super) fn holds(self, seen: &Snapshot, lag_max: Option<u64>) -> bool {
        let Some(own) = seen.nodes.first() else { return false };
        let near = || lag_max.is_none_or(|max| own.lag_bytes.is_some_and(|lag| lag <= max));
        let standby = || serves_as(own, NodeRole::Standby) && near();
        let primary = || leads(seen, own);
        match self {
            Probe::Primary => primary(),
            Probe::Replica => standby(),
            Probe::ReadOnly => primary() || standby(),
            Probe::Sync => standby() && own.sync,
            Probe::Async => standby() && !own.sync,
            Probe::ReadOnlySync => primary() || (standby() && own.sync),
            Probe::Running => is_running(own) && (own.role != Some(NodeRole::Standby) || near()),
            Probe::Alive => true,
        }
    }
}

/// It takes writes; and where there is a record of who may, that names it.
fn leads(seen: &Snapshot, own: &NodeStatus) -> bool {
    let by_the_record = seen.holder.as_ref().is_none_or(|holder| *holder == own.name);
    serves_as(own, NodeRole::Primary) && by_the_record
}

fn is_running(node: &NodeStatus) -> bool {
    node.state == NodeState::Running
}

fn serves_as(node: &NodeStatus, role: NodeRole) -> bool {
    is_running(node) && node.role == Some(role)
}

/// `lag=` in bytes, or with a unit as Postgres writes it: `16kB`, `64MB`, `1 GB`. None: it is something
/// else.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kb" => 10,
        "mb" => 20,
        "gb" => 30,
        "tb" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
