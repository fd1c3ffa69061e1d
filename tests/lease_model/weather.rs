//! What goes wrong from outside, and what ends that.

use crate::model::{Action, Herd};
use crate::state::{NODES, OLD, State, View};

impl Herd {
    pub(crate) fn weather(&self, next: &mut State, action: Action) -> Option<()> {
        let costs = |next: &mut State, there_is: bool| {
            there_is.then_some(())?;
            next.left.faults = next.left.faults.checked_sub(1)?;
            Some(())
        };
        let may = |node: usize| self.fail & (1 << node) != 0;
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is no weather")]
        match action {
            Action::Crash(node) => {
                costs(next, self.faults.crash && may(node))?;
                crash(next, node);
            }
            Action::Restart(node) => restart(next, node),
            Action::Pause(node) => {
                costs(next, self.faults.pause && may(node))?;
                next.nodes[node].paused = true;
            }
            Action::Thaw(node) => {
                next.nodes[node].paused = false;
                self.fence_now(next, node);
            }
            Action::Stall(node) => {
                costs(next, self.faults.stall && may(node))?;
                next.nodes[node].stalled = true;
            }
            Action::GoOn(node) => next.nodes[node].stalled = false,
            Action::Cut(node) => {
                costs(next, self.faults.cut && may(node))?;
                next.nodes[node].cut = true;
            }
            Action::Mend(node) => next.nodes[node].cut = false,
            Action::CutLink(away) => {
                next.cut_link.is_none().then_some(())?;
                costs(next, self.faults.link)?;
                next.cut_link = Some(away);
            }
            Action::MendLink => next.cut_link = None,
            Action::Outage => {
                (!next.outage).then_some(())?;
                costs(next, self.faults.outage)?;
                next.outage = true;
            }
            Action::OutageEnds => next.outage = false,
            _ => return None,
        }
        Some(())
    }

    /// Faults end: what is cut is mended, what is frozen goes on, what is down starts, but `down`.
    pub(crate) fn calmed(&self, state: &State, down: Option<usize>) -> State {
        let mut next = *state;
        (next.outage, next.cut_link) = (false, None);
        next.left = super::NOTHING_LEFT;
        for node in 0..NODES {
            let one = &mut next.nodes[node];
            (one.cut, one.stalled) = (false, false);
            if one.paused {
                one.paused = false;
                self.fence_now(&mut next, node);
            }
            if !next.nodes[node].up && down != Some(node) {
                restart(&mut next, node);
            }
        }
        next
    }
}

fn crash(next: &mut State, node: usize) {
    let one = &mut next.nodes[node];
    one.is_fenced();
    one.up = false;
    one.serves = false;
    one.stalled = false;
    one.paused = false;
    one.view = View { seen: None, current: false, changed: OLD, agreed: None, tries: None };
}

/// A standby's server always runs; a primary's only when it has the lead.
fn restart(next: &mut State, node: usize) {
    let one = &mut next.nodes[node];
    one.up = true;
    one.serves = !one.primary;
}
