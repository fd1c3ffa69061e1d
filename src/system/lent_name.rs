//! A name for a user that has none.

use super::account::Account;
use super::child::Program;
use super::files::ensure_file;
use std::path::{Path, PathBuf};

/// `initdb` and repmgr insist on a name for the user they run as, and `docker run --user 12345`
/// gives none. libnss_wrapper lends one, to them alone.
pub fn with_a_name(program: Program, account: &Account, run_dir: &Path) -> Program {
    if account.name.is_some() {
        return program;
    }
    let (passwd, group) = (run_dir.join("passwd"), run_dir.join("group"));
    let line = format!(
        "postgres:x:{0}:{1}:PostgreSQL:/var/lib/postgresql:/bin/false\n",
        account.uid, account.gid
    );
    let written = ensure_file(&passwd, &line, 0o644, account).and_then(|_| {
        ensure_file(&group, format!("postgres:x:{}:\n", account.gid), 0o644, account)
    });
    match (written, nss_wrapper()) {
        (Ok(_), Some(library)) => program
            .env("LD_PRELOAD", library)
            .env("NSS_WRAPPER_PASSWD", passwd)
            .env("NSS_WRAPPER_GROUP", group),
        _ => program, // It says what it misses.
    }
}

fn nss_wrapper() -> Option<PathBuf> {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"]
        .map(|directory| Path::new(directory).join("libnss_wrapper.so"))
        .into_iter()
        .find(|library| library.exists())
}
