//! What is decided without an etcd.

use super::*;
use crate::settings;

fn member(vars: &[(&str, &str)]) -> Option<Member> {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings = settings::read(vars, |_| unreachable!()).unwrap();
    let layout = Layout::new(&settings, 17, "/srv/17/docker".into(), false);
    let ourselves = Address { host: "node2".to_owned(), port: 5432 };
    Member::of(&settings, &layout, &ourselves)
}

fn flag(member: &Member, beginning: &Beginning, name: &str) -> String {
    let flags = member.flags(beginning);
    flags.into_iter().find(|(flag, _)| *flag == name).unwrap().1
}

const VOTERS: (&str, &str) = ("PGHERD_VOTERS", "node3 node1 node2:6000");

#[test]
fn only_a_voter_runs_one_and_only_without_another() {
    assert!(member(&[VOTERS]).is_some());
    assert!(member(&[("PGHERD_VOTERS", "node1 node3 node4")]).is_none());
    assert!(member(&[]).is_none());
    assert!(member(&[VOTERS, ("PGHERD_ETCD_ENDPOINTS", "etcd")]).is_none());
    assert!(member(&[VOTERS, ("PGHERD_FAILOVER", "manual")]).is_none());
}

#[test]
fn a_voter_that_is_named_otherwise_is_told() {
    let at = |host: &str, voters: &str| {
        let vars = [("PGHERD_VOTERS", voters), ("REPMGR_NODE_NAME", "node2")];
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = settings::read(vars, |_| unreachable!()).unwrap();
        Member::misnamed(&settings, &Address { host: host.to_owned(), port: 5432 })
    };
    let told = at("db2", "node1 node2 node3").unwrap();
    assert!(told.contains("REPMGR_NODE_ADDRESS=node2") && told.contains("db2"), "{told}");
    for (host, voters) in [("node2", "node1 node2 node3"), ("db4", "db1 db2 db3")] {
        assert_eq!(at(host, voters), None, "{host} among {voters}");
    }
}

#[test]
fn voters_that_begin_together_say_the_same() {
    let member = member(&[VOTERS, ("PGHERD_ETCD_PORT", "4001")]).unwrap();
    let numbers = [("node1", "a"), ("node2", "b")].map(|(name, nonce)| (name.into(), nonce.into()));
    let together = Beginning::Together { token: Token(numbers.into()) };
    assert_eq!(flag(&member, &together, "initial-cluster-token"), "pgherd/node1=a,node2=b");
    assert_eq!(
        flag(&member, &together, "initial-cluster"),
        "node1=https://node1:4002,node2=https://node2:4002,node3=https://node3:4002"
    );
    assert_eq!(flag(&member, &together, "initial-cluster-state"), "new");
    assert_eq!(flag(&member, &together, "advertise-client-urls"), "https://node2:4001");
    assert_eq!(flag(&member, &together, "data-dir"), "/var/lib/postgresql/pgherd/etcd/data");
    let joins = Beginning::Joins { members: "x".to_owned() };
    assert_eq!(flag(&member, &joins, "initial-cluster"), "x");
    assert_eq!(flag(&member, &joins, "initial-cluster-state"), "existing");
}

#[test]
fn an_election_is_over_before_a_lease_is() {
    for (lease, heartbeat, election) in
        [("4s", "100", "1000"), ("2s", "50", "500"), ("60s", "250", "2500")]
    {
        let member = member(&[VOTERS, ("PGHERD_LEASE", lease)]).unwrap();
        assert_eq!(flag(&member, &Beginning::GoesOn, "heartbeat-interval"), heartbeat);
        assert_eq!(flag(&member, &Beginning::GoesOn, "election-timeout"), election);
    }
}

#[test]
fn one_that_was_added_and_not_started_is_known_by_its_address() {
    let member = member(&[VOTERS]).unwrap();
    let listed = |name: &str, host: &str| Listed {
        name: name.to_owned(),
        peer_urls: vec![format!("https://{host}:2380")],
        ..Listed::default()
    };
    assert_eq!(
        member.initial_cluster(&[listed("node1", "node1"), listed("", "node2")]),
        "node1=https://node1:2380,node2=https://node2:2380"
    );
}

/// A majority of the others, which has begun with an earlier life of node2 among its members, and takes
/// nobody in just now.
async fn only_just_begun() -> Client {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut asked).await {
                    let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
                    if !asked.starts_with("POST") {
                        continue; // A body for itself.
                    }
                    let (code, body) = match asked.split(' ').nth(1).unwrap_or_default() {
                        path if path.ends_with("/member/list") => (
                            200,
                            r#"{"header":{},"members":[{"ID":"5","name":"node2","peerURLs":["https://node2:2380"]}]}"#,
                        ),
                        path if path.ends_with("/member/add") => {
                            (503, r#"{"error":"etcdserver: unhealthy cluster","code":14}"#)
                        }
                        _ => (200, r#"{"header":{}}"#),
                    };
                    let length = body.len();
                    let head = format!("HTTP/1.1 {code} x\r\nContent-Length: {length}\r\n\r\n");
                    stream.write_all((head + body).as_bytes()).await.unwrap();
                }
            });
        }
    });
    Client::new([EtcdEndpoint { tls: false, host: "127.0.0.1".to_owned(), port }], None, None)
}

#[tokio::test]
async fn one_that_is_removed_takes_no_part_in_what_it_was_removed_from() {
    let place = std::env::temp_dir().join(format!("pgherd-member-{}", std::process::id()));
    let data = place.display().to_string();
    let account = Account::current();
    let voters = ("PGHERD_VOTERS", "node1 node2 node3");
    let member = member(&[voters, ("POSTGRES_DATA_DIR", data.as_str())]).unwrap();
    fs::create_dir_all(&member.data).unwrap();
    let within = Duration::from_secs(5);
    let (nobody, majority) = (Client::new([], None, None), only_just_begun().await);
    let none = Votes::new();
    let waits = member.prepare(&nobody, &none, true, &account, within).await;
    assert!(waits.is_err(), "{waits:?}");
    let Some(Vote::New { nonce }) = member.vote() else { panic!("{:?}", member.vote()) };
    let refused = member.prepare(&majority, &none, true, &account, within).await;
    assert!(matches!(refused, Err(MemberError::Etcd(_))), "{refused:?}");
    // Now the others say what they have begun.
    let token = Token([("node1".to_owned(), nonce.clone()), ("node2".to_owned(), nonce)].into());
    let votes = [("node1".to_owned(), Some(Vote::Begins { token }))].into();
    let begins = member.prepare(&majority, &votes, true, &account, within).await;
    assert!(!matches!(begins, Ok(Beginning::Together { .. })), "{begins:?}");
    fs::remove_dir_all(&place).unwrap();
}
