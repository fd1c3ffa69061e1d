//! libpq's connection strings: `host=node1 port=5432 user=repmgr`, with values in quotes or without.
//! How this node reaches another's server.

use crate::cluster::{Address, DEFAULT_PORT};
use crate::layout::Layout;
use std::net::IpAddr;

/// How long a peer that does not answer holds up whoever asks it. libpq's minimum is 2.
pub const CONNECT_TIMEOUT_S: u32 = 2;

/// A link whose other end is gone is noticed: 10 s of silence, then 3 questions 5 s apart that
/// nobody answers; or what we sent has not been taken for 30 s. The kernel's defaults are two
/// hours and a quarter of one. An end that is alive and busy is not mistaken for one that is
/// gone: its kernel answers.
const LINK: [(&str, &str); 4] = [
    ("keepalives_idle", "10"),
    ("keepalives_interval", "5"),
    ("keepalives_count", "3"),
    ("tcp_user_timeout", "30000"),
];

/// What libpq connects to instead of asking what `host` is; `host` is what it is called then.
const HOST_ADDRESS: &str = "hostaddr";

/// How to stream or copy from the server at `address`. No password: this ends on command lines
/// and in files; it names the file that has it.
///
/// With `at`, which is what the host was found to be, Postgres resolves no name. A resolver that does not answer holds up its WAL receiver for 5 s
/// a try (glibc's patience, which no signal ends), and a promotion waits for the receiver's end: of ten
/// primaries that were killed in a network with such a resolver, three were replaced 3 s too late.
pub(super) fn streaming(
    layout: &Layout,
    address: &Address,
    at: Option<IpAddr>,
    application_name: &str,
) -> String {
    let at = at.map(|ip| ip.to_string());
    let (port, timeout) = (address.port.to_string(), CONNECT_TIMEOUT_S.to_string());
    let passfile = layout.postgres_passfile.to_string_lossy();
    let mut pairs = vec![("host", address.host.as_str())];
    pairs.extend(at.as_deref().map(|at| (HOST_ADDRESS, at)));
    pairs.extend([
        ("port", port.as_str()),
        ("user", "repmgr_streaming"),
        // Physical replication takes no notice of it, pg_rewind reads over it, and 17's worker
        // that keeps slots in step looks for it in primary_conninfo.
        ("dbname", "repmgr"),
        ("application_name", application_name),
        ("passfile", &passfile),
        ("connect_timeout", &timeout),
    ]);
    pairs.extend(LINK);
    text(&pairs)
}

/// A connection string that finds its host by name, where it has a name; `None` if it does already.
pub(super) fn by_name(conninfo: &str) -> Option<String> {
    let pairs = parse(conninfo)?;
    let has = |name: &str| pairs.iter().any(|(key, _)| key == name);
    if !has("host") || !has(HOST_ADDRESS) {
        return None;
    }
    let kept = pairs.iter().filter(|(key, _)| key != HOST_ADDRESS);
    let kept: Vec<_> = kept.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    Some(text(&kept))
}

/// The pairs as one string that libpq reads as them.
fn text(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
    pairs.collect::<Vec<_>>().join(" ")
}

/// Quotes only where they are needed: people read these.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && c != '\'' && c != '\\';
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The pairs of a connection string, as libpq reads it (`conninfo_parse` in fe-connect.c). `None`
/// if it is none; a URI is not read.
pub fn parse(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(|c: char| c.is_ascii_whitespace()) || name.contains('/')
        {
            return None;
        }
        let (value, after) = value(after.trim_start())?;
        pairs.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Some(pairs)
}

/// The value that `text` begins with, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let (text, quoted) = match text.strip_prefix('\'') {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Some((value, &text[at + 1..])),
            c if c.is_ascii_whitespace() && !quoted => return Some((value, &text[at..])),
            c => value.push(c),
        }
    }
    (!quoted).then_some((value, ""))
}

/// Where a connection string leads. `None` if it names no host, or several.
pub fn address(text: &str) -> Option<Address> {
    let pairs = parse(text)?;
    // The last one counts, as in libpq.
    let last = |name: &str| pairs.iter().rfind(|(key, _)| key == name).map(|(_, value)| value);
    let host = last("host").or_else(|| last("hostaddr")).filter(|host| !host.is_empty())?;
    let port = match last("port").map(String::as_str) {
        None | Some("") => DEFAULT_PORT,
        Some(port) => port.parse().ok()?,
    };
    // By way of its text, so that what is no host (a list, a socket's directory) is refused.
    Address { host: host.clone(), port }.to_string().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_read_as_libpq_reads_it() {
        let parsed = parse(r"host = n1  port=5432 password='it\'s \\ b' x=a\ b y=''").unwrap();
        let expected =
            [("host", "n1"), ("port", "5432"), ("password", r"it's \ b"), ("x", "a b"), ("y", "")];
        assert_eq!(parsed, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for wrong in ["host", "host='n1", "=x", "a b=c", "postgresql://n1/db?a=b"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_is_one_host() {
        let address = |text| address(text).map(|address| address.to_string());
        assert_eq!(address("host=n1 user=repmgr").as_deref(), Some("n1:5432"));
        assert_eq!(address("host='::1' port=6000").as_deref(), Some("[::1]:6000"));
        assert_eq!(address("host=n1 host=n2").as_deref(), Some("n2:5432"));
        for none in ["user=repmgr", "host=n1,n2", "host=/var/run/postgresql", "host=n1 port=x"] {
            assert_eq!(address(none), None, "{none}");
        }
    }

    #[test]
    fn an_address_that_was_looked_up_goes_and_the_name_stays() {
        let pinned = r"host=n1 hostaddr=10.0.0.7 port=5432 application_name='it\'s'";
        assert_eq!(by_name(pinned).as_deref(), Some(r"host=n1 port=5432 application_name='it\'s'"));
        assert_eq!(address(pinned), address("host=n1"));
        for left_alone in ["host=n1", "hostaddr=10.0.0.7", "postgresql://n1/"] {
            assert_eq!(by_name(left_alone), None, "{left_alone}");
        }
    }

    proptest! {
        #[test]
        fn any_value_comes_back(value: String) {
            prop_assert_eq!(
                parse(&text(&[("a", &value), ("b", "c")])),
                Some(vec![("a".to_owned(), value), ("b".to_owned(), "c".to_owned())])
            );
        }
    }
}
