//! The clock that leases are counted by, and the one on the wall.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Time since the host booted, the time it slept included (`CLOCK_BOOTTIME`). `Instant` stands still
/// while a host sleeps, and a lease that somebody else counts does not. Comparable between processes of
/// one host, and meaningless elsewhere.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME);
    now.expect("Linux has had this clock since 2.6.39").into()
}

/// Seconds by the wall's clock, which people set.
pub fn since_1970() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME);
    now.expect("every Unix has this clock").tv_sec()
}
