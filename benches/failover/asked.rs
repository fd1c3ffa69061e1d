//! `GET /primary` a thousand times a second: what load balancers ask, and more often than any of them does.

use crate::cluster::{Cluster, Kind};
use crate::common::container::PLACES;
use crate::common::number;
use crate::common::numbers::aim;
use crate::common::process::{cpu_ms, halves, settle};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const A_SECOND: u32 = 1000;
/// One alone could not keep up with it on a busy machine.
const THREADS: u32 = 4;
const ANSWER_AT_MOST: Duration = Duration::from_secs(1);
/// Of a core, in percent.
const CPU_AT_MOST: f64 = 5.0;

/// How it connects.
#[derive(Clone, Copy)]
pub(crate) enum Over {
    /// As load balancers do: anew for each question.
    OneEach,
    /// As clients that ask often do: as long as the node keeps it.
    Kept,
}

/// Asks until it goes out of sight.
pub(crate) struct Load {
    enough: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Evenly spread over the second.
    pub(crate) fn on(node: usize, over: Over) -> Self {
        let address: SocketAddr = format!("{}:8008", PLACES[node].address).parse().expect("ours");
        let (enough, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..THREADS).map(|_| {
            let (enough, answered) = (Arc::clone(&enough), Arc::clone(&answered));
            std::thread::spawn(move || {
                let every = Duration::from_secs(1) * THREADS / A_SECOND;
                let mut next = Instant::now();
                let mut kept = None;
                while !enough.load(Ordering::Relaxed) {
                    let stream = kept.take().or_else(|| connect(address));
                    if let Some((true, stream)) = stream.and_then(|stream| ask(stream, over)) {
                        kept = stream;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    // Who is behind does not hurry afterwards.
                    next = (next + every).max(Instant::now());
                    std::thread::park_timeout(next - Instant::now());
                }
            })
        });
        let threads = threads.collect();
        Load { enough, answered, threads }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Until it has come up to speed.
    pub(crate) fn await_answers(&self) {
        let began = Instant::now();
        while self.answered() < u64::from(A_SECOND) {
            assert!(began.elapsed() < Duration::from_secs(30), "the node hardly answers");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

type Stream = BufReader<TcpStream>;

fn connect(address: SocketAddr) -> Option<Stream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_AT_MOST).ok()?;
    stream.set_read_timeout(Some(ANSWER_AT_MOST)).ok()?;
    stream.set_nodelay(true).ok()?;
    Some(BufReader::new(stream))
}

/// Whether it leads, and the connection where it is kept.
fn ask(mut stream: Stream, over: Over) -> Option<(bool, Option<Stream>)> {
    let mut keep = matches!(over, Over::Kept);
    let connection = if keep { "keep-alive" } else { "close" };
    let question =
        format!("GET /primary HTTP/1.1\r\nHost: node1\r\nConnection: {connection}\r\n\r\n");
    stream.get_mut().write_all(question.as_bytes()).ok()?;
    let (mut line, mut leads, mut length) = (String::new(), false, 0);
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        leads |= line.starts_with("HTTP/1.1 200");
        keep &= line.trim_end() != "connection: close";
        if let Some(bytes) = line.strip_prefix("content-length: ") {
            length = bytes.trim().parse().ok()?;
        }
    }
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some((leads, keep.then_some(stream)))
}

/// Prints what it costs the primary.
pub(crate) fn measure(cluster: &Cluster<'_>) {
    assert_ne!(cluster.kind, Kind::Patroni, "the halves are pgherd's");
    let window = Duration::from_secs(number("BENCH_ASKED_SECONDS", 60).into());
    let primary = cluster.await_rest();
    let both = halves(cluster.nodes[primary].pid());
    settle(&both);
    let quiet = cpu_in(&both, window / 4);
    for (over, how) in [(Over::OneEach, "over a connection each"), (Over::Kept, "over kept ones")] {
        let load = Load::on(primary, over);
        load.await_answers();
        let (before, began) = (load.answered(), Instant::now());
        let asked = cpu_in(&both, window);
        let answered = (load.answered() - before) as f64 / began.elapsed().as_secs_f64();
        println!(
            "\n{}, GET /primary {how}, {answered:.0} times a second over {} s: {asked:.2} % of a core, \
             {quiet:.2} % without",
            cluster.kind.name(),
            window.as_secs(),
        );
        aim(&format!("a thousand questions a second {how}"), asked, CPU_AT_MOST, "% of a core");
    }
}

/// In percent of a core, while `window` passes.
fn cpu_in(pids: &[u32], window: Duration) -> f64 {
    let (before, began) = (cpu_ms(pids), Instant::now());
    while began.elapsed() < window {
        std::thread::park_timeout(window.saturating_sub(began.elapsed()));
    }
    (cpu_ms(pids) - before) / (began.elapsed().as_secs_f64() * 10.0)
}
