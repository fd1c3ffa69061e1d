//! What is kept of what a child says, in bounded memory.

use crate::system::output::read_to_end;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::AsyncRead;
use tokio::task::JoinHandle;

/// The most that is kept of a tool's output, for each of the two streams.
pub const CAPTURED_BYTES_MAX: usize = 1 << 20;

/// So many lines are kept to explain a failure.
pub const LAST_WORDS_LINES_MAX: usize = 10;

/// Each of them is cut at so many bytes.
const LAST_WORDS_LINE_BYTES_MAX: usize = 1 << 10;

/// The last lines of a stream, blank ones left out.
#[derive(Default)]
pub(super) struct LastWords(VecDeque<String>);

impl LastWords {
    /// Of standard error, or, for tools that complain there, of standard output.
    pub(super) fn of(stderr: &[u8], stdout: &[u8]) -> Vec<String> {
        let of = |stream: &[u8]| {
            let mut words = LastWords::default();
            stream.split(|&byte| byte == b'\n').for_each(|line| words.push(line));
            Vec::from(words.0)
        };
        Some(of(stderr)).filter(|words| !words.is_empty()).unwrap_or_else(|| of(stdout))
    }

    fn push(&mut self, line: &[u8]) {
        let line = &line[..line.len().min(LAST_WORDS_LINE_BYTES_MAX)];
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if !text.is_empty() {
            if self.0.len() == LAST_WORDS_LINES_MAX {
                self.0.pop_front();
            }
            self.0.push_back(text.to_owned());
        }
    }
}

/// Last words that are still being spoken.
#[derive(Clone, Default)]
pub(super) struct SharedLastWords(Arc<Mutex<LastWords>>);

impl SharedLastWords {
    pub(super) fn push(&self, line: &[u8]) {
        lock(&self.0).push(line);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        lock(&self.0).0.iter().cloned().collect()
    }
}

/// What to keep when there is more than can be kept.
#[derive(Clone, Copy)]
pub(super) enum Keep {
    Head,
    Tail,
}

/// A stream that is being read, up to [`CAPTURED_BYTES_MAX`].
pub(super) struct Captured(Arc<Mutex<Buffer>>);

#[derive(Default)]
struct Buffer {
    bytes: VecDeque<u8>,
    is_overflown: bool,
}

impl Captured {
    /// Reads `pipe` to its end in the task returned.
    pub(super) fn start(
        mut pipe: impl AsyncRead + Unpin + Send + 'static,
        keep: Keep,
    ) -> (Self, JoinHandle<()>) {
        let buffer = Arc::<Mutex<Buffer>>::default();
        let filled = Arc::clone(&buffer);
        let reader = tokio::spawn(async move {
            read_to_end(&mut pipe, |bytes| lock(&filled).push(bytes, keep)).await;
        });
        (Captured(buffer), reader)
    }

    pub(super) fn is_overflown(&self) -> bool {
        lock(&self.0).is_overflown
    }

    /// What was read so far.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.0).bytes).into()
    }
}

impl Buffer {
    fn push(&mut self, bytes: &[u8], keep: Keep) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(CAPTURED_BYTES_MAX);
        self.is_overflown |= excess > 0;
        match keep {
            Keep::Head => self.bytes.truncate(CAPTURED_BYTES_MAX),
            Keep::Tail => drop(self.bytes.drain(..excess)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this")
}
