//! What nodes tell each other, and what one that starts finds: in the product's own words.

use crate::cluster::NODES_MAX;
use crate::node::{Node, Word};
use pgherd::cluster::{
    Address, Answer, ControlData, GivenUp, Lsn, NodeState, Report, Role, Sighting, Standing,
    SystemId, Timeline,
};
use pgherd::scenario::{Cluster, DataDirectory, Lead, Ourselves, Situation};

/// What a node is told by another, or not.
pub(crate) type Answers = [Option<Told>; NODES_MAX];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Told {
    pub(crate) stands: Stands,
    pub(crate) newest: Option<u8>,
    pub(crate) given_up: Option<Word>,
}

impl Told {
    pub(crate) fn leads(self) -> bool {
        matches!(self.stands, Stands::Serving(Role::Primary, _))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stands {
    NoData,
    AtRest(Role, u8),
    Serving(Role, u8),
}

/// What `node` finds on its disk, and hears.
pub(crate) fn situation(
    node: usize,
    own: &Node,
    leads_alone: bool,
    sightings: Vec<Sighting>,
) -> Situation {
    let Node { role, history, newest, was_killed, .. } = *own;
    Situation {
        major: 17,
        pgdata: "/var/lib/postgresql/17/docker".into(),
        data_dir: "/var/lib/postgresql".into(),
        data_directory: DataDirectory::Cluster(Cluster {
            role,
            recovering: false,
            control: Some(ControlData {
                system: SystemId(7),
                timeline: Timeline(history.timeline().into()),
                lsn: Lsn(1),
                shut_down: !was_killed,
            }),
            made_here: true,
            may_be_in_use: false,
            half_rewound: false,
            moves_in: false,
            restored: pgherd::scenario::Restored::Nothing,
        }),
        owner_uid: Some(999),
        postgres_uid: 999,
        free_mib: None,
        ports_in_use: Vec::new(),
        mounted_elsewhere: None,
        backups_of: None,
        kept: pgherd::scenario::Kept::default(),
        ourselves: Ourselves {
            address: address(node),
            newest: Some(Timeline(newest.into())),
            given_up: own.given_up.map(given_up),
            had_members: false,
            knows_nobody: false,
            leads_alone,
        },
        sightings,
        lead: Lead::NotKept,
    }
}

/// What `other` told, or did not.
pub(crate) fn sighting(other: usize, told: Option<Told>) -> Sighting {
    let answer = told.map(|told| Answer::Report(Box::new(report(other, told))));
    let answer = answer.unwrap_or(Answer::Silent);
    Sighting { address: address(other), known: true, proved: true, answer }
}

pub(crate) fn address(node: usize) -> Address {
    Address { host: format!("n{node}"), port: 5432 }
}

fn report(node: usize, told: Told) -> Report {
    let timeline = |timeline: u8| Timeline(timeline.into());
    let standing = match told.stands {
        Stands::NoData => Standing::NoData,
        Stands::AtRest(role, at) => Standing::AtRest { role, timeline: timeline(at), lsn: Lsn(1) },
        Stands::Serving(role, at) => {
            Standing::Serving { role, timeline: timeline(at), lsn: Lsn(1) }
        }
    };
    Report {
        cluster: "pgherd".to_owned(),
        name: format!("n{node}"),
        id: None,
        address: address(node),
        system: (told.stands != Stands::NoData).then_some(SystemId(7)),
        standing,
        state: NodeState::Running,
        newest: told.newest.map(timeline),
        given_up: told.given_up.map(given_up),
        members: Vec::new(),
        instance: format!("n{node}"),
        witness: false,
        vote: None,
        voters: Vec::new(),
        backups: None,
        shown: Default::default(),
    }
}

/// As the product has it.
pub(crate) fn given_up(word: Word) -> GivenUp {
    let (word, up_to, kept) = word;
    GivenUp { word, up_to: Timeline(up_to.into()), kept: Timeline(kept.into()) }
}

/// What a node makes of a word when it sees somebody lead on `timeline`.
pub(crate) fn after_a_leader_on(timeline: u8, word: Word) -> Word {
    let GivenUp { word, up_to, kept } = given_up(word).after_a_leader_on(Timeline(timeline.into()));
    (word, up_to.0 as u8, kept.0 as u8)
}
