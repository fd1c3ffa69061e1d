//! This node's vote: its member of the cluster's etcd, from the node's first moment to its last.

use crate::cluster::{Address, Sighting};
use crate::etcd::Member;
use crate::execute::Hands;
use crate::layout::{self, Layout};
use crate::members::{self, AsOf};
use crate::service::ServiceName;
use crate::settings::{NodeKind, Settings};
use crate::system::account::Account;
use crate::system::error::chain;
use crate::system::files::{FileError, ensure_file};
use crate::system::wait;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// Between two tries to find out how to begin: the other voters start at about the same time.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(300);
/// A question to another voter's etcd.
const WITHIN: Duration = Duration::from_secs(2);
/// In the OOM killer's list it goes after the other helpers: without a majority nobody leads.
const OOM_SCORE_ADJ: i32 = 300;

/// Whose files its etcd's are: those of whoever has the state directory.
fn account(hands: &Hands) -> &Account {
    match hands.settings.herd.kind {
        NodeKind::Data | NodeKind::Witness => &hands.postgres,
        NodeKind::Backup => &hands.barman,
    }
}

/// Between two looks whether the others have all been replaced.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So many looks one after the other see no majority: an election takes one second.
const LOOKS: u32 = 3;

/// Has etcd running, as soon as it is known how it is to begin.
pub async fn run(hands: Arc<Hands>) {
    let Some(member) = hands.voter.clone() else { return };
    let account = account(&hands).clone();
    loop {
        start(&hands, &member, &account).await;
        if hands.settings.herd.kind == NodeKind::Data {
            return; // It has data, and what the record says of it is not its to forget.
        }
        await_being_the_last(&hands, &member).await;
        warn!(
            "more than half of the voters have lost what they had, and no majority can ever be had again: \
             this one begins anew together with them"
        );
        hands.supervisor.cease(ServiceName::Etcd).await;
        if let Err(error) = member.forget(&account) {
            warn!("{}", chain(&error));
        }
    }
}

/// Comes back when this voter's etcd has had no majority for a while, and more than half of the voters say,
/// and prove that they are members, that theirs has never been part of one: their disks were lost, and with
/// them the cluster that this one remembers. They cannot begin a new one while it does.
async fn await_being_the_last(hands: &Hands, member: &Member) {
    let mut looks = 0;
    loop {
        wait::back_off(LOOK_EVERY).await;
        let is_silent = hands.keeper.as_ref().is_some_and(|one| one.now().unreachable.is_some());
        let are_new = is_silent && others_new(hands, member).await * 2 > member.voters();
        looks = if are_new { looks + 1 } else { 0 };
        if looks >= LOOKS {
            return;
        }
    }
}

async fn start(hands: &Arc<Hands>, member: &Arc<Member>, account: &Account) {
    let mut said = None;
    let beginning = loop {
        match begin(hands, member, account).await {
            Ok(beginning) => break beginning,
            Err(why) => {
                if said.as_ref() != Some(&why) {
                    warn!("{why}");
                    said = Some(why);
                }
                wait::back_off(TRY_AGAIN_AFTER).await;
            }
        }
    };
    info!("this node has a vote: starts etcd");
    let (program, as_whom) = (Arc::clone(member), account.clone());
    hands.supervisor.keep(ServiceName::Etcd, move || {
        program.program(&as_whom, &beginning).oom_score_adj(OOM_SCORE_ADJ)
    });
}

async fn begin(
    hands: &Hands,
    member: &Member,
    account: &Account,
) -> Result<crate::etcd::Beginning, String> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    member
        .write_files(&hands.settings, &host.to_string_lossy(), account)
        .map_err(|error| chain(&error))?;
    let others_new = others_new(hands, member).await;
    let client = member.others(&hands.settings).map_err(|error| chain(&error))?;
    let prepared = member.prepare(&client, others_new, WITHIN).await;
    prepared.map_err(|error| chain(&error))
}

/// How many of the other voters say that theirs has never been part of a majority.
async fn others_new(hands: &Hands, member: &Member) -> usize {
    let voters = hands.settings.herd.voters.iter();
    let others: Vec<_> = voters
        .filter(|voter| voter.host != member.name)
        .map(|voter| (voter.clone(), false))
        .collect();
    let asked =
        members::ask(&hands.settings, &others, &hands.address, &hands.instance, AsOf::Lately).await;
    let is_new = |one: &&Sighting| {
        one.proved && one.report().is_some_and(|report| report.new_voter == Some(true))
    };
    asked.iter().filter(is_new).count()
}

/// Who votes, as the master said in a former life of this node; nobody where nothing was kept. For a node
/// whose own variables say nothing of it.
pub fn learned(settings: &Settings) -> Option<Vec<Address>> {
    let file = layout::learned_voters(&layout::state_dir(settings));
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Afterwards [`learned`] finds them.
pub fn keep(voters: &[Address], layout: &Layout, account: &Account) -> Result<(), FileError> {
    let text = serde_json::to_string(voters).expect("they are texts");
    ensure_file(&layout.learned_voters(), text + "\n", 0o600, account).map(drop)
}
