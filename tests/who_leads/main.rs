//! A whole cluster is killed, started, cut apart and promoted by hand in every way, in small: may
//! a node ever lead that must not, and may it be that nobody ever leads? And may empty volumes
//! become two clusters?

mod cluster;
mod empty;
mod node;
mod promises;
mod search;
mod words;

use cluster::{BACKUP, Herd, State};
use node::{Life, Node};
use pgherd::cluster::{Answer, Report, Standing};
use pgherd::scenario::Situation;
use promises::{ALL, ReliesOn};
use search::search;

/// Who is there, and how far it is taken.
const HERDS: [(&[usize], u8); 4] =
    [(&[0, 1], 3), (&[0, 1, BACKUP], 3), (&[0, 1, 2], 3), (&[0, 1, 2, BACKUP], 2)];

/// Whatever happens to these nodes, nobody leads who must not, and somebody leads in the end.
fn all_is_well(change: impl Fn(&mut Herd)) -> Result<(), String> {
    for (members, timelines_max) in HERDS {
        for (two_by_hand, words) in [(false, false), (true, false), (false, true)] {
            let mut herd = Herd::new(members, timelines_max);
            (herd.two_by_hand, herd.words) = (two_by_hand, words);
            change(&mut herd);

            let reached = search(&herd)?;
            let are = |state: &State, what: fn(&Node) -> bool| {
                members.iter().all(|member| what(&state[*member]))
            };
            let good = |state: &State| {
                let leads = state.iter().any(Node::leads);
                // Where a hand has made two primaries, it is a hand that has to stop one.
                leads && (two_by_hand || are(state, |node| node.life == Life::Serves))
            };
            // Who is gone for good is waited for, until somebody takes it out or says it again.
            let all_are_up = |state: &State| are(state, |node| node.life != Life::Down);
            if let Some(stuck) = reached.stuck(all_are_up, good, |state| herd.calm(state)) {
                return Err(format!("{}\n  and nobody ever leads", reached.way_to(stuck)));
            }
        }
    }
    Ok(())
}

#[test]
fn one_leads_and_it_has_the_newest_history() {
    if let Err(way) = all_is_well(|_| {}) {
        panic!("this goes wrong:\n{way}");
    }
}

/// A test that notices nothing is not one: without any of these guards something goes wrong.
#[test]
fn each_guard_of_recognise_is_needed() {
    type Spoil = fn(&mut Situation);
    let guards: [(&str, Spoil, &str); 6] = [
        (
            "whoever leads is heard",
            |situation| {
                for report in reports(situation) {
                    if let Standing::Serving { role, timeline, lsn } = report.standing {
                        report.standing = Standing::AtRest { role, timeline, lsn };
                    }
                }
            },
            "n1 leads although n0 says that it does",
        ),
        (
            "what the others have heard of counts",
            |situation| reports(situation).for_each(|report| report.newest = None),
            "n0 leads beside n1",
        ),
        (
            "what it has heard of itself counts",
            |situation| situation.ourselves.newest = None,
            "n0 leads beside n1",
        ),
        (
            "a member's silence counts",
            |situation| situation.sightings.iter_mut().for_each(|one| one.known = false),
            "n0 leads beside n1",
        ),
        (
            "one of the silent counts like the other",
            |situation| situation.sightings.retain(|one| one.answer != Answer::Silent),
            "n0 leads beside n1",
        ),
        (
            "nobody's word is taken for the silent",
            |situation| situation.ourselves.leads_alone = true,
            "n0 leads beside n1",
        ),
    ];
    for (guard, spoil, noticed) in guards {
        let way = all_is_well(|herd| herd.spoil = spoil).expect_err(guard);
        assert!(way.contains(noticed), "without {guard:?}: expected {noticed:?}, found\n{way}");
    }
}

/// What `recognise` cannot see to is a promise of the rest of the program, or a limit that
/// people have to know. Here stands what breaking each leads to.
#[test]
fn each_promise_that_recognise_relies_on_is_needed() {
    let promises: [(&str, ReliesOn, &str); 7] = [
        (
            "more than half note a promotion",
            ReliesOn { promotions_are_seen: false, ..ALL },
            "n0 leads beside n1",
        ),
        (
            "nobody promotes who is behind",
            ReliesOn { the_newest_is_promoted: false, ..ALL },
            "n1 leads beside n2",
        ),
        (
            "nobody promotes while a former primary is about to start",
            ReliesOn { nobody_promotes_meanwhile: false, ..ALL },
            "n0 leads beside n1",
        ),
        (
            "what was heard of is told from the start",
            ReliesOn { memory_is_told_from_the_start: false, ..ALL },
            "n0 leads beside n1",
        ),
        (
            "a word in vain is forgotten",
            ReliesOn { words_in_vain_are_forgotten: false, ..ALL },
            "n1 leads beside n2",
        ),
        (
            "a word is taken from whoever leads by it",
            ReliesOn { words_are_taken_from_leaders: false, ..ALL },
            "n0 leads beside n2",
        ),
        (
            "nobody joins an older primary",
            ReliesOn { joins_nothing_older: false, ..ALL },
            "n1 gives newer history up for that of n0",
        ),
    ];
    for (promise, relies_on, noticed) in promises {
        let way = all_is_well(|herd| herd.relies_on = relies_on).expect_err(promise);
        assert!(way.contains(noticed), "without {promise:?}: expected {noticed:?}, found\n{way}");
    }
}

/// Whoever noted a promotion knows more than whoever was promoted has told.
#[test]
fn a_node_may_tell_late_what_it_has_become() {
    let late = ReliesOn { all_is_told_at_once: false, ..ALL };
    let only_that = |herd: &mut Herd| {
        herd.relies_on = late;
        (herd.two_by_hand, herd.words) = (false, false); // Or it takes too long.
    };
    if let Err(way) = all_is_well(only_that) {
        panic!("this goes wrong:\n{way}");
    }
}

fn reports(situation: &mut Situation) -> impl Iterator<Item = &mut Report> {
    situation.sightings.iter_mut().filter_map(|one| match &mut one.answer {
        Answer::Report(report) => Some(&mut **report),
        Answer::Refuses(_) | Answer::Silent => None,
    })
}
