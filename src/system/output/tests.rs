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
    output
        .clone()
        .pump("s".into(), Stream::Stdout, &*bytes, |line| {
            seen += line.len();
            Say::It
        })
        .await;
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
        format!("{dropped} lines of postgres were dropped: nobody reads the container's output")
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
