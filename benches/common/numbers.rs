//! Medians with their spread, and the tables they are shown in.

use std::fmt;

/// What was measured, round by round, in one unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() % 2 {
            0 => (self.0[middle - 1] + self.0[middle]) / 2.0,
            _ => self.0[middle],
        }
    }

    /// How far the values typically are from the median.
    fn deviation(&self) -> f64 {
        let median = self.median();
        let mut deviations = Sample::default();
        self.0.iter().for_each(|value| deviations.add((value - median).abs()));
        deviations.median()
    }
}

/// `median ± median absolute deviation (min–max)`.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = (self.0[0], self.0[self.0.len() - 1]);
        write!(f, "{:>7.0} ± {:<4.0} ({min:.0}–{max:.0})", self.median(), self.deviation())
    }
}

/// A row a contestant; ratios are to `reference`, where that was measured.
pub(crate) fn table(title: &str, reference: &str, rows: &[(&str, Sample)]) {
    println!("\n{title}");
    let reference = rows.iter().find(|(name, _)| *name == reference).map(|(_, one)| one.median());
    for (name, sample) in rows {
        let ratio = reference.map(|reference| format!("{:>6.2} ×", sample.median() / reference));
        // Shown first: a width would be the numbers', each for itself.
        let shown = sample.to_string();
        println!("  {name:<38} {shown:<30} {}", ratio.unwrap_or_default());
    }
}

/// One line about an aim, kept or missed.
pub(crate) fn aim(what: &str, found: f64, at_most: f64, unit: &str) {
    let verdict = if found <= at_most { "kept" } else { "MISSED" };
    println!("  aim {verdict}: {what}: {found:.3} {unit}, at most {at_most} {unit}");
}
