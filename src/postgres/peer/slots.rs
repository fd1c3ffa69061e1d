//! Replication slots on another node's server. All as [`super::As::Streaming`], whose they are.

use super::{Peer, PeerError};
use crate::cluster::Lsn;
use crate::postgres::session::literal;
use tokio_postgres::error::SqlState;

/// How long a walsender that was told to end is waited for, in ms. It ends at its next look at its
/// signals; one that hangs in a send to a dead host is ended by the kernel later.
const SENDER_ENDS_MS: u32 = 3_000;
/// Whoever streamed from the slot may be faster to come back than we are to drop it.
const TRIES: u32 = 5;

/// A replication slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Somebody streams from it, or did and has not been missed yet.
    pub active: bool,
    /// The server process that serves them.
    pub active_pid: Option<i32>,
    /// The WAL that it should have kept is gone (`max_slot_wal_keep_size`).
    pub lost: bool,
    /// What it keeps; `None` as long as it keeps nothing.
    pub restart_lsn: Option<Lsn>,
}

impl Peer {
    /// The slot called `name`, if there is one.
    pub async fn slot(&self, name: &str) -> Result<Option<Slot>, PeerError> {
        let doing = format!("look up slot {name}");
        let sql = format!(
            "SELECT active, active_pid, coalesce(wal_status = 'lost', false), restart_lsn::text \
             FROM pg_replication_slots WHERE slot_name = {}",
            literal(name)
        );
        let rows = self.rows(&doing, &sql).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        self.one(&doing, &rows, |row| {
            let restart_lsn = row.try_get::<_, Option<&str>>(3)?;
            Ok(Some(Slot {
                active: row.try_get(0)?,
                active_pid: row.try_get(1)?,
                lost: row.try_get(2)?,
                restart_lsn: restart_lsn.map(str::parse).transpose()?,
            }))
        })
    }

    /// Afterwards there is a physical slot called `name`. One that was made keeps WAL from now on;
    /// one that was there is left as it is.
    pub async fn ensure_slot(&self, name: &str) -> Result<(), PeerError> {
        if self.slot(name).await?.is_some() {
            return Ok(()); // To be refused would leave an error in the other server's log.
        }
        // In this order it keeps WAL from the beginning: a slot that nobody has read from yet
        // would keep none without its second argument.
        let create = format!("SELECT pg_create_physical_replication_slot({}, true)", literal(name));
        match self.run(&format!("create slot {name}"), &create).await {
            Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => Ok(()),
            made => made,
        }
    }

    /// Afterwards there is no slot called `name`. Fails if somebody streams from it.
    pub async fn drop_slot(&self, name: &str) -> Result<(), PeerError> {
        if self.slot(name).await?.is_none() {
            return Ok(());
        }
        let drop = format!("SELECT pg_drop_replication_slot({})", literal(name));
        match self.run(&format!("drop slot {name}"), &drop).await {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(()),
            dropped => dropped,
        }
    }

    /// Afterwards the slot called `name` is a new one that nobody streams from and that keeps WAL
    /// from now on. Whoever streamed from it is cut off: a node's slot is its own, so that is
    /// what this node left behind in another life.
    pub async fn make_slot_anew(&self, name: &str) -> Result<(), PeerError> {
        let end_sender = format!(
            "SELECT pg_terminate_backend(active_pid, {SENDER_ENDS_MS}) FROM pg_replication_slots \
             WHERE slot_name = {} AND active",
            literal(name)
        );
        let mut tries = 1..=TRIES;
        loop {
            self.run(&format!("end the walsender of slot {name}"), &end_sender).await?;
            match self.drop_slot(name).await {
                Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => {
                    tries.next();
                    if tries.is_empty() {
                        return Err(error);
                    }
                }
                dropped => break dropped?,
            }
        }
        self.ensure_slot(name).await
    }
}
