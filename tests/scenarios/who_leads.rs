//! Who leads, by what the members say.

use super::{FIRST_START, RESTART, defaults, fine};
use crate::sightings::{heard_of, leads, of, on_disk, says, serves, silent};
use pgherd::cluster::{Lsn, Role, Standing, SystemId, Timeline};
use pgherd::scenario::{self, DataDirectory, Decision, Ourselves, Scenario, Situation, Wait};

/// What a node finds that was the primary on timeline 2, and what follows from what the others say.
#[test]
fn a_former_primary_leads_again_only_when_nobody_else_can() {
    let begins = |scenario| Some(Decision::Begin(scenario));
    let waits = None;
    let standby = |host, timeline| serves(host, Role::Standby, timeline);
    for (what, sightings, expected) in [
        ("alone in the world", vec![], begins(RESTART)),
        ("its standby answers", vec![standby("node2", 2)], begins(RESTART)),
        ("its standby is silent", vec![silent("node2", true)], waits.clone()),
        ("one that never came is silent", vec![silent("node2", false)], begins(RESTART)),
        ("one of two", vec![standby("node2", 2), silent("node3", true)], begins(RESTART)),
        ("both silent", vec![silent("node2", true), silent("node3", true)], waits.clone()),
        (
            "the one that keeps backups answers",
            vec![heard_of(2, says("backup", Standing::NoData)), silent("node2", true)],
            begins(RESTART),
        ),
        (
            "the same, and has lost its disk",
            vec![says("backup", Standing::NoData), silent("node2", true)],
            waits.clone(),
        ),
        (
            "its only standby has lost its disk",
            vec![says("node2", Standing::Empty { first_role: Role::Standby, gives_way: false })],
            begins(RESTART),
        ),
        (
            "it has heard of a newer timeline",
            vec![heard_of(3, says("backup", Standing::NoData)), silent("node2", true)],
            waits.clone(),
        ),
        ("a standby has newer data", vec![standby("node2", 3)], waits.clone()),
        (
            "another former primary has newer data",
            vec![says(
                "node2",
                Standing::AtRest { role: Role::Primary, timeline: Timeline(3), lsn: Lsn(1) },
            )],
            waits.clone(),
        ),
        (
            "it was replaced",
            vec![leads("node2", 3)],
            begins(Scenario::Rejoin { as_standby: false }),
        ),
        (
            "it was replaced twice",
            vec![leads("node3", 3), leads("node2", 4)],
            begins(Scenario::Rejoin { as_standby: false }),
        ),
        ("two lead", vec![leads("node3", 3), leads("node2", 3)], waits.clone()),
        ("one leads that was replaced itself", vec![leads("node2", 1)], waits.clone()),
        ("another cluster's standby", vec![of(SystemId(9), standby("x", 2))], begins(RESTART)),
    ] {
        let data_directory = DataDirectory::Cluster(on_disk(Role::Primary, 2));
        let situation = Situation { data_directory, sightings, ..fine() };
        let decision = scenario::recognise(&defaults(), &situation).expect(what);
        match expected {
            Some(expected) => assert_eq!(decision, expected, "{what}"),
            None => assert!(matches!(decision, Decision::Wait(_)), "{what}: {decision:?}"),
        }
    }
}

#[test]
fn a_killed_primary_recovers_out_of_reach_before_it_asks_whether_it_leads() {
    let mut killed = on_disk(Role::Primary, 2);
    killed.control.as_mut().expect("it is there").shut_down = false;
    let data_directory = DataDirectory::Cluster(killed);
    let decides = |sightings: Vec<_>| {
        let ourselves = Ourselves { knows_nobody: sightings.is_empty(), ..fine().ourselves };
        let data_directory = data_directory.clone();
        let situation = Situation { data_directory, sightings, ourselves, ..fine() };
        scenario::recognise(&defaults(), &situation).expect("nothing is refused")
    };
    assert_eq!(decides(vec![]), Decision::Begin(RESTART), "there is nobody to ask");
    let standby = serves("node2", Role::Standby, 2);
    assert_eq!(decides(vec![standby]), Decision::Begin(Scenario::Recovery));
    let rejoin = Decision::Begin(Scenario::Rejoin { as_standby: false });
    assert_eq!(decides(vec![leads("node2", 3)]), rejoin);
}

#[test]
fn a_persons_word_stands_for_the_silent_and_for_nobody_else() {
    let data_directory = DataDirectory::Cluster(on_disk(Role::Primary, 2));
    let alone = |sightings| {
        let ourselves = Ourselves { leads_alone: true, ..fine().ourselves };
        let data_directory = data_directory.clone();
        let situation = Situation { data_directory, sightings, ourselves, ..fine() };
        scenario::recognise(&defaults(), &situation).unwrap()
    };
    assert_eq!(alone(vec![silent("node2", true)]), Decision::Begin(RESTART));
    let rejoin = Decision::Begin(Scenario::Rejoin { as_standby: false });
    assert_eq!(alone(vec![leads("node2", 3), silent("node3", true)]), rejoin);
}

/// The half of a first start that needs others: nobody makes a second cluster.
#[test]
fn a_new_cluster_is_made_only_where_there_is_none() {
    let empty =
        |host, gives_way| says(host, Standing::Empty { first_role: Role::Primary, gives_way });
    let standby = says("node2", Standing::Empty { first_role: Role::Standby, gives_way: false });
    let join = Decision::Begin(Scenario::StandbyFirstStart { begun_anew: false });
    let rival = |gives_way| {
        Decision::Wait(Wait::Rival {
            address: if gives_way { "node0" } else { "node2" }.parse().unwrap(),
            name: if gives_way { "node0" } else { "node2" }.to_owned(),
            gives_way,
        })
    };
    for (what, sighting, expected) in [
        ("a silent one", silent("node2", true), Decision::Begin(FIRST_START)),
        ("one that waits for us", standby, Decision::Begin(FIRST_START)),
        ("one that leads", leads("node2", 1), join),
        ("another master, with a higher name", empty("node2", false), rival(false)),
        ("the same, which has seen us", empty("node2", true), Decision::Begin(FIRST_START)),
        ("another master, with a lower name", empty("node0", false), rival(true)),
        (
            "one that has begun",
            says("node2", Standing::Preparing { role: Role::Primary }),
            Decision::Wait(Wait::FirstStartElsewhere { address: "node2".parse().unwrap() }),
        ),
        (
            "a standby that has data",
            serves("node2", Role::Standby, 1),
            Decision::Wait(Wait::NobodyLeads { address: "node2".parse().unwrap() }),
        ),
    ] {
        let situation = Situation { sightings: vec![sighting], ..fine() };
        let decision = scenario::recognise(&defaults(), &situation);
        assert_eq!(decision, Ok(expected), "{what}");
    }
}
