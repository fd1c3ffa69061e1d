//! Copies of the backups in an S3 store: made beside everything else, and good for a restore when nothing else is
//! left.

use crate::harness::{
    Container, Network, PASSWORDS, Recipe, Volume, await_within, docker, image, run,
};
use std::time::Duration;

const URL: &str = "s3://backups/of/ours";
const ENDPOINT: &str = "http://s3:9000";
const KEY: &str = "story-key";
const SECRET: &str = "hush-a-secret-key";
/// The first backup is taken within two minutes, and begins to be copied at once.
const COPIED_WITHIN: Duration = Duration::from_secs(180);

/// moto, of Debian's.
fn s3(network: &Network) -> Container {
    const IMAGE: &str = "pgherd-s3-server";
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories/s3");
    run("docker/base.sh", ["trixie"]).ok();
    docker(["build", "-q", "-t", IMAGE, directory]).ok();
    let recipe = Recipe::node("s3").network(network, "s3").image(IMAGE);
    let server = recipe.env("KEY", KEY).env("BUCKET", "backups").start();
    server.await_log("serves");
    server
}

fn recipe(network: &Network, data: &Volume, backups: &Volume, secret: &Volume) -> Recipe {
    Recipe::node("node1")
        .network(network, "node1")
        .volume(data, "/var/lib/postgresql")
        .volume(backups, "/home/barman/data")
        .volume(secret, "/run/secrets")
        .envs(PASSWORDS)
        .env("REPMGR_NODE_NAME", "node1")
        .env("BARMAN_COMPRESSION", "gzip")
        .env("BARMAN_CLOUD_URL", URL)
        .env("BARMAN_CLOUD_ENDPOINT_URL", ENDPOINT)
        .env("BARMAN_CLOUD_ACCESS_KEY", KEY)
        .env("BARMAN_CLOUD_SECRET_KEY_FILE", "/run/secrets/s3")
        .command(["postgres", "-c", "autovacuum=off"])
}

/// A file that only root can read.
fn secret() -> Volume {
    let volume = Volume::new();
    volume.shell(&format!("umask 077; echo '{SECRET}' >/v/s3"));
    volume
}

fn ask(node: &Container, query: &str) -> String {
    node.sql(query).ok()
}

fn copies(node: &Container) -> serde_json::Value {
    node.http("/status")
        .and_then(|(_, body)| serde_json::from_str::<serde_json::Value>(&body).ok())
        .map(|status| status["backups"]["copies"].clone())
        .unwrap_or_default()
}

/// All WAL up to now is in files that are full, and these are elsewhere.
fn await_all_copied(node: &Container) {
    let name = "SELECT pg_walfile_name(pg_switch_wal())";
    let name = ask(node, name);
    let note = "/home/barman/data/pgherd/.pgherd-copies/wals";
    await_within(COPIED_WITHIN, &format!("{name} is copied"), || {
        // What cron does each minute.
        node.exec_as("barman", ["barman", "archive-wal", "pgherd"]);
        node.shell(&format!("grep -x {name} {note}")).stdout.contains(&name).then_some(())
    });
}

/// By hand: what the tools of barman make of the bucket, as root of a container that has nothing else.
fn by_hand(network: &Network, script: &str) -> Recipe {
    Recipe::node("hand")
        .network(network, "hand")
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AT", &format!("--endpoint-url {ENDPOINT}"))
        .env("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        .entrypoint("bash")
        .command(["-c", script])
}

#[test]
#[ignore = "needs docker: make test"]
fn what_barman_has_is_in_s3_too_and_restores_from_there_with_barmans_own_tools() {
    let (network, data, backups, secret) = (Network::new(), Volume::new(), Volume::new(), secret());
    let server = s3(&network);
    let node = recipe(&network, &data, &backups, &secret).start();
    node.await_ready();
    ask(&node, "CREATE TABLE told (n int)");
    ask(&node, "INSERT INTO told SELECT generate_series(1, 10)");
    let first = await_within(COPIED_WITHIN, "a backup is there", || {
        copies(&node)["last"].as_str().map(str::to_owned)
    });
    let shown = node.exec(["pgherd", "status"]).ok();
    assert!(shown.contains(&format!("copies in {URL}: the newest {first}")), "{shown}");
    ask(&node, "INSERT INTO told SELECT generate_series(11, 20)");
    await_all_copied(&node);

    // Without the store Postgres and barman go on, and somebody is told.
    network.disconnect(&server.name);
    ask(&node, "INSERT INTO told SELECT generate_series(21, 30)");
    ask(&node, "SELECT pg_switch_wal()");
    let warned = await_within(COPIED_WITHIN, "it is warned of", || {
        let status = node.exec(["pgherd", "status"]).text();
        status.contains(&format!("not copied to {URL}")).then_some(status)
    });
    assert!(!warned.contains(SECRET), "{warned}");
    let taken = node.exec(["pgherd", "backup", "--wait"]).ok();
    let check = node.exec_as("barman", ["barman", "check", "pgherd"]);
    assert_eq!(check.status, 0, "{}", check.text());
    network.connect(&server.name, Some("s3"));
    await_within(COPIED_WITHIN, "all of it is there, the backup of meanwhile too", || {
        let seen = copies(&node);
        let is_all =
            seen["error"].is_null() && seen["last"] == taken.trim() && seen["wal_waiting"] == 0;
        is_all.then_some(())
    });
    ask(&node, "INSERT INTO told SELECT generate_series(31, 40)");
    await_all_copied(&node);
    let metrics = node.http("/metrics").expect("it answers").1;
    assert!(metrics.contains("pgherd_copies_last_ok{") && metrics.contains("_copy_age_seconds{"));

    // Nobody has seen the key.
    let log = node.log();
    assert!(!log.contains(SECRET), "{log}");
    let settings = node.exec(["pgherd", "settings"]).text();
    assert!(
        !settings.contains(SECRET) && settings.contains("BARMAN_CLOUD_SECRET_KEY"),
        "{settings}"
    );
    let files =
        format!("grep -rl {SECRET} /run/pgherd /etc /home/barman /var/lib/postgresql; true");
    assert_eq!(node.shell(&files).ok(), "");

    // All is lost but the bucket.
    node.signal("KILL").await_end();
    drop(node);
    let hand = by_hand(
        &network,
        &format!(
            "set -e; D=/var/lib/postgresql/back; \
             barman-cloud-backup-list $AT {URL} pgherd; mkdir $D; \
             barman-cloud-restore $AT {URL} pgherd {first} $D; chown -R postgres: $D; chmod 700 $D; \
             echo local all all trust >/tmp/hba; touch $D/recovery.signal; \
             echo \"restore_command = 'barman-cloud-wal-restore $AT {URL} pgherd %f %p'\" >>$D/postgresql.auto.conf; \
             exec setpriv --reuid postgres --regid postgres --init-groups env HOME=/tmp postgres -D $D \
               -c unix_socket_directories=/tmp -c shared_preload_libraries= -c archive_mode=off \
               -c hba_file=/tmp/hba"
        ),
    )
    .start();
    let rows = hand.await_that("it has recovered", || {
        if let Some(status) = hand.exit_status() {
            panic!("it ended with {status}: {}", hand.log());
        }
        let psql = ["psql", "-h", "/tmp", "-XAtqc"];
        let query = "SELECT count(*) || ' to ' || max(n) FROM told WHERE NOT pg_is_in_recovery()";
        let answer = hand.exec_as("postgres", psql.into_iter().chain([query]));
        (answer.status == 0 && answer.stdout.trim() != "").then_some(answer.stdout)
    });
    assert_eq!(rows.trim(), "40 to 40", "{}", image());
}

#[test]
#[ignore = "needs docker: make test"]
fn what_another_cluster_has_in_s3_is_left_alone() {
    let (network, secret) = (Network::new(), secret());
    let _server = s3(&network);
    let kept: Vec<_> = (0..4).map(|_| Volume::new()).collect();
    let node = recipe(&network, &kept[0], &kept[1], &secret).start();
    node.await_ready();
    await_within(COPIED_WITHIN, "a backup is there", || copies(&node)["last"].as_str().map(drop));
    await_all_copied(&node);
    assert_eq!(node.stop(), 0);
    let list = format!(
        "python3 -c \"import boto3; \
         [print(o.key, o.e_tag) for o in boto3.resource('s3', endpoint_url='{ENDPOINT}').Bucket('backups').objects.all()]\""
    );
    let before = by_hand(&network, &list).run().ok();
    assert!(before.contains("of/ours/pgherd/wals/"), "{before}");

    // A new cluster by mistake: the same name, the same place, files of WAL of the same names.
    let other = recipe(&network, &kept[2], &kept[3], &secret).start();
    other.await_ready();
    other.await_that("a backup is taken", || {
        (other.http("/status")?.1.contains("\"count\":1")).then_some(())
    });
    await_within(COPIED_WITHIN, "it is refused", || {
        let status = other.exec(["pgherd", "status"]).text();
        status.contains("has backups of another cluster").then_some(())
    });
    ask(&other, "SELECT pg_switch_wal()");
    assert_eq!(other.stop(), 0);
    assert_eq!(by_hand(&network, &list).run().ok(), before);
}

#[test]
#[ignore = "needs docker: make test"]
fn a_cluster_comes_back_from_s3_alone_and_its_copies_go_on() {
    let (network, secret) = (Network::new(), secret());
    let _server = s3(&network);
    let kept: Vec<_> = (0..6).map(|_| Volume::new()).collect();
    let node = recipe(&network, &kept[0], &kept[1], &secret).start();
    node.await_ready();
    ask(&node, "CREATE TABLE told AS SELECT generate_series(1, 10) AS n");
    let first = await_within(COPIED_WITHIN, "a backup is there", || {
        copies(&node)["last"].as_str().map(str::to_owned)
    });
    let early = ask(&node, "SELECT clock_timestamp()");
    ask(&node, "INSERT INTO told SELECT generate_series(11, 20)");
    await_all_copied(&node);
    node.signal("KILL").await_end();
    drop(node);

    // To the end of what there is, into a cluster that goes on.
    let back = recipe(&network, &kept[2], &kept[3], &secret)
        .env("RESTORE_FROM", "latest")
        .env("RESTORE_SOURCE", URL);
    let plan = back.clone().command(["pgherd", "plan"]).run().ok();
    assert!(plan.contains(&first) && plan.contains(URL), "{plan}");
    let node = back.start();
    node.await_ready();
    let rows = "SELECT count(*) || ' to ' || max(n) FROM told";
    assert_eq!(ask(&node, rows), "20 to 20");
    assert_eq!(ask(&node, "SELECT timeline_id FROM pg_control_checkpoint()"), "2");
    ask(&node, "INSERT INTO told VALUES (99)");
    await_within(COPIED_WITHIN, "its own backup is there too", || {
        let seen = copies(&node);
        (seen["last"].as_str().is_some_and(|id| id > first.as_str())).then_some(())
    });
    await_all_copied(&node);
    let log = node.log();
    assert!(log.contains("has the checksum that was noted") && !log.contains(SECRET), "{log}");
    node.signal("KILL").await_end();
    drop(node);

    // To a moment before, under another name: the way leads through neither of them.
    let copy = recipe(&network, &kept[4], &kept[5], &secret)
        .envs([("PGHERD_CLUSTER", "copy"), ("RESTORE_CLUSTER", "pgherd")])
        .envs([("RESTORE_FROM", "latest"), ("RESTORE_SOURCE", URL)])
        .env("RESTORE_TARGET_TIME", &early)
        .env("RESTORE_TARGET_TIMELINE", "1")
        .start();
    copy.await_ready();
    assert_eq!(ask(&copy, rows), "10 to 10");
    assert_eq!(ask(&copy, "SELECT timeline_id FROM pg_control_checkpoint()"), "3");
}
