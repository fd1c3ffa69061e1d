//! A cluster whose HTTP ports speak TLS: the nodes, the command line and health checks among them.

use crate::harness::{
    Cluster, Node, PASSWORDS, Recipe, TOKEN, await_that, await_within, password, unique,
};
use crate::reached::proxy;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// An authority of the operator's, and a directory for what it signs.
struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(unique("tls"));
        fs::create_dir_all(&directory).expect("the temporary directory can be written");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(directory.join("ca.pem"), certificate.pem()).expect("ours");
        Authority { directory, issuer: Issuer::new(params, key) }
    }

    /// A certificate for the node, another each time.
    fn sign(&self, node: &str) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![node.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |ending| self.directory.join(format!("{node}.{ending}"));
        fs::write(file("key"), key.serialize_pem()).expect("ours");
        fs::write(file("pem"), certificate.pem()).expect("ours");
    }

    fn given_to(&self, recipe: Recipe, node: &str) -> Recipe {
        recipe
            .option("-v")
            .option(&format!("{}:/etc/pgherd/tls:ro", self.directory.display()))
            .env("PGHERD_TLS_CERT_FILE", &format!("/etc/pgherd/tls/{node}.pem"))
            .env("PGHERD_TLS_KEY_FILE", &format!("/etc/pgherd/tls/{node}.key"))
            .env("PGHERD_TLS_CA_FILE", "/etc/pgherd/tls/ca.pem")
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What a stranger without a certificate is answered, who has the token all the same.
fn stranger(node: &Node, method: &str, path: &str) -> String {
    let ask = r#"
import http.client, ssl, sys
method, name, path, token = sys.argv[1:]
context = ssl.create_default_context(cafile="/etc/pgherd/tls/ca.pem")
context.verify_flags &= ~ssl.VERIFY_X509_STRICT
connection = http.client.HTTPSConnection(name, 8008, timeout=5, context=context)
connection.request(method, path, headers={"Authorization": "Bearer " + token})
print(connection.getresponse().status)
"#;
    node.exec(["python3", "-c", ask, method, &node.name, path, TOKEN]).text().trim().to_owned()
}

fn await_leader(cluster: &Cluster, on: usize, leader: &str) {
    cluster.node(on).await_showing(&format!("{leader} leads"), || {
        let status = cluster.node(on).exec(["pgherd", "status", "--json"]);
        let seen: serde_json::Value = serde_json::from_str(&status.stdout).unwrap_or_default();
        let rows = seen["nodes"].as_array().cloned().unwrap_or_default();
        let sync = rows.iter().any(|row| row["sync"] == true && row["state"] == "running");
        (seen["primary"] == *leader && sync).then_some(()).ok_or(status.text())
    });
}

#[test]
#[ignore = "needs docker: make test"]
fn nodes_that_speak_tls_know_each_other_and_change_roles() {
    let authority = Authority::new();
    (1..=3).for_each(|id| authority.sign(&format!("node{id}")));
    let cluster = Cluster::voting(3, |id, recipe| authority.given_to(recipe, &format!("node{id}")));
    for id in 1..=3 {
        cluster.start(id);
    }
    for node in cluster.nodes() {
        node.container.await_ready();
    }
    await_leader(&cluster, 1, "node1");
    let first = cluster.node(1);
    assert!(first.http("/liveness").is_none_or(|(code, _)| code != 200), "it speaks TLS only");
    assert_eq!(stranger(first, "GET", "/primary"), "200");
    assert_eq!(stranger(first, "PUT", "/pause"), "403", "the token alone is not enough");

    // From a node that does not lead, to one that does, over what a third one knows.
    let said = cluster.node(3).exec(["pgherd", "switchover", "--to", "node2"]);
    assert_eq!(said.status, 0, "{said:#?}");
    await_leader(&cluster, 3, "node2");
    authority.sign("node1");
    first.await_log("the files for TLS have changed: they are read again");
    await_leader(&cluster, 1, "node2");
    cluster.kill(2);
    let others = [1, 3];
    await_that("one of the others leads", || {
        others.iter().find(|id| stranger(cluster.node(**id), "GET", "/primary") == "200")
    });
    cluster.keeps_its_secrets();
}

/// barman's jobs, both kinds of restore, and HAProxy's checks ask over TLS, too.
#[test]
#[ignore = "needs docker: make test"]
fn a_stack_that_speaks_tls_takes_backups_restores_them_and_is_found_by_haproxy() {
    let authority = Authority::new();
    let names = ["node1", "node2", "backup"];
    names.into_iter().chain(["copy"]).for_each(|name| authority.sign(name));
    let cluster = Cluster::stack_with(|id, recipe| {
        let recipe = recipe.env("PGHERD_FAILOVER", "quorum").env("PGHERD_CONTROL_TOKEN", TOKEN);
        authority.given_to(recipe, names[id - 1])
    });
    for id in 1..=3 {
        cluster.start(id);
    }
    for node in cluster.nodes() {
        node.container.await_ready();
    }
    await_leader(&cluster, 1, "node1");
    cluster.node(1).sql("CREATE TABLE kept AS SELECT 1 AS id").ok();
    await_within(Duration::from_secs(180), "barman check is all OK", || {
        let check = cluster.node(3).exec_as("barman", ["barman", "check", "pgherd"]);
        (check.status == 0).then_some(())
    });
    await_within(Duration::from_secs(180), "there is a first backup", || {
        let backups = cluster.node(2).exec(["pgherd", "backups", "--json"]);
        backups.stdout.contains("\"id\"").then_some(())
    });
    let taken = cluster.node(2).exec(["pgherd", "backup", "--wait", "--name", "over-tls"]);
    assert_eq!(taken.status, 0, "{taken:#?}");

    let configuration = include_str!("../../compose/haproxy/haproxy.cfg");
    let plain = "default-server check port 8008";
    assert!(configuration.contains(plain), "{configuration}");
    let with_tls = "default-server check check-ssl verify none port 8008";
    let file = authority.directory.join("haproxy.cfg");
    fs::write(&file, configuration.replace(plain, with_tls)).expect("ours");
    let file = format!("{}:/etc/haproxy/haproxy.cfg:ro", file.display());
    let _haproxy = proxy(cluster.network(), "haproxy").option("-v").option(&file).start();
    let password = format!("PGPASSWORD={}", password("POSTGRES_PASSWORD"));
    let psql = ["env", &password, "psql", "-XAtq", "-h", "haproxy", "-p", "5000", "-U", "postgres"];
    await_that("HAProxy leads to the primary", || {
        let asked = psql.into_iter().chain(["-c", "SELECT pg_is_in_recovery()"]);
        (cluster.node(2).exec(asked).stdout.trim() == "f").then_some(())
    });

    let copy = authority.given_to(Recipe::node("copy"), "copy").network(cluster.network(), "copy");
    let copy = copy.envs(PASSWORDS).envs([
        ("REPMGR_NODE_NAME", "copy"),
        ("PGHERD_CLUSTER", "copy"),
        ("RESTORE_CLUSTER", "pgherd"),
        ("RESTORE_FROM", "over-tls"),
        ("RESTORE_SOURCE", "backup"),
        ("RESTORE_TOKEN", TOKEN),
    ]);
    let copy = copy.start();
    copy.await_ready();
    assert_eq!(copy.sql("SELECT count(*) FROM kept").ok(), "1");

    let restored = cluster.node(2).exec(["pgherd", "restore", "over-tls", "--yes"]);
    assert_eq!(restored.status, 0, "{restored:#?}");
    await_leader(&cluster, 1, "node1");
    assert_eq!(cluster.node(2).sql("SELECT count(*) FROM kept").ok(), "1");
    cluster.keeps_its_secrets();
}

#[test]
#[ignore = "needs docker: make test"]
fn files_for_tls_that_cannot_be_used_are_named_and_nothing_is_begun() {
    let authority = Authority::new();
    authority.sign("node1");
    fs::write(authority.directory.join("node1.key"), "no key").expect("ours");
    let answer = authority.given_to(Recipe::node("node1"), "node1").run();
    assert_eq!(answer.status, 78, "{answer:#?}");
    let text = answer.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(lines.len(), 1, "{answer:#?}");
    for word in ["PGHERD_TLS_KEY_FILE", "/etc/pgherd/tls/node1.key", "no private key"] {
        assert!(lines[0].contains(word), "{}", lines[0]);
    }
}
