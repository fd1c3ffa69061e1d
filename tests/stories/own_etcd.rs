//! An etcd that is there already, and wants a name and a password.

use crate::harness::{Cluster, Container, LEADS_WITHIN, Network, Recipe, await_that};
use std::time::Instant;

const USER: &str = "pgherd";
const PASSWORD: &str = "hush etcd '6\"\\:@%$";

/// It asks for a name and a password, as an administrator would have it.
const LOCK: &str = r#"
import json, sys, urllib.request
user, password = sys.argv[1:]
def ask(path, **body):
    request = urllib.request.Request("http://127.0.0.1:2379/v3/" + path, json.dumps(body).encode())
    urllib.request.urlopen(request, timeout=5).read()
import base64
everything = base64.b64encode(b"/pgherd/").decode(), base64.b64encode(b"/pgherd0").decode()
ask("auth/user/add", name="root", password=password + "root")
ask("auth/role/add", name="root")
ask("auth/user/grant", user="root", role="root")
ask("auth/user/add", name=user, password=password)
ask("auth/role/add", name="herd")
ask("auth/role/grant", name="herd", perm={"permType": "READWRITE", "key": everything[0], "range_end": everything[1]})
ask("auth/user/grant", user=user, role="herd")
ask("auth/enable")
"#;

fn etcd(network: &Network) -> Container {
    let flags = [
        "--data-dir=/tmp/etcd",
        "--listen-client-urls=http://0.0.0.0:2379",
        "--advertise-client-urls=http://etcd:2379",
    ];
    let etcd = Recipe::node("etcd").network(network, "etcd").entrypoint("etcd").command(flags);
    let etcd = etcd.start();
    await_that("it serves, and is locked", || {
        let locked = etcd.exec(["python3", "-c", LOCK, USER, PASSWORD]);
        (locked.status == 0).then_some(())
    });
    etcd
}

/// Two nodes and no voter among them: the third vote is the etcd's.
#[test]
#[ignore = "needs docker: make test"]
fn two_nodes_keep_one_primary_by_an_etcd_of_the_operators() {
    let cluster = Cluster::with(2, |_, recipe| {
        recipe
            .env("PGHERD_FAILOVER", "quorum")
            .env("PGHERD_ETCD_ENDPOINTS", "http://etcd:2379")
            .env("PGHERD_ETCD_USER", USER)
            .env("PGHERD_ETCD_PASSWORD", PASSWORD)
    });
    let etcd = etcd(cluster.network());
    cluster.begin(0);
    cluster.await_synchronous(1);
    let prober = cluster.probe();
    let killed = Instant::now();
    cluster.kill(1);
    cluster.await_primary(&[2], LEADS_WITHIN);
    println!("node2 leads {:.1} s after node1 was lost", killed.elapsed().as_secs_f64());
    prober.await_rows();
    cluster.start(1);
    cluster.await_settled(2);
    // It is gone for a while; the two see each other, and agree.
    etcd.pause();
    cluster.node(2).await_showing("it says so", || {
        let warnings = cluster.warnings(2);
        warnings.contains("voters do not answer").then_some(()).ok_or(warnings)
    });
    prober.await_rows();
    etcd.unpause();
    cluster.await_settled(2);
    let record = prober.end(&cluster, 2, &[1]);
    assert_eq!(record.timelines(), [1, 2].into());
}

/// With another password nobody leads, and it says why.
#[test]
#[ignore = "needs docker: make test"]
fn an_etcd_that_lets_nobody_in_is_said_and_nobody_leads() {
    let cluster = Cluster::with(1, |_, recipe| {
        recipe
            .env("PGHERD_FAILOVER", "quorum")
            .env("PGHERD_ETCD_ENDPOINTS", "http://etcd:2379")
            .env("PGHERD_ETCD_USER", USER)
            .env("PGHERD_ETCD_PASSWORD", "another")
    });
    let _etcd = etcd(cluster.network());
    let node = cluster.start(1);
    node.await_alive("it says why", || {
        let log = node.log();
        (log.contains("authentication failed") || log.contains("invalid user")).then_some(())
    });
    assert!(cluster.primaries().is_empty());
}
