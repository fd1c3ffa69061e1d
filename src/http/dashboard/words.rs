//! Numbers as people read them.

/// `0.4 s`, `12 s`, `3 min`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..120 => format!("{whole} s"),
        120..7200 => format!("{} min", whole / 60),
        7200..172_800 => pair(whole / 3600, "h", whole / 60 % 60, "min"),
        _ => pair(whole / 86_400, "d", whole / 3600 % 24, "h"),
    }
}

fn pair(large: u64, unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {small_unit}"),
    }
}

/// `20261120T030001`, a backup's id, as a date; other ids as they are.
pub(super) fn backup_id(id: &str) -> String {
    let digits = |range: std::ops::Range<usize>| {
        id.get(range).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let parts = (digits(0..4), digits(4..6), digits(6..8), digits(9..11), digits(11..13));
    match parts {
        (Some(year), Some(month), Some(day), Some(hour), Some(minute))
            if id.as_bytes().get(8) == Some(&b'T') =>
        {
            format!("{year}-{month}-{day} {hour}:{minute}")
        }
        _ => id.to_owned(),
    }
}

/// `03:00:01.25` of RFC 3339, and the date.
pub(super) fn clock(at: &str) -> (String, String) {
    let (date, time) = at.split_once('T').unwrap_or(("", at));
    let time: String = time.trim_end_matches('Z').chars().take("03:00:01".len()).collect();
    (date.to_owned(), time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_two_units_at_most() {
        for (seconds, expected) in [
            (0.04, "0.0 s"),
            (3.25, "3.2 s"),
            (59.9, "59 s"),
            (125.0, "2 min"),
            (7200.0, "2 h"),
            (7500.0, "2 h 5 min"),
            (172_800.0, "2 d"),
            (266_400.0, "3 d 2 h"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn ids_and_times_are_read_where_they_are_such() {
        assert_eq!(backup_id("20261120T030001"), "2026-11-20 03:00");
        assert_eq!(backup_id("before-upgrade"), "before-upgrade");
        assert_eq!(backup_id("2026112öT03"), "2026112öT03");
        let (date, time) = clock("2026-11-20T03:00:01.123456Z");
        assert_eq!((date.as_str(), time.as_str()), ("2026-11-20", "03:00:01"));
    }
}
