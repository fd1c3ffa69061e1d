//! The task that owns the node's end of the lease.

mod landed;

use super::agree;
use super::flight::{self, Keys, Landed};
use super::{Claim, LeadError, Order, Seen};
use crate::cluster::{Address, Role, SystemId, Timeline};
use crate::etcd::{self, Expected};
use crate::lead::{self, Ask, Change, Desire, Hold, Record, Us, View, lease};
use crate::settings::Settings;
use crate::system::clock;
use crate::system::guard::Guard;
use futures_util::future::{BoxFuture, FutureExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

/// Notes that the voters had a majority.
pub(super) type FirstRead = Box<dyn Fn() -> Result<(), String> + Send + Sync>;
type Reply = oneshot::Sender<Result<(), LeadError>>;
/// What all said who were asked at that instant.
type Asked = (Duration, Result<(), Vec<String>>);

/// At least so often is looked, however long the lease.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// Between two looks, whoever says that there is something to be seen.
const LOOK_SOONEST_AFTER: Duration = Duration::from_millis(20);

pub(super) struct Task {
    settings: Settings,
    us: Us,
    client: etcd::Client,
    keys: Keys,
    guard: Option<Arc<Guard>>,
    published: watch::Sender<Seen>,
    seen: Seen,
    view: View,
    hold: Option<Hold>,
    /// Who is asked where etcd is silent.
    members: Vec<(String, Address)>,
    /// Changes that wait for their turn.
    changes: VecDeque<(Change, Reply)>,
    /// A taking that waits for its turn, and people's wishes.
    waiting: VecDeque<(Desire, Reply)>,
    claim: Option<(Box<Claim>, Reply)>,
    /// Who is told what comes of what is under way.
    reply: Option<Reply>,
    /// The taking that is under way, or whose answer was lost.
    taking: Option<(Record, Duration)>,
    /// The voters have never been seen to have a majority, so there can be no record: whoever makes
    /// the cluster leads it until there is one. What is to be kept on the disk when they are.
    first_read: Option<FirstRead>,
    /// It does so, with this cluster on this timeline.
    founds: Option<(SystemId, Timeline)>,
    /// A change of ours has no answer: the record is read before the next.
    read_first: bool,
    /// Somebody says that the record has changed.
    look_now: bool,
    looked_at: Duration,
    flight: Option<BoxFuture<'static, Landed>>,
    asking: Option<BoxFuture<'static, Asked>>,
}

impl Task {
    pub(super) fn new(
        settings: Settings,
        us: Us,
        client: etcd::Client,
        guard: Option<Arc<Guard>>,
        first_read: Option<FirstRead>,
        published: watch::Sender<Seen>,
    ) -> Self {
        Task {
            keys: Keys::of(&settings.herd.cluster),
            settings,
            us,
            client,
            guard,
            published,
            seen: Seen::default(),
            view: View::default(),
            hold: None,
            members: Vec::new(),
            changes: VecDeque::new(),
            waiting: VecDeque::new(),
            claim: None,
            reply: None,
            taking: None,
            first_read,
            founds: None,
            read_first: false,
            look_now: true,
            looked_at: Duration::ZERO,
            flight: None,
            asking: None,
        }
    }

    /// Until nobody can ask any more.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            let now = clock::since_boot();
            self.mind_the_time(now);
            if self.flight.is_none() {
                self.take_off(now);
            }
            self.ask_the_others(now);
            self.publish(now);
            let pause = self.next_at(now).saturating_sub(clock::since_boot());
            tokio::select! {
                order = orders.recv() => match order {
                    None => return,
                    Some(order) => self.ordered(order),
                },
                landed = of(&mut self.flight) => {
                    self.flight = None;
                    self.landed(clock::since_boot(), landed);
                }
                (asked, said) = of(&mut self.asking) => {
                    self.asking = None;
                    self.agreed(clock::since_boot(), asked, said);
                }
                () = crate::system::wait::back_off(pause) => {}
            }
        }
    }

    fn lease(&self) -> Duration {
        self.hold.as_ref().map_or(self.us.lease, |hold| hold.record.lease())
    }

    /// How long an answer is waited for: longer than it takes etcd to elect a leader is in vain, and
    /// another attempt would be late.
    fn within(&self) -> Duration {
        lease::look_every(self.lease()) * 3 / 2
    }

    fn ordered(&mut self, order: Order) {
        match order {
            Order::Take(claim, reply) => {
                if let Some((_, before)) = self.claim.replace((claim, reply)) {
                    let _ = before.send(Err(LeadError::Changed)); // It has gone.
                }
            }
            Order::Change(change, reply) => self.changes.push_back((change, reply)),
            Order::Desire(desire, reply) => self.waiting.push_back((desire, reply)),
            Order::Agree { holder, epoch, reply } => {
                let _ = reply.send(self.agree(&holder, epoch)); // It has gone.
            }
            Order::Members(members) => self.members = members,
            Order::LetGo => {
                if self.hold.is_some() || self.founds.is_some() {
                    self.lose(clock::since_boot(), "it cannot serve");
                }
            }
            Order::Look => self.look_now = true,
        }
    }

    /// The instance that asks is that of the record, or newer than what we have read.
    fn agree(&mut self, instance: &str, epoch: u64) -> Result<(), lead::Why> {
        if let Some(hold) = &self.hold {
            return Err(lead::Why::Succeeded {
                by: hold.record.holder.clone(),
                epoch: hold.record.epoch,
            });
        }
        let known = self.view.record().filter(|record| record.instance == instance);
        let holder = known.map(|record| record.holder.clone()).unwrap_or_default();
        self.view.agree(clock::since_boot(), epoch, &holder)
    }

    /// What the passing of time alone brings about.
    fn mind_the_time(&mut self, now: Duration) {
        if self.hold.as_ref().is_some_and(|hold| !hold.gives_up && !hold.may_write(now)) {
            self.lose(now, "the lease was not renewed in time");
        }
    }

    /// The next question, if one is due. Anybody may have us look (`POST /lease/look`): what keeps the lead,
    /// changes or takes it goes first, or a stranger could let our lease run out.
    fn take_off(&mut self, now: Duration) {
        if let Some((desire, reply)) = self.waiting.pop_front() {
            self.reply = Some(reply);
            let asked =
                flight::desire(self.client.clone(), self.keys.clone(), desire, self.within());
            self.flight = Some(asked.boxed());
            return;
        }
        if self.read_first || self.looked_at.is_zero() {
            return self.look(now);
        }
        if let Some(hold) = &self.hold {
            if let Some((_, reply)) = self.claim.take() {
                if hold.gives_up {
                    // What was sent to release it may be done yet, unless this is done before.
                    return self.try_change(now, Change::Renew, Some(reply));
                }
                answer(Some(reply), Ok(()));
            }
            if let Some((change, reply)) = self.changes.pop_front() {
                return self.try_change(now, change, Some(reply));
            }
            if self.hold.as_ref().is_some_and(|hold| !hold.gives_up && now >= hold.renew_at()) {
                return self.try_change(now, Change::Renew, None);
            }
        } else {
            for (_, reply) in self.changes.drain(..) {
                let _ = reply.send(Err(LeadError::NotOurs)); // It has gone.
            }
            if let Some((claim, reply)) = self.claim.take() {
                return self.take(now, *claim, reply);
            }
        }
        if now >= self.look_at() {
            self.look(now);
        }
    }

    fn look_at(&self) -> Duration {
        let every = if self.hold.as_ref().is_some_and(|hold| !hold.gives_up) {
            // Renewals tell the same; what people wish is read beside.
            LOOK_AT_LEAST_EVERY
        } else {
            let lease = self.view.record().map_or(self.us.lease, Record::lease);
            lease::look_every(lease).min(LOOK_AT_LEAST_EVERY)
        };
        match self.look_now {
            true => self.looked_at + LOOK_SOONEST_AFTER,
            false => self.looked_at + every,
        }
    }

    fn next_at(&self, now: Duration) -> Duration {
        let mut next = self.look_at();
        if let Some(hold) = &self.hold {
            if !hold.gives_up {
                next = next.min(hold.renew_at()).min(hold.writes_until());
            }
        } else if let Some(over) = self.view.over_at().filter(|over| *over > now) {
            next = next.min(over);
        }
        if self.flight.is_some() {
            // Its end wakes us; the end of the lease does, too.
            let lost = self.hold.as_ref().filter(|hold| !hold.gives_up).map(Hold::writes_until);
            let over = self.view.over_at().filter(|over| *over > now);
            return lost.or(over).unwrap_or(now + LOOK_AT_LEAST_EVERY);
        }
        next
    }

    fn look(&mut self, now: Duration) {
        (self.looked_at, self.look_now) = (now, false);
        self.flight =
            Some(flight::look(self.client.clone(), self.keys.clone(), self.within()).boxed());
    }

    fn try_change(&mut self, now: Duration, change: Change, reply: Option<Reply>) {
        let Some(hold) = &mut self.hold else { return };
        let Some(tried) = hold.sends(now, change) else {
            return answer(reply, Err(LeadError::NotOurs));
        };
        if hold.gives_up {
            // Nobody is to be stopped later for what is released now: the server is down.
            self.tell_guard_nothing();
        }
        self.reply = reply;
        let (client, keys, within) = (self.client.clone(), self.keys.clone(), self.within());
        let expected = Expected::At(tried.revision.cast_signed());
        let wrote = flight::write(client, keys, expected, tried.record, within);
        self.flight = Some(wrote.map(Landed::Tried).boxed());
    }

    fn take(&mut self, now: Duration, claim: Claim, reply: Reply) {
        let allowed = self.may_take(now, &claim);
        let record = match allowed {
            Ok(record) => record,
            Err(LeadError::Founds) => {
                info!(
                    "the voters have never had a majority yet: this node leads without them \
                     until they do"
                );
                self.founds = Some((claim.system, claim.timeline));
                return answer(Some(reply), Ok(()));
            }
            Err(why) => return answer(Some(reply), Err(why)),
        };
        let expected = match self.view.tries() {
            Some(revision) => Expected::At(revision.cast_signed()),
            None => Expected::Absent,
        };
        self.reply = Some(reply);
        self.taking = Some((record.clone(), now));
        let (client, keys, within) = (self.client.clone(), self.keys.clone(), self.within());
        let wrote = flight::write(client, keys, expected, record, within);
        self.flight = Some(wrote.map(Landed::Took).boxed());
    }

    /// The record that the claim would make.
    fn may_take(&self, now: Duration, claim: &Claim) -> Result<Record, LeadError> {
        let Claim { candidate, system, timeline, role, rivals, ask } = claim;
        let Some(record) = self.view.record() else {
            return match (self.view.read_at, role) {
                (None, Role::Primary) if self.first_read.is_some() => Err(LeadError::Founds),
                (None, _) => Err(LeadError::Silent(self.why_silent())),
                (Some(_), Role::Primary) => Ok(Record::found(&self.us, *system, *timeline)),
                (Some(_), Role::Standby) if *ask == (Ask::Person { allow_data_loss: true }) => {
                    Ok(Record::found(&self.us, *system, *timeline).not_opened())
                }
                (Some(_), Role::Standby) => Err(LeadError::Why(lead::Why::NoRecord)),
            };
        };
        if record.system != *system {
            return Err(LeadError::OtherCluster { theirs: record.system, ours: *system });
        }
        let taking = lead::may_take(candidate, &self.view, &self.seen.desired, rivals, *ask, now)
            .map_err(LeadError::Why)?;
        Ok(record.taken_by(&self.us, taking))
    }

    fn why_silent(&self) -> String {
        self.seen.unreachable.clone().unwrap_or_else(|| "they were not asked yet".to_owned())
    }

    /// The init half stops the server when this has passed, whatever we do.
    fn tell_guard(&mut self) {
        let (Some(hold), Some(guard)) = (&self.hold, &self.guard) else { return };
        if hold.gives_up {
            return;
        }
        let fence = hold.record.lease() - lease::writes_for(hold.record.lease());
        if let Err(error) = guard.may_write_until(hold.writes_until(), fence) {
            // The last word that it took still holds, and is sooner than this.
            debug!("the init half does not hear: {error}");
        }
    }

    fn tell_guard_nothing(&self) {
        if let Some(guard) = &self.guard
            && let Err(error) = guard.lift()
        {
            debug!("the init half does not hear: {error}");
        }
    }

    /// The server is stopped at once, if the init half has not done so yet.
    fn lose(&mut self, now: Duration, why: &str) {
        warn!("this node does not lead any more: {why}");
        self.hold = None;
        self.founds = None;
        if let Some(guard) = &self.guard
            && let Err(error) = guard.may_write_until(now, lease::renew_every(self.us.lease))
        {
            debug!("the init half does not hear: {error}");
        }
        for (_, reply) in self.changes.drain(..) {
            let _ = reply.send(Err(LeadError::NotOurs)); // It has gone.
        }
    }

    /// etcd is silent, and time passes.
    fn ask_the_others(&mut self, now: Duration) {
        let Some(hold) = &self.hold else { return };
        if hold.gives_up
            || self.asking.is_some()
            || self.seen.unreachable.is_none()
            || now < hold.ask_at()
        {
            return;
        }
        // Whoever could take the lead must be among those who are asked.
        let covered = |name: &String| self.members.iter().any(|(known, _)| known == name);
        if !hold.record.sync.iter().all(covered) {
            return;
        }
        let (settings, members) = (self.settings.clone(), self.members.clone());
        let (instance, epoch) = (hold.record.instance.clone(), hold.record.epoch);
        let at_most = lease::renew_every(hold.record.lease());
        let asked = async move {
            (now, agree::ask_all(&settings, &members, &instance, epoch, at_most).await)
        };
        self.asking = Some(asked.boxed());
    }

    fn agreed(&mut self, now: Duration, asked: Duration, said: Result<(), Vec<String>>) {
        let Some(hold) = &mut self.hold else { return };
        match said {
            Ok(()) => match hold.all_agreed(now, asked) {
                Ok(()) => self.tell_guard(),
                Err(lost) => self.lose(now, &lost.to_string()),
            },
            Err(missing) => {
                let why = self.why_silent();
                debug!("{} did not agree to go on ({why})", missing.join(", "));
            }
        }
    }

    /// Another one's turn ends after a lease, as [`lead::may_take`] has it.
    fn handed_to(&self, now: Duration) -> Option<String> {
        let record = self.view.record().filter(|_| self.hold.is_none())?;
        let to = record.released.as_ref()?.to.clone()?;
        (to != self.us.name && now < self.view.changed_at + record.lease()).then_some(to)
    }

    fn publish(&mut self, now: Duration) {
        let record = match &self.hold {
            Some(hold) => Some(hold.record.clone()),
            None => self.view.record().cloned(),
        };
        let seen = Seen {
            record,
            read: self.view.read_at.is_some(),
            leads: self.founds.is_some()
                || self.hold.as_ref().is_some_and(|hold| hold.may_write(now)),
            may_found: self.first_read.is_some(),
            over: self.hold.as_ref().is_none_or(|hold| hold.gives_up) && self.view.is_over(now),
            handed_to: self.handed_to(now),
            ..self.seen.clone()
        };
        self.published.send_if_modified(|before| {
            let changed = *before != seen;
            if changed {
                *before = seen;
            }
            changed
        });
    }
}

fn answer(reply: Option<Reply>, said: Result<(), LeadError>) {
    if let Some(reply) = reply {
        let _ = reply.send(said); // Whoever asked has gone.
    }
}

/// What is under way; never, where nothing is.
async fn of<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
