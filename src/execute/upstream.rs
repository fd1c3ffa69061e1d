//! Whom a node follows: found among the members, and this node's own place among them.

use super::standby::{StandbyError, Taken};
use super::{Hands, StepError, Teller};
use crate::barman;
use crate::cluster::{Address, Answer, NodeId, Sighting, SystemId, Timeline};
use crate::members::{self, AsOf, Memory};
use crate::postgres;
use crate::postgres::peer::{As, Peer, PeerError, Record};
use crate::postgres::standby::Stream;
use crate::repmgr;
use crate::scenario::{Patience, Situation};
use crate::system::error::chain;
use crate::system::wait;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Who leads, and is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// repmgr's number of it.
    pub id: NodeId,
    /// What it is called.
    pub name: String,
    /// Where it is found.
    pub address: Address,
}

/// A primary that is known to lead is asked again soon; one that is awaited for hours is asked
/// every two seconds.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(100);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(2);
/// What [`Patience::Short`] is.
const SHORT: Duration = Duration::from_secs(10);
/// A name is one that was just connected to. If it takes longer, it is looked up again when it is needed.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(1);
/// A wait is told of again so often.
const REMIND_EVERY: Duration = Duration::from_secs(30);

impl Hands {
    /// This node's, of `upstream`.
    pub(super) async fn stream<'a>(&'a self, upstream: &'a Upstream, slot: &'a str) -> Stream<'a> {
        let at = only_address(&upstream.address).await;
        Stream { from: &upstream.address, at, slot, name: &self.settings.repmgr.node_name }
    }

    /// Who leads, as [`Hands::await_primary`] has found.
    pub(super) fn upstream(&self) -> Result<Upstream, StandbyError> {
        let found = self.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        found.clone().ok_or(StandbyError::NoUpstream)
    }

    pub(super) async fn await_primary(
        &self,
        patience: Patience,
        teller: &Teller,
    ) -> Result<(), StepError> {
        let Hands { settings, layout, .. } = self;
        let ours = self.own_data().await;
        let everybody = members::everybody(settings, &Memory::read(layout), &self.address);
        let began = Instant::now();
        let mut told = None;
        loop {
            // Where the record names it, nobody who is silent is waited for.
            let by_the_record = match self.leader_by_the_record() {
                Some(address) => vec![members::ask_only(settings, &address).await],
                None => Vec::new(),
            };
            let leads = |one: &Sighting| one.report().is_some_and(|one| one.leads_on().is_some());
            let sightings = if by_the_record.iter().any(leads) {
                by_the_record
            } else {
                members::ask(settings, &everybody, &self.address, &self.instance, AsOf::Now).await
            };
            let why_not = match self.usable_primary(&sightings, ours).await {
                Ok(found) => {
                    info!("{} at {} leads", found.name, found.address);
                    // Who has backups may be known to the others only.
                    let known = everybody.iter().map(|(address, _)| address);
                    let known = known.chain(sightings.iter().map(|one| &one.address));
                    barman::write_sources(settings, layout, &self.address, known, &self.postgres)?;
                    let mut upstream = self.upstream.lock().unwrap_or_else(PoisonError::into_inner);
                    *upstream = Some(found);
                    return Ok(());
                }
                Err(why_not) => why_not,
            };
            let waited = began.elapsed();
            if patience == Patience::Short && waited > SHORT {
                return Err(StandbyError::NobodyLeads.into());
            }
            let due = told.as_ref().is_none_or(|(said, at): &(String, Instant)| {
                *said != why_not || at.elapsed() > REMIND_EVERY
            });
            if due {
                info!("waits for a master, {} s so far: {why_not}", waited.as_secs());
                teller.tell(|progress| progress.waits_for = Some(why_not.clone()));
                told = Some((why_not, Instant::now()));
            }
            wait::back_off((waited / 10).clamp(PAUSE_MIN, PAUSE_MAX)).await;
        }
    }

    /// Whom the cluster's record names, unless that is this node.
    fn leader_by_the_record(&self) -> Option<Address> {
        let record = self.keeper.as_ref()?.now().record?;
        let leads = record.promoting.is_none() && record.released.is_none();
        (leads && record.holder != self.settings.repmgr.node_name).then_some(record.address)
    }

    /// Who leads, if it takes our roles' connections; or why nobody does, in one line.
    async fn usable_primary(
        &self,
        sightings: &[Sighting],
        ours: Option<(SystemId, Timeline)>,
    ) -> Result<Upstream, String> {
        let leader = Situation::leader_among(sightings).map_err(|two| two.to_string())?;
        let Some((timeline, report)) = leader else {
            return Err(what_they_say(sightings));
        };
        let address = &report.address;
        if let Some((system, newest)) = ours {
            if let Some(theirs) = report.system.filter(|theirs| *theirs != system) {
                return Err(format!(
                    "{address} leads another cluster (system identifier {theirs}, not {system})"
                ));
            }
            // It was replaced, and does not know it yet: what it has not is not to be taken back.
            // Where a record is kept, that one is right, and what this node has beyond it is nobody's.
            if timeline < newest && self.leader_by_the_record().as_ref() != Some(address) {
                return Err(format!(
                    "{address} leads on timeline {timeline}, and this node has newer data \
                     (timeline {newest})"
                ));
            }
        }
        let reason = |error: PeerError| chain(&error);
        let peer = Peer::open(&self.settings, address, As::Repmgr).await.map_err(reason)?;
        let records = peer.records().await.map_err(reason)?;
        Peer::open(&self.settings, address, As::Streaming).await.map_err(reason)?;
        let is_it = |record: &&Record| record.kind == "primary" && record.active;
        let record = records.iter().find(|one| Some(one.id) == report.id);
        let record = record.or_else(|| records.iter().find(is_it));
        let record = record.ok_or(StandbyError::NotInRecords(address.clone()));
        let record = record.map_err(|error| error.to_string())?;
        Ok(Upstream { id: record.id, name: record.name.clone(), address: address.clone() })
    }

    /// Which cluster is on our disk, and how new, if there is one that can be read.
    async fn own_data(&self) -> Option<(SystemId, Timeline)> {
        let Hands { layout, postgres: account, .. } = self;
        if !layout.pgdata.join("PG_VERSION").exists() {
            return None;
        }
        let control = postgres::control_data(&layout.bin_dir, &layout.pgdata, account).await;
        control.ok().map(|control| (control.system, control.timeline))
    }

    pub(super) async fn peer(&self, account: As) -> Result<Peer, StepError> {
        Ok(Peer::open(&self.settings, &self.upstream()?.address, account).await?)
    }

    /// The row that claims it is written before anything else is: of two nodes that claim the
    /// same at the same time, the second finds the first one's.
    pub(super) async fn claim_identity(&self) -> Result<(), StepError> {
        let peer = self.peer(As::Repmgr).await?;
        let wanted = self.id.get().copied();
        let name = &self.settings.repmgr.node_name;
        let mut records = peer.records().await?;
        let mut id = claimed(&records, name, wanted, &self.address)?;
        if let Some(record) = records.iter().find(|record| record.id == id)
            && record.address.as_ref().is_some_and(|theirs| *theirs != self.address)
        {
            self.refuse_if_it_lives(record).await?;
            let before = record.address.as_ref().map(ToString::to_string).unwrap_or_default();
            warn!("{name} was at {before}, where nobody answers to its name; it is here now");
        }
        for _ in 0..CLAIMED_AT_ONCE_MAX {
            let identity = repmgr::Identity { id, ..self.identity() };
            let claim =
                repmgr::claim_sql(&self.settings, &self.layout, &identity, self.upstream()?.id);
            peer.run("claim a node id", &claim).await?;
            // Whoever was first is in there. One that is given its id gets the next one then.
            records = peer.records().await?;
            id = claimed(&records, name, wanted, &self.address)?;
            if records.iter().any(|record| record.name == *name) {
                break;
            }
        }
        let id = claimed(&records, name, Some(id), &self.address)?;
        let _ = self.id.set(id); // Set already: to the same.
        info!("this node is {name}, id {id}");
        Ok(())
    }

    /// The same name and id at another address is this node in a new place, unless there is
    /// somebody.
    async fn refuse_if_it_lives(&self, record: &Record) -> Result<(), StandbyError> {
        let Some(theirs) = record.address.clone() else { return Ok(()) };
        let asked = [(theirs.clone(), true)];
        let sightings =
            members::ask(&self.settings, &asked, &self.address, &self.instance, AsOf::Now).await;
        let lives = sightings.iter().any(|one| match &one.answer {
            Answer::Report(report) => report.name == record.name,
            Answer::Refuses(_) | Answer::Silent => false,
        });
        if !lives {
            return Ok(());
        }
        Err(StandbyError::Taken(Box::new(Taken {
            what: "the name and the id",
            name: record.name.clone(),
            id: record.id,
            ours: self.address.clone(),
            their_name: record.name.clone(),
            their_id: record.id,
            theirs,
        })))
    }
}

/// As many nodes as anybody starts at the same time.
const CLAIMED_AT_ONCE_MAX: usize = 16;

/// What the members say, where nobody leads: one line.
fn what_they_say(sightings: &[Sighting]) -> String {
    if sightings.is_empty() {
        return "no other member is known: name the master with REPMGR_MASTER_HOST".to_owned();
    }
    let words = sightings.iter().map(|one| match &one.answer {
        Answer::Report(report) => format!("{} {}", one.address, report.standing),
        Answer::Refuses(reason) => format!("{} refuses us ({reason})", one.address),
        Answer::Silent => format!("{} does not answer", one.address),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The id that this node has, or gets, by the cluster's records. Pure.
fn claimed(
    records: &[Record],
    name: &str,
    wanted: Option<NodeId>,
    ours: &Address,
) -> Result<NodeId, StandbyError> {
    let taken = |what, record: &Record, id| {
        StandbyError::Taken(Box::new(Taken {
            what,
            name: name.to_owned(),
            id,
            ours: ours.clone(),
            their_name: record.name.clone(),
            their_id: record.id,
            theirs: record.address.clone().unwrap_or_else(|| ours.clone()),
        }))
    };
    let by_name = records.iter().find(|record| record.name == name);
    match (by_name, wanted) {
        (Some(record), Some(wanted)) if record.id != wanted => {
            Err(taken("the name", record, wanted))
        }
        (Some(record), _) => Ok(record.id),
        (None, Some(wanted)) => match records.iter().find(|record| record.id == wanted) {
            Some(record) => Err(taken("the id", record, wanted)),
            None => Ok(wanted),
        },
        (None, None) => Ok(records
            .iter()
            .map(|record| record.id)
            .max()
            .and_then(NodeId::next)
            .unwrap_or(NodeId::FIRST)),
    }
}

/// Of a name, where it is one and the same host's: nobody knows which of several to keep to.
async fn only_address(address: &Address) -> Option<IpAddr> {
    let looked_up = tokio::net::lookup_host((address.host.as_str(), address.port));
    let found = tokio::time::timeout(LOOKED_UP_WITHIN, looked_up).await.ok()?.ok()?;
    let found: BTreeSet<IpAddr> = found.map(|at| at.ip()).collect();
    let is_name = address.host.parse::<IpAddr>().is_err();
    (is_name && found.len() == 1).then(|| found.first().copied()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u32, name: &str) -> Record {
        Record {
            id: id.to_string().parse().unwrap(),
            name: name.to_owned(),
            address: Some(name.parse().unwrap()),
            kind: "standby".to_owned(),
            active: true,
            upstream: None,
            priority: 100,
            location: "default".to_owned(),
        }
    }

    #[test]
    fn a_name_and_an_id_belong_to_one_node() {
        let records = [record(1, "node1"), record(7, "db")];
        let claim = |name: &str, wanted: Option<u32>| {
            let wanted = wanted.map(|id| id.to_string().parse().unwrap());
            claimed(&records, name, wanted, &"here".parse().unwrap())
                .map(NodeId::get)
                .map_err(|taken| taken.to_string())
        };
        assert_eq!(claim("node2", Some(2)), Ok(2));
        assert_eq!(claim("web", None), Ok(8), "the next one");
        assert_eq!(claim("db", None), Ok(7), "it was here before");
        assert_eq!(claim("db", Some(7)), Ok(7));
        for (name, wanted) in [("node1", 3), ("other", 7)] {
            let said = claim(name, Some(wanted)).unwrap_err();
            let theirs = if name == "node1" { "node1:5432" } else { "db:5432" };
            assert!(said.contains("here:5432") && said.contains(theirs), "{said}");
        }
    }
}
