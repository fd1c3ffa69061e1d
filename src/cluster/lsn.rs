//! Log sequence numbers, in the text form Postgres prints: `16/B374D848`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A position in the write-ahead log, in bytes since the cluster was made.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

impl Lsn {
    /// How far `self` is behind `other`, in bytes; zero when it is ahead.
    pub fn bytes_behind(self, other: Lsn) -> u64 {
        other.0.saturating_sub(self.0)
    }
}

/// The text was not two hexadecimal numbers around a slash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a log sequence number: expected one such as 16/B374D848")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `from_str_radix` alone would take a sign.
        let half = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => u32::from_str_radix(digits, 16).ok().map(u64::from),
            false => None,
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl TryFrom<String> for Lsn {
    type Error = ParseLsnError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_postgres_prints_is_taken() {
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        for refused in ["", "/", "1", "+1/0", "1/123456789", "1/0/0", "x/0"] {
            assert!(refused.parse::<Lsn>().is_err(), "{refused}");
        }
    }

    #[test]
    fn a_node_that_is_ahead_is_not_behind() {
        assert_eq!(Lsn(5).bytes_behind(Lsn(8)), 3);
        assert_eq!(Lsn(8).bytes_behind(Lsn(5)), 0);
    }

    proptest! {
        #[test]
        fn text_form_round_trips(bytes: u64) {
            prop_assert_eq!(Lsn(bytes).to_string().parse(), Ok(Lsn(bytes)));
        }
    }
}
