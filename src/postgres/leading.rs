//! What is asked of our own server as the one that leads, or is about to: who streams from it, for whom a
//! commit waits, promotion.

use super::session::{Session, SqlError, identifier, literal};
use crate::cluster::{Lsn, Timeline};
use crate::system::wait;
use std::time::Duration;

/// Postgres ends its recovery, writes one record and opens: a second where the disk is slow.
const PROMOTE_AT_MOST: Duration = Duration::from_secs(60);

/// A standby that is connected, as `pg_stat_replication` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Streaming {
    /// `application_name`: its node's name.
    pub name: String,
    /// It has caught up once and gets what is written as it is written.
    pub streams: bool,
    /// A commit waits for it.
    pub is_sync: bool,
    /// On its disk up to here.
    pub flushed: Option<Lsn>,
    /// Replayed up to here.
    pub replayed: Option<Lsn>,
    /// Seconds since it said anything.
    pub silent_s: f64,
}

/// What a primary's server says of its standbys.
#[derive(Clone, Debug, PartialEq)]
pub struct Standbys {
    /// Written up to here.
    pub lsn: Lsn,
    /// `synchronous_standby_names` as new sessions have it.
    pub names: String,
    /// Who is connected.
    pub streaming: Vec<Streaming>,
}

impl Session {
    /// Who streams from this server, and for whom a commit waits. `None` from a standby.
    pub async fn standbys(&self) -> Result<Option<Standbys>, SqlError> {
        let doing = "ask the server for its standbys";
        let rows = self.rows(doing, include_str!("../../templates/sql/standbys.sql")).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let lsn = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        let streaming = rows
            .iter()
            .filter_map(|row| {
                Some(Streaming {
                    name: row.get::<_, Option<String>>("name")?,
                    streams: row.get::<_, Option<bool>>("streams")?,
                    is_sync: row.get::<_, Option<bool>>("is_sync")?,
                    flushed: lsn(row.get("flushed")),
                    replayed: lsn(row.get("replayed")),
                    silent_s: row.get::<_, Option<f64>>("silent_s").unwrap_or_default(),
                })
            })
            .collect();
        Ok(Some(Standbys {
            lsn: lsn(first.get("lsn")).unwrap_or_default(),
            names: first.get("names"),
            streaming,
        }))
    }

    /// How far this standby has received. `None` from a primary, and where nothing was.
    pub async fn received(&self) -> Result<Option<Lsn>, SqlError> {
        let query = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text";
        let rows = self.rows("ask the server what it has received", query).await?;
        let text = rows.first().and_then(|row| row.get::<_, Option<&str>>(0));
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Whether whoever has `slot` gets what is written as it is written.
    pub async fn streams_to(&self, slot: &str) -> Result<bool, SqlError> {
        let query = format!(
            "SELECT EXISTS (SELECT FROM pg_replication_slots JOIN pg_stat_replication ON pid = active_pid \
             WHERE slot_name = {} AND state = 'streaming')",
            literal(slot)
        );
        self.is_true("ask who receives its WAL", &query).await
    }

    /// Whether this server recovers no further, because it has come to where it was asked to.
    pub async fn is_replay_paused(&self) -> Result<bool, SqlError> {
        // Without the second a server that has just been promoted would say that it does not recover.
        let query =
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END";
        self.is_true("ask whether the replay is paused", query).await
    }

    /// When what this server has replayed last was committed.
    pub async fn last_replayed(&self) -> Result<Option<String>, SqlError> {
        let query = "SELECT pg_last_xact_replay_timestamp()::text";
        let rows = self.rows("ask what was replayed last", query).await?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    /// Afterwards commits wait for each of these standbys, or for nobody: those that begin later, and as
    /// soon as the server has read its configuration again, which it does at once.
    pub async fn wait_for_standbys(&self, names: &[&str]) -> Result<(), SqlError> {
        let names = names_waiting_for(names);
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = {}", literal(&names));
        self.run("say for whom commits wait", &set).await?;
        self.run("have the server read its configuration", "SELECT pg_reload_conf()").await
    }

    /// Writes a checkpoint now. It has been written afterwards, and what was set before is known to the
    /// process that writes it (it reads its configuration before it begins).
    pub async fn checkpoint(&self) -> Result<(), SqlError> {
        self.run("write a checkpoint", "CHECKPOINT").await
    }

    /// Afterwards this server, a standby before, takes writes. Returns the timeline that it writes.
    pub async fn promote(&self) -> Result<Timeline, SqlError> {
        // `wait` looks each 100 ms.
        self.run("promote the server", "SELECT pg_promote(wait => false)").await?;
        // It replays what it has received first, which may take long, and is seen.
        let mut moved = tokio::time::Instant::now();
        let mut replayed = None;
        loop {
            let health = self.health().await?;
            if health.role == crate::cluster::Role::Primary {
                return Ok(health.timeline);
            }
            if health.lsn > replayed {
                (moved, replayed) = (tokio::time::Instant::now(), health.lsn);
            }
            if moved.elapsed() > PROMOTE_AT_MOST {
                let doing = "promote the server".to_owned();
                return Err(SqlError::Late { doing, at_most: PROMOTE_AT_MOST });
            }
            wait::back_off(Duration::from_millis(5)).await;
        }
    }
}

/// `synchronous_standby_names` for them: a commit waits for each.
pub fn names_waiting_for(names: &[&str]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let quoted: Vec<_> = names.iter().map(|name| identifier(name)).collect();
    format!("FIRST {} ({})", names.len(), quoted.join(", "))
}

/// The standbys in `synchronous_standby_names`, if it is one of ours. No name holds a quotation mark
/// followed by a comma, a blank and another one.
pub fn waits_for(names: &str) -> Option<Vec<String>> {
    let (count, rest) = names.strip_prefix("FIRST ")?.split_once(" (\"")?;
    let inner = rest.strip_suffix("\")")?;
    let names: Vec<_> = inner.split("\", \"").map(|name| name.replace("\"\"", "\"")).collect();
    (count.parse() == Ok(names.len())).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let names = ["node2", "dc2-pg \"3\"", "ü"];
        for name in names {
            assert_eq!(waits_for(&names_waiting_for(&[name])), Some(vec![name.to_owned()]));
        }
        assert_eq!(names_waiting_for(&["a", "b"]), "FIRST 2 (\"a\", \"b\")");
        assert_eq!(waits_for(&names_waiting_for(&names)), Some(names.map(str::to_owned).to_vec()));
        assert_eq!(names_waiting_for(&[]), "");
        for other in ["", "*", "node2", "ANY 1 (a, b)", "FIRST 1 (\"a\", \"b\")", "FIRST 2 (a, b)"]
        {
            assert_eq!(waits_for(other), None, "{other}");
        }
    }
}
