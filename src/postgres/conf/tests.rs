use super::*;
use std::collections::HashMap;

fn settings() -> Settings {
    crate::settings::read([], |_| unreachable!("no variable names a file")).unwrap()
}

fn flags(text: &str) -> Vec<Assignment> {
    of_flags(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
}

fn in_memory(files: &HashMap<&str, &str>) -> impl Fn(&Path) -> io::Result<Vec<u8>> {
    |path| match files.get(path.to_str().unwrap()) {
        Some(&"unreadable") => Err(io::ErrorKind::PermissionDenied.into()),
        // One byte each, as an editor of another age writes them.
        Some(text) => Ok(text.chars().map(|c| u8::try_from(c).unwrap()).collect()),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

#[test]
fn no_file_hides_an_unsafe_setting() {
    let refused = |files: &[(&str, &str)]| {
        let files = files.iter().copied().collect();
        let read = read(Path::new("/d"), &in_memory(&files));
        let refused = unsafe_settings(&settings(), &read);
        refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    // A namesake of ours elsewhere is the operator's; ours is not.
    let namesake = ("/d/postgresql.conf", "include '/etc/x/pgherd.conf'");
    assert!(refused(&[namesake, ("/etc/x/pgherd.conf", "fsync = off")]).contains("pgherd.conf:1"));
    let ours = ("/d/postgresql.conf", "include 'pgherd.conf'");
    assert_eq!(refused(&[ours, ("/d/pgherd.conf", "fsync = off")]), "");
    let latin = [("/d/postgresql.conf", "# für später\nfsync = off")];
    assert!(refused(&latin).starts_with("/d/postgresql.conf:2: fsync = off"));
    let unreadable = [("/d/postgresql.conf", "\ninclude 'x'"), ("/d/x", "unreadable")];
    let line = refused(&unreadable);
    assert!(line.starts_with("/d/postgresql.conf:2: include = /d/x: it cannot be read"), "{line}");
}

#[test]
fn what_is_not_utf_8_stays_as_it_is() {
    let latin = b"# f\xfcr sp\xe4ter\nport = 5432\n";
    let with = with_includes(latin, None);
    assert!(with.ends_with(latin) && with_includes(&with, None) == with);
}

#[test]
fn our_settings_are_read_first_and_the_operators_last_and_each_once() {
    let with_includes = |text: &str, directory| {
        String::from_utf8(with_includes(text.as_bytes(), directory)).unwrap()
    };
    let own = with_includes("port = 5432\n", None);
    assert_eq!(own, format!("{INCLUDE}\nport = 5432\n"));
    let directory = Some(Path::new("/etc/x.d"));
    let with_theirs = with_includes(&own, directory);
    assert_eq!(with_theirs, format!("{own}include_dir = '/etc/x.d' {OPERATORS}\n"));
    assert_eq!(with_includes(&with_theirs, directory), with_theirs);
    let appended = with_includes(&format!("{with_theirs}work_mem = 1MB\n"), directory);
    assert!(appended.ends_with(&format!("{OPERATORS}\n")), "{appended}");
    assert_eq!(with_includes(&with_theirs, None), own);
}

#[test]
fn lines_are_read_as_postgres_reads_them() {
    for (line, expected) in [
        ("wal_level = minimal # why not", Some(("wal_level", "minimal"))),
        ("  Fsync off", Some(("fsync", "off"))),
        ("a='it''s \\'so\\''#", Some(("a", "it's 'so'"))),
        ("my.custom = 'x'", Some(("my.custom", "x"))),
        ("# fsync = off", None),
        ("", None),
    ] {
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(assignment(line), expected, "{line}");
    }
}

#[test]
fn an_unsafe_setting_is_refused_by_file_and_line_and_the_last_one_counts() {
    let files: HashMap<&str, &str> = [
        ("/d/postgresql.conf", "include 'more.conf'\nfsync = on\n"),
        ("/d/more.conf", "\nfsync = off\nwal_level = minimal\n"),
        ("/d/postgresql.auto.conf", "max_wal_senders = '0'\n"),
    ]
    .into();
    let read = read(Path::new("/d"), &in_memory(&files));
    let refused: Vec<_> =
        unsafe_settings(&settings(), &read).iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            "/d/more.conf:3: wal_level = minimal: standbys and barman need replica or logical",
            "/d/postgresql.auto.conf:1: max_wal_senders = 0: a standby, a clone and barman \
             need 6 or more",
        ]
    );
}

#[test]
fn flags_are_read_in_each_of_their_forms() {
    for text in ["-c fsync=off", "-cfsync=off", "--fsync=off", "-F"] {
        assert_eq!(unsafe_settings(&settings(), &flags(text)).len(), 1, "{text}");
    }
    assert_eq!(unsafe_settings(&settings(), &flags("-p 6000 -D /x -h localhost")).len(), 3);
    assert!(unsafe_settings(&settings(), &flags("-c work_mem=64MB -p 5432")).is_empty());
    assert_eq!(flags("--log-checkpoints")[0].name, "log_checkpoints");
}

#[test]
fn repmgr_is_loaded_beside_what_the_operator_loads() {
    let preload = |text| preload_libraries(&flags(text));
    assert_eq!(preload("-c work_mem=1MB"), None);
    assert_eq!(
        preload("-c shared_preload_libraries=pg_stat_statements").as_deref(),
        Some("repmgr,pg_stat_statements")
    );
    assert_eq!(preload("-c shared_preload_libraries=auto_explain,repmgr"), None);
}

#[test]
fn a_standby_has_no_less_than_its_primary_had() {
    let control = "max_connections setting:              200\nmax_prepared_xacts setting:           0\n\
                   max_locks_per_xact setting:           64\n";
    let limits = limits_in(control);
    assert_eq!(
        limits,
        [
            ("max_connections", 200),
            ("max_prepared_transactions", 0),
            ("max_locks_per_transaction", 64)
        ]
    );
    let flags = |flag: &str| of_flags(&["-c".to_owned(), flag.to_owned()]);
    assert_eq!(too_low(&flags("max_connections=150"), &limits), [("max_connections", 200)]);
    assert_eq!(too_low(&flags("max_connections=250"), &limits), []);
    assert_eq!(too_low(&[], &limits), [("max_connections", 200)], "the default is 100");
}

#[test]
fn our_own_settings_are_never_too_low_for_a_standby() {
    let ours = include_str!("../../../templates/conf/pgherd.conf");
    let set = ours.lines().filter_map(assignment);
    for (name, value) in set {
        if let Some((.., default)) = LIMITS.iter().find(|(limit, ..)| *limit == name) {
            assert_eq!(value, default.to_string(), "{name}");
        }
    }
}
