//! `pg_hba.conf`: who may come in from where.
//!
//! pgherd keeps a block at the top of the file, between two marks, and leaves the rest alone:
//! what `initdb` made, and what the operator's scripts append (many do, with `>> $PGDATA/…`).
//! The first rule that matches decides, so the block holds whatever stands below it.

use crate::settings::Settings;
use crate::system::files::rendered;
use askama::Template;
use postgres_protocol::escape::escape_identifier;
use std::path::Path;

const BEGIN: &str = "# >>> pgherd";
const END: &str = "# <<< pgherd";

#[derive(Template)]
#[template(path = "conf/pg_hba.conf", escape = "none")]
struct Block<'a> {
    begin: &'a str,
    end: &'a str,
    operator_hba: std::path::Display<'a>,
    rules: Vec<String>,
    has_operator_rules: bool,
}

/// `present`, the file as it is, with pgherd's block brought up to date.
/// `operator_rules` is what the operator's own file holds, if there is one. Bytes, because nothing
/// says how theirs are encoded.
pub fn with_block(
    settings: &Settings,
    present: &[u8],
    operator_hba: &Path,
    operator_rules: Option<&[u8]>,
) -> Vec<u8> {
    let block = Block {
        begin: BEGIN,
        end: END,
        operator_hba: operator_hba.display(),
        rules: rules(settings),
        has_operator_rules: operator_rules.is_some(),
    };
    let block = rendered(&block);
    let end = block.rfind(END).expect("the template ends with the mark");
    let mut text = block.as_bytes()[..end].to_vec();
    if let Some(rules) = operator_rules {
        text.extend(rules.trim_ascii_end());
        text.push(b'\n');
    }
    text.extend(&block.as_bytes()[end..]);
    text.extend(without_block(present));
    text
}

/// Wherever it stands: somebody's script may have put lines of its own above.
fn without_block(present: &[u8]) -> Vec<u8> {
    let find = |text: &[u8], mark: &str| {
        text.windows(mark.len()).position(|window| window == mark.as_bytes())
    };
    let mut rest = present.to_owned();
    while let Some(begin) = find(&rest, BEGIN)
        && let Some(length) = find(&rest[begin..], END)
    {
        let end = begin + length + END.len();
        let end = if rest[end..].starts_with(b"\n") { end + 1 } else { end };
        rest.drain(begin..end);
    }
    rest
}

/// One line a rule. A role of a tool reaches what its tool needs and nothing else.
fn rules(settings: &Settings) -> Vec<String> {
    let still_default = |role: &str| settings.default_passwords.iter().any(|name| name == role);
    let from = |role: &str| if still_default(role) { "samenet" } else { "all" };
    let mut rules = Vec::new();
    let mut rule = |database: &str, role: &str, from: &str, method: &str| {
        rules.push(format!("host {database:<12} {role:<18} {from:<8} {method}"));
    };
    // Replication as repmgr: `repmgr node rejoin` tries it (repmgr-and-barman notes of the
    // project: its source, "replication connection" check). The database repmgr as
    // repmgr_streaming: pg_rewind reads files over it, and a node its peer's histories and slots.
    for (role, databases) in [
        ("repmgr", &["repmgr", "replication"] as &[_]),
        ("repmgr_streaming", &["repmgr", "replication"]),
        ("barman", &["postgres"]),
        ("barman_streaming", &["replication"]),
    ] {
        for database in databases {
            rule(database, role, from(role), "scram-sha-256");
        }
        rule("all", role, "all", "reject");
        rule("replication", role, "all", "reject");
    }
    let superuser = &settings.postgres.user;
    let everybody_trusted = settings.postgres.host_auth_method.as_deref() == Some("trust");
    if still_default(superuser) && !everybody_trusted {
        // Quoted, it is never a keyword; the file has SQL's quotes (`next_token` in hba.c).
        let superuser = escape_identifier(superuser);
        rule("all", &superuser, "samenet", "scram-sha-256");
        rule("all", &superuser, "all", "reject");
        rule("replication", &superuser, "all", "reject");
    }
    rules
}

/// For a directory that comes without the file, because its image kept it elsewhere: what `initdb`
/// and [`last_rule`] make of it.
pub fn of_nobody(settings: &Settings) -> String {
    let local = "local all all trust\nlocal replication all trust\n";
    let hosts = "host all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n";
    format!("{local}{hosts}{}", last_rule(settings))
}

/// What the official image appends to what `initdb` made, so that others than this host get in.
pub fn last_rule(settings: &Settings) -> String {
    let method = settings.postgres.host_auth_method.as_deref().unwrap_or("scram-sha-256");
    format!("\nhost all all all {method}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Settings {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        crate::settings::read(vars, |_| unreachable!("no variable names a file")).unwrap()
    }

    #[test]
    fn the_block_is_replaced_and_the_rest_is_left_alone() {
        let own = "local all all trust\nhost all all all scram-sha-256\n";
        let path = Path::new("/etc/pgherd/pg_hba.conf");
        let with_block = |settings: &Settings, present: &str, path: &Path, rules: Option<&str>| {
            let block = with_block(settings, present.as_bytes(), path, rules.map(str::as_bytes));
            String::from_utf8(block).unwrap()
        };
        let once = with_block(&settings(&[]), own, path, None);
        assert!(once.starts_with(BEGIN) && once.ends_with(own), "{once}");
        assert_eq!(with_block(&settings(&[]), &once, path, None), once);
        let other = with_block(&settings(&[]), &once, path, Some("host a b all reject\n"));
        assert!(other.contains("host a b all reject\n") && other.ends_with(own), "{other}");

        let scripted = format!("local all x reject\n{once}");
        let again = with_block(&settings(&[]), &scripted, path, None);
        assert_eq!(again.matches(BEGIN).count(), 1, "{again}");
        assert!(again.ends_with(&format!("local all x reject\n{own}")), "{again}");
    }

    #[test]
    fn what_is_not_utf_8_stays_as_it_is() {
        let (own, rules) =
            (b"# f\xfcr alle\nlocal all all trust\n", b"host \xfc all all reject\n\n");
        let path = Path::new("/x");
        let once = with_block(&settings(&[]), own, path, Some(rules));
        assert!(once.ends_with(own), "{}", once.escape_ascii());
        let theirs = [&rules[..rules.len() - 1], END.as_bytes()].concat();
        assert!(once.windows(theirs.len()).any(|part| part == theirs), "{}", once.escape_ascii());
        assert_eq!(with_block(&settings(&[]), &once, path, Some(rules)), once);
    }

    #[test]
    fn a_default_password_is_good_for_the_own_network_only() {
        let tight = rules(&settings(&[])).join("\n");
        assert!(tight.lines().all(|line| !line.ends_with("trust") && !line.ends_with("md5")));
        assert!(!tight.lines().any(|line| line.contains(" all      scram")), "{tight}");
        assert!(tight.contains("\"postgres\""), "{tight}");

        let own = rules(&settings(&[("REPMGR_PASSWORD", "x"), ("POSTGRES_PASSWORD", "y")]));
        assert!(own[0].contains(" all ") && own[0].ends_with("scram-sha-256"), "{own:?}");
        assert!(!own.join("\n").contains("postgres\""), "{own:?}");
    }
}
