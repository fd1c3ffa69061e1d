//! How long a rule rests that fired in vain.

use std::time::{Duration, Instant};

/// How long the rules rest after one fired in vain: ever longer.
#[derive(Debug, Default)]
pub(super) struct RulesRest {
    until: Option<Instant>,
    times: u32,
}

impl RulesRest {
    const MAX: Duration = Duration::from_secs(60);

    pub(super) fn begin(&mut self) {
        self.begin_at_most(Self::MAX);
    }

    /// Where what stood in the way may pass sooner, and nobody tells when.
    pub(super) fn begin_at_most(&mut self, max: Duration) {
        let pause = Duration::from_secs(1 << self.times.min(6)).min(max);
        self.times += 1;
        self.until = Some(Instant::now() + pause);
    }

    pub(super) fn is_over(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_ever_longer_and_never_longer_than_asked() {
        let mut rest = RulesRest::default();
        assert!(rest.is_over());
        let mut pauses = Vec::new();
        for max in [60, 60, 60, 60, 60, 60, 60, 60, 4] {
            rest.begin_at_most(Duration::from_secs(max));
            let left = rest.until.unwrap().duration_since(Instant::now());
            pauses.push(left.as_secs_f64().ceil());
            assert!(!rest.is_over());
        }
        assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 4.0]);
    }
}
