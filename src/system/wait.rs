//! Waiting for a condition. The only module that sleeps; the end of a child has a timer of its own
//! in `child/process.rs`.

use std::time::Duration;
use tokio::time::Instant;

/// The condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("gave up waiting for {what} after {} s", .at_most.as_secs())]
pub struct GaveUp {
    what: String,
    at_most: Duration,
}

/// The first question is free and the second comes soon: a local server is up in 50 to 100 ms.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Long waits must not cost anything.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Each pause is a tenth of the time waited so far, so an answer is noticed at most 10 % late.
const PAUSE_SHARE: u32 = 10;

/// Asks `ready` again and again, ever less often, until it has an answer.
pub async fn until<T>(
    what: &str,
    at_most: Duration,
    mut ready: impl FnMut() -> Option<T>,
) -> Result<T, GaveUp> {
    let began = Instant::now();
    loop {
        if let Some(answer) = ready() {
            return Ok(answer);
        }
        let waited = began.elapsed();
        if waited >= at_most {
            return Err(GaveUp { what: what.to_owned(), at_most });
        }
        let pause = (waited / PAUSE_SHARE).clamp(PAUSE_MIN, PAUSE_MAX).min(at_most - waited);
        tokio::time::sleep_until(Instant::now() + pause).await;
    }
}

/// Comes back after `delay`: for restarts that back off, which have no condition to wait for.
pub async fn back_off(delay: Duration) {
    tokio::time::sleep_until(Instant::now() + delay).await;
}
