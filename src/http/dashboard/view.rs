//! What the page's main part says, ready to be printed.

use super::picture::{self, Picture};
use super::plot::{self, Plot};
use super::words;
use crate::cluster::{BackupsState, Entry, NodeState};
use crate::control::{ClusterState, NodeRole, NodeStatus, Snapshot, bytes_in_words};
use askama::Template;
use std::time::Instant;

/// The main part.
#[derive(Template)]
#[template(path = "dashboard/main.html")]
pub(super) struct View {
    pub(super) cluster: String,
    /// Who answers.
    pub(super) node: String,
    state: String,
    face: Face,
    /// Who leads, in a sentence.
    leads: String,
    paused: bool,
    warnings: Vec<String>,
    picture: Picture,
    nodes: Vec<Row>,
    lease: Option<Lease>,
    epoch: Option<u64>,
    sync: Option<String>,
    failover: String,
    voters: Vec<Voter>,
    voters_silent: bool,
    plans: Vec<Plan>,
    backups: Option<Backups>,
    lags: Vec<Lag>,
    scale: String,
    plot_width: f64,
    plot_height: f64,
    events: Vec<Event>,
    /// Who could lead instead, separated by blanks. Empty where nobody can be asked to.
    standbys: String,
    version: &'static str,
}

/// A state, as a colour, a sign and a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Face {
    Well,
    Busy,
    Bad,
    Gone,
    /// No state: something that happened.
    Plain,
}

impl Face {
    /// Of its style.
    pub(super) fn class(self) -> &'static str {
        match self {
            Face::Well => "well",
            Face::Busy => "busy",
            Face::Bad => "bad",
            Face::Gone => "gone",
            Face::Plain => "plain",
        }
    }

    /// Its sign, within ten by ten.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Face::Plain => "M5 3.4a1.6 1.6 0 1 0 0 3.2a1.6 1.6 0 1 0 0-3.2z",
            Face::Well => "M5 1a4 4 0 1 0 0 8a4 4 0 1 0 0-8z",
            Face::Busy => {
                "M5 .8a4.2 4.2 0 1 0 0 8.4a4.2 4.2 0 1 0 0-8.4zM5 2.4v5.2a2.6 2.6 0 0 1 0-5.2z"
            }
            Face::Bad => "M5 .6L9.6 9H.4z",
            Face::Gone => {
                "M1 2.4L2.4 1 5 3.6 7.6 1 9 2.4 6.4 5 9 7.6 7.6 9 5 6.4 2.4 9 1 7.6 3.6 5z"
            }
        }
    }
}

/// What a node's state looks like.
pub(super) fn face(state: NodeState) -> Face {
    match state {
        NodeState::Running => Face::Well,
        NodeState::Starting
        | NodeState::Cloning
        | NodeState::CatchingUp
        | NodeState::Rewinding
        | NodeState::Restoring
        | NodeState::Promoting
        | NodeState::Demoting => Face::Busy,
        NodeState::Fenced | NodeState::Stopped => Face::Bad,
        NodeState::Unreachable => Face::Gone,
    }
}

/// What it is, or was when it was heard of last.
pub(super) fn role(node: &NodeStatus) -> String {
    match node.role {
        Some(role) if node.state == NodeState::Unreachable => format!("was {role}"),
        Some(role) => role.to_string(),
        None => "no role yet".to_owned(),
    }
}

struct Row {
    name: String,
    own: bool,
    leads: bool,
    role: String,
    state: String,
    face: Face,
    address: String,
    timeline: String,
    lsn: String,
    lag: String,
    lag_time: Option<String>,
    sync: bool,
    votes: bool,
    seen: String,
    stale: bool,
    services: String,
    maintenance: bool,
    waits_for: Option<String>,
}

struct Lease {
    left: String,
    length: String,
    /// Of a hundred.
    share: u32,
    over: bool,
    low: bool,
    /// The voters are silent, and all members with data let the holder go on.
    agreed: bool,
    holder: String,
}

struct Voter {
    name: String,
    state: String,
    face: Face,
}

struct Plan {
    node: String,
    title: String,
    stages: Vec<Stage>,
    bytes: Option<String>,
    /// Of a hundred.
    share: Option<u64>,
}

struct Stage {
    title: String,
    done: bool,
    now: bool,
}

struct Backups {
    count: usize,
    last: Option<String>,
    age: Option<String>,
    window: Option<String>,
    wal: Option<String>,
    failed: bool,
    none: bool,
    /// Where the newest one is in the window, of a hundred.
    newest_at: u64,
    copies: Option<Copies>,
}

/// Elsewhere.
struct Copies {
    url: String,
    last: Option<String>,
    age: Option<String>,
    waiting: usize,
    failed: bool,
}

struct Lag {
    name: String,
    now: String,
    plot: Plot,
    most: String,
}

struct Event {
    date: String,
    time: String,
    node: String,
    id: String,
    text: String,
    why: Option<String>,
    face: Face,
}

impl View {
    /// Of what is seen, as of now, and what happened: to this node, and to the others.
    pub(super) fn of(seen: &Snapshot, own: Vec<Entry>, events_max: usize) -> Self {
        let mut nodes: Vec<&NodeStatus> = seen.nodes.iter().collect();
        nodes.sort_by_key(|node| (node.id.is_none(), node.id, node.name.as_str()));
        let answers = seen.nodes.first().map(|own| own.name.clone()).unwrap_or_default();
        let with_data: Vec<&NodeStatus> =
            nodes.iter().copied().filter(|node| node.id.is_some()).collect();
        let scale = plot::scale(&seen.lags, with_data.iter().map(|node| node.name.as_str()));
        let (state, face) = cluster(seen.state);
        let sync: Vec<&str> =
            nodes.iter().filter(|node| node.sync).map(|node| node.name.as_str()).collect();
        View {
            cluster: seen.cluster.clone(),
            state: state.to_owned(),
            face,
            leads: seen.who_leads(),
            paused: seen.paused,
            warnings: warnings(seen),
            picture: picture::of(seen),
            nodes: nodes.iter().map(|node| row(seen, node, node.name == answers)).collect(),
            lease: lease(seen),
            epoch: seen.epoch,
            sync: (!sync.is_empty()).then(|| sync.join(", ")),
            failover: seen.failover.clone(),
            voters: seen.voters.iter().map(|host| voter(seen, host)).collect(),
            voters_silent: seen.voters_silent,
            plans: nodes.iter().filter_map(|node| plan(node)).collect(),
            backups: backups(seen),
            lags: with_data
                .iter()
                .filter(|node| seen.primary.as_ref() != Some(&node.name))
                .map(|node| lag(seen, node, scale))
                .collect(),
            scale: bytes_in_words(scale),
            plot_width: plot::WIDTH,
            plot_height: plot::HEIGHT,
            events: events(seen, own, events_max),
            standbys: standbys(seen),
            version: env!("CARGO_PKG_VERSION"),
            node: answers,
        }
    }
}

fn cluster(state: ClusterState) -> (&'static str, Face) {
    match state {
        ClusterState::Provisioning => ("provisioning", Face::Busy),
        ClusterState::Healthy => ("healthy", Face::Well),
        ClusterState::Degraded => ("degraded", Face::Busy),
        ClusterState::FailingOver => ("failing over", Face::Bad),
        ClusterState::Unhealthy => ("unhealthy", Face::Bad),
    }
}

/// Its own, and those of the others that are not the same, with the names of who gives them.
fn warnings(seen: &Snapshot) -> Vec<String> {
    let mut others: Vec<(&String, Vec<&str>)> = Vec::new();
    for node in seen.nodes.iter().skip(1) {
        for warning in node.warnings.iter().filter(|one| !seen.warnings.contains(*one)) {
            match others.iter_mut().find(|(known, _)| *known == warning) {
                Some((_, names)) => names.push(&node.name),
                None => others.push((warning, vec![&node.name])),
            }
        }
    }
    let others = others.iter().map(|(warning, names)| format!("{}: {warning}", names.join(", ")));
    seen.warnings.iter().cloned().chain(others).collect()
}

fn row(seen: &Snapshot, node: &NodeStatus, own: bool) -> Row {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    let has_data = node.id.is_some();
    let age = node.last_seen_seconds;
    Row {
        name: node.name.clone(),
        own,
        leads: seen.primary.as_ref() == Some(&node.name),
        role: role(node),
        state: node.state.to_string(),
        face: face(node.state),
        address: node.address.to_string(),
        timeline: or_dash(node.timeline.map(|timeline| timeline.to_string())),
        lsn: or_dash(node.lsn.map(|lsn| lsn.to_string())),
        lag: or_dash(node.lag_bytes.filter(|_| has_data).map(bytes_in_words)),
        lag_time: node.lag_seconds.filter(|lag| *lag >= 0.05).map(words::duration),
        sync: node.sync,
        votes: node.votes,
        seen: words::duration(age),
        stale: age > 10.0,
        services: node.services.join(", "),
        maintenance: node.maintenance,
        waits_for: node.waits_for.clone(),
    }
}

fn lease(seen: &Snapshot) -> Option<Lease> {
    let lease = seen.lease.as_ref()?;
    let share = (lease.seconds_left / lease.seconds.max(0.1) * 100.0).clamp(0.0, 100.0);
    let agreed = lease.seconds_left <= 0.0 && seen.voters_silent && seen.primary.is_some();
    Some(Lease {
        left: format!("{:.1} s", lease.seconds_left),
        length: format!("{} s", lease.seconds),
        share: share as u32,
        over: lease.seconds_left <= 0.0 && !agreed,
        low: share < 25.0,
        agreed,
        holder: seen.holder.clone().unwrap_or_default(),
    })
}

/// The node on that host; a vote alone has no row until it has said something.
fn voter(seen: &Snapshot, host: &str) -> Voter {
    let node = seen.nodes.iter().find(|node| node.address.host == host);
    let state = node.map_or(NodeState::Unreachable, |node| node.state);
    let answers = state != NodeState::Unreachable;
    Voter {
        name: node.map_or(host, |node| node.name.as_str()).to_owned(),
        state: if answers { "answers" } else { "silent" }.to_owned(),
        face: if answers { Face::Well } else { Face::Gone },
    }
}

fn plan(node: &NodeStatus) -> Option<Plan> {
    let running = node.scenario.as_ref()?;
    let titles = running.titles.iter().zip(1..);
    let stages = titles.map(|(title, number)| Stage {
        title: title.clone(),
        done: number < running.stage,
        now: number == running.stage,
    });
    let share = running.bytes_done.zip(running.bytes_total.filter(|total| *total > 0));
    Some(Plan {
        node: node.name.clone(),
        title: running.title.clone(),
        stages: stages.collect(),
        bytes: running.bytes(),
        share: share.map(|(done, total)| done.min(total) * 100 / total),
    })
}

fn backups(seen: &Snapshot) -> Option<Backups> {
    let backups = seen.backups.as_ref()?;
    let seconds = |seconds: u64| words::duration(seconds as f64);
    let (age, window) = (backups.age_seconds, backups.window_seconds);
    let at = window
        .filter(|window| *window > 0)
        .zip(age)
        .map(|(window, age)| 100 - (age.min(window) * 100 / window));
    Some(Backups {
        count: backups.count,
        last: backups.last.as_deref().map(words::backup_id),
        age: age.map(seconds),
        window: window.map(seconds),
        wal: backups.wal_age_seconds.map(seconds),
        copies: backups.copies.as_ref().map(|copies| Copies {
            url: copies.url.clone(),
            last: copies.last.as_deref().map(words::backup_id),
            age: copies.age_seconds.map(seconds),
            waiting: copies.wal_waiting,
            failed: copies.error.is_some(),
        }),
        failed: backups.state == BackupsState::Failed,
        none: backups.state == BackupsState::None,
        newest_at: at.unwrap_or_default(),
    })
}

fn lag(seen: &Snapshot, node: &NodeStatus, scale: u64) -> Lag {
    let plot = plot::of(&seen.lags, &node.name, scale, Instant::now());
    let is_there = node.state != NodeState::Unreachable;
    let now = node.lag_bytes.filter(|_| is_there);
    Lag {
        name: node.name.clone(),
        now: now.map_or_else(|| "not known".to_owned(), bytes_in_words),
        most: bytes_in_words(plot.most),
        plot,
    }
}

/// The last of all, the newest first.
fn events(seen: &Snapshot, own: Vec<Entry>, events_max: usize) -> Vec<Event> {
    let mut all = own;
    let name = seen.nodes.first().map(|node| node.name.as_str());
    all.extend(seen.elsewhere.iter().filter(|entry| Some(entry.node.as_str()) != name).cloned());
    all.sort_by(|a, b| b.at.cmp(&a.at));
    let shown = all.into_iter().take(events_max).map(|entry| {
        let (date, time) = words::clock(&entry.at);
        let face = face_of(&entry.id);
        let Entry { node, id, text, why, .. } = entry;
        Event { date, time, node, id, text, why, face }
    });
    shown.collect()
}

fn face_of(id: &str) -> Face {
    match id {
        "lead.lost" | "lead.fenced" | "scenario.failed" | "postgres.ended" => Face::Bad,
        "refused" | "lead.given-back" | "asked" => Face::Busy,
        "lead.taken" | "promoted" | "serves" | "scenario.ended" | "handed-over" => Face::Well,
        _ => Face::Plain,
    }
}

/// Where roles are changed by the record, and somebody leads to hand over.
fn standbys(seen: &Snapshot) -> String {
    if seen.epoch.is_none() || seen.primary.is_none() {
        return String::new();
    }
    let fits = |node: &&NodeStatus| {
        node.role == Some(NodeRole::Standby) && node.state == NodeState::Running
    };
    let names = seen.nodes.iter().filter(fits).map(|node| node.name.as_str());
    names.collect::<Vec<_>>().join(" ")
}
