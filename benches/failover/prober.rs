//! Writes a row to every node each few milliseconds, and remembers who acknowledged which, and when.

use crate::common::container::{PASSWORD, PLACES};
use crate::record::{Record, Write};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// To each node.
const EVERY: Duration = Duration::from_millis(10);
/// A node that is gone answers nothing. On one network, an answer takes less than a millisecond.
const CONNECTS_WITHIN: Duration = Duration::from_millis(250);
/// Patroni at its fastest takes some 22 s.
const SOMEBODY_WITHIN: Duration = Duration::from_secs(120);
/// The timeline that it is written on.
const TIMELINE: &str = "RETURNING substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";

/// Runs until [`Prober::end`].
pub(crate) struct Prober {
    enough: watch::Sender<bool>,
    writes: Arc<Mutex<Vec<Write>>>,
    thread: JoinHandle<i64>,
}

/// What the writers share.
struct Shared {
    writes: Arc<Mutex<Vec<Write>>>,
    next: AtomicI64,
}

impl Prober {
    /// From a thread of its own; rows are numbered from `next` on.
    pub(crate) fn start(next: &AtomicI64) -> Self {
        let writes = Arc::new(Mutex::new(Vec::new()));
        let (enough, told) = watch::channel(false);
        let first = next.load(Ordering::Relaxed);
        let shared = Shared { writes: Arc::clone(&writes), next: AtomicI64::new(first) };
        let shared = Arc::new(shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("epoll").block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for node in 0..PLACES.len() {
                    let (shared, mut told) = (Arc::clone(&shared), told.clone());
                    tasks.spawn(async move {
                        // A session with a node that is gone never answers, nor breaks.
                        tokio::select! {
                            () = write_to(node, &shared) => {}
                            _ = told.wait_for(|enough| *enough) => {}
                        }
                    });
                }
                tasks.join_all().await;
            });
            shared.next.load(Ordering::Relaxed)
        });
        Prober { enough, writes, thread }
    }

    /// Waits until so many rows more have been acknowledged, by anybody.
    pub(crate) fn await_rows(&self, more: usize) {
        let before = self.count(|_| true);
        self.await_that(|| self.count(|_| true) >= before + more);
    }

    /// Waits until somebody else than `node` has acknowledged a row.
    pub(crate) fn await_elsewhere(&self, node: usize) {
        self.await_that(|| self.count(|write| write.node != node) > 0);
    }

    /// For so long, and then somebody takes rows still.
    pub(crate) fn goes_on_for(&self, span: Duration) {
        let began = Instant::now();
        while began.elapsed() < span {
            self.await_rows(5);
        }
    }

    /// Stops, and hands out what was acknowledged; `next` is the number of the next row then.
    pub(crate) fn end(self, next: &AtomicI64) -> Record {
        self.enough.send_replace(true);
        let reached = self.thread.join().expect("the prober does not panic");
        next.store(reached, Ordering::Relaxed);
        Record::new(self.writes.lock().expect("nobody panics with it").clone())
    }

    fn count(&self, which: impl Fn(&Write) -> bool) -> usize {
        let writes = self.writes.lock().expect("nobody panics with it");
        writes.iter().filter(|write| which(write)).count()
    }

    fn await_that(&self, condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < SOMEBODY_WITHIN, "nobody takes writes");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// A session, and whether the node takes writes as far as is known.
struct Session {
    client: Client,
    writes: bool,
}

/// For ever.
async fn write_to(node: usize, shared: &Shared) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session = None;
    loop {
        ticks.tick().await;
        if session.is_none() {
            session = connect(node).await;
        }
        if let Some(open) = session.take() {
            session = write_one(open, node, shared).await;
        }
    }
}

/// A row, if the node takes it. The session is gone after an error: the server may go down, and has no
/// more to say to this one.
async fn write_one(mut session: Session, node: usize, shared: &Shared) -> Option<Session> {
    if !session.writes {
        // A standby would log each refusal.
        session.writes = ask(&session.client, "SELECT pg_is_in_recovery()").await? == "f";
    }
    if session.writes {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let sent = Instant::now();
        let insert = format!("INSERT INTO written VALUES ({number}) {TIMELINE}");
        let timeline = ask(&session.client, &insert).await?;
        let acknowledged = Instant::now();
        let timeline = u32::from_str_radix(&timeline, 16).expect("eight hexadecimal digits");
        let write = Write { node, timeline, number, sent, acknowledged };
        shared.writes.lock().expect("nobody panics with it").push(write);
    }
    Some(session)
}

async fn connect(node: usize) -> Option<Session> {
    let mut config = Config::new();
    config.host(PLACES[node].address).user("postgres").password(PASSWORD).dbname("postgres");
    let (client, connection) = timeout(CONNECTS_WITHIN, config.connect(NoTls)).await.ok()?.ok()?;
    tokio::spawn(connection); // Ends with the client.
    Some(Session { client, writes: false })
}

/// The one value of the answer.
async fn ask(client: &Client, query: &str) -> Option<String> {
    let rows = client.simple_query(query).await.ok()?;
    rows.into_iter().find_map(|message| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        row.get(0).map(str::to_owned)
    })
}
