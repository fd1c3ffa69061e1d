//! Anything that can happen to a node, at random and over again, and a primary after each. The seed is
//! printed: `PGHERD_SOAK_SEED` tells the same story once more, `PGHERD_SOAK_MINUTES` how long.

use crate::harness::{Cluster, LEASE, TOKEN, await_within};
use std::time::{Duration, Instant, SystemTime};

/// While something lasts; and for containers to start on a machine with two cores.
const LEADS_WITHIN: Duration = Duration::from_secs(45);
/// From each healing to a primary. In `make soak` the machine does nothing else.
const HEALED_WITHIN: Duration = Duration::from_secs(10);
const HEALED_WITHIN_AMONG_OTHERS: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Act {
    Kill,
    Stop,
    Freeze,
    Cut,
    FreezeNodeHalf,
    KillNodeHalf,
    KillPostmaster,
    FreezeEtcd,
    KillEtcd,
    Switchover,
    /// A link to another node, both ways.
    CutLink,
    /// What another node sends does not arrive.
    Deafen,
    Restart,
}

const ACTS: [Act; 13] = [
    Act::Kill,
    Act::Stop,
    Act::Freeze,
    Act::Cut,
    Act::FreezeNodeHalf,
    Act::KillNodeHalf,
    Act::KillPostmaster,
    Act::FreezeEtcd,
    Act::KillEtcd,
    Act::Switchover,
    Act::CutLink,
    Act::Deafen,
    Act::Restart,
];

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).expect("small")
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

#[test]
#[ignore = "needs docker: make test"]
fn whatever_happens_to_one_node_after_the_other_there_is_a_primary_and_nothing_is_lost() {
    let seed = setting("PGHERD_SOAK_SEED").unwrap_or_else(now);
    let minutes = setting("PGHERD_SOAK_MINUTES").unwrap_or(2);
    println!("PGHERD_SOAK_SEED={seed} PGHERD_SOAK_MINUTES={minutes}");
    let mut dice = Dice(seed);
    let mut cluster = Cluster::voting_up(3);
    let prober = cluster.probe();
    let began = Instant::now();
    let mut primary = 1;
    let mut is_calm = true;
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(60 * minutes) {
        let act = ACTS[dice.throw(ACTS.len())];
        // The primary every other time.
        let node = if dice.throw(2) == 0 { primary } else { 1 + dice.throw(3) };
        // While the last one's repair is under way, or when all is in order.
        let settles = dice.throw(3) > 0;
        let lasts = Duration::from_millis(500 * dice.throw(20) as u64);
        let at = began.elapsed().as_secs_f64();
        let other = cluster.others(&[node])[dice.throw(2)];
        println!("{at:.1} s: {act:?} of node{node} ({other}) for {lasts:?}; node{primary} leads");
        happens(&mut cluster, act, (node, other), (primary, is_calm), lasts);
        let healed = Instant::now();
        primary = cluster.await_primary(&[1, 2, 3], LEADS_WITHIN);
        println!("  node{primary} leads {:.1} s later", healed.elapsed().as_secs_f64());
        slowest = slowest.max(healed.elapsed());
        is_calm = settles;
        if settles {
            primary = cluster.await_calm();
        }
        prober.await_rows();
    }
    primary = cluster.await_calm();
    cluster.tells_one_story(primary);
    let record = prober.end(&cluster, primary, &cluster.others(&[primary]));
    println!("{:?} without a write at most", record.longest_gap());
    println!("{slowest:?} at most from a healing to a primary");
    let limit = if minutes > 5 { HEALED_WITHIN } else { HEALED_WITHIN_AMONG_OTHERS };
    assert!(slowest < limit, "{slowest:?} from a healing to a primary");
}

/// Does it, waits for a primary with it, and undoes it.
fn happens(
    cluster: &mut Cluster,
    act: Act,
    (id, other): (usize, usize),
    (primary, is_calm): (usize, bool),
    lasts: Duration,
) {
    let stays = |cluster: &Cluster| {
        std::thread::park_timeout(lasts); // How long it lasts is part of what happens.
        // Whoever is lost while it leads is replaced, if another one has every write; else nothing
        // changes.
        if is_calm {
            cluster.await_primary(&cluster.others(&[id]), LEADS_WITHIN);
        }
    };
    let process = |cluster: &Cluster, what: fn(&Cluster, usize) -> Option<String>| {
        await_within(LEADS_WITHIN, "it runs", || what(cluster, id))
    };
    let half = |cluster: &Cluster, id: usize| pid(cluster, id, "pgherd", " node");
    let etcd = |cluster: &Cluster, id: usize| pid(cluster, id, "etcd", "");
    let postmaster = |cluster: &Cluster, id: usize| pid(cluster, id, "postgres", "/bin/postgres ");
    // Who stays away too short for a lease may lead as before.
    let any = |cluster: &Cluster| cluster.await_primary(&[1, 2, 3], LEADS_WITHIN);
    let is_long = lasts > LEASE * 3 / 2;
    match act {
        Act::Kill => {
            cluster.kill(id);
            stays(cluster);
            cluster.start(id);
        }
        Act::Stop => {
            cluster.stop(id);
            stays(cluster);
            cluster.start(id);
        }
        Act::Freeze => {
            cluster.freeze(id);
            if is_long {
                stays(cluster);
            } else {
                std::thread::park_timeout(lasts);
            }
            cluster.node(id).unpause();
        }
        Act::Cut => {
            cluster.cut(id);
            if is_long {
                stays(cluster);
            } else {
                std::thread::park_timeout(lasts);
            }
            cluster.heal(id);
        }
        Act::FreezeNodeHalf => {
            let half = process(cluster, half);
            cluster.node(id).kill("STOP", &half).ok();
            if is_long {
                stays(cluster);
            } else {
                std::thread::park_timeout(lasts);
            }
            cluster.node(id).kill("CONT", &half);
        }
        Act::KillNodeHalf => {
            let half = process(cluster, half);
            cluster.node(id).kill("KILL", &half);
            cluster.node(id).await_end();
            stays(cluster);
            cluster.start(id);
        }
        Act::KillPostmaster => {
            let postmaster = process(cluster, postmaster);
            cluster.node(id).kill("KILL", &postmaster);
        }
        Act::FreezeEtcd => {
            let etcd = process(cluster, etcd);
            cluster.node(id).kill("STOP", &etcd).ok();
            std::thread::park_timeout(lasts);
            any(cluster);
            cluster.node(id).kill("CONT", &etcd);
        }
        Act::KillEtcd => {
            let etcd = process(cluster, etcd);
            cluster.node(id).kill("KILL", &etcd);
        }
        Act::Switchover => {
            let to = format!("/switchover?to=node{id}");
            let answer = cluster.node(primary).http_as(TOKEN, "POST", &to);
            println!("  {answer:?}"); // It may be refused, with a reason.
            std::thread::park_timeout(lasts);
        }
        Act::CutLink | Act::Deafen => {
            cluster.deafen(id, other);
            if let Act::CutLink = act {
                cluster.deafen(other, id);
            }
            std::thread::park_timeout(lasts);
            any(cluster);
            cluster.hears_again(id);
            cluster.hears_again(other);
        }
        Act::Restart => {
            let answer = cluster.node(id).http_as(TOKEN, "POST", "/restart");
            println!("  {answer:?}"); // It may be refused, with a reason.
            std::thread::park_timeout(lasts);
        }
    }
}

fn pid(cluster: &Cluster, id: usize, name: &str, command: &str) -> Option<String> {
    let all = cluster.node(id).processes();
    let is = |process: &&crate::harness::Process| {
        process.name == name && process.command.contains(command)
    };
    all.iter().find(is).map(|process| process.pid.clone())
}
