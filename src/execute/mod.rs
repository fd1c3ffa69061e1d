//! Plans become effects here, and nowhere else. No choice is made here: what to do was decided
//! when the plan was made.

mod archive;
mod error;
mod lead;
mod removal;
mod restore;
mod server;
mod standby;
mod upstream;

pub use error::{PlanError, StepError};
pub(crate) use removal::Departed;
pub use standby::StandbyError;

use crate::barman;
use crate::cluster::{Address, NodeId};
use crate::cron;
use crate::etcd;
use crate::hooks::Hooks;
use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::layout::Layout;
use crate::lead::Rival;
use crate::postgres::{self, Bytes, Session, restore as archive_command};
use crate::repmgr::{self, Identity};
use crate::scenario::{Activity, Plan, Scenario, Step};
use crate::service::{Listen, ServiceName, Shutdown};
use crate::settings::{Secret, Settings};
use crate::supervisor::Supervisor;
use crate::system::account::Account;
use crate::system::files::{FileError, acting_as, ensure_file};
use crate::system::guard::Guard;
use crate::system::lock::VolumeLock;
use crate::system::output::OutputHandle;
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, info};
use upstream::Upstream;

/// Beside the server in the OOM killer's list: what is lost least is killed first.
const HELPER_OOM_SCORE_ADJ: i32 = 500;

/// What steps are carried out with. Made once, shared by every plan of the container's life.
#[derive(Debug)]
pub struct Hands {
    /// What the operator asked for.
    pub settings: Settings,
    /// Where things are.
    pub layout: Layout,
    /// Where the others, and consumers, find this node.
    pub address: Address,
    /// repmgr's number of this node, once it is known.
    pub id: OnceLock<NodeId>,
    /// A number of its own for each start, by which the node knows itself among the members.
    pub instance: String,
    /// Somebody wants to know how our server is just now.
    pub look_now: Notify,
    /// Somebody has asked, who may be new: the records are to be read again.
    pub look_around: Notify,
    /// Who leads, as the plan that is carried out has found last.
    pub upstream: Mutex<Option<Upstream>>,
    /// The server's flags from the container's command.
    pub flags: Vec<String>,
    /// Whom Postgres and repmgr run as.
    pub postgres: Account,
    /// Whom barman runs as.
    pub barman: Account,
    /// Whom we run as.
    pub ourselves: Account,
    /// Held for the life of the container.
    pub lock: VolumeLock,
    /// Where children's lines go.
    pub output: OutputHandle,
    /// The node's processes.
    pub supervisor: Arc<Supervisor>,
    /// What happened to this node.
    pub journal: Journal,
    /// The operator's executables that are told of changes of role.
    pub hooks: Hooks,
    /// Who leads, by the record that the voters keep. None: nobody keeps one.
    pub keeper: Option<Keeper>,
    /// This node's vote, if it has one.
    pub voter: Option<Arc<etcd::Member>>,
    /// How that is.
    pub voting: watch::Sender<etcd::Voting>,
    /// What stops our server where the lease runs out.
    pub guard: Option<Arc<Guard>>,
    /// The other members with data, as they were seen last.
    pub others: Mutex<Vec<Other>>,
    /// For whom commits are to wait, of several: see [`Hands::prefer`].
    pub preferred: Mutex<Option<String>>,
    /// Who votes, as the master says, where nothing else does: this node is to start again with that.
    pub learned: Mutex<Option<Vec<Address>>>,
    /// Who streams from this primary, by its own server; looked at several times in a lease.
    pub streaming: Mutex<BTreeSet<String>>,
    /// Whether commits wait for the right standby is to be looked at now.
    pub synchronous_now: Notify,
    /// A person has asked for the lead that is taken next.
    pub asked: AtomicBool,
    /// … and for what may be lost by it.
    pub allow_data_loss: AtomicBool,
    /// Wait before this step, counted as `pgherd plan` counts, until the container is stopped.
    pub hold_at: Option<usize>,
}

/// Another member that has data.
#[derive(Clone, Debug)]
pub struct Other {
    /// Where its Postgres is.
    pub address: Address,
    /// What it could do.
    pub rival: Rival,
    /// It is about to stop.
    pub leaves: bool,
}

/// How far a plan is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Counted from 1, as in the document.
    pub stage: usize,
    /// Of how many.
    pub stages: usize,
    /// The document's words.
    pub title: String,
    /// What the node is seen to do.
    pub activity: Activity,
    /// Of what is being copied or rewound.
    pub bytes: Option<Bytes>,
    /// At this rate, the rest takes so long.
    pub seconds_left: Option<u64>,
    /// What is waited for.
    pub waits_for: Option<String>,
    /// It has waited for long, and a person should know.
    pub stands: Option<String>,
}

/// Where a step tells how far it is. Display only: nobody waits for it to be read.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    sender: mpsc::Sender<Progress>,
    now: Progress,
}

impl Teller {
    fn tell(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.now.clone();
        change(&mut progress);
        let _ = self.sender.try_send(progress);
    }
}

impl Hands {
    /// Runs every stage in order and stops at the first failure; unless consumers are served at a
    /// restart by then and the step may wait: that is returned at the end.
    pub async fn carry_out(
        &self,
        plan: &Plan,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Vec<PlanError>, PlanError> {
        let scenario = plan.scenario.title();
        let stages = plan.stages.len();
        info!("{scenario}");
        let mut kept = KeptSession::default();
        let mut step_number = 0;
        let mut undone = Vec::new();
        for (number, stage) in (1..).zip(&plan.stages) {
            info!("{number}/{stages} {}", stage.title);
            let mut teller = Teller {
                sender: progress.clone(),
                now: Progress {
                    stage: number,
                    stages,
                    title: stage.title.clone().into_owned(),
                    activity: Activity::Starting,
                    bytes: None,
                    seconds_left: None,
                    waits_for: None,
                    stands: None,
                },
            };
            for step in &stage.steps {
                step_number += 1;
                teller.now.activity = step.activity();
                let _ = progress.send(teller.now.clone()).await; // Display only.
                self.hold(step_number, step).await;
                let began = Instant::now();
                if let Err(source) = self.take(step, &mut kept, &teller).await {
                    let failed = step.clone();
                    let failed = PlanError { stage: number, scenario, failed, source };
                    if !(step.may_wait() && self.serves_again(plan)) {
                        self.tidy_up_after(plan).await;
                        return Err(failed);
                    }
                    undone.push(failed);
                }
                debug!("step {step_number} took {} ms: {step}", began.elapsed().as_millis());
            }
        }
        kept.close().await;
        Ok(undone)
    }

    /// A server that served before `plan` does so again.
    fn serves_again(&self, plan: &Plan) -> bool {
        let open = matches!(self.supervisor.listening(), Some(Listen::Consumer { .. }));
        let served_before = !matches!(plan.scenario, Scenario::PrimaryFirstStart { .. });
        open && served_before
    }

    async fn hold(&self, number: usize, step: &Step) {
        if self.hold_at == Some(number) {
            info!(
                "held before step {number}, as asked: {step}; stop the container, and start it without \
                 --hold-at to go on"
            );
            std::future::pending::<()>().await;
        }
    }

    /// Who this node is, to repmgr. A master without a number in its name is the first.
    pub fn identity(&self) -> Identity {
        Identity {
            id: self.id.get().copied().unwrap_or(NodeId::FIRST),
            name: self.settings.repmgr.node_name.clone(),
            address: self.address.clone(),
        }
    }

    async fn take(
        &self,
        step: &Step,
        kept: &mut KeptSession,
        teller: &Teller,
    ) -> Result<(), StepError> {
        let Hands { settings, layout, postgres: account, .. } = self;
        match step {
            Step::DiscardUnfinished { .. } => {
                // On a thread of its own: what an import left may be much, and the node goes on
                // answering and hearing signals meanwhile.
                let (settings, layout) = (settings.clone(), layout.clone());
                let account = account.clone();
                let discard = move || {
                    acting_as(&account, || postgres::discard_unfinished(&settings, &layout))
                };
                tokio::task::spawn_blocking(discard).await.expect("it does not panic")?;
            }
            Step::InitDataDirectory { .. } => {
                postgres::initdb(settings, layout, account).await?;
            }
            Step::BringBack { restore, pgdata } => self.bring_back(restore, pgdata, teller).await?,
            Step::Recover { restore, port } => {
                self.recover(restore, layout, *port, teller).await?;
                let (id, end) = (&restore.backup.id, restore.up_to());
                self.note_restored(format!("restored from backup {id}, up to {end}"));
            }
            Step::RecoverBeside { restore, port } => {
                self.recover_beside(restore, *port, teller).await?;
            }
            Step::ReplaceHistory => self.replace_history().await?,
            Step::BeginArchive => {
                if let Some(name) = barman::begin_archive(settings, &self.barman, account)? {
                    info!("what was restored is another history: its backups go to {name}");
                }
            }
            Step::StartPostgres { listen, durability } => {
                let started = self.start_postgres(*listen, *durability);
                tokio::select! {
                    started = started => started?,
                    failed = self.mind_missing_wal(teller) => return Err(failed),
                }
            }
            Step::StopPostgres => {
                kept.close().await;
                match self.supervisor.listening() {
                    // A standby that is connected and takes nothing is waited for.
                    Some(Listen::Consumer { .. }) => {
                        self.supervisor.stop_postgres_within(settings.herd.stop_timeout).await;
                    }
                    // What was made so far would be lost, and there is no standby.
                    Some(Listen::Technical { .. }) | None => {
                        self.supervisor.stop_postgres(Shutdown::Fast).await;
                    }
                }
                let bin = &layout.bin_dir;
                let control = postgres::control_data(bin, &layout.pgdata, account).await?;
                if !control.shut_down {
                    return Err(StepError::NotShutDown);
                }
            }
            Step::WritePostgresConf => {
                postgres::write_conf(settings, layout, account)?;
                archive_command::leave_alone_unless_needed(layout, account).await?;
            }
            Step::CheckServerSettings => self.check_settings(layout)?,
            Step::EnsureSuperuserPassword => {
                let postgres = &settings.postgres;
                let session = kept.to(self, "postgres").await?;
                session.ensure_role(&postgres.user, &postgres.password).await?;
            }
            Step::EnsureRole { role } => {
                let session = kept.to(self, "postgres").await?;
                session.ensure_role(role, self.password_of(role)).await?;
                session.run(&format!("give role {role} its privileges"), privileges(role)).await?;
            }
            Step::EnsureDatabase { name } => {
                kept.to(self, "postgres").await?.ensure_database(name).await?;
            }
            Step::EnsureRepmgrExtension => {
                let sql = include_str!("../../templates/sql/database-repmgr.sql");
                kept.to(self, "repmgr").await?.run("create extension repmgr", sql).await?;
            }
            Step::RunInitHooks => {
                kept.close().await; // A script may rename or drop what we would sit in.
                let ran = postgres::hooks::run(settings, layout, account, &self.output).await?;
                if ran > 0 {
                    info!("{ran} files of {} ran", layout.init_hooks.display());
                }
            }
            Step::WriteRepmgrConf => {
                let identity = self.identity();
                repmgr::write_conf(settings, layout, &identity, account)?;
                // A standby without an id gets one from its primary when it follows.
                let is_standby = layout.pgdata.join("standby.signal").exists();
                if self.id.get().is_some() || !is_standby {
                    write_node_id(layout, identity.id, account)?;
                    let _ = self.id.set(identity.id); // Known before, or from now on.
                }
            }
            Step::RegisterPrimary => self.register_primary(kept.to(self, "repmgr").await?).await?,
            Step::WriteBarmanConf => {
                let primary = &self.address;
                let passfile = repmgr::passfile;
                barman::write_conf(settings, layout, primary, &self.barman, passfile)?;
            }
            Step::WriteBarmanCron => cron::write_table(settings, layout, &self.ourselves)?,
            Step::Complete { .. } => postgres::complete(layout, account).await?,
            Step::Supervise { service } => self.supervise(*service),
            Step::Cease { service } => self.supervisor.cease(*service).await,
            Step::AwaitPrimary { patience } => self.await_primary(*patience, teller).await?,
            Step::ClaimIdentity => self.claim_identity().await?,
            Step::DiscardCopy => self.discard_copy().await?,
            Step::FollowByName => postgres::standby::forget_address(&layout.pgdata, account)?,
            Step::TakeCopy { from } => self.take_copy(*from, teller).await?,
            Step::MoveIn => self.move_in().await?,
            Step::Fence => {
                kept.close().await;
                self.fence().await?;
            }
            Step::EndInOrder { port } => self.end_in_order(*port).await?,
            Step::Rewind => self.rewind(teller).await?,
            Step::FollowPrimary { drop_slots } => self.follow_primary(*drop_slots).await?,
            Step::ForgetOthers => {
                let sql = repmgr::forget_others_sql(&self.identity());
                kept.to(self, "repmgr").await?.run("forget other nodes", &sql).await?;
            }
            Step::AskArchive => self.ask_archive().await?,
            Step::AwaitReplay => self.await_replay(teller).await?,
            Step::AwaitStream => self.await_stream(teller).await?,
            Step::RegisterStandby => self.register_standby().await?,
            Step::DiscardOld => self.discard_old().await?,
            Step::TakeLead => self.take_lead(teller).await?,
            Step::Promote => {
                kept.close().await;
                self.promote().await?;
            }
            Step::AwaitSynchronous { to } => self.await_synchronous(to).await?,
            Step::AnnounceHandover => self.hooks.announce_handover().await,
            Step::Checkpoint => kept.to(self, "postgres").await?.checkpoint().await?,
            Step::AwaitReceived { to } => self.await_received(to).await?,
            Step::ReleaseLead { to } => self.release_lead(Some(to)).await?,
        }
        Ok(())
    }

    /// Nothing of the operator's in the data directory of `layout` endangers the cluster.
    fn check_settings(&self, layout: &Layout) -> Result<(), StepError> {
        let assignments = postgres::operator_assignments(layout, &self.flags);
        let refused = postgres::conf::unsafe_settings(&self.settings, &assignments);
        if refused.is_empty() { Ok(()) } else { Err(StepError::Unsafe(refused)) }
    }

    async fn register_primary(&self, session: &Session) -> Result<(), StepError> {
        let Hands { settings, layout, postgres: account, .. } = self;
        let identity = &self.identity();
        let recorded = repmgr::is_recorded_sql(settings, layout, identity);
        if session.is_true("look this node up in repmgr.nodes", &recorded).await? {
            return Ok(());
        }
        let listen = self.supervisor.listening().ok_or(StepError::NoServer)?;
        let sockets = layout.socket_dir_of(listen);
        repmgr::register_primary(settings, layout, identity, account, sockets, listen.port())
            .await?;
        let address = repmgr::recorded_address_sql(layout, identity);
        Ok(session.run("record this node's address", &address).await?)
    }

    fn supervise(&self, service: ServiceName) {
        let (layout, account) = (self.layout.clone(), self.postgres.clone());
        let program = move || {
            let program = match service {
                ServiceName::Postgres => unreachable!("Postgres is started by a step of its own"),
                ServiceName::Repmgrd => repmgr::daemon(&layout, &account),
                ServiceName::Crond => cron::daemon(),
                ServiceName::Etcd => unreachable!("etcd runs from the node's beginning to its end"),
            };
            program.oom_score_adj(HELPER_OOM_SCORE_ADJ)
        };
        self.supervisor.keep(service, program);
    }

    /// A connection to our own server, wherever it listens now.
    async fn session(&self, database: &str) -> Result<Session, StepError> {
        let listen = self.supervisor.listening().ok_or(StepError::NoServer)?;
        Ok(Session::open(&self.settings, &self.layout, listen, database).await?)
    }

    fn password_of(&self, role: &str) -> &Secret {
        let Settings { repmgr, barman, .. } = &self.settings;
        match role {
            "repmgr" => &repmgr.password,
            "repmgr_streaming" => &repmgr.streaming_password,
            "barman" => &barman.password,
            "barman_streaming" => &barman.streaming_password,
            other => unreachable!("no plan asks for role {other}"),
        }
    }
}

/// The connection that one step leaves to the next: a backend that starts costs a few
/// milliseconds of a machine that has other things to do at a start.
#[derive(Default)]
struct KeptSession(Option<(&'static str, Session)>);

impl KeptSession {
    /// A connection to `database`.
    async fn to(&mut self, hands: &Hands, database: &'static str) -> Result<&Session, StepError> {
        let fits = |(open, session): &(&str, Session)| *open == database && !session.is_closed();
        let kept = match self.0.take() {
            Some(kept) if fits(&kept) => kept,
            other => {
                self.0 = other;
                self.close().await;
                (database, hands.session(database).await?)
            }
        };
        Ok(&self.0.insert(kept).1)
    }

    async fn close(&mut self) {
        if let Some((_, session)) = self.0.take() {
            session.close().await;
        }
    }
}

/// What a role needs besides its password; each file says why.
fn privileges(role: &str) -> &'static str {
    match role {
        "repmgr" => include_str!("../../templates/sql/role-repmgr.sql"),
        "repmgr_streaming" => include_str!("../../templates/sql/role-repmgr_streaming.sql"),
        "barman" => include_str!("../../templates/sql/role-barman.sql"),
        "barman_streaming" => include_str!("../../templates/sql/role-barman_streaming.sql"),
        other => unreachable!("no plan asks for role {other}"),
    }
}

/// The file that keeps the node's id.
const NODE_ID: &str = "node-id";

/// The id that this node was given once, if it was.
pub fn read_node_id(state_dir: &std::path::Path) -> Option<NodeId> {
    fs::read_to_string(state_dir.join(NODE_ID)).ok()?.trim().parse().ok()
}

fn write_node_id(layout: &Layout, id: NodeId, account: &Account) -> Result<(), FileError> {
    ensure_file(&layout.state_dir.join(NODE_ID), format!("{id}\n"), 0o644, account).map(drop)
}
