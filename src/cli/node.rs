//! `pgherd node-half`: the node half, from the environment to the exit status.

use super::{bad_settings, failed, log, read_settings, run::format, runtime, say, status};
use crate::barman;
use crate::cluster::Address;
use crate::control::{EVENTS_MAX, Event, Node};
use crate::etcd;
use crate::execute::Hands;
use crate::hooks::Hooks;
use crate::http;
use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::layout::Layout;
use crate::lead::Us;
use crate::members::{self, Memory};
use crate::observe::{self, Asking, Bearings, Ports};
use crate::postgres::conf;
use crate::scenario::{self, Cluster, DataDirectory};
use crate::service::Shutdown;
use crate::settings::{NodeKind, Settings};
use crate::supervisor::Supervisor;
use crate::system::account::Account;
use crate::system::error::chain;
use crate::system::files::{FileError, acting_as, empty_directory, ensure_directory};
use crate::system::guard::Guard;
use crate::system::lock::VolumeLock;
use crate::system::nonce::nonce;
use crate::system::output::{OutputHandle, Say, Stream, Tag};
use crate::system::tls;
use crate::voter;
use nix::sys::signal::SigSet;
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::low_level::signal_name;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, unix::pipe};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{error, info, warn};

/// How long a look-up or a removal that was begun may hold up the end.
const THREADS_END_WITHIN: Duration = Duration::from_millis(500);

/// Runs the node and returns the container's exit status.
pub(super) fn run(flags: Vec<String>, hold_at: Option<usize>) -> u8 {
    // Before there is a child that could inherit it.
    let guard = Guard::inherited().map(Arc::new);
    let settings = match read_settings() {
        Ok(settings) => settings,
        Err(problems) => return bad_settings(&problems),
    };
    let output = match OutputHandle::to_stdio(format(&settings)) {
        Ok(output) => output,
        Err(error) => return failed(&error),
    };
    if let Err(problem) = log::begin(&settings, output.clone()) {
        say(problem);
        return status::BAD_SETTINGS;
    }
    log::abort_on_panic(output.clone());
    let mut settings = settings;
    if let Some(voters) = settings.herd.voters_may_be_learned.then(|| voter::learned(&settings)) {
        voters.into_iter().for_each(|voters| settings.adopt_voters(voters));
    }
    let code = loop {
        let runtime = runtime();
        let (flags, output, guard) = (flags.clone(), output.clone(), guard.clone());
        let ended = runtime.block_on(start(settings.clone(), flags, hold_at, output, guard));
        // A signal that comes now is for the next life, which takes it up when it listens again.
        let _ = SigSet::all().thread_block(); // What can fail is a wrong argument.
        // Not for as long as a resolver looks for a host that is gone.
        runtime.shutdown_timeout(THREADS_END_WITHIN);
        match ended {
            Ok(Ended::Status(status)) => break status,
            Ok(Ended::Learned(voters)) => settings.adopt_voters(voters),
            Err(refused) => {
                refused.lines().for_each(|line| error!("{line}"));
                break refused.status();
            }
        }
    };
    output.flush_and_close(log::FLUSH_AT_MOST);
    code
}

/// Why a node is no more.
enum Ended {
    /// For good.
    Status(u8),
    /// To begin again, as one that knows who votes.
    Learned(Vec<Address>),
}

/// Why a node does not come up.
enum NotStarted {
    /// One line for each flag or setting.
    BadSettings(Vec<String>),
    /// The reason, with the way out.
    Refused(String),
}

impl NotStarted {
    fn lines(&self) -> impl Iterator<Item = &String> {
        match self {
            NotStarted::BadSettings(lines) => lines.iter(),
            NotStarted::Refused(line) => std::slice::from_ref(line).iter(),
        }
    }

    fn status(&self) -> u8 {
        match self {
            NotStarted::BadSettings(_) => status::BAD_SETTINGS,
            NotStarted::Refused(_) => status::FAILED,
        }
    }
}

fn refused(error: &dyn std::error::Error) -> NotStarted {
    NotStarted::Refused(crate::system::error::chain(error))
}

async fn start(
    settings: Settings,
    flags: Vec<String>,
    hold_at: Option<usize>,
    output: OutputHandle,
    guard: Option<Arc<Guard>>,
) -> Result<Ended, NotStarted> {
    // First of all: a container may be stopped before it has become a node.
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    forward_signals(&sender).map_err(|error| refused(&error))?;
    let prepared = tokio::select! {
        () = stop_requested(&mut events) => return Ok(Ended::Status(status::DONE)),
        prepared = prepare(&settings, &flags) => prepared?,
    };
    let Prepared { bearings, lock, on_disk, door } = prepared;
    let Bearings { layout, id, address, postgres, barman, ourselves, .. } = bearings.clone();
    let said = settings.warnings.len(); // The snapshot's warnings begin with these.
    let (ended, ended_receiver) = mpsc::channel(EVENTS_MAX);
    let supervisor = Supervisor::new(output.clone(), ended, guard.clone());
    barman_log(&layout.barman_log_pipe, &barman, &output);
    let instance = nonce();
    let voter = etcd::Member::of(&settings, &layout, &address).map(Arc::new);
    etcd::Member::misnamed(&settings, &address).iter().for_each(|wrong| warn!("{wrong}"));
    let owner = match settings.herd.kind {
        NodeKind::Data | NodeKind::Witness => &postgres,
        NodeKind::Backup => &barman,
    };
    let owned = voter.clone().map(|voter| (voter, owner.clone()));
    let journal = Journal::open(&settings.repmgr.node_name, layout.events(), owner);
    let keeper = keeper(&settings, &address, &instance, guard.clone(), owned)?;
    let hooks = Hooks::start(&settings, &layout, &postgres, &output);
    let vote = voter.as_ref().and_then(|voter| voter.vote());
    let hands = Arc::new(Hands {
        settings,
        layout,
        address,
        id: id.map_or_else(OnceLock::new, OnceLock::from),
        instance,
        journal,
        hooks,
        keeper,
        voting: watch::Sender::new(etcd::Voting { vote, trouble: None }),
        voter,
        guard,
        others: Mutex::default(),
        preferred: Mutex::default(),
        learned: Mutex::default(),
        streaming: Mutex::default(),
        synchronous_now: Notify::new(),
        asked: AtomicBool::new(false),
        allow_data_loss: AtomicBool::new(false),
        look_now: Notify::new(),
        look_around: Notify::new(),
        upstream: Mutex::default(),
        flags,
        postgres,
        barman,
        ourselves,
        lock,
        output,
        supervisor,
        hold_at,
    });
    let archived = http::Archived::of(&hands.settings, &hands.barman);
    let takes_backups =
        |one: http::Archived| one.with_jobs(&hands.settings, &hands.layout, &hands.barman);
    let archived = archived.map(takes_backups);
    let wishes = http::Wishes::new(&hands.settings, hands.keeper.clone(), sender.clone());
    let (hands_of_the_voter, hands_at_the_end) = (Arc::clone(&hands), Arc::clone(&hands));
    let journal = hands.journal.clone();
    let channel = (sender, events);
    let (node, snapshots) = Node::new(hands, bearings, &on_disk, ended_receiver, channel);
    snapshots.borrow().warnings.iter().skip(said).for_each(|warning| warn!("{warning}"));
    tokio::spawn(voter::run(hands_of_the_voter));
    tokio::spawn(http::serve(door, snapshots, archived, wishes, Some(journal)));
    let status = node.run().await;
    let Hands { learned, layout, postgres, .. } = &*hands_at_the_end;
    let learned = learned.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(voters) = learned.filter(|_| status == status::DONE) else {
        return Ok(Ended::Status(status));
    };
    voter::keep(&voters, layout, postgres).map_err(|error| refused(&error))?;
    Ok(Ended::Learned(voters))
}

/// Who leads is agreed on in etcd, where the settings say so.
fn keeper(
    settings: &Settings,
    address: &Address,
    instance: &str,
    guard: Option<Arc<Guard>>,
    voter: Option<(Arc<etcd::Member>, Account)>,
) -> Result<Option<Keeper>, NotStarted> {
    let client = etcd::Client::of(settings, address).map_err(|error| refused(&error))?;
    let Some(client) = client else { return Ok(None) };
    let first_read = voter.filter(|(member, _)| member.may_found()).map(|(member, account)| {
        let note = move || member.note_met(&account).map_err(|error| chain(&error));
        Box::new(note) as Box<dyn Fn() -> Result<(), String> + Send + Sync>
    });
    let us = Us {
        name: settings.repmgr.node_name.clone(),
        address: address.clone(),
        instance: instance.to_owned(),
        lease: settings.herd.lease,
        synchronous: settings.herd.synchronous,
    };
    Ok(Some(Keeper::start(settings, us, client, guard, first_read)))
}

/// What a node needs before it can begin.
struct Prepared {
    bearings: Bearings,
    lock: VolumeLock,
    on_disk: DataDirectory,
    door: http::Door,
}

async fn prepare(settings: &Settings, flags: &[String]) -> Result<Prepared, NotStarted> {
    info!(
        "pgherd {} starts node {} of cluster {}",
        env!("CARGO_PKG_VERSION"),
        settings.repmgr.node_name,
        settings.herd.cluster
    );
    settings.warnings.iter().for_each(|warning| warn!("{warning}"));
    let unsafe_flags = conf::unsafe_settings(settings, &conf::of_flags(flags));
    if !unsafe_flags.is_empty() {
        return Err(NotStarted::BadSettings(
            unsafe_flags.iter().map(ToString::to_string).collect(),
        ));
    }

    let tls = settings.herd.tls_files().map(tls::Acceptor::new).transpose();
    let tls = tls.map_err(|error| NotStarted::BadSettings(vec![error.to_string()]))?;
    let bearings = observe::bearings(settings).map_err(|error| refused(&error))?;
    observe::refuse_unwritable(settings, &bearings).map_err(|error| refused(&error))?;
    let (lock, on_disk) = look_under_lock(settings, &bearings).await?;
    if let DataDirectory::Unfinished = on_disk {
        warn!("the first start was interrupted: it is begun anew, nobody was served from it yet");
    }
    let Bearings { layout, id, address, postgres, ourselves, .. } = &bearings;
    if let DataDirectory::Cluster(Cluster { made_here: false, .. }) = on_disk {
        info!("takes over the cluster in {}, which another image made", layout.pgdata.display());
    }
    if let (Some(asked), Some(kept)) = (settings.repmgr.node_id, *id)
        && asked != kept
    {
        warn!(
            "REPMGR_NODE_ID is {asked}, and this node keeps the id {kept} that it was given once"
        );
    }
    // What it forgets there might have kept it from leading beside another.
    Memory::read_or_refuse(layout).map_err(|error| refused(&error))?;
    ensure_run_directories(layout, postgres, ourselves).map_err(|error| refused(&error))?;
    let members = members::everybody(settings, &Memory::read(layout), address);
    let members = members.iter().map(|(member, _)| member);
    barman::write_sources(settings, layout, address, members, postgres)
        .map_err(|error| refused(&error))?;

    let door = http::Door { listener: listen(settings).await?, tls };
    Ok(Prepared { bearings, lock, on_disk, door })
}

/// What there is, and what follows, while nobody else can change it.
async fn look_under_lock(
    settings: &Settings,
    bearings: &Bearings,
) -> Result<(VolumeLock, DataDirectory), NotStarted> {
    let Bearings { layout, postgres, barman, .. } = bearings;
    let look = async || {
        // What refuses a start without asking anybody; who asks later decides.
        let asking = Asking::Nobody;
        let situation = observe::situation(settings, bearings, Ports::Try, asking).await;
        match scenario::recognise(settings, &situation) {
            Ok(_) => Ok(situation.data_directory),
            Err(error) if error.is_about_settings() => {
                Err(NotStarted::BadSettings(vec![error.to_string()]))
            }
            Err(error) => Err(refused(&error)),
        }
    };
    let host = nix::unistd::gethostname().unwrap_or_default();
    let holder =
        format!("node {} in container {}", settings.repmgr.node_name, host.to_string_lossy());
    if settings.herd.kind == NodeKind::Backup {
        // Its volume is barman's directory, and nothing of the node's is anywhere else.
        let backups = &settings.barman.backup_dir;
        let on_disk = look().await?;
        ensure_directory(backups, 0o700, barman).map_err(|error| refused(&error))?;
        ensure_directory(&layout.state_dir, 0o700, barman).map_err(|error| refused(&error))?;
        let lock =
            acting_as(barman, || VolumeLock::acquire(&layout.state_dir.join("lock"), &holder))
                .map_err(|error| refused(&error))?;
        return Ok((lock, on_disk));
    }
    if !layout.state_dir.exists() {
        look().await?; // What is refused is refused before anything is made.
    }
    if let Err(error) = ensure_directory(&layout.state_dir, 0o700, postgres) {
        look().await?; // The cluster itself is likely to say better what is wrong.
        return Err(refused(&error));
    }
    let file = layout.state_dir.join("lock");
    // As its owner: the next container may run as `postgres` itself, or as root again.
    let mut lock = acting_as(postgres, || VolumeLock::acquire(&file, &holder))
        .map_err(|error| refused(&error))?;

    let there = layout.pgdata.is_dir();
    if there {
        lock.hold_directory(&layout.pgdata).map_err(|error| refused(&error))?;
    }
    let mut on_disk = look().await?;
    if !there {
        // Made now, to be held from the first moment; and who may have been before us is seen.
        ensure_directory(&layout.pgdata, 0o700, postgres).map_err(|error| refused(&error))?;
        lock.hold_directory(&layout.pgdata).map_err(|error| refused(&error))?;
        on_disk = look().await?;
    }
    Ok((lock, on_disk))
}

/// Afterwards the directories for sockets and password files are there, and what a killed
/// container left in the private one is gone.
fn ensure_run_directories(
    layout: &Layout,
    postgres: &Account,
    ourselves: &Account,
) -> Result<(), FileError> {
    // The image leaves it open for `--user`; as root we close it, and what is in it stays in place.
    ensure_directory(&layout.run_dir, if ourselves.is_root() { 0o755 } else { 0o3777 }, ourselves)?;
    ensure_directory(&layout.socket_dir, 0o3777, postgres)?;
    ensure_directory(&layout.technical_socket_dir, 0o700, postgres)?;
    acting_as(postgres, || empty_directory(&layout.technical_socket_dir, &[]))
}

async fn listen(settings: &Settings) -> Result<TcpListener, NotStarted> {
    let port = settings.herd.http_port;
    // Both families where there are two, else the one there is.
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.map_err(|error| {
            NotStarted::Refused(format!("cannot listen on port {port} (PGHERD_HTTP_PORT): {error}"))
        }),
    }
}

/// What cron's jobs print comes out of the container's log: cron itself would mail it to nobody.
/// The pipe is open on our side for both, so that no job finds it without a reader.
fn barman_log(path: &Path, barman: &Account, output: &OutputHandle) {
    let open = || -> std::io::Result<pipe::Receiver> {
        let _ = std::fs::remove_file(path);
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
        if nix::unistd::geteuid().is_root() {
            nix::unistd::chown(path, Some(barman.uid), Some(barman.gid))?;
        }
        pipe::OpenOptions::new().read_write(true).open_receiver(path)
    };
    match open() {
        Ok(pipe) => {
            let output = output.clone();
            let tag = Tag::from("barman");
            tokio::spawn(output.pump(tag, Stream::Stderr, pipe, |_| Say::It));
        }
        Err(error) => {
            warn!("barman's jobs are not logged: cannot make {}: {error}", path.display())
        }
    }
}

/// Comes back when the container is to stop. Nothing else that is asked of a node matters yet: a
/// start reads everything anyway.
async fn stop_requested(events: &mut mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        if let Event::StopRequested(_) = event {
            return info!("stopping before anything began");
        }
    }
}

/// The init half passes on what the container gets.
fn forward_signals(events: &mpsc::Sender<Event>) -> std::io::Result<()> {
    let meanings: [(i32, fn() -> Event); 4] = [
        (SIGTERM, || Event::StopRequested(Shutdown::Fast)),
        (SIGINT, || Event::StopRequested(Shutdown::Fast)),
        (SIGQUIT, || Event::StopRequested(Shutdown::Immediate)),
        (SIGHUP, || Event::ReloadRequested),
    ];
    for (number, meaning) in meanings {
        let mut signals = signal(SignalKind::from_raw(number))?;
        let events = events.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                info!("received {}", signal_name(number).unwrap_or("a signal"));
                let _ = events.send(meaning()).await; // The node has ended.
            }
        });
    }
    // The init half had them held back until now, or an early one would have ended us.
    Ok(SigSet::empty().thread_set_mask()?)
}
