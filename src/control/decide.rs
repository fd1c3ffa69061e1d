//! What a running node does about what it sees. Pure: no clock, no I/O.
//!
//! A table of rules, the most dangerous situation first; the first that applies wins. The name of
//! the rule that fired stands in the log.

use crate::cluster::{Address, Lsn, NodeId, Report, Role, Sighting, Standing, SystemId, Timeline};
use crate::scenario::{Scenario, Situation};
use std::cmp::Reverse;
use std::time::Duration;

/// Everything [`decide`] may look at.
#[derive(Clone, Debug)]
pub(super) struct Observation<'a> {
    /// This node's Postgres, which serves.
    pub local: Local,
    /// What the last plan made of it.
    pub made: Role,
    /// The other members.
    pub sightings: &'a [Sighting],
    /// This standby streamed from a primary, and since that broke off has seen none, for so long.
    pub left_alone_for: Option<Duration>,
    /// With `PGHERD_FAILOVER=eager`, after how long nobody else is waited for.
    pub eager_after: Option<Duration>,
}

/// This node's Postgres, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Local {
    /// What it is just now.
    pub role: Role,
    /// repmgr's number.
    pub id: Option<NodeId>,
    /// Its branch of history.
    pub timeline: Timeline,
    /// Replayed, or written, up to here.
    pub lsn: Lsn,
    /// Which cluster it is a copy of.
    pub system: SystemId,
    /// Whom it streams from, if it does.
    pub streams_from: Option<Address>,
    /// It has replayed all that it can get, and gets no more.
    pub waits_for_wal: bool,
    /// repmgr's records have it as a standby of this node, at its present address.
    pub recorded_under: Option<NodeId>,
    /// repmgr's records have it as an active primary, at its present address.
    pub recorded_as_primary: bool,
    /// repmgrd is kept running.
    pub watched: bool,
    /// What its data directory replaced is still there, or that was not seen to catch up.
    pub replaces: bool,
    /// The cluster's record says that this node leads: whoever claims a newer history has it by hand.
    pub leads_by_the_record: bool,
}

/// One named reason to carry out a scenario.
#[derive(Debug)]
pub(super) struct Rule {
    /// Shown in the log whenever the rule fires.
    pub name: &'static str,
    when: fn(&Observation<'_>) -> Option<Scenario>,
}

/// Tried in order.
pub(super) const RULES: [Rule; 4] = [
    Rule {
        name: "a primary with newer history answers: take no more writes and join it",
        when: superseded,
    },
    Rule {
        name: "this node takes writes, and not all is as it is for a primary: see to that",
        when: promoted,
    },
    Rule {
        name: "a node leads that this one does not follow in all things yet: follow it",
        when: unsettled,
    },
    Rule {
        name: "the primary is silent, and PGHERD_FAILOVER is eager: lead, though it may only be cut off",
        when: left_alone,
    },
];

/// The first rule that applies, and the scenario it asks for. `None`: all is well, or nothing can
/// be done about it.
pub(super) fn decide(seen: &Observation<'_>) -> Option<(&'static Rule, Scenario)> {
    RULES.iter().find_map(|rule| Some((rule, (rule.when)(seen)?)))
}

/// Who leads this cluster, on which timeline.
fn leader(seen: &Observation<'_>) -> Option<(Timeline, Report)> {
    let ours: Vec<Sighting> =
        seen.sightings.iter().filter(|one| is_ours(seen, one)).cloned().collect();
    let (timeline, report) = Situation::leader_among(&ours).ok()??;
    Some((timeline, report.clone()))
}

/// Another cluster's primary is nobody to us, whatever name it goes by.
fn is_ours(seen: &Observation<'_>, sighting: &Sighting) -> bool {
    sighting.report().is_some_and(|report| report.system == Some(seen.local.system))
}

/// By one or by several: whoever it is that is joined then, this one stops. Only a member can bring
/// that about.
fn superseded(seen: &Observation<'_>) -> Option<Scenario> {
    let newer = |one: &&Sighting| {
        let leads_on = one.report().and_then(Report::leads_on);
        one.proved && is_ours(seen, one) && leads_on > Some(seen.local.timeline)
    };
    let may_be = seen.local.role == Role::Primary && !seen.local.leads_by_the_record;
    let is = may_be && seen.sightings.iter().any(|one| newer(&one));
    is.then_some(Scenario::Rejoin { as_standby: false })
}

/// The records may be owed, too: repmgr refuses them while the one before still runs.
fn promoted(seen: &Observation<'_>) -> Option<Scenario> {
    let owes = seen.made == Role::Standby || !seen.local.recorded_as_primary;
    let is = seen.local.role == Role::Primary && owes;
    is.then_some(Scenario::Promoted)
}

fn unsettled(seen: &Observation<'_>) -> Option<Scenario> {
    let Local { role: Role::Standby, timeline: ours, streams_from, recorded_under, .. } =
        &seen.local
    else {
        return None;
    };
    let (timeline, report) = leader(seen)?;
    // One that leads on an older branch was replaced, and does not know it yet.
    let is_older = timeline < *ours;
    // Whoever has much to replay begins to stream afterwards.
    let streams = match streams_from {
        Some(from) => *from == report.address,
        None => !seen.local.waits_for_wal,
    };
    let settled = streams
        && (report.id.is_none() || *recorded_under == report.id)
        && seen.local.watched
        && !seen.local.replaces;
    let replaces = seen.local.replaces;
    (!is_older && !settled).then_some(Scenario::Follow { replaces })
}

/// Nobody is asked, because there is nobody to ask: where the cable is cut, two lead until it heals
/// ([`superseded`] then). What else can be known is: whoever is about to lead again answers, and of
/// several that were left alone the one with most goes first.
fn left_alone(seen: &Observation<'_>) -> Option<Scenario> {
    let after = seen.eager_after?;
    let is_long = seen.left_alone_for.is_some_and(|alone| alone >= after);
    if seen.local.role != Role::Standby || seen.made != Role::Standby || !is_long {
        return None;
    }
    let gives_way = seen.sightings.iter().filter(|one| is_ours(seen, one)).any(|one| {
        let Some(report) = one.report() else { return false };
        match report.standing {
            Standing::Serving { role: Role::Standby, timeline, lsn } => {
                let rank = |timeline, lsn, id: Option<NodeId>| (timeline, lsn, Reverse(id));
                let ours = rank(seen.local.timeline, seen.local.lsn, seen.local.id);
                rank(timeline, lsn, report.id) > ours
            }
            Standing::Serving { role: Role::Primary, .. }
            | Standing::AtRest { role: Role::Primary, .. } => true,
            Standing::AtRest { role: Role::Standby, .. }
            | Standing::Empty { .. }
            | Standing::Preparing { .. }
            | Standing::NoData => false,
        }
    });
    (!gives_way).then_some(Scenario::TakeOver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Answer, NodeState};
    use proptest::prelude::*;

    const OURS: SystemId = SystemId(1);
    const FOLLOW: Scenario = Scenario::Follow { replaces: false };

    fn serving(host: &str, role: Role, timeline: u32, system: SystemId) -> Sighting {
        let report = Report {
            cluster: "pgherd".to_owned(),
            name: host.to_owned(),
            id: Some(NodeId::FIRST),
            address: host.parse().unwrap(),
            system: Some(system),
            standing: Standing::Serving { role, timeline: Timeline(timeline), lsn: Lsn(1) },
            state: NodeState::Running,
            newest: None,
            given_up: None,
            members: Vec::new(),
            instance: host.to_owned(),
            witness: false,
            vote: None,
            voters: Vec::new(),
            backups: None,
            shown: Default::default(),
        };
        let answer = Answer::Report(Box::new(report));
        Sighting { address: host.parse().unwrap(), known: true, proved: true, answer }
    }

    fn local(role: Role, timeline: u32, streams_from: Option<&str>) -> Local {
        Local {
            role,
            id: Some(NodeId::FIRST),
            timeline: Timeline(timeline),
            lsn: Lsn(1),
            system: OURS,
            streams_from: streams_from.map(|host| host.parse().unwrap()),
            waits_for_wal: true,
            recorded_under: streams_from.map(|_| NodeId::FIRST),
            recorded_as_primary: role == Role::Primary,
            watched: true,
            replaces: false,
            leads_by_the_record: false,
        }
    }

    fn decided(local: Local, made: Role, sightings: &[Sighting]) -> Option<Scenario> {
        let (left_alone_for, eager_after) = (None, None);
        let seen = Observation { local, made, sightings, left_alone_for, eager_after };
        decide(&seen).map(|(_, scenario)| scenario)
    }

    #[test]
    fn eagerly_who_is_left_alone_leads_and_never_beside_one_that_answers() {
        let alone = |sightings: &[Sighting], seconds, eager: bool| {
            let seen = Observation {
                local: local(Role::Standby, 1, None),
                made: Role::Standby,
                sightings,
                left_alone_for: Some(Duration::from_secs(seconds)),
                eager_after: eager.then_some(Duration::from_secs(4)),
            };
            decide(&seen).map(|(_, scenario)| scenario)
        };
        let silent = |host: &str| Sighting {
            answer: Answer::Silent,
            ..serving(host, Role::Primary, 1, OURS)
        };
        let at_rest = |role| {
            let mut one = serving("old", role, 1, OURS);
            let Answer::Report(report) = &mut one.answer else { return one };
            report.standing = Standing::AtRest { role, timeline: Timeline(1), lsn: Lsn(1) };
            one
        };
        let ahead = |lsn, number| {
            let mut one = serving("other", Role::Standby, 1, OURS);
            let Answer::Report(report) = &mut one.answer else { return one };
            report.standing =
                Standing::Serving { role: Role::Standby, timeline: Timeline(1), lsn: Lsn(lsn) };
            report.id = NodeId::try_from(number).ok();
            one
        };
        let takes_over = Some(Scenario::TakeOver);
        assert_eq!(alone(&[silent("old")], 4, true), takes_over);
        assert_eq!(alone(&[silent("old")], 3, true), None, "it may come back");
        assert_eq!(alone(&[silent("old")], 4, false), None, "nobody asked for that");
        assert_eq!(alone(&[at_rest(Role::Primary)], 4, true), None, "it is about to lead again");
        assert_eq!(alone(&[silent("old"), ahead(2, 2)], 4, true), None, "another has more");
        assert_eq!(alone(&[silent("old"), ahead(1, 2)], 4, true), takes_over, "the lower id");
    }

    #[test]
    fn a_standby_follows_whoever_leads_now() {
        let both = [serving("old", Role::Primary, 1, OURS), serving("new", Role::Primary, 2, OURS)];
        let standby = |from| local(Role::Standby, 1, from);
        assert_eq!(decided(standby(Some("old")), Role::Standby, &both[..1]), None);
        assert_eq!(decided(standby(Some("old")), Role::Standby, &both), Some(FOLLOW));
        assert_eq!(decided(standby(Some("new")), Role::Standby, &both), None);
        assert_eq!(decided(standby(None), Role::Standby, &both[..1]), Some(FOLLOW));
        assert_eq!(decided(standby(None), Role::Standby, &[]), None);
        let ahead = local(Role::Standby, 2, None);
        assert_eq!(decided(ahead, Role::Standby, &both[..1]), None, "not back in history");
        let restarted = Local { watched: false, ..standby(Some("old")) };
        assert_eq!(decided(restarted, Role::Standby, &both[..1]), Some(FOLLOW));
        let replaced = Local { replaces: true, ..standby(Some("old")) };
        let expected = Some(Scenario::Follow { replaces: true });
        assert_eq!(decided(replaced, Role::Standby, &both[..1]), expected);
        let busy =
            Local { waits_for_wal: false, recorded_under: Some(NodeId::FIRST), ..standby(None) };
        assert_eq!(decided(busy, Role::Standby, &both[..1]), None, "it replays what it has");
    }

    #[test]
    fn who_leads_by_the_record_gives_way_to_nobody_who_was_promoted_by_hand() {
        let by_hand = [serving("other", Role::Primary, 2, OURS)];
        let primary = local(Role::Primary, 1, None);
        let gives_way = Some(Scenario::Rejoin { as_standby: false });
        assert_eq!(decided(primary.clone(), Role::Primary, &by_hand), gives_way);
        let lawful = Local { leads_by_the_record: true, ..primary };
        assert_eq!(decided(lawful, Role::Primary, &by_hand), None);
    }

    #[test]
    fn a_standby_that_somebody_promoted_becomes_the_primary_in_all_things() {
        let promoted = local(Role::Primary, 2, None);
        assert_eq!(decided(promoted.clone(), Role::Standby, &[]), Some(Scenario::Promoted));
        assert_eq!(decided(promoted.clone(), Role::Primary, &[]), None);
        let owed = Local { recorded_as_primary: false, ..promoted };
        assert_eq!(decided(owed, Role::Primary, &[]), Some(Scenario::Promoted));
    }

    proptest! {
        #[test]
        fn a_primary_gives_way_to_newer_history_of_its_own_cluster_and_to_nothing_else(
            ours in 1..4_u32, theirs in 1..4_u32, is_ours: bool, leads: bool,
        ) {
            let role = if leads { Role::Primary } else { Role::Standby };
            let system = if is_ours { OURS } else { SystemId(2) };
            let seen = [serving("other", role, theirs, system)];
            let said = decided(local(Role::Primary, ours, None), Role::Primary, &seen);
            let gives_way = leads && is_ours && theirs > ours;
            prop_assert_eq!(said.is_some(), gives_way);
        }
    }
}
