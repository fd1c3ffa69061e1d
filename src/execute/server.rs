//! The server is started, where it may be.

use super::{Hands, StepError};
use crate::keeper::LeadError;
use crate::layout::Layout;
use crate::postgres;
use crate::service::{Durability, Listen};
use crate::settings::Settings;
use crate::system::files::{acting_as, failed};
use std::fs;

impl Hands {
    pub(super) async fn start_postgres(
        &self,
        listen: Listen,
        durability: Durability,
    ) -> Result<(), StepError> {
        self.start_postgres_with(&self.layout, listen, durability, &[]).await
    }

    /// On the data directory of `layout`, which may be one [beside](crate::layout::Layout::beside).
    /// `parameters` win over whatever else is set.
    pub(super) async fn start_postgres_with(
        &self,
        layout: &Layout,
        listen: Listen,
        durability: Durability,
        parameters: &[(&'static str, String)],
    ) -> Result<(), StepError> {
        let Hands { settings, postgres: account, .. } = self;
        postgres::leftovers::ensure_none().await?;
        acting_as(account, || postgres::remove_stale_socket(layout, listen))?;
        if layout.pgdata.join("standby.signal").exists() {
            postgres::timelines::forget_reserved(&layout.pgdata, account)?;
        }
        let limits = postgres::limits(&layout.bin_dir, &layout.pgdata, account).await;
        let mut server =
            postgres::server(layout, account, &self.flags, listen, durability, &limits);
        for (name, value) in parameters {
            server = server.arg("-c").arg(format!("{name}={value}"));
        }
        for fd in self.lock.descriptors() {
            let fd = fd.try_clone_to_owned().map_err(failed("keep the lock of", &layout.pgdata))?;
            server = server.keep_fd(fd);
        }
        for (name, value) in oom_variables(settings) {
            server = server.env(name, value);
        }
        let pgdata = layout.pgdata.clone();
        self.may_start(listen)?;
        let before = postgres::pid_file_written(&pgdata);
        let accepts = |pid| postgres::accepts_connections(&pgdata, pid, before);
        self.supervisor.start_postgres(server, listen, accepts).await?;
        Ok(())
    }

    /// A standby may always be started; whoever would take writes must hold the lead, and the init half
    /// must know until when.
    fn may_start(&self, listen: Listen) -> Result<(), StepError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let takes_writes = matches!(listen, Listen::Consumer { .. })
            && !self.layout.pgdata.join("standby.signal").exists();
        if takes_writes {
            return if keeper.now().leads { Ok(()) } else { Err(LeadError::NotOurs.into()) };
        }
        if let Some(guard) = &self.guard
            && !keeper.now().leads
        {
            guard.lift().map_err(|error| LeadError::Unguarded(error.to_string()))?;
        }
        Ok(())
    }
}

/// The postmaster keeps the container's score and its children get a higher one: to lose a
/// session is better than to lose the server. Lowering would need a capability that a container
/// has not (tried), raising needs none. The variables are Postgres' own
/// (`fork_process.c`), so the operator's values win.
fn oom_variables(settings: &Settings) -> [(&'static str, String); 2] {
    let postgres = &settings.postgres;
    let ours = fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok())
        .unwrap_or_default();
    let file = postgres.oom_adjust_file.clone().unwrap_or("/proc/self/oom_score_adj".to_owned());
    let value = postgres.oom_adjust_value.clone();
    [
        ("PG_OOM_ADJUST_FILE", file),
        ("PG_OOM_ADJUST_VALUE", value.unwrap_or_else(|| (ours + 200).min(1000).to_string())),
    ]
}
