//! cron: barman's jobs in its table, and the daemon.

use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::child::Program;
use crate::system::files::{FileError, ensure_file, rendered};
use askama::Template;

#[derive(Template)]
#[template(path = "conf/crontab", escape = "none")]
struct Crontab {
    path: String,
    pgherd: &'static str,
    conf: String,
    schedule: String,
    log: String,
}

/// Afterwards barman's jobs are in cron's table. cron notices by itself.
pub fn write_table(settings: &Settings, layout: &Layout, root: &Account) -> Result<(), FileError> {
    let table = Crontab {
        path: format!("{}:/usr/local/bin:/usr/bin:/bin", layout.bin_dir.display()),
        pgherd: "/usr/local/bin/pgherd",
        conf: layout.barman_conf.display().to_string(),
        schedule: settings.barman.schedule.as_str().to_owned(),
        log: layout.barman_log_pipe.display().to_string(),
    };
    let text = rendered(&table);
    // cron ignores a table that others than root may write.
    ensure_file(&layout.crontab, &text, 0o644, root)?;
    Ok(())
}

/// cron, in the foreground. It needs root, to become whom a job belongs to.
///
/// Its jobs marked `@reboot` run each time: Debian's cron remembers in a file that it has run
/// them since the machine came up, and a container's file system outlives its machine.
pub fn daemon() -> Program {
    let _ = std::fs::remove_file("/run/crond.reboot"); // Not there at the first start.
    Program::new("cron").arg("-f").current_dir("/")
}
