//! When faults have ended, somebody leads again: along one calm way from every state.

use crate::acts::Outcome;
use crate::model::{Action, Herd};
use crate::search::fingerprint;
use crate::state::{NODES, State};
use std::collections::HashSet;

/// A lease to wait, another for whom the lead was handed to, and as much again.
const TICKS_MAX: usize = 20;
/// So much can happen in a tick.
const ROUNDS_MAX: usize = 40;

impl Herd {
    /// Ends well from `state`, where `down` stays so. `known` are states that do.
    pub(crate) fn ends_well(
        &self,
        state: &State,
        down: Option<usize>,
        known: &mut HashSet<u64>,
    ) -> Result<(), String> {
        let mut now = self.calmed(state, down).normal();
        let mut way = Vec::new();
        for _ in 0..TICKS_MAX {
            if now.is_led() || known.contains(&fingerprint(&now)) {
                known.extend(way);
                return Ok(());
            }
            way.push(fingerprint(&now));
            now = self.tick_of_calm(now);
        }
        Err(format!("nobody leads in the end: {now:#?}"))
    }

    fn tick_of_calm(&self, mut now: State) -> State {
        for _ in 0..ROUNDS_MAX {
            let before = now;
            for node in (0..NODES).filter(|node| before.nodes[*node].up) {
                for action in [
                    Action::Arrives(node),
                    Action::ReadBack(node),
                    Action::Release(node),
                    Action::Open(node),
                    Action::StartPrimary(node),
                    Action::Promote(node),
                    Action::Renew(node),
                    Action::Synchronous(node, None),
                    Action::Look(node),
                    Action::Follow(node),
                ] {
                    let looks = matches!(action, Action::Look(_));
                    if looks && now.nodes[node].hold.is_some() {
                        continue;
                    }
                    if let Outcome::Leads(next) = self.after(&now, action) {
                        now = next.normal();
                    }
                }
            }
            if now == before {
                break;
            }
        }
        match self.after(&now, Action::Tick(None)) {
            Outcome::Leads(next) => next.normal(),
            Outcome::Cannot => now,
        }
    }
}
