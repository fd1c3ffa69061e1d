//! Containers in a network of the bench's own, so that their address is known before they start.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Unlikely to be anybody's.
const SUBNET: &str = "10.213.77.0/24";
pub(crate) const PASSWORD: &str = "not-the-default";
/// A copy of 4 GB on a slow disk, and more.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How often one looks whether a container that does not answer still runs. Seldom, because an answer
/// that comes meanwhile is noticed late.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a container is called in the network, and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) address: &'static str,
}

/// As many as a cluster has at most.
pub(crate) const PLACES: [Place; 3] = [
    Place { name: "node1", address: "10.213.77.10" },
    Place { name: "node2", address: "10.213.77.11" },
    Place { name: "node3", address: "10.213.77.12" },
];

/// What a server is asked until it answers with a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) database: &'a str,
    pub(crate) sql: &'a str,
}

/// Whether it serves.
pub(crate) fn serves(database: &str) -> Question<'_> {
    Question { database, sql: "SELECT 1" }
}

/// Whether it serves and receives what its master writes.
pub(crate) const STREAMS: Question<'_> = Question {
    database: "postgres",
    sql: "SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'",
};

/// Runs docker and returns what it printed; it must succeed.
pub(crate) fn docker(args: &[&str]) -> String {
    try_docker(args).unwrap_or_else(|said| panic!("docker {args:?}: {said}"))
}

/// The same. An error is what docker said about it.
pub(crate) fn try_docker(args: &[&str]) -> Result<String, String> {
    #[expect(clippy::disallowed_methods, reason = "the bench drives docker")]
    let output = Command::new("docker").args(args).stdin(Stdio::null()).output();
    let output = output.expect("docker can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // A container's own talk comes with `logs`.
    let all = format!("{}{said}", String::from_utf8_lossy(&output.stdout)).trim().to_owned();
    output.status.success().then_some(all).ok_or(said)
}

/// Removed at the end of the bench.
pub(crate) struct Network(String);

impl Network {
    pub(crate) fn new() -> Self {
        let name = format!("pgherd-bench-{}", std::process::id());
        docker(&["network", "create", "--subnet", SUBNET, "--label", "pgherd.story=1", &name]);
        Network(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        docker(&["network", "rm", &self.0]);
    }
}

/// Removed, with its volumes, when it goes out of sight.
pub(crate) struct Container {
    id: String,
    place: Place,
}

impl Container {
    /// Makes it and does not start it.
    pub(crate) fn create(network: &Network, place: Place, args: &[&str]) -> Self {
        let fixed = ["create", "--label", "pgherd.story=1", "--hostname", place.name];
        let there = ["--network", &network.0, "--network-alias", place.name, "--ip", place.address];
        Container { id: docker(&[&fixed[..], &there, args].concat()), place }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn start(&self) {
        docker(&["start", &self.id]);
    }

    /// Waits until it answers with a row; panics with its log if it ends before.
    pub(crate) fn await_answer(&self, runtime: &Runtime, question: Question<'_>) {
        let began = Instant::now();
        while !runtime.block_on(answers(self.place.address, question)) {
            let ended = self.inspect("{{.State.Running}}") == "false";
            assert!(!ended && began.elapsed() < PATIENCE, "it does not serve: {}", self.log());
        }
    }

    /// Stops it in order, Postgres' fast way, whoever is its first process.
    pub(crate) fn stop(&self, signal: &str) {
        docker(&["kill", "-s", signal, &self.id]);
        docker(&["wait", &self.id]);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.inspect("{{.State.Pid}}").parse().expect("a number")
    }

    pub(crate) fn log(&self) -> String {
        docker(&["logs", &self.id])
    }

    /// What psql in it answers, as the superuser.
    pub(crate) fn sql(&self, statements: &str) -> String {
        self.try_sql(statements).unwrap_or_else(|said| panic!("{statements}: {said}"))
    }

    /// The same from one that may go down just now.
    pub(crate) fn try_sql(&self, statements: &str) -> Result<String, String> {
        let psql = ["exec", "-u", "postgres", &self.id, "psql", "-qAt", "-v", "ON_ERROR_STOP=1"];
        try_docker(&[&psql[..], &["-d", "postgres", "-c", statements]].concat())
    }

    pub(crate) fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "-f", format, &self.id])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "-f", "-v", &self.id]);
    }
}

/// Asks until there is a row or it is time to look, with a millisecond between questions, and all over
/// one connection: each costs the server a process.
async fn answers(address: &str, question: Question<'_>) -> bool {
    let mut pause = tokio::time::interval(Duration::from_millis(1));
    let mut connected = None;
    let mut answered = false;
    let began = Instant::now();
    while !answered && began.elapsed() < LOOK_EVERY {
        pause.tick().await;
        if connected.is_none() {
            connected = connect(address, question.database).await.ok();
        }
        let Some((client, _)) = &connected else { continue };
        let rows = client.simple_query(question.sql).await;
        let is_row = |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(_));
        answered = rows.as_ref().is_ok_and(|rows| rows.iter().any(is_row));
        if rows.is_err() {
            connected = None;
        }
    }
    if let Some((client, connection)) = connected {
        drop(client);
        let _ = connection.await; // Its end is what was asked for.
    }
    answered
}

/// Ends with its client.
type Connection = tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>;

async fn connect(
    address: &str,
    database: &str,
) -> Result<(tokio_postgres::Client, Connection), tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(address).user("postgres").password(PASSWORD).dbname(database);
    let (client, connection) =
        config.connect_timeout(Duration::from_secs(1)).connect(NoTls).await?;
    Ok((client, tokio::spawn(connection)))
}
