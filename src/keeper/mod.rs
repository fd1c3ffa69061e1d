//! Keeps the lead while this node has it, and watches who has it while it has not.
//!
//! One task owns the node's end of the lease: [`Hold`] or [`View`], which decide, and the questions to
//! etcd, of which one is under way at a time. It never waits for Postgres or for the node's loop, and
//! they never wait for it but for a change that they ask for.
//!
//! Safety, argued here because it is enforced here: the init half is told until when the server may write
//! before anything is opened ([`Guard::may_write_until`]), and again only after a renewal was
//! answered, counted from before it was sent. Nothing here has to run for the server to be stopped in
//! time. What is asked of the others when etcd is silent ([`agree`]) counts in the same way.

mod agree;
mod flight;
mod task;

pub use agree::{AGREED, Agreement};

use crate::cluster::{Address, Lsn, Role, SystemId, Timeline};
use crate::etcd;
use crate::lead::{Candidate, Change, Desire, Desired, Record, Rival, Us, Why};
use crate::scenario::Lead;
use crate::settings::Settings;
use crate::system::guard::Guard;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Orders come from a plan, from the sync set's keeper and from people.
const ORDERS_MAX: usize = 64;

/// What this node knows of the record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The record as it was read or written last; none where there is none, or none was read yet.
    pub record: Option<Record>,
    /// It was read at least once.
    pub read: bool,
    /// Why it could not be read lately. None: it could.
    pub unreachable: Option<String>,
    /// We lead, and may write.
    pub leads: bool,
    /// The voters have never been seen to have a majority: there can be no record.
    pub may_found: bool,
    /// Whoever led has no lease any more, or has released it.
    pub over: bool,
    /// It was handed to this one, whose turn it is.
    pub handed_to: Option<String>,
    /// What people asked for.
    pub desired: Desired,
}

/// Why the lead could not be taken, kept or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeadError {
    /// The rules say no.
    #[error("{0}")]
    Why(Why),
    /// Somebody else was sooner.
    #[error(
        "another node was sooner: the record of who leads, or what people asked for, has changed; try again"
    )]
    Changed,
    /// Everybody else is in maintenance.
    #[error(
        "it is the only standby that could lead: nobody would take over from the primary. If that is to \
         be so for a while: pgherd maintenance on NODE --force"
    )]
    Last,
    /// There is no such thing to do.
    #[error("this node does not lead by the cluster's record")]
    NotOurs,
    /// More than half of the voters do not answer.
    #[error("the voters do not answer: {0}")]
    Silent(String),
    /// Nobody would stop the server in time.
    #[error("the init half does not hear us, and could not stop the server in time: {0}")]
    Unguarded(String),
    /// The cluster in the record is another one.
    #[error(
        "the record of who leads is about another cluster (system identifier {theirs}, not {ours}): \
         another PGHERD_CLUSTER name is needed, or another volume"
    )]
    OtherCluster {
        /// Of the record.
        theirs: SystemId,
        /// Of our data.
        ours: SystemId,
    },
    /// Nobody can have led yet, and nobody can be asked.
    #[error("the voters have never had a majority")]
    Founds,
    /// The node ends.
    #[error("this node is about to end")]
    Ends,
}

impl LeadError {
    /// It is over after a lease or two, and nothing else changes when it is.
    pub fn passes_with_time(&self) -> bool {
        match self {
            LeadError::Why(why) => why.passes_with_time(),
            LeadError::Changed | LeadError::Silent(_) => true,
            LeadError::Last
            | LeadError::NotOurs
            | LeadError::Unguarded(_)
            | LeadError::OtherCluster { .. }
            | LeadError::Founds
            | LeadError::Ends => false,
        }
    }
}

/// A taking: who we are at this moment, and who else there is.
#[derive(Clone, Debug)]
pub struct Claim {
    /// This node.
    pub candidate: Candidate,
    /// The cluster that it has.
    pub system: SystemId,
    /// Its timeline.
    pub timeline: Timeline,
    /// What its data directory is.
    pub role: Role,
    /// The others that have data.
    pub rivals: Vec<Rival>,
    /// By whose word.
    pub ask: crate::lead::Ask,
}

/// What the keeper is asked for.
pub(crate) enum Order {
    Take(Box<Claim>, oneshot::Sender<Result<(), LeadError>>),
    Change(Change, oneshot::Sender<Result<(), LeadError>>),
    Desire(Desire, oneshot::Sender<Result<(), LeadError>>),
    Agree { holder: String, epoch: u64, reply: oneshot::Sender<Result<(), Why>> },
    Members(Vec<(String, Address)>),
    LetGo,
    Look,
}

/// The way to the keeper.
#[derive(Clone, Debug)]
pub struct Keeper {
    orders: mpsc::Sender<Order>,
    seen: watch::Receiver<Seen>,
}

impl Keeper {
    /// Begins to look. `first_read` is of a voter whose etcd has never been part of a majority: what it
    /// keeps on its disk once it is.
    pub fn start(
        settings: &Settings,
        us: Us,
        client: etcd::Client,
        guard: Option<Arc<Guard>>,
        first_read: Option<Box<dyn Fn() -> Result<(), String> + Send + Sync>>,
    ) -> Self {
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let (published, seen) = watch::channel(Seen::default());
        let task = task::Task::new(settings.clone(), us, client, guard, first_read, published);
        tokio::spawn(task.run(received));
        Keeper { orders, seen }
    }

    /// What is known now, and how it changes.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// What is known now.
    pub fn now(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// What the record says, for a start; read just now if that is possible within `at_most`.
    pub async fn read(&self, at_most: Duration) -> Lead {
        self.look();
        let mut seen = self.seen.clone();
        let read = |seen: &Seen| seen.read && seen.unreachable.is_none();
        let waited = tokio::time::timeout(at_most, seen.wait_for(read)).await;
        let seen = match waited {
            Ok(Ok(seen)) => seen.clone(),
            Ok(Err(_)) | Err(_) if self.now().may_found => return Lead::Free,
            Ok(Err(_)) | Err(_) => {
                let why = self.now().unreachable;
                let why = why.unwrap_or_else(|| "they have not answered yet".to_owned());
                return Lead::Unknown { why };
            }
        };
        match (seen.handed_to, seen.record) {
            (Some(to), _) => Lead::Handed { to },
            (None, None) => Lead::Free,
            (None, Some(Record { holder, address, system, timeline, .. })) => {
                Lead::Held { holder, address, system, timeline }
            }
        }
    }

    /// Afterwards the record says that this node leads.
    pub async fn take(&self, claim: Claim) -> Result<(), LeadError> {
        self.order(|reply| Order::Take(Box::new(claim), reply)).await
    }

    /// Afterwards the server, which was promoted, may acknowledge.
    pub async fn open(&self, timeline: Timeline) -> Result<(), LeadError> {
        self.change(Change::Open(timeline)).await
    }

    /// Afterwards the record names these standbys.
    pub async fn synchronous(&self, names: BTreeSet<String>) -> Result<(), LeadError> {
        self.change(Change::Sync(names)).await
    }

    /// The server has stopped. Afterwards another may lead.
    pub async fn release(&self, to: Option<String>, at: Lsn) -> Result<(), LeadError> {
        self.change(Change::Release { to, at }).await
    }

    /// Our server could not be promoted and is a standby still. Afterwards another may lead.
    pub async fn give_back(&self) -> Result<(), LeadError> {
        self.change(Change::GiveBack).await
    }

    /// Afterwards it stands among people's wishes.
    pub async fn desire(&self, desire: Desire) -> Result<(), LeadError> {
        self.order(|reply| Order::Desire(desire, reply)).await
    }

    /// The holder asks whether we agree that it goes on without etcd.
    pub async fn agree(&self, holder: String, epoch: u64) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Agree { holder, epoch, reply };
        if self.orders.send(order).await.is_err() {
            return Err(LeadError::Ends.to_string());
        }
        match answer.await {
            Ok(agreed) => agreed.map_err(|why| why.to_string()),
            Err(_) => Err(LeadError::Ends.to_string()),
        }
    }

    /// Who has data, by name and address: they are asked where etcd is silent.
    pub fn tell_members(&self, members: Vec<(String, Address)>) {
        let _ = self.orders.try_send(Order::Members(members)); // Told again soon.
    }

    /// Our server does not run, and will not for long. The lease ends by itself, and another may lead.
    pub fn let_go(&self) {
        let _ = self.orders.try_send(Order::LetGo); // Said again soon.
    }

    /// Something has changed that is worth a look.
    pub fn look(&self) {
        let _ = self.orders.try_send(Order::Look); // Many are waiting: it looks anyway.
    }

    async fn change(&self, change: Change) -> Result<(), LeadError> {
        self.order(|reply| Order::Change(change, reply)).await
    }

    async fn order(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<(), LeadError>>) -> Order,
    ) -> Result<(), LeadError> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| LeadError::Ends)?;
        answer.await.map_err(|_| LeadError::Ends)?
    }
}
