//! The primary that this node follows, as far as it matters here.

use crate::world::Data;
use pgherd::cluster::{Address, Lsn};
use pgherd::cluster::{Answer, NodeState, Report, Role, Sighting, Standing, SystemId, Timeline};
use std::collections::BTreeSet;

/// Which node leads, counted from the first.
pub(crate) type Generation = u32;

/// A primary, and what it keeps about this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Elsewhere {
    pub(crate) generation: Generation,
    /// Nobody comes after this one in the story.
    last: Generation,
    /// What a copy of it has.
    pub(crate) content: Data,
    /// Of this node. They are not replicated: the next primary has none.
    pub(crate) slots: BTreeSet<&'static str>,
    /// Of this node. It is replicated.
    pub(crate) record: Option<Record>,
    pub(crate) rewind_fails: bool,
    /// All of its WAL, and copies are made from there.
    pub(crate) archives: bool,
    /// Whoever takes a copy makes a standby of it.
    pub(crate) copies_have_a_signal: bool,
}

/// A row of `repmgr.nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) active: bool,
    /// None of a primary.
    pub(crate) upstream: Option<Generation>,
}

impl Elsewhere {
    /// A primary that was made like `content`.
    pub(crate) fn leading(generation: Generation, content: &Data) -> Self {
        let mut content = content.clone();
        content.rows += 1;
        content.timeline = generation;
        let last = generation + 1;
        let (slots, record) = (BTreeSet::new(), None);
        Elsewhere {
            generation,
            last,
            content,
            slots,
            record,
            rewind_fails: false,
            archives: false,
            copies_have_a_signal: true,
        }
    }

    pub(crate) fn may_be_replaced(&self) -> bool {
        self.generation < self.last
    }

    pub(crate) fn be_replaced(&mut self) {
        self.generation += 1;
        self.content.timeline = self.generation;
        self.slots.clear();
    }

    fn address(&self) -> Address {
        Address { host: format!("primary{}", self.generation), port: 5432 }
    }

    /// What it says when it is asked.
    pub(crate) fn sighting(&self) -> Sighting {
        serving(self.address(), Role::Primary, self.generation)
    }
}

/// What every node here has a copy of.
pub(crate) const SYSTEM: SystemId = SystemId(7);

/// What a member says that serves.
pub(crate) fn serving(address: Address, role: Role, timeline: u32) -> Sighting {
    let timeline = Timeline(timeline);
    let report = Report {
        cluster: "pgherd".to_owned(),
        name: address.host.clone(),
        id: None,
        address: address.clone(),
        system: Some(SYSTEM),
        standing: Standing::Serving { role, timeline, lsn: Lsn(1) },
        state: NodeState::Running,
        newest: Some(timeline),
        given_up: None,
        members: Vec::new(),
        instance: address.host.clone(),
        witness: false,
        vote: None,
        voters: Vec::new(),
        backups: None,
        shown: Default::default(),
    };
    let answer = Answer::Report(Box::new(report));
    Sighting { address, known: true, proved: true, answer }
}
