//! The cluster's base backups, asked of the node that keeps them.

use super::ask::{Door, Entrance, Method, encoded};
use super::{answer, pretty, say, status};
use crate::cluster::{Archive, Backup, LastBackup, Verified};
use crate::control::{NodeRole, Snapshot, bytes_in_words};
use crate::system::download::Said;
use crate::system::wait;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A backup takes seconds to days.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// So many questions in a row without an answer.
const UNANSWERED_MAX: u32 = 30;

/// Who keeps them: as the cluster says, or whoever is there for that, or the node that is asked.
fn keeper(entrance: &Entrance, seen: &Snapshot) -> Result<Door, u8> {
    let name = seen.backups.as_ref().map(|backups| &backups.node);
    let named = seen.nodes.iter().find(|node| Some(&node.name) == name);
    let kind = seen.nodes.iter().find(|node| node.role == Some(NodeRole::Backup));
    let node = named.or(kind).or(seen.nodes.first());
    node.map(|node| entrance.door(seen, node)).ok_or(status::FAILED)
}

fn granted(door: &Door, said: Said) -> Result<String, u8> {
    match said.code {
        200 | 202 => Ok(said.text),
        404 => {
            say(format!(
                "{} keeps no backups, and does not know which node does: it hears of that when it serves; ask \
                 again then, or another node (--at HOST:PORT)",
                door.name
            ));
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
    let door = keeper(entrance, &entrance.snapshot()?)?;
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
            verified(backup),
            archive.to_owned(),
        ]
    };
    let head = ["ID", "NAME", "USABLE FROM", "TL", "LSN", "SIZE", "VERIFIED", "ARCHIVE"];
    let head = head.map(str::to_owned);
    let rows = archives
        .iter()
        .flat_map(|archive| archive.backups.iter().rev().map(|backup| row(&archive.name, backup)));
    let all: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let line = |row: &[String; 8]| {
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
    let seen = entrance.snapshot()?;
    let door = keeper(entrance, &seen)?;
    let Some(primary) = seen.primary.clone() else {
        say(format!(
            "{} takes the base backups, of whoever leads, and nobody leads just now: ask again when pgherd \
             status says who does",
            door.name
        ));
        return Err(status::REFUSED);
    };
    let query = name.map(|name| format!("?name={}", encoded(name))).unwrap_or_default();
    let said = entrance.wish(&door, Method::Post, &format!("/backup{query}"))?;
    let said = granted(&door, said)?;
    if !waits {
        return Ok(answer(said));
    }
    say(said.trim());
    let (mut told, mut told_to_wait) = (0, false);
    loop {
        let last: LastBackup = hear(entrance, &door, "/backup")?;
        if !last.running {
            if let Some(why) = last.failed {
                let now = entrance.snapshot().ok();
                if now.is_some_and(|now| now.primary.as_ref() != Some(&primary)) {
                    say(format!(
                        "the backup was not taken: {primary} does not lead any more. {} takes a new one as soon as \
                         another node leads (pgherd status, pgherd backups); for one by a name, ask again then",
                        door.name
                    ));
                } else {
                    say(format!("the backup was not taken: {why}"));
                }
                return Err(status::FAILED);
            }
            return Ok(answer(last.id.unwrap_or_default()));
        }
        if last.waits && !std::mem::replace(&mut told_to_wait, true) {
            say("another base backup is being taken just now: this one comes after it");
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

/// What the node says of it after a while; it may be away for some.
fn hear<T: DeserializeOwned>(entrance: &Entrance, door: &Door, path: &str) -> Result<T, u8> {
    for _ in 0..UNANSWERED_MAX {
        super::block_on(wait::back_off(ASK_EVERY));
        let said = super::block_on(entrance.shown(door, path)).ok();
        if let Some(read) = said.and_then(|said| serde_json::from_str(&said.text).ok()) {
            return Ok(read);
        }
    }
    say(format!("{} does not answer any more", door.name));
    Err(status::CANNOT_REACH)
}

/// When it was restored on trial, or that it is no good.
fn verified(backup: &Backup) -> String {
    match &backup.verified {
        None => "-".to_owned(),
        Some(Verified { at, wrong: None }) => at.to_string(),
        Some(Verified { wrong: Some(_), .. }) => "SPOILT".to_owned(),
    }
}

/// What the node says of the one that is restored on trial.
#[derive(Deserialize)]
struct Verifies {
    running: bool,
    id: String,
    doing: Option<String>,
    failed: Option<String>,
    verified: Option<Verified>,
}

/// Has one restored on trial, and comes back with what was found out.
pub(super) fn verify(entrance: &Entrance, wanted: &str) -> Result<u8, u8> {
    let door = keeper(entrance, &entrance.snapshot()?)?;
    let path = format!("/backup/verify?id={}", encoded(wanted));
    say(granted(&door, entrance.wish(&door, Method::Post, &path)?)?.trim());
    let mut told = None;
    loop {
        let now: Verifies = hear(entrance, &door, "/backup/verify")?;
        if now.running {
            if now.doing != told {
                now.doing.iter().for_each(|doing| say(format!("{} {doing}", door.name)));
                told = now.doing;
            }
            continue;
        }
        let (id, why) = match (now.id, now.failed, now.verified) {
            (id, None, Some(Verified { wrong: None, .. })) => {
                return Ok(answer(format!("backup {id} restores")));
            }
            (id, None, Some(Verified { wrong: Some(why), .. })) => {
                (id, format!("DOES NOT RESTORE: {why}"))
            }
            (id, Some(why), _) => (id, format!("was not verified: {why}")),
            (id, None, None) => (id, format!("was not verified: {} was restarted", door.name)),
        };
        say(format!("backup {id} {why}"));
        return Err(status::FAILED);
    }
}
