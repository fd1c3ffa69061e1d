//! How far a node was behind over the last minutes, as the path of a small plot.

use crate::control::Lags;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// In the units of the plot's own picture.
pub(super) const WIDTH: f64 = 300.0;
pub(super) const HEIGHT: f64 = 56.0;
/// Above it a line may have its thickness.
const TOP: f64 = 3.0;
/// Two samples further apart than this are not joined: nothing is known in between.
const GAP: Duration = Duration::from_secs(15);
/// What is less than this is drawn as if it was close to nothing, so that noise is no mountain.
const SCALE_BYTES_MIN: u64 = 1 << 20;

/// One node's plot.
pub(super) struct Plot {
    /// The line.
    pub(super) line: String,
    /// The most in the time that is shown, in bytes.
    pub(super) most: u64,
    /// Nothing is known.
    pub(super) is_empty: bool,
}

/// Of `node`, on the scale that all have.
pub(super) fn of(lags: &Lags, node: &str, scale: u64, now: Instant) -> Plot {
    let mut line = String::new();
    let (mut before, mut most, mut is_empty): (Option<Instant>, _, _) = (None, 0, true);
    for (at, bytes) in lags.of(node) {
        let Some(bytes) = bytes else {
            before = None;
            continue;
        };
        let age = now.duration_since(at).as_secs_f64();
        let x = WIDTH * (1.0 - age / Lags::KEPT.as_secs_f64());
        let y = TOP + (HEIGHT - TOP) * (1.0 - bytes as f64 / scale.max(SCALE_BYTES_MIN) as f64);
        let joined = before.is_some_and(|before| at.duration_since(before) <= GAP);
        let step = if joined { 'L' } else { 'M' };
        let _ = write!(line, "{step}{:.1} {:.1}", x.max(0.0), y); // A String takes everything.
        (before, most, is_empty) = (Some(at), most.max(bytes), false);
    }
    Plot { line, most, is_empty }
}

/// The most that any of `nodes` was behind.
pub(super) fn scale<'a>(lags: &Lags, nodes: impl Iterator<Item = &'a str>) -> u64 {
    let most = nodes.flat_map(|node| lags.of(node)).filter_map(|(_, bytes)| bytes).max();
    most.unwrap_or_default().max(SCALE_BYTES_MIN)
}
