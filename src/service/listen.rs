//! How a Postgres is started: who can reach it, and what a power cut would cost.

use serde::Serialize;

/// Where Postgres listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listen {
    /// A socket in a directory that only Postgres' user can enter; no network.
    Technical {
        /// Names the socket.
        port: u16,
    },
    /// The network and the ordinary socket.
    Consumer {
        /// Clients know it.
        port: u16,
    },
}

impl Listen {
    /// The port's number.
    pub fn port(self) -> u16 {
        match self {
            Listen::Technical { port } | Listen::Consumer { port } => port,
        }
    }
}

/// What a crash of the machine would cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Nothing.
    Durable,
    /// The directory is made anew after a crash anyway, so nothing is waited for (`fsync=off`).
    UntilComplete,
}
