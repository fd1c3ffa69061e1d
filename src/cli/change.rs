//! What people change: a wish to the node that can grant it, and a wait for what comes of it.

use super::ask::{Door, Entrance, Method, encoded, node_named};
use super::follow::{self, Followed};
use super::{answer, say, status};
use crate::cluster::NodeState;
use crate::control::{NodeRole, NodeStatus, Snapshot};
use crate::system::download::Said;
use std::cmp::Reverse;
use std::time::Duration;

/// Another node leads, and nothing is lost.
pub(super) fn switchover(
    entrance: &Entrance,
    to: Option<&str>,
    at: Option<i64>,
    dry_run: bool,
) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    if let Some(to) = to {
        let to = node_named(&seen, to)?;
        if at.is_none() && seen.primary.as_deref() == Some(to.name.as_str()) {
            return Ok(answer(leads(&to.name, seen.epoch)));
        }
    }
    let Some(primary) = seen.nodes.iter().find(|node| Some(&node.name) == seen.primary.as_ref())
    else {
        return refused("nobody leads just now: to give the lead to a standby, pgherd failover");
    };
    let door = entrance.door(&seen, primary);
    let mut path = "/switchover?".to_owned();
    if let Some(to) = to {
        path.push_str(&format!("to={}&", encoded(to)));
    }
    if let Some(at) = at {
        path.push_str(&format!("at={at}&"));
    }
    if dry_run {
        path.push_str("dry_run=1");
    }
    let said = granted(&entrance.wish(&door, Method::Post, &path)?)?;
    if dry_run {
        return Ok(answer(said));
    }
    if let Some(at) = at {
        let at = jiff::Timestamp::from_second(at).map(|at| at.to_string()).unwrap_or_default();
        let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
        return Ok(answer(format!(
            "whoever leads at {at} hands over{to}; to take that back: pgherd switchover --cancel"
        )));
    }
    say(said.trim());
    let doors = seen.nodes.iter().map(|node| entrance.door(&seen, node)).collect();
    let becomes = move |now: &NodeStatus| match to {
        Some(to) => now.name == to,
        None => now.name != door.name,
    };
    wait_until_one_leads(entrance, doors, &primary.name, becomes)
}

/// What was asked for at a later time is not done.
pub(super) fn cancel_switchover(entrance: &Entrance) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    granted(&entrance.wish(&own_door(entrance, &seen)?, Method::Delete, "/switchover")?)?;
    Ok(answer("no switchover is to come".to_owned()))
}

/// A standby leads, where nobody does.
pub(super) fn failover(
    entrance: &Entrance,
    to: Option<&str>,
    allow_data_loss: bool,
) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    let target = match to {
        Some(to) => node_named(&seen, to)?,
        None => best_to_lead(&seen).ok_or_else(|| no_node(&seen))?,
    };
    let door = entrance.door(&seen, target);
    let path = if allow_data_loss { "/failover?allow_data_loss=1" } else { "/failover" };
    say(granted(&entrance.wish(&door, Method::Post, path)?)?.trim());
    let doors = seen.nodes.iter().map(|node| entrance.door(&seen, node)).collect();
    wait_until_one_leads(entrance, doors, &target.name, |now| now.name == target.name)
}

/// Who is asked without a name: the one asked, where it waits for that word itself; else a standby
/// that has every acknowledged write; else the one that is furthest. Priority 0 and maintenance are to be
/// overruled by name only.
fn best_to_lead(seen: &Snapshot) -> Option<&NodeStatus> {
    let own = seen.nodes.first()?;
    if own.waits_for.is_some() {
        return Some(own);
    }
    let standbys = seen
        .nodes
        .iter()
        .filter(|node| node.role == Some(NodeRole::Standby) && node.state == NodeState::Running)
        .filter(|node| node.priority > 0 && !node.maintenance);
    let best =
        |node: &&NodeStatus| (node.sync, node.timeline, node.lsn, node.priority, Reverse(node.id));
    let own_may = own.priority > 0 && !own.maintenance;
    standbys.max_by_key(best).or(own_may.then_some(own))
}

fn no_node(seen: &Snapshot) -> u8 {
    say(format!("{} has no node that could lead", seen.cluster));
    status::REFUSED
}

fn wait_until_one_leads(
    entrance: &Entrance,
    doors: Vec<Door>,
    asked: &str,
    becomes: impl Fn(&NodeStatus) -> bool,
) -> Result<u8, u8> {
    match super::block_on(follow::until_one_leads(entrance, doors, asked, becomes)) {
        Followed::Leads { name, epoch } => Ok(answer(leads(&name, epoch))),
        Followed::Failed(why) => {
            say(why);
            Err(status::FAILED)
        }
    }
}

fn leads(name: &str, epoch: Option<u64>) -> String {
    match epoch {
        Some(epoch) => format!("{name} leads (epoch {epoch})"),
        None => format!("{name} leads"),
    }
}

/// Whether roles change by themselves.
pub(super) fn pause(entrance: &Entrance, on: bool) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    let path = format!("/pause?on={on}");
    granted(&entrance.wish(&own_door(entrance, &seen)?, Method::Put, &path)?)?;
    Ok(answer(match on {
        true => format!("{} is paused: no roles change by themselves", seen.cluster),
        false => format!("{} is not paused", seen.cluster),
    }))
}

/// Whether a node may be chosen.
pub(super) fn maintenance(
    entrance: &Entrance,
    on: bool,
    node: Option<&str>,
    force: bool,
) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    let name = door_of(entrance, &seen, node)?.name;
    maintain(entrance, &seen, &name, on, force)?;
    Ok(answer(match on {
        true => format!("{name} is in maintenance: it is not chosen"),
        false => format!("{name} is not in maintenance"),
    }))
}

fn own_door(entrance: &Entrance, seen: &Snapshot) -> Result<Door, u8> {
    match seen.nodes.first() {
        Some(own) => Ok(entrance.door(seen, own)),
        None => Err(no_node(seen)),
    }
}

/// Postgres stops and starts.
pub(super) fn restart(entrance: &Entrance, node: Option<&str>) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    let door = door_of(entrance, &seen, node)?;
    say(granted(&entrance.wish(&door, Method::Post, "/restart")?)?.trim());
    let within = entrance.stop_timeout() + STARTS_WITHIN;
    wait_until_it_serves(entrance, &door, Some(within))?;
    Ok(answer(format!("{} was restarted", door.name)))
}

/// Beside the time that the server may take to stop.
const STARTS_WITHIN: Duration = Duration::from_secs(90);

/// Postgres reads its configuration.
pub(super) fn reload(entrance: &Entrance, node: Option<&str>) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    let door = door_of(entrance, &seen, node)?;
    Ok(answer(granted(&entrance.wish(&door, Method::Post, "/reload")?)?))
}

/// A standby's data is a new clone.
pub(super) fn reinit(entrance: &Entrance, node: &str) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    let target = node_named(&seen, node)?;
    let door = entrance.door(&seen, target);
    // Whoever has every acknowledged write has to keep it until that is another one's part.
    let has_to_be_relieved = target.sync && !target.maintenance;
    if has_to_be_relieved {
        maintain(entrance, &seen, &target.name, true, true)?;
        let relieved = super::block_on(follow::until_not_synchronous(entrance, &door, node));
        if let Err(why) = relieved {
            maintain(entrance, &seen, &target.name, false, false)?;
            say(why);
            return Err(status::REFUSED);
        }
    }
    let said = entrance.wish(&door, Method::Post, "/reinitialize");
    let begun = said.and_then(|said| granted(&said)).map(|words| say(words.trim()));
    if has_to_be_relieved {
        // It is out of the set, and comes back when it streams with everything again.
        maintain(entrance, &seen, &target.name, false, false)?;
    }
    begun?;
    wait_until_it_serves(entrance, &door, None)?;
    Ok(answer(format!("{} was cloned again", door.name)))
}

fn maintain(
    entrance: &Entrance,
    seen: &Snapshot,
    name: &str,
    on: bool,
    force: bool,
) -> Result<(), u8> {
    let force = if force { "&force=1" } else { "" };
    let path = format!("/maintenance?on={on}&node={}{force}", encoded(name));
    granted(&entrance.wish(&own_door(entrance, seen)?, Method::Put, &path)?).map(drop)
}

fn door_of(entrance: &Entrance, seen: &Snapshot, node: Option<&str>) -> Result<Door, u8> {
    match node {
        Some(name) => Ok(entrance.door(seen, node_named(seen, name)?)),
        None => own_door(entrance, seen),
    }
}

fn wait_until_it_serves(
    entrance: &Entrance,
    door: &Door,
    within: Option<Duration>,
) -> Result<(), u8> {
    super::block_on(follow::until_it_serves(entrance, door, within)).map_err(|why| {
        say(why);
        status::FAILED
    })
}

/// What was said to a wish that is granted. Else the exit status; the reason was said.
pub(super) fn granted(said: &Said) -> Result<String, u8> {
    match said.code {
        200..=299 => Ok(said.text.clone()),
        code => {
            match said.text.trim() {
                "" => say(format!("the node answers {code}, and no more")),
                why => say(why),
            }
            // 503: it would grant it at another time, but does not say so.
            Err(if code >= 500 { status::FAILED } else { status::REFUSED })
        }
    }
}

fn refused(why: &str) -> Result<u8, u8> {
    say(why);
    Err(status::REFUSED)
}
