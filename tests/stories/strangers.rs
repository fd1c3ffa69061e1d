//! Whoever is in the network and has no password gets nothing.

use crate::harness::{Cluster, Recipe, Server};

#[test]
#[ignore = "needs docker: make test"]
fn a_stranger_on_the_network_cannot_write_replicate_change_roles_read_a_backup_vote_or_join() {
    let cluster = Cluster::voting_up(3);
    let prober = cluster.probe();
    let stranger =
        Recipe::node("stranger").network(cluster.network(), "stranger").entrypoint("sleep");
    let stranger = stranger.command(["infinity"]).start();
    // Nothing of the documented defaults opens a door where the operator has chosen others.
    let users = [
        ("postgres", "mysecretpassword", "postgres"),
        ("repmgr", "iamrepmgr", "repmgr"),
        ("repmgr_streaming", "iamstreamingrepmgr", "postgres"),
        ("barman", "iambarman", "postgres"),
        ("barman_streaming", "iamstreamingbarman", "postgres"),
        ("postgres", "", "postgres"),
    ];
    for host in ["node1", "node2", "node3"] {
        for (user, password, database) in users {
            let server = Server { host, port: "5432", user, password, database };
            let said = stranger.psql(&server, "CREATE TABLE mine ()");
            assert_ne!(said.status, 0, "{user} at {host}: {said:?}");
        }
        for user in ["repmgr_streaming", "barman_streaming", "postgres"] {
            let copy =
                format!("PGPASSWORD=x pg_basebackup -h {host} -U {user} -D /tmp/copy -X none");
            let said = stranger.shell(&copy);
            assert_ne!(said.status, 0, "{said:?}");
        }
        for (method, path) in [
            ("POST", "/switchover?to=node2"),
            ("DELETE", "/switchover"),
            ("POST", "/failover?allow_data_loss=1"),
            ("POST", "/restart"),
            ("POST", "/reload"),
            ("POST", "/reinitialize"),
            ("PUT", "/pause"),
            ("PUT", "/maintenance"),
        ] {
            for token in ["", "guessed"] {
                let said = stranger.shell(&asked(host, method, path, token));
                assert_eq!(said.stdout.trim(), "401", "{method} {path}: {said:?}");
            }
        }
        // The voters' etcd and its peers speak only with whoever has a certificate of the cluster's.
        for port in [2379, 2380] {
            let ask = format!(
                "import socket, ssl; tls = ssl._create_unverified_context(); \
                 link = tls.wrap_socket(socket.create_connection(('{host}', {port}), 5)); \
                 link.sendall(b'GET /version HTTP/1.0\\r\\n\\r\\n'); print(link.recv(99))"
            );
            let said = stranger.exec(["python3", "-c", &ask]);
            assert!(
                said.stdout.is_empty() && said.stderr.contains("SSL"),
                "{host}:{port}: {said:?}"
            );
        }
    }
    // One that calls itself a member, with passwords of its own.
    let joins = Recipe::node("node4")
        .network(cluster.network(), "node4")
        .env("REPMGR_MASTER", "false")
        .env("REPMGR_MASTER_HOST", "node1")
        .env("REPMGR_NODE_NAME", "node4")
        .env("PGHERD_VOTERS", "node1,node2,node3")
        .env("PGHERD_CONTROL_TOKEN", "guessed")
        .start();
    joins.await_that("it is told that it is none", || {
        let log = joins.log();
        (log.contains("password") || log.contains("control token")).then_some(())
    });
    assert_ne!(joins.http("/readiness").map(|(code, _)| code), Some(200));
    let members = ["psql", "-XAtq", "-d", "repmgr", "-c", "SELECT count(*) FROM repmgr.nodes"];
    assert_eq!(cluster.node(1).exec_as("postgres", members).ok(), "3");
    assert_eq!(cluster.primaries(), [1]);
    // Whoever is asked to look looks; that is in nobody's way. Longer than two leases: only looking on can
    // show that none runs out.
    let flood = "import socket, sys, threading, time
end = time.monotonic() + 10
def flood(host):
    while time.monotonic() < end:
        with socket.create_connection((host, 8008), 5) as link:
            link.sendall(b'POST /lease/look HTTP/1.0\\r\\n\\r\\n')
            link.recv(99)
threads = [threading.Thread(target=flood, args=(f'node{n}',)) for n in (1, 1, 2, 3)]
[one.start() for one in threads]
[one.join() for one in threads]";
    stranger.exec(["python3", "-c", flood]).ok();
    assert_eq!(cluster.primaries(), [1], "its lease was renewed meanwhile");
    assert_eq!(cluster.wish(1, "PUT", "/pause?on=false").0, 202, "who has the token may");
    cluster.await_settled(1);
    let record = prober.end(&cluster, 1, &[2, 3]);
    assert_eq!(record.timelines(), [1].into());
}

/// The image has no curl: bash speaks for the stranger.
fn asked(host: &str, method: &str, path: &str, token: &str) -> String {
    format!(
        "exec 3<>/dev/tcp/{host}/8008; printf '%s %s HTTP/1.1\\r\\nHost: {host}\\r\\n\
         Authorization: Bearer {token}\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n' \
         '{method}' '{path}' >&3; read -r _ code _ <&3; echo $code"
    )
}
