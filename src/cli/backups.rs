//! The cluster's base backups, asked of the node that keeps them.

use super::ask::{Door, Entrance, Method, encoded};
use super::{answer, pretty, say, status};
use crate::cluster::{Archive, Backup};
use crate::control::{NodeRole, bytes_in_words};
use crate::system::download::Said;
use crate::system::wait;
use serde::Deserialize;
use std::time::Duration;

/// A backup takes seconds to days.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// So many questions in a row without an answer.
const UNANSWERED_MAX: u32 = 30;

/// What the node says of the one that was asked for.
#[derive(Deserialize)]
struct Last {
    running: bool,
    bytes: Option<u64>,
    bytes_before: Option<u64>,
    failed: Option<String>,
    newest: Option<String>,
}

/// Who keeps them: as the cluster says, or whoever is there for that, or the node that is asked.
fn keeper(entrance: &Entrance) -> Result<Door, u8> {
    let seen = entrance.snapshot()?;
    let name = seen.backups.as_ref().map(|backups| &backups.node);
    let named = seen.nodes.iter().find(|node| Some(&node.name) == name);
    let kind = seen.nodes.iter().find(|node| node.role == Some(NodeRole::Backup));
    let node = named.or(kind).or(seen.nodes.first());
    node.map(|node| entrance.door(&seen, node)).ok_or(status::FAILED)
}

fn granted(door: &Door, said: Said) -> Result<String, u8> {
    match said.code {
        200 | 202 => Ok(said.text),
        404 => {
            say(format!("{} keeps no backups, and no node that does is known", door.name));
            Err(status::REFUSED)
        }
        _ => {
            say(said.text.trim());
            Err(status::REFUSED)
        }
    }
}

/// Prints them, newest first.
pub(super) fn show(entrance: &Entrance, json: bool) -> Result<u8, u8> {
    let door = keeper(entrance)?;
    let said = granted(&door, entrance.wish(&door, Method::GetShowing, "/archive/backups")?)?;
    let archives: Vec<Archive> = serde_json::from_str(&said).map_err(|error| {
        say(format!("{} does not say what it keeps: {error}", door.name));
        status::FAILED
    })?;
    Ok(answer(if json { pretty(&archives) } else { table(&archives) }))
}

fn table(archives: &[Archive]) -> String {
    let row = |archive: &str, backup: &Backup| {
        [
            backup.id.clone(),
            backup.name.clone().unwrap_or_else(|| "-".to_owned()),
            backup.ended.to_string(),
            backup.timeline.to_string(),
            backup.end.to_string(),
            bytes_in_words(backup.bytes),
            archive.to_owned(),
        ]
    };
    let head = ["ID", "NAME", "USABLE FROM", "TL", "LSN", "SIZE", "ARCHIVE"].map(str::to_owned);
    let rows = archives
        .iter()
        .flat_map(|archive| archive.backups.iter().rev().map(|backup| row(&archive.name, backup)));
    let all: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let line = |row: &[String; 7]| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column);
            format!("{cell:<width$}")
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    all.iter().map(line).collect()
}

/// Has one taken; with `waits` comes back when it is complete.
pub(super) fn take(entrance: &Entrance, waits: bool, name: Option<&str>) -> Result<u8, u8> {
    let door = keeper(entrance)?;
    let query = name.map(|name| format!("?name={}", encoded(name))).unwrap_or_default();
    let said = entrance.wish(&door, Method::Post, &format!("/backup{query}"))?;
    let said = granted(&door, said)?;
    if !waits {
        return Ok(answer(said));
    }
    say(said.trim());
    let (mut unanswered, mut told) = (0, 0);
    loop {
        super::block_on(wait::back_off(ASK_EVERY));
        let last: Option<Last> = match super::block_on(entrance.shown(&door, "/backup")) {
            Ok(said) => serde_json::from_str(&said.text).ok(),
            Err(_) => None,
        };
        let Some(last) = last else {
            unanswered += 1;
            if unanswered > UNANSWERED_MAX {
                say(format!("{} does not answer any more", door.name));
                return Err(status::CANNOT_REACH);
            }
            continue;
        };
        unanswered = 0;
        if !last.running {
            if let Some(why) = last.failed {
                say(format!("the backup was not taken: {why}"));
                return Err(status::FAILED);
            }
            return Ok(answer(last.newest.unwrap_or_default()));
        }
        let tenths = |bytes: u64, of: u64| bytes * 10 / of.max(1);
        if let (Some(bytes), Some(of)) = (last.bytes, last.bytes_before)
            && tenths(bytes, of) > told
        {
            told = tenths(bytes, of);
            say(format!("{} of about {}", bytes_in_words(bytes), bytes_in_words(of)));
        }
    }
}
