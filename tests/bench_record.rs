//! What the bench of failover concludes from its prober's record: nobody would notice if it saw nothing.

#[path = "../benches/failover/record.rs"]
mod record;

use record::{Record, Write};
use std::time::{Duration, Instant};

/// Node, timeline, and the milliseconds of the request and of the acknowledgement; numbered in this order.
fn record(writes: &[(usize, u32, u64, u64)]) -> Record {
    let began = Instant::now();
    let at = |ms: u64| began + Duration::from_millis(ms);
    let write =
        |(number, (node, timeline, sent, acknowledged)): (i64, &(usize, u32, u64, u64))| Write {
            node: *node,
            timeline: *timeline,
            number,
            sent: at(*sent),
            acknowledged: at(*acknowledged),
        };
    Record::new((1..).zip(writes).map(write).collect())
}

fn ms(span: Duration) -> u128 {
    span.as_millis()
}

#[test]
fn a_failover_is_timed_from_the_last_acknowledgement_to_the_first_elsewhere() {
    let record = record(&[(0, 1, 0, 1), (0, 1, 10, 11), (1, 2, 4000, 4011), (1, 2, 4020, 4021)]);
    assert_eq!(record.until_elsewhere(0).map(ms), Some(4000));
    assert_eq!(ms(record.longest_gap()), 4000);
    assert_eq!(record.two_at_once(), Vec::<String>::new());
    assert_eq!(record.taken_after_another(0), 0);
    assert_eq!(record.until_elsewhere(1), None, "nobody took a write before it");
}

#[test]
fn what_was_taken_before_the_freeze_may_be_answered_after_the_thaw() {
    let record = record(&[(0, 1, 0, 1), (0, 1, 10, 6000), (1, 2, 4000, 4001)]);
    assert_eq!(record.until_elsewhere(0).map(ms), Some(4000));
    assert_eq!(record.taken_after_another(0), 0);
    assert_eq!(record.two_at_once(), Vec::<String>::new());
}

#[test]
fn one_that_goes_on_after_another_has_begun_is_seen() {
    let record = record(&[(0, 1, 0, 1), (1, 2, 4000, 4001), (0, 1, 4005, 4006)]);
    assert_eq!(record.taken_after_another(0), 1);
    assert_eq!(record.two_at_once(), ["node1 on timeline 1 went on for 4 ms beside node2 on 2"]);
}

#[test]
fn two_on_one_timeline_are_seen_even_one_after_the_other() {
    let record = record(&[(0, 1, 0, 1), (1, 1, 10, 11)]);
    assert_eq!(record.two_at_once(), ["node1 and node2 both wrote on timeline 1"]);
}

#[test]
fn an_acknowledged_row_that_is_not_there_is_missing() {
    let record = record(&[(0, 1, 0, 1), (0, 1, 10, 11), (0, 1, 20, 21)]);
    assert_eq!(record.first_number(), 1);
    assert_eq!(record.missing(&[1, 2, 3].into()), 0);
    assert_eq!(record.missing(&[1, 3].into()), 1);
}
