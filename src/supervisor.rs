//! Keeps the node's processes running. Every long-running child is started, stopped and
//! signalled here, and an end that nobody asked for is noticed here.
//!
//! The lock inside is held for a look-up or an insertion, never across a wait. A child is in the
//! table before anything is awaited, so a plan that is called off half-way cannot lose one.

use crate::service::{Listen, RestartBudget, ServiceName, Shutdown, Verdict};
use crate::system::child::{Program, ProgramError, Running};
use crate::system::error::chain;
use crate::system::guard::Guard;
use crate::system::output::{OutputHandle, Tag};
use crate::system::wait::{self, GaveUp};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// How long a helper may take to end after SIGTERM before it is killed. They keep nothing that
/// a kill could spoil.
const HELPER_STOP_AT_MOST: Duration = Duration::from_secs(5);
/// The same while the node goes on and something waits for it: repmgrd hears nothing while it tries
/// to reach a host that is gone.
const HELPER_CEASES_WITHIN: Duration = Duration::from_millis(500);
/// Crash recovery replays what was written since the last checkpoint, which may be much; only
/// the operator's patience is a limit. The log says how far it is.
const READY_AT_MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Postgres ended, and nobody had asked it to.
#[derive(Debug)]
pub struct PostgresEnded {
    /// How.
    pub status: ExitStatus,
}

/// Why Postgres does not accept connections.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program could not be started.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Two servers on one directory would destroy it.
    #[error("postgres runs already")]
    RunsAlready,
    /// It ended.
    #[error("postgres ended with {status} before it accepted connections{}", said(.last_words))]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it said last.
        last_words: Vec<String>,
    },
    /// It did neither for very long.
    #[error(transparent)]
    GaveUp(#[from] GaveUp),
}

fn said(last_words: &[String]) -> String {
    // Postgres says why in a FATAL or PANIC; what follows it is farewell.
    let why = last_words.iter().find(|line| line.contains("FATAL:") || line.contains("PANIC:"));
    why.or(last_words.last()).map(|line| format!(": {line}")).unwrap_or_default()
}

/// The processes of this node.
pub struct Supervisor {
    output: OutputHandle,
    ended: mpsc::Sender<PostgresEnded>,
    guard: Option<Arc<Guard>>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    postgres: Option<Server>,
    helpers: BTreeMap<ServiceName, Helper>,
    /// How often each ended unasked.
    ended: BTreeMap<ServiceName, u64>,
    /// Nothing is started any more.
    closing: bool,
}

#[derive(Clone)]
struct Server {
    running: Running,
    listen: Listen,
    /// It accepts connections.
    ready: bool,
    /// Its end was asked for.
    stopping: bool,
}

struct Helper {
    running: Option<Running>,
    keeper: tokio::task::JoinHandle<()>,
}

impl Supervisor {
    /// Nothing runs yet. Unasked ends of Postgres are told to `ended`, and which process it is to
    /// `guard`.
    pub fn new(
        output: OutputHandle,
        ended: mpsc::Sender<PostgresEnded>,
        guard: Option<Arc<Guard>>,
    ) -> Arc<Self> {
        Arc::new(Supervisor { output, ended, guard, table: Mutex::default() })
    }

    /// Afterwards Postgres accepts connections where `listen` says.
    pub async fn start_postgres(
        self: &Arc<Self>,
        program: Program,
        listen: Listen,
        accepts_connections: impl Fn(i32) -> bool,
    ) -> Result<(), StartError> {
        let running = {
            let mut table = self.table();
            if table.postgres.as_ref().is_some_and(|server| server.running.exited().is_none()) {
                return Err(StartError::RunsAlready);
            }
            let running = program.start(Tag::from("postgres"), &self.output)?;
            if let Some(guard) = &self.guard
                && let Err(error) = guard.watch(running.pid())
            {
                warn!("the init half does not know the server: {error}");
            }
            table.postgres =
                Some(Server { running: running.clone(), listen, ready: false, stopping: false });
            running
        };
        let pid = running.pid().as_raw();
        let ready = || match running.exited() {
            Some(status) => Some(Err(status)),
            None => accepts_connections(pid).then_some(Ok(())),
        };
        match wait::until("postgres to accept connections", READY_AT_MOST, ready).await? {
            Ok(()) => {
                if let Some(server) = &mut self.table().postgres {
                    server.ready = true;
                }
            }
            Err(status) => {
                running.wait().await; // Its last words are there now.
                self.table().postgres = None;
                return Err(StartError::Ended { status, last_words: running.last_words() });
            }
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let status = running.wait().await;
            let unasked = {
                let mut table = this.table();
                let is_this = |server: &Server| server.running.pid() == running.pid();
                let server = table.postgres.take_if(|server| is_this(server));
                let unasked = server.is_some_and(|server| !server.stopping);
                *table.ended.entry(ServiceName::Postgres).or_default() += u64::from(unasked);
                unasked
            };
            if unasked {
                let _ = this.ended.send(PostgresEnded { status }).await; // Nobody asks after the end.
            }
        });
        Ok(())
    }

    /// Afterwards Postgres does not run. Returns at once if it does not.
    pub async fn stop_postgres(&self, how: Shutdown) -> Option<ExitStatus> {
        let running = self.signal_postgres(how)?;
        let status = running.wait().await;
        self.table().postgres.take_if(|server| server.running.pid() == running.pid());
        Some(status)
    }

    /// Afterwards Postgres does not run. In order, unless that takes longer than `limit`, `PGHERD_STOP_TIMEOUT`:
    /// a fast shutdown waits for a standby that is connected and takes nothing.
    pub async fn stop_postgres_within(&self, limit: Duration) {
        if tokio::time::timeout(limit, self.stop_postgres(Shutdown::Fast)).await.is_err() {
            warn!(
                "postgres has not ended within {} s (PGHERD_STOP_TIMEOUT): it stops at once, and \
                 recovers when it starts",
                limit.as_secs()
            );
            self.stop_postgres(Shutdown::Immediate).await;
        }
    }

    /// Asks Postgres to stop and does not wait. May be said again, harder.
    pub fn signal_postgres(&self, how: Shutdown) -> Option<Running> {
        let mut table = self.table();
        let server = table.postgres.as_mut()?;
        server.stopping = true;
        let signal = match how {
            Shutdown::Fast => Signal::SIGINT,
            Shutdown::Immediate => Signal::SIGQUIT,
        };
        let _ = server.running.signal(signal); // ESRCH: it has ended, which is what is wanted.
        Some(server.running.clone())
    }

    /// Where Postgres accepts connections, if it does and is to go on.
    pub fn serving(&self) -> Option<Listen> {
        let table = self.table();
        let server = table.postgres.as_ref()?;
        let lives = server.ready && !server.stopping && server.running.exited().is_none();
        lives.then_some(server.listen)
    }

    /// Where Postgres listens, if it runs.
    pub fn listening(&self) -> Option<Listen> {
        self.table().postgres.as_ref().map(|server| server.listen)
    }

    /// Has Postgres and repmgrd read their configuration again.
    pub fn reload(&self) {
        let table = self.table();
        let helper = table.helpers.get(&ServiceName::Repmgrd).and_then(|one| one.running.as_ref());
        for running in table.postgres.iter().map(|server| &server.running).chain(helper) {
            let _ = running.signal(Signal::SIGHUP); // ESRCH: it will read it when it starts.
        }
    }

    /// Afterwards the helper runs, and is started again whenever it ends. Asked twice, it is
    /// kept once.
    pub fn keep(
        self: &Arc<Self>,
        name: ServiceName,
        program: impl Fn() -> Program + Send + 'static,
    ) {
        let mut table = self.table();
        if table.closing || table.helpers.contains_key(&name) {
            return;
        }
        let this = Arc::clone(self);
        let keeper = tokio::spawn(async move {
            let mut budget = RestartBudget::for_helpers();
            while let Some(started) = this.start_helper(name, program()) {
                match started {
                    Ok(running) => {
                        let status = running.wait().await;
                        if this.table().closing {
                            return;
                        }
                        warn!("{name} ended with {status}{}", said(&running.last_words()));
                    }
                    Err(error) => warn!("{name}: {}", chain(&error)),
                }
                *this.table().ended.entry(name).or_default() += 1;
                match budget.spend(Instant::now()) {
                    Verdict::RestartAfter(delay) => {
                        info!("{name} is started again in {:.1} s", delay.as_secs_f32());
                        wait::back_off(delay).await;
                    }
                    Verdict::GiveUp => unreachable!("helpers are never given up"),
                }
            }
        });
        table.helpers.insert(name, Helper { running: None, keeper });
    }

    /// `None` once the node is closing.
    fn start_helper(
        &self,
        name: ServiceName,
        program: Program,
    ) -> Option<Result<Running, ProgramError>> {
        let mut table = self.table();
        if table.closing || !table.helpers.contains_key(&name) {
            return None;
        }
        let started = program.start(Tag::from(name.as_str()), &self.output);
        if let (Ok(running), Some(helper)) = (&started, table.helpers.get_mut(&name)) {
            helper.running = Some(running.clone());
        }
        Some(started)
    }

    /// Whether the helper is to be kept running, though it may just be between two lives.
    pub fn keeps(&self, name: ServiceName) -> bool {
        self.table().helpers.contains_key(&name)
    }

    /// How often each service ended unasked; one that never did is not in it.
    pub fn restarts(&self) -> BTreeMap<ServiceName, u64> {
        let table = self.table();
        table.ended.iter().filter(|(_, count)| **count > 0).map(|(name, n)| (*name, *n)).collect()
    }

    /// Which helpers run now.
    pub fn helpers(&self) -> Vec<ServiceName> {
        let alive = |helper: &Helper| {
            helper.running.as_ref().is_some_and(|running| running.exited().is_none())
        };
        let table = self.table();
        table.helpers.iter().filter(|(_, one)| alive(one)).map(|(name, _)| *name).collect()
    }

    /// Afterwards this helper does not run and is not started again.
    pub async fn cease(&self, name: ServiceName) {
        let Some(helper) = self.table().helpers.remove(&name) else { return };
        helper.keeper.abort();
        if let Some(running) = helper.running {
            let _ = running.signal_group(Signal::SIGTERM); // ESRCH: it has ended.
            if tokio::time::timeout(HELPER_CEASES_WITHIN, running.wait()).await.is_err() {
                let _ = running.signal_group(Signal::SIGKILL);
                let _ = tokio::time::timeout(HELPER_CEASES_WITHIN, running.wait()).await;
            }
        }
    }

    /// The same for those that Postgres or barman need, not for etcd, which the cluster needs.
    pub async fn stop_helpers_of_postgres(&self, stop_timeout: Duration) {
        let etcd = self.table().helpers.remove(&ServiceName::Etcd);
        self.stop_helpers(stop_timeout).await;
        if let Some(etcd) = etcd {
            self.table().helpers.insert(ServiceName::Etcd, etcd);
        }
    }

    /// Afterwards no helper runs and none is started again. cron is told first, so that no job
    /// begins; repmgrd ends before Postgres, so that it does not take an orderly stop for a
    /// failure. All together take a fifth of `stop_timeout` at most: the rest is the server's.
    pub async fn stop_helpers(&self, stop_timeout: Duration) {
        let at_most = HELPER_STOP_AT_MOST.min(stop_timeout / 5);
        let deadline = tokio::time::Instant::now() + at_most;
        let mut helpers: Vec<_> = {
            let mut table = self.table();
            table.closing = true;
            std::mem::take(&mut table.helpers).into_iter().collect()
        };
        helpers.sort_by_key(|(name, _)| *name != ServiceName::Crond);
        for running in helpers.iter().filter_map(|(_, helper)| helper.running.as_ref()) {
            let _ = running.signal_group(Signal::SIGTERM); // ESRCH: it has ended.
        }
        for (name, helper) in helpers {
            if let Some(running) = helper.running
                && tokio::time::timeout_at(deadline, running.wait()).await.is_err()
            {
                let waited = at_most.as_secs();
                warn!("{name} did not end within {waited} s of SIGTERM and is killed");
                let _ = running.signal_group(Signal::SIGKILL);
            }
            helper.keeper.abort();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Supervisor")
    }
}
