//! Where a node's Postgres listens: `node2`, `node2:6000`, `10.0.0.2`, `[::1]:5432`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The port of an address that names none.
pub const DEFAULT_PORT: u16 = 5432;

/// Where the others reach a node's Postgres. Text in JSON, as in [`Address`]'s `Display`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// A name that resolves inside the cluster's network, or an IP address without brackets.
    pub host: String,
    /// The consumer port, never the technical one.
    pub port: u16,
}

/// Not `host` or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// What stands before the port is neither a name nor an IP address.
    #[error("`{0}` is not an address: expected host, host:port or [IPv6]:port")]
    Host(String),
    /// What stands behind the colon is no port.
    #[error("`{0}` is not an address: its port must be a number from 1 to 65535")]
    Port(String),
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (host, port) = split(text);
        if !is_host(host) {
            return Err(ParseAddressError::Host(text.to_owned()));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => {
                parse_port(port).ok_or_else(|| ParseAddressError::Port(text.to_owned()))?
            }
        };
        Ok(Address { host: host.to_owned(), port })
    }
}

/// The host without brackets, and what follows it after a colon.
fn split(text: &str) -> (&str, Option<&str>) {
    if text.parse::<Ipv6Addr>().is_ok() {
        return (text, None);
    }
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|inner| inner.split_once(']'))
        && host.contains(':')
    {
        // `[::1]5432` keeps its rest, so that it is refused as a port.
        return (host, (!rest.is_empty()).then(|| rest.strip_prefix(':').unwrap_or("")));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

/// A name of letters, digits, `-`, `_` and `.` (compose's services may have underscores), or an IP address.
fn is_host(text: &str) -> bool {
    let is_name = (1..=253).contains(&text.len())
        && !text.starts_with(['-', '.'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    is_name || text.parse::<Ipv6Addr>().is_ok()
}

fn parse_port(text: &str) -> Option<u16> {
    // `parse` alone would take a sign.
    let has_digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| has_digits_only && *port > 0)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = ParseAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> (String, u16) {
        let Address { host, port } = text.parse().unwrap();
        (host, port)
    }

    #[test]
    fn a_port_may_be_left_out() {
        assert_eq!(parsed("node2"), ("node2".into(), 5432));
        assert_eq!(parsed(" db_2.example.org:6000 "), ("db_2.example.org".into(), 6000));
        assert_eq!(parsed("10.0.0.2:6000"), ("10.0.0.2".into(), 6000));
    }

    #[test]
    fn ipv6_wants_brackets_only_where_a_port_follows() {
        for text in ["::1", "[::1]", "[::1]:5432"] {
            assert_eq!(parsed(text), ("::1".into(), 5432), "{text}");
            assert_eq!(text.parse::<Address>().unwrap().to_string(), "[::1]:5432");
        }
    }

    #[test]
    fn a_refusal_says_which_half_is_wrong() {
        for text in ["node2:", "node2:x", "node2:0", "node2:65536", "node2:+1", "[::1]5432"] {
            assert_eq!(text.parse::<Address>(), Err(ParseAddressError::Port(text.to_owned())));
        }
        for text in ["", ":5432", "a b", "a/b", "a:b:c", "[]:1", "[x]:1", "-a", "u@h", "'a'"] {
            assert_eq!(text.parse::<Address>(), Err(ParseAddressError::Host(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_round_trips(text: String) {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
