//! What barman has of a history that did not come to be: after a failover, or a restore to an earlier moment,
//! it may have received more than the new primary ever had. `pg_receivewal` goes on where its newest file
//! ends, which is then a place that the primary does not know, and tries that for ever ("requested starting
//! point … is not in this server's history").

use crate::cluster::{History, Lsn, Timeline, end_of_wal_file};
use crate::system::child::{Program, ProgramError};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;
use tracing::{info, warn};

/// One small file of the primary's.
const ASK_AT_MOST: Duration = Duration::from_secs(30);
/// In the server's own directory. Kept, because whoever restores to that history wants it.
pub(super) const DIRECTORY: &str = ".pgherd-left-behind";

/// Afterwards nothing in `streaming` keeps WAL from being received from the primary, which writes
/// `timeline`. What was received of another history is kept beside. `segment_bytes` is the size of a WAL
/// file.
pub(super) async fn set_aside(
    directory: &Path,
    streaming_conninfo: &str,
    timeline: Timeline,
    segment_bytes: u64,
) -> Result<(), ProgramError> {
    let streaming = directory.join("streaming");
    let received: Vec<String> = super::catalog::names(&streaming).collect();
    let older = |name: &&String| {
        let file = end_of_wal_file(whole(name), segment_bytes);
        file.is_some_and(|(of, _)| of < timeline)
    };
    if !received.iter().any(|name| older(&name)) {
        return Ok(()); // Almost always.
    }
    let Some(history) = history(streaming_conninfo, timeline).await? else { return Ok(()) };
    for name in received.iter().filter(|name| is_left_behind(&history, name, segment_bytes)) {
        let aside = directory.join(DIRECTORY);
        let moved = fs::create_dir_all(&aside)
            .and_then(|()| fs::rename(streaming.join(name), aside.join(name)));
        match moved {
            Ok(()) => info!(
                "{name} is of a history that the primary has left behind: it is set aside in {}",
                aside.display()
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!("cannot set {name} aside in {}: {error}", aside.display()),
        }
    }
    Ok(())
}

fn whole(name: &str) -> &str {
    name.strip_suffix(".partial").unwrap_or(name)
}

/// Nothing of the file is on the way to the history's end. One in which the histories part is received
/// again from its beginning.
fn is_left_behind(history: &History, name: &str, segment_bytes: u64) -> bool {
    let Some((timeline, end)) = end_of_wal_file(whole(name), segment_bytes) else { return false };
    let begin = Lsn(end.0 - segment_bytes);
    timeline < history.timeline && !history.leads_on_from(timeline, begin)
}

/// As the primary has it; `None` for what is no history.
async fn history(conninfo: &str, timeline: Timeline) -> Result<Option<History>, ProgramError> {
    let ask = Program::new("psql").args(["-XqAt", "-F", "\n", "-d"]);
    let ask = ask.arg(format!("{conninfo} replication=yes"));
    let ask = ask.args(["-c", &format!("TIMELINE_HISTORY {timeline}")]).current_dir("/");
    let said = ask.output(ASK_AT_MOST).await?.text();
    // Its name, then what is in it.
    let content = said.split_once('\n').map_or("", |(_, content)| content);
    Ok(History::parse(timeline, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_past_the_fork_is_set_aside_and_nothing_else() {
        let history = History::parse(Timeline(2), "1\t0/7000100\tx\n").unwrap();
        let left_behind = |name: &str| is_left_behind(&history, name, 16 << 20);
        assert!(left_behind("000000010000000000000008.partial"));
        assert!(left_behind("000000010000000000000009"));
        for name in [
            "000000010000000000000007.partial",
            "000000010000000000000006",
            "000000020000000000000009.partial",
            "00000002.history",
        ] {
            assert!(!left_behind(name), "{name}");
        }
    }
}
