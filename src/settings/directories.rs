//! Directories that two services would both take for their own.

use super::Problem;
use super::input::Input;
use super::problem::quoted;
use std::path::Path;

/// What pgherd would give to a service's user although it is Postgres' data, as far as the
/// variables could be read.
pub(super) fn in_the_way(input: &Input, unread: &[Problem]) -> Vec<Problem> {
    let is_read = |name: &str| !unread.iter().any(|problem| problem.is_about(name));
    if !is_read("POSTGRES_DATA_DIR") || !is_read("PGDATA") {
        return Vec::new();
    }
    let given_away = [
        ("REPMGR_CONFIG_DIR", &input.repmgr_config_dir.0, "postgres"),
        ("BARMAN_BACKUP_DIR", &input.barman_backup_dir.0, "barman"),
        ("BARMAN_CONFIG_DIR", &input.barman_config_dir.0, "barman"),
    ];
    given_away
        .into_iter()
        .filter(|(variable, ..)| is_read(variable))
        .filter_map(|(variable, path, user)| {
            let whose = postgres_data(input, path)?;
            let path = quoted(&path.to_string_lossy());
            let message = format!(
                "is {path}, which {whose}. pgherd gives it to the user {user}, with a mode of its \
                 own, so choose a directory that has nothing else in it."
            );
            Some(Problem::new(variable, message))
        })
        .collect()
}

/// What `path` has to do with Postgres' data. A directory of its own beside the cluster is fine.
fn postgres_data(input: &Input, path: &Path) -> Option<String> {
    let volume = &input.postgres_data_dir.0;
    let pgdata = input.pgdata.as_ref().map(|pgdata| &pgdata.0);
    if volume.starts_with(path) {
        return Some("is or contains POSTGRES_DATA_DIR".to_owned());
    }
    if pgdata.is_some_and(|pgdata| pgdata.starts_with(path) || path.starts_with(pgdata)) {
        return Some("is, contains or lies in PGDATA".to_owned());
    }
    // What pgherd makes on the volume: its state, and clusters as 17/docker or data.
    let part = path.strip_prefix(volume).ok()?.iter().next()?.to_str()?;
    let is_cluster =
        pgdata.is_none() && (part == "data" || part.bytes().all(|digit| digit.is_ascii_digit()));
    (is_cluster || part == "pgherd").then(|| {
        format!(
            "lies in {}, where pgherd keeps data of its own",
            quoted(&volume.join(part).to_string_lossy())
        )
    })
}
