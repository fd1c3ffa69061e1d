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

    /// Passes on every line of `pipe` until its last writer has closed it.
    /// `seen` sees each line before it is passed on.
    pub async fn pump(
        self,
        tag: Tag,
        stream: Stream,
        mut pipe: impl AsyncRead + Unpin,
        mut seen: impl FnMut(&[u8]),
    ) {
        let mut lines = Lines::default();
        let mut pass_on = |line: &[u8], continued| {
            seen(line);
            self.piece(&tag, stream, line, continued);
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
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{BufRead, BufReader, Read};

    const SOON: Duration = Duration::from_secs(10);

    /// Lines of `bytes`, fed in pieces of `size`; `true` marks a continuation.
    fn lines_of(bytes: &[u8], size: usize) -> Vec<(Vec<u8>, bool)> {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        let mut keep = |line: &[u8], continued| seen.push((line.to_vec(), continued));
        bytes.chunks(size).for_each(|piece| lines.feed(piece, &mut keep));
        lines.end(&mut keep);
        seen
    }

    fn joined(format: Format, write: impl FnOnce(&OutputHandle)) -> String {
        let (mut read, out) = io::pipe().unwrap();
        let err = out.try_clone().unwrap();
        let output = OutputHandle::new(format, out.into(), err.into()).unwrap();
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            read.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        write(&output);
        assert!(output.flush_and_close(SOON));
        reader.join().unwrap() // ends as the writer, which has the pipe, ends
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let line = |text: &str| (text.as_bytes().to_vec(), false);
        for size in [1, 2, 3, 100] {
            let lines = lines_of(b"one\n\ntwo \xff\xfe\nno end", size);
            let mut expected = vec![line("one"), line(""), line("two "), line("no end")];
            expected[2].0.extend(b"\xff\xfe");
            assert_eq!(lines, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_long_line_comes_in_pieces_that_say_so() {
        for size in [1000, LINE_BYTES_MAX, 3 << 20] {
            let mut bytes = vec![b'x'; 2 << 20];
            bytes.extend(b"end\nnext\n");
            let lines = lines_of(&bytes, size);
            let (next, pieces) = lines.split_last().unwrap();
            assert_eq!(*next, (b"next".to_vec(), false));
            assert_eq!(pieces.len(), (2 << 20) / LINE_BYTES_MAX + 1);
            assert!(pieces.iter().all(|(piece, _)| piece.len() <= LINE_BYTES_MAX));
            let marks: Vec<_> = pieces.iter().map(|(_, continued)| *continued).collect();
            assert!(!marks[0] && marks[1..].iter().all(|&continued| continued));
            assert_eq!(pieces.iter().map(|(piece, _)| piece.len()).sum::<usize>(), (2 << 20) + 3);
        }
    }

    #[test]
    fn a_line_of_just_the_greatest_length_is_one_line() {
        let mut bytes = vec![b'x'; LINE_BYTES_MAX];
        bytes.push(b'\n');
        assert_eq!(lines_of(&bytes, 7).len(), 1);
    }

    #[test]
    fn text_names_the_service_and_keeps_the_bytes() {
        let line = format_line(Format::Text, &"postgres".into(), Stream::Stderr, b"a\xffb", false);
        assert_eq!(line, b"postgres | a\xffb\n");
        let line = format_line(Format::Text, &"postgres".into(), Stream::Stderr, b"rest", true);
        assert_eq!(line, "postgres | … rest\n".as_bytes());
    }

    #[test]
    fn json_is_one_valid_object_a_line_whatever_the_bytes() {
        let bytes: Vec<u8> = (0..=255).filter(|&byte| byte != b'\n').collect();
        let line = format_line(Format::Json, &"a\"b".into(), Stream::Stdout, &bytes, false);
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let object: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(object["service"], "a\"b");
        assert_eq!(object["stream"], "stdout");
        assert_eq!(object["line"], *String::from_utf8_lossy(&bytes));
        let ts = object["ts"].as_str().unwrap();
        assert!(ts.starts_with("20") && ts.ends_with('Z'), "{ts}");
    }

    #[test]
    fn lines_keep_their_order_across_both_streams() {
        let text = joined(Format::Text, |output| {
            for number in 0..1000 {
                let stream = if number % 3 == 0 { Stream::Stdout } else { Stream::Stderr };
                output.line(&"s".into(), stream, number.to_string().as_bytes());
            }
        });
        let expected: String = (0..1000).map(|number| format!("s | {number}\n")).collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn our_own_log_goes_the_same_way() {
        let log = |output: &OutputHandle| {
            io::Write::write_all(&mut output.make_writer(), b"{\"a\":1}\n").unwrap();
        };
        assert_eq!(joined(Format::Text, log), "pgherd | {\"a\":1}\n");
        assert_eq!(joined(Format::Json, log), "{\"a\":1}\n");
    }

    #[tokio::test]
    async fn a_pipe_is_read_to_its_end_whatever_is_in_it() {
        let (mut read, out) = io::pipe().unwrap();
        let err = out.try_clone().unwrap();
        let output = OutputHandle::new(Format::Text, out.into(), err.into()).unwrap();
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            read.read_to_end(&mut text).unwrap();
            text.len()
        });
        let mut bytes = b"\xff\xfe\n\0\n".to_vec();
        bytes.extend(vec![b'x'; 100_000]);
        let mut seen = 0;
        output.clone().pump("s".into(), Stream::Stdout, &*bytes, |line| seen += line.len()).await;
        assert_eq!(seen, 100_003);
        tokio::task::spawn_blocking(move || assert!(output.flush_and_close(SOON))).await.unwrap();
        assert!(reader.join().unwrap() > 100_003);
    }

    /// The promise of this module: the producer goes on, memory is bounded, and
    /// what is missing is said once somebody reads again.
    #[test]
    fn a_reader_that_stalls_costs_lines_and_nothing_else() {
        let (read, out) = io::pipe().unwrap();
        let err = out.try_clone().unwrap();
        let output = OutputHandle::new(Format::Text, out.into(), err.into()).unwrap();
        let tag = Tag::from("postgres");
        let line = [b'x'; 1000];
        let started = Instant::now();
        for _ in 0..10_000 {
            output.line(&tag, Stream::Stderr, &line);
        }
        assert!(started.elapsed() < SOON, "nobody read, and the producer was blocked");
        let queued = output.0.lock().bytes;
        assert!(queued <= QUEUE_BYTES_MAX, "{queued} bytes are queued");
        assert!(!output.flush_and_close(Duration::from_millis(1)), "nobody has read it");

        let mut lines = BufReader::new(read).lines().map(Result::unwrap);
        let mut passed_on = 0;
        let announced = loop {
            let line = lines.next().expect("the drops are announced before the end");
            if let Some(text) = line.strip_prefix("pgherd | ") {
                break text.to_owned();
            }
            passed_on += 1;
        };
        let dropped = 10_000 - passed_on;
        assert!(dropped > 8000, "{dropped}");
        assert_eq!(
            announced,
            format!(
                "{dropped} lines of postgres were dropped: nobody reads the container's output"
            )
        );
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn lines_flow_again_after_a_stall() {
        let (read, out) = io::pipe().unwrap();
        let err = out.try_clone().unwrap();
        let output = OutputHandle::new(Format::Text, out.into(), err.into()).unwrap();
        for _ in 0..2000 {
            output.line(&"postgres".into(), Stream::Stderr, &[b'x'; 1000]);
        }
        let mut lines = BufReader::new(read).lines().map(Result::unwrap);
        // Announced without anyone writing another line.
        assert!(lines.any(|line| line.contains("lines of postgres were dropped")));
        output.line(&"postgres".into(), Stream::Stdout, b"back");
        assert!(lines.any(|line| line == "postgres | back"));
    }

    #[test]
    fn output_that_cannot_be_written_is_no_reason_to_stop() {
        let full = || File::options().write(true).open("/dev/full").unwrap().into();
        let output = OutputHandle::new(Format::Text, full(), full()).unwrap();
        output.line(&"s".into(), Stream::Stdout, b"lost");
        let (read, gone) = io::pipe().unwrap();
        drop(read);
        let output2 = OutputHandle::new(Format::Text, gone.into(), full()).unwrap();
        output2.line(&"s".into(), Stream::Stdout, b"lost");
        assert!(output.flush_and_close(SOON) && output2.flush_and_close(SOON));
    }

    #[test]
    fn a_non_blocking_pipe_loses_nothing() {
        let (read, out) = io::pipe().unwrap();
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        fcntl(&out, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let err = out.try_clone().unwrap();
        let output = OutputHandle::new(Format::Text, out.into(), err.into()).unwrap();
        for _ in 0..500 {
            output.line(&"s".into(), Stream::Stdout, &[b'x'; 1000]);
        }
        let writer = thread::spawn(move || output.flush_and_close(SOON));
        assert_eq!(BufReader::new(read).lines().count(), 500);
        assert!(writer.join().unwrap());
    }
}
