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
        let pause = Duration::from_secs(1 << self.times.min(6)).min(Self::MAX);
        self.times += 1;
        self.until = Some(Instant::now() + pause);
    }

    pub(super) fn is_over(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }
}
