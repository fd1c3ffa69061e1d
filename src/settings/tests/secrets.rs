//! Passwords are taken as they are and shown nowhere; and no environment makes `read` panic.

use super::*;
use proptest::prelude::*;

#[test]
fn any_character_may_stand_in_a_password() {
    let printable: String = (' '..='~').collect();
    for password in [printable.as_str(), "  ", " 5432 ", "pässwörd→🐘", "a\tb", "${X}", "\\"]
    {
        for variable in ["POSTGRES_PASSWORD", "REPMGR_PASSWORD"] {
            assert!(read_pairs(&[(variable, password)]).is_ok(), "{password:?}");
        }
        let settings = read_pairs(&[("POSTGRES_PASSWORD", password)]).unwrap();
        assert_eq!(settings.postgres.password.expose(), password);
    }
    for password in ["a\nb", "a\0b", "a\r", "a\u{fffd}b"] {
        assert!(!refusal(&[("POSTGRES_PASSWORD", password)]).contains(password));
    }
}

#[test]
fn long_values_are_shortened_and_those_with_secrets_hidden() {
    assert!(refusal(&[("POSTGRES_PORT", &"5".repeat(100_000))]).len() < 300);
    for (variable, value) in [
        ("REPMGR_SLAVES", "postgres://me:hunter2@node2:5432"),
        ("PGHERD_ETCD_ENDPOINTS", "http://me:hunter2@etcd:2379"),
        ("POSTGRES_HOST_AUTH_METHOD", "ldapx ldapbindpasswd=hunter2"),
    ] {
        assert!(!refusal(&[(variable, value)]).contains("hunter2"), "{variable}");
    }
    let ldap = ("POSTGRES_HOST_AUTH_METHOD", "ldap ldapbindpasswd=hunter2");
    let settings = read_pairs(&[ldap]).unwrap();
    assert!(!settings.listing().to_string().contains("hunter2"));
}

#[test]
fn roles_with_a_published_password_are_named() {
    let roles = |pairs: &[(&str, &str)]| read_pairs(pairs).unwrap().default_passwords;
    let all = ["postgres", "repmgr", "repmgr_streaming", "barman", "barman_streaming"];
    assert_eq!(roles(&[]), all);
    assert_eq!(roles(&[("POSTGRES_PASSWORD", "mysecretpassword")]), all);
    assert_eq!(roles(&[("POSTGRES_PASSWORD", "iambarman")]), all, "another row's is as public");
    assert_eq!(roles(&[("POSTGRES_USER", "ann")])[0], "ann");
    assert_eq!(roles(&[("POSTGRES_PASSWORD", "x"), ("BARMAN_PASSWORD", "y")]).len(), 3);
}

#[test]
fn secret_variables_are_those_that_the_listing_hides() {
    let mut given: Vec<_> = secret_variables().iter().map(|name| (*name, "x")).collect();
    // One of them is half of two.
    given.extend([("BARMAN_CLOUD_ACCESS_KEY", "x"), ("BARMAN_CLOUD_URL", "s3://bucket")]);
    let settings = read_pairs(&given).unwrap();
    let hidden = settings.listing().0.iter().filter(|listed| listed.value == "***");
    assert!(hidden.map(|listed| listed.variable).eq(secret_variables().iter().copied()));
}

/// Names of variables, near misses of them, and others.
fn any_name() -> impl Strategy<Value = String> {
    let known: Vec<&str> = variables().collect();
    (prop::sample::select(known), "(_FILE|_|X|)")
        .prop_map(|(name, suffix)| name.to_owned() + &suffix)
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[0-9a-z:/,.* -]{0,20}", "[0-9]{1,25}(s|ms|min| days|)"]
}

proptest! {
    // Each case reads sixty variables: more of them would make `cargo test` a matter of minutes.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_environment_makes_it_panic(
        vars in prop::collection::vec((any_name(), any_value()), 0..60),
        content in any_value(),
    ) {
        match read(vars, |_| Ok(content.clone())) {
            Ok(settings) => { settings.listing().to_string(); }
            Err(problems) => {
                let names: Vec<_> = variables().collect();
                prop_assert_eq!(problems.to_string().lines().count(), problems.problems.len());
                for line in problems.to_string().lines() {
                    prop_assert!(names.iter().any(|name| line.starts_with(name)), "{}", line);
                }
            }
        }
    }

    #[test]
    fn a_secret_is_never_shown(
        core in "[!-~]{12}",
        broken in any::<bool>(),
        from_file in any::<bool>(),
    ) {
        let secret = if broken { format!("{core}\n{core}") } else { core.clone() };
        let mut vars = owned(&[("POSTGRES_PORT", if broken { "x" } else { "5432" })]);
        for name in secret_variables() {
            match from_file {
                true => vars.push((format!("{name}_FILE"), "/f".to_owned())),
                false => vars.push(((*name).to_owned(), secret.clone())),
            }
        }
        let shown = match read(vars, |_| Ok(secret.clone())) {
            Ok(settings) => {
                prop_assert_eq!(settings.barman.password.expose(), &secret);
                let json = serde_json::to_string(settings.listing()).unwrap();
                format!("{settings:?} {settings:#?} {} {json}", settings.listing())
            }
            Err(problems) => format!("{problems} {problems:?}"),
        };
        prop_assert!(!shown.contains(&core), "{}", shown);
    }
}
