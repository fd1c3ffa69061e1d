//! Who may lead, searched through: three nodes with data, one record, discrete time, and all that
//! can happen in small, in every order. What decides is the product's own `pgherd::lead`.
//!
//! What must hold: two never take writes at once; whoever leads has every acknowledged write; and
//! when faults end, somebody leads again. Each guard is taken away once, and then the search must
//! find something wrong.
//!
//! What is taken for granted: a lease is four ticks; a clock loses one of them at most; a node half
//! that is well renews in time, and a request arrives within a tick (all else is a fault); a thawed
//! node's PID 1 sees the deadline before its server takes a write; joining and rewinding are one
//! step.

mod acts;
mod calm;
mod model;
mod real;
mod search;
mod server;
mod state;
mod weather;

use model::{ALL, Faults, Guards, Herd};
use pgherd::cluster::SyncMode;
use search::Memory;
use state::{Left, NODES, State};
use std::collections::HashSet;
use std::time::Instant;

const NOTHING_LEFT: Left =
    Left { faults: 0, slow_ticks: 0, handovers: 0, words: 0, failed_promotions: 0 };
const NONE: Faults = Faults {
    crash: false,
    pause: false,
    stall: false,
    cut: false,
    link: false,
    answers: false,
    outage: false,
};
const ONE_FAULT: Left = Left { faults: 1, ..NOTHING_LEFT };

fn herd(faults: Faults, left: Left) -> Herd {
    Herd {
        mode: SyncMode::Preferred,
        guards: ALL,
        faults,
        fail: 0b111,
        left,
        writes_max: 1,
        timelines_max: 3,
        slow_requests: false,
        looks: Memory::default(),
        bits: Memory::default(),
        steps: Memory::default(),
    }
}

/// Servers die, and answers are lost; both can happen.
fn losses() -> Herd {
    let left = Left { faults: 2, ..NOTHING_LEFT };
    Herd { fail: 0b011, ..herd(Faults { crash: true, answers: true, ..NONE }, left) }
}

/// Links between servers break, and servers die.
fn links() -> Herd {
    let left = Left { faults: 2, ..NOTHING_LEFT };
    let faults = Faults { crash: true, link: true, ..NONE };
    Herd { fail: 0b001, timelines_max: 2, ..herd(faults, left) }
}

/// Nodes freeze, or their node half does, or they do not reach the record; a clock is slow.
fn freezes() -> Herd {
    let left = Left { slow_ticks: 1, ..ONE_FAULT };
    let faults = Faults { pause: true, stall: true, cut: true, ..NONE };
    Herd { slow_requests: true, ..herd(faults, left) }
}

/// Nobody reaches the record, or one node does not; a clock is slow.
fn outages() -> Herd {
    let left = Left { slow_ticks: 1, ..ONE_FAULT };
    herd(Faults { outage: true, cut: true, ..NONE }, left)
}

/// The lead is handed over, and something of `faults` happens meanwhile.
fn handovers(faults: Faults) -> Herd {
    let left = Left { handovers: 1, ..ONE_FAULT };
    Herd { fail: 0b011, ..herd(faults, left) }
}

/// A promotion fails, servers die, and a person says who leads.
fn words(failed_promotions: u8, faults: u8) -> Herd {
    let left = Left { words: 1, failed_promotions, faults, ..NOTHING_LEFT };
    Herd { fail: 0b011, timelines_max: 2, ..herd(Faults { crash: true, ..NONE }, left) }
}

fn holds(name: &str, herd: Herd) {
    let began = Instant::now();
    let reached = search::search(&herd).unwrap_or_else(|wrong| panic!("{name}:\n{wrong}"));
    let searched = began.elapsed();
    // What comes is calm: the searched bound on histories is no rule of the product's.
    let herd = Herd { timelines_max: u8::MAX, ..herd };
    let mut known = [const { None }; NODES + 1].map(|_: Option<()>| HashSet::new());
    for (number, state) in reached.states.iter().enumerate() {
        for (down, known) in [None, Some(0), Some(1), Some(2)].into_iter().zip(&mut known) {
            if down.is_some_and(|down| !may_stay_down(state, down)) {
                continue;
            }
            if let Err(stuck) = herd.ends_well(state, down, known) {
                panic!("{name}:\n{}\n  then {down:?} stays down\n{stuck}", reached.way_to(number));
            }
        }
    }
    println!(
        "{name}: {} states, {:.1} s, and {:.1} s to see that each ends well",
        reached.states.len(),
        searched.as_secs_f32(),
        (began.elapsed() - searched).as_secs_f32()
    );
}

/// One that is down need not come back: another surely has everything, and nobody was promoted
/// without having said so.
fn may_stay_down(state: &State, down: usize) -> bool {
    let record = &state.record;
    let others = (0..NODES).filter(|node| *node != down);
    let mut complete =
        others.filter(|node| record.sync & (1 << node) != 0 || usize::from(record.holder) == *node);
    !state.nodes[down].up
        && complete.next().is_some()
        && (record.before.is_none() || usize::from(record.holder) != down)
}

fn is_needed(herd: Herd, without: Guards) {
    let began = Instant::now();
    match search::search(&Herd { guards: without, ..herd }) {
        Ok(reached) => panic!("nothing goes wrong in {} states", reached.states.len()),
        Err(way) => println!("{:.1} s:\n{way}", began.elapsed().as_secs_f32()),
    }
}

#[test]
fn servers_die_and_answers_are_lost() {
    holds("losses", losses());
}

#[test]
fn servers_die_and_links_break() {
    holds("links", links());
}

#[test]
fn nodes_freeze_and_clocks_are_slow() {
    holds("freezes", freezes());
}

#[test]
fn nobody_reaches_the_record() {
    holds("outages", outages());
}

#[test]
fn handed_over_while_a_server_dies() {
    holds("handovers, deaths", handovers(Faults { crash: true, ..NONE }));
}

#[test]
fn handed_over_while_an_answer_is_lost_or_a_node_is_cut_off() {
    holds("handovers, answers", handovers(Faults { answers: true, ..NONE }));
    holds("handovers, cuts", handovers(Faults { cut: true, ..NONE }));
}

#[test]
fn other_promises_are_kept_as_well() {
    for mode in [SyncMode::Off, SyncMode::Required] {
        let faults = Faults { crash: true, answers: true, cut: true, ..NONE };
        holds(&format!("{mode:?}"), Herd { mode, fail: 0b011, ..herd(faults, ONE_FAULT) });
    }
}

#[test]
fn promotions_fail_and_people_decide() {
    holds("words", words(1, 1));
}

#[test]
fn without_the_fence_two_write() {
    is_needed(freezes(), Guards { fence_before_the_lease_ends: false, ..ALL });
}

#[test]
fn without_waiting_for_the_whole_lease_two_write() {
    is_needed(freezes(), Guards { whole_lease_is_waited: false, ..ALL });
}

#[test]
fn without_waiting_after_an_agreement_two_write() {
    is_needed(outages(), Guards { waits_after_agreement: false, ..ALL });
}

#[test]
fn who_was_not_synchronous_lacks_writes() {
    is_needed(losses(), Guards { only_the_synchronous_take: false, ..ALL });
}

#[test]
fn shrinking_in_postgres_first_loses_writes() {
    is_needed(links(), Guards { shrinks_in_the_record_first: false, ..ALL });
}

#[test]
fn growing_in_the_record_first_loses_writes() {
    is_needed(links(), Guards { grows_in_postgres_first: false, ..ALL });
}

#[test]
fn growing_before_the_past_is_flushed_loses_writes() {
    is_needed(links(), Guards { what_was_before_is_flushed: false, ..ALL });
}

#[test]
fn writing_over_what_was_not_seen_two_write() {
    is_needed(freezes(), Guards { swaps_only_what_was_seen: false, ..ALL });
}

#[test]
fn acknowledging_before_it_was_opened_loses_writes() {
    is_needed(words(0, 2), Guards { opened_before_acknowledging: false, ..ALL });
}

#[test]
fn starting_again_after_a_release_two_write() {
    is_needed(handovers(NONE), Guards { released_stays_down: false, ..ALL });
}
