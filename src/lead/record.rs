//! What the cluster agrees on, and how it may change. Each change is a function that has its name.

use super::Taking;
use crate::cluster::{Address, Lsn, SyncMode, SystemId, Timeline};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Who leads. One key, changed by compare-and-swap only; it holds the sync set as well, so that
/// whoever has lost the lead cannot change that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// `REPMGR_NODE_NAME` of who leads, or did last.
    pub holder: String,
    /// Where its Postgres is.
    pub address: Address,
    /// One life of its pgherd.
    pub instance: String,
    /// One more at each taking.
    pub epoch: u64,
    /// Another one with each attempt of the holder's to change the record, so that the attempt
    /// which succeeded is known although its answer was lost.
    pub renewals: u64,
    /// The holder's `PGHERD_LEASE`, in milliseconds.
    pub lease_ms: u64,
    /// Which cluster it is about.
    pub system: SystemId,
    /// What the holder leads on; while `promoting`, still what its predecessor led on.
    pub timeline: Timeline,
    /// The holder's `PGHERD_SYNCHRONOUS`.
    pub synchronous: SyncMode,
    /// Standbys of which *each* has every acknowledged write.
    pub sync: BTreeSet<String>,
    /// Taken, and not yet open for writes: nothing was acknowledged since.
    pub promoting: Option<Before>,
    /// Nobody writes: the holder has stopped its server in order, or never opened it.
    pub released: Option<Released>,
}

/// What a holder that is not open yet has found, so that it can be given back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Before {
    /// Who led. Its own data is complete as well.
    pub holder: String,
    /// Where that one's Postgres is.
    pub address: Address,
}

/// Nobody writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Released {
    /// Only this one may take it, for the length of a lease.
    pub to: Option<String>,
    /// The end of the shutdown checkpoint: whoever has this much on the record's timeline has
    /// everything. None where that is not known: it was given back.
    pub at: Option<Lsn>,
}

/// What whoever takes the lead says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Us {
    /// `REPMGR_NODE_NAME`.
    pub name: String,
    /// Where our Postgres is.
    pub address: Address,
    /// This life of our pgherd.
    pub instance: String,
    /// `PGHERD_LEASE`.
    pub lease: Duration,
    /// `PGHERD_SYNCHRONOUS`.
    pub synchronous: SyncMode,
}

impl Record {
    /// The first one of a cluster, by the node that makes it. Only where there is none.
    pub fn found(us: &Us, system: SystemId, timeline: Timeline) -> Self {
        Record {
            holder: us.name.clone(),
            address: us.address.clone(),
            instance: us.instance.clone(),
            epoch: 1,
            renewals: 0,
            lease_ms: milliseconds(us.lease),
            system,
            timeline,
            synchronous: us.synchronous,
            sync: BTreeSet::new(),
            promoting: None,
            released: None,
        }
    }

    /// The same by a standby: nothing is acknowledged before it was promoted and [`opened`].
    ///
    /// [`opened`]: Record::opened
    pub fn not_opened(self) -> Self {
        let before = Before { holder: self.holder.clone(), address: self.address.clone() };
        Record { promoting: Some(before), ..self }
    }

    /// Ours from now on, as [`super::may_take`] allowed. The sync set stays what it was: those in it
    /// are complete as long as nothing more is acknowledged, which is until it was [`opened`].
    ///
    /// [`opened`]: Record::opened
    pub fn taken_by(&self, us: &Us, taking: Taking) -> Self {
        let before = Before { holder: self.holder.clone(), address: self.address.clone() };
        let promoting = match taking {
            // Who began before us has acknowledged nothing either.
            Taking::Promote | Taking::Open => Some(self.promoting.clone().unwrap_or(before)),
            Taking::Resume => self.promoting.clone(),
        };
        Record {
            holder: us.name.clone(),
            address: us.address.clone(),
            instance: us.instance.clone(),
            epoch: self.epoch + 1,
            renewals: 0,
            lease_ms: milliseconds(us.lease),
            synchronous: us.synchronous,
            promoting,
            released: None,
            ..self.clone()
        }
    }

    /// Our server takes writes, on `timeline`. Before this stands, nothing may be acknowledged.
    /// Nobody else has what comes now.
    pub fn opened(&self, timeline: Timeline) -> Self {
        Record {
            timeline,
            sync: BTreeSet::new(),
            promoting: None,
            released: None,
            ..self.renewed()
        }
    }

    /// We are still here.
    pub fn renewed(&self) -> Self {
        Record { renewals: self.renewals + 1, ..self.clone() }
    }

    /// Our server has stopped in order, at `at`. Only `to` may go on, or anybody who may.
    pub fn released(&self, to: Option<&str>, at: Lsn) -> Self {
        let released = Released { to: to.map(str::to_owned), at: Some(at) };
        Record { released: Some(released), ..self.renewed() }
    }

    /// Our promotion came to nothing, and our server was seen to be a standby still. `None` if there
    /// is nothing to give back.
    pub fn given_back(&self) -> Option<Self> {
        let before = self.promoting.clone()?;
        // To itself it would be given at once, and again; the others come first.
        let to = (before.holder != self.holder).then(|| before.holder.clone());
        Some(Record {
            holder: before.holder,
            address: before.address,
            promoting: None,
            released: Some(Released { to, at: None }),
            ..self.renewed()
        })
    }

    /// The sync set, as [`super::sync::next`] says.
    pub fn with_sync(&self, sync: BTreeSet<String>) -> Self {
        Record { sync, ..self.renewed() }
    }

    /// How long the holder's word is good.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// It is a word of this life of this holder, of this taking.
    pub fn is_of(&self, holder: &str, instance: &str, epoch: u64) -> bool {
        self.holder == holder && self.instance == instance && self.epoch == epoch
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
