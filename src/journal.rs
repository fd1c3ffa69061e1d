//! What happened to this node, and when: kept on its disk, so that it outlives the container, and
//! shown by `pgherd events`, which puts all nodes' together.
//!
//! Whoever writes an entry never waits: it is shown at once, and a task of its own brings it to the
//! disk. No entry holds a secret; it says what the log says.

pub use crate::cluster::Entry;

use crate::system::account::Account;
use crate::system::error::chain;
use crate::system::files::{acting_in, ensure_file};
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, watch};
use tracing::warn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// So many are kept; the oldest goes first. A quiet cluster has a few a month, one whose server ends
/// all the time some dozens an hour.
pub const ENTRIES_MAX: usize = 1000;
/// The file is written anew when it has so many lines.
const LINES_MAX: usize = 2 * ENTRIES_MAX;
/// Of a text: what a tool said last may be long, and stands in the log.
const CHARS_MAX: usize = 300;
/// So many may wait for a slow disk; more are shown, and not kept.
const WAITING_MAX: usize = 256;

/// What happened lately, and where more of it goes.
#[derive(Clone, Debug)]
pub struct Journal {
    node: String,
    entries: watch::Sender<VecDeque<Entry>>,
    to_disk: mpsc::Sender<Entry>,
}

impl Journal {
    /// Goes on where the file at `path` ends, which belongs to `account`. Inside of the runtime.
    pub fn open(node: &str, path: PathBuf, account: &Account) -> Self {
        let kept = kept(&std::fs::read(&path).unwrap_or_default());
        let (to_disk, waiting) = mpsc::channel(WAITING_MAX);
        let entries = watch::channel(kept).0;
        let file = File { path, account: account.clone(), lines: LINES_MAX };
        tokio::spawn(write(file, waiting, entries.subscribe()));
        Journal { node: node.to_owned(), entries, to_disk }
    }

    /// It happened now.
    pub fn note(&self, id: &str, epoch: Option<u64>, why: Option<&str>, text: impl Into<String>) {
        let mut at = String::new();
        let _ = SystemTime.format_time(&mut Writer::new(&mut at)); // A String takes everything.
        let entry = Entry {
            at,
            node: self.node.clone(),
            id: id.to_owned(),
            epoch,
            why: why.map(|why| shortened(why.to_owned())),
            text: shortened(text.into()),
        };
        self.entries.send_modify(|entries| push(entries, entry.clone()));
        let _ = self.to_disk.try_send(entry); // The disk is too slow: it is shown, at least.
    }

    /// The last ones, the oldest first.
    pub fn last(&self, limit: usize) -> Vec<Entry> {
        let entries = self.entries.borrow();
        entries.iter().skip(entries.len().saturating_sub(limit)).cloned().collect()
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn push(entries: &mut VecDeque<Entry>, entry: Entry) {
    entries.push_back(entry);
    while entries.len() > ENTRIES_MAX {
        entries.pop_front();
    }
}

/// What can be read of a file that a power cut may have torn.
fn kept(file: &[u8]) -> VecDeque<Entry> {
    let mut entries = VecDeque::new();
    let lines = file.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .for_each(|entry| push(&mut entries, entry));
    entries
}

struct File {
    path: PathBuf,
    account: Account,
    /// How many it has; it is written anew before the first is added to what another life left.
    lines: usize,
}

impl File {
    fn add(
        &mut self,
        entry: &Entry,
        all: &VecDeque<Entry>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        if self.lines >= LINES_MAX {
            let text: String = all.iter().map(line).collect();
            ensure_file(&self.path, text, 0o600, &self.account)?;
            self.lines = all.len();
        } else {
            acting_in(self.path.parent(), &self.account, || append(&self.path, &line(entry)))?;
            self.lines += 1;
        }
        Ok(())
    }
}

fn line(entry: &Entry) -> String {
    serde_json::to_string(entry).expect("its keys are texts") + "\n"
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)?.write_all(line.as_bytes())
}

/// One after the other, on a thread that may wait for the disk.
async fn write(
    file: File,
    mut waiting: mpsc::Receiver<Entry>,
    entries: watch::Receiver<VecDeque<Entry>>,
) {
    let mut file = Some(file);
    let mut failed = false;
    while let Some(entry) = waiting.recv().await {
        let Some(mut this) = file.take() else { return };
        let entries = entries.clone();
        let written = tokio::task::spawn_blocking(move || {
            let all = entries.borrow().clone();
            let written = this.add(&entry, &all).map_err(|error| chain(&*error));
            (this, written)
        });
        let Ok((this, written)) = written.await else { return };
        file = Some(this);
        match written {
            Err(why) if !failed => {
                warn!("what happens is not kept for pgherd events: {why}");
                failed = true;
            }
            Err(_) => {}
            Ok(()) => failed = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize) -> Entry {
        Entry {
            at: format!("2026-11-21T00:00:00.{number:06}Z"),
            node: "node1".to_owned(),
            id: "lead.taken".to_owned(),
            epoch: Some(3),
            why: None,
            text: format!("number {number}"),
        }
    }

    #[test]
    fn no_more_than_so_many_are_kept_and_the_oldest_go_first() {
        let file: String = (0..ENTRIES_MAX + 5).map(|number| line(&entry(number))).collect();
        let kept = kept(file.as_bytes());
        assert_eq!(kept.len(), ENTRIES_MAX);
        assert_eq!(kept[0], entry(5));
    }

    #[test]
    fn a_torn_last_line_costs_that_line_only() {
        let whole: String = (0..3).map(|number| line(&entry(number))).collect();
        for cut in 1..line(&entry(2)).len() {
            let torn = &whole.as_bytes()[..whole.len() - 1 - cut];
            assert_eq!(kept(torn), [entry(0), entry(1)], "cut by {cut}");
        }
        assert_eq!(kept(b"\xff\n{}\n"), []);
    }

    #[test]
    fn the_file_stays_bounded_and_is_taken_up_after_a_torn_end() {
        let directory = std::env::temp_dir().join(format!("pgherd-journal-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("events.jsonl");
        std::fs::write(&path, line(&entry(0)) + r#"{"at": "20"#).unwrap();
        let mut all = kept(&std::fs::read(&path).unwrap());
        let account = Account::current();
        let mut file = File { path: path.clone(), account, lines: LINES_MAX };
        for number in 1..3 * LINES_MAX {
            push(&mut all, entry(number));
            file.add(&entry(number), &all).unwrap();
            if number == 1 {
                assert_eq!(kept(&std::fs::read(&path).unwrap()), [entry(0), entry(1)]);
            }
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() <= LINES_MAX, "{}", text.lines().count());
        assert_eq!(kept(text.as_bytes()), all);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
