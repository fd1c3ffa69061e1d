//! Who belongs to the cluster: one more, or one less.

use super::ask::{Entrance, Method, encoded, node_named};
use super::change::granted;
use super::{answer, say, status};
use crate::control::Snapshot;
use crate::settings::{Failover, Settings};

/// How a node of that name is added. Nothing is changed: it joins by itself.
pub(super) fn add(entrance: &Entrance, name: &str) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    if let Some(taken) = seen.nodes.iter().find(|node| node.name == name) {
        say(format!("{name} is a member already, at {}", taken.address));
        return Err(status::REFUSED);
    }
    Ok(answer(recipe(&seen, entrance.settings(), name)))
}

fn recipe(seen: &Snapshot, settings: &Settings, name: &str) -> String {
    let known = seen.nodes.iter().find(|node| Some(&node.name) == seen.primary.as_ref());
    let known = known.or(seen.nodes.first()).map(|node| node.address.to_string());
    let voters: Vec<_> = settings.herd.voters.iter().map(ToString::to_string).collect();
    let voters = match settings.herd.failover {
        Failover::Quorum if !voters.is_empty() => {
            format!("    -e PGHERD_VOTERS={} \\\n", voters.join(","))
        }
        Failover::Quorum | Failover::Manual | Failover::Eager => String::new(),
    };
    format!(
        "{name} joins by itself when it is started; where the others reach it by that name:\n\n\
         docker run -d --name {name} --hostname {name} -v {name}-data:/var/lib/postgresql \\\n    \
             -e REPMGR_NODE_NAME={name} -e REPMGR_MASTER=false -e REPMGR_MASTER_HOST={} \\\n    \
             -e PGHERD_CLUSTER={} -e PGHERD_FAILOVER={} \\\n{voters}    \
             … pgherd:17\n\n\
         with the passwords and the other settings of the others (pgherd settings shows them). It has \
         no vote unless PGHERD_VOTERS names it: three or five nodes, the same on each.\n",
        known.unwrap_or_default(),
        settings.herd.cluster,
        settings.herd.failover,
    )
}

/// The member is taken out, by the primary.
pub(super) fn remove(entrance: &Entrance, name: &str) -> Result<u8, u8> {
    let seen = entrance.snapshot()?;
    let gone = node_named(&seen, name)?;
    let Some(primary) = seen.nodes.iter().find(|node| Some(&node.name) == seen.primary.as_ref())
    else {
        say("nobody leads just now, and only the primary's records can be changed");
        return Err(status::REFUSED);
    };
    let path = format!("/member?node={}", encoded(&gone.name));
    let door = entrance.door(&seen, primary);
    Ok(answer(granted(&entrance.wish(&door, Method::Delete, &path)?)?))
}
