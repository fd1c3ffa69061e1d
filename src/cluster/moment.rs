//! Moments, in the text form that Postgres and barman print: `2026-11-21 05:15:58.525527+00:00`.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
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

/// The text was not a date and a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a date and a time, such as 2026-11-20 03:00:00+01:00 (without an offset it is UTC)")]
pub struct ParseMomentError;

impl Moment {
    /// Whole seconds from `earlier` on; zero if that is later.
    pub fn seconds_since(self, earlier: Moment) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default() / SECOND as u64
    }

    /// `Sat Nov 21 13:03:10 2026`, in UTC: what ctime(3) writes.
    pub fn from_ctime(text: &str) -> Option<Self> {
        let at = DateTime::strptime("%a %b %e %H:%M:%S %Y", text.trim()).ok()?;
        Some(Moment(TimeZone::UTC.to_timestamp(at).ok()?.as_microsecond()))
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
    if text.contains('[') {
        return None; // jiff's DateTime takes the name of a zone, such as [Europe/Berlin], and ignores it.
    }
    let (date, rest) = text.split_at_checked("2026-11-20".len())?;
    let time = rest.strip_prefix([' ', 'T', 't'])?.replace(' ', "").to_uppercase();
    if !time.contains(':') {
        return None; // A whole hour, or a day, is a slip more often than it is meant.
    }
    let without_name = time.strip_suffix("UTC").or_else(|| time.strip_suffix("GMT"));
    let text = format!("{date}T{}", without_name.unwrap_or(&time));
    let in_utc = || text.parse::<DateTime>().and_then(|at| TimeZone::UTC.to_timestamp(at));
    let at = text.parse::<Timestamp>().or_else(|_| in_utc()).ok()?;
    Some(Moment(at.as_microsecond()))
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beyond the year 9999 nothing is told apart.
        let at = Timestamp::from_microsecond(self.0).unwrap_or(Timestamp::MAX);
        write!(f, "{}", at.strftime("%Y-%m-%d %H:%M:%S%.f+00:00"))
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
            "2026-11-20 11:59:00[Europe/Berlin]",
            "2026-11-20 11:59:00+01:00[Europe/Berlin]",
            "2026-11-20 11:59Z[u-ca=gregory]",
            "2026-11-20 03",
            "2026-11-20 03:00:00:00",
            "2026-1-2 03:00:00",
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
