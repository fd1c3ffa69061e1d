//! How far `pg_basebackup` and `pg_rewind` are: both print it each second, in the same form.

/// How far a copy is. The total is an estimate that grows if the source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// Copied so far.
    pub done: u64,
    /// To be copied.
    pub total: u64,
}

/// Gives what is a line of progress to `progress`, and says whether it was one.
pub(super) fn taken(
    mut progress: impl FnMut(Bytes) + Send + 'static,
) -> impl FnMut(&[u8]) -> bool + Send + 'static {
    move |line| match parse(line) {
        Some(bytes) => {
            progress(bytes);
            true
        }
        None => false,
    }
}

/// `  12345/67890 kB (18%), 0/1 tablespace (/path)`, `12345/67890 kB (18%) copied`
/// (`progress_report` in their sources).
fn parse(line: &[u8]) -> Option<Bytes> {
    let (numbers, rest) = std::str::from_utf8(line).ok()?.trim_start().split_once(" kB (")?;
    rest.contains("%)").then_some(())?;
    let (done, total) = numbers.split_once('/')?;
    let bytes = |text: &str| text.trim().parse::<u64>().ok()?.checked_mul(1 << 10);
    Some(Bytes { done: bytes(done)?, total: bytes(total)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_progress_are_progress() {
        let of = |done: u64, total: u64| Some(Bytes { done: done << 10, total: total << 10 });
        for (line, expected) in [
            ("     7/29640 kB (0%), 0/1 tablespace (...g/clone/backup_label)", of(7, 29640)),
            ("29650/29650 kB (100%), 1/1 tablespace (                     )", of(29650, 29650)),
            (" 48231/48231 kB (100%) copied", of(48231, 48231)),
            ("pg_basebackup: waiting for checkpoint", None),
            ("ERROR:  a/b kB (x%)", None),
            ("12 kB (", None),
        ] {
            assert_eq!(parse(line.as_bytes()), expected, "{line}");
        }
        assert_eq!(parse(b"1/2 kB (50%), \xff"), None, "a name in another encoding");
    }
}
