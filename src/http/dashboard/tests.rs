use super::super::tests::{rich, snapshot};
use super::*;
use crate::cluster::{Entry, NodeState, RunningScenario};
use crate::control::NodeRole;

fn entry(text: &str) -> Entry {
    Entry {
        at: "2026-11-20T03:00:01.123456Z".to_owned(),
        node: "node1".to_owned(),
        id: "rule".to_owned(),
        epoch: Some(7),
        why: Some("the rule that fired".to_owned()),
        text: text.to_owned(),
    }
}

fn page(seen: &Snapshot, events: Vec<Entry>) -> String {
    let main = View::of(seen, events, 10);
    let (cluster, node) = (main.cluster.clone(), main.node.clone());
    html(&Page { cluster, node, main: html(&main) })
}

/// With a standby that clones.
fn two() -> Snapshot {
    let mut seen = rich();
    let mut standby = seen.nodes[0].clone();
    standby.name = "node2".to_owned();
    standby.address = "node2:5432".parse().unwrap();
    (standby.role, standby.state) = (Some(NodeRole::Standby), NodeState::Cloning);
    standby.follows = Some("node1:5432".parse().unwrap());
    standby.sync = true;
    standby.scenario = Some(RunningScenario {
        title: "Slave is started".to_owned(),
        stage: 2,
        stages: 3,
        stage_title: "Clone".to_owned(),
        titles: ["Check flag", "Clone", "Register"].map(str::to_owned).to_vec(),
        bytes_done: Some(1 << 20),
        bytes_total: Some(1 << 21),
        seconds_left: Some(9),
    });
    seen.nodes.push(standby);
    seen
}

#[test]
fn the_page_says_who_leads_who_follows_and_how_far_a_plan_is() {
    let page = page(&two(), vec![entry("follows node1")]);
    for expected in [
        "node1 leads (epoch 7)",
        "node1, primary, running; node2, standby, cloning\"",
        "<span>Check flag</span><span class=\"unseen\"> (done)</span>",
        "aria-current=\"step\"",
        "1.0 MB of 2.0 MB, 50 %, about 9 s to go",
        "the rule that fired",
        "2026-11-20 03:00",
        "back to any moment",
        "<title>pg&#34;herd",
    ] {
        assert!(page.contains(expected), "{expected}\n{page}");
    }
}

#[test]
fn a_standby_is_drawn_as_synchronous_only_while_somebody_leads() {
    let mut seen = two();
    seen.nodes[1].state = NodeState::Running;
    seen.nodes[1].scenario = None;
    let lines =
        |seen: &Snapshot| picture::of(seen).lines.iter().map(|line| line.sync).collect::<Vec<_>>();
    assert_eq!(lines(&seen), [true]);
    seen.primary = None;
    assert_eq!(lines(&seen), [false]);
    assert!(!picture::of(&seen).words.contains("synchronous"));
    seen.nodes[0].state = NodeState::Unreachable;
    assert!(lines(&seen).is_empty(), "nobody streams from a node that is gone");
}

#[test]
fn what_others_say_is_text_and_never_part_of_the_page() {
    let evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let mut seen = two();
    seen.cluster = evil.to_owned();
    seen.warnings = vec![evil.to_owned()];
    let node = &mut seen.nodes[1];
    node.name = evil.to_owned();
    node.waits_for = Some(evil.to_owned());
    node.warnings = vec![format!("{evil} too")];
    node.services = vec![evil.to_owned()];
    if let Some(scenario) = &mut node.scenario {
        (scenario.title, scenario.titles) = (evil.to_owned(), vec![evil.to_owned(); 3]);
    }
    seen.voters = vec![evil.to_owned()];
    let mut event = entry(evil);
    (event.node, event.id, event.why) = (evil.to_owned(), evil.to_owned(), Some(evil.to_owned()));
    event.at = evil.to_owned();
    let page = page(&seen, vec![event]);
    assert!(!page.contains("<script>alert") && !page.contains("<img"), "{page}");
    assert!(!page.contains(" style=") && !page.contains(" onclick="), "the policy forbids them");
    let scripts = page.matches("<script").count();
    assert_eq!((scripts, page.matches("<style").count()), (1, 0), "{page}");
}

#[test]
fn a_page_of_a_node_that_knows_next_to_nothing_is_whole() {
    let mut seen = snapshot();
    seen.primary = None;
    let own = &mut seen.nodes[0];
    (own.role, own.state, own.id, own.lsn) = (None, NodeState::Starting, None, None);
    own.waits_for = Some("waits for node2".to_owned());
    let page = page(&seen, Vec::new());
    for expected in ["nobody takes writes", "node1 waits: waits for node2", "Nothing yet"] {
        assert!(page.contains(expected), "{expected}\n{page}");
    }
    assert_eq!(page.matches("<section").count(), page.matches("</section>").count());
}

#[test]
fn an_event_has_the_format_of_server_sent_events() {
    assert_eq!(event("<p>\n\n  a\rb\n"), "event: main\ndata: <p>\ndata: a\ndata: b\n\n");
}
