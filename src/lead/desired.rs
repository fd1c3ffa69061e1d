//! What people asked for: it stands beside the record, in a key of its own, and outlives whoever leads.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What people asked for, and did not take back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Desired {
    /// Nobody takes the lead by itself.
    pub paused: bool,
    /// These are not chosen.
    pub maintenance: BTreeSet<String>,
    /// The lead is handed over later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appointment: Option<Appointment>,
}

/// A handover at a time. Whoever leads then does it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appointment {
    /// Seconds since 1970, by the clock of whoever leads then.
    pub at: i64,
    /// Who is to lead; whoever is best without a name.
    pub to: Option<String>,
}

/// One thing that is asked for. Asked for twice it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Desire {
    /// No change of roles by itself, or again.
    Paused(bool),
    /// This node is not chosen, or is again.
    Maintenance {
        /// Which.
        node: String,
        /// It begins.
        on: bool,
        /// Standbys of which one at least must be free to be chosen afterwards, if this is one of them.
        among: BTreeSet<String>,
    },
    /// The lead is handed over then; one appointment replaces another. None: not any more.
    Appointment(Option<Appointment>),
    /// The time has come for it. Nothing is changed where it is not the one that stands.
    Kept(Appointment),
}

impl Desired {
    /// Somebody could lead afterwards, or could not before.
    pub fn allows(&self, desire: &Desire) -> bool {
        let Desire::Maintenance { node, on: true, among } = desire else { return true };
        let is_free = |one: &&String| *one != node && !self.maintenance.contains(*one);
        !among.contains(node) || among.iter().any(|one| is_free(&one))
    }

    /// With that, and all else as it was.
    pub fn with(mut self, desire: &Desire) -> Self {
        match desire {
            Desire::Paused(on) => self.paused = *on,
            Desire::Maintenance { node, on: true, .. } => {
                self.maintenance.insert(node.clone());
            }
            Desire::Maintenance { node, on: false, .. } => {
                self.maintenance.remove(node);
            }
            Desire::Appointment(appointment) => self.appointment.clone_from(appointment),
            Desire::Kept(appointment) => {
                self.appointment.take_if(|one| one == appointment);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wish_leaves_the_others_as_they_are() {
        let at = |at| Appointment { at, to: None };
        let among = BTreeSet::new();
        let maintenance =
            |on| Desire::Maintenance { node: "node2".to_owned(), on, among: among.clone() };
        let all = Desired::default()
            .with(&Desire::Paused(true))
            .with(&maintenance(true))
            .with(&Desire::Appointment(Some(at(7))));
        assert_eq!(all.clone().with(&Desire::Paused(true)), all);
        assert_eq!(all.clone().with(&Desire::Kept(at(8))), all, "another one stands there");
        let less = all.clone().with(&maintenance(false)).with(&Desire::Kept(at(7)));
        assert_eq!(less, Desired { paused: true, ..Desired::default() });
    }

    #[test]
    fn the_last_one_that_could_lead_is_not_taken() {
        let both: BTreeSet<_> = ["node2", "node3"].map(str::to_owned).into();
        let maintain = |node: &str, among: &BTreeSet<String>| Desire::Maintenance {
            node: node.to_owned(),
            on: true,
            among: among.clone(),
        };
        let free = Desired::default();
        assert!(free.allows(&maintain("node2", &both)));
        let one = free.with(&maintain("node2", &both));
        assert!(!one.allows(&maintain("node3", &both)));
        assert!(one.allows(&maintain("node3", &BTreeSet::new())), "forced");
        assert!(one.allows(&maintain("backup", &both)), "it could not lead anyway");
        assert!(
            one.allows(&maintain("node1", &both)),
            "nor could the primary take over from itself"
        );
    }

    #[test]
    fn what_an_older_version_wrote_is_read() {
        let read: Desired = serde_json::from_str(r#"{"paused":true,"maintenance":[]}"#).unwrap();
        assert_eq!(read, Desired { paused: true, ..Desired::default() });
    }
}
