//! What the voters tell each other of their etcd. How they begin is `etcd/beginning.rs`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The number of one life of a voter's directory.
pub type Nonce = String;

/// A beginning: who takes part in it, and with which directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub BTreeMap<String, Nonce>);

/// What a voter says of its etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Vote {
    /// Its directory is empty, and it takes part in nothing.
    New {
        /// The directory's number.
        nonce: Nonce,
    },
    /// It takes part in this beginning, and has never been part of a majority.
    Begins {
        /// Which.
        token: Token,
    },
    /// It has data: of a majority that it has been part of, or that it joins.
    Remembers,
}

impl Vote {
    /// What it could have forgotten, nobody knew.
    pub fn is_unheard(&self) -> bool {
        match self {
            Vote::New { .. } | Vote::Begins { .. } => true,
            Vote::Remembers => false,
        }
    }
}

impl Token {
    /// It may be held by `voter` with this directory.
    pub fn is_for(&self, voter: &str, nonce: &str) -> bool {
        self.0.get(voter).is_some_and(|one| one == nonce)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (voter, nonce)) in self.0.iter().enumerate() {
            write!(f, "{}{voter}={nonce}", if nth == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
