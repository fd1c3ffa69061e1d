//! What the node says of itself to the others.

use super::Node;
use crate::cluster::{Report, Standing};
use crate::execute::Hands;
use crate::members::Memory;
use crate::scenario::{self, DataDirectory};
use crate::settings::NodeKind;

impl Node {
    /// What the node says of itself before it serves.
    pub(super) fn standing_of(&self, on_disk: &DataDirectory, gives_way: bool) -> Standing {
        if self.hands.settings.herd.kind != NodeKind::Data {
            return Standing::NoData;
        }
        let first_role = self.hands.settings.repmgr.first_role;
        match on_disk {
            DataDirectory::Cluster(scenario::Cluster { role, control, .. }) => match control {
                Some(control) => {
                    Standing::AtRest { role: *role, timeline: control.timeline, lsn: control.lsn }
                }
                None => Standing::Preparing { role: *role },
            },
            DataDirectory::Empty
            | DataDirectory::Unfinished
            | DataDirectory::OtherMajor { .. }
            | DataDirectory::Broken { .. }
            | DataDirectory::Unreadable { .. }
            | DataDirectory::Foreign { .. } => Standing::Empty { first_role, gives_way },
        }
    }

    /// Tells the others what this node is.
    pub(super) fn say(&mut self, standing: Standing) {
        let Hands { settings, address, id, instance, voting, .. } = &*self.hands;
        let before = self.snapshot.report.take();
        let (newest, given_up, members) = match &before {
            Some(before) => (before.newest, before.given_up, before.members.clone()),
            // What a node has heard of outlives it, for those who ask it while it starts.
            None => {
                let memory = Memory::read(&self.hands.layout);
                (memory.newest, memory.given_up, memory.addresses())
            }
        };
        self.snapshot.report = Some(Report {
            cluster: settings.herd.cluster.clone(),
            name: settings.repmgr.node_name.clone(),
            id: id.get().copied().filter(|_| settings.herd.kind == NodeKind::Data),
            address: address.clone(),
            system: before.as_ref().and_then(|before| before.system),
            standing,
            state: self.snapshot.nodes[0].state,
            newest,
            given_up,
            members,
            instance: instance.clone(),
            witness: settings.herd.kind == NodeKind::Witness,
            vote: voting.borrow().vote.clone(),
            voters: match settings.herd.voters_may_be_learned {
                true => Vec::new(), // Told by another, who may know better by now.
                false => settings.herd.voters.clone(),
            },
            backups: before.as_ref().and_then(|before| before.backups.clone()),
            shown: before.map(|before| before.shown).unwrap_or_default(),
        });
    }
}
