//! Empty volumes, and more than one node that would make the cluster: at most one is made.
//!
//! In the smallest steps: a node says what it is, asks the others one after the other in any order,
//! and draws its conclusions from what each said when it was asked. Nobody is killed, and nobody
//! is silent but who was not started yet: who makes the cluster cannot know of one that never came.
//!
//! A first start takes longer than a look that began before it: the look's questions all go out at
//! once and have a limit of two seconds.

use crate::search::{Model, search};
use pgherd::cluster::{
    Address, Answer, Lsn, NodeState, Report, Role, Sighting, Standing, SystemId, Timeline,
};
use pgherd::scenario::{self, DataDirectory, Decision, Lead, Ourselves, Scenario, Situation};
use pgherd::settings::{self, Settings};

const NODES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    says: Option<Says>,
    /// What each of the others said, once it was asked; none to one that was not there.
    heard: [Option<Option<Says>>; NODES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Says {
    Empty { gives_way: bool },
    Makes,
    Leads,
    Joins,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Start(usize),
    Ask(usize, usize),
    Conclude(usize),
    /// What it made is complete, and it leads.
    Serve(usize),
}

struct Beginning {
    settings: [Settings; NODES],
    spoil: fn(&mut Situation),
    looks_are_short: bool,
}

impl Beginning {
    fn new(masters: [bool; NODES], spoil: fn(&mut Situation)) -> Self {
        let mut number = 0;
        let settings = masters.map(|master| {
            let variables = [
                ("REPMGR_MASTER", master.to_string()),
                ("REPMGR_NODE_NAME", format!("n{number}")),
                ("REPMGR_MASTER_HOST", "n0".to_owned()),
            ];
            number += 1;
            let variables = variables.map(|(name, value)| (name.to_owned(), value));
            let no_files = |_: &std::path::Path| Ok(String::new());
            settings::read(variables, no_files).expect("these settings are right")
        });
        Beginning { settings, spoil, looks_are_short: true }
    }

    fn standing(&self, node: usize, says: Says) -> Standing {
        match says {
            Says::Empty { gives_way } => {
                Standing::Empty { first_role: self.settings[node].repmgr.first_role, gives_way }
            }
            Says::Makes => Standing::Preparing { role: Role::Primary },
            Says::Joins => Standing::Preparing { role: Role::Standby },
            Says::Leads => {
                Standing::Serving { role: Role::Primary, timeline: Timeline(1), lsn: Lsn(1) }
            }
        }
    }

    fn situation(&self, node: usize, heard: &[Option<Option<Says>>; NODES]) -> Situation {
        let sightings = (0..NODES).filter(|other| *other != node).map(|other| {
            let report = heard[other].flatten().map(|says| Report {
                cluster: "pgherd".to_owned(),
                name: format!("n{other}"),
                id: None,
                address: address(other),
                system: (says == Says::Leads).then_some(SystemId(other as u64)),
                standing: self.standing(other, says),
                state: NodeState::Starting,
                newest: None,
                given_up: None,
                members: Vec::new(),
                instance: format!("n{other}"),
                witness: false,
                vote: None,
                voters: Vec::new(),
                backups: None,
                shown: Default::default(),
            });
            let answer = report.map_or(Answer::Silent, |report| Answer::Report(Box::new(report)));
            Sighting { address: address(other), known: false, proved: true, answer }
        });
        let mut situation = Situation {
            major: 17,
            pgdata: "/var/lib/postgresql/17/docker".into(),
            data_dir: "/var/lib/postgresql".into(),
            data_directory: DataDirectory::Empty,
            owner_uid: None,
            postgres_uid: 999,
            free_mib: None,
            ports_in_use: Vec::new(),
            mounted_elsewhere: None,
            backups_of: None,
            kept: pgherd::scenario::Kept::default(),
            ourselves: Ourselves {
                address: address(node),
                newest: None,
                given_up: None,
                had_members: false,
                knows_nobody: false,
                leads_alone: false,
            },
            sightings: sightings.collect(),
            lead: Lead::NotKept,
        };
        (self.spoil)(&mut situation);
        situation
    }
}

fn address(node: usize) -> Address {
    Address { host: format!("n{node}"), port: 5432 }
}

impl Model for Beginning {
    type State = [Node; NODES];
    type Action = Action;

    fn first(&self) -> Self::State {
        [Node { says: None, heard: [None; NODES] }; NODES]
    }

    fn actions(&self, state: &Self::State) -> Vec<Action> {
        let mut actions = Vec::new();
        for (node, own) in state.iter().enumerate() {
            match own.says {
                None => actions.push(Action::Start(node)),
                Some(Says::Empty { .. }) => {
                    let mut others = (0..NODES).filter(|other| *other != node);
                    let unasked = |other: &usize| own.heard[*other].is_none();
                    actions.extend(
                        others.clone().filter(unasked).map(|other| Action::Ask(node, other)),
                    );
                    if !others.any(|other| unasked(&other)) {
                        actions.push(Action::Conclude(node));
                    }
                }
                Some(Says::Makes) => {
                    let asked_before = |other: &Node| matches!(other.heard[node], Some(said) if said != Some(Says::Makes));
                    if !(self.looks_are_short && state.iter().any(asked_before)) {
                        actions.push(Action::Serve(node));
                    }
                }
                Some(Says::Leads | Says::Joins) => {}
            }
        }
        actions
    }

    fn after(&self, state: &Self::State, action: Action) -> Result<Self::State, String> {
        let mut next = *state;
        match action {
            Action::Start(node) => next[node].says = Some(Says::Empty { gives_way: false }),
            Action::Ask(node, other) => next[node].heard[other] = Some(state[other].says),
            Action::Serve(node) => next[node].says = Some(Says::Leads),
            Action::Conclude(node) => {
                let situation = self.situation(node, &state[node].heard);
                next[node].heard = [None; NODES];
                next[node].says =
                    Some(match scenario::recognise(&self.settings[node], &situation) {
                        Ok(Decision::Begin(Scenario::PrimaryFirstStart { .. })) => Says::Makes,
                        Ok(Decision::Begin(Scenario::StandbyFirstStart { .. })) => Says::Joins,
                        Ok(Decision::Wait(wait)) => Says::Empty { gives_way: wait.gives_way() },
                        other => return Err(format!("n{node}: {other:?}")),
                    });
            }
        }
        let makes = |node: &&Node| matches!(node.says, Some(Says::Makes | Says::Leads));
        if next.iter().filter(makes).count() > 1 {
            return Err("two clusters are made".to_owned());
        }
        Ok(next)
    }
}

/// Nobody makes a second cluster, and somebody makes the first.
fn one_is_made(masters: [bool; NODES], spoil: fn(&mut Situation)) -> Result<(), String> {
    let beginning = Beginning::new(masters, spoil);
    let reached = search(&beginning)?;
    let all_are_up = |state: &[Node; NODES]| state.iter().all(|node| node.says.is_some());
    let led = |state: &[Node; NODES]| state.iter().any(|node| node.says == Some(Says::Leads));
    let calm = |state: &[Node; NODES]| {
        let actions = beginning.actions(state).into_iter();
        actions.map(|action| beginning.after(state, action).expect("it was tried")).collect()
    };
    match reached.stuck(all_are_up, led, calm) {
        Some(stuck) => Err(format!("{}\n  and nobody ever leads", reached.way_to(stuck))),
        None => Ok(()),
    }
}

#[test]
fn empty_volumes_become_one_cluster() {
    for masters in [[true, false, false], [true, true, false], [true, true, true]] {
        if let Err(way) = one_is_made(masters, |_| {}) {
            panic!("this goes wrong with {masters:?}:\n{way}");
        }
    }
}

/// A node that is stopped in the middle of a look, for as long as another needs to make the cluster,
/// makes a second one when it wakes up, if the third has joined the first meanwhile.
#[test]
fn a_look_has_to_be_shorter_than_a_first_start() {
    let with_long_looks = |masters| {
        let mut beginning = Beginning::new(masters, |_| {});
        beginning.looks_are_short = false;
        search(&beginning).map(drop)
    };
    assert_eq!(with_long_looks([true, true, false]), Ok(()), "it takes three");
    let way = with_long_looks([true; NODES]).expect_err("it is needed");
    assert!(way.contains("two clusters are made"), "{way}");
}

#[test]
fn each_guard_of_a_first_start_is_needed() {
    type Spoil = fn(&mut Situation);
    let deaf_to: [(&str, Spoil, &str); 4] = [
        (
            "whoever makes it already",
            |situation| silence(situation, |one| matches!(one, Standing::Preparing { .. })),
            "two clusters",
        ),
        (
            "whoever leads already",
            |situation| silence(situation, |one| matches!(one, Standing::Serving { .. })),
            "two clusters",
        ),
        (
            "whoever would make it, too",
            |situation| silence(situation, |one| matches!(one, Standing::Empty { .. })),
            "two clusters",
        ),
        (
            "whoever gives way",
            |situation| {
                for one in &mut situation.sightings {
                    if let Answer::Report(report) = &mut one.answer
                        && let Standing::Empty { gives_way, .. } = &mut report.standing
                    {
                        *gives_way = false;
                    }
                }
            },
            "nobody ever leads",
        ),
    ];
    for (who, spoil, noticed) in deaf_to {
        let way = one_is_made([true; NODES], spoil).expect_err(who);
        assert!(way.contains(noticed), "deaf to {who}: expected {noticed:?}, found\n{way}");
    }
}

fn silence(situation: &mut Situation, whom: fn(&Standing) -> bool) {
    for one in &mut situation.sightings {
        if one.report().is_some_and(|report| whom(&report.standing)) {
            one.answer = Answer::Silent;
        }
    }
}
