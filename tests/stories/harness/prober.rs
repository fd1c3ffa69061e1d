//! Writes to whoever takes it, and to every node, all the time; knows in the end whether two took
//! writes at once, and whether one that was acknowledged is missing.

use super::{Cluster, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

type Addresses = Arc<std::sync::Mutex<Vec<Option<String>>>>;

/// Each node is asked to take a write this often.
const EVERY: Duration = Duration::from_millis(100);
/// A session that goes on says nothing about whether a new one would be let in.
const SESSION_AT_MOST: Duration = Duration::from_secs(1);
/// A frozen node answers nothing.
const ANSWER_AT_MOST: Duration = Duration::from_secs(2);

/// Runs until [`Prober::end`].
#[derive(Debug)]
pub struct Prober {
    enough: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU32>,
    thread: Option<JoinHandle<Vec<Write>>>,
    forgiven: Vec<Forgiven>,
}

/// What a node acknowledged up to a moment, and nobody else had then.
#[derive(Clone, Debug)]
struct Forgiven {
    node: String,
    /// Greater numbers than this.
    after: i64,
    until: Instant,
}

/// An acknowledged write.
#[derive(Clone, Debug)]
struct Write {
    node: String,
    timeline: u32,
    /// Of a row that must be there in the end; a mere attempt has none.
    number: Option<i64>,
    /// It was taken some time between these two.
    sent: Instant,
    acknowledged: Instant,
}

/// What was acknowledged.
#[derive(Debug)]
pub struct Record {
    writes: Vec<Write>,
    forgiven: Vec<Forgiven>,
}

impl Prober {
    /// From a thread of its own.
    pub(super) fn start(names: Vec<String>, addresses: Addresses, password: &str) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU32::new(0));
        let shared = (Arc::clone(&enough), Arc::clone(&acknowledged), password.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let (told, counter, password) = shared;
            runtime.expect("a runtime").block_on(probe(names, addresses, password, told, counter))
        });
        Prober { enough, acknowledged, thread: Some(thread), forgiven: Vec::new() }
    }

    /// Waits until somebody has taken a few rows more.
    pub fn await_rows(&self) {
        let enough = self.acknowledged.load(Ordering::Relaxed) + 5;
        super::await_that("somebody takes the prober's rows", || {
            (self.acknowledged.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    /// For so long, somebody takes rows all the time: nothing happens.
    pub fn goes_on_for(&self, span: Duration) {
        let began = Instant::now();
        while began.elapsed() < span {
            self.await_rows();
        }
    }

    /// How many rows were acknowledged so far.
    pub fn rows_so_far(&self) -> u32 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Rows that `lost` acknowledged and `survivor` has not replayed by now may be missing in the
    /// end: nothing else has them. Returns the last number that must be there.
    pub fn forgive(&mut self, lost: &Node, survivor: &Node) -> i64 {
        let greatest = survivor.ask("SELECT coalesce(max(number), 0) FROM written");
        let after = greatest.parse().expect("a number");
        self.forgiven.push(Forgiven { node: lost.name.clone(), after, until: Instant::now() });
        after
    }

    /// A person has the cluster go back: rows after that one which `lost` has acknowledged by now are no more.
    pub fn forgive_after(&mut self, lost: &Node, after: i64) {
        let forgiven = Forgiven { node: lost.name.clone(), after, until: Instant::now() };
        self.forgiven.push(forgiven);
    }

    /// Stops, and looks at what there is: nobody took a write while another did, no acknowledged
    /// row is missing on `primary` or differs elsewhere, and no log holds a password.
    pub fn end(mut self, cluster: &Cluster, primary: usize, standbys: &[usize]) -> Record {
        self.enough.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        let writes = thread.join().expect("the prober does not panic");
        let record = Record { writes, forgiven: std::mem::take(&mut self.forgiven) };
        println!("{}", record.reigns());
        assert_eq!(record.two_at_once(), Vec::<String>::new());
        let rows = rows(cluster.node(primary));
        assert_eq!(record.missing(&rows), BTreeSet::new(), "acknowledged and not there");
        for standby in standbys {
            super::await_follows(cluster.node(*standby), cluster.node(primary));
            let there = self::rows(cluster.node(*standby));
            assert_eq!(there, rows, "node{standby} has what node{primary} has");
        }
        cluster.keeps_its_secrets();
        record
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed); // A story that failed lets go of it.
    }
}

fn rows(node: &Node) -> BTreeSet<i64> {
    let rows = node.ask("SELECT number FROM written ORDER BY 1");
    rows.lines().map(|row| row.parse().expect("a number")).collect()
}

impl Record {
    /// How many rows `node` acknowledged.
    pub fn taken_by(&self, node: &str) -> usize {
        self.writes.iter().filter(|write| write.node == node && write.number.is_some()).count()
    }

    /// The longest time without an acknowledged row.
    pub fn longest_gap(&self) -> Duration {
        let rows = self.writes.iter().filter(|write| write.number.is_some());
        let mut at: Vec<_> = rows.map(|write| write.acknowledged).collect();
        at.sort_unstable();
        at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// On which timelines rows were taken.
    pub fn timelines(&self) -> BTreeSet<u32> {
        self.writes.iter().map(|write| write.timeline).collect()
    }

    /// Which nodes took any write at all.
    pub fn writers(&self) -> BTreeSet<&str> {
        self.writes.iter().map(|write| write.node.as_str()).collect()
    }

    /// Acknowledged by whoever was lost, and on nobody who survived.
    pub fn unacknowledged_in_the_end(&self) -> BTreeSet<i64> {
        let is_forgiven = |write: &&Write| {
            self.forgiven.iter().any(|one| {
                write.node == one.node
                    && write.acknowledged <= one.until
                    && write.number.is_some_and(|number| number > one.after)
            })
        };
        self.writes.iter().filter(is_forgiven).filter_map(|write| write.number).collect()
    }

    fn missing(&self, there: &BTreeSet<i64>) -> BTreeSet<i64> {
        let all: BTreeSet<_> = self.writes.iter().filter_map(|write| write.number).collect();
        let forgiven = self.unacknowledged_in_the_end();
        all.difference(there).filter(|number| !forgiven.contains(*number)).copied().collect()
    }

    /// Who took writes on which timeline, first and last.
    fn by_reign(&self) -> BTreeMap<(u32, &str), Vec<&Write>> {
        let mut reigns: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for write in &self.writes {
            reigns.entry((write.timeline, write.node.as_str())).or_default().push(write);
        }
        reigns
    }

    /// For a person: a line each.
    fn reigns(&self) -> String {
        let began = self.writes.iter().map(|write| write.sent).min();
        let since = |at: Instant| began.map_or(0.0, |began| (at - began).as_secs_f64());
        let line = |((timeline, node), writes): (&(u32, &str), &Vec<&Write>)| {
            let first = writes.iter().map(|write| since(write.sent)).fold(f64::MAX, f64::min);
            let last = writes.iter().map(|write| since(write.acknowledged)).fold(0.0, f64::max);
            format!("prober: {node} on {timeline}: {} from {first:.2} to {last:.2} s", writes.len())
        };
        self.by_reign().iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// What must not be: two nodes on one timeline; a write of one that was surely taken while
    /// another was surely taking some; one that goes back to an older timeline.
    fn two_at_once(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let reigns = self.by_reign();
        for ((timeline, node), writes) in &reigns {
            for ((other_timeline, other), others) in &reigns {
                if (timeline, node) == (other_timeline, other) {
                    continue;
                }
                if timeline == other_timeline {
                    wrong.push(format!("{node} and {other} both wrote on timeline {timeline}"));
                }
                // Taken after its first acknowledgement and before its last request.
                let from = others.iter().map(|write| write.acknowledged).min();
                let to = others.iter().map(|write| write.sent).max();
                let (Some(from), Some(to)) = (from, to) else { continue };
                let within = |write: &&&Write| write.sent >= from && write.acknowledged <= to;
                let count = writes.iter().filter(within).count();
                if count > 0 {
                    wrong.push(format!(
                        "{node} took {count} writes on timeline {timeline} \
                         while {other} took some on {other_timeline}"
                    ));
                }
                let last = writes.iter().map(|write| write.sent).max();
                if timeline < other_timeline && last.is_some_and(|last| last > from) {
                    wrong.push(format!(
                        "{node} took writes on timeline {timeline} \
                         after {other} had taken some on {other_timeline}"
                    ));
                }
            }
        }
        wrong
    }
}

/// A session with one node, opened again as often as it must.
struct Session {
    node: usize,
    password: String,
    addresses: Addresses,
    lasts: Duration,
    open: Option<(Client, Instant, String)>,
}

impl Session {
    fn address(&self) -> Option<String> {
        self.addresses.lock().expect("nobody panics with it")[self.node].clone()
    }

    /// Runs it; `None` for whatever is not an acknowledgement. Says whether the table is missing.
    async fn run(&mut self, statement: &str) -> Option<Result<String, bool>> {
        let address = self.address();
        let stale = |(_, since, at): &(Client, Instant, String)| {
            since.elapsed() > self.lasts || Some(at) != address.as_ref()
        };
        if self.open.as_ref().is_some_and(stale) {
            self.open = None;
        }
        if self.open.is_none() {
            let address = address?;
            let mut config = Config::new();
            config.host(&address).user("postgres").password(&self.password).dbname("postgres");
            config.application_name("prober");
            let (client, connection) =
                timeout(ANSWER_AT_MOST, config.connect(NoTls)).await.ok()?.ok()?;
            tokio::spawn(connection); // Ends with the client.
            if self.address() != Some(address.clone()) {
                return None; // It may be somebody else's by now.
            }
            self.open = Some((client, Instant::now(), address));
        }
        let (client, ..) = self.open.as_ref()?;
        match timeout(ANSWER_AT_MOST, client.simple_query(statement)).await {
            Ok(Ok(messages)) => Some(Ok(messages.into_iter().find_map(value).unwrap_or_default())),
            Ok(Err(error)) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Some(Err(true)),
            Ok(Err(error)) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => {
                Some(Err(false))
            }
            _ => {
                self.open = None;
                None
            }
        }
    }
}

fn value(message: SimpleQueryMessage) -> Option<String> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    row.get(0).map(str::to_owned)
}

const TABLES: &str = "CREATE TABLE IF NOT EXISTS written (number bigint PRIMARY KEY); \
     CREATE TABLE IF NOT EXISTS tried (node text)";
/// The timeline that it is written on.
const TIMELINE: &str = "RETURNING substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";

async fn probe(
    names: Vec<String>,
    addresses: Addresses,
    password: String,
    enough: Arc<AtomicBool>,
    counter: Arc<AtomicU32>,
) -> Vec<Write> {
    let session = |node, lasts| Session {
        node,
        lasts,
        password: password.clone(),
        addresses: Arc::clone(&addresses),
        open: None,
    };
    let mut tasks = tokio::task::JoinSet::new();
    for (node, name) in names.iter().cloned().enumerate() {
        tasks.spawn(try_one(session(node, SESSION_AT_MOST), name, Arc::clone(&enough)));
    }
    let all = (0..names.len()).map(|node| session(node, Duration::MAX)).collect();
    tasks.spawn(write_rows(all, names, enough, counter));
    tasks.join_all().await.into_iter().flatten().collect()
}

/// Tries to write to one node.
async fn try_one(mut session: Session, name: String, enough: Arc<AtomicBool>) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut ticks = ticks();
    let statement = format!("INSERT INTO tried VALUES ('{name}') {TIMELINE}");
    while !enough.load(Ordering::Relaxed) {
        ticks.tick().await;
        let sent = Instant::now();
        match session.run(&statement).await {
            Some(Ok(timeline)) => writes.push(write(&name, &timeline, None, sent)),
            Some(Err(true)) => {
                session.run(TABLES).await;
            }
            Some(Err(false)) | None => {}
        }
    }
    writes
}

/// Writes numbered rows to whoever takes them. A number is sent once: whether one that was not
/// acknowledged is there, nobody knows.
async fn write_rows(
    mut sessions: Vec<Session>,
    names: Vec<String>,
    enough: Arc<AtomicBool>,
    counter: Arc<AtomicU32>,
) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut ticks = ticks();
    let mut number = 0;
    let mut node = 0;
    while !enough.load(Ordering::Relaxed) {
        ticks.tick().await;
        number += 1;
        let statement = format!("INSERT INTO written VALUES ({number}) {TIMELINE}");
        let sent = Instant::now();
        match sessions[node].run(&statement).await {
            Some(Ok(timeline)) => {
                writes.push(write(&names[node], &timeline, Some(number), sent));
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Some(Err(_)) | None => node = (node + 1) % names.len(),
        }
    }
    writes
}

fn write(node: &str, timeline: &str, number: Option<i64>, sent: Instant) -> Write {
    let timeline = u32::from_str_radix(timeline, 16).expect("eight hexadecimal digits");
    Write { node: node.to_owned(), timeline, number, sent, acknowledged: Instant::now() }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Of a prober that nobody may trust otherwise.
#[cfg(test)]
mod tests {
    use super::*;

    fn record(writes: &[(&str, u32, u64, u64)]) -> Record {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let write =
            |(number, (node, timeline, sent, acknowledged)): (i64, &(&str, u32, u64, u64))| Write {
                node: (*node).to_owned(),
                timeline: *timeline,
                number: Some(number),
                sent: at(*sent),
                acknowledged: at(*acknowledged),
            };
        let writes = (1..).zip(writes).map(write).collect();
        Record { writes, forgiven: Vec::new() }
    }

    #[test]
    fn one_after_the_other_is_in_order() {
        let record =
            record(&[("a", 1, 0, 5), ("a", 1, 10, 20), ("b", 2, 15, 30), ("a", 3, 40, 41)]);
        assert_eq!(record.two_at_once(), Vec::<String>::new());
    }

    #[test]
    fn two_at_once_are_found() {
        for writes in [
            &[("a", 1, 0, 5), ("b", 2, 6, 7), ("a", 1, 10, 20)][..], // b while a wrote
            &[("a", 1, 0, 5), ("b", 1, 6, 7)],                       // the same timeline
            &[("b", 2, 0, 5), ("a", 1, 6, 7)],                       // an older one
        ] {
            assert_ne!(record(writes).two_at_once(), Vec::<String>::new(), "{writes:?}");
        }
    }

    #[test]
    fn only_what_was_lost_with_its_node_may_be_missing() {
        let mut record = record(&[("a", 1, 0, 1), ("a", 1, 2, 3), ("a", 1, 4, 5), ("b", 2, 6, 7)]);
        assert_eq!(record.missing(&[1, 2, 3].into()), [4].into());
        let until = record.writes[2].acknowledged;
        record.forgiven.push(Forgiven { node: "a".to_owned(), after: 2, until });
        assert_eq!(record.missing(&[1, 2, 4].into()), BTreeSet::new());
        assert_eq!(record.missing(&[1, 3, 4].into()), [2].into());
        assert_eq!(record.unacknowledged_in_the_end(), [3].into());
    }
}
