//! The other nodes of the cluster: who they are, and what they say when they are asked.

use crate::cluster::{
    Address, Answer, GivenUp, NodeId, NodeState, Report, Sighting, Standing, Timeline,
};
use crate::layout::Layout;
use crate::postgres::peer::{As, Peer, PeerError};
use crate::settings::{self, Settings};
use crate::system::account::Account;
use crate::system::download::{self, Said};
use crate::system::error::chain;
use crate::system::files::{FileError, ensure_file, failed};
use crate::system::nonce::nonce;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::Duration;

/// A node answers from memory; on another machine, over a network that has lost a packet or two.
const REPORT_AT_MOST: Duration = Duration::from_secs(2);

/// What a node keeps on its disk about the others, for the time when it starts and they may not
/// answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The newest timeline that it has heard of.
    pub newest: Option<Timeline>,
    /// A person has said that whoever has these is gone.
    #[serde(default)]
    pub given_up: Option<GivenUp>,
    /// Who has been a member and was not taken out, but for the node itself.
    pub members: BTreeSet<Member>,
}

/// A member as the others know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Where its Postgres is found, or would be.
    pub address: Address,
    /// `REPMGR_NODE_NAME`.
    pub name: String,
    /// repmgr's number, of a node with data.
    pub id: Option<NodeId>,
}

impl Memory {
    /// What was kept last. Nothing, where nothing was kept yet.
    pub fn read_or_refuse(layout: &Layout) -> Result<Self, FileError> {
        let path = layout.members();
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read.map_err(failed("read", &path))?,
        };
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        serde_json::from_slice(&text).map_err(invalid).map_err(failed("make sense of", &path))
    }

    /// The same of a file that could be read when this node started.
    pub fn read(layout: &Layout) -> Self {
        Self::read_or_refuse(layout).unwrap_or_default()
    }

    /// Where the members are.
    pub fn addresses(&self) -> Vec<Address> {
        self.members.iter().map(|member| member.address.clone()).collect()
    }

    /// Afterwards it is on the disk. Costs nothing if it is already.
    pub fn write(&self, layout: &Layout, account: &Account) -> Result<(), FileError> {
        let text = serde_json::to_string_pretty(self).expect("its keys are texts");
        ensure_file(&layout.members(), text + "\n", 0o600, account).map(drop)
    }
}

/// Everybody who is configured or remembered, once, without this node itself: its address, and
/// whether it is known to have been a member.
pub fn everybody(
    settings: &Settings,
    memory: &Memory,
    ourselves: &Address,
) -> Vec<(Address, bool)> {
    let remembered = memory.members.iter().map(|member| (member.address.clone(), true));
    let repmgr = &settings.repmgr;
    let configured = repmgr.master_host.iter().chain(&repmgr.slaves).chain(&settings.herd.voters);
    let mut all: Vec<(Address, bool)> = Vec::new();
    for (address, known) in remembered.chain(configured.map(|address| (address.clone(), false))) {
        if address != *ourselves && !all.iter().any(|(seen, _)| *seen == address) {
            all.push((address, known));
        }
    }
    all
}

/// So many times those are asked that others name: a cluster is found through any of its members.
const ROUNDS_MAX: usize = 3;

/// How old an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// As the node looked at itself last, a few seconds ago.
    Lately,
    /// No older than the question: what follows is not safe otherwise.
    Now,
}

/// Asks everybody at the same time, and then whomever they name. Takes as long as the slowest
/// answers; a silent one is waited for a few seconds. `instance` is this node's own, by which it
/// recognises itself under another name.
pub async fn ask(
    settings: &Settings,
    everybody: &[(Address, bool)],
    ourselves: &Address,
    instance: &str,
    as_of: AsOf,
) -> Vec<Sighting> {
    let mut sightings: Vec<Sighting> = Vec::new();
    let mut next = everybody.to_vec();
    for _ in 0..ROUNDS_MAX {
        let asked = next.iter().map(async |(address, known)| {
            let (answer, proved) = ask_one(settings, address, as_of).await;
            Sighting { address: address.clone(), known: *known, proved, answer }
        });
        sightings.extend(join_all(asked).await);
        let named = sightings.iter().filter_map(Sighting::report).flat_map(|one| &one.members);
        let is_new = |named: &&Address| {
            *named != ourselves && !sightings.iter().any(|one| one.address == **named)
        };
        // Named by another is not known: it counts for what it says, not for its silence.
        next = named.filter(is_new).map(|named| (named.clone(), false)).collect();
        next.sort();
        next.dedup();
        if next.is_empty() {
            break;
        }
    }
    let is_other = |one: &Sighting| one.report().is_none_or(|report| report.instance != instance);
    sightings.retain(is_other);
    // Under two addresses it is still one node.
    let mut seen = BTreeSet::new();
    sightings.retain(|one| {
        one.report()
            .is_none_or(|report| report.instance.is_empty() || seen.insert(report.instance.clone()))
    });
    sightings
}

/// Asks this one, and nobody that it names.
pub async fn ask_only(settings: &Settings, address: &Address) -> Sighting {
    let (answer, proved) = ask_one(settings, address, AsOf::Now).await;
    Sighting { address: address.clone(), known: true, proved, answer }
}

/// What a member that shows the control token says of itself as of now, if its pgherd says so within
/// `at_most`.
pub async fn ask_soon(settings: &Settings, address: &Address, at_most: Duration) -> Option<Report> {
    let nonce = nonce();
    let path = format!("/member?now&nonce={nonce}");
    let said =
        download::ask_soon("GET", door(settings, address), &path, None, at_most).await.ok()?;
    let right = settings::proof(&settings.herd.control_token, &nonce, &said.text);
    if said.code != 200 || said.proof != Some(right) {
        return None;
    }
    serde_json::from_str(&said.text).ok()
}

/// A member that is remembered under an address where nobody answers has answered under another.
pub fn find_again(memory: &Memory, sightings: &mut Vec<Sighting>) {
    for member in &memory.members {
        let is_it = |one: &Sighting| {
            one.report().is_some_and(|report| {
                report.name == member.name && (member.id.is_none() || report.id == member.id)
            })
        };
        let answered = sightings.iter().any(|one| is_it(one) && one.address != member.address);
        if answered {
            sightings.retain(|one| one.address != member.address || one.report().is_some());
            sightings.iter_mut().filter(|one| is_it(one)).for_each(|one| one.known = true);
        }
    }
}

/// Its pgherd knows best; where that cannot be reached, its Postgres, if it serves. With whether it has
/// shown that it is a member: by the control token, or as a server that knows our role's password.
async fn ask_one(settings: &Settings, address: &Address, as_of: AsOf) -> (Answer, bool) {
    let nonce = nonce();
    let path = match as_of {
        AsOf::Lately => format!("/member?nonce={nonce}"),
        AsOf::Now => format!("/member?now&nonce={nonce}"),
    };
    let node = door(settings, address);
    let asked = download::ask_soon("GET", node, &path, None, REPORT_AT_MOST).await;
    if let Ok(Said { code: 200, text, proof }) = asked
        && let Ok(report) = serde_json::from_str::<Report>(&text)
        // Where several nodes share a host and its network, this is another's pgherd.
        && report.address.port == address.port
    {
        let right = settings::proof(&settings.herd.control_token, &nonce, &text);
        return (Answer::Report(Box::new(report)), proof == Some(right));
    }
    match ask_its_postgres(settings, address).await {
        Ok(report) => (Answer::Report(Box::new(report)), true),
        Err(error @ PeerError::Refuses { .. }) => (Answer::Refuses(chain(&error)), false),
        Err(_) => (Answer::Silent, false),
    }
}

/// Where the pgherd of the node answers whose Postgres is at `address`.
pub fn door<'a>(settings: &'a Settings, address: &'a Address) -> download::Node<'a> {
    download::Node {
        host: &address.host,
        port: settings.herd.http_port,
        tls: settings.herd.tls_files(),
    }
}

/// What its server says, over a connection with repmgr's password.
pub async fn ask_its_postgres(settings: &Settings, address: &Address) -> Result<Report, PeerError> {
    let peer = Peer::open(settings, address, As::Repmgr).await?;
    let serving = peer.serving().await?;
    Ok(Report {
        cluster: settings.herd.cluster.clone(), // It does not say; its system identifier does.
        name: serving.name,
        id: None,
        address: address.clone(),
        system: Some(serving.system),
        standing: Standing::Serving {
            role: serving.role,
            timeline: serving.timeline,
            lsn: serving.lsn,
        },
        state: NodeState::Running,
        newest: None,
        given_up: None,
        members: Vec::new(),
        instance: String::new(),
        witness: false,
        vote: None,
        voters: Vec::new(),
        backups: None,
        shown: Default::default(),
    })
}
