use super::*;
use crate::cluster::Nonce;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn new(nonce: &str) -> Option<Vote> {
    Some(Vote::New { nonce: nonce.to_owned() })
}

fn token(members: &[(&str, &str)]) -> Token {
    Token(members.iter().map(|(name, nonce)| ((*name).to_owned(), (*nonce).to_owned())).collect())
}

fn others(votes: &[(&str, Option<Vote>)]) -> BTreeMap<String, Option<Vote>> {
    votes.iter().map(|(name, vote)| ((*name).to_owned(), vote.clone())).collect()
}

#[test]
fn the_first_of_those_that_are_new_makes_the_beginning_and_the_others_join_it() {
    let all = token(&[("node1", "a"), ("node2", "b"), ("node3", "c")]);
    let seen = others(&[("node2", new("b")), ("node3", new("c"))]);
    assert_eq!(begins("node1", "a", &seen, true), Some(all.clone()));
    let seen = others(&[("node1", new("a")), ("node3", new("c"))]);
    assert_eq!(begins("node2", "b", &seen, true), None, "it is not its to make");
    let seen = others(&[("node1", Some(Vote::Begins { token: all.clone() })), ("node3", None)]);
    assert_eq!(begins("node2", "b", &seen, true), Some(all.clone()));
    assert_eq!(begins("node2", "another", &seen, false), None, "its disk was lost since");
}

#[test]
fn a_silent_voter_is_waited_for_and_one_that_remembers_is_no_part_of_it() {
    let seen = others(&[("node2", new("b")), ("node3", None)]);
    assert_eq!(begins("node1", "a", &seen, true), None);
    let without = Some(token(&[("node1", "a"), ("node2", "b")]));
    assert_eq!(begins("node1", "a", &seen, false), without);
    let seen = others(&[("node2", new("b")), ("node3", Some(Vote::Remembers))]);
    assert_eq!(begins("node1", "a", &seen, true), without);
    let seen = others(&[("node2", Some(Vote::Remembers)), ("node3", Some(Vote::Remembers))]);
    assert_eq!(begins("node1", "a", &seen, false), None, "it joins those");
}

/// A voter as it is in the walk below.
#[derive(Clone, Debug)]
struct Voter {
    nonce: Nonce,
    token: Option<Token>,
    voted: bool,
}

#[derive(Clone, Debug)]
struct Walk {
    voters: BTreeMap<String, Voter>,
    /// Pairs that cannot reach each other.
    cut: BTreeSet<(String, String)>,
    nonces: u32,
    /// Beginnings that had a majority at some time.
    formed: BTreeSet<Token>,
    /// Who has begun what, in any of its lives.
    begun: BTreeSet<(String, Token)>,
    /// Somebody did so in two: to etcd it is one that has forgotten what it acknowledged.
    was_taken_for_itself: bool,
    /// A guard is taken away.
    spoil: Spoil,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoil {
    Nothing,
    NoncesDoNotCount,
    WhoeverWaitsBeginsAgain,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Look { who: usize, patience: bool },
    BeginAgain { who: usize },
    LoseDisk { who: usize },
    Cut { one: usize, other: usize },
    Mend,
}

impl Walk {
    fn new(voters: usize, spoil: Spoil) -> Self {
        let voter = |n: usize| Voter { nonce: n.to_string(), token: None, voted: false };
        let voters: BTreeMap<_, _> = (1..=voters).map(|n| (format!("node{n}"), voter(n))).collect();
        Walk {
            voters,
            cut: BTreeSet::new(),
            nonces: 100,
            formed: BTreeSet::new(),
            begun: BTreeSet::new(),
            was_taken_for_itself: false,
            spoil,
        }
    }

    fn is_safe(&self) -> bool {
        self.formed.len() <= 1 && !self.was_taken_for_itself
    }

    fn name(&self, nth: usize) -> String {
        format!("node{}", nth % self.voters.len() + 1)
    }

    fn reach(&self, one: &str, other: &str) -> bool {
        let (one, other) = (one.to_owned(), other.to_owned());
        !self.cut.contains(&(one.clone(), other.clone())) && !self.cut.contains(&(other, one))
    }

    fn others(&self, us: &str) -> BTreeMap<String, Option<Vote>> {
        let others = self.voters.iter().filter(|(name, _)| *name != us);
        others.map(|(name, one)| (name.clone(), self.reach(us, name).then(|| one.vote()))).collect()
    }

    /// Those that hold what `us` holds and reach it.
    fn together(&self, us: &str) -> Vec<String> {
        let held = &self.voters[us].token;
        let is_with = |name: &&String| self.voters[*name].token == *held && self.reach(us, name);
        self.voters.keys().filter(|_| held.is_some()).filter(is_with).cloned().collect()
    }

    /// etcd has a leader where a majority holds the same, and each of them is part of it.
    fn meet(&mut self) {
        for us in self.voters.keys().cloned().collect::<Vec<_>>() {
            let together = self.together(&us);
            if together.len() * 2 > self.voters.len() {
                self.formed.extend(self.voters[&us].token.clone());
                for name in together {
                    self.voters.get_mut(&name).unwrap().voted = true;
                }
            }
        }
    }

    /// A cluster that has a majority and reaches `us`, which is no part of it.
    fn found_by(&self, us: &str) -> Option<Token> {
        let held = &self.voters[us].token;
        let led = self.voters.keys().filter(|name| {
            self.together(name).len() * 2 > self.voters.len() && self.reach(us, name)
        });
        led.map(|name| self.voters[name].token.clone()).find(|token| token != held)?
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Look { who, patience } => {
                let us = self.name(who);
                let found = self.found_by(&us);
                let Voter { nonce, token, .. } = self.voters[&us].clone();
                if found.is_some() {
                    let joined = Voter { nonce, token: found, voted: true };
                    self.voters.insert(us, joined);
                } else if token.is_none() {
                    let others = self.others(&us);
                    let mine = |vote: &Vote| match vote {
                        Vote::Begins { token } => token.0.get(&us).cloned(),
                        Vote::New { .. } | Vote::Remembers => None,
                    };
                    let nonce = match self.spoil {
                        Spoil::NoncesDoNotCount => others.values().flatten().find_map(mine),
                        Spoil::Nothing | Spoil::WhoeverWaitsBeginsAgain => None,
                    }
                    .unwrap_or(nonce);
                    let begun = begins(&us, &nonce, &others, patience);
                    if let Some(token) = &begun {
                        self.was_taken_for_itself |=
                            !self.begun.insert((us.clone(), token.clone()));
                    }
                    self.voters.get_mut(&us).unwrap().token = begun;
                }
            }
            Act::BeginAgain { who } => {
                let us = self.name(who);
                let one = &self.voters[&us];
                let may = may_begin_again(&self.others(&us));
                let may = may || self.spoil == Spoil::WhoeverWaitsBeginsAgain;
                let waits = self.together(&us).len() * 2 <= self.voters.len();
                let unheard = !one.voted || self.spoil == Spoil::WhoeverWaitsBeginsAgain;
                if one.token.is_some() && unheard && waits && may {
                    self.replace(&us);
                }
            }
            // Fewer than would take the majority that knows what was agreed on.
            Act::LoseDisk { who } => {
                let us = self.name(who);
                let know = self.voters.iter().filter(|(name, one)| **name != us && one.voted);
                if self.formed.is_empty() || know.count() * 2 > self.voters.len() {
                    self.replace(&us);
                }
            }
            Act::Cut { one, other } => {
                self.cut.insert((self.name(one), self.name(other)));
            }
            Act::Mend => self.cut.clear(),
        }
        self.meet();
    }

    fn replace(&mut self, us: &str) {
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        self.voters.insert(us.to_owned(), Voter { nonce, token: None, voted: false });
    }
}

impl Voter {
    fn vote(&self) -> Vote {
        match &self.token {
            _ if self.voted => Vote::Remembers,
            Some(token) => Vote::Begins { token: token.clone() },
            None => Vote::New { nonce: self.nonce.clone() },
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0..5_usize;
    prop_oneof![
        6 => (who.clone(), any::<bool>()).prop_map(|(who, patience)| Act::Look { who, patience }),
        2 => who.clone().prop_map(|who| Act::BeginAgain { who }),
        1 => who.clone().prop_map(|who| Act::LoseDisk { who }),
        2 => (who.clone(), who).prop_map(|(one, other)| Act::Cut { one, other }),
        1 => Just(Act::Mend),
    ]
}

fn walked(voters: usize, acts: &[Act], spoil: Spoil) -> Walk {
    let mut walk = Walk::new(voters, spoil);
    acts.iter().for_each(|act| walk.act(*act));
    walk
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn at_most_one_beginning_ever_has_a_majority_and_nobody_is_taken_for_itself(
        voters in prop_oneof![Just(3_usize), Just(5)],
        acts in prop::collection::vec(act(), 0..60),
    ) {
        let walk = walked(voters, &acts, Spoil::Nothing);
        prop_assert!(walk.is_safe(), "{walk:#?}");
    }

    #[test]
    fn whatever_was_they_have_a_majority_when_all_reach_each_other(
        voters in prop_oneof![Just(3_usize), Just(5)],
        acts in prop::collection::vec(act(), 0..60),
    ) {
        let mut walk = walked(voters, &acts, Spoil::Nothing);
        walk.act(Act::Mend);
        for _ in 0..4 {
            (0..voters).for_each(|who| walk.act(Act::Look { who, patience: true }));
            (0..voters).for_each(|who| walk.act(Act::Look { who, patience: true }));
            (0..voters).for_each(|who| walk.act(Act::BeginAgain { who }));
        }
        let held: BTreeSet<_> = walk.voters.values().map(|one| one.token.clone()).collect();
        prop_assert!(held.len() == 1 && !held.contains(&None), "{walk:#?}");
    }
}

/// The walk above would notice.
#[test]
fn without_either_guard_it_is_not_so() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    for spoil in [Spoil::NoncesDoNotCount, Spoil::WhoeverWaitsBeginsAgain] {
        let mut runner = TestRunner::deterministic();
        let acts = prop::collection::vec(act(), 60);
        let found = (0..5000).any(|_| {
            let acts = acts.new_tree(&mut runner).unwrap().current();
            !walked(3, &acts, spoil).is_safe()
        });
        assert!(found, "{spoil:?}");
    }
}
