//! Three data nodes with a vote each, of pgherd or of Patroni, and what befalls them.

use crate::Bench;
use crate::common::container::{Container, PASSWORD, PLACES, docker};
use crate::prober::Prober;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

/// Until a cluster is in order that was just made, or that a node has come back to.
const SETTLES_WITHIN: Duration = Duration::from_secs(240);
/// In order all that time, a cluster is at rest: etcd's members have met and what is known of it is on
/// every node.
const AT_REST_AFTER: Duration = Duration::from_secs(4);
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Whose cluster it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// With the lease that is the default.
    Pgherd,
    /// With the shortest one.
    ShortLease,
    /// At its fastest.
    Patroni,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Pgherd, Kind::ShortLease, Kind::Patroni];

    /// For tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Pgherd => "pgherd",
            Kind::ShortLease => "pgherd, PGHERD_LEASE=2s",
            Kind::Patroni => "Patroni and etcd, ttl 20",
        }
    }

    /// For `BENCH_BESIDE`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Pgherd => "pgherd",
            Kind::ShortLease => "short",
            Kind::Patroni => "patroni",
        }
    }

    /// How a person asks the primary for a switchover to whomever it likes.
    fn switchover(self) -> &'static [&'static str] {
        match self {
            Kind::Pgherd | Kind::ShortLease => &["pgherd", "switchover"],
            Kind::Patroni => {
                &["patronictl", "-c", "/etc/patroni/bench.yml", "switchover", "--force"]
            }
        }
    }
}

/// Removed, with its data, when it goes out of sight.
pub(crate) struct Cluster<'a> {
    pub(crate) kind: Kind,
    pub(crate) bench: &'a Bench,
    pub(crate) nodes: Vec<Container>,
    /// The number of the prober's next row.
    pub(crate) next_row: AtomicI64,
}

impl<'a> Cluster<'a> {
    /// In order, with the table that the prober writes to.
    pub(crate) fn up(bench: &'a Bench, kind: Kind) -> Self {
        let image = bench.image_of(kind);
        // No health check: what docker takes to ask is not what is measured.
        let options = |at: usize| match kind {
            Kind::Pgherd => pgherd_options(at, None),
            Kind::ShortLease => pgherd_options(at, Some("2s")),
            Kind::Patroni => vec!["--init".to_owned(), "--no-healthcheck".to_owned()],
        };
        let node = |at: usize| {
            let options = options(at);
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            image.container(&bench.network, PLACES[at], &options, &[])
        };
        let nodes: Vec<_> = (0..PLACES.len()).map(node).collect();
        nodes.iter().for_each(Container::start);
        let cluster = Cluster { kind, bench, nodes, next_row: AtomicI64::new(0) };
        let primary = cluster.await_rest();
        cluster.nodes[primary].sql("CREATE TABLE written (number bigint PRIMARY KEY)");
        cluster
    }

    /// Writes to all nodes from here on. Somebody takes it already.
    pub(crate) fn probe(&self) -> Prober {
        let prober = Prober::start(&self.next_row);
        prober.await_rows(50);
        prober
    }

    /// Waits until one leads, both others stream from it and one of them is waited for, and nothing
    /// changes any more. Returns the one that leads.
    pub(crate) fn await_rest(&self) -> usize {
        let began = Instant::now();
        let mut since: Option<(usize, Instant)> = None;
        loop {
            let found = self.in_order();
            since = match (&found, since) {
                (Ok(primary), Some((before, at))) if *primary == before => Some((before, at)),
                (Ok(primary), _) => Some((*primary, Instant::now())),
                (Err(_), _) => None,
            };
            if let Some((primary, at)) = since
                && at.elapsed() >= AT_REST_AFTER
            {
                return primary;
            }
            if let Err(why) = found
                && began.elapsed() > SETTLES_WITHIN
            {
                let logs: Vec<_> = self.nodes.iter().map(Container::log).collect();
                panic!("{} is never at rest: {why}\n{}", self.kind.name(), logs.join("\n\n"));
            }
            std::thread::park_timeout(Duration::from_millis(500)); // Spares the machine.
        }
    }

    fn in_order(&self) -> Result<usize, String> {
        let leads = |at: &usize| http(*at, "/primary").is_some_and(|(code, _)| code == 200);
        let primaries: Vec<_> = (0..self.nodes.len()).filter(leads).collect();
        let [primary] = primaries[..] else { return Err(format!("{primaries:?} lead")) };
        let standbys: Vec<_> = (0..self.nodes.len()).filter(|at| *at != primary).collect();
        if !self.is_known_as_synchronous(primary, &standbys) {
            return Err("nobody is known to be synchronous".to_owned());
        }
        if !standbys.iter().all(|at| http(*at, "/replica").is_some_and(|(code, _)| code == 200)) {
            return Err("not all others are standbys".to_owned());
        }
        let streams = "SELECT count(*) || ' ' || count(*) FILTER (WHERE sync_state = 'sync') \
             FROM pg_stat_replication WHERE state = 'streaming'";
        match self.nodes[primary].try_sql(streams)?.as_str() {
            "2 1" => Ok(primary),
            others => Err(format!("standbys and synchronous ones: {others}")),
        }
    }

    /// That a standby has every write is what may let it lead, so it must be agreed on.
    fn is_known_as_synchronous(&self, primary: usize, standbys: &[usize]) -> bool {
        match self.kind {
            Kind::Pgherd | Kind::ShortLease => {
                let status: Value = http(primary, "/status")
                    .and_then(|(_, text)| serde_json::from_str(&text).ok())
                    .unwrap_or_default();
                let rows = status["nodes"].as_array();
                rows.is_some_and(|rows| rows.iter().any(|row| row["sync"] == true))
            }
            Kind::Patroni => standbys
                .iter()
                .any(|at| http(*at, "/synchronous").is_some_and(|(code, _)| code == 200)),
        }
    }

    pub(crate) fn switch_over(&self, primary: usize) {
        docker(&[&["exec", self.nodes[primary].id()], self.kind.switchover()].concat());
    }

    /// The first server of that node.
    pub(crate) fn postmaster(&self, at: usize) -> u32 {
        let all = descendants(self.nodes[at].pid());
        let found = all.into_iter().find(|pid| name_of(*pid) == "postgres");
        found.expect("a server runs")
    }

    /// Every process of that name on that node.
    pub(crate) fn processes(&self, at: usize, name: &str) -> Vec<u32> {
        let all = descendants(self.nodes[at].pid());
        all.into_iter().filter(|pid| name_of(*pid) == name).collect()
    }
}

fn pgherd_options(at: usize, lease: Option<&str>) -> Vec<String> {
    let names = PLACES.map(|place| place.name).join(",");
    let mut all = vec![
        format!("POSTGRES_PASSWORD={PASSWORD}"),
        format!("REPMGR_STREAMING_PASSWORD={PASSWORD}"),
        format!("REPMGR_NODE_NAME={}", PLACES[at].name),
        format!("REPMGR_MASTER={}", at == 0),
        format!("PGHERD_VOTERS={names}"),
        "PGHERD_BACKUPS=elsewhere".to_owned(), // Patroni makes none either.
    ];
    all.extend(lease.map(|lease| format!("PGHERD_LEASE={lease}")));
    if at > 0 {
        all.push(format!("REPMGR_MASTER_HOST={}", PLACES[0].name));
    }
    let variables = all.into_iter().flat_map(|variable| ["-e".to_owned(), variable]);
    variables.chain(["--no-healthcheck".to_owned()]).collect()
}

/// Code and body of what a node answers on port 8008; `None` where none comes.
fn http(at: usize, path: &str) -> Option<(u16, String)> {
    let address: SocketAddr = format!("{}:8008", PLACES[at].address).parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWERS_WITHIN).ok()?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN)).ok()?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
        PLACES[at].name
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// `root`, and all below it, parents before children.
fn descendants(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut at = 0;
    while let Some(pid) = all.get(at).copied() {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    all
}

fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}
