//! What happened, on all nodes, in the order of their clocks.

use super::ask::{Door, Entrance};
use super::{answer, say, status};
use crate::journal::Entry;
use crate::system::wait;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;

/// To find out why something was given up.
const LOOKED_BACK: usize = 30;
/// Somebody watches.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// More than happen on a node between two questions.
const AT_ONCE_MAX: usize = 100;

/// Prints the last `limit` of all nodes together, and then, if asked to, what else happens.
pub(super) fn show(entrance: &Entrance, json: bool, follow: bool, limit: usize) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    let doors: Vec<Door> = seen.nodes.iter().map(|node| entrance.door(&seen, node)).collect();
    super::block_on(async {
        let mut shown = Shown::default();
        let first = ask(entrance, &doors, limit.max(1), true).await;
        if first.is_empty() {
            say("no node says what happened: pgherd status shows who answers");
            return Err(status::CANNOT_REACH);
        }
        print(&shown.show(merged(first), limit), json);
        if !follow {
            return Ok(status::DONE);
        }
        loop {
            wait::back_off(ASK_EVERY).await;
            let answers = ask(entrance, &doors, AT_ONCE_MAX, false).await;
            print(&shown.show(merged(answers), usize::MAX), json);
        }
    })
}

/// The last `limit` of all nodes that answer.
pub(super) async fn lately(entrance: &Entrance<'_>, doors: &[Door], limit: usize) -> Vec<Entry> {
    Shown::default().show(merged(ask(entrance, doors, limit, false).await), limit)
}

/// Why what the node was at last came to nothing.
pub(super) async fn failure(entrance: &Entrance<'_>, door: &Door) -> Option<String> {
    let lately = lately(entrance, std::slice::from_ref(door), LOOKED_BACK).await;
    let ended = |one: &&Entry| matches!(one.id.as_str(), "scenario.failed" | "scenario.ended");
    let last = lately.iter().rev().find(ended)?;
    last.why.clone().filter(|_| last.id == "scenario.failed")
}

async fn ask(
    entrance: &Entrance<'_>,
    doors: &[Door],
    limit: usize,
    aloud: bool,
) -> Vec<Vec<Entry>> {
    let path = format!("/events?limit={limit}");
    let answers = join_all(doors.iter().map(|door| entrance.asked(door, &path))).await;
    let read = doors.iter().zip(answers).filter_map(|(door, answer)| {
        let why = match answer {
            Ok(said) if said.code == 200 => match serde_json::from_str(&said.text) {
                Ok(entries) => return Some(entries),
                Err(error) => error.to_string(),
            },
            Ok(said) => format!("it answers {}", said.code),
            Err(error) => error.to_string(),
        };
        if aloud {
            say(format!("what happened on {} is not shown: {why}", door.name));
        }
        None
    });
    read.collect()
}

/// By time. Each node's own stay in their order, whatever its clock did.
fn merged(of_nodes: Vec<Vec<Entry>>) -> Vec<Entry> {
    let mut all: Vec<(String, Entry)> = Vec::new();
    for entries in of_nodes {
        let mut latest = String::new();
        for entry in entries {
            latest = latest.max(entry.at.clone());
            all.push((latest.clone(), entry));
        }
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.into_iter().map(|(_, entry)| entry).collect()
}

/// What was printed last of each node.
#[derive(Default)]
struct Shown(BTreeMap<String, Entry>);

impl Shown {
    /// Those of `entries` that come after what was printed before, the last `limit` of them.
    fn show(&mut self, entries: Vec<Entry>, limit: usize) -> Vec<Entry> {
        let mut new: Vec<Entry> = Vec::new();
        for (node, last) in &self.0 {
            let of_node = || entries.iter().filter(|entry| entry.node == *node);
            let known = of_node().position(|entry| entry == last).map_or(0, |at| at + 1);
            new.extend(of_node().skip(known).cloned());
        }
        new.extend(entries.iter().filter(|entry| !self.0.contains_key(&entry.node)).cloned());
        let position = |entry: &Entry| entries.iter().position(|one| one == entry);
        new.sort_by_key(position);
        for entry in &new {
            self.0.insert(entry.node.clone(), entry.clone());
        }
        new.split_off(new.len().saturating_sub(limit))
    }
}

fn print(entries: &[Entry], json: bool) {
    let width = entries.iter().map(|entry| entry.node.len()).max().unwrap_or_default();
    for entry in entries {
        answer(match json {
            true => serde_json::to_string(entry).expect("its keys are texts"),
            false => in_words(entry, width),
        });
    }
}

/// `2026-11-21 02:39:42.1  node2  lead.taken       node2 takes the lead after node1`.
fn in_words(entry: &Entry, width: usize) -> String {
    let Entry { at, node, id, why, text, .. } = entry;
    let at = at.get(..21).unwrap_or(at).replacen('T', " ", 1);
    let why = why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    format!("{at}  {node:<width$}  {id:<15}  {text}{why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: &str, at: &str, text: &str) -> Entry {
        let (at, node, text) = (at.to_owned(), node.to_owned(), text.to_owned());
        Entry { at, node, id: "x".to_owned(), epoch: None, why: None, text }
    }

    #[test]
    fn the_nodes_entries_are_merged_by_time_and_shown_once() {
        let one =
            vec![entry("node1", "1", "a"), entry("node1", "4", "b"), entry("node1", "3", "c")];
        let two = vec![entry("node2", "2", "d")];
        let mut shown = Shown::default();
        let texts = |entries: Vec<Entry>| -> String {
            entries.into_iter().map(|entry| entry.text).collect()
        };
        assert_eq!(texts(shown.show(merged(vec![one.clone(), two.clone()]), 9)), "adbc");
        assert_eq!(texts(shown.show(merged(vec![one.clone(), two.clone()]), 9)), "");
        let more = [&one[..], &[entry("node1", "3", "e")]].concat();
        let third = vec![entry("node3", "0", "f")];
        assert_eq!(texts(shown.show(merged(vec![two, more, third]), 9)), "fe");
        let mut few = Shown::default();
        assert_eq!(texts(few.show(merged(vec![one.clone()]), 1)), "c");
        assert_eq!(texts(few.show(merged(vec![one]), 1)), "");
    }
}
