//! This node's vote: its member of the cluster's etcd, from the node's first moment to its last.

use crate::cluster::Address;
use crate::etcd::{self, Beginning, Member, Votes, Voting};
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
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Between two tries to find out how to begin: the other voters start at about the same time.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(300);
/// A question to another voter's etcd.
const WITHIN: Duration = Duration::from_secs(2);
/// Voters that are started together know of each other by then.
const SPEAKS_WITHIN: Duration = Duration::from_secs(15);
/// In the OOM killer's list it goes after the other helpers: without a majority nobody leads.
const OOM_SCORE_ADJ: i32 = 300;

/// Whose files its etcd's are: those of whoever has the state directory.
fn account(hands: &Hands) -> &Account {
    match hands.settings.herd.kind {
        NodeKind::Data | NodeKind::Witness => &hands.postgres,
        NodeKind::Backup => &hands.barman,
    }
}

/// Between two looks whether this vote counts.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// So long the others are seen to have a majority of another cluster.
const ELSEWHERE_FOR: Duration = Duration::from_secs(8);
/// The same of what may pass by itself: an etcd that does not stay up, one that has met nobody yet.
const IN_VAIN_FOR: Duration = Duration::from_secs(30);

/// Has etcd running, as soon as it is known how it is to begin, and has it begin anew where its vote cannot
/// count any more.
pub async fn run(hands: Arc<Hands>) {
    let Some(member) = hands.voter.clone() else { return };
    let account = account(&hands).clone();
    let mut mended = false;
    loop {
        start(&hands, &member, &account).await;
        let why = cannot_count(&hands, &member, &account, &mut mended).await;
        warn!("{why}: forgets what it has, and begins anew with the others");
        hands.supervisor.cease(ServiceName::Etcd).await;
        if let Err(error) = member.forget(&account) {
            warn!("{}", chain(&error));
        }
    }
}

/// Why what this voter's etcd remembers is of no use to anybody.
///
/// It is given up in these cases only. In the first the others have answered a question that needs a
/// majority of another cluster, so nothing that was agreed on is known to this one alone. In the second
/// they have one while its process does not stay up: it is no part of that, as if its disk was lost. In the
/// third more than half of the voters, this one among them, have never been part of a majority since their
/// directories were made: nothing was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error("the other voters have a majority of their own, in which this one's etcd has no part")]
    Elsewhere,
    #[error("this voter's etcd does not stay up, and the others have a majority without it")]
    DoesNotRun,
    #[error("this voter's etcd waits in vain for those that it began with")]
    InVain,
}

/// Since when something is so, without a look between that found otherwise.
#[derive(Debug, Default)]
struct Lasts(Option<Instant>);

impl Lasts {
    fn has(&mut self, is_so: bool, at_least: Duration) -> bool {
        self.0 = if is_so { self.0.or_else(|| Some(Instant::now())) } else { None };
        self.0.is_some_and(|since| since.elapsed() >= at_least)
    }
}

/// Comes back when this voter's etcd cannot be part of a majority any more. One that does not stay up is
/// `mended` once until it does: what keeps it from running may be something else than what it has.
async fn cannot_count(hands: &Hands, member: &Member, account: &Account, mended: &mut bool) -> Why {
    let (own, others) = match (member.own(&hands.settings), member.others(&hands.settings)) {
        (Ok(own), Ok(others)) => (own, others),
        (Err(error), _) | (_, Err(error)) => {
            warn!("{}", chain(&error));
            return std::future::pending().await;
        }
    };
    let ends = || hands.supervisor.restarts().get(&ServiceName::Etcd).copied();
    let (mut elsewhere, mut down, mut in_vain) = <(Lasts, Lasts, Lasts)>::default();
    let mut ended = ends();
    loop {
        wait::back_off(LOOK_EVERY).await;
        let (runs, leads, led) =
            tokio::join!(own.runs(WITHIN), own.led(WITHIN), others.led(WITHIN));
        if leads.is_ok() {
            *mended = false;
            if let Err(error) = member.note_voted(account) {
                warn!("{}", chain(&error));
            }
        }
        say(
            hands,
            member,
            runs.as_ref().err().map(|error| {
                format!("this node's vote is missing, its etcd does not answer: {}", chain(error))
            }),
        );
        let is_elsewhere = matches!((&runs, &led), (Ok(ours), Ok(theirs)) if ours != theirs);
        if elsewhere.has(is_elsewhere, ELSEWHERE_FOR) {
            return Why::Elsewhere;
        }
        // A slow one answers late; only one that ends again and again, or cannot be begun, is down.
        let has_ended = std::mem::replace(&mut ended, ends()) != ended;
        let is_alive = hands.supervisor.helpers().contains(&ServiceName::Etcd);
        let stays_down = runs.is_err() && (has_ended || !is_alive || down.0.is_some());
        if down.has(stays_down && led.is_ok(), IN_VAIN_FOR) && !*mended {
            *mended = true;
            return Why::DoesNotRun;
        }
        let is_unheard = member.vote().is_some_and(|vote| vote.is_unheard());
        let may = async || etcd::may_begin_again(&votes(hands, member).await);
        let waits = led.is_err() && leads.is_err() && is_unheard;
        if in_vain.has(waits, IN_VAIN_FOR) && may().await {
            return Why::InVain;
        }
    }
}

async fn start(hands: &Arc<Hands>, member: &Arc<Member>, account: &Account) {
    let (mut said, since) = (None, Instant::now());
    let beginning = loop {
        match begin(hands, member, account, since).await {
            Ok(beginning) => break beginning,
            Err(why) => {
                if said.as_ref() != Some(&why) {
                    warn!("{why}");
                    said = Some(why);
                }
                let is_late = since.elapsed() >= SPEAKS_WITHIN;
                say(hands, member, said.clone().filter(|_| is_late));
                wait::back_off(TRY_AGAIN_AFTER).await;
            }
        }
    };
    say(hands, member, None);
    info!("this node has a vote: starts etcd");
    let (program, as_whom) = (Arc::clone(member), account.clone());
    hands.supervisor.keep(ServiceName::Etcd, move || {
        program.program(&as_whom, &beginning).oom_score_adj(OOM_SCORE_ADJ)
    });
}

/// Tells the node, which tells the others.
fn say(hands: &Hands, member: &Member, trouble: Option<String>) {
    let now = Voting { vote: member.vote(), trouble };
    hands.voting.send_if_modified(|said| {
        *said != now && {
            *said = now;
            true
        }
    });
}

async fn begin(
    hands: &Hands,
    member: &Member,
    account: &Account,
    since: Instant,
) -> Result<Beginning, String> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    member
        .write_files(&hands.settings, &host.to_string_lossy(), account)
        .map_err(|error| chain(&error))?;
    let client = member.others(&hands.settings).map_err(|error| chain(&error))?;
    let patience = since.elapsed() < SPEAKS_WITHIN;
    let votes = votes(hands, member).await;
    let prepared = member.prepare(&client, &votes, patience, account, WITHIN).await;
    prepared.map_err(|error| chain(&error))
}

/// What the other voters say of theirs, and have shown that they may.
async fn votes(hands: &Hands, member: &Member) -> Votes {
    let voters = hands.settings.herd.voters.iter();
    let others: Vec<_> = voters
        .filter(|voter| voter.host != member.name)
        .map(|voter| (voter.clone(), false))
        .collect();
    let all =
        members::ask(&hands.settings, &others, &hands.address, &hands.instance, AsOf::Lately).await;
    let vote_of = |host: &str| {
        let one = all.iter().find(|one| one.address.host == host && one.proved)?;
        one.report()?.vote.clone()
    };
    others.iter().map(|(voter, _)| (voter.host.clone(), vote_of(&voter.host))).collect()
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
