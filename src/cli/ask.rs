//! Questions to the running node, over its HTTP port.

use super::{answer, pretty, say, status};
use crate::control::Snapshot;
use crate::settings::Settings;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The node answers from memory; one that takes longer than this does not answer.
const ANSWER_AT_MOST: Duration = Duration::from_secs(4);
/// A status of a hundred nodes is smaller.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Prints the cluster.
pub(super) fn status(settings: &Settings, json: bool) -> u8 {
    let answered = get(settings, "/status")
        .and_then(|(_, body)| serde_json::from_slice::<Snapshot>(&body).map_err(io::Error::from));
    match answered {
        Ok(snapshot) => answer(if json { pretty(&snapshot) } else { snapshot.to_string() }),
        Err(error) => {
            say(format!(
                "the node does not answer on port {} ({error}); run this inside its container: \
                 docker exec CONTAINER pgherd status",
                settings.herd.http_port
            ));
            status::CANNOT_REACH
        }
    }
}

/// 0 or 1, and no word: docker asks every few seconds.
pub(super) fn health(settings: &Settings, ready: bool) -> u8 {
    let path = if ready { "/readiness" } else { "/liveness" };
    match get(settings, path) {
        Ok((200, _)) => status::DONE,
        _ => status::FAILED,
    }
}

/// Whether a node runs here.
pub(super) fn answers(settings: &Settings) -> bool {
    get(settings, "/liveness").is_ok()
}

/// HTTP's simplest form: one request, the status code, everything up to the end.
fn get(settings: &Settings, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.herd.http_port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_AT_MOST)?;
    stream.set_read_timeout(Some(ANSWER_AT_MOST))?;
    stream.set_write_timeout(Some(ANSWER_AT_MOST))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not HTTP"))
}

fn parse(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((code, bytes[end + 4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_code_and_its_body() {
        let (code, body) = parse(b"HTTP/1.0 503 Unavailable\r\nx: y\r\n\r\n{}").unwrap();
        assert_eq!((code, body.as_slice()), (503, b"{}".as_slice()));
        assert!(parse(b"SSH-2.0\r\n\r\n").is_none());
    }
}
