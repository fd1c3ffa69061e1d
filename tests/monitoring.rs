//! What `compose/monitoring` has for Prometheus and Grafana, checked against what a node tells, and by
//! Prometheus' own `promtool` where that is installed.

use pgherd::control::{Disk, Facts, Snapshot};
use pgherd::http::metrics_page;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

const DIRECTORY: &str = "compose/monitoring";

/// What a node tells that knows everything there is.
fn page() -> String {
    let node = r#"{"cluster": "pgherd", "state": "healthy", "primary": "node1", "timeline": 3,
        "epoch": 7, "holder": "node1", "paused": false, "failover": "quorum", "warnings": [],
        "voters": ["node1"], "lease": {"seconds": 4.0, "seconds_left": 4.0}, "nodes": [{
        "name": "node1", "id": 1, "address": "node1:5432", "role": "primary", "state": "running",
        "scenario": null, "waits_for": null, "timeline": 3, "lsn": "0/5000148", "lag_bytes": 0,
        "lag_seconds": 0.0, "sync": false, "priority": 100, "location": "default", "votes": true,
        "last_seen_seconds": 0.4, "services": ["repmgrd"]}], "backups": {"node": "node1",
        "last": "20261120T030001", "age_seconds": 3600, "window_seconds": 86400, "count": 5,
        "state": "ok", "wal_age_seconds": 3, "copies": {"url": "s3://bucket", "last": "20261120T030001",
        "age_seconds": 3600, "wal_waiting": 2, "wal_wait_seconds": 9, "error": null}}}"#;
    let mut seen: Snapshot = serde_json::from_str(node).expect("a snapshot");
    let disk = Disk { total_bytes: 1 << 40, free_bytes: 1 << 39 };
    let facts = Facts { disk: Some(disk), ..Facts::default() };
    seen.facts = Arc::new(facts);
    let stage = ("Slave is started".to_owned(), "Start \"it\"".to_owned());
    let counts = Arc::make_mut(&mut seen.counts);
    counts.stages.insert(stage, (2, Duration::from_millis(1500)));
    metrics_page(&seen)
}

#[test]
fn every_metric_that_is_asked_for_is_told_and_every_one_told_is_described() {
    let page = page();
    let told: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(told.len() > 30, "{told:?}");
    for file in ["alerts.yml", "alerts.test.yml", "grafana.json", "README.md"] {
        let text = fs::read_to_string(format!("{DIRECTORY}/{file}")).expect(file);
        for (at, _) in text.match_indices("pgherd_") {
            let rest = &text[at..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let name = &rest[..end.unwrap_or(rest.len())];
            if name == "pgherd_default" {
                continue; // A network.
            }
            assert!(told.contains(name), "{file} asks for {name}, which no node tells");
        }
    }
    let readme = fs::read_to_string(format!("{DIRECTORY}/README.md")).expect("README.md");
    for name in told {
        let is_there = [format!("`{name}`"), format!("`{name}{{")];
        let is_there = is_there.iter().any(|it| readme.contains(it));
        assert!(is_there, "{DIRECTORY}/README.md does not say what {name} is");
    }
}

#[test]
fn the_dashboard_for_grafana_is_json_whose_panels_have_queries() {
    let text = fs::read(format!("{DIRECTORY}/grafana.json")).expect("grafana.json");
    let dashboard: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() > 10);
    let mut places = BTreeSet::new();
    for panel in panels {
        let title = &panel["title"];
        let asks = panel["targets"].as_array().is_some_and(|targets| {
            !targets.is_empty() && targets.iter().all(|one| one["expr"].is_string())
        });
        assert!(asks, "{title} asks for nothing");
        let place = &panel["gridPos"];
        assert!(places.insert((place["x"].as_u64(), place["y"].as_u64())), "{title} is on another");
    }
}

#[test]
fn promtool_is_content_with_the_metrics() {
    let Some(checked) = promtool(&["check", "metrics"], &page()) else { return };
    assert_eq!(checked.status.code(), Some(0), "{}", words(&checked));
    assert_eq!(words(&checked).trim(), "");
}

#[test]
fn promtool_is_content_with_the_rules_and_their_tests_and_the_configuration() {
    for asked in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        let Some(checked) = promtool(&asked, "") else { return };
        assert_eq!(checked.status.code(), Some(0), "{asked:?}: {}", words(&checked));
    }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// None, said clearly, where there is none.
fn promtool(asked: &[&str], input: &str) -> Option<Output> {
    #[expect(clippy::disallowed_methods, reason = "a test runs a checker")]
    let mut promtool = std::process::Command::new("promtool");
    let piped = promtool.args(asked).current_dir(DIRECTORY).stdin(Stdio::piped());
    let mut child = match piped.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            println!("skipped: promtool cannot be run ({error}): apt-get install prometheus");
            return None;
        }
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    Some(child.wait_with_output().expect("it ends"))
}
