//! A time that a person writes.

use jiff::civil::{DateTime, Time};
use jiff::{Timestamp, Zoned};

/// Seconds since 1970 of `text`, which is after `now`: a time with its zone (RFC 3339), or without one and
/// then in this machine's, or a time of day, the next one.
pub(super) fn seconds(text: &str, now: &Zoned) -> Result<i64, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_second());
    }
    let zone = now.time_zone();
    let in_zone = |at: DateTime| at.to_zoned(zone.clone()).map(|at| at.timestamp().as_second());
    let bad = || {
        format!(
            "--at: {text}: not a time: 2026-12-24T03:00:00Z, 2026-12-24T03:00 or 03:00 (zone here: {})",
            zone.iana_name().unwrap_or("UTC")
        )
    };
    if let Ok(at) = text.parse::<DateTime>() {
        return in_zone(at).map_err(|_| bad());
    }
    let time = text.parse::<Time>().map_err(|_| bad())?;
    let today = now.date().to_datetime(time);
    let next = if today > now.datetime() { Ok(today) } else { today.tomorrow() };
    next.and_then(in_zone).map_err(|_| bad())
}

/// Whether it was meant as a time, where it could be a node's address as well.
pub(super) fn is_meant(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
        && (text.parse::<Timestamp>().is_ok()
            || text.parse::<DateTime>().is_ok()
            || text.parse::<Time>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_one_to_come() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let now = now.to_zoned(jiff::tz::TimeZone::UTC);
        let at =
            |text| seconds(text, &now).map(|at| Timestamp::from_second(at).unwrap().to_string());
        for (text, expected) in [
            ("2026-12-24T03:00:00Z", "2026-12-24T03:00:00Z"),
            ("2026-12-24T03:00:00+02:00", "2026-12-24T01:00:00Z"),
            ("2026-12-24T03:00", "2026-12-24T03:00:00Z"),
            ("2026-12-24 03:00:07", "2026-12-24T03:00:07Z"),
            ("13:00", "2026-11-21T13:00:00Z"),
            ("11:59:30", "2026-11-22T11:59:30Z"),
            ("12:00", "2026-11-22T12:00:00Z"),
        ] {
            assert_eq!(at(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "soon", "25:00", "2026-13-01T00:00Z"] {
            assert!(at(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_no_time() {
        for time in ["03:00", "03:00:00", "2026-12-24T03:00", "2026-12-24T03:00:00Z"] {
            assert!(is_meant(time), "{time}");
        }
        for address in ["node1", "node1:8008", "10.0.0.2", "10.0.0.2:8008", "::1", "[::1]:8008"] {
            assert!(!is_meant(address), "{address}");
        }
    }
}
