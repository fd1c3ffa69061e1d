//! `restore_command` while a standby needs WAL that its primary has no more: from barman's archive,
//! by way of `pgherd wal fetch`.
//!
//! It is set for as long as that takes and not longer: a standby looks into the archive before its
//! own `pg_wal` at every start (`WaitForWALToBecomeAvailable` in xlogrecovery.c), so one that was
//! only restarted would fetch what it has. A command of the operator's is used as it is, and never
//! replaced or removed.

use super::session::literal;
use super::standby::AUTO_CONF;
use super::{PostgresError, Session, SqlError, conf, is_being_restored};
use crate::layout::Layout;
use crate::system::account::Account;
use crate::system::files::{FileError, acting_as, ensure_file, failed};
use std::fs;
use std::io;
use std::path::Path;

/// Nobody else's: an operator's own may be the same but for the option, which the documentation of
/// the command leaves out.
const OF_A_STANDBY: &str = "pgherd wal fetch --following %f %p";
/// For `pg_rewind`, which wants just what the histories do not have in common.
const OF_A_REWIND: &str = "pgherd wal fetch --rewinding %f %p";
/// One of a rewind that was killed, or of the source at that moment, is no less to be removed.
const OURS: [&str; 2] = [OF_A_STANDBY, OF_A_REWIND];
const NAME: &str = "restore_command";

/// Afterwards a server that is started on `directory` looks into the archive, too. No server runs
/// on it.
pub fn ask_at_start(directory: &Path, account: &Account) -> Result<(), FileError> {
    match in_force(directory, account) {
        Some(theirs) if !is_ours(&theirs) => Ok(()),
        _ => write(directory, account, Some(OF_A_STANDBY)),
    }
}

/// Afterwards a server that is started on `directory` looks into no archive, but for the
/// operator's. No server runs on it.
pub fn leave_alone_at_start(directory: &Path, account: &Account) -> Result<(), FileError> {
    write(directory, account, None)
}

/// The same for the data directory, unless what is in it is a copy that has not replayed enough
/// to be used: what it needs for that may be in the archive only.
pub async fn leave_alone_unless_needed(
    layout: &Layout,
    account: &Account,
) -> Result<(), PostgresError> {
    let pgdata = &layout.pgdata;
    if !is_ours_in(pgdata, account) || is_being_restored(layout, account).await? {
        return Ok(());
    }
    Ok(leave_alone_at_start(pgdata, account)?)
}

/// Afterwards `pg_rewind` of the data directory finds a command there. Says whether it is ours.
pub(super) fn lend_to_rewind(layout: &Layout, account: &Account) -> Result<bool, FileError> {
    let lends = in_force(&layout.pgdata, account).is_none();
    if lends {
        write(&layout.pgdata, account, Some(OF_A_REWIND))?;
    }
    Ok(lends)
}

/// Whether the running server has an archive to look into, ours or the operator's.
pub async fn asks_an_archive(session: &Session) -> Result<bool, SqlError> {
    let sql = format!("SELECT current_setting('{NAME}') <> ''");
    session.is_true("read restore_command", &sql).await
}

/// Whether it is ours that the running server has.
pub async fn asks_ours(session: &Session) -> Result<bool, SqlError> {
    let ours = OURS.map(literal).join(", ");
    let sql = format!("SELECT current_setting('{NAME}') IN ({ours})");
    session.is_true("read restore_command", &sql).await
}

/// Has the running server look into the archive, unless it looks into one already.
pub async fn ask(session: &Session) -> Result<(), SqlError> {
    if asks_an_archive(session).await? {
        return Ok(());
    }
    let set = format!("ALTER SYSTEM SET {NAME} = {}", literal(OF_A_STANDBY));
    // One by one: ALTER SYSTEM refuses a transaction, and several in one message are one.
    for statement in [set.as_str(), "SELECT pg_reload_conf()"] {
        session.run("look into the archive", statement).await?;
    }
    Ok(())
}

/// Has the running server look into our archive no more.
pub async fn leave_alone(session: &Session) -> Result<(), SqlError> {
    if !asks_ours(session).await? {
        return Ok(());
    }
    let reset = format!("ALTER SYSTEM RESET {NAME}");
    for statement in [reset.as_str(), "SELECT pg_reload_conf()"] {
        session.run("look into the archive no more", statement).await?;
    }
    Ok(())
}

/// As far as files say; `None` if it is empty.
fn in_force(directory: &Path, account: &Account) -> Option<String> {
    let assignments = conf::read(directory, &|path| acting_as(account, || fs::read(path)));
    let found = conf::in_force(&assignments, NAME)?;
    Some(found.value.clone()).filter(|value| !value.is_empty())
}

fn is_ours_in(directory: &Path, account: &Account) -> bool {
    let text = acting_as(account, || fs::read(directory.join(AUTO_CONF))).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().any(assigns_ours)
}

fn is_ours(command: &str) -> bool {
    OURS.contains(&command)
}

fn assigns_ours(line: &str) -> bool {
    conf::assignment(line).is_some_and(|(name, value)| name == NAME && is_ours(&value))
}

/// Afterwards `ALTER SYSTEM`'s file in `directory` has `command` of ours, and no other of ours.
fn write(directory: &Path, account: &Account, command: Option<&str>) -> Result<(), FileError> {
    let auto_conf = directory.join(AUTO_CONF);
    let present = match acting_as(account, || fs::read(&auto_conf)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(failed("read", &auto_conf))?,
    };
    let wanted = with(&present, command);
    if wanted == present {
        return Ok(()); // Also where it is not there.
    }
    ensure_file(&auto_conf, wanted, 0o600, account).map(drop)
}

/// Bytes, because nothing says how the others' values are encoded.
fn with(present: &[u8], command: Option<&str>) -> Vec<u8> {
    let is_ours = |line: &[u8]| assigns_ours(&String::from_utf8_lossy(line));
    let kept = present.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_ours(line));
    let mut text = kept.collect::<Vec<_>>().concat();
    if let Some(command) = command {
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend_from_slice(format!("{NAME} = {}\n", conf::quoted(command)).as_bytes());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_command_comes_and_goes() {
        let theirs = b"x.y = '\xfc'\nrestore_command = 'cp /a/%f %p'\n".as_slice();
        let with_ours = with(theirs, Some(OF_A_STANDBY));
        let expected = [theirs, b"restore_command = 'pgherd wal fetch --following %f %p'\n"];
        assert_eq!(with_ours, expected.concat());
        assert_eq!(with(&with_ours, Some(OF_A_STANDBY)), with_ours);
        assert_eq!(with(&with_ours, None), theirs);
        assert_eq!(with(theirs, None), theirs);
        let documented = b"restore_command = 'pgherd wal fetch %f %p'\n";
        assert_eq!(with(documented, None), documented, "an operator's");
        let of_a_rewind = with(b"a = 1", Some(OF_A_REWIND));
        assert_eq!(of_a_rewind, b"a = 1\nrestore_command = 'pgherd wal fetch --rewinding %f %p'\n");
        assert_eq!(
            with(&of_a_rewind, None),
            b"a = 1\n",
            "a rewind that found nothing to do left it"
        );
    }

    #[test]
    fn a_command_of_the_operators_is_left_as_it_is() {
        let dir = std::env::temp_dir().join(format!("pgherd-restore-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let account = Account::current();
        let file = dir.join(AUTO_CONF);
        ask_at_start(&dir, &account).unwrap();
        assert!(is_ours_in(&dir, &account));
        leave_alone_at_start(&dir, &account).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"");
        let theirs = b"restore_command = 'false'\n";
        fs::write(dir.join("postgresql.conf"), theirs).unwrap();
        ask_at_start(&dir, &account).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"", "it would win over theirs");
        fs::remove_dir_all(&dir).unwrap();
    }
}
