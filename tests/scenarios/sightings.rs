//! What is found on a disk, and what members say.

use pgherd::cluster::{
    Address, Answer, ControlData, Lsn, NodeState, Report, Role, Sighting, Standing, SystemId,
    Timeline,
};
use pgherd::scenario::{Cluster, Restored};

const OURS: SystemId = SystemId(7);

/// What a node that pgherd stopped in order finds.
pub(crate) fn on_disk(role: Role, timeline: u32) -> Cluster {
    Cluster {
        role,
        recovering: false,
        control: Some(ControlData {
            system: OURS,
            timeline: Timeline(timeline),
            lsn: Lsn(1),
            shut_down: true,
        }),
        made_here: true,
        may_be_in_use: false,
        half_rewound: false,
        moves_in: false,
        restored: Restored::Nothing,
    }
}

/// A member that has been one before.
pub(crate) fn says(host: &str, standing: Standing) -> Sighting {
    let address: Address = host.parse().expect("a host is an address");
    let report = Report {
        cluster: "pgherd".to_owned(),
        name: host.to_owned(),
        id: None,
        address: address.clone(),
        system: Some(OURS),
        standing,
        state: NodeState::Running,
        newest: None,
        given_up: None,
        members: Vec::new(),
        instance: host.to_owned(),
        witness: false,
        vote: None,
        voters: Vec::new(),
        backups: None,
        shown: Default::default(),
    };
    Sighting { address, known: true, proved: true, answer: Answer::Report(Box::new(report)) }
}

pub(crate) fn serves(host: &str, role: Role, timeline: u32) -> Sighting {
    says(host, Standing::Serving { role, timeline: Timeline(timeline), lsn: Lsn(1) })
}

pub(crate) fn leads(host: &str, timeline: u32) -> Sighting {
    serves(host, Role::Primary, timeline)
}

pub(crate) fn silent(host: &str, known: bool) -> Sighting {
    Sighting {
        address: host.parse().expect("a host is an address"),
        known,
        proved: false,
        answer: Answer::Silent,
    }
}

/// The same, as a copy of another cluster.
pub(crate) fn of(system: SystemId, mut sighting: Sighting) -> Sighting {
    if let Answer::Report(report) = &mut sighting.answer {
        report.system = Some(system);
    }
    sighting
}

/// The same, having heard of a newer timeline.
pub(crate) fn heard_of(timeline: u32, mut sighting: Sighting) -> Sighting {
    if let Answer::Report(report) = &mut sighting.answer {
        report.newest = Some(Timeline(timeline));
    }
    sighting
}
