//! Questions to the running node, over its HTTP port.

use super::{answer, block_on, pretty, say, status};
use crate::control::Snapshot;
use crate::settings::Settings;
use crate::system::download;
use std::io;
use std::time::Duration;

/// The node answers from memory; one that takes longer than this does not answer.
const ANSWER_AT_MOST: Duration = Duration::from_secs(4);

/// Prints the cluster.
pub(super) fn status(settings: &Settings, json: bool) -> u8 {
    let answered = get(settings, "/status")
        .and_then(|(_, body)| serde_json::from_str::<Snapshot>(&body).map_err(io::Error::from));
    match answered {
        Ok(snapshot) => answer(if json { pretty(&snapshot) } else { snapshot.to_string() }),
        Err(error) => unreachable_node(settings, &error),
    }
}

/// Tells a node that waits for silent members that they are gone.
pub(super) fn failover(settings: &Settings, allow_data_loss: bool) -> u8 {
    if !allow_data_loss {
        say(
            "whoever does not answer may have newer data, or lead where this node cannot see it: what \
             it has and this node has not is lost then. If you are sure: --allow-data-loss",
        );
        return status::REFUSED;
    }
    let token = settings.herd.control_token.expose();
    match ask(settings, "POST", "/failover", Some(token)) {
        Ok((code, body)) => {
            if code == 202 {
                return answer(body);
            }
            say(body.trim());
            status::REFUSED
        }
        Err(error) => unreachable_node(settings, &error),
    }
}

fn unreachable_node(settings: &Settings, error: &io::Error) -> u8 {
    say(format!(
        "the node does not answer on port {} ({error}); run this inside its container: \
         docker exec CONTAINER pgherd …",
        settings.herd.http_port
    ));
    status::CANNOT_REACH
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

fn get(settings: &Settings, path: &str) -> io::Result<(u16, String)> {
    ask(settings, "GET", path, None)
}

fn ask(
    settings: &Settings,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> io::Result<(u16, String)> {
    let node = ("127.0.0.1", settings.herd.http_port);
    let said = block_on(download::ask_soon(method, node, path, token, ANSWER_AT_MOST))?;
    Ok((said.code, said.text))
}
