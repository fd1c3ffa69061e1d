//! What this container says: our own log and the lines of all services, whole
//! and tagged, on standard output and standard error.
//!
//! **Nobody waits for the reader of our output.** Postgres blocks in `write(2)`
//! when its standard error is a full pipe, and with it the database
//! (docker/compose#6018, moby#22502). So a reader of a child's pipe reads on as
//! long as the pipe is open, whatever it finds in it; lines go into a queue of
//! bounded size; and one thread does the blocking writes. If the queue is full,
//! lines are dropped, counted, and the count is written when there is room.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// How much may wait for a slow reader: some ten thousand lines, enough for
/// a burst at a crash, and little beside what Postgres itself takes.
pub const QUEUE_BYTES_MAX: usize = 1 << 20;

/// The longest line passed on in one piece. Postgres can log a statement of
/// any length; Docker cuts lines at 16 KiB anyway.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// One `write(2)` takes about so much: a pipe's usual capacity.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `postgres | line`, the line's bytes unchanged.
    Text,
    /// `{"ts":…,"service":"postgres","stream":"stderr","line":…}`; what is not
    /// UTF-8 is replaced.
    Json,
}

/// The service a line comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag of our own lines.
    pub fn pgherd() -> Tag {
        Tag::from("pgherd")
    }
}

impl From<&str> for Tag {
    fn from(name: &str) -> Self {
        Tag(name.into())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which of the two standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What becomes of a line that somebody says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// It is passed on.
    It,
    /// Another one is.
    Instead(Vec<u8>),
    /// None is.
    Nothing,
}

/// The container's output. Clones write to the same place.
#[derive(Clone)]
pub struct OutputHandle(Arc<Shared>);

struct Shared {
    format: Format,
    queue: Mutex<Queue>,
    /// There is something to write, or nothing more will come.
    filled: Condvar,
    /// All is written.
    emptied: Condvar,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    /// In `chunks` and in the write that is under way.
    bytes: usize,
    /// Not empty: the queue was full, and lines are dropped until it is half empty.
    dropped: BTreeMap<Tag, u64>,
    closed: bool,
}

/// Whole lines for one stream.
struct Chunk {
    stream: Stream,
    bytes: Vec<u8>,
}

impl OutputHandle {
    /// Writes to this process's standard output and standard error.
    pub fn to_stdio(format: Format) -> io::Result<Self> {
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        Self::new(format, stdout, stderr)
    }

    /// Writes to `stdout` and `stderr`. Fails if no thread can be had.
    pub fn new(format: Format, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            format,
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        });
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("output".into()).stack_size(128 << 10).spawn(move || {
            writer.write_until_closed(stdout.as_fd(), stderr.as_fd());
        })?;
        Ok(OutputHandle(shared))
    }

    /// Writes one line, given without its line end. Never blocks.
    pub fn line(&self, tag: &Tag, stream: Stream, line: &[u8]) {
        self.piece(tag, stream, line, false);
    }

    fn piece(&self, tag: &Tag, stream: Stream, line: &[u8], continued: bool) {
        let bytes = format_line(self.0.format, tag, stream, line, continued);
        self.0.lock().offer(tag, stream, &bytes);
        self.0.filled.notify_one();
    }

    /// Reads every line of `pipe` until its last writer has closed it, and passes on what `says` makes
    /// of each.
    pub async fn pump(
        self,
        tag: Tag,
        stream: Stream,
        mut pipe: impl AsyncRead + Unpin,
        mut says: impl FnMut(&[u8]) -> Say,
    ) {
        let mut lines = Lines::default();
        let mut pass_on = |line: &[u8], continued| match says(line) {
            Say::It => self.piece(&tag, stream, line, continued),
            Say::Instead(other) => self.piece(&tag, stream, &other, continued),
            Say::Nothing => {}
        };
        read_to_end(&mut pipe, |bytes| lines.feed(bytes, &mut pass_on)).await;
        lines.end(&mut pass_on);
    }

    /// Takes no more lines and waits until those taken are written, at most so
    /// long; says whether they are. The last thing to do: it blocks.
    pub fn flush_and_close(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let mut queue = self.0.lock();
        queue.announce_drops(self.0.format);
        queue.closed = true;
        self.0.filled.notify_one();
        while queue.bytes > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.0.emptied.wait_timeout(queue, left).expect(NO_PANIC).0;
        }
        true
    }
}

impl fmt::Debug for OutputHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutputHandle")
    }
}

const NO_PANIC: &str = "nothing panics while it holds the queue";

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect(NO_PANIC)
    }

    fn write_until_closed(&self, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) {
        let mut queue = self.lock();
        loop {
            if let Some(Chunk { stream, bytes }) = queue.chunks.pop_front() {
                drop(queue);
                match stream {
                    Stream::Stdout => write_all(stdout, &bytes),
                    Stream::Stderr => write_all(stderr, &bytes),
                }
                queue = self.lock();
                queue.bytes -= bytes.len();
                if queue.bytes <= QUEUE_BYTES_MAX / 2 {
                    queue.announce_drops(self.format);
                }
            } else {
                self.emptied.notify_all();
                if queue.closed {
                    return;
                }
                queue = self.filled.wait(queue).expect(NO_PANIC);
            }
        }
    }
}

impl Queue {
    /// Takes `line`, or counts it as dropped.
    fn offer(&mut self, tag: &Tag, stream: Stream, line: &[u8]) {
        if self.closed {
            return;
        }
        if !self.dropped.is_empty() || self.bytes + line.len() > QUEUE_BYTES_MAX {
            *self.dropped.entry(tag.clone()).or_default() += 1;
            return;
        }
        self.append(stream, line);
    }

    fn append(&mut self, stream: Stream, line: &[u8]) {
        self.bytes += line.len();
        if let Some(last) = self.chunks.back_mut()
            && last.stream == stream
            && last.bytes.len() + line.len() <= CHUNK_BYTES_MAX
        {
            last.bytes.extend_from_slice(line);
        } else {
            self.chunks.push_back(Chunk { stream, bytes: line.to_vec() });
        }
    }

    fn announce_drops(&mut self, format: Format) {
        for (tag, count) in std::mem::take(&mut self.dropped) {
            let text =
                format!("{count} lines of {tag} were dropped: nobody reads the container's output");
            let line = format_line(format, &Tag::pgherd(), Stream::Stderr, text.as_bytes(), false);
            self.append(Stream::Stderr, &line);
        }
    }
}

/// One line as it appears in the container's output, line end included.
/// `continued`: it is the rest of one that was longer than [`LINE_BYTES_MAX`].
pub fn format_line(
    format: Format,
    tag: &Tag,
    stream: Stream,
    line: &[u8],
    continued: bool,
) -> Vec<u8> {
    let mark = if continued { "… " } else { "" };
    match format {
        Format::Text => [tag.0.as_bytes(), b" | ", mark.as_bytes(), line, b"\n"].concat(),
        Format::Json => {
            let mut ts = String::new();
            let _ = SystemTime.format_time(&mut Writer::new(&mut ts)); // a String takes all
            let stream = match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            };
            let string = |text: &str| serde_json::Value::from(text).to_string();
            let mut json = format!(r#"{{"ts":{},"service":{}"#, string(&ts), string(&tag.0));
            let _ = write!(json, r#","stream":"{stream}""#);
            let text = String::from_utf8_lossy(line);
            let _ = writeln!(json, r#","line":{}}}"#, string(&format!("{mark}{text}")));
            json.into_bytes()
        }
    }
}

/// Writes all of `bytes`. If the other end is gone or the disk is full there
/// is nobody to tell, so the bytes are lost.
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            // Someone we share the pipe with has made it non-blocking.
            Err(Errno::EAGAIN) => {
                let _ = poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(_) => return,
        }
    }
}

/// Reads until the end, giving each piece to `take`.
pub(super) async fn read_to_end(pipe: &mut (impl AsyncRead + Unpin), mut take: impl FnMut(&[u8])) {
    let mut buffer = [0; 8 << 10];
    // A pipe's read fails only with a bug of ours; going on would spin.
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        take(&buffer[..count]);
    }
}

/// Cuts a stream of bytes into lines of at most [`LINE_BYTES_MAX`].
#[derive(Default)]
struct Lines {
    /// The line so far.
    partial: Vec<u8>,
    /// `partial` is the rest of a line that was too long.
    continued: bool,
}

impl Lines {
    /// Calls `line(bytes, continued)` for each line that `bytes` completes.
    fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.partial.len();
            match bytes.iter().take(room + 1).position(|&byte| byte == b'\n') {
                Some(end) => {
                    self.partial.extend_from_slice(&bytes[..end]);
                    line(&self.partial, self.continued);
                    self.start_over(false);
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() <= room => {
                    self.partial.extend_from_slice(bytes);
                    return;
                }
                None => {
                    self.partial.extend_from_slice(&bytes[..room]);
                    line(&self.partial, self.continued);
                    self.start_over(true);
                    bytes = &bytes[room..];
                }
            }
        }
    }

    /// Gives out what came after the last line end, if anything.
    fn end(&mut self, mut line: impl FnMut(&[u8], bool)) {
        if !self.partial.is_empty() {
            line(&self.partial, self.continued);
            self.start_over(false);
        }
    }

    fn start_over(&mut self, continued: bool) {
        self.partial.clear();
        self.partial.shrink_to(1 << 10); // one long line is no reason to keep 64 KiB for ever
        self.continued = continued;
    }
}

/// What `tracing` writes goes the same way as the services' lines: tagged
/// `pgherd` in text, as it is in JSON, where the formatter makes whole objects.
impl<'a> MakeWriter<'a> for OutputHandle {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        LogWriter(self.clone())
    }
}

/// Takes whole lines, as `tracing_subscriber::fmt` writes each event at once.
#[derive(Debug)]
pub struct LogWriter(OutputHandle);

impl io::Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (tag, shared) = (Tag::pgherd(), &self.0.0);
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            match shared.format {
                Format::Text => self.0.line(&tag, Stream::Stderr, line),
                Format::Json => {
                    shared.lock().offer(&tag, Stream::Stderr, &[line, b"\n"].concat());
                    shared.filled.notify_one();
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
