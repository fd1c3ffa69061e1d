//! `pgherd restore`: the primary is asked what it would do, a person says yes, and it does.

use super::ask::{Door, Entrance, Method, encoded};
use super::change::granted;
use super::command::Restore;
use super::{answer, events, follow, say, status};
use crate::control::Snapshot;
use crate::system::wait;
use std::io::{self, BufRead, IsTerminal};
use std::time::{Duration, Instant};

/// A restore takes seconds to days.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// A node that leads serves again within that, or says what it waits for.
const SILENT_AT_MOST: Duration = Duration::from_secs(120);
/// So many times in a row the node must serve as before, with nothing under way: then it has given up. It
/// looks at its server a moment after that serves.
const IDLE_MAX: u32 = 8;

/// The cluster goes back to a backup, or to a moment since.
pub(super) fn restore(entrance: &Entrance, wanted: &Restore) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    let Some(primary) = seen.nodes.iter().find(|node| Some(&node.name) == seen.primary.as_ref())
    else {
        say(
            "nobody leads just now, and it is the primary that restores: pgherd status shows why; to \
             bring a backup back where all data is lost: RESTORE_FROM on an empty volume",
        );
        return Err(status::REFUSED);
    };
    let door = entrance.door(&seen, primary);
    let query = query(wanted);
    let foreseen = format!("/restore?{query}dry_run=1");
    let foreseen = granted(&entrance.wish(&door, Method::Post, &foreseen)?)?;
    if wanted.dry_run {
        return Ok(answer(foreseen));
    }
    foreseen.trim().lines().for_each(say);
    if !wanted.yes {
        is_meant()?;
    }
    let before = primary.timeline;
    let said = entrance.wish(&door, Method::Post, &format!("/restore?{query}"))?;
    say(granted(&said)?.trim());
    let served = super::block_on(until_it_serves(entrance, &door, |now| {
        now.nodes.first().is_some_and(|own| own.timeline > before)
    }));
    match served {
        Ok(now) => {
            let timeline = now.nodes.first().and_then(|own| own.timeline);
            let timeline = timeline.map(|one| one.to_string()).unwrap_or_default();
            Ok(answer(format!("{} leads what was restored, on timeline {timeline}", door.name)))
        }
        Err(why) => {
            say(why);
            Err(status::FAILED)
        }
    }
}

fn query(wanted: &Restore) -> String {
    let Restore { backup, target_time, target_lsn, target_name, target_xid, .. } = wanted;
    let pairs = [
        ("from", Some(backup)),
        ("time", target_time.as_ref()),
        ("lsn", target_lsn.as_ref()),
        ("name", target_name.as_ref()),
        ("xid", target_xid.as_ref()),
        ("timeline", wanted.target_timeline.as_ref()),
        ("action", wanted.target_action.as_ref()),
    ];
    let given = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
    given.map(|(name, value)| format!("{name}={}&", encoded(value))).collect()
}

/// Only a person can say so, or whoever writes `--yes`.
fn is_meant() -> Result<(), u8> {
    if !io::stdin().is_terminal() {
        say("nothing was changed: say --yes where nobody can be asked");
        return Err(status::REFUSED);
    }
    say("Is that what you want? Type yes:");
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    match read.is_ok() && line.trim().eq_ignore_ascii_case("yes") {
        true => Ok(()),
        false => {
            say("nothing was changed");
            Err(status::REFUSED)
        }
    }
}

/// Until the node serves as `wanted`; else why it does not.
async fn until_it_serves(
    entrance: &Entrance<'_>,
    door: &Door,
    is_wanted: impl Fn(&Snapshot) -> bool,
) -> Result<Snapshot, String> {
    let (mut heard, mut idle_times) = (Instant::now(), 0);
    let mut said = String::new();
    loop {
        if let Ok(seen) = entrance.seen_by(door).await {
            heard = Instant::now();
            let idle = follow::is_idle(&seen);
            if idle && follow::leads(&seen) && is_wanted(&seen) {
                return Ok(seen);
            }
            idle_times = if idle { idle_times + 1 } else { 0 };
            if idle_times > IDLE_MAX {
                return Err(why_not(entrance, door).await);
            }
            let waits_for = seen.nodes.first().and_then(|own| own.waits_for.clone());
            let waits_for = waits_for.map(|what| format!("{} waits for {what}", door.name));
            if let Some(line) = waits_for.or_else(|| follow::under_way(&seen))
                && line != said
            {
                say(&line);
                said = line;
            }
        }
        if heard.elapsed() > SILENT_AT_MOST {
            return Err(format!(
                "{} does not answer any more: pgherd status on another node shows who leads",
                door.name
            ));
        }
        wait::back_off(ASK_EVERY).await;
    }
}

async fn why_not(entrance: &Entrance<'_>, door: &Door) -> String {
    match events::failure(entrance, door).await {
        Some(why) => format!("{} was not restored: {why}", door.name),
        None => format!("{} serves, and what was before: pgherd events says more", door.name),
    }
}
