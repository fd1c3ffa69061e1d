//! What a running node shows.

use super::ask::Entrance;
use super::{answer, pretty, status};
use crate::control::NodeStatus;
use crate::settings::Settings;

/// Prints the cluster.
pub(super) fn status(entrance: &Entrance, json: bool) -> Result<u8, u8> {
    let snapshot = entrance.snapshot()?;
    Ok(answer(if json { pretty(&snapshot) } else { snapshot.to_string() }))
}

/// Prints the members.
pub(super) fn members(entrance: &Entrance, json: bool) -> Result<u8, u8> {
    let mut nodes = entrance.snapshot()?.nodes;
    nodes.sort_by(|a, b| (a.id.is_none(), a.id, &a.name).cmp(&(b.id.is_none(), b.id, &b.name)));
    Ok(answer(if json { pretty(&nodes) } else { table(&nodes) }))
}

fn table(nodes: &[NodeStatus]) -> String {
    let rows: Vec<[String; 7]> = nodes
        .iter()
        .map(|node| {
            let id = node.id.map(|id| id.to_string());
            let role = node.role.map(|role| role.to_string());
            [
                node.name.clone(),
                id.unwrap_or_else(|| "-".to_owned()),
                node.address.to_string(),
                role.unwrap_or_else(|| "-".to_owned()),
                if node.votes { "yes" } else { "no" }.to_owned(),
                node.priority.to_string(),
                node.location.clone(),
            ]
        })
        .collect();
    let head = ["NODE", "ID", "ADDRESS", "ROLE", "VOTES", "PRIORITY", "LOCATION"];
    let head = head.map(str::to_owned);
    let all = || std::iter::once(&head).chain(&rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; 7]| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column);
            format!("{cell:<width$}")
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    all().map(line).collect()
}

/// 0 or 1, and no word: docker asks every few seconds.
pub(super) fn health(entrance: &Entrance, ready: bool) -> u8 {
    let path = if ready { "/readiness" } else { "/liveness" };
    match entrance.get(path) {
        Ok(said) if said.code == 200 => status::DONE,
        _ => status::FAILED,
    }
}

/// Whether a node runs here.
pub(super) fn answers(settings: &Settings) -> bool {
    Entrance::new(settings, None).is_ok_and(|own| own.get("/liveness").is_ok())
}
