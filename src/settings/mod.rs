//! What the operator asked for.
//!
//! Three stages, each with its own type, so that nothing past this module handles an unchecked
//! string: environment → `Input` (as written) → [`Settings`] (as meant). Pure: the environment and the
//! reading of files are arguments of [`read`].

mod cloud;
mod directories;
mod input;
mod listing;
mod meaning;
mod near_miss;
mod problem;
mod proof;
mod quorum;
mod restore;
mod secret;
mod source;
mod tls;
mod values;

#[cfg(test)]
mod tests;

pub use cloud::CloudSettings;
pub use listing::{Listed, Listing};
pub use problem::{Problem, Problems};
pub use proof::proof;
pub use restore::{RestoreFrom, RestoreSettings, RestoreSource, RestoreTarget};
pub use secret::{Secret, secret_variables};
pub use source::Origin;
pub use tls::TlsSettings;
pub use values::{
    Backups, CloneFrom, EtcdEndpoint, Failover, LogFormat, NodeKind, Retention, Schedule,
    TargetTimeline, WalCompression, WindowUnit,
};

use crate::cluster::{Address, NodeId, Role, SyncMode};
use input::{Input, variables};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Status of a container whose settings cannot be used (`EX_CONFIG` of sysexits.h).
pub const BAD_SETTINGS: u8 = 78;

/// The contract's tables, one struct per service, every value checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Rows of service `postgres`, and the official image's variables.
    pub postgres: PostgresSettings,
    /// Rows of service `repmgr`.
    pub repmgr: RepmgrSettings,
    /// Rows of service `barman`.
    pub barman: BarmanSettings,
    /// `PGHERD_*`.
    pub herd: HerdSettings,
    /// `RESTORE_*`: what an empty data directory gets. `None` without `RESTORE_FROM`.
    pub restore: Option<RestoreSettings>,
    /// One line each: names that look misspelt, choices that are unwise.
    pub warnings: Vec<String>,
    /// The database roles whose password anyone can look up: it is one of the document's.
    pub default_passwords: Vec<String>,
    listing: Listing,
}

/// Where Postgres listens and keeps its data, and how it is made.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// Consumers connect here. `POSTGRES_PORT`.
    pub port: u16,
    /// Used while a first start is under way, so that no consumer sees a half-made database.
    /// `POSTGRES_TECHNICAL_PORT`.
    pub technical_port: u16,
    /// The volume; the cluster lies in it unless `pgdata` says otherwise. `POSTGRES_DATA_DIR`.
    pub data_dir: PathBuf,
    /// The cluster's own directory, where the operator wants another. `PGDATA`.
    pub pgdata: Option<PathBuf>,
    /// Of the superuser `user`. `POSTGRES_PASSWORD`.
    pub password: Secret,
    /// The operator gave it, even if it is the documented one.
    pub password_given: bool,
    /// The superuser that initdb makes; blanks and quotes may stand in it. `POSTGRES_USER`.
    pub user: String,
    /// Made at the first start; named as the user unless given. `POSTGRES_DB`.
    pub database: String,
    /// `POSTGRES_INITDB_ARGS`, split as a shell would.
    pub initdb_args: Vec<String>,
    /// `POSTGRES_INITDB_WALDIR`.
    pub initdb_waldir: Option<PathBuf>,
    /// A method of `pg_hba.conf` with its options; a directory's password may be among these.
    /// `POSTGRES_HOST_AUTH_METHOD`.
    pub host_auth_method: Option<String>,
    /// Given to the postmaster as it is. `PG_OOM_ADJUST_FILE`.
    pub oom_adjust_file: Option<String>,
    /// Given to the postmaster as it is. `PG_OOM_ADJUST_VALUE`.
    pub oom_adjust_value: Option<String>,
}

/// Who this node is, and who its peers are.
#[derive(Clone, Debug)]
pub struct RepmgrSettings {
    /// Decides the first start only; afterwards the disk and the cluster do. `REPMGR_MASTER`.
    pub first_role: Role,
    /// `REPMGR_CONFIG_DIR`.
    pub config_dir: PathBuf,
    /// At most 63 characters of printable ASCII, no blank or quote among them. `REPMGR_NODE_NAME`.
    pub node_name: String,
    /// The operator's choice; without one see [`RepmgrSettings::node_id_from_name`]. `REPMGR_NODE_ID`.
    pub node_id: Option<NodeId>,
    /// `REPMGR_SLAVES`.
    pub slaves: Vec<Address>,
    /// Where a slave finds the master the first time; any member will do. `REPMGR_MASTER_HOST`.
    pub master_host: Option<Address>,
    /// `REPMGR_CLONE_FROM`.
    pub clone_from: CloneFrom,
    /// Of role `repmgr`. `REPMGR_PASSWORD`.
    pub password: Secret,
    /// Of role `repmgr_streaming`. `REPMGR_STREAMING_PASSWORD`.
    pub streaming_password: Secret,
    /// The host by which the others reach this node; `None` is the hostname. `REPMGR_NODE_ADDRESS`.
    pub node_address: Option<String>,
    /// repmgr's own meaning; 0 is never promoted. `REPMGR_PRIORITY`.
    pub priority: u32,
    /// repmgr's own meaning. `REPMGR_LOCATION`.
    pub location: String,
}

/// Where backups go and how long they stay.
#[derive(Clone, Debug)]
pub struct BarmanSettings {
    /// Of role `barman`. `BARMAN_PASSWORD`.
    pub password: Secret,
    /// Of role `barman_streaming`. `BARMAN_STREAMING_PASSWORD`.
    pub streaming_password: Secret,
    /// `BARMAN_BACKUP_DIR`.
    pub backup_dir: PathBuf,
    /// `BARMAN_RETENTION`.
    pub retention: Retention,
    /// `BARMAN_CONFIG_DIR`.
    pub config_dir: PathBuf,
    /// When base backups begin. `BARMAN_SCHEDULE`.
    pub schedule: Schedule,
    /// How archived WAL is kept. `BARMAN_COMPRESSION`.
    pub compression: WalCompression,
    /// Where copies of them go. `BARMAN_CLOUD_*`.
    pub cloud: Option<CloudSettings>,
}

/// pgherd's own.
#[derive(Clone, Debug)]
pub struct HerdSettings {
    /// The cluster's name, barman's server name too. `PGHERD_CLUSTER`.
    pub cluster: String,
    /// What this node is for. `PGHERD_ROLE`.
    pub kind: NodeKind,
    /// Who keeps the backups. `PGHERD_BACKUPS`.
    pub backups: Backups,
    /// The addresses that vote: three, five, or none. Those given, else the master's and its slaves',
    /// where these can vote. `PGHERD_VOTERS`.
    pub voters: Vec<Address>,
    /// Nothing says who votes, nor that nobody does: what the master's variables say counts here too.
    pub voters_may_be_learned: bool,
    /// Who changes the roles when the primary fails. `PGHERD_FAILOVER`.
    pub failover: Failover,
    /// So long a primary may write without renewing its lease; 2 s to 60 s. `PGHERD_LEASE`.
    pub lease: Duration,
    /// Whether a commit waits for a standby. `PGHERD_SYNCHRONOUS`.
    pub synchronous: SyncMode,
    /// `PGHERD_ETCD_*`.
    pub etcd: EtcdSettings,
    /// A data directory that a new clone replaced stays beside it. `PGHERD_KEEP_OLD_DATA`.
    pub keep_old_data: bool,
    /// `PGHERD_HTTP_PORT`.
    pub http_port: u16,
    /// The HTTP port speaks TLS with these. `PGHERD_TLS_*`.
    pub tls: Option<TlsSettings>,
    /// What nodes show each other. `PGHERD_CONTROL_TOKEN`; if that is not given, it follows from
    /// the repmgr password, which every node has.
    pub control_token: Secret,
    /// It follows from a password that everybody knows.
    pub control_token_is_published: bool,
    /// From `SIGTERM` to the last resort; 5 s to 1 h. `PGHERD_STOP_TIMEOUT`.
    pub stop_timeout: Duration,
    /// So long each executable in hooks.d may take, and a planned handover waits; 1 s to 60 s.
    /// `PGHERD_HOOK_TIMEOUT`.
    pub hook_timeout: Duration,
    /// A `tracing` filter, not checked yet. `PGHERD_LOG`.
    pub log_filter: String,
    /// `PGHERD_LOG_FORMAT`.
    pub log_format: LogFormat,
}

/// Where what must be agreed is kept.
#[derive(Clone, Debug)]
pub struct EtcdSettings {
    /// Of the voters' own etcd; its peers use the next one. The same on all nodes. `PGHERD_ETCD_PORT`.
    pub port: u16,
    /// An etcd of the operator's, to use instead of running one; else empty. `PGHERD_ETCD_ENDPOINTS`.
    pub endpoints: Vec<EtcdEndpoint>,
    /// Who signed its certificate. `PGHERD_ETCD_CA_FILE`.
    pub ca_file: Option<PathBuf>,
    /// What we show it; with `key_file`. `PGHERD_ETCD_CERT_FILE`.
    pub cert_file: Option<PathBuf>,
    /// `PGHERD_ETCD_KEY_FILE`.
    pub key_file: Option<PathBuf>,
    /// With `password`. `PGHERD_ETCD_USER`.
    pub user: Option<String>,
    /// `PGHERD_ETCD_PASSWORD`.
    pub password: Option<Secret>,
}

/// Reads the settings from `vars`, and from the files that `NAME_FILE` variables name.
/// Refuses with every variable that cannot be used, not with the first.
pub fn read(
    vars: impl IntoIterator<Item = (String, String)>,
    read_file: impl Fn(&Path) -> io::Result<String>,
) -> Result<Settings, Problems> {
    let vars: BTreeMap<String, String> = vars.into_iter().collect();
    let warnings = near_miss::warnings(vars.keys().map(String::as_str));
    let mut problems = Vec::new();

    let mut all_given = Vec::new();
    for variable in variables() {
        match source::find(variable, &vars, &read_file) {
            Ok(None) => {}
            // Each variable alone, because serde stops at the first error.
            Ok(Some(given)) => match Input::parse([(variable, given.value.as_str())]) {
                Ok(_) => all_given.push(given),
                Err(expected) => problems.push(Problem::refused(&given, &expected)),
            },
            Err(problem) => problems.push(problem),
        }
    }
    let pairs = all_given.iter().map(|given| (given.variable, given.value.as_str()));
    let mut input = Input::parse(pairs).expect("each variable was read before, alone");
    quorum::complete(&mut input, vars.get("HOSTNAME").map(String::as_str));

    let mut collisions = port_collisions(&input, &problems);
    collisions.extend(directories::in_the_way(&input, &problems));
    collisions.extend(nobody_to_back_up(&input, &problems));
    collisions.extend(quorum::problems(&input, &problems));
    collisions.extend(restore::problems(&input, &problems));
    collisions.extend(tls::problem(&input, &problems));
    collisions.extend(cloud::problem(&input, &problems));
    problems.extend(collisions);
    if problems.is_empty() {
        Ok(Settings::new(input, &all_given, warnings))
    } else {
        Err(Problems { problems, warnings })
    }
}

/// Ports of this container that are the same, as far as they could be read.
fn port_collisions(input: &Input, unread: &[Problem]) -> Vec<Problem> {
    let mut ports = vec![
        ("POSTGRES_PORT", "", input.postgres_port.0),
        ("POSTGRES_TECHNICAL_PORT", "", input.postgres_technical_port.0),
        ("PGHERD_HTTP_PORT", "", input.pgherd_http_port.0),
    ];
    if quorum::runs_etcd(input) {
        let port = input.pgherd_etcd_port.0;
        ports.push(("PGHERD_ETCD_PORT", "", port));
        ports.push(("PGHERD_ETCD_PORT", " + 1 (for etcd's peers)", port + 1));
    }
    ports.retain(|(variable, ..)| !unread.iter().any(|problem| problem.is_about(variable)));

    let mut collisions = Vec::new();
    let mut before: Vec<(&str, u16)> = Vec::new();
    for (variable, which, port) in ports {
        for (other, _) in before.iter().filter(|(_, other_port)| *other_port == port) {
            let message =
                format!("and {variable}{which} are both {port}. Give one of them another port.");
            collisions.push(Problem::new(other, message));
        }
        before.push((variable, port));
    }
    collisions
}

/// A backup node that knows of no cluster, as far as the variables could be read.
fn nobody_to_back_up(input: &Input, unread: &[Problem]) -> Option<Problem> {
    const NAMED_IN: [&str; 3] = ["REPMGR_MASTER_HOST", "REPMGR_SLAVES", "PGHERD_VOTERS"];
    let own = input.repmgr_node_address.as_ref().map(|host| &host.0);
    let is_unread = |variable: &&str| unread.iter().any(|problem| problem.is_about(variable));
    let knows_one = input.members().any(|address| Some(&address.host) != own);
    if input.pgherd_role != NodeKind::Backup || knows_one || NAMED_IN.iter().any(is_unread) {
        return None;
    }
    let message = "is backup, and no variable says whose backups it keeps. Name the master in \
                   REPMGR_MASTER_HOST, or every data node in REPMGR_SLAVES or PGHERD_VOTERS.";
    Some(Problem::new("PGHERD_ROLE", message))
}

impl Settings {
    /// As if `PGHERD_VOTERS` had named these.
    pub fn adopt_voters(&mut self, voters: Vec<Address>) {
        self.herd.voters = voters;
        self.herd.failover = Failover::Quorum;
    }

    /// Every address that the operator gave for a member of the cluster, each once: the master's
    /// first. This node's own may be among them.
    pub fn members(&self) -> Vec<Address> {
        let mut members: Vec<Address> = Vec::new();
        let given = self.repmgr.master_host.iter().chain(&self.repmgr.slaves);
        for address in given.chain(&self.herd.voters) {
            if !members.contains(address) {
                members.push(address.clone());
            }
        }
        members
    }

    /// Every variable with its value in force; secrets as `***`.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }
}

impl HerdSettings {
    /// barman works on this node.
    pub fn keeps_backups(&self) -> bool {
        match self.kind {
            NodeKind::Backup => true,
            NodeKind::Data => self.backups == Backups::Here,
            NodeKind::Witness => false,
        }
    }
}

impl RepmgrSettings {
    /// The number that the node's name ends in, or the only one it has: `node1` is 1, `dc2-pg3` is 3.
    /// `None` where that is no node id: `pg`, `pg-0`.
    pub fn node_id_from_name(&self) -> Option<NodeId> {
        let is_digit = |c: char| c.is_ascii_digit();
        let mut numbers = self.node_name.split(|c| !is_digit(c)).filter(|run| !run.is_empty());
        let last = numbers.next_back()?;
        let is_the_one = self.node_name.ends_with(is_digit) || numbers.next().is_none();
        if is_the_one { last.parse().ok() } else { None }
    }
}
