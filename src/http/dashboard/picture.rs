//! Who follows whom, as a picture: the primary above, those that stream from it below, those that
//! stream from these below them, and who has no data at the bottom. As wide as a phone; larger screens
//! show it larger.

use super::view::{Face, face, role};
use crate::cluster::NodeState;
use crate::control::{NodeRole, NodeStatus, Snapshot};

const WIDTH: i32 = 360;
const BOX_WIDTH: i32 = 112;
const BOX_HEIGHT: i32 = 54;
const PER_ROW: usize = 3;
const ROW_HEIGHT: i32 = 100;
/// Half of a line's thickness, and then some.
const MARGIN: i32 = 2;
/// Of a name in a box.
const NAME_CHARS_MAX: usize = 14;
/// Whoever streams from itself, by its records, must not hold us up.
const DEPTH_MAX: usize = 8;

/// The picture.
pub(super) struct Picture {
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) boxes: Vec<Node>,
    pub(super) lines: Vec<Line>,
    /// The same in words.
    pub(super) words: String,
}

/// A node.
pub(super) struct Node {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) width: i32,
    pub(super) height: i32,
    /// The middle.
    pub(super) center: i32,
    pub(super) name: String,
    pub(super) role: String,
    pub(super) face: Face,
    pub(super) leads: bool,
    pub(super) votes: bool,
}

/// From whoever sends WAL down to whoever gets it.
pub(super) struct Line {
    pub(super) path: String,
    /// Where the arrow ends.
    pub(super) x: i32,
    pub(super) y: i32,
    /// Each acknowledged write is there, too.
    pub(super) sync: bool,
    pub(super) label_x: i32,
    pub(super) label_y: i32,
}

/// Of the cluster as it is seen.
pub(super) fn of(seen: &Snapshot) -> Picture {
    let rows = rows(seen);
    let height = (rows.len() as i32 - 1).max(0) * ROW_HEIGHT + BOX_HEIGHT + 2 * MARGIN;
    let mut boxes: Vec<(&NodeStatus, Node)> = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, node) in row.iter().enumerate() {
            let share = WIDTH / row.len() as i32;
            let center = share * column as i32 + share / 2;
            let place = (center, MARGIN + number as i32 * ROW_HEIGHT);
            boxes.push((node, at(seen, node, place)));
        }
    }
    let mut lines = Vec::new();
    let mut words = Vec::new();
    for (node, place) in &boxes {
        words.push(sentence(seen, node));
        let upstream = upstream(seen, node);
        let from = boxes.iter().find(|(other, _)| Some(other.name.as_str()) == upstream);
        if let Some((_, from)) = from {
            lines.push(line(from, place, node.sync && from.leads));
        }
    }
    let boxes = boxes.into_iter().map(|(_, node)| node).collect();
    Picture { width: WIDTH, height, boxes, lines, words: words.join("; ") }
}

/// Whom it streams from, if that is a node of the cluster that runs: one that is gone is still followed.
fn upstream<'a>(seen: &'a Snapshot, node: &NodeStatus) -> Option<&'a str> {
    let streams = node.state == NodeState::Running;
    let follows = node.follows.as_ref().filter(|_| streams)?;
    let found = seen.nodes.iter().find(|other| {
        other.name != node.name
            && other.state == NodeState::Running
            && (other.address == *follows || other.address.host == follows.host)
    });
    found.map(|other| other.name.as_str())
}

fn depth(seen: &Snapshot, node: &NodeStatus) -> usize {
    let mut depth = 0;
    let mut now = node;
    while let Some(next) = upstream(seen, now)
        && depth < DEPTH_MAX
        && let Some(found) = seen.nodes.iter().find(|other| other.name == next)
    {
        (depth, now) = (depth + 1, found);
    }
    depth
}

/// The primary in the first row; nobody in it, if there is none.
fn rows(seen: &Snapshot) -> Vec<Vec<&NodeStatus>> {
    let mut by_depth: Vec<(usize, &NodeStatus)> = seen
        .nodes
        .iter()
        .map(|node| {
            let depth = match node.role {
                _ if seen.primary.as_ref() == Some(&node.name) => 0,
                Some(NodeRole::Backup | NodeRole::Witness) => DEPTH_MAX + 2,
                Some(NodeRole::Primary | NodeRole::Standby) | None => depth(seen, node).max(1),
            };
            (depth, node)
        })
        .collect();
    by_depth.sort_by_key(|(depth, node)| (*depth, node.id.is_none(), node.id, node.name.as_str()));
    let mut rows: Vec<Vec<&NodeStatus>> = Vec::new();
    let mut last = None;
    for (depth, node) in by_depth {
        match rows.last_mut() {
            Some(row) if last == Some(depth) && row.len() < PER_ROW => row.push(node),
            _ => rows.push(vec![node]),
        }
        last = Some(depth);
    }
    rows
}

fn at(seen: &Snapshot, node: &NodeStatus, (center, y): (i32, i32)) -> Node {
    let name = match node.name.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &node.name[..end]),
        None => node.name.clone(),
    };
    Node {
        x: center - BOX_WIDTH / 2,
        y,
        width: BOX_WIDTH,
        height: BOX_HEIGHT,
        center,
        name,
        role: role(node),
        face: face(node.state),
        leads: seen.primary.as_ref() == Some(&node.name),
        votes: node.votes,
    }
}

fn line(from: &Node, to: &Node, sync: bool) -> Line {
    let (begin, end) = (from.y + from.height, to.y - 7);
    let middle = (begin + end) / 2;
    let path = format!(
        "M{} {begin} C{} {middle} {} {middle} {} {end}",
        from.center, from.center, to.center, to.center
    );
    let label_x = (from.center + to.center) / 2;
    Line { path, x: to.center, y: end, sync, label_x, label_y: middle + 4 }
}

fn sentence(seen: &Snapshot, node: &NodeStatus) -> String {
    let what = format!("{}, {}, {}", node.name, role(node), node.state);
    match upstream(seen, node) {
        Some(upstream) if node.sync && seen.primary.as_deref() == Some(upstream) => {
            format!("{what}, follows {upstream}, synchronous")
        }
        Some(upstream) => format!("{what}, follows {upstream}"),
        None => what,
    }
}
