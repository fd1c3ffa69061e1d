//! Clusters that choose who leads: three data nodes with a vote each, at the lease that users get.

use super::{Cluster, Node, Recipe, await_within};
use serde_json::Value;
use std::time::{Duration, Instant};

/// What may be asked of a node's HTTP port is for whoever shows this.
pub const TOKEN: &str = "hush-control-token-6";
/// The one that is in force where nobody says another.
pub const LEASE: Duration = Duration::from_secs(4);
/// From the loss of a primary to the next one: the lease, and what a noisy machine takes to promote.
pub const LEADS_WITHIN: Duration = Duration::from_secs(15);
/// Until a fresh cluster, or one that was healed, is in order.
const SETTLES_WITHIN: Duration = Duration::from_secs(90);

impl Cluster {
    /// Three of them, or five; made and not started.
    pub fn voting(count: usize, change: impl Fn(usize, Recipe) -> Recipe) -> Self {
        let names: Vec<_> = (1..=count).map(|id| format!("node{id}")).collect();
        let voters = names.join(",");
        Self::with(count, |id, recipe| {
            let recipe = recipe
                .env("PGHERD_FAILOVER", "quorum")
                .env("PGHERD_VOTERS", &voters)
                .env("PGHERD_CONTROL_TOKEN", TOKEN);
            change(id, recipe)
        })
    }

    /// All of them up and in order, node1 leading, and a standby that has every acknowledged write.
    pub fn voting_up(count: usize) -> Self {
        let cluster = Self::voting(count, |_, recipe| recipe);
        cluster.begin_voting();
        cluster
    }

    /// See [`Cluster::voting_up`].
    pub fn begin_voting(&self) {
        for node in self.nodes() {
            self.start(node.id);
        }
        let others: Vec<_> = (2..=self.nodes().len()).collect();
        self.await_order(1, &others);
        self.await_synchronous(1);
        let voters: Vec<_> = (1..=self.nodes().len()).collect();
        self.await_electorate(&voters);
    }

    /// Waits until each one's etcd is a member of the same cluster, and has a leader there: while one has
    /// still to join, another that is lost would leave no majority.
    pub fn await_electorate(&self, voters: &[usize]) {
        let script = "cd $(dirname $(find /var/lib/postgresql /home/barman -path '*/etcd/tls/ca.pem' 2>/dev/null)) \
             && ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:2379 --cacert=ca.pem --cert=node.pem \
             --key=node.key endpoint status -w json";
        let led = |id: &usize| {
            let said = self.node(*id).exec(["bash", "-c", script]).stdout;
            let all: Value = serde_json::from_str(&said).ok()?;
            let status = &all[0]["Status"];
            status["leader"].as_u64().filter(|leader| *leader != 0)?;
            Some(status["header"]["cluster_id"].to_string())
        };
        await_within(SETTLES_WITHIN, "all vote in one cluster", || {
            let all: Vec<_> = voters.iter().map(led).collect();
            (all[0].is_some() && all.iter().all(|one| *one == all[0])).then_some(())
        });
    }

    /// The nodes that say that they take writes.
    pub fn primaries(&self) -> Vec<usize> {
        let says = |node: &&Node| node.http("/primary").is_some_and(|(code, _)| code == 200);
        self.nodes().iter().filter(says).map(|node| node.id).collect()
    }

    /// Waits until one of `among` takes writes.
    pub fn await_primary(&self, among: &[usize], within: Duration) -> usize {
        await_within(within, &format!("one of the nodes {among:?} leads"), || {
            self.primaries().into_iter().find(|id| among.contains(id))
        })
    }

    /// Waits until `primary` leads all the others, every tool says so, and one has every write.
    pub fn await_settled(&self, primary: usize) {
        let others = self.others(&[primary]);
        self.await_order(primary, &others);
        self.await_synchronous(primary);
    }

    /// Waits until one leads, all the others follow it, one of them is synchronous, and nobody is in
    /// the midst of anything: who leads may change on the way there.
    pub fn await_calm(&self) -> usize {
        let began = Instant::now();
        let mut calm_since = None;
        loop {
            let found = self.calm();
            match (&found, calm_since) {
                (Ok(primary), Some((before, at))) if *primary == before => {
                    let since: Instant = at;
                    if since.elapsed() > Duration::from_secs(1) {
                        return before;
                    }
                }
                (Ok(primary), _) => calm_since = Some((*primary, Instant::now())),
                (Err(why), _) => {
                    calm_since = None;
                    assert!(began.elapsed() < SETTLES_WITHIN, "it is never calm: {why}");
                }
            }
            std::thread::park_timeout(Duration::from_millis(100)); // Spares the machine.
        }
    }

    fn calm(&self) -> Result<usize, String> {
        let primaries = self.primaries();
        let [primary] = primaries[..] else { return Err(format!("{primaries:?} lead")) };
        for node in self.nodes() {
            let status = node.http("/status").unwrap_or_default().1;
            let status: Value = serde_json::from_str(&status).unwrap_or_default();
            let own = &status["nodes"][0];
            if own["state"] != "running" || !own["scenario"].is_null() {
                return Err(format!("{}: {own:#}", node.name));
            }
        }
        let streams = "SELECT application_name FROM pg_stat_replication \
             WHERE state = 'streaming' AND application_name LIKE 'node%'";
        let streaming = self.node(primary).sql(streams).stdout;
        if streaming.lines().count() + 1 != self.nodes().len() {
            return Err(format!("node{primary} leads, and these follow: {streaming:?}"));
        }
        match self.synchronous(primary) {
            Some(_) => Ok(primary),
            None => Err(format!("node{primary} leads, and nobody is synchronous")),
        }
    }

    /// All but these.
    pub fn others(&self, but: &[usize]) -> Vec<usize> {
        (1..=self.nodes().len()).filter(|id| !but.contains(id)).collect()
    }

    /// Waits until the record names a standby that has every acknowledged write: that one may lead.
    pub fn await_synchronous(&self, primary: usize) -> usize {
        await_within(SETTLES_WITHIN, "a standby is synchronous", || self.synchronous(primary))
    }

    /// The standby that the record names, as `on` sees it.
    pub fn synchronous(&self, on: usize) -> Option<usize> {
        let (_, status) = self.node(on).http("/status")?;
        let status: Value = serde_json::from_str(&status).ok()?;
        let rows = status["nodes"].as_array()?;
        let row = rows.iter().find(|row| row["sync"] == true)?;
        let name = row["name"].as_str()?;
        self.nodes().iter().find(|node| node.name == name).map(|node| node.id)
    }

    /// `pgherd status`, `pgherd events` and repmgr's records on each node tell who leads, since which taking
    /// of the lead and on which timeline, and all tell the same.
    pub fn tells_one_story(&self, primary: usize) {
        let epoch = self.node(primary).status_json()["epoch"].as_u64().expect("there is a record");
        let timeline = self.timeline(primary);
        let name = &self.node(primary).name;
        for node in self.nodes() {
            let what = format!("{name} leads since epoch {epoch} on timeline {timeline}");
            node.await_showing(&what, || {
                let status = node.status_json();
                let same = status["primary"] == **name
                    && status["epoch"] == epoch
                    && status["timeline"] == timeline
                    && status["holder"] == **name;
                same.then_some(()).ok_or_else(|| format!("{status:#}"))
            });
            let events = node.exec(["pgherd", "events", "--json", "--limit", "1000"]).ok();
            let events: Vec<Value> =
                events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            let last = |id: &str| {
                events.iter().rev().find(|event| event["id"] == id).map(Value::to_string)
            };
            let taken = last("lead.taken").unwrap_or_default();
            assert!(taken.contains(&format!("{name} takes the lead")), "{}: {taken}", node.name);
            assert!(taken.contains(&format!("\"epoch\":{epoch}")), "{}: {taken}", node.name);
            if timeline > 1 {
                let promoted = last("promoted").unwrap_or_default();
                let says = format!("{name} takes writes on timeline {timeline}");
                assert!(promoted.contains(&says), "{}: {promoted}", node.name);
            }
            let records = "SELECT node_name || ' ' || type || ' ' || active FROM repmgr.nodes \
                 WHERE type = 'primary' OR NOT active";
            let records = ["psql", "-XAtq", "-d", "repmgr", "-c", records];
            let records = node.exec_as("postgres", records).ok();
            assert_eq!(records, format!("{name} primary true"), "{}", node.name);
        }
    }

    /// What people ask of a node. Code and answer.
    pub fn wish(&self, id: usize, method: &str, path: &str) -> (u16, String) {
        self.node(id).http_as(TOKEN, method, path).expect("it answers")
    }

    /// The warnings that a node shows.
    pub fn warnings(&self, id: usize) -> String {
        let status = self.node(id).http("/status").unwrap_or_default().1;
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        status["warnings"].to_string()
    }

    /// Where its history branched off last.
    pub fn timeline(&self, id: usize) -> u32 {
        let name = "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";
        u32::from_str_radix(&self.node(id).ask(name), 16).expect("eight hexadecimal digits")
    }

    /// The one half of a node that runs everything, as its container numbers it.
    pub fn node_half(&self, id: usize) -> String {
        self.node(id).pid_of("node half", |process| {
            process.command.starts_with("pgherd node") || process.command.contains("/pgherd node")
        })
    }

    /// etcd, as its container numbers it.
    pub fn etcd(&self, id: usize) -> String {
        self.node(id).pid_of("etcd", |process| process.name == "etcd")
    }

    /// Frozen: every process of it, and its connections stay open.
    pub fn freeze(&self, id: usize) {
        self.node(id).pause();
    }

    /// What its log says since it had so many lines.
    pub fn log_since(&self, id: usize, lines: usize) -> String {
        let log = self.node(id).log();
        log.lines().skip(lines).collect::<Vec<_>>().join("\n")
    }

    /// How many lines its log has.
    pub fn log_lines(&self, id: usize) -> usize {
        self.node(id).log().lines().count()
    }
}
