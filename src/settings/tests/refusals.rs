//! Every bad variable has its line.

use super::*;

#[test]
fn a_variable_and_its_file_are_exclusive() {
    let line = refusal(&[("POSTGRES_PASSWORD", "x"), ("POSTGRES_PASSWORD_FILE", "/f")]);
    assert!(
        line.contains(
            "both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are set (but are exclusive)"
        )
    );
}

#[test]
fn a_file_that_cannot_be_read_or_is_empty_is_named() {
    let refused = |path: &str| {
        let vars = owned(&[("POSTGRES_PASSWORD_FILE", path)]);
        read(vars, |_| Err(io::ErrorKind::NotFound.into())).unwrap_err().to_string()
    };
    assert_eq!(
        refused("/run/secrets/db"),
        "POSTGRES_PASSWORD_FILE names \"/run/secrets/db\", which cannot be read: entity not found. \
         Mount it and let root read it, or unset POSTGRES_PASSWORD_FILE."
    );
    assert!(!refused("hunter2").contains("hunter2"), "it may be the password itself");

    let empty = read_with_file(&[("POSTGRES_PASSWORD_FILE", "/run/secrets/db")], "\n").unwrap_err();
    assert!(empty.to_string().contains("/run/secrets/db\", which is empty"), "{empty}");
    assert!(read_with_file(&[("POSTGRES_DB_FILE", "/f")], "\n").is_ok(), "no secret: unset");
}

/// A value for every variable that it cannot have.
const WRONG: &[(&str, &str)] = &[
    ("POSTGRES_PORT", "0"),
    ("POSTGRES_TECHNICAL_PORT", "65536"),
    ("POSTGRES_DATA_DIR", "var/lib/postgresql"),
    ("POSTGRES_PASSWORD", "two\nlines"),
    ("REPMGR_MASTER", "maybe"),
    ("REPMGR_CONFIG_DIR", "."),
    ("REPMGR_NODE_NAME", "node 1"),
    ("REPMGR_SLAVES", "node2,node3:x"),
    ("REPMGR_PASSWORD", "two\nlines"),
    ("REPMGR_STREAMING_PASSWORD", "two\nlines"),
    ("BARMAN_PASSWORD", "two\nlines"),
    ("BARMAN_STREAMING_PASSWORD", "two\nlines"),
    ("BARMAN_BACKUP_DIR", "~/data"),
    ("BARMAN_RETENTION", "for ever"),
    ("BARMAN_CONFIG_DIR", "C:\\barman"),
    ("REPMGR_MASTER_HOST", "node1:"),
    ("REPMGR_CLONE_FROM", "slave"),
    ("REPMGR_NODE_ADDRESS", "node1:5432"),
    ("REPMGR_NODE_ID", "0"),
    ("REPMGR_PRIORITY", "-1"),
    ("REPMGR_LOCATION", "l'Aquila"),
    ("PGHERD_CLUSTER", "all"),
    ("PGHERD_ROLE", "master"),
    ("PGHERD_BACKUPS", "there"),
    ("PGHERD_VOTERS", "node1,node2"),
    ("PGHERD_ETCD_PORT", "65535"),
    ("PGHERD_ETCD_ENDPOINTS", "ftp://etcd"),
    ("PGHERD_ETCD_CA_FILE", "ca.pem"),
    ("PGHERD_ETCD_CERT_FILE", "cert.pem"),
    ("PGHERD_ETCD_KEY_FILE", "key.pem"),
    ("PGHERD_ETCD_USER", "two\nlines"),
    ("PGHERD_ETCD_PASSWORD", "two\nlines"),
    ("PGHERD_FAILOVER", "automatic"),
    ("PGHERD_LEASE", "1s"),
    ("PGHERD_SYNCHRONOUS", "on"),
    ("PGHERD_KEEP_OLD_DATA", "maybe"),
    ("PGHERD_HTTP_PORT", "http"),
    ("PGHERD_TLS_CERT_FILE", "cert.pem"),
    ("PGHERD_TLS_KEY_FILE", "key.pem"),
    ("PGHERD_TLS_CA_FILE", "ca.pem"),
    ("PGHERD_CONTROL_TOKEN", "two\nlines"),
    ("PGHERD_STOP_TIMEOUT", "60"),
    ("PGHERD_HOOK_TIMEOUT", "2min"),
    ("PGHERD_LOG_FORMAT", "xml"),
    ("PGHERD_LOG", "two\nlines"),
    ("BARMAN_SCHEDULE", "daily"),
    ("BARMAN_COMPRESSION", "zip"),
    ("BARMAN_CLOUD_URL", "s3://"),
    ("BARMAN_CLOUD_ENDPOINT_URL", "minio:9000"),
    ("BARMAN_CLOUD_ACCESS_KEY", "two\nlines"),
    ("BARMAN_CLOUD_SECRET_KEY", "two\nlines"),
    ("RESTORE_FROM", "../etc"),
    ("RESTORE_TARGET_TIME", "two\nlines"),
    ("RESTORE_TARGET_LSN", "16"),
    ("RESTORE_TARGET_NAME", "two\nlines"),
    ("RESTORE_TARGET_XID", "x"),
    ("RESTORE_TARGET_ACTION", "demote"),
    ("RESTORE_TARGET_TIMELINE", "0"),
    ("RESTORE_CLUSTER", "all"),
    ("RESTORE_SOURCE", "a b"),
    ("RESTORE_TOKEN", "two\nlines"),
    ("POSTGRES_USER", "pg_admin"),
    ("POSTGRES_DB", "repmgr"),
    ("POSTGRES_INITDB_ARGS", "--locale='C"),
    ("POSTGRES_INITDB_WALDIR", "wal"),
    ("POSTGRES_HOST_AUTH_METHOD", "scram"),
    ("PGDATA", "data"),
    ("PG_OOM_ADJUST_FILE", "oom_score_adj"),
    ("PG_OOM_ADJUST_VALUE", "1001"),
];

#[test]
fn a_refusal_names_the_variable_what_it_holds_and_the_remedy() {
    assert!(WRONG.iter().map(|(variable, _)| *variable).eq(variables()), "WRONG has them all");
    for (variable, value) in WRONG {
        let line = refusal(&[(variable, value)]);
        assert!(line.starts_with(&format!("{variable} holds ")), "{line}");
        assert!(line.contains("it may hold ") && line.contains("Correct it"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        let is_shown = line.contains(&format!("{value:?}"));
        assert_eq!(is_shown, !secret_variables().contains(variable), "{line}");
    }
    assert_eq!(
        refusal(&[("POSTGRES_PORT", "x")]),
        "POSTGRES_PORT holds \"x\"; it may hold a port number from 1 to 65535. Correct it, or \
         remove it for the default, 5432."
    );
}

#[test]
fn a_backup_node_must_know_a_member_of_the_cluster() {
    let line = refusal(&[("PGHERD_ROLE", "backup")]);
    assert!(line.starts_with("PGHERD_ROLE is backup"), "{line}");
    for variable in ["REPMGR_MASTER_HOST", "REPMGR_SLAVES", "PGHERD_VOTERS"] {
        assert!(line.contains(variable), "{line}");
    }
    let itself = [("REPMGR_NODE_ADDRESS", "b"), ("REPMGR_MASTER_HOST", "b")];
    refusal(&[&[("PGHERD_ROLE", "backup")], &itself[..]].concat());
    for (variable, value) in
        [("REPMGR_MASTER_HOST", "a"), ("REPMGR_SLAVES", "a"), ("PGHERD_VOTERS", "a b c")]
    {
        assert!(read_pairs(&[("PGHERD_ROLE", "backup"), (variable, value)]).is_ok());
    }
    // What could not be read is complained of itself.
    refusal(&[("PGHERD_ROLE", "backup"), ("PGHERD_VOTERS", "a b")]);
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let problems = read_pairs(WRONG).unwrap_err();
    let text = problems.to_string();
    assert_eq!(text.lines().count(), WRONG.len());
    for (line, (variable, _)) in text.lines().zip(WRONG) {
        assert!(line.starts_with(variable), "{line}");
    }
}

#[test]
fn names_that_postgres_repmgr_or_barman_keep_for_themselves_are_refused() {
    let long = "x".repeat(64);
    for user in ["repmgr", "repmgr_streaming", "barman", "barman_streaming", "public", &long] {
        refusal(&[("POSTGRES_USER", user)]);
    }
    for cluster in ["all", "barman", "-a", "_a", "a b", "a.b", "ä", &long] {
        refusal(&[("PGHERD_CLUSTER", cluster)]);
    }
    for name in ["node 1", "node'1", "node\"1", "node\\1", "nöde1", &long] {
        refusal(&[("REPMGR_NODE_NAME", name)]);
    }
}

#[test]
fn no_two_services_share_a_port() {
    let line = refusal(&[("POSTGRES_PORT", "5434")]);
    assert_eq!(
        line,
        "POSTGRES_PORT and POSTGRES_TECHNICAL_PORT are both 5434. Give one of them another port."
    );
    refusal(&[("PGHERD_HTTP_PORT", "5432")]);
    refusal(&[("POSTGRES_TECHNICAL_PORT", "8008")]);
    // What could not be read collides with nothing.
    refusal(&[("POSTGRES_PORT", "x"), ("PGHERD_HTTP_PORT", "5432")]);
}

#[test]
fn no_service_is_given_what_is_postgres() {
    let line = refusal(&[("BARMAN_BACKUP_DIR", "/var/lib/postgresql/")]);
    assert_eq!(
        line,
        "BARMAN_BACKUP_DIR is \"/var/lib/postgresql/\", which is or contains POSTGRES_DATA_DIR. \
         pgherd gives it to the user barman, with a mode of its own, so choose a directory that has \
         nothing else in it."
    );
    for (variable, path) in [
        ("BARMAN_BACKUP_DIR", "/var/lib/postgresql/17"),
        ("BARMAN_BACKUP_DIR", "/var/lib/postgresql/data/backups"),
        ("BARMAN_CONFIG_DIR", "/var/lib/postgresql"),
        ("REPMGR_CONFIG_DIR", "/var/lib/postgresql/pgherd"),
    ] {
        refusal(&[(variable, path)]);
    }
    for path in ["/srv/pg", "/srv/pg/main", "/srv/pg/main/backups", "/srv"] {
        refusal(&[("PGDATA", "/srv/pg/main"), ("BARMAN_BACKUP_DIR", path)]);
    }
    let beside = [("PGDATA", "/srv/pg/main"), ("BARMAN_BACKUP_DIR", "/srv/pg/main2")];
    assert!(read_pairs(&beside).is_ok());
    assert!(read_pairs(&[("BARMAN_BACKUP_DIR", "/var/lib/postgresql/backups")]).is_ok());
}

#[test]
fn what_kubernetes_injects_for_a_service_named_postgres_is_explained() {
    let line = refusal(&[("POSTGRES_PORT", "tcp://10.0.0.5:5432")]);
    assert!(line.contains("enableServiceLinks") && line.contains("set POSTGRES_PORT yourself"));
}

#[test]
fn a_restore_has_one_target_and_a_person_looks_at_one() {
    let line = refusal(&[
        ("RESTORE_FROM", "latest"),
        ("RESTORE_TARGET_NAME", "monday"),
        ("RESTORE_TARGET_LSN", "0/1"),
    ]);
    assert!(line.starts_with("RESTORE_TARGET_LSN and RESTORE_TARGET_NAME are both set"), "{line}");
    let pause = [("RESTORE_FROM", "latest"), ("RESTORE_TARGET_ACTION", "pause")];
    assert!(refusal(&pause).starts_with("RESTORE_TARGET_ACTION is pause"));
    let looks = [&pause[..], &[("RESTORE_TARGET_XID", "812")]].concat();
    assert!(read_pairs(&looks).unwrap().restore.unwrap().pauses);
    assert!(read_pairs(&[]).unwrap().restore.is_none());
    assert_eq!(read_pairs(&[("RESTORE_TARGET_XID", "812")]).unwrap().warnings.len(), 1);
}

#[test]
fn a_place_for_copies_has_a_bucket_and_both_halves_of_a_key() {
    let url = |url: &str| ("BARMAN_CLOUD_URL", url.to_owned());
    for wrong in ["s3://", "s3:///path", "backups/path", "https://s3/b", "s3://b", "s3://bucket//x"]
    {
        let (variable, value) = url(wrong);
        let line = refusal(&[(variable, &value)]);
        assert!(line.contains("it may hold s3://BUCKET or s3://BUCKET/PATH"), "{line}");
    }
    let place = ("BARMAN_CLOUD_URL", "s3://backups/of/ours/");
    let settings = read_pairs(&[place]).unwrap();
    let cloud = settings.barman.cloud.expect("a place");
    assert_eq!((cloud.url.as_str(), cloud.keys), ("s3://backups/of/ours", None));
    let key = ("BARMAN_CLOUD_ACCESS_KEY", "k");
    let line = refusal(&[place, key]);
    assert!(
        line.starts_with("BARMAN_CLOUD_ACCESS_KEY is given, and BARMAN_CLOUD_SECRET_KEY is not")
    );
    let both = [key, ("BARMAN_CLOUD_SECRET_KEY", "s")];
    assert!(refusal(&both).contains("BARMAN_CLOUD_URL is not"));
    let endpoint = ("BARMAN_CLOUD_ENDPOINT_URL", "https://me:hunter2@minio");
    assert!(!refusal(&[place, endpoint]).contains("hunter2"));
    let missing = owned(&[place, key, ("BARMAN_CLOUD_SECRET_KEY_FILE", "/run/secrets/s3")]);
    let line = read(missing, |_| Err(io::ErrorKind::NotFound.into())).unwrap_err().to_string();
    assert!(line.starts_with("BARMAN_CLOUD_SECRET_KEY_FILE names \"/run/secrets/s3\""), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");

    // The way back has the same keys.
    let back = [("RESTORE_FROM", "latest"), ("RESTORE_SOURCE", "s3://backups/of/ours")];
    let settings = read_pairs(&[&back[..], &both[..]].concat()).unwrap();
    let Some(RestoreSource::Cloud(from)) = settings.restore.unwrap().source else {
        panic!("another source")
    };
    assert_eq!((from.url.as_str(), from.keys.is_some()), ("s3://backups/of/ours", true));
}
