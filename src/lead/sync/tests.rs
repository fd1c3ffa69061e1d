use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { bytes_max: 1000, lag_max: Duration::from_secs(4) };

/// A primary with its standbys, in small.
#[derive(Clone, Debug)]
struct World {
    mode: SyncMode,
    record: BTreeSet<String>,
    names: Names,
    since: Option<Lsn>,
    written: u64,
    /// Streams, flushed so far.
    standbys: [(bool, u64); 2],
    acknowledged: u64,
    preferred: Option<usize>,
}

const NODES: [&str; 2] = ["node2", "node3"];

impl World {
    fn new(mode: SyncMode) -> Self {
        World {
            mode,
            record: BTreeSet::new(),
            names: Names::Nobody,
            since: None,
            written: 1,
            standbys: [(true, 0); 2],
            acknowledged: 0,
            preferred: None,
        }
    }

    fn next(&self) -> Option<Step> {
        let seen = NODES.iter().zip(&self.standbys).filter(|(_, (streaming, _))| *streaming);
        let standbys: Vec<_> = seen
            .map(|(name, (_, flushed))| StandbySeen {
                name: (*name).to_owned(),
                streaming: true,
                is_sync: self.names.wait_for(name),
                flush: Lsn(*flushed),
                replay: Lsn(*flushed),
                flush_lag: None,
                replay_lag: None,
                eligible: true,
            })
            .collect();
        next(&Seen {
            mode: self.mode,
            record: &self.record,
            in_postgres: &self.names,
            in_force_since: self.since,
            written: Lsn(self.written),
            standbys: &standbys,
            limits: LIMITS,
            preferred: self.preferred.map(|at| NODES[at]),
        })
    }

    fn does(&mut self, step: Step) {
        match step {
            Step::Record(set) => self.record = set,
            Step::Postgres(names) => (self.names, self.since) = (names, None),
        }
    }

    /// Everything that may be acknowledged is.
    fn acknowledges(&mut self) {
        let upto = match &self.names {
            Names::Nobody | Names::Other => self.written,
            Names::Only(name) => self.flushed(name),
            Names::Both(first, second) => self.flushed(first).min(self.flushed(second)),
        };
        self.acknowledged = self.acknowledged.max(upto);
    }

    fn flushed(&self, name: &str) -> u64 {
        let at = NODES.iter().position(|node| *node == name);
        at.map(|at| self.standbys[at]).filter(|one| one.0).map_or(0, |one| one.1)
    }

    fn is_true(&self) -> bool {
        self.record.iter().all(|name| {
            let at = NODES.iter().position(|node| node == name);
            at.is_some_and(|at| self.standbys[at].1 >= self.acknowledged)
        })
    }

    /// All steps there are to do, while everybody catches up.
    fn settles(&mut self) {
        for _ in 0..8 {
            self.standbys.iter_mut().filter(|one| one.0).for_each(|one| one.1 = self.written);
            self.acknowledges();
            self.since = Some(Lsn(self.written));
            match self.next() {
                Some(step) => self.does(step),
                None => return,
            }
        }
        panic!("it never ends: {self:?}");
    }
}

fn only(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

#[test]
fn it_grows_in_postgres_first_and_shrinks_in_the_record_first() {
    let mut world = World::new(SyncMode::Preferred);
    let grows = Step::Postgres(Names::Only("node2".to_owned()));
    assert_eq!(world.next(), Some(grows.clone()));
    world.does(grows);
    assert_eq!(world.next(), None, "not seen in force");
    world.since = Some(Lsn(1));
    assert_eq!(world.next(), None, "what was before is not flushed");
    world.standbys[0].1 = 1;
    assert_eq!(world.next(), Some(Step::Record(only("node2"))));
    world.settles();
    world.standbys[0].0 = false;
    assert_eq!(world.next(), Some(Step::Record(BTreeSet::new())));
    world.does(Step::Record(BTreeSet::new()));
    assert_eq!(world.next(), Some(Step::Postgres(Names::Only("node3".to_owned()))));
    world.standbys[1].0 = false;
    assert_eq!(world.next(), Some(Step::Postgres(Names::Nobody)));
}

#[test]
fn required_is_never_emptied() {
    let mut world = World::new(SyncMode::Required);
    world.standbys = [(false, 0); 2];
    assert_eq!(world.next(), Some(Step::Postgres(Names::Only(NO_STANDBY.to_owned()))));
    world.standbys = [(true, 0), (false, 0)];
    world.settles();
    assert_eq!(world.record, only("node2"));
    world.standbys[0].0 = false;
    assert_eq!(world.next(), None, "commits wait, and node2 has all there is");
    world.standbys[1].0 = true;
    world.settles();
    assert_eq!(world.record, only("node3"));
}

/// A primary that is killed at any moment of this leaves one that may lead.
#[test]
fn from_one_that_is_well_to_another_there_is_always_one() {
    let mut world = World::new(SyncMode::Preferred);
    world.settles();
    assert_eq!(world.record, only("node2"));
    world.preferred = Some(1);
    let both = Names::Both("node2".to_owned(), "node3".to_owned());
    assert_eq!(world.next(), Some(Step::Postgres(both.clone())));
    world.does(Step::Postgres(both));
    assert_eq!(world.next(), None, "not seen in force");
    world.since = Some(Lsn(world.written));
    assert_eq!(world.next(), Some(Step::Record(only("node3"))));
    world.does(Step::Record(only("node3")));
    assert_eq!(world.next(), Some(Step::Postgres(Names::Only("node3".to_owned()))));
    world.settles();
    world.preferred = Some(0);
    world.standbys[0].0 = false;
    assert_eq!(world.next(), None, "who is preferred is not there: all stays as it is");
}

#[test]
fn one_that_goes_while_another_comes_is_not_waited_for() {
    let mut world = World::new(SyncMode::Preferred);
    world.settles();
    world.preferred = Some(1);
    world.does(Step::Postgres(Names::Both("node2".to_owned(), "node3".to_owned())));
    let mut other = world.clone();
    world.standbys[0].0 = false;
    assert_eq!(world.next(), Some(Step::Record(BTreeSet::new())));
    world.does(Step::Record(BTreeSet::new()));
    assert_eq!(world.next(), Some(Step::Postgres(Names::Only("node3".to_owned()))));
    other.standbys[1].0 = false;
    assert_eq!(other.next(), Some(Step::Postgres(Names::Only("node2".to_owned()))));
}

#[test]
fn off_ends_with_nobody() {
    let mut world = World::new(SyncMode::Preferred);
    world.settles();
    world.mode = SyncMode::Off;
    world.settles();
    assert_eq!((world.record, world.names), (BTreeSet::new(), Names::Nobody));
}

#[test]
fn who_lags_is_left_out_and_comes_back_when_it_is_near() {
    let mut world = World::new(SyncMode::Preferred);
    world.standbys[1].0 = false;
    world.settles();
    world.written += 1000;
    assert_eq!(world.next(), None);
    world.written += 1;
    assert_eq!(world.next(), Some(Step::Record(BTreeSet::new())));
    world.does(Step::Record(BTreeSet::new()));
    world.does(Step::Postgres(Names::Nobody));
    world.standbys[0].1 += 1;
    assert_eq!(world.next(), None, "it would go again at once");
    world.standbys[0].1 = world.written - 250;
    assert_eq!(world.next(), Some(Step::Postgres(Names::Only("node2".to_owned()))));
}

#[derive(Clone, Debug)]
enum Event {
    Step,
    /// The setting is seen in force, at this position.
    InForce,
    Writes,
    Flushes(usize),
    ComesOrGoes(usize),
    Prefers(Option<usize>),
    /// The server starts again, with the setting that was written.
    Restarts,
}

proptest! {
    /// Any number of steps is done, and then anything else happens: an interrupted change is one of
    /// these ways. At each moment whoever is in the record has all that was acknowledged.
    #[test]
    fn whoever_is_in_the_record_has_everything(
        mode in prop_oneof![
            Just(SyncMode::Off), Just(SyncMode::Preferred), Just(SyncMode::Required)
        ],
        events in proptest::collection::vec(prop_oneof![
            4 => Just(Event::Step),
            2 => Just(Event::InForce),
            2 => Just(Event::Writes),
            2 => (0..2usize).prop_map(Event::Flushes),
            1 => (0..2usize).prop_map(Event::ComesOrGoes),
            1 => Just(Event::Restarts),
            1 => proptest::option::of(0..2usize).prop_map(Event::Prefers),
        ], 1..60)
    ) {
        let mut world = World::new(mode);
        for event in events {
            match event {
                Event::Step => if let Some(step) = world.next() {
                    world.does(step.clone());
                    let mut twice = world.clone();
                    twice.does(step);
                    prop_assert_eq!(twice.next(), world.next());
                },
                Event::InForce => world.since = Some(Lsn(world.written)),
                Event::Writes => world.written += 1,
                Event::Flushes(at) => if world.standbys[at].0 {
                    world.standbys[at].1 = world.written;
                },
                Event::ComesOrGoes(at) => world.standbys[at].0 ^= true,
                Event::Restarts => world.since = None,
                Event::Prefers(at) => world.preferred = at,
            }
            world.acknowledges();
            prop_assert!(world.is_true(), "{:?}", world);
        }
        world.settles();
        prop_assert_eq!(world.next(), None);
        prop_assert!(world.is_true());
    }
}
