mod fuzz;

use super::*;
use crate::cluster::{
    BackupsSeen, BackupsState, CopiesSeen, Lsn, NodeState, RunningScenario, Timeline,
};
use crate::control::{Disk, Facts, Fork, NodeRole};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(super) const SNAPSHOT: &str = r#"{"cluster": "pgherd", "state": "healthy", "primary": "node1",
    "timeline": 3, "paused": false, "failover": "manual", "warnings": [], "nodes": [{
    "name": "node1", "id": 1, "address": "node1:5432", "role": "primary", "state": "running",
    "scenario": null, "waits_for": null, "timeline": 3, "lsn": "0/5000148", "lag_bytes": 0, "lag_seconds": 0.0,
    "sync": false, "priority": 100, "location": "default", "votes": false,
    "last_seen_seconds": 0.4, "services": []}]}"#;

pub(super) fn snapshot() -> Snapshot {
    serde_json::from_str(SNAPSHOT).unwrap()
}

fn is(role: Option<NodeRole>, state: NodeState) -> Snapshot {
    let mut seen = snapshot();
    (seen.nodes[0].role, seen.nodes[0].state) = (role, state);
    seen
}

const ROLES: [Option<NodeRole>; 5] = [
    Some(NodeRole::Primary),
    Some(NodeRole::Standby),
    Some(NodeRole::Backup),
    Some(NodeRole::Witness),
    None,
];

const STATES: [NodeState; 11] = [
    NodeState::Running,
    NodeState::Starting,
    NodeState::Cloning,
    NodeState::CatchingUp,
    NodeState::Rewinding,
    NodeState::Restoring,
    NodeState::Promoting,
    NodeState::Demoting,
    NodeState::Fenced,
    NodeState::Stopped,
    NodeState::Unreachable,
];

/// A path, and what it answers a node that runs as a primary, a synchronous standby, another standby, a
/// node for backups or a witness, and one whose role is not known yet.
#[rustfmt::skip] // A table.
const RUNNING: &[(&str, [u16; 5])] = &[
    ("/",                      [200, 503, 503, 503, 503]),
    ("/primary",               [200, 503, 503, 503, 503]),
    ("/master",                [200, 503, 503, 503, 503]),
    ("/leader",                [200, 503, 503, 503, 503]),
    ("/read-write",            [200, 503, 503, 503, 503]),
    ("/replica",               [503, 200, 200, 503, 503]),
    ("/read-only",             [200, 200, 200, 503, 503]),
    ("/sync",                  [503, 200, 503, 503, 503]),
    ("/synchronous",           [503, 200, 503, 503, 503]),
    ("/async",                 [503, 503, 200, 503, 503]),
    ("/asynchronous",          [503, 503, 200, 503, 503]),
    ("/read-only-sync",        [200, 200, 503, 503, 503]),
    ("/read-only-synchronous", [200, 200, 503, 503, 503]),
    ("/health",                [200, 200, 200, 200, 200]),
    ("/readiness",             [200, 200, 200, 200, 200]),
    ("/liveness",              [200, 200, 200, 200, 200]),
    ("/patroni",               [200, 200, 200, 200, 200]),
];

fn code(path: &str, seen: &Snapshot, method: &Method, query: Option<&str>) -> u16 {
    let known = PATHS.iter().find(|(known, _)| *known == path).map(|(_, probe)| *probe);
    let probe = known.unwrap_or(if path == "/" { Probe::Primary } else { Probe::Alive });
    answered(probe, seen, method, query).status().as_u16()
}

#[test]
fn every_path_has_its_code_for_each_role_and_state() {
    assert_eq!(RUNNING.len(), PATHS.len() + 2, "each path has its row");
    for (path, codes) in RUNNING {
        for role in ROLES {
            for state in STATES {
                for sync in [true, false] {
                    let mut seen = is(role, state);
                    seen.nodes[0].sync = sync;
                    let column = match role {
                        Some(NodeRole::Primary) => 0,
                        Some(NodeRole::Standby) => 2 - usize::from(sync),
                        Some(NodeRole::Backup | NodeRole::Witness) => 3,
                        None => 4,
                    };
                    // Whatever is not running is alive, and nothing else.
                    let alive = ["/liveness", "/patroni"].contains(path);
                    let expected = match (state == NodeState::Running, alive) {
                        (true, _) => codes[column],
                        (false, true) => 200,
                        (false, false) => 503,
                    };
                    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                        let code = code(path, &seen, &method, None);
                        assert_eq!(code, expected, "{method} {path} {role:?} {state} sync={sync}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_primary_that_the_record_does_not_name_is_none() {
    let mut seen = snapshot();
    for (holder, expected) in [(None, 200), (Some("node1"), 200), (Some("node2"), 503)] {
        seen.holder = holder.map(str::to_owned);
        for path in ["/", "/primary", "/leader", "/read-write", "/read-only", "/read-only-sync"] {
            assert_eq!(code(path, &seen, &Method::GET, None), expected, "{path} {holder:?}");
        }
    }
}

#[test]
fn a_standby_counts_up_to_the_lag_that_is_asked_for() {
    let mut seen = is(Some(NodeRole::Standby), NodeState::Running);
    for (lag, asked, expected) in [
        (Some(0), "lag=0", 200),
        (Some(1), "lag=0", 503),
        (Some(1024), "lag=1024", 200),
        (Some(1024), "lag=1kB", 200),
        (Some(1025), "lag=1KB", 503),
        (Some(16 << 20), "lag=16MB", 200),
        (Some((16 << 20) + 1), "lag=16MB", 503),
        (Some(1 << 30), "lag=1%20GB", 200),
        (Some(1 << 40), "other=1&lag=1TB", 200),
        (None, "lag=1GB", 503),
        (None, "", 200),
        (Some(9), "lag=", 200),
        (Some(0), "lag=many", 400),
        (Some(0), "lag=-1", 400),
        (Some(0), "lag=1.5GB", 400),
        (Some(0), "lag=99999999999999TB", 400),
    ] {
        seen.nodes[0].lag_bytes = lag;
        for path in ["/replica", "/async", "/read-only", "/readiness"] {
            let code = code(path, &seen, &Method::GET, Some(asked));
            assert_eq!(code, expected, "{path}?{asked} where it is {lag:?} behind");
        }
    }
    let primary = snapshot();
    assert_eq!(code("/read-only", &primary, &Method::GET, Some("lag=0")), 200);
}

#[test]
fn a_node_is_told_in_patronis_words_and_ours() {
    let mut seen = is(Some(NodeRole::Standby), NodeState::Cloning);
    let title = "Create pg instance as a clone of master".to_owned();
    let running = RunningScenario { stage_title: title.clone(), ..RunningScenario::default() };
    seen.nodes[0].scenario = Some(running);
    (seen.paused, seen.nodes[0].sync) = (true, true);
    let told = serde_json::to_value(patroni::Node::of(&seen)).unwrap();
    assert_eq!((&told["role"], &told["state"]), (&"replica".into(), &"cloning".into()));
    assert_eq!(told["xlog"]["replayed_location"], 0x0500_0148);
    assert_eq!((&told["timeline"], &told["pause"]), (&3.into(), &true.into()));
    assert_eq!(told["patroni"]["scope"], "pgherd");
    assert_eq!(told["pgherd"]["role"], "standby");
    assert_eq!(told["scenario"]["stage_title"].as_str(), Some(title.as_str()));
    assert_eq!(told["sync_standby"], true);
}

#[test]
fn the_cluster_and_its_history_have_patronis_shape() {
    let mut seen = snapshot();
    seen.http_port = 8008;
    let mut standby = seen.nodes[0].clone();
    standby.name = "node2".to_owned();
    standby.address = "[fd00::2]:5433".parse().unwrap();
    (standby.role, standby.sync) = (Some(NodeRole::Standby), true);
    standby.follows = Some("node1:5432".parse().unwrap());
    standby.lag_bytes = None;
    let mut backup = seen.nodes[0].clone();
    (backup.name, backup.role) = ("backup".to_owned(), Some(NodeRole::Backup));
    seen.nodes.extend([standby, backup]);
    let told = patroni::cluster(&seen);
    assert_eq!(told["members"].as_array().map(Vec::len), Some(2), "{told:#}");
    assert_eq!(told["members"][0]["role"], "leader");
    let second = &told["members"][1];
    assert_eq!((&second["role"], &second["state"]), (&"sync_standby".into(), &"streaming".into()));
    assert_eq!(second["api_url"], "http://[fd00::2]:8008/patroni");
    assert_eq!((&second["lag"], &second["port"]), (&"unknown".into(), &5433.into()));

    let at = Some("2026-11-20T03:00:01Z".to_owned());
    let fork = Fork { timeline: Timeline(1), end: Lsn(0x300_0000), at };
    seen.facts = Arc::new(Facts { history: vec![fork], ..Facts::default() });
    let expected = serde_json::json!([[1, 0x300_0000, "promotion", "2026-11-20T03:00:01Z"]]);
    assert_eq!(patroni::history(&seen), expected);
}

#[test]
fn every_metric_has_one_help_and_one_type_and_counters_end_in_total() {
    let text = metrics::page(&rich());
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            families.push(rest.split(' ').next().unwrap().to_owned());
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(families.last().map(String::as_str), Some(name), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        }
        if !line.starts_with('#') {
            let family = families.last().unwrap();
            assert!(line.starts_with(family.as_str()), "{line} is of {family}");
            assert!(line.contains("{cluster=\"pg\\\"herd\",node=\"node1\""), "{line}");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    let mut once = families.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), families.len(), "{families:?}");
    assert!(families.iter().all(|name| name.starts_with("pgherd_")), "{families:?}");
    for expected in ["lag_bytes", "disk_free_bytes", "backup_age_seconds", "lease_left_seconds"] {
        assert!(families.contains(&format!("pgherd_{expected}")), "{expected} in {families:?}");
    }
    assert!(text.contains("role=\"primary\"} 1\n") && text.contains("role=\"standby\"} 0\n"));
}

/// With everything that can be known.
pub(super) fn rich() -> Snapshot {
    let mut seen = snapshot();
    seen.cluster = "pg\"herd".to_owned();
    seen.epoch = Some(7);
    let lease = r#"{"seconds": 4.0, "seconds_left": 4.0}"#;
    seen.lease = Some(serde_json::from_str(lease).unwrap());
    let backups = BackupsSeen {
        node: seen.nodes[0].name.clone(),
        last: Some("20261120T030001".to_owned()),
        age_seconds: Some(3600),
        window_seconds: Some(86_400),
        count: 5,
        wal_age_seconds: Some(3),
        state: BackupsState::Ok,
        copies: Some(CopiesSeen {
            url: "s3://bucket/path".to_owned(),
            last: Some("20261120T030001".to_owned()),
            age_seconds: Some(3600),
            wal_waiting: 2,
            wal_wait_seconds: Some(9),
            error: None,
        }),
        running_bytes: None,
        warnings: Vec::new(),
    };
    seen.facts = Arc::new(Facts {
        disk: Some(Disk { total_bytes: 1 << 40, free_bytes: 1 << 39 }),
        history: Vec::new(),
    });
    seen.backups = Some(backups);
    let stage = ("A scenario".to_owned(), "Its \"first\" stage".to_owned());
    let counts = Arc::make_mut(&mut seen.counts);
    counts.stages.insert(stage, (2, Duration::from_millis(1500)));
    counts.takeovers = 1;
    seen
}

#[test]
fn a_probe_answers_every_method_that_load_balancers_use() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let (_sender, snapshots) = watch::channel(snapshot());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let no_files = |_: &std::path::Path| unreachable!("no variable names a file");
        let settings = crate::settings::read([], no_files).unwrap();
        let wishes = Wishes::new(&settings, None, tokio::sync::mpsc::channel(1).0);
        tokio::spawn(serve(Door { listener, tls: None }, snapshots, None, wishes, None));
        for method in ["GET", "HEAD", "OPTIONS"] {
            for (path, code) in [
                ("/", "200"),
                ("/primary", "200"),
                ("/replica", "503"),
                ("/replica?lag=1MB", "503"),
                ("/liveness", "200"),
                ("/cluster", "200"),
                ("/history", "200"),
            ] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = format!("{method} {path} HTTP/1.0\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                let expected = format!("HTTP/1.0 {code} ");
                assert!(answer.starts_with(&expected), "{method} {path}: {answer}");
            }
        }
    });
}
