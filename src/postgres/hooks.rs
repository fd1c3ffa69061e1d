//! `/docker-entrypoint-initdb.d`: what the operator wants done once, before anybody is served.
//! Kinds, order and environment are the official image's (its `docker_process_init_files`).

use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::child::{Program, ProgramError, Running};
use crate::system::output::{OutputHandle, Tag};
use nix::sys::signal::Signal;
use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use tracing::{info, warn};

/// Bash, because files that are not executable are sourced, and may use its functions.
const RUN_ONE: &str = include_str!("../../templates/hooks/initdb.sh");

/// Why a first start cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The directory cannot be listed.
    #[error("cannot read {}; make it readable for uid {uid}, or do not mount it", .directory.display())]
    Unreadable {
        /// Which.
        directory: PathBuf,
        /// Who tried.
        uid: u32,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A file failed.
    #[error(
        "{} ended with {status}; correct it and start again: the cluster is then made anew",
        .file.display()
    )]
    Failed {
        /// Which.
        file: PathBuf,
        /// How. The container ends with the same status, as the official image's does.
        status: ExitStatus,
    },
    /// Bash could not be started.
    #[error(transparent)]
    Start(#[from] ProgramError),
}

/// Afterwards every file has run, in order, each to its end. Returns how many.
pub async fn run(
    settings: &Settings,
    layout: &Layout,
    account: &Account,
    output: &OutputHandle,
) -> Result<usize, HookError> {
    let mut ran = 0;
    for file in files(&layout.init_hooks, account)? {
        if !is_runnable(&file) {
            warn!("ignoring {}: neither .sh nor .sql, .sql.gz, .sql.xz, .sql.zst", file.display());
            continue;
        }
        info!("running {}", file.display());
        let postgres = &settings.postgres;
        let hook = Program::new("bash")
            .args(["-c", RUN_ONE, "bash"])
            .arg(&file)
            .account(account)
            .env("PGDATA", &layout.pgdata)
            .env("PGHOST", &layout.technical_socket_dir)
            .env("PGPORT", postgres.technical_port.to_string())
            .env("PGPASSWORD", postgres.password.expose())
            .env("POSTGRES_PASSWORD", postgres.password.expose())
            .env("POSTGRES_USER", &postgres.user)
            .env("POSTGRES_DB", &postgres.database)
            .current_dir("/");
        let hook = EndedOnDrop(hook.start(Tag::from("initdb.d"), output)?);
        let status = hook.0.wait().await;
        if !status.success() {
            return Err(HookError::Failed { file, status });
        }
        ran += 1;
    }
    Ok(ran)
}

/// A start that is called off does not leave its script behind.
struct EndedOnDrop(Running);

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        let _ = self.0.signal_group(Signal::SIGTERM); // ESRCH: it has ended.
    }
}

fn is_runnable(file: &Path) -> bool {
    let name = file.to_string_lossy();
    [".sh", ".sql", ".sql.gz", ".sql.xz", ".sql.zst"].iter().any(|kind| name.ends_with(kind))
}

fn files(directory: &Path, account: &Account) -> Result<Vec<PathBuf>, HookError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|source| HookError::Unreadable {
            directory: directory.to_owned(),
            uid: account.uid.as_raw(),
            source,
        })?,
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        // As a shell's `*`.
        .filter(|path| !path.file_name().unwrap_or_default().to_string_lossy().starts_with('.'))
        .collect();
    files.sort_by(|a, b| in_order(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(files)
}

/// The order of a shell's `*` in the official image, whose locale is en_US.UTF-8: letters and
/// digits decide first and case does not count; then case does, small before capital; then the rest.
fn in_order(a: &str, b: &str) -> Ordering {
    let letters = |text: &str| -> String {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let cases = |text: &str| -> Vec<bool> {
        text.chars().filter(|c| c.is_alphanumeric()).map(char::is_uppercase).collect()
    };
    letters(a).cmp(&letters(b)).then_with(|| cases(a).cmp(&cases(b))).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded with bash in the official image's locale.
    #[test]
    fn files_run_in_the_official_images_order() {
        let expected = ["01-a", "01_z", "10-a", "2-b", "a", "b", "B", "_c", "C"];
        let mut names = expected;
        names.reverse();
        names.sort_by(|a, b| in_order(a, b));
        assert_eq!(names, expected);
    }
}
