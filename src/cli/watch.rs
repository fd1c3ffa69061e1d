//! `pgherd status --watch`: the cluster again and again, in one place on a terminal, one after the other
//! elsewhere.

use super::ask::{Door, Entrance};
use super::{answer, events, pretty, status};
use crate::control::Snapshot;
use crate::journal::Entry;
use crate::system::wait;
use std::fmt::Write;
use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(1);
/// Of the last events.
const EVENTS_MAX: usize = 6;

/// Until somebody interrupts it. While the node does not answer, what it said last stays, with that.
pub(super) fn watch(entrance: &Entrance, json: bool) -> Result<u8, u8> {
    let mut last = entrance.snapshot()?;
    let mut answered = Instant::now();
    let in_place = stdout().is_terminal() && !json;
    if in_place {
        answer("\x1b[2J".to_owned());
    }
    super::block_on(async {
        loop {
            let own = last.nodes.first().cloned();
            let door = own.map(|own| entrance.door(&last, &own));
            match &door {
                Some(door) => match entrance.seen_by(door).await {
                    Ok(seen) => (last, answered) = (seen, Instant::now()),
                    Err(_) if json => return Err(status::CANNOT_REACH),
                    Err(_) => {}
                },
                None => return Err(status::FAILED),
            }
            let text = match json {
                true => serde_json::to_string(&last).unwrap_or_else(|_| pretty(&last)) + "\n",
                false => {
                    let doors: Vec<Door> =
                        last.nodes.iter().map(|node| entrance.door(&last, node)).collect();
                    let happened = events::lately(entrance, &doors, EVENTS_MAX).await;
                    page(&last, &happened, answered.elapsed())
                }
            };
            answer(if in_place { over_the_last(&text) } else { text });
            wait::back_off(EVERY).await;
        }
    })
}

fn page(seen: &Snapshot, happened: &[Entry], silent: Duration) -> String {
    let mut text = seen.to_string();
    if silent > EVERY * 3 {
        let name = seen.nodes.first().map(|own| own.name.as_str()).unwrap_or_default();
        let silent = silent.as_secs();
        let _ = writeln!(text, "! {name} has not answered for {silent} s: this is as old as that");
    }
    if !happened.is_empty() {
        text.push('\n');
    }
    for Entry { at, node, text: what, .. } in happened {
        let time = at.split_once('T').map_or(at.as_str(), |(_, time)| time);
        let time: String = time.chars().take("00:00:00".len()).collect();
        let _ = writeln!(text, "{time}  {node}: {what}"); // A String takes everything.
    }
    text + "\n"
}

/// From the top of the screen, each line's rest and what is below it emptied.
fn over_the_last(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{lines}\x1b[J")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_takes_the_place_of_the_one_before() {
        assert_eq!(over_the_last("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
