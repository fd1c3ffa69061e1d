//! `/etc/pgherd/hooks.d`: executables of the operator's, told when this node's role changes.
//!
//! One task runs them, one after the other and each for a limited time. Nobody waits for it but a planned
//! handover, for as long as one of them may take: a failover never does.

use crate::cluster::{Address, Role, Timeline};
use crate::layout::Layout;
use crate::settings::Settings;
use crate::system::account::Account;
use crate::system::child::Program;
use crate::system::error::chain;
use crate::system::output::{OutputHandle, Tag};
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{info, warn};

/// So many changes may wait for their turn: roles change rarely, and a hook takes a while.
const CALLS_MAX: usize = 16;

/// What a hook is told of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What its server does for consumers; none where it serves nobody.
    pub role: Option<Role>,
    /// The branch of history that it is on.
    pub timeline: Option<Timeline>,
    /// Where whoever takes writes is found, as far as this node knows.
    pub primary: Option<Address>,
}

/// The way to the operator's executables.
#[derive(Debug)]
pub struct Hooks {
    told: Mutex<Told>,
    calls: mpsc::Sender<Call>,
    at_most: Duration,
}

/// What a hook is called for. The words are its first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The primary is about to hand over, and serves still.
    BeforeHandover,
    /// It is another than it was.
    RoleChanged,
}

#[derive(Debug)]
struct Call {
    event: Event,
    before: Option<Role>,
    now: Told,
    /// Who waits for the end of it.
    waits: Option<oneshot::Sender<()>>,
}

impl Hooks {
    /// Begins to listen for changes.
    pub fn start(
        settings: &Settings,
        layout: &Layout,
        account: &Account,
        output: &OutputHandle,
    ) -> Self {
        let at_most = settings.herd.hook_timeout;
        let (calls, received) = mpsc::channel(CALLS_MAX);
        let caller = Caller {
            directory: layout.role_hooks.clone(),
            node: settings.repmgr.node_name.clone(),
            cluster: settings.herd.cluster.clone(),
            account: account.clone(),
            output: output.clone(),
            at_most,
        };
        tokio::spawn(caller.run(received));
        Hooks { told: Mutex::default(), calls, at_most }
    }

    /// The hooks are called if the role is another than they were told last. Nobody waits for them. Where
    /// too many changes wait already, it counts as not told, and the next call tells it.
    pub fn tell(&self, now: Told) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.role;
        if before != now.role {
            let (event, now) = (Event::RoleChanged, now.clone());
            if self.calls.try_send(Call { event, before, now, waits: None }).is_err() {
                warn!(
                    "hooks.d is not told of a change yet: {CALLS_MAX} others wait for their turn"
                );
                return;
            }
        }
        *told = now;
    }

    /// Afterwards they know that this primary is about to hand over, or have had their time. Whatever it
    /// is next is told as a change.
    pub async fn announce_handover(&self) {
        let now = std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner));
        let (done, waits) = oneshot::channel();
        let call = Call { event: Event::BeforeHandover, before: now.role, now, waits: Some(done) };
        let told = async {
            if self.calls.send(call).await.is_ok() {
                let _ = waits.await; // It is called no more, and that was said.
            }
        };
        if timeout(self.at_most, told).await.is_err() {
            warn!("hooks.d takes longer than {} s: hands over now", self.at_most.as_secs());
        }
    }
}

/// Whoever calls them, one at a time.
struct Caller {
    directory: PathBuf,
    node: String,
    cluster: String,
    account: Account,
    output: OutputHandle,
    at_most: Duration,
}

impl Caller {
    async fn run(self, mut calls: mpsc::Receiver<Call>) {
        while let Some(mut call) = calls.recv().await {
            match call.waits.take() {
                None => self.call_all(&call).await,
                // What comes after the handover would be about a moment that is over.
                Some(mut waits) => tokio::select! {
                    biased;
                    () = waits.closed() => {}
                    () = self.call_all(&call) => {}
                },
            }
        }
    }

    async fn call_all(&self, call: &Call) {
        for hook in hooks(&self.directory) {
            let Call { event, before, now, .. } = call;
            let (before, role) = (word(*before), word(now.role));
            let or_empty = |text: Option<String>| text.unwrap_or_default();
            info!("calls {} {event} {before} {role}", hook.display());
            let program = Program::new(&hook)
                .args([event.to_string().as_str(), before, role])
                .account(&self.account)
                .env("HOOK_EVENT", event.to_string())
                .env("HOOK_ROLE_BEFORE", before)
                .env("HOOK_ROLE", role)
                .env("HOOK_NODE", &self.node)
                .env("HOOK_CLUSTER", &self.cluster)
                .env("HOOK_TIMELINE", or_empty(now.timeline.map(|one| one.to_string())))
                .env("HOOK_PRIMARY", or_empty(now.primary.as_ref().map(Address::to_string)))
                .current_dir("/");
            let tag = Tag::from("hooks.d");
            if let Err(error) = program.run(tag, &self.output, self.at_most).await {
                warn!("{}", chain(&error));
            }
        }
    }
}

/// What can be run of what is there, by name; as `run-parts`, without what editors leave behind.
fn hooks(directory: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            warn!("cannot read {}: {error}", directory.display());
            return Vec::new();
        }
    };
    let is_left_behind = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with('.') || name.ends_with('~')
    };
    let files = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files.filter(|path| !is_left_behind(path)).collect();
    files.sort();
    files.retain(|file| {
        let about = fs::metadata(file); // Of what a link leads to.
        let is_runnable =
            about.is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0);
        if !is_runnable {
            warn!("{} is not called: it is no executable file", file.display());
        }
        is_runnable
    });
    files
}

fn word(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Primary) => "primary",
        Some(Role::Standby) => "standby",
        None => "none",
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Event::BeforeHandover => "before-handover",
            Event::RoleChanged => "role-changed",
        })
    }
}

#[cfg(test)]
mod tests;
