//! Every state that can be reached, breadth first, so that the way to something wrong is the
//! shortest. Two threads share each distance. By hand, as in `tests/who_leads`, and not with the
//! crate stateright: "in the end somebody leads" is asked here of every state, along one calm way.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Mutex;
use std::thread;

pub(crate) trait Model: Sync {
    type State: Copy + Eq + Hash + Send + Sync;
    type Action: Copy + Debug + Send + Sync;

    fn first(&self) -> Self::State;
    /// All that may happen next, and what it leads to; or what is wrong with that.
    #[expect(clippy::type_complexity, reason = "it is said once, here")]
    fn next(&self, state: &Self::State) -> Vec<(Self::Action, Result<Self::State, String>)>;
}

/// More would take minutes.
const STATES_MAX: usize = 1_500_000;
const THREADS: usize = 2;

pub(crate) struct Reached<S, A> {
    pub(crate) states: Vec<S>,
    came_from: Vec<Option<(usize, A)>>,
}

pub(crate) fn search<M: Model>(model: &M) -> Result<Reached<M::State, M::Action>, String> {
    let first = model.first();
    let mut reached = Reached { states: vec![first], came_from: vec![None] };
    let mut number: HashMap<u64, (), BuildHasherDefault<Quick>> = HashMap::default();
    number.insert(fingerprint(&first), ());
    let (mut from, mut depth) = (0, 0);
    while from < reached.states.len() {
        let to = reached.states.len();
        let share = (to - from).div_ceil(THREADS);
        let found: Vec<_> = thread::scope(|scope| {
            let parts = reached.states[from..to].chunks(share);
            let workers: Vec<_> = parts
                .map(|part| scope.spawn(move || part.iter().map(|one| model.next(one)).collect()))
                .collect();
            workers
                .into_iter()
                .flat_map(|one| -> Vec<_> { one.join().expect("it does not panic") })
                .collect()
        });
        for (at, nexts) in (from..).zip(found) {
            for (action, next) in nexts {
                let next = next.map_err(|wrong| {
                    format!("{}\n  {action:?}\n  wrong: {wrong}", reached.way_to(at))
                })?;
                if number.insert(fingerprint(&next), ()).is_none() {
                    reached.states.push(next);
                    reached.came_from.push(Some((at, action)));
                }
            }
        }
        assert!(
            reached.states.len() < STATES_MAX,
            "the model has too many states: {} after {depth} steps",
            reached.states.len()
        );
        depth += 1;
        from = to;
    }
    Ok(reached)
}

impl<S, A: Debug> Reached<S, A> {
    pub(crate) fn way_to(&self, number: usize) -> String {
        let mut way = Vec::new();
        let mut at = number;
        while let Some((before, action)) = &self.came_from[at] {
            way.push(format!("  {action:?}"));
            at = *before;
        }
        way.reverse();
        way.join("\n")
    }
}

/// What the product answered once; the same question has the same answer.
pub(crate) struct Memory<V>(Mutex<HashMap<u64, V, BuildHasherDefault<Quick>>>);

impl<V> Default for Memory<V> {
    fn default() -> Self {
        Memory(Mutex::default())
    }
}

impl<V: Copy> Memory<V> {
    pub(crate) fn remembered<K: Hash>(&self, key: &K, answer: impl FnOnce() -> V) -> V {
        let key = fingerprint(key);
        if let Some(known) = self.0.lock().expect("nobody panics with it").get(&key) {
            return *known;
        }
        let answer = answer();
        self.0.lock().expect("nobody panics with it").insert(key, answer);
        answer
    }
}

/// 64 bits: two of a million states are taken for one another once in some 10 million runs.
pub(crate) fn fingerprint<S: Hash>(state: &S) -> u64 {
    let mut hasher = Quick::default();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Multiply and rotate, twice over: the tests are not optimised, and SipHash is slow then.
#[derive(Default)]
pub(crate) struct Quick(u64);

impl Quick {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 29)
    }
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.add(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.add(value.into());
    }
    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }
    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }
    fn write_isize(&mut self, value: isize) {
        self.add(value as u64);
    }
}
