//! Every state that can be reached, breadth first: the way to the first wrong one is the shortest.
//!
//! By hand, and not with the crate stateright: that checks "in the end somebody leads" along ways
//! that come to an end, and here nodes look again for ever. This is shorter than its dependencies.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

/// What happens, step by step.
pub(crate) trait Model {
    type State: Copy + Eq + Hash;
    type Action: Copy + Debug;

    fn first(&self) -> Self::State;
    /// All that may happen next.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;
    /// What it leads to; or what is wrong with it, in words.
    fn after(&self, state: &Self::State, action: Self::Action) -> Result<Self::State, String>;
}

/// All states that were reached, in the order of their distance.
pub(crate) struct Reached<S> {
    pub(crate) states: Vec<S>,
    pub(crate) number: HashMap<S, usize>,
    came_from: Vec<Option<(usize, String)>>,
}

/// More would not be "in small" any more: it takes longer than seconds.
const STATES_MAX: usize = 1_000_000;

/// All that can be reached; or the shortest way to something wrong.
pub(crate) fn search<M: Model>(model: &M) -> Result<Reached<M::State>, String> {
    let first = model.first();
    let mut reached =
        Reached { states: vec![first], number: HashMap::from([(first, 0)]), came_from: vec![None] };
    let mut at = 0;
    while let Some(state) = reached.states.get(at).copied() {
        for action in model.actions(&state) {
            let next = model.after(&state, action).map_err(|wrong| {
                format!("{}\n  {action:?}\n  wrong: {wrong}", reached.way_to(at))
            })?;
            if !reached.number.contains_key(&next) {
                reached.number.insert(next, reached.states.len());
                reached.states.push(next);
                reached.came_from.push(Some((at, format!("{action:?}"))));
            }
        }
        assert!(reached.states.len() < STATES_MAX, "the model has too many states");
        at += 1;
    }
    Ok(reached)
}

impl<S: Copy + Eq + Hash> Reached<S> {
    /// What happened, from the beginning.
    pub(crate) fn way_to(&self, number: usize) -> String {
        let mut way = Vec::new();
        let mut at = number;
        while let Some((before, action)) = &self.came_from[at] {
            way.push(format!("  {action}"));
            at = *before;
        }
        way.reverse();
        way.join("\n")
    }

    /// The first of the states that are `waiting` from which `calm` steps, whichever come, can
    /// never lead to one that is `good`. If there is none, and no possible step is put off for
    /// ever, what is waited for does happen.
    pub(crate) fn stuck(
        &self,
        waiting: impl Fn(&S) -> bool,
        good: impl Fn(&S) -> bool,
        calm: impl Fn(&S) -> Vec<S>,
    ) -> Option<usize> {
        let mut leads_from = vec![Vec::new(); self.states.len()];
        let mut hopeful = vec![false; self.states.len()];
        let mut to_do = Vec::new();
        for (number, state) in self.states.iter().enumerate().filter(|(_, one)| waiting(one)) {
            if good(state) {
                hopeful[number] = true;
                to_do.push(number);
            }
            for next in calm(state) {
                leads_from[self.number[&next]].push(number);
            }
        }
        while let Some(number) = to_do.pop() {
            for &before in &leads_from[number] {
                if !std::mem::replace(&mut hopeful[before], true) {
                    to_do.push(before);
                }
            }
        }
        (0..self.states.len()).find(|&number| waiting(&self.states[number]) && !hopeful[number])
    }
}
