//! Containers in a network of the bench's own, so that their address is known before they start.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

/// Unlikely to be anybody's.
const SUBNET: &str = "10.213.77.0/24";
const ADDRESS: &str = "10.213.77.10";
pub(crate) const PASSWORD: &str = "not-the-default";
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs docker and returns what it printed.
pub(crate) fn docker(args: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "the bench drives docker")]
    let output = Command::new("docker").args(args).stdin(Stdio::null()).output();
    let output = output.expect("docker can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "docker {args:?}: {said}");
    // A container's own talk comes with `logs`.
    format!("{}{said}", String::from_utf8_lossy(&output.stdout)).trim().to_owned()
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
pub(crate) struct Container(String);

impl Container {
    /// Makes it and does not start it.
    pub(crate) fn create(network: &Network, args: &[&str]) -> Self {
        let fixed = ["create", "--label", "pgherd.story=1", "--hostname", "node1"];
        let place = ["--network", &network.0, "--ip", ADDRESS];
        Container(docker(&[&fixed[..], &place, args].concat()))
    }

    pub(crate) fn id(&self) -> &str {
        &self.0
    }

    pub(crate) fn start(&self) {
        docker(&["start", &self.0]);
    }

    /// From the start of its first process to the first answer to a query over TCP, in ms.
    pub(crate) fn start_to_first_query(&self, runtime: &Runtime, database: &str) -> f64 {
        self.start();
        let began = Instant::now();
        while !runtime.block_on(answers(database)) {
            let ended = self.inspect("{{.State.Running}}") == "false";
            assert!(!ended && began.elapsed() < PATIENCE, "it does not serve: {}", self.log());
        }
        let answered = seconds_of_the_day();
        let started = parse_seconds_of_the_day(&self.inspect("{{.State.StartedAt}}"));
        (answered - started).rem_euclid(86_400.0) * 1e3
    }

    /// Stops it in order, Postgres' fast way, whoever is its first process.
    pub(crate) fn stop(&self, signal: &str) {
        docker(&["kill", "-s", signal, &self.0]);
        docker(&["wait", &self.0]);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.inspect("{{.State.Pid}}").parse().expect("a number")
    }

    pub(crate) fn log(&self) -> String {
        docker(&["logs", &self.0])
    }

    fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "-f", format, &self.0])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "-f", "-v", &self.0]);
    }
}

/// Asks until it is answered or a second is over, with a millisecond between questions.
async fn answers(database: &str) -> bool {
    let mut pause = tokio::time::interval(Duration::from_millis(1));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        if query(database).await.is_ok() {
            return true;
        }
        pause.tick().await;
    }
    false
}

async fn query(database: &str) -> Result<(), tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(ADDRESS).user("postgres").password(PASSWORD).dbname(database);
    let (client, connection) =
        config.connect_timeout(Duration::from_secs(1)).connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    let answer = client.simple_query("SELECT 1").await;
    drop(client);
    let _ = connection.await; // Its end is what was asked for.
    answer.map(drop)
}

fn seconds_of_the_day() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    now.as_secs_f64() % 86_400.0
}

/// Of docker's `2026-11-20T20:02:38.887860123Z`.
fn parse_seconds_of_the_day(time: &str) -> f64 {
    let clock = time.split('T').nth(1).unwrap_or_default().trim_end_matches('Z');
    clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap_or(f64::NAN))
}
