//! The model: nodes with what is on their disks, the people, and the network.
//!
//! What a node does when it starts is the product's own `recognise`. What it does while it serves
//! is `control::decide` in three lines.

use crate::node::{History, Life, Node, Untold};
use crate::promises::{ALL, ReliesOn};
use crate::search::Model;
use crate::words::{Answers, Stands, Told, address, after_a_leader_on, sighting, situation};
use pgherd::cluster::{Role, Sighting};
use pgherd::scenario::{self, Decision, Scenario, Situation};
use pgherd::settings::{self, Settings};
use std::cell::RefCell;
use std::collections::HashMap;

/// Room for three nodes with data and one without.
pub(crate) const NODES_MAX: usize = 4;
/// The one without.
pub(crate) const BACKUP: usize = 3;

pub(crate) type State = [Node; NODES_MAX];

/// A bit for each node.
pub(crate) type Set = u8;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Now(Event),
    /// A node that starts asked these before that, and only then draws its conclusions.
    LookedBefore(usize, Set, Event),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Kill(usize),
    Start(usize),
    /// A person says that whoever is silent is gone.
    Word(usize),
    /// A hand promotes it, and these see it.
    Promote(usize, Set),
    /// A node that starts asks; these answer.
    Look(usize, Set),
    /// A node that serves asks; these answer.
    Observe(usize, Set),
    /// A node that joins finds a primary among these.
    Join(usize, Set),
}

pub(crate) struct Herd {
    pub(crate) members: &'static [usize],
    /// So often somebody is promoted.
    pub(crate) timelines_max: u8,
    /// A hand may promote beside a primary that it does not see.
    pub(crate) two_by_hand: bool,
    /// A person may say that whoever is silent is gone.
    pub(crate) words: bool,
    pub(crate) relies_on: ReliesOn,
    /// Takes a guard of `recognise` away by taking from it what that looks at.
    pub(crate) spoil: fn(&mut Situation),
    pub(crate) settings: Settings,
    pub(crate) known: RefCell<HashMap<Asked, Begins>>,
}

/// All that the answer of `recognise` depends on.
type Asked = (usize, Node, Answers, bool, [bool; NODES_MAX]);

/// What a node that looks begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    Nothing,
    ToRecover,
    ToLead,
    ToServeReads,
    ToJoin,
}

impl Herd {
    pub(crate) fn new(members: &'static [usize], timelines_max: u8) -> Self {
        let no_files = |_: &std::path::Path| Ok(String::new());
        let settings = settings::read([], no_files).expect("these settings are right");
        Herd {
            members,
            timelines_max,
            two_by_hand: false,
            words: false,
            relies_on: ALL,
            spoil: |_| {},
            settings,
            known: RefCell::default(),
        }
    }

    fn others(&self, node: usize) -> impl Iterator<Item = usize> {
        self.members.iter().copied().filter(move |other| *other != node)
    }

    fn data_nodes(&self) -> impl Iterator<Item = usize> {
        self.members.iter().copied().filter(|node| *node != BACKUP)
    }

    /// What `node` tells whoever asks.
    fn tells(&self, node: usize, state: &State) -> Option<Told> {
        let Node { life, role, history, newest, untold, given_up, .. } = state[node];
        let timeline = history.timeline();
        let from_the_start = self.relies_on.memory_is_told_from_the_start;
        let stands = match (life, untold) {
            (Life::Down, _) => return None,
            (Life::Serves | Life::Looks, _) if node == BACKUP => Stands::NoData,
            (Life::Looks | Life::Joins, _) | (Life::Serves, Untold::Started) => {
                Stands::AtRest(role, timeline)
            }
            (Life::Serves, Untold::Promoted) => Stands::Serving(Role::Standby, timeline - 1),
            (Life::Serves, Untold::Nothing) => Stands::Serving(role, timeline),
        };
        let knows = from_the_start || (life == Life::Serves && untold != Untold::Started);
        Some(Told { stands, newest: knows.then_some(newest), given_up })
    }

    fn answers(&self, node: usize, from: Set, state: &State) -> Answers {
        let mut answers = [None; NODES_MAX];
        for other in self.others(node).filter(|other| from & (1 << other) != 0) {
            answers[other] = self.tells(other, state);
        }
        answers
    }

    /// All sets of members that are up, without `node`.
    fn sets(&self, node: usize, state: &State) -> Vec<Set> {
        let up = self.others(node).filter(|other| state[*other].life != Life::Down);
        up.fold(vec![0], |sets, other| {
            sets.iter().flat_map(|set| [*set, set | (1 << other)]).collect()
        })
    }

    /// The product's own decision.
    fn begins(&self, node: usize, state: &State, answers: Answers, alone: bool) -> Begins {
        let gone = state.map(|one| one.is_gone);
        let key = (node, state[node], answers, alone, gone);
        if let Some(known) = self.known.borrow().get(&key) {
            return *known;
        }
        let mut sightings = self.sightings(node, answers);
        // Who is gone was taken out, too.
        let is_gone = |other: &usize| state[*other].is_gone;
        let gone: Vec<_> = self.others(node).filter(is_gone).map(address).collect();
        sightings.iter_mut().for_each(|one| one.known = !gone.contains(&one.address));
        let mut situation = situation(node, &state[node], alone, sightings);
        (self.spoil)(&mut situation);
        let begins = match scenario::recognise(&self.settings, &situation) {
            Ok(Decision::Begin(Scenario::PrimaryRestart { .. })) => Begins::ToLead,
            Ok(Decision::Begin(Scenario::Recovery)) => Begins::ToRecover,
            Ok(Decision::Begin(Scenario::StandbyRestart { .. })) => Begins::ToServeReads,
            Ok(Decision::Begin(Scenario::Rejoin { .. })) => Begins::ToJoin,
            Ok(Decision::Begin(other)) => panic!("{other:?} begins with nothing on this disk"),
            // The container ends, and is started again.
            Ok(Decision::Wait(_)) | Err(_) => Begins::Nothing,
        };
        self.known.borrow_mut().insert(key, begins);
        begins
    }

    fn sightings(&self, node: usize, answers: Answers) -> Vec<Sighting> {
        self.others(node).map(|other| sighting(other, answers[other])).collect()
    }

    fn look(
        &self,
        node: usize,
        state: &State,
        answers: Answers,
        alone: bool,
    ) -> Result<State, String> {
        let mut next = *state;
        match self.begins(node, state, answers, alone) {
            Begins::Nothing => {}
            // Out of reach; and then it looks again.
            Begins::ToRecover => next[node].was_killed = false,
            Begins::ToJoin => next[node].life = Life::Joins,
            Begins::ToServeReads => next[node].life = Life::Serves,
            Begins::ToLead => {
                self.may_lead(node, state)?;
                let told_so = |other: &usize| matches!(answers[*other], Some(told) if told.leads());
                if let Some(other) = self.others(node).find(told_so) {
                    return Err(format!("n{node} leads although n{other} says that it does"));
                }
                next[node].life = Life::Serves;
            }
        }
        if next[node].life == Life::Serves && !self.relies_on.all_is_told_at_once {
            next[node].untold = Untold::Started;
        }
        Ok(next)
    }

    /// What must hold whenever a node begins to lead.
    fn may_lead(&self, node: usize, state: &State) -> Result<(), String> {
        let ours = state[node].history;
        for other in self.data_nodes().filter(|other| *other != node && !state[*other].is_gone) {
            let theirs = state[other].history;
            // One that a hand has left behind takes writes until it sees its successor.
            let left_behind = self.two_by_hand && theirs.timeline() < ours.timeline();
            if state[other].leads() && !left_behind {
                return Err(format!("n{node} leads beside n{other}"));
            }
            if theirs.timeline() > ours.timeline() {
                return Err(format!("n{node} leads with older history than n{other} has"));
            }
            if theirs.timeline() == ours.timeline() && theirs != ours {
                return Err(format!("n{node} and n{other} went two ways on one timeline"));
            }
        }
        Ok(())
    }

    /// Who leads, by the words of those who were asked.
    fn leader(&self, answers: Answers) -> Option<(usize, u8)> {
        let sightings: Vec<_> =
            (0..NODES_MAX).map(|other| sighting(other, answers[other])).collect();
        let (timeline, leader) = Situation::leader_among(&sightings).ok()??;
        let node = self.members.iter().position(|node| address(*node) == leader.address)?;
        Some((self.members[node], timeline.0 as u8))
    }

    /// A server that serves looks around, and the rules apply.
    fn observe(&self, node: usize, state: &State, from: Set) -> Result<State, String> {
        let answers = self.answers(node, from, state);
        let mut next = *state;
        let own = &mut next[node];
        own.untold = Untold::Nothing;
        let heard = answers.iter().flatten().map(|told| match told.stands {
            Stands::AtRest(_, timeline) | Stands::Serving(_, timeline) => {
                told.newest.max(Some(timeline))
            }
            Stands::NoData => told.newest,
        });
        let any = !self.relies_on.words_are_taken_from_leaders;
        let by = answers.iter().flatten().filter(|told| any || told.leads());
        let words = by.map(|told| told.given_up);
        let word = words.chain([own.given_up]).max().flatten();
        own.given_up = match self.leader(answers) {
            Some((_, timeline)) => word.map(|word| after_a_leader_on(timeline, word)),
            None => word,
        };
        let has = if node == BACKUP { 0 } else { own.history.timeline() };
        own.newest = heard.flatten().chain([has, own.newest]).max().unwrap_or_default();
        let Some((leader, timeline)) = self.leader(answers).filter(|_| node != BACKUP) else {
            return Ok(next);
        };
        let ours = own.history.timeline();
        match own.role {
            // Killed, and not shut down: it must take no more writes at once.
            Role::Primary if timeline > ours => (own.life, own.was_killed) = (Life::Joins, true),
            Role::Standby if timeline >= ours => self.takes(node, leader, &mut next)?,
            Role::Primary | Role::Standby => {}
        }
        Ok(next)
    }

    /// A node has what the leader has from now on.
    fn takes(&self, node: usize, leader: usize, next: &mut State) -> Result<(), String> {
        let theirs = next[leader].history;
        if !next[leader].leads() {
            return Ok(()); // It does not any more.
        }
        if theirs.timeline() < next[node].history.timeline() {
            return Err(format!("n{node} gives newer history up for that of n{leader}"));
        }
        let own = &mut next[node];
        let newest = own.newest.max(theirs.timeline());
        *own = Node {
            life: Life::Serves,
            role: Role::Standby,
            history: theirs,
            newest,
            was_killed: false,
            ..*own
        };
        Ok(())
    }

    /// A person's word, once in a story: nobody leads, and whoever is down stays so.
    fn may_be_told(&self, node: usize, state: &State) -> bool {
        let said = state.iter().any(|node| node.is_gone || node.given_up.is_some());
        let all_answer = self.members.iter().all(|node| state[*node].life != Life::Down);
        self.words
            && state[node].role == Role::Primary
            && !said
            && !all_answer
            && !state.iter().any(Node::leads)
    }

    fn word(&self, node: usize, state: &State) -> Result<State, String> {
        let mut next = *state;
        let answers = self.answers(node, Set::MAX, state);
        let heard = answers.iter().flatten().filter_map(|told| told.newest);
        let up_to = heard.chain([state[node].newest]).max().unwrap_or_default();
        let kept = state[node].history.timeline();
        next[node].given_up = (up_to > kept).then_some((1, up_to, kept)); // The first one.
        for other in self.members {
            next[*other].is_gone = state[*other].life == Life::Down;
        }
        next[node].was_killed = false;
        let told = self.look(node, &next, answers, true)?;
        let in_vain = !told[node].leads();
        Ok(if in_vain && self.relies_on.words_in_vain_are_forgotten { *state } else { told })
    }

    /// A hand's promotion of a standby that serves, which `seen_by` see.
    fn may_promote(&self, node: usize, state: &State, seen_by: Set) -> bool {
        let serves = |other: &usize| state[*other].life == Life::Serves;
        let own = &state[node];
        let witnesses = seen_by.count_ones() as usize + 1;
        let members = self.members.iter().filter(|one| !state[**one].is_gone).count();
        let seen = witnesses * 2 > members
            && self
                .others(node)
                .filter(|other| seen_by & (1 << other) != 0)
                .all(|one| serves(&one));
        let mut up = self.members.iter().filter(|one| state[**one].life != Life::Down);
        let given_up = state.iter().filter_map(|one| one.given_up).max();
        let knows_newer = |one: &usize| {
            let newest = state[*one].newest;
            let is_gone =
                given_up.is_some_and(|(_, up_to, kept)| (kept + 1..=up_to).contains(&newest));
            newest > own.history.timeline() && !is_gone
        };
        serves(&node)
            && node != BACKUP
            && own.role == Role::Standby
            && own.history.timeline() < self.timelines_max
            && (self.two_by_hand || !state.iter().any(Node::leads))
            && (seen || !self.relies_on.promotions_are_seen)
            && !(self.relies_on.the_newest_is_promoted && up.any(knows_newer))
    }

    fn promote(&self, node: usize, state: &State, seen_by: Set) -> State {
        let mut next = *state;
        let own = &mut next[node];
        own.role = Role::Primary;
        own.history = own.history.promoted(node);
        let timeline = own.history.timeline();
        if !self.relies_on.all_is_told_at_once {
            own.untold = Untold::Promoted;
        }
        for one in self.members.iter().filter(|one| **one == node || seen_by & (1 << **one) != 0) {
            if self.relies_on.promotions_are_seen {
                let seen = &mut next[*one];
                seen.newest = seen.newest.max(timeline);
                seen.given_up = seen.given_up.map(|word| after_a_leader_on(timeline, word));
            }
        }
        next
    }

    /// What goes on when nobody is killed, promoted or silent.
    pub(crate) fn calm(&self, state: &State) -> Vec<State> {
        let all = |node| self.others(node).fold(0, |set, other| set | (1 << other));
        let steps = self.members.iter().map(|&node| match state[node].life {
            Life::Down => Ok(*state),
            Life::Looks => self.happens(state, Event::Look(node, all(node))),
            Life::Serves => self.happens(state, Event::Observe(node, all(node))),
            Life::Joins => self.happens(state, Event::Join(node, all(node))),
        });
        steps.map(|step| step.expect("it was tried already")).collect()
    }

    fn events(&self, state: &State) -> Vec<Event> {
        let mut events = Vec::new();
        for &node in self.members {
            let sets = self.sets(node, state);
            let each = |event: fn(usize, Set) -> Event| {
                sets.iter().map(move |set| event(node, *set)).collect::<Vec<_>>()
            };
            match state[node].life {
                Life::Down if state[node].is_gone => {}
                Life::Down => events.push(Event::Start(node)),
                Life::Looks => {
                    events.extend(each(Event::Look));
                    events.extend(self.may_be_told(node, state).then_some(Event::Word(node)));
                }
                Life::Joins => events.extend(each(Event::Join)),
                Life::Serves => {
                    events.extend(each(Event::Observe));
                    let may = sets.iter().filter(|set| self.may_promote(node, state, **set));
                    events.extend(may.map(|set| Event::Promote(node, *set)));
                }
            }
            if state[node].life != Life::Down {
                events.push(Event::Kill(node));
            }
        }
        events
    }

    fn happens(&self, state: &State, event: Event) -> Result<State, String> {
        let mut next = *state;
        match event {
            Event::Kill(node) => {
                next[node].was_killed |= next[node].leads();
                next[node].life = Life::Down;
                next[node].untold = Untold::Nothing;
            }
            // One without data has nothing to wait for.
            Event::Start(BACKUP) => {
                next[BACKUP].life = Life::Serves;
                next[BACKUP].untold = Untold::Started;
            }
            Event::Start(node) => next[node].life = Life::Looks,
            Event::Word(node) => return self.word(node, state),
            Event::Promote(node, set) => return Ok(self.promote(node, state, set)),
            Event::Look(node, set) => {
                return self.look(node, state, self.answers(node, set, state), false);
            }
            Event::Observe(node, set) => return self.observe(node, state, set),
            Event::Join(node, set) => {
                let ours = state[node].history.timeline();
                let older = |theirs| self.relies_on.joins_nothing_older && theirs < ours;
                let leader = self.leader(self.answers(node, set, state));
                match leader.filter(|(_, theirs)| !older(*theirs)) {
                    Some((leader, _)) => self.takes(node, leader, &mut next)?,
                    None => next[node].life = Life::Looks,
                }
            }
        }
        Ok(next)
    }
}

impl Model for Herd {
    type State = State;
    type Action = Action;

    /// The first leads, and the others follow it.
    fn first(&self) -> State {
        let down = Node {
            life: Life::Down,
            role: Role::Standby,
            history: History::default(),
            newest: 1,
            untold: Untold::Nothing,
            was_killed: false,
            given_up: None,
            is_gone: false,
        };
        let mut state = [down; NODES_MAX];
        for &node in self.members {
            state[node].life = Life::Serves;
        }
        state[0].role = Role::Primary;
        state
    }

    fn actions(&self, state: &State) -> Vec<Action> {
        let events = self.events(state);
        let looks = events.iter().filter_map(|event| {
            let Event::Look(node, set) = *event else { return None };
            // What is old matters to whoever would lead because of it, and to nobody else.
            let answers = self.answers(node, set, state);
            (self.begins(node, state, answers, false) == Begins::ToLead).then_some((node, set))
        });
        let late = looks.flat_map(|(node, set)| {
            let meanwhile = events.iter().filter(move |event| match **event {
                Event::Kill(one) | Event::Look(one, _) => one != node,
                Event::Word(_) => false,
                Event::Promote(..) => !self.relies_on.nobody_promotes_meanwhile,
                Event::Start(_) | Event::Observe(..) | Event::Join(..) => true,
            });
            meanwhile.map(move |event| Action::LookedBefore(node, set, *event))
        });
        events.iter().copied().map(Action::Now).chain(late).collect()
    }

    fn after(&self, state: &State, action: Action) -> Result<State, String> {
        match action {
            Action::Now(event) => self.happens(state, event),
            Action::LookedBefore(node, set, event) => {
                let answers = self.answers(node, set, state);
                self.look(node, &self.happens(state, event)?, answers, false)
            }
        }
    }
}
