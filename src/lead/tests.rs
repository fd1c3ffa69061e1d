use super::lease::{look_every, renew_every, writes_for};
use super::*;
use crate::cluster::{Lsn, NodeId, Role, SyncMode, SystemId, Timeline};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(8);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn us(name: &str) -> Us {
    Us {
        name: name.to_owned(),
        address: name.parse().unwrap(),
        instance: format!("{name}-1"),
        lease: LEASE,
        synchronous: SyncMode::Preferred,
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// node1 leads on timeline 3, node2 is synchronous.
fn record() -> Record {
    Record::found(&us("node1"), SystemId(7), Timeline(3)).with_sync(names(&["node2"]))
}

fn standby(name: &str, id: u32) -> Candidate {
    Candidate {
        name: name.to_owned(),
        id: NodeId::try_from(id).ok(),
        system: SystemId(7),
        role: Role::Standby,
        timeline: Timeline(3),
        lsn: Lsn(100),
        priority: 100,
        complete: true,
    }
}

fn running(says: Candidate) -> Rival {
    Rival { name: says.name.clone(), says: Some(says), running: true }
}

fn silent(name: &str) -> Rival {
    Rival { name: name.to_owned(), says: None, running: false }
}

/// `record`, seen at second 0 for the first time, and read just now again.
fn view(record: &Record, now: Duration) -> View {
    let mut view = View::default();
    view.saw(seconds(0), 5, record.clone());
    view.saw(now, 5, record.clone());
    view
}

fn by_rule(us: &Candidate, record: &Record, others: &[Rival], now: u64) -> Result<Taking, Why> {
    let now = seconds(now);
    may_take(us, &view(record, now), &Desired::default(), others, Ask::ByRule, now)
}

#[test]
fn a_record_of_a_later_version_is_read() {
    let mut json = serde_json::to_value(record()).unwrap();
    json["since"] = "tomorrow".into();
    assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record());
    let desired: Desired = serde_json::from_str(r#"{"paused": true, "colour": "red"}"#).unwrap();
    assert!(desired.paused && desired.maintenance.is_empty());
}

#[test]
fn what_is_given_back_is_what_was_taken() {
    let taken = record().taken_by(&us("node2"), Taking::Promote);
    assert_eq!((taken.epoch, taken.renewals), (2, 0));
    let back = taken.given_back().unwrap();
    assert_eq!((&*back.holder, &back.sync), ("node1", &record().sync));
    assert_eq!(back.released, Some(Released { to: Some("node1".to_owned()), at: None }));
    assert_eq!(record().given_back(), None);
    // Whoever takes it from one that never opened gives back the same.
    let again = taken.taken_by(&us("node3"), Taking::Promote);
    assert_eq!(again.promoting, taken.promoting);
    assert_eq!(taken.opened(Timeline(4)).sync, names(&[]));
}

#[test]
fn only_after_a_whole_lease_and_only_the_synchronous() {
    let (node2, node3) = (standby("node2", 2), standby("node3", 3));
    let others = [running(node3.clone()), silent("node1")];
    assert!(matches!(by_rule(&node2, &record(), &others, 7), Err(Why::Leads { .. })));
    assert_eq!(by_rule(&node2, &record(), &others, 8), Ok(Taking::Promote));
    let why = by_rule(&node3, &record(), &[silent("node1"), silent("node2")], 20).unwrap_err();
    assert_eq!(
        why.to_string(),
        "node3 was not synchronous with the last primary, node1: it may lack acknowledged writes; \
         start node1 or node2, or: pgherd failover --to node3 --allow-data-loss"
    );
    let lossy = Ask::Person { allow_data_loss: true };
    let word = |now| {
        let now = seconds(now);
        may_take(&node3, &view(&record(), now), &Desired::default(), &[], lossy, now)
    };
    assert!(matches!(word(7), Err(Why::Leads { .. })), "no word shortens a lease");
    assert_eq!(word(8), Ok(Taking::Promote));
}

#[test]
fn what_was_not_read_just_now_is_not_believed() {
    let seen = view(&record(), seconds(20));
    let at =
        |now| may_take(&standby("node2", 2), &seen, &Desired::default(), &[], Ask::ByRule, now);
    assert_eq!(at(seconds(20) + look_every(LEASE)), Ok(Taking::Promote));
    assert_eq!(at(seconds(22)), Err(Why::NotRead));
}

#[test]
fn a_former_life_is_resumed_at_once() {
    let node1 = Candidate { role: Role::Primary, priority: 0, ..standby("node1", 1) };
    assert_eq!(by_rule(&node1, &record(), &[], 0), Ok(Taking::Resume));
    let older = Candidate { timeline: Timeline(2), ..node1.clone() };
    assert!(matches!(by_rule(&older, &record(), &[], 0), Err(Why::OtherHistory { .. })));
    // Promoted, and dead before it could say so.
    let taken = record().taken_by(&us("node2"), Taking::Promote);
    let node2 = Candidate { role: Role::Primary, timeline: Timeline(4), ..standby("node2", 2) };
    assert_eq!(by_rule(&node2, &taken, &[], 0), Ok(Taking::Open));
}

#[test]
fn what_may_have_been_promoted_is_left_to_people() {
    let taken = record().taken_by(&us("node2"), Taking::Promote);
    let node1 = Candidate { role: Role::Primary, ..standby("node1", 1) };
    assert!(matches!(by_rule(&node1, &taken, &[], 20), Err(Why::Opening { .. })));
    let person = Ask::Person { allow_data_loss: false };
    let now = seconds(20);
    let told = may_take(&node1, &view(&taken, now), &Desired::default(), &[], person, now);
    assert_eq!(told, Ok(Taking::Open), "nothing was acknowledged since");
}

#[test]
fn what_was_released_goes_to_whom_it_was_meant_for() {
    let released = record().released(Some("node2"), Lsn(100));
    let (node2, node3) = (standby("node2", 2), standby("node3", 3));
    assert_eq!(by_rule(&node2, &released, &[running(node3.clone())], 0), Ok(Taking::Promote));
    assert!(matches!(by_rule(&node3, &released, &[], 7), Err(Why::HandedTo { .. })));
    assert_eq!(by_rule(&node3, &released, &[silent("node2")], 8), Ok(Taking::Promote));
    let behind = Candidate { lsn: Lsn(99), ..node3 };
    assert!(matches!(by_rule(&behind, &released, &[], 8), Err(Why::NotSynchronous { .. })));
}

#[test]
fn what_people_want_is_minded_and_overruled_by_people_only() {
    let node2 = standby("node2", 2);
    let never = Candidate { priority: 0, ..node2.clone() };
    let paused = Desired { paused: true, ..Desired::default() };
    let maintained = Desired { maintenance: names(&["node2"]), ..Desired::default() };
    let now = seconds(8);
    let ask =
        |us, desired: &Desired, ask| may_take(us, &view(&record(), now), desired, &[], ask, now);
    let person = Ask::Person { allow_data_loss: false };
    for (us, desired) in [(&never, &Desired::default()), (&node2, &paused), (&node2, &maintained)] {
        assert!(ask(us, desired, Ask::ByRule).is_err());
        assert_eq!(ask(us, desired, person), Ok(Taking::Promote));
    }
    let other = Candidate { system: SystemId(8), ..node2.clone() };
    let half = Candidate { complete: false, ..node2.clone() };
    let lossy = Ask::Person { allow_data_loss: true };
    assert!(matches!(ask(&other, &paused, lossy), Err(Why::OtherCluster { .. })));
    assert!(matches!(ask(&half, &paused, person), Err(Why::Behind { .. })));
    assert_eq!(ask(&half, &paused, lossy), Ok(Taking::Promote));
}

#[test]
fn while_paused_only_what_was_handed_over_is_taken() {
    let paused = Desired { paused: true, ..Desired::default() };
    let ask = |us: &Candidate, record: &Record| {
        let now = seconds(8);
        may_take(us, &view(record, now), &paused, &[], Ask::ByRule, now)
    };
    let node1 = Candidate { role: Role::Primary, ..standby("node1", 1) };
    let (node2, node3) = (standby("node2", 2), standby("node3", 3));
    let released = record().released(Some("node2"), Lsn(100));
    assert_eq!(ask(&node2, &released), Ok(Taking::Promote), "it was named");
    assert!(ask(&node1, &released).is_ok(), "it may have it back");
    assert!(matches!(ask(&node3, &released), Err(Why::Paused { .. })));
    for us in [&node1, &node2] {
        assert!(matches!(ask(us, &record()), Err(Why::Paused { .. })), "a lost one stays lost");
    }
}

#[test]
fn where_nothing_is_synchronous_whoever_has_most_leads() {
    let off = Record { synchronous: SyncMode::Off, ..record().with_sync(names(&[])) };
    let (node2, node3) = (standby("node2", 2), standby("node3", 3));
    let ahead = Candidate { lsn: Lsn(101), ..node3.clone() };
    let with =
        |other: Candidate, now| by_rule(&node2, &off, &[running(other), silent("node1")], now);
    assert!(matches!(with(ahead.clone(), 8), Err(Why::HasLess { .. })));
    assert_eq!(with(ahead.clone(), 16), Ok(Taking::Promote), "it has had its time");
    assert_eq!(with(node3.clone(), 8), Ok(Taking::Promote), "the lower id goes first");
    assert_eq!(with(Candidate { priority: 0, ..ahead }, 8), Ok(Taking::Promote));
    let preferred = Candidate { priority: 101, ..node3 };
    assert!(matches!(with(preferred.clone(), 8), Err(Why::GivesWay { .. })));
    assert_eq!(with(preferred, 10), Ok(Taking::Promote), "it has had its time");
    let alone = by_rule(&node2, &off, &[silent("node1"), silent("node3")], 20);
    assert!(matches!(alone, Err(Why::TooFewAnswer { answer: 1, members: 3, .. })));
}

#[test]
fn whoever_agreed_waits_a_whole_lease() {
    let mut view = View::default();
    assert!(!view.is_over(seconds(100)), "nobody has led");
    view.saw(seconds(10), 5, record());
    assert!(!view.is_over(seconds(17)) && view.is_over(seconds(18)));
    view.agree(seconds(15), 1, "node1").unwrap();
    assert!(!view.is_over(seconds(22)) && view.is_over(seconds(23)));
    assert!(view.agree(seconds(15), 0, "node9").is_err(), "it was succeeded");
    assert!(view.agree(seconds(15), 1, "node9").is_err());
    view.tries();
    assert_eq!(view.agree(seconds(30), 1, "node1"), Err(Why::TriesItself));
    view.saw(seconds(30), 5, record());
    assert_eq!(view.agree(seconds(30), 1, "node1"), Err(Why::TriesItself), "it may come yet");
    view.saw(seconds(31), 6, record());
    assert_eq!(view.agree(seconds(31), 1, "node1"), Ok(()));
}

#[test]
fn a_lost_answer_counts_from_when_it_was_sent_first() {
    let mut hold = Hold::begun(record(), 5, seconds(0));
    assert_eq!(hold.writes_until(), writes_for(LEASE));
    assert_eq!(hold.renew_at(), renew_every(LEASE));
    let first = hold.sends(seconds(2), Change::Renew).unwrap();
    hold.answered(seconds(3), Answer::Unknown).unwrap();
    assert_eq!(hold.renew_at(), seconds(3));
    let second = hold.sends(seconds(4), Change::Renew).unwrap();
    assert_eq!(first, second, "so there are never many");
    hold.answered(seconds(4), Answer::Changed(Some((6, first.record)))).unwrap();
    assert_eq!((hold.revision, hold.writes_until()), (6, seconds(2) + writes_for(LEASE)));
}

#[test]
fn what_another_has_written_ends_a_hold() {
    let mut hold = Hold::begun(record(), 5, seconds(0));
    let taken = record().taken_by(&us("node2"), Taking::Promote);
    assert_eq!(hold.read(seconds(1), 6, &taken), Err(Lost::Taken));
    // Nor does what comes late bring it back.
    let mut hold = Hold::begun(record(), 5, seconds(0));
    hold.sends(seconds(5), Change::Renew).unwrap();
    assert_eq!(hold.answered(seconds(6), Answer::Done(6)), Err(Lost::Late));
    assert_eq!(hold.all_agreed(seconds(6), seconds(5)), Err(Lost::Late));
}

#[test]
fn a_server_that_was_released_stays_down() {
    let mut hold = Hold::begun(record(), 5, seconds(0));
    hold.sends(seconds(1), Change::Release { to: None, at: Lsn(1) }).unwrap();
    assert!(!hold.may_write(seconds(1)));
    hold.answered(seconds(1), Answer::Unknown).unwrap();
    assert!(!hold.may_write(seconds(2)), "it may come yet");
    hold.sends(seconds(2), Change::Renew).unwrap();
    hold.answered(seconds(2), Answer::Done(6)).unwrap();
    assert!(hold.may_write(seconds(3)), "it cannot come any more");
}

#[test]
fn with_everybodys_word_it_goes_on() {
    let mut hold = Hold::begun(record(), 5, seconds(0));
    assert_eq!(hold.ask_at(), renew_every(LEASE));
    hold.all_agreed(seconds(4), seconds(3)).unwrap();
    assert_eq!(hold.writes_until(), seconds(3) + writes_for(LEASE));
}

#[derive(Clone, Debug)]
enum Event {
    Send,
    Done,
    Unknown,
    Agreed(u64),
}

proptest! {
    /// Whatever comes, in whatever order: nobody writes on more than what was sent and answered.
    #[test]
    fn no_one_writes_longer_than_three_quarters_of_a_lease(
        events in proptest::collection::vec((0..3000u64, prop_oneof![
            Just(Event::Send), Just(Event::Done), Just(Event::Unknown),
            (0..3000u64).prop_map(Event::Agreed),
        ]), 1..40)
    ) {
        let mut hold = Hold::begun(record(), 1, Duration::ZERO);
        let (mut now, mut good, mut sent, mut revision) = (0, 0, None, 1);
        for (passed, event) in events {
            now += passed;
            let at = Duration::from_millis(now);
            let heard = match event {
                Event::Send => {
                    hold.sends(at, Change::Renew);
                    sent = Some(now);
                    Ok(())
                }
                Event::Done => match sent.take() {
                    Some(sent) => {
                        good = good.max(sent);
                        revision += 1;
                        hold.answered(at, Answer::Done(revision))
                    }
                    None => Ok(()),
                },
                Event::Unknown => {
                    sent = None;
                    hold.answered(at, Answer::Unknown)
                }
                Event::Agreed(ago) => {
                    let asked = now.saturating_sub(ago);
                    good = good.max(asked);
                    hold.all_agreed(at, Duration::from_millis(asked))
                }
            };
            if heard.is_err() {
                break;
            }
            prop_assert!(hold.writes_until() <= Duration::from_millis(good) + writes_for(LEASE));
            prop_assert!(hold.open.len() <= 1);
        }
    }
}
