//! `pgherd node`: the node half, from the environment to the exit status.

use super::{bad_settings, failed, log, read_settings, run::format, runtime, say, status};
use crate::control::{EVENTS_MAX, Event, Node};
use crate::execute::Hands;
use crate::http;
use crate::layout::Layout;
use crate::observe::{self, Bearings, Ports};
use crate::postgres::conf;
use crate::scenario::{self, DataDirectory, Scenario, Situation};
use crate::service::Shutdown;
use crate::settings::Settings;
use crate::supervisor::Supervisor;
use crate::system::account::Account;
use crate::system::files::{FileError, acting_as, empty_directory, ensure_directory};
use crate::system::lock::VolumeLock;
use crate::system::output::{OutputHandle, Stream, Tag};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::low_level::signal_name;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, unix::pipe};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

/// Runs the node and returns the container's exit status.
pub(super) fn run(flags: Vec<String>, hold_at: Option<usize>) -> u8 {
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
    let ended = runtime().block_on(start(settings, flags, hold_at, output.clone()));
    let code = ended.unwrap_or_else(|refused| {
        refused.lines().for_each(|line| error!("{line}"));
        refused.status()
    });
    output.flush_and_close(log::FLUSH_AT_MOST);
    code
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
) -> Result<u8, NotStarted> {
    // First of all: a container may be stopped before it has become a node.
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    forward_signals(&sender).map_err(|error| refused(&error))?;
    let prepared = tokio::select! {
        () = stop_requested(&mut events) => return Ok(status::DONE),
        prepared = prepare(&settings, &flags) => prepared?,
    };
    let Prepared { bearings, lock, scenario, listener } = prepared;
    let Bearings { layout, identity, means, postgres, barman, ourselves } = bearings;
    let said = settings.warnings.len(); // The snapshot's warnings begin with these.
    let (ended, ended_receiver) = mpsc::channel(EVENTS_MAX);
    let supervisor = Supervisor::new(output.clone(), ended);
    barman_log(&layout.barman_log_pipe, &barman, &output);
    let hands = Arc::new(Hands {
        settings,
        layout,
        identity,
        flags,
        postgres,
        barman,
        ourselves,
        lock,
        output,
        supervisor,
        hold_at,
    });
    let (node, snapshots) = Node::new(hands, means, ended_receiver, (sender, events));
    snapshots.borrow().warnings.iter().skip(said).for_each(|warning| warn!("{warning}"));
    tokio::spawn(http::serve(listener, snapshots));
    Ok(node.run(scenario).await)
}

/// What a node needs before it can begin.
struct Prepared {
    bearings: Bearings,
    lock: VolumeLock,
    scenario: Scenario,
    listener: TcpListener,
}

async fn prepare(settings: &Settings, flags: &[String]) -> Result<Prepared, NotStarted> {
    info!(
        "pgherd {} starts node {} of cluster {}",
        env!("CARGO_PKG_VERSION"),
        settings.repmgr.node_name,
        settings.herd.cluster
    );
    settings.warnings.iter().for_each(|warning| warn!("{warning}"));
    for variable in &settings.not_yet {
        warn!("{variable} is set and has no effect in this version");
    }
    let unsafe_flags = conf::unsafe_settings(settings, &conf::of_flags(flags));
    if !unsafe_flags.is_empty() {
        return Err(NotStarted::BadSettings(
            unsafe_flags.iter().map(ToString::to_string).collect(),
        ));
    }

    let bearings = observe::bearings(settings).map_err(|error| refused(&error))?;
    observe::refuse_unwritable(&bearings).map_err(|error| refused(&error))?;
    let (lock, situation, scenario) = look_under_lock(settings, &bearings).await?;
    if let DataDirectory::Unfinished = situation.data_directory {
        warn!("the first start was interrupted: it is begun anew, nobody was served from it yet");
    }
    let Bearings { layout, identity, postgres, ourselves, .. } = &bearings;
    if let DataDirectory::Cluster { made_here: false, .. } = situation.data_directory {
        info!("takes over the cluster in {}, which another image made", layout.pgdata.display());
    }
    if let Some(asked) = settings.repmgr.node_id.filter(|asked| *asked != identity.id) {
        let kept = identity.id;
        warn!(
            "REPMGR_NODE_ID is {asked}, and this node keeps the id {kept} that it was given once"
        );
    }
    ensure_run_directories(layout, postgres, ourselves).map_err(|error| refused(&error))?;

    let listener = listen(settings).await?;
    Ok(Prepared { bearings, lock, scenario, listener })
}

/// What there is, and what follows, while nobody else can change it.
async fn look_under_lock(
    settings: &Settings,
    bearings: &Bearings,
) -> Result<(VolumeLock, Situation, Scenario), NotStarted> {
    let Bearings { layout, postgres, .. } = bearings;
    let look = async || {
        let situation = observe::situation(settings, bearings, Ports::Try).await;
        let scenario = scenario::recognise(settings, &situation);
        scenario.map(|scenario| (situation, scenario)).map_err(|error| refused(&error))
    };
    if !layout.state_dir.exists() {
        look().await?; // What is refused is refused before anything is made.
    }
    if let Err(error) = ensure_directory(&layout.state_dir, 0o700, postgres) {
        look().await?; // The cluster itself is likely to say better what is wrong.
        return Err(refused(&error));
    }
    let host = nix::unistd::gethostname().unwrap_or_default();
    let holder =
        format!("node {} in container {}", settings.repmgr.node_name, host.to_string_lossy());
    let file = layout.state_dir.join("lock");
    // As its owner: the next container may run as `postgres` itself, or as root again.
    let mut lock = acting_as(postgres, || VolumeLock::acquire(&file, &holder))
        .map_err(|error| refused(&error))?;

    let there = layout.pgdata.is_dir();
    if there {
        lock.hold_directory(&layout.pgdata).map_err(|error| refused(&error))?;
    }
    let (mut situation, mut scenario) = look().await?;
    if !there && matches!(scenario, Scenario::PrimaryFirstStart { .. }) {
        // Made now, to be held from the first moment; and who may have been before us is seen.
        ensure_directory(&layout.pgdata, 0o700, postgres).map_err(|error| refused(&error))?;
        lock.hold_directory(&layout.pgdata).map_err(|error| refused(&error))?;
        (situation, scenario) = look().await?;
    }
    Ok((lock, situation, scenario))
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
            tokio::spawn(output.pump(tag, Stream::Stderr, pipe, |_| {}));
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
    Ok(nix::sys::signal::SigSet::empty().thread_set_mask()?)
}
