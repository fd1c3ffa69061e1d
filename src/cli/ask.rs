//! Questions to running nodes, over their HTTP ports: to the one in this container, or to `--at`, and
//! to the others through what that one knows.

use super::{say, status};
use crate::cluster::Address;
use crate::control::{NodeStatus, Snapshot};
use crate::settings::Settings;
use crate::system::download::{self, Said};
use std::fmt::Write;
use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;
use strsim::damerau_levenshtein;

/// A node answers from memory; one that takes longer than this does not answer.
const ANSWER_AT_MOST: Duration = Duration::from_secs(4);

/// The node that is asked first.
#[derive(Clone, Debug)]
pub(super) struct Entrance<'a> {
    settings: &'a Settings,
    host: String,
    port: u16,
}

/// A node's HTTP port, and what to call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Door {
    /// `REPMGR_NODE_NAME`.
    pub(super) name: String,
    host: String,
    port: u16,
}

/// How a request is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    Get,
    /// What not everybody may read.
    GetShowing,
    Post,
    Put,
    Delete,
}

impl<'a> Entrance<'a> {
    /// The node in this container, or the one at `at`. Else the exit status: it was said why.
    pub(super) fn new(settings: &'a Settings, at: Option<&str>) -> Result<Self, u8> {
        let port = settings.herd.http_port;
        let (host, port) = match at {
            None => ("127.0.0.1".to_owned(), port),
            Some(at) => host_and_port(at, port).map_err(|why| {
                say(why);
                status::USAGE
            })?,
        };
        Ok(Entrance { settings, host, port })
    }

    /// The cluster as it sees it.
    pub(super) fn snapshot(&self) -> Result<Snapshot, u8> {
        let read = super::block_on(self.snapshot_of(&self.host, self.port));
        read.map_err(|error| self.unreachable(&error))
    }

    /// The code and the words of an answer of its own.
    pub(super) fn get(&self, path: &str) -> io::Result<Said> {
        super::block_on(self.ask(Method::Get, (&self.host, self.port), path))
    }

    /// Where the node of that row answers: the first row is the entrance's own.
    pub(super) fn door(&self, seen: &Snapshot, node: &NodeStatus) -> Door {
        let is_own = seen.nodes.first().is_some_and(|own| own.name == node.name);
        let (host, port) = match is_own {
            true => (self.host.clone(), self.port),
            false => (node.address.host.clone(), self.settings.herd.http_port),
        };
        Door { name: node.name.clone(), host, port }
    }

    /// What the node behind the door says to a wish.
    pub(super) fn wish(&self, door: &Door, method: Method, path: &str) -> Result<Said, u8> {
        let said = super::block_on(self.ask(method, (&door.host, door.port), path));
        said.map_err(|error| {
            say(format!(
                "{} does not answer at {}:{} ({error}): ask it from a container of the cluster, or \
                 with --at HOST:PORT",
                door.name, door.host, door.port
            ));
            status::CANNOT_REACH
        })
    }

    /// The cluster as the node behind the door sees it.
    pub(super) async fn seen_by(&self, door: &Door) -> io::Result<Snapshot> {
        self.snapshot_of(&door.host, door.port).await
    }

    /// The settings here, which are the cluster's in what all nodes have in common.
    pub(super) fn settings(&self) -> &Settings {
        self.settings
    }

    /// How long a server may take to stop.
    pub(super) fn stop_timeout(&self) -> Duration {
        self.settings.herd.stop_timeout
    }

    /// A short answer of the node behind the door.
    pub(super) async fn asked(&self, door: &Door, path: &str) -> io::Result<Said> {
        self.ask(Method::Get, (&door.host, door.port), path).await
    }

    /// The same for what not everybody may read.
    pub(super) async fn shown(&self, door: &Door, path: &str) -> io::Result<Said> {
        self.ask(Method::GetShowing, (&door.host, door.port), path).await
    }

    async fn snapshot_of(&self, host: &str, port: u16) -> io::Result<Snapshot> {
        let said = self.ask(Method::Get, (host, port), "/status").await?;
        serde_json::from_str(&said.text).map_err(io::Error::from)
    }

    async fn ask(&self, method: Method, node: (&str, u16), path: &str) -> io::Result<Said> {
        let (method, token) = match method {
            Method::Get => ("GET", None),
            Method::GetShowing => ("GET", Some(self.settings.herd.control_token.expose())),
            Method::Post => ("POST", Some(self.settings.herd.control_token.expose())),
            Method::Delete => ("DELETE", Some(self.settings.herd.control_token.expose())),
            Method::Put => ("PUT", Some(self.settings.herd.control_token.expose())),
        };
        let (host, port) = node;
        let node = download::Node { host, port, tls: self.settings.herd.tls_files() };
        download::ask_soon(method, node, path, token, ANSWER_AT_MOST).await
    }

    pub(super) fn unreachable(&self, error: &io::Error) -> u8 {
        say(format!(
            "the node does not answer at {}:{} ({error}); run this inside its container: \
             docker exec CONTAINER pgherd …, or name one with --at HOST:PORT",
            self.host, self.port
        ));
        status::CANNOT_REACH
    }
}

/// The row of that name. Else what was probably meant, and the exit status.
pub(super) fn node_named<'a>(seen: &'a Snapshot, name: &str) -> Result<&'a NodeStatus, u8> {
    seen.nodes.iter().find(|node| node.name == name).ok_or_else(|| {
        say(no_such_node(name, &seen.nodes));
        status::REFUSED
    })
}

fn no_such_node(name: &str, nodes: &[NodeStatus]) -> String {
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let distance_max = (name.len() / 3).clamp(1, 3);
    let near = names
        .iter()
        .map(|known| (damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance);
    let name = name.escape_debug();
    match near {
        Some((_, meant)) => format!("there is no node {name}; did you mean {meant}?"),
        None => format!("there is no node {name}; there are: {}", names.join(", ")),
    }
}

/// `text` as a value in a query: everything but letters, digits, `-`, `.`, `_` and `~` in percent
/// signs, as RFC 3986 has it.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes everything");
        }
    }
    encoded
}

/// `node1`, `node1:8008`, `[::1]:8008`.
fn host_and_port(at: &str, port: u16) -> Result<(String, u16), String> {
    if at.parse::<Ipv6Addr>().is_ok() {
        return Ok((at.to_owned(), port));
    }
    let address = format!("{at}:{port}").parse::<Address>().or_else(|_| at.parse());
    let Address { host, port } = address.map_err(|error| format!("--at: {error}"))?;
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn where_to_ask_is_a_host_with_or_without_a_port() {
        for (at, expected) in [
            ("node1", Some(("node1", 8008))),
            ("node1:18008", Some(("node1", 18008))),
            ("10.0.0.2:80", Some(("10.0.0.2", 80))),
            ("::1", Some(("::1", 8008))),
            ("[::1]", Some(("::1", 8008))),
            ("[::1]:80", Some(("::1", 80))),
            ("http://node1", None),
            ("node1:", None),
            ("node1:0", None),
            ("", None),
        ] {
            let found = host_and_port(at, 8008).ok();
            assert_eq!(found, expected.map(|(host, port)| (host.to_owned(), port)), "{at}");
        }
    }

    #[test]
    fn a_mistyped_name_is_answered_with_the_nearest() {
        let nodes = ["node1", "node2", "backup"].map(|name| {
            NodeStatus::unknown(name, format!("{name}:5432").parse().expect("an address"))
        });
        let said = |name| no_such_node(name, &nodes);
        assert_eq!(said("nod2"), "there is no node nod2; did you mean node2?");
        assert_eq!(said("Backup"), "there is no node Backup; did you mean backup?");
        assert_eq!(said("db"), "there is no node db; there are: node1, node2, backup");
        assert_eq!(said("a\n"), "there is no node a\\n; there are: node1, node2, backup");
    }

    proptest! {
        #[test]
        fn a_name_in_a_query_is_one_value_and_comes_back(name in "\\PC*|[&=%+ #?/]*") {
            let encoded = encoded(&name);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
            let query = format!("to={encoded}&on=true");
            let back = crate::http::value(Some(&query), "to");
            prop_assert_eq!(back.unwrap_or_default(), name);
        }
    }
}
