//! Whether anybody is there for barman to stream from. Without this question a node that keeps
//! backups would log barman's complaints every minute for as long as the cluster is away, and the
//! first backup of a fresh cluster would come a minute later than it can.

use crate::cluster::Timeline;
use crate::system::child::{Program, ProgramError};
use crate::system::wait;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// A name that does not resolve takes as long as the resolver likes, and each of five members may
/// take libpq's whole `connect_timeout`, 5 s.
const ANSWER_AT_MOST: Duration = Duration::from_secs(30);
/// What there is no hurry about, for each question makes a process here and one on the server.
const ASK_EVERY: Duration = Duration::from_secs(3);
/// The job of the next minute asks again; together they leave no gap and do not overlap.
const WAIT_AT_MOST: Duration = Duration::from_secs(50);
/// In the server's own directory. Holds what was said about it, so that it is said once.
const NOTE: &str = ".pgherd-no-primary";

/// What is asked: where it writes. A standby is asked as well, where it keeps backups of its own.
const QUESTION: &str =
    "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_lsn()) END";

/// A server that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answers {
    /// On which timeline it writes; `None` from a standby.
    pub(super) timeline: Option<Timeline>,
}

/// Waits for the server that `conninfo` means, for most of a minute. Says once, over all the jobs
/// that wait for the same, what is waited for.
pub(super) async fn answers(conninfo: &str, directory: &Path) -> Option<Answers> {
    let began = Instant::now();
    let note = directory.join(NOTE);
    loop {
        let error = match ask(conninfo).await {
            Ok(answers) => {
                if fs::remove_file(&note).is_ok() {
                    info!("the primary answers barman");
                }
                return Some(answers);
            }
            Err(error) => error,
        };
        let reason = reason(error);
        if fs::read_to_string(&note).unwrap_or_default() != reason {
            warn!("barman waits for a primary that it can stream from: {reason}");
            let _ = fs::write(&note, &reason); // Then it is said again.
        }
        if began.elapsed() + ASK_EVERY > WAIT_AT_MOST {
            return None;
        }
        wait::back_off(ASK_EVERY).await;
    }
}

/// What is waited for is said anew by the next job: the log of this container has not got it yet.
pub(super) fn forget(directory: &Path) {
    let _ = fs::remove_file(directory.join(NOTE)); // Mostly there is none.
}

async fn ask(conninfo: &str) -> Result<Answers, ProgramError> {
    let question = Program::new("psql").args(["-XqAt", "-d", conninfo, "-c", QUESTION]);
    let file = question.current_dir("/").output(ANSWER_AT_MOST).await?.text();
    let timeline = file.trim().get(..8).and_then(|number| u32::from_str_radix(number, 16).ok());
    Ok(Answers { timeline: timeline.map(Timeline) })
}

/// What each member said, on one line, without what is said by all.
fn reason(error: ProgramError) -> String {
    match &error {
        ProgramError::Failed { last_words, .. } if !last_words.is_empty() => {
            let words =
                last_words.iter().map(|line| line.trim().trim_start_matches("psql: error: "));
            // libpq's second line asks whether a server runs there: that is what we ask.
            words
                .filter(|line| !line.starts_with("Is the server running"))
                .collect::<Vec<_>>()
                .join("; ")
        }
        ProgramError::Failed { .. }
        | ProgramError::Start { .. }
        | ProgramError::TimedOut { .. }
        | ProgramError::TooMuchOutput { .. } => crate::system::error::chain(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_reason_is_one_line_without_libpq_s_question() {
        let last_words = [
            "psql: error: connection to server at \"node1\" (10.0.0.2), port 5432 failed: Connection refused",
            "\tIs the server running on that host and accepting TCP/IP connections?",
            "connection to server at \"node2\" (10.0.0.3), port 5432 failed: session is read-only",
        ];
        let reason = reason(ProgramError::Failed {
            program: "psql".to_owned(),
            status: std::process::ExitStatus::from_raw(2 << 8),
            last_words: last_words.map(str::to_owned).to_vec(),
        });
        assert_eq!(
            reason,
            "connection to server at \"node1\" (10.0.0.2), port 5432 failed: Connection refused; \
             connection to server at \"node2\" (10.0.0.3), port 5432 failed: session is read-only"
        );
    }
}
