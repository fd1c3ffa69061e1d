//! Who votes.

use super::*;

fn herd(pairs: &[(&str, &str)]) -> HerdSettings {
    read_pairs(pairs).unwrap_or_else(|problems| panic!("{problems}")).herd
}

fn voters(pairs: &[(&str, &str)]) -> Vec<String> {
    herd(pairs).voters.iter().map(ToString::to_string).collect()
}

#[test]
fn the_master_and_its_slaves_vote_where_these_are_three_or_five() {
    let three = ["node1:5432", "node2:5432", "node3:5432"];
    let slaves = ("REPMGR_SLAVES", "node2,node3");
    // The master, by its host name or the address that it is given; a slave, by the master's.
    assert_eq!(voters(&[slaves, ("HOSTNAME", "node1")]), three);
    assert_eq!(voters(&[slaves, ("HOSTNAME", "a"), ("REPMGR_NODE_ADDRESS", "node1")]), three);
    let slave = [("REPMGR_MASTER", "false"), ("HOSTNAME", "node3")];
    assert_eq!(voters(&[&slave[..], &[slaves, ("REPMGR_MASTER_HOST", "node1")]].concat()), three);
    // One list for all of them.
    let all = ("REPMGR_SLAVES", "node1,node2,node3");
    assert_eq!(voters(&[all, ("HOSTNAME", "node1")]), three);
    assert_eq!(voters(&[all, ("REPMGR_MASTER_HOST", "node1"), ("HOSTNAME", "node2")]), three);

    for nobody in [
        &[slaves][..], // No host name.
        &[("HOSTNAME", "node1")],
        &[("HOSTNAME", "node1"), ("REPMGR_SLAVES", "node2")],
        &[("HOSTNAME", "node1"), ("REPMGR_SLAVES", "node2,node3,node4")],
        &[&slave[..], &[slaves]].concat(), // It does not know the master.
        &[slaves, ("HOSTNAME", "node1"), ("PGHERD_ETCD_ENDPOINTS", "etcd")],
    ] {
        assert_eq!(voters(nobody), [""; 0], "{nobody:?}");
    }
    let given = ("PGHERD_VOTERS", "node1 node2 backup");
    assert_eq!(voters(&[slaves, given]), ["node1:5432", "node2:5432", "backup:5432"]);
}

#[test]
fn whoever_can_vote_does_unless_people_decide() {
    let failover = |pairs: &[(&str, &str)]| herd(pairs).failover;
    let voters = ("PGHERD_VOTERS", "a b c");
    assert_eq!(failover(&[]), Failover::Manual);
    assert_eq!(failover(&[voters]), Failover::Quorum);
    assert_eq!(failover(&[("PGHERD_ETCD_ENDPOINTS", "etcd")]), Failover::Quorum);
    assert_eq!(failover(&[voters, ("PGHERD_FAILOVER", "manual")]), Failover::Manual);
    assert_eq!(failover(&[("PGHERD_FAILOVER", "eager")]), Failover::Eager);
    let line = refusal(&[("PGHERD_FAILOVER", "quorum")]);
    for way_out in ["PGHERD_VOTERS", "PGHERD_ETCD_ENDPOINTS", "manual"] {
        assert!(line.contains(way_out), "{line}");
    }
    refusal(&[("PGHERD_FAILOVER", "quorum"), ("PGHERD_VOTERS", "a b")]);
    let line = refusal(&[("PGHERD_VOTERS", "a:1 a:2 b")]);
    assert!(line.contains("a is there twice"), "{line}");
}

#[test]
fn an_endpoint_has_etcd_s_port_and_speaks_tls_where_there_are_files_for_it() {
    let endpoints = |pairs: &[(&str, &str)]| -> Vec<String> {
        herd(pairs).etcd.endpoints.iter().map(ToString::to_string).collect()
    };
    let given = ("PGHERD_ETCD_ENDPOINTS", "a, b:1 http://c/ https://d:2 ::1 [::1]:3 10.0.0.1");
    let plain = [
        "http://a:2379",
        "http://b:1",
        "http://c:2379",
        "https://d:2",
        "http://[::1]:2379",
        "http://[::1]:3",
        "http://10.0.0.1:2379",
    ];
    assert_eq!(endpoints(&[given]), plain);
    let ca = ("PGHERD_ETCD_CA_FILE", "/ca.pem");
    assert_eq!(endpoints(&[given, ca])[..3], ["https://a:2379", "https://b:1", "http://c:2379"]);
}

#[test]
fn a_key_comes_with_its_certificate_and_a_password_with_its_user() {
    for (one, value, other) in [
        ("PGHERD_ETCD_CERT_FILE", "/c", "PGHERD_ETCD_KEY_FILE"),
        ("PGHERD_ETCD_KEY_FILE", "/k", "PGHERD_ETCD_CERT_FILE"),
        ("PGHERD_ETCD_USER", "u", "PGHERD_ETCD_PASSWORD"),
    ] {
        let line = refusal(&[(one, value)]);
        assert!(line.starts_with(&format!("{one} needs {other}")), "{line}");
        assert!(read_pairs(&[(one, value), (other, "/x")]).is_ok());
    }
}

#[test]
fn etcd_s_two_ports_are_nobody_else_s_where_it_runs() {
    let port = ("PGHERD_ETCD_PORT", "5431");
    let voters = ("PGHERD_VOTERS", "a b c");
    assert_eq!(
        refusal(&[port, voters]),
        "POSTGRES_PORT and PGHERD_ETCD_PORT + 1 (for etcd's peers) are both 5432. Give one of \
         them another port."
    );
    refusal(&[("PGHERD_HTTP_PORT", "2379"), voters]);
    assert!(read_pairs(&[port]).is_ok(), "none runs");
    assert!(read_pairs(&[port, voters, ("PGHERD_FAILOVER", "manual")]).is_ok(), "none runs");
    assert!(read_pairs(&[port, ("PGHERD_ETCD_ENDPOINTS", "e")]).is_ok(), "it runs elsewhere");
}
