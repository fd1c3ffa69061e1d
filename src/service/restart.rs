//! How often a service may be restarted. Pure: the caller brings the clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The first restart is at once. While exits keep coming within `window`, the delay begins with
/// `first_delay` and doubles up to `delay_max`; more than `limit` of them are too many.
#[derive(Clone, Debug)]
pub struct RestartBudget {
    limit: usize,
    window: Duration,
    first_delay: Duration,
    delay_max: Duration,
    recent: VecDeque<Instant>,
}

/// What to do about a service that exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after this long.
    RestartAfter(Duration),
    /// It failed too often; somebody has to look.
    GiveUp,
}

impl RestartBudget {
    /// For helpers of the server: tried for ever, each half minute at worst, since the server
    /// is better off with them and must not suffer from their failing.
    pub fn for_helpers() -> Self {
        Self::new(
            usize::MAX,
            Duration::from_secs(300),
            Duration::from_millis(500),
            Duration::from_secs(30),
        )
    }

    /// For what copies another node's data: tried for ever, for it is the others that it depends on,
    /// and ever less often, for each try costs the primary.
    pub fn for_copies() -> Self {
        Self::new(
            usize::MAX,
            Duration::from_secs(6 * 3600),
            Duration::from_secs(1),
            Duration::from_secs(600),
        )
    }

    /// For the server itself: five crashes in five minutes are a pattern that restarts do not
    /// cure (the numbers are pg_auto_failover's, `supervisor.h`).
    pub fn for_postgres() -> Self {
        Self::new(5, Duration::from_secs(300), Duration::from_secs(1), Duration::from_secs(30))
    }

    fn new(limit: usize, window: Duration, first_delay: Duration, delay_max: Duration) -> Self {
        RestartBudget { limit, window, first_delay, delay_max, recent: VecDeque::new() }
    }

    /// Records an exit at `now` and says what follows from it.
    pub fn spend(&mut self, now: Instant) -> Verdict {
        self.recent.retain(|&then| now.duration_since(then) < self.window);
        if self.recent.len() >= self.limit {
            return Verdict::GiveUp;
        }
        let delay = match self.recent.len() {
            0 => Duration::ZERO,
            // Beyond this many doublings any delay is at its maximum.
            more => (self.first_delay * 2_u32.pow((more - 1).min(16) as u32)).min(self.delay_max),
        };
        self.recent.push_back(now);
        Verdict::RestartAfter(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backs_off_then_gives_up_then_forgets() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let after = |millis| Verdict::RestartAfter(Duration::from_millis(millis));
        let mut budget =
            RestartBudget::new(4, at(300) - start, Duration::from_millis(500), at(1) - start);

        assert_eq!(budget.spend(at(0)), after(0));
        assert_eq!(budget.spend(at(5)), after(500));
        assert_eq!(budget.spend(at(9)), after(1000));
        assert_eq!(budget.spend(at(9)), after(1000)); // not more than the maximum
        assert_eq!(budget.spend(at(10)), Verdict::GiveUp);
        assert_eq!(budget.spend(at(400)), after(0));
    }

    #[test]
    fn a_helper_is_never_given_up_and_never_waits_longer_than_half_a_minute() {
        let start = Instant::now();
        let mut budget = RestartBudget::for_helpers();
        for exit in 0..1000 {
            let Verdict::RestartAfter(delay) = budget.spend(start + Duration::from_millis(exit))
            else {
                panic!("given up at exit {exit}")
            };
            assert!(delay <= Duration::from_secs(30));
        }
    }
}
