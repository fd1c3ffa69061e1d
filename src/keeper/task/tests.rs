//! What the keeper makes of answers that are lost. Nothing is sent: what would have come of it is said.

use super::*;
use crate::cluster::{Lsn, SyncMode};
use crate::keeper::flight::Wrote;
use crate::lead::{Candidate, Record};
use crate::settings::{self, EtcdEndpoint};

const LEASE: Duration = Duration::from_secs(4);
const SYSTEM: SystemId = SystemId(7);

fn us(name: &str) -> Us {
    Us {
        name: name.to_owned(),
        address: Address { host: name.to_owned(), port: 5432 },
        instance: format!("{name}'s life"),
        lease: LEASE,
        synchronous: SyncMode::Preferred,
    }
}

fn claim() -> Box<Claim> {
    Box::new(Claim {
        candidate: Candidate {
            name: "node2".to_owned(),
            id: None,
            system: SYSTEM,
            role: Role::Standby,
            timeline: Timeline(1),
            lsn: Lsn(9),
            priority: 100,
            complete: true,
        },
        system: SYSTEM,
        timeline: Timeline(1),
        role: Role::Standby,
        rivals: Vec::new(),
        ask: Ask::ByRule,
    })
}

/// node2, a standby that has everything, and whose primary has been silent for a lease. The time is 10 s.
fn left_alone() -> (Task, watch::Receiver<Seen>) {
    let settings = settings::read([], |_| unreachable!()).unwrap();
    let nowhere = EtcdEndpoint { tls: false, host: "127.0.0.1".to_owned(), port: 1 };
    let client = etcd::Client::new([nowhere], None, None);
    let (published, seen) = watch::channel(Seen::default());
    let mut task = Task::new(settings, us("node2"), client, None, None, published);
    let led = Record::found(&us("node1"), SYSTEM, Timeline(1)).with_sync(["node2".into()].into());
    task.looked_at = secs(5);
    task.read(secs(5), Some((11, led.clone())));
    task.read(secs(10), Some((11, led)));
    (task, seen)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Somebody claims the lead at that time, and what is to be written then is on its way.
fn claims(task: &mut Task, at: Duration) -> (Record, oneshot::Receiver<Result<(), LeadError>>) {
    let (reply, said) = oneshot::channel();
    task.ordered(Order::Take(claim(), reply));
    task.take_off(at);
    (task.taking.clone().expect("it is sent").0, said)
}

#[test]
fn a_lead_whose_answer_was_lost_is_had_by_whoever_claims_it_again_and_by_nobody_else() {
    let (mut task, seen) = left_alone();
    let (sent, mut said) = claims(&mut task, secs(10));
    task.flight = None;
    task.took(secs(11), Wrote::Unknown("no answer".to_owned()));
    assert!(matches!(said.try_recv().unwrap(), Err(LeadError::Silent(_))));
    // It was done, and is read back. Whoever wanted it may have gone meanwhile.
    task.read(secs(11), Some((12, sent.clone())));
    task.publish(secs(11));
    assert!(task.hold.is_none() && !seen.borrow().leads, "nobody is there to do anything with it");
    task.publish(secs(16));
    assert!(seen.borrow().over, "it would be renewed for ever");

    task.read_first = false;
    let (again, mut said) = claims(&mut task, secs(11));
    assert_eq!((again.epoch, &again.holder), (sent.epoch + 1, &sent.holder));
    assert_eq!(again.promoting, sent.promoting, "node1 has everything, too");
    task.flight = None;
    task.took(secs(11), Wrote::Done(13));
    assert_eq!(said.try_recv().unwrap(), Ok(()));
    task.publish(secs(11));
    assert!(seen.borrow().leads);
}

#[test]
fn a_lead_that_is_taken_twice_because_an_answer_was_lost_is_asked_for_once_more() {
    let (mut task, _seen) = left_alone();
    let (sent, _) = claims(&mut task, secs(10));
    task.flight = None;
    task.took(secs(10), Wrote::Unknown("no answer".to_owned()));
    task.read_first = false; // It was read while the first was on its way still.
    let (_, mut said) = claims(&mut task, secs(10));
    task.flight = None;
    task.took(secs(10), Wrote::Changed(Some((12, sent))));
    let said = said.try_recv().unwrap();
    assert!(matches!(said, Err(LeadError::Silent(_))), "another was not sooner: {said:?}");
}

#[test]
fn a_lead_whose_giving_back_was_lost_is_to_be_had_again() {
    let (mut task, seen) = left_alone();
    let (sent, _) = claims(&mut task, secs(10));
    task.flight = None;
    task.took(secs(10), Wrote::Done(12));
    let (reply, _given_back) = oneshot::channel();
    task.ordered(Order::Change(Change::GiveBack, reply));
    task.take_off(secs(11));
    task.flight = None;
    task.tried(secs(11), Wrote::Unknown("no answer".to_owned()));
    // It was not done.
    task.read(secs(12), Some((12, sent)));
    task.publish(secs(12));
    assert!(!seen.borrow().leads && !seen.borrow().over, "the record says that it leads");
    task.publish(secs(20));
    assert!(seen.borrow().over, "and nobody else may take it from a node that may have begun");
    task.read_first = false;
    let (reply, mut said) = oneshot::channel();
    task.ordered(Order::Take(claim(), reply));
    task.take_off(secs(20));
    task.flight = None;
    task.tried(secs(20), Wrote::Done(13));
    assert_eq!(said.try_recv().unwrap(), Ok(()));
    task.publish(secs(20));
    assert!(seen.borrow().leads);
}
