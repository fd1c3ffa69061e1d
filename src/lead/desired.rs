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
    },
    /// The lead is handed over then; one appointment replaces another. None: not any more.
    Appointment(Option<Appointment>),
    /// The time has come for it. Nothing is changed where it is not the one that stands.
    Kept(Appointment),
}

impl Desired {
    /// With that, and all else as it was.
    pub fn with(mut self, desire: &Desire) -> Self {
        match desire {
            Desire::Paused(on) => self.paused = *on,
            Desire::Maintenance { node, on: true } => drop(self.maintenance.insert(node.clone())),
            Desire::Maintenance { node, on: false } => drop(self.maintenance.remove(node)),
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
        let maintenance = |on| Desire::Maintenance { node: "node2".to_owned(), on };
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
    fn what_an_older_version_wrote_is_read() {
        let read: Desired = serde_json::from_str(r#"{"paused":true,"maintenance":[]}"#).unwrap();
        assert_eq!(read, Desired { paused: true, ..Desired::default() });
    }
}
