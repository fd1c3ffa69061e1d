//! Moments, in the text form that Postgres and barman print: `2026-11-21 05:15:58.525527+00:00`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A point in time, in microseconds since 1970 began in UTC: as fine as Postgres counts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(pub i64);

const SECOND: i64 = 1_000_000;
const DAY: i64 = 24 * 60 * 60 * SECOND;

/// The text was not a date and a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a date and a time, such as 2026-11-20 03:00:00+01:00 (without an offset it is UTC)")]
pub struct ParseMomentError;

impl Moment {
    /// Whole seconds from `earlier` on; zero if that is later.
    pub fn seconds_since(self, earlier: Moment) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default() / SECOND as u64
    }

    /// So many seconds after 1970 began.
    pub fn from_seconds(seconds: u64) -> Self {
        Moment(i64::try_from(seconds).unwrap_or(i64::MAX / SECOND) * SECOND)
    }
}

impl FromStr for Moment {
    type Err = ParseMomentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.trim()).ok_or(ParseMomentError)
    }
}

/// A blank or a `T` between date and time; seconds, their fraction and the offset may be left out.
fn parse(text: &str) -> Option<Moment> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix([' ', 'T', 't'])?;
    let mut fields = date.split('-').map(whole);
    let (year, month, day) = (fields.next()??, fields.next()??, fields.next()??);
    let at = rest.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.');
    let (time, offset) = rest.split_at(at.unwrap_or(rest.len()));
    let mut fields = time.split(':');
    let (hour, minute) = (whole(fields.next()?)?, whole(fields.next()?)?);
    let seconds = fields.next().unwrap_or("0");
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let seconds = whole(seconds)?;
    if fields.next().is_some() || fraction.len() > 6 || !is_digits(fraction) {
        return None;
    }
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    let fits = (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && seconds < 60;
    let of_day = ((hour * 60 + minute) * 60 + seconds) * SECOND + micros;
    let offset = offset_minutes(offset.trim())? * 60 * SECOND;
    fits.then(|| Moment(days_since_1970(year, month, day) * DAY + of_day - offset))
}

/// `Z`, `UTC`, `+01`, `+0100`, `-05:30`; nothing is UTC.
fn offset_minutes(text: &str) -> Option<i64> {
    if ["", "Z", "z", "UTC", "utc", "GMT"].contains(&text) {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let digits = rest.replace(':', "");
    let (hours, minutes) = digits.split_at_checked(2)?;
    let minutes = if minutes.is_empty() { Some(0) } else { whole(minutes) };
    let (hours, minutes) = (whole(hours)?, minutes?);
    (hours < 16 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn whole(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 4 && is_digits(text)).then(|| text.parse().ok()).flatten()
}

fn days_of(year: i64, month: i64) -> i64 {
    let leaps = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leaps),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Years begin in March here, so that a leap day is a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + of_year - 719_468
}

/// The other way: a year, a month and a day.
fn date_of(days: i64) -> (i64, i64, i64) {
    let mut year = 1970 + days.div_euclid(366);
    while days_since_1970(year + 1, 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| days_since_1970(year, *month, 1) <= days).unwrap_or(1);
    (year, month, days - days_since_1970(year, month, 1) + 1)
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, of_day) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let (year, month, day) = date_of(days);
        let (seconds, micros) = (of_day / SECOND, of_day % SECOND);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")?;
        if micros > 0 {
            write!(f, ".{micros:06}")?;
        }
        f.write_str("+00:00")
    }
}

impl TryFrom<String> for Moment {
    type Error = ParseMomentError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_postgres_and_people_write_is_one_moment() {
        for text in [
            "2026-11-20 03:00:00+01:00",
            "2026-11-20 02:00:00",
            "2026-11-20T02:00Z",
            "2026-11-20 02:00:00.000000 UTC",
            "2026-11-19 20:30:00 -0530",
            "2026-11-20 03:00:00+01",
        ] {
            assert_eq!(text.parse(), Ok(Moment(1_795_140_000 * SECOND)), "{text}");
        }
        let precise: Moment = "2026-11-21 05:15:58.525527+00:00".parse().unwrap();
        assert_eq!(precise.to_string(), "2026-11-21 05:15:58.525527+00:00");
        assert_eq!("1970-01-01 00:00".parse(), Ok(Moment(0)));
        for text in [
            "",
            "yesterday",
            "2026-11-20",
            "2026-13-20 00:00",
            "2026-02-29 00:00",
            "2026-11-20 24:00",
            "2026-11-20 03:00:00 CET",
            "2026-11-20 03",
            "2026-11-20 03:00:00:00",
            "2026-1-2 03:00:00",
            "2026-11-20 03:00:00.1234567",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
        assert!("2024-02-29 00:00".parse::<Moment>().is_ok());
    }

    proptest! {
        #[test]
        fn text_form_round_trips(seconds in 0_u64..4_102_444_800, micros in 0_i64..SECOND) {
            let moment = Moment(Moment::from_seconds(seconds).0 + micros);
            prop_assert_eq!(moment.to_string().parse(), Ok(moment));
        }
    }
}
