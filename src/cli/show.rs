//! What a running node shows.

use super::ask::Entrance;
use super::{answer, pretty, status};
use crate::settings::Settings;

/// Prints the cluster.
pub(super) fn status(entrance: &Entrance, json: bool) -> Result<u8, u8> {
    let snapshot = entrance.snapshot()?;
    Ok(answer(if json { pretty(&snapshot) } else { snapshot.to_string() }))
}

/// 0 or 1, and no word: docker asks every few seconds.
pub(super) fn health(entrance: &Entrance, ready: bool) -> u8 {
    let path = if ready { "/readiness" } else { "/liveness" };
    match entrance.get(path) {
        Ok(said) if said.code == 200 => status::DONE,
        _ => status::FAILED,
    }
}

/// Whether a node runs here.
pub(super) fn answers(settings: &Settings) -> bool {
    Entrance::new(settings, None).is_ok_and(|own| own.get("/liveness").is_ok())
}
