//! Nodes that belong together: a network, a container and a volume each.

use super::{Network, Node, Prober, Recipe, Volume, await_follows, docker, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// In every password of a cluster's, and nowhere else: who finds it has found a password.
pub const SECRET: &str = "hush";

/// What an operator might choose, on each node the same.
pub const PASSWORDS: [(&str, &str); 5] = [
    ("POSTGRES_PASSWORD", "hush postgres '1\"\\:@%$"),
    ("REPMGR_PASSWORD", "hush repmgr '2\"\\:@%$"),
    ("REPMGR_STREAMING_PASSWORD", "hush streaming '3\"\\:@%$"),
    ("BARMAN_PASSWORD", "hush barman '4\"\\:@%$"),
    ("BARMAN_STREAMING_PASSWORD", "hush barman streaming '5\"\\:@%$"),
];

/// The value of one of [`PASSWORDS`].
pub fn password(variable: &str) -> &'static str {
    let found = PASSWORDS.iter().find(|(name, _)| *name == variable);
    found.expect("one of the five").1
}

/// Where each node is reached from this machine, for the prober: docker gives another address at
/// each start. `None` while it has none.
pub type Addresses = Arc<Mutex<Vec<Option<String>>>>;

/// Counted from 1, as their names are: node1 is the one that becomes master.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    addresses: Addresses,
    network: Network,
}

impl Cluster {
    /// As a user would write it down: so many data nodes, made and not started.
    pub fn of(count: usize) -> Self {
        Self::with(count, |_, recipe| recipe)
    }

    /// The same with something else in the recipes. What is set twice counts as said last.
    pub fn with(count: usize, change: impl Fn(usize, Recipe) -> Recipe) -> Self {
        let names: Vec<_> = (1..=count).map(|id| format!("node{id}")).collect();
        let slaves = names[1..].join(",");
        Self::named_nodes(&names, |id, recipe| {
            // The story's two cores are not barman's.
            let recipe = recipe.env("REPMGR_SLAVES", &slaves).env("PGHERD_BACKUPS", "elsewhere");
            // Three would vote; what follows from that is told in the stories of failover.
            let recipe = recipe.env("PGHERD_FAILOVER", "manual");
            change(id, recipe)
        })
    }

    /// As in `compose/primary-standby.yml`: two of them, and a third node that keeps the backups.
    pub fn stack() -> Self {
        Self::stack_with(|_, recipe| recipe)
    }

    /// The same with something else in the recipes.
    pub fn stack_with(change: impl Fn(usize, Recipe) -> Recipe) -> Self {
        let names = ["node1", "node2", "backup"].map(str::to_owned);
        Self::named_nodes(&names, |id, recipe| {
            let recipe = recipe
                .env("PGHERD_VOTERS", "node1,node2,backup")
                .env("REPMGR_SLAVES", "node2,node3");
            let recipe = recipe.env("PGHERD_FAILOVER", "manual");
            let recipe = match id {
                3 => recipe.env("PGHERD_ROLE", "backup").env("REPMGR_MASTER", ""),
                _ => recipe.env("PGHERD_BACKUPS", "elsewhere"),
            };
            change(id, recipe)
        })
    }

    /// Three data nodes that choose who leads, and a fourth that keeps the backups.
    pub fn three_and_backups() -> Self {
        let names = ["node1", "node2", "node3", "backup"].map(str::to_owned);
        Self::named_nodes(&names, |id, recipe| {
            let recipe = recipe
                .env("PGHERD_VOTERS", "node1,node2,backup")
                .env("REPMGR_SLAVES", "node2,node3");
            let recipe = recipe.env("PGHERD_FAILOVER", "quorum");
            match id {
                4 => recipe.env("PGHERD_ROLE", "backup").env("REPMGR_MASTER", ""),
                _ => recipe.env("PGHERD_BACKUPS", "elsewhere").command([
                    "postgres",
                    "-c",
                    "autovacuum=off",
                ]),
            }
        })
    }

    fn named_nodes(names: &[String], change: impl Fn(usize, Recipe) -> Recipe) -> Self {
        let network = Network::new();
        let node = |(id, name): (usize, &String)| {
            let data = Volume::new();
            let recipe = Recipe::node(name)
                .network(&network, name)
                .volume(&data, "/var/lib/postgresql")
                .envs(PASSWORDS)
                .env("REPMGR_NODE_NAME", name)
                .env("REPMGR_MASTER", if id == 1 { "true" } else { "false" })
                .env("PGHERD_FAILOVER", "manual"); // Who leads is the story's decision.
            let recipe = if id == 1 { recipe } else { recipe.env("REPMGR_MASTER_HOST", "node1") };
            let recipe = change(id, recipe);
            Node { container: recipe.create(), name: name.clone(), id, recipe, outside: None, data }
        };
        let nodes: Vec<_> = (1..).zip(names).map(node).collect();
        let addresses = Arc::new(Mutex::new(vec![None; names.len()]));
        Cluster { nodes, addresses, network }
    }

    /// One of them, counted from 1.
    pub fn node(&self, id: usize) -> &Node {
        &self.nodes[id - 1]
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    /// All of them up, node1 leading, and `megabytes` in it that no slave needs to replay.
    pub fn up(count: usize, megabytes: u32) -> Self {
        let cluster = Self::of(count);
        cluster.begin(megabytes);
        cluster
    }

    /// The same for one that was made [`with`](Self::with) something.
    pub fn begin(&self, megabytes: u32) {
        self.start(1).await_ready();
        if megabytes > 0 {
            self.node(1).fill(megabytes);
        }
        let slaves: Vec<_> = (2..=self.nodes.len()).collect();
        slaves.iter().for_each(|id| {
            self.start(*id);
        });
        slaves.iter().for_each(|id| await_follows(self.node(*id), self.node(1)));
    }

    /// Starts its container and does not wait.
    pub fn start(&self, id: usize) -> &Node {
        let node = self.node(id);
        node.start_again();
        self.publish(id, true);
        node
    }

    /// `docker stop`: in order, or the story fails.
    pub fn stop(&self, id: usize) {
        self.publish(id, false);
        assert_eq!(self.node(id).stop(), 0, "{} stopped in order", self.node(id).name);
    }

    /// `docker kill`.
    pub fn kill(&self, id: usize) {
        self.node(id).signal("KILL");
        self.gone(id);
    }

    /// The same at this very moment, without the tenth of a second that docker takes to get there.
    /// Which process that is was asked before.
    pub fn kill_at_once(&self, id: usize, process: Pid) {
        kill(process, Signal::SIGKILL).expect("stories run as root");
        self.gone(id);
    }

    fn gone(&self, id: usize) {
        self.node(id).await_end();
        self.publish(id, false); // Its address may be the next one's.
    }

    /// `docker stop` of all of them at once.
    pub fn stop_all(&self) {
        let stop = ["stop", "-t", "60"].into_iter();
        docker(stop.chain(self.nodes.iter().map(Node::name))).ok();
        for node in &self.nodes {
            self.publish(node.id, false);
            assert_eq!(node.exit_status(), Some(0), "{} stopped in order", node.name);
        }
    }

    /// The plug is pulled on all of them.
    pub fn kill_all(&self) {
        let all: Vec<_> = (1..=self.nodes.len()).collect();
        self.kill_at_the_same_time(&all);
    }

    /// The plug is pulled on these.
    pub fn kill_at_the_same_time(&self, which: &[usize]) {
        which.iter().for_each(|id| self.publish(*id, false));
        let names = which.iter().map(|id| self.node(*id).name());
        docker(["kill"].into_iter().chain(names)).ok();
        for id in which {
            self.node(*id).await_end();
        }
    }

    /// A new container in the old one's place, on its volume, made with something else and not
    /// started.
    pub fn recreate(&mut self, id: usize, change: impl Fn(Recipe) -> Recipe) {
        let log = self.node(id).log();
        assert!(!log.contains(SECRET), "a password in the log of {}: {log}", self.node(id).name);
        self.publish(id, false);
        let node = &mut self.nodes[id - 1];
        node.recipe = change(node.recipe.clone());
        node.container = node.recipe.create(); // The old one is removed.
    }

    /// It was given another `REPMGR_NODE_NAME`.
    pub fn named(&mut self, id: usize, name: &str) {
        name.clone_into(&mut self.nodes[id - 1].name);
    }

    /// The same on a fresh volume: the disk was lost.
    pub fn lose_data(&mut self, id: usize) {
        let data = Volume::new();
        let new = data.name.clone();
        let lost = std::mem::replace(&mut self.nodes[id - 1].data, data);
        self.recreate(id, |recipe| recipe.other_volume(&lost.name, &new));
    }

    /// The cable is cut. The prober still reaches it, by another one.
    pub fn cut(&mut self, id: usize) {
        let outside = Network::new();
        outside.connect(self.node(id).name(), None);
        self.network.disconnect(self.node(id).name());
        self.nodes[id - 1].outside = Some(outside);
        self.publish(id, true);
    }

    /// The cable is mended.
    pub fn heal(&mut self, id: usize) {
        let node = &mut self.nodes[id - 1];
        self.network.connect(&node.container.name, Some(&node.name));
        if let Some(outside) = node.outside.take() {
            outside.disconnect(&node.container.name);
        }
        self.publish(id, true);
    }

    /// What `from` sends does not arrive at `at` any more; the other way is as before.
    pub fn deafen(&self, at: usize, from: usize) {
        let from = self.node(from).ip();
        assert_ne!(from, "", "it has an address while it runs");
        in_network_of(self.node(at), &["-A", "INPUT", "-s", &from, "-j", "DROP"]);
    }

    /// All that is sent to it arrives again, where it still runs: a container that was started again has
    /// no such rules.
    pub fn hears_again(&self, at: usize) {
        if self.node(at).exit_status().is_none() {
            in_network_of(self.node(at), &["-F", "INPUT"]);
        }
    }

    fn publish(&self, id: usize, is_there: bool) {
        let ip = if is_there { self.node(id).ip() } else { String::new() };
        let ip = (!ip.is_empty()).then_some(ip); // It may have ended already.
        self.addresses.lock().expect("nobody panics with it")[id - 1] = ip;
    }

    /// Watches all of them from here on. Someone must lead already: some rows are written.
    pub fn probe(&self) -> Prober {
        let names = self.nodes.iter().map(|node| node.name.clone()).collect();
        let prober = Prober::start(names, Arc::clone(&self.addresses), PASSWORDS[0].1);
        prober.await_rows();
        prober
    }

    /// An operator makes it the primary: nobody else may be one.
    pub fn promote(&self, id: usize) {
        let node = self.node(id);
        node.exec_as("postgres", ["repmgr", "standby", "promote"]).ok();
        node.await_that("it leads", || {
            (node.sql("SELECT pg_is_in_recovery()").stdout.trim() == "f").then_some(())
        });
    }

    /// Waits until `primary` leads and `standbys` follow it, no slot is missing or too many, and no
    /// volume holds anything left over.
    pub fn await_following(&self, primary: usize, standbys: &[usize]) {
        for id in standbys {
            await_follows(self.node(*id), self.node(primary));
        }
        for id in standbys.iter().chain([&primary]) {
            let node = self.node(*id);
            self.await_slots(node, if *id == primary { standbys } else { &[] });
            node.await_showing("nothing is left over", || {
                let left = node.leftovers();
                left.is_empty().then_some(()).ok_or_else(|| format!("{left:?}"))
            });
        }
    }

    /// The same, and every tool on every node says so. It takes a node some seconds to hear of
    /// another's change.
    pub fn await_order(&self, primary: usize, standbys: &[usize]) {
        self.await_following(primary, standbys);
        let members: Vec<_> = standbys.iter().chain([&primary]).map(|id| self.node(*id)).collect();
        for node in &members {
            await_repmgr_says(node, primary, &members);
            let others = members.len() < self.nodes.len();
            await_status_says(node, self.node(primary), &members, others);
        }
        self.keeps_its_secrets();
    }

    fn await_slots(&self, node: &Node, standbys: &[usize]) {
        let slots = "SELECT slot_name || ' ' || active FROM pg_replication_slots \
             WHERE slot_name LIKE 'repmgr%' OR temporary";
        let expected: BTreeSet<_> =
            standbys.iter().map(|id| format!("repmgr_slot_{id} true")).collect();
        let mut seen = BTreeSet::new();
        node.await_showing(&format!("its slots are {expected:?}"), || {
            seen = node.sql(slots).ok().lines().map(str::to_owned).collect();
            (seen == expected).then_some(()).ok_or_else(|| format!("{seen:?}"))
        });
    }

    /// None of them has said a password of the cluster's.
    pub fn keeps_its_secrets(&self) {
        for node in &self.nodes {
            let log = node.log();
            assert!(!log.contains(SECRET), "a password in the log of {}: {log}", node.name);
        }
    }
}

/// The kernel's rules in the network namespace of its container, changed from here: the container may not
/// and should not.
fn in_network_of(node: &Node, rule: &[&str]) {
    let net = format!("--net=/proc/{}/ns/net", node.host_pid());
    run("nsenter", [net.as_str(), "iptables", "-w"].into_iter().chain(rule.iter().copied())).ok();
}

/// `repmgr cluster show` is clean: its exit status is 25 after any warning, in CSV as well.
fn await_repmgr_says(node: &Node, primary: usize, members: &[&Node]) {
    // id, available, in recovery
    let row = |member: &&Node| format!("{},0,{}", member.id, u8::from(member.id != primary));
    let expected: BTreeSet<_> = members.iter().map(row).collect();
    node.await_showing("repmgr shows a cluster in order", || {
        let shown = node.exec_as("postgres", ["repmgr", "cluster", "show", "--csv"]);
        let rows: BTreeSet<_> = shown.stdout.lines().map(str::to_owned).collect();
        (shown.status == 0 && rows == expected).then_some(()).ok_or_else(|| format!("{shown:?}"))
    });
}

/// So does `pgherd status`. Of `others` it may say that they are not there.
fn await_status_says(node: &Node, primary: &Node, members: &[&Node], others: bool) {
    let role = |member: &Node| if member.id == primary.id { "primary" } else { "standby" };
    let row = |member: &&Node| (member.name.clone(), format!("{} running", role(member)));
    let expected: BTreeMap<_, _> = members.iter().map(row).collect();
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    node.await_showing("pgherd shows a cluster in order", || {
        let status = node.status_json();
        let rows = status["nodes"].as_array().cloned().unwrap_or_default();
        let row = |row: &Value| {
            (word(&row["name"]), format!("{} {}", word(&row["role"]), word(&row["state"])))
        };
        let mut rows: BTreeMap<_, _> = rows.iter().map(row).collect();
        let is_other = |what: &str| what.ends_with(" unreachable") || what.starts_with("backup ");
        rows.retain(|_, what| !(others && is_other(what)));
        let healthy = others || status["state"] == "healthy";
        (rows == expected && status["primary"] == *primary.name && healthy)
            .then_some(())
            .ok_or_else(|| format!("{status:#}"))
    });
}
