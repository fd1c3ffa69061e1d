//! The clock that leases are counted by, and the one on the wall, and how people read that.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};

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

/// `2026-11-20T03:00:01Z`: in UTC, to the second.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    match jiff::Timestamp::from_second(since.cast_signed()) {
        Ok(at) => at.to_string(),
        Err(_) => format!("{since} s after 1970"),
    }
}
