//! A wait for another node to lead: what the nodes say, asked again and again.

use super::ask::{Door, Entrance};
use super::{events, say};
use crate::cluster::NodeState;
use crate::control::{NodeRole, NodeStatus, Snapshot};
use crate::system::wait;
use futures_util::future::join_all;
use std::time::{Duration, Instant};

/// A lease of the longest kind, and a promotion with its checkpoint.
const LEADS_WITHIN: Duration = Duration::from_secs(90);
/// A person waits for it.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// So many times in a row the node that was asked must serve as before, with nothing under way: then it
/// has given up.
const IDLE_MAX: u32 = 8;

/// What came of it.
pub(super) enum Followed {
    /// It leads.
    Leads {
        /// Its name.
        name: String,
        /// By the record.
        epoch: Option<u64>,
    },
    /// Nothing; in words.
    Failed(String),
}

/// Until a node that `becomes` accepts says itself that it leads. `asked` is the node that was asked for
/// it, which says how far it is.
pub(super) async fn until_one_leads(
    entrance: &Entrance<'_>,
    doors: Vec<Door>,
    asked: &str,
    becomes: impl Fn(&NodeStatus) -> bool,
) -> Followed {
    let began = Instant::now();
    let mut said = Vec::new();
    let mut idle = 0;
    loop {
        let answers = join_all(doors.iter().map(|door| entrance.seen_by(door))).await;
        let seen: Vec<Snapshot> = answers.into_iter().flatten().collect();
        let leader = seen.iter().find(|one| leads(one) && one.nodes.first().is_some_and(&becomes));
        if let Some(leader) = leader {
            let name = leader.nodes[0].name.clone();
            return Followed::Leads { name, epoch: leader.epoch };
        }
        seen.iter().flat_map(under_way).for_each(|line| {
            if !said.contains(&line) {
                say(&line);
                said.push(line);
            }
        });
        let one = seen.iter().find(|one| one.nodes.first().is_some_and(|own| own.name == asked));
        match one.filter(|one| is_idle(one)) {
            Some(_) if idle < IDLE_MAX => idle += 1,
            Some(one) => return Followed::Failed(gave_up(entrance, one).await),
            None => idle = 0,
        }
        if began.elapsed() > LEADS_WITHIN {
            return Followed::Failed(format!(
                "not done within {} s: pgherd status shows what the nodes wait for",
                LEADS_WITHIN.as_secs()
            ));
        }
        wait::back_off(ASK_EVERY).await;
    }
}

/// What a wish was about begins within that; it is over when the node serves again.
const BEGINS_WITHIN: Duration = Duration::from_secs(3);

/// Until the node serves and has nothing under way, after it was asked for something.
pub(super) async fn until_it_serves(
    entrance: &Entrance<'_>,
    door: &Door,
    within: Option<Duration>,
) -> Result<(), String> {
    let began = Instant::now();
    let (mut begun, mut said) = (false, String::new());
    loop {
        let seen = entrance.seen_by(door).await.ok();
        match seen.as_ref().filter(|seen| is_idle(seen)) {
            None => begun = true,
            Some(seen) if begun || began.elapsed() > BEGINS_WITHIN => {
                let lately = seen.warnings.iter().find(|warning| warning.starts_with("cannot "));
                return lately.map_or(Ok(()), |warning| Err(warning.clone()));
            }
            Some(_) => {}
        }
        if let Some(line) = seen.as_ref().and_then(under_way).filter(|line| *line != said) {
            say(&line);
            said = line;
        }
        if let Some(within) = within.filter(|within| began.elapsed() > *within) {
            let name = &door.name;
            let within = within.as_secs();
            return Err(format!("{name} does not serve after {within} s: its log says why"));
        }
        wait::back_off(ASK_EVERY).await;
    }
}

/// The primary chooses another standby, or none, within that.
const RELIEVED_WITHIN: Duration = Duration::from_secs(30);

/// Until the record does not name the node, as it sees itself.
pub(super) async fn until_not_synchronous(
    entrance: &Entrance<'_>,
    door: &Door,
    name: &str,
) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let seen = entrance.seen_by(door).await.map_err(|error| error.to_string())?;
        if seen.nodes.iter().any(|node| node.name == name && !node.sync) {
            return Ok(());
        }
        if began.elapsed() > RELIEVED_WITHIN {
            return Err(format!(
                "commits wait for {name}, and no other standby takes its place \
                 (PGHERD_SYNCHRONOUS=required): bring another one up first"
            ));
        }
        wait::back_off(ASK_EVERY).await;
    }
}

/// The node says of itself that it takes writes.
pub(super) fn leads(seen: &Snapshot) -> bool {
    let own = seen.nodes.first();
    own.is_some_and(|own| {
        own.role == Some(NodeRole::Primary)
            && own.state == NodeState::Running
            && seen.primary.as_ref() == Some(&own.name)
    })
}

pub(super) fn is_idle(seen: &Snapshot) -> bool {
    seen.nodes.first().is_some_and(|own| own.state == NodeState::Running && own.scenario.is_none())
}

/// What the node does, a line a stage.
pub(super) fn under_way(seen: &Snapshot) -> Option<String> {
    let own = seen.nodes.first()?;
    let running = own.scenario.as_ref().filter(|running| running.stage > 0)?;
    let (stage, stages) = (running.stage, running.stages);
    let (title, stage_title) = (&running.title, &running.stage_title);
    // One plan may follow another.
    Some(format!("{}: {title}: {stage}/{stages} {stage_title}", own.name))
}

async fn gave_up(entrance: &Entrance<'_>, seen: &Snapshot) -> String {
    let Some(own) = seen.nodes.first() else { return "given up".to_owned() };
    let why = events::failure(entrance, &entrance.door(seen, own)).await;
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("{} has given it up and goes on as before{why}; its log says more", own.name)
}
