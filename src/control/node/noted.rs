//! What goes into the node's journal, and the names of it.

use super::Node;
use crate::keeper::Seen;
use crate::lead::Record;

impl Node {
    /// It happened to this node, now.
    pub(super) fn note(&self, id: &str, why: Option<&str>, text: impl Into<String>) {
        self.hands.journal.note(id, self.snapshot.epoch, why, text);
    }

    /// What this node has brought about in the record of who leads.
    pub(super) fn note_lead(&mut self, seen: &Seen) {
        let before = std::mem::replace(&mut self.record, seen.record.clone());
        let Some(now) = &seen.record else { return };
        for (id, text) in changes(before.as_ref(), now, &self.hands.instance) {
            if id == "lead.taken" {
                std::sync::Arc::make_mut(&mut self.snapshot.counts).takeovers += 1;
            }
            self.note(id, None, text);
        }
    }
}

/// What the node whose `instance` it is has changed from one record to the next. What it has seen neither
/// before nor after, such as a lead that was taken and released within a look, is left out.
fn changes(before: Option<&Record>, now: &Record, instance: &str) -> Vec<(&'static str, String)> {
    let mut changes = Vec::new();
    let is_ours = now.instance == instance;
    let same = before.filter(|before| before.instance == now.instance && before.epoch == now.epoch);
    if !is_ours {
        return changes;
    }
    let name = &now.holder;
    if same.is_none() {
        let from = before.filter(|before| before.holder != *name);
        let from = from.map(|before| format!(" after {}", before.holder)).unwrap_or_default();
        changes.push(("lead.taken", format!("{name} takes the lead{from}")));
    }
    if same.is_some_and(|before| before.promoting.is_some())
        && now.promoting.is_none()
        && now.released.is_none()
    {
        changes.push(("promoted", format!("{name} takes writes on timeline {}", now.timeline)));
    }
    if same.is_some_and(|before| before.sync != now.sync) {
        let text = match now.sync.first() {
            Some(standby) => format!("{standby} has every acknowledged write from here on"),
            None => "no standby surely has every acknowledged write".to_owned(),
        };
        changes.push(("sync.changed", text));
    }
    let is_released = same.is_some_and(|one| one.released.is_none());
    // What was given back is noted by who does that.
    if let Some(released) = now.released.as_ref().filter(|one| is_released && one.at.is_some()) {
        let to = released.to.as_deref().unwrap_or("whoever may");
        changes.push(("lead.released", format!("{name} gives the lead to {to}")));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Lsn, SyncMode, SystemId, Timeline};
    use crate::lead::Released;

    fn record(instance: &str, epoch: u64) -> Record {
        Record {
            holder: "node1".to_owned(),
            address: "node1:5432".parse().unwrap(),
            instance: instance.to_owned(),
            epoch,
            renewals: 0,
            lease_ms: 10_000,
            system: SystemId(1),
            timeline: Timeline(2),
            synchronous: SyncMode::Preferred,
            sync: Default::default(),
            promoting: None,
            released: None,
        }
    }

    #[test]
    fn a_node_notes_what_it_did_to_the_record_and_not_what_others_did() {
        let old = record("theirs", 1);
        let taken = record("ours", 2);
        let renewed = Record { renewals: 1, ..taken.clone() };
        let sync = Record { sync: ["node2".to_owned()].into(), ..renewed.clone() };
        let released = Released { to: None, at: Some(Lsn(1)) };
        let released = Record { released: Some(released), ..sync.clone() };
        let ids = |before: Option<&Record>, now: &Record| -> Vec<&'static str> {
            changes(before, now, "ours").into_iter().map(|(id, _)| id).collect()
        };
        assert_eq!(ids(Some(&old), &taken), ["lead.taken"]);
        assert_eq!(ids(None, &taken), ["lead.taken"]);
        assert_eq!(ids(Some(&taken), &renewed), [""; 0]);
        assert_eq!(ids(Some(&renewed), &sync), ["sync.changed"]);
        assert_eq!(ids(Some(&sync), &released), ["lead.released"]);
        assert_eq!(ids(Some(&released), &record("theirs", 3)), [""; 0]);
        assert_eq!(ids(None, &old), [""; 0]);
    }
}
