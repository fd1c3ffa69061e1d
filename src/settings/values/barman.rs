//! When barman makes base backups, and how long it keeps them.

use super::number;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How long backups stay. `Display` is barman's `retention_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Retention {
    /// As many backups as this.
    Redundancy(u32),
    /// What is needed to go back to any moment of this long: a count, and its unit.
    RecoveryWindow(u32, WindowUnit),
}

/// The unit of a recovery window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowUnit {
    /// 24 hours.
    Days,
    /// 7 days.
    Weeks,
    /// 31 days, for barman.
    Months,
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self {
            Retention::Redundancy(count) => return write!(f, "REDUNDANCY {count}"),
            Retention::RecoveryWindow(count, WindowUnit::Days) => (count, "DAYS"),
            Retention::RecoveryWindow(count, WindowUnit::Weeks) => (count, "WEEKS"),
            Retention::RecoveryWindow(count, WindowUnit::Months) => (count, "MONTHS"),
        };
        write!(f, "RECOVERY WINDOW OF {count} {unit}")
    }
}

impl From<Retention> for String {
    /// The document's form, `5 days`, where there is one.
    fn from(retention: Retention) -> Self {
        let policy = retention.to_string();
        match policy.strip_prefix("RECOVERY WINDOW OF ") {
            Some(window) => window.to_lowercase(),
            None => policy,
        }
    }
}

impl TryFrom<String> for Retention {
    type Error = &'static str;

    /// Takes the document's `5 days` and barman's own two forms, in any case.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let text = text.to_ascii_lowercase();
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["redundancy", copies] => count(copies).map(Retention::Redundancy),
            ["recovery", "window", "of", span, unit] | [span, unit] => window(span, unit),
            _ => None,
        }
        .ok_or(
            "a count of days, such as 5 days (also weeks, months or, as in barman, REDUNDANCY 3)",
        )
    }
}

fn window(span: &str, unit: &str) -> Option<Retention> {
    let unit = match unit {
        "day" | "days" => WindowUnit::Days,
        "week" | "weeks" => WindowUnit::Weeks,
        "month" | "months" => WindowUnit::Months,
        _ => return None,
    };
    Some(Retention::RecoveryWindow(count(span)?, unit))
}

/// Barman goes back from today by this; far more would be before the year 1, where Python ends.
fn count(text: &str) -> Option<u32> {
    number(text).filter(|count| (1..=9999).contains(count))
}

/// A crontab's five fields, with one blank between them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct Schedule(String);

/// What a field of a crontab may hold: numbers, and names for the first of them.
struct Field {
    range: RangeInclusive<u32>,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { range: 0..=59, names: &[] },
    Field { range: 0..=23, names: &[] },
    Field { range: 1..=31, names: &[] },
    Field {
        range: 1..=12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    // 0 and 7 are both Sunday.
    Field { range: 0..=7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

/// Every night at three.
impl Default for Schedule {
    fn default() -> Self {
        Schedule("0 3 * * *".to_owned())
    }
}

impl Schedule {
    /// The five fields, as they stand in a crontab.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How long it may be from one time to the next. A day of the month and a weekday count both, as cron has
    /// it, so that the least of the two is taken. What is not worth a calendar is rounded up.
    pub fn distance_at_most(&self) -> Duration {
        let texts: Vec<&str> = self.0.split(' ').collect();
        let gap = |at: usize| FIELDS[at].widest_gap(texts.get(at).copied().unwrap_or("*"));
        let [minute, hour, day, month, weekday] = std::array::from_fn(gap);
        const MINUTE: u64 = 60;
        let seconds = if let Some(months) = month {
            months * 31 * 24 * 60 * MINUTE
        } else if let Some(days) = day.into_iter().chain(weekday).min() {
            days * 24 * 60 * MINUTE
        } else if let Some(hours) = hour {
            hours * 60 * MINUTE
        } else {
            minute.unwrap_or(1) * MINUTE
        };
        Duration::from_secs(seconds)
    }
}

impl TryFrom<String> for Schedule {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let texts: Vec<&str> = text.split_ascii_whitespace().collect();
        if texts.len() == FIELDS.len() && FIELDS.iter().zip(&texts).all(|(f, text)| f.allows(text))
        {
            Ok(Schedule(texts.join(" ")))
        } else {
            Err("a crontab time with five fields, such as 0 3 * * * (minute 0-59, hour 0-23, day \
                 1-31, month 1-12 or jan-dec, weekday 0-7 or sun-sat)")
        }
    }
}

impl Field {
    /// What Debian's cron takes: a list of numbers, names, ranges and `*`, the last two also with
    /// a step.
    fn allows(&self, list: &str) -> bool {
        list.split(',').all(|entry| {
            let (span, step) = match entry.split_once('/') {
                Some((span, step)) => (span, Some(step)),
                None => (entry, None),
            };
            let is_range = span == "*" || span.contains('-');
            self.allows_span(span) && step.is_none_or(|step| is_range && self.allows_step(step))
        })
    }

    fn allows_span(&self, span: &str) -> bool {
        match span.split_once('-') {
            _ if span == "*" => true,
            Some((first, last)) => match (self.value(first), self.value(last)) {
                (Some(first), Some(last)) => first <= last,
                _ => false,
            },
            None => self.value(span).is_some(),
        }
    }

    fn allows_step(&self, step: &str) -> bool {
        number(step).is_some_and(|step: u32| (1..=*self.range.end()).contains(&step))
    }

    /// From one of its values to the next, at most; `None` where it allows each.
    fn widest_gap(&self, list: &str) -> Option<u64> {
        // Sunday is 0 and 7.
        let length =
            if self.range == (0..=7) { 7 } else { self.range.end() - self.range.start() + 1 };
        let mut values: Vec<u32> = list.split(',').flat_map(|entry| self.values(entry)).collect();
        values.iter_mut().for_each(|value| *value = (*value - self.range.start()) % length);
        values.sort_unstable();
        values.dedup();
        let next = values.iter().skip(1).copied().chain(values.first().map(|first| first + length));
        let widest = values.iter().zip(next).map(|(one, next)| next - one).max()?;
        (widest > 1).then_some(u64::from(widest))
    }

    /// Those that an entry of a list stands for.
    fn values(&self, entry: &str) -> Vec<u32> {
        let (span, step) = entry.split_once('/').unwrap_or((entry, "1"));
        let step: usize = number(step).unwrap_or(1);
        let (first, last) = match span.split_once('-') {
            Some((first, last)) => (self.value(first), self.value(last)),
            None if span == "*" => (Some(*self.range.start()), Some(*self.range.end())),
            None => (self.value(span), self.value(span)),
        };
        first
            .zip(last)
            .map_or(Vec::new(), |(first, last)| (first..=last).step_by(step.max(1)).collect())
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        match named {
            Some(position) => u32::try_from(position).ok().map(|n| n + self.range.start()),
            None => number(text).filter(|value| self.range.contains(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(text: &str) -> Option<String> {
        Retention::try_from(text.to_owned()).ok().map(|retention| retention.to_string())
    }

    #[test]
    fn a_schedules_widest_gap_is_known() {
        let hours = |text: &str| {
            let schedule = Schedule::try_from(text.to_owned()).unwrap();
            schedule.distance_at_most().as_secs() as f64 / 3600.0
        };
        for (text, expected) in [
            ("0 3 * * *", 24.0),
            ("0 */6 * * *", 6.0),
            ("0 3,15 * * *", 12.0),
            ("0 1,2 * * *", 23.0),
            ("*/15 * * * *", 0.25),
            ("* * * * *", 1.0 / 60.0),
            ("0 3 * * sun", 7.0 * 24.0),
            ("0 3 * * 0,7", 7.0 * 24.0),
            ("0 3 * * mon-fri", 3.0 * 24.0),
            ("0 3 1 * *", 31.0 * 24.0),
            ("0 3 1 * sun", 7.0 * 24.0),
            ("0 3 1 1 *", 12.0 * 31.0 * 24.0),
        ] {
            assert_eq!(hours(text), expected, "{text}");
        }
    }

    #[test]
    fn retention_takes_the_document_s_form_and_barman_s() {
        for (text, policy) in [
            ("5 days", "RECOVERY WINDOW OF 5 DAYS"),
            ("1 day", "RECOVERY WINDOW OF 1 DAYS"),
            ("2 Weeks", "RECOVERY WINDOW OF 2 WEEKS"),
            ("recovery window of 4 WEEKS", "RECOVERY WINDOW OF 4 WEEKS"),
            ("RECOVERY WINDOW OF 3 MONTHS", "RECOVERY WINDOW OF 3 MONTHS"),
            ("REDUNDANCY  3", "REDUNDANCY 3"),
        ] {
            assert_eq!(retention(text).as_deref(), Some(policy), "{text}");
            assert_eq!(retention(policy).as_deref(), Some(policy), "what is printed is read again");
        }
        for text in ["", "5", "days", "0 days", "-1 days", "5 years", "99999 days", "REDUNDANCY"] {
            assert_eq!(retention(text), None, "{text}");
        }
    }

    #[test]
    fn a_schedule_is_what_cron_takes() {
        for text in [
            "0 3 * * *",
            "*/5 * * * *",
            "0,30 1-5/2 1 jan-MAR,12 mon-fri",
            "59 23 31 12 7",
            "0  3\t* * SUN",
        ] {
            assert!(Schedule::try_from(text.to_owned()).is_ok(), "{text}");
        }
        for text in [
            "",
            "@daily",
            "0 3 * *",
            "0 3 * * * root",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "*/0 * * * *",
            "*/99 * * * *",
            "5/2 * * * *",
            "5-1 * * * *",
            "1, * * * *",
            "jan * * * *",
            "-1 * * * *",
            "1- * * * *",
        ] {
            assert!(Schedule::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
