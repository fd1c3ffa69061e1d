//! The words of the command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::OsString;
use std::path::PathBuf;
/// PID 1 of a Postgres container: first start, restarts, backups, and the tools to look at it.
#[derive(Parser)]
#[command(version, about, disable_help_subcommand = true, after_help = EXAMPLES)]
pub struct Cli {
    /// Ask the node there instead of the one in this container
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(super) at: Vec<String>,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXAMPLES: &str = "Examples:
  docker exec node1 pgherd status --watch     the cluster, once a second
  docker exec node1 pgherd switchover --to node2
  docker exec -it node1 pgherd psql           psql to whoever takes writes
  pgherd status --at db1.example.org:8008     of another host's node";

#[derive(Subcommand)]
pub(super) enum Command {
    /// Be the container: a Postgres node, or any other command under a good init
    Run(Run),
    /// Read the environment and say what is wrong with it, or nothing
    Check,
    /// Show the settings in force and where each came from
    Settings(Output),
    /// Show what a start would do here and now, stage by stage, touching nothing
    Plan(Output),
    /// Show the cluster: a row a node
    #[command(after_help = "Examples:
  pgherd status
  pgherd status --watch
  pgherd status --json | jq -r .primary")]
    Status {
        #[command(flatten)]
        output: Output,
        /// Again every second, until it is interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Hand the lead over to a standby, without losing a write; with --at TIME (2026-12-24T03:00:00Z,
    /// 2026-12-24T03:00 or 03:00) later
    #[command(after_help = "Examples:
  pgherd switchover --to node2 --dry-run
  pgherd switchover --to node2
  pgherd switchover --at 03:00
  pgherd switchover --cancel")]
    Switchover {
        /// The standby's name; without one the node chooses
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
        /// Say what would happen, or why not, and do nothing
        #[arg(long)]
        dry_run: bool,
        /// Forget the switchover that was asked for at a later time
        #[arg(long, conflicts_with_all = ["to", "dry_run"])]
        cancel: bool,
    },
    /// Give the lead to a node when there is no primary
    #[command(after_help = "Examples:
  pgherd failover
  pgherd failover --to node2 --allow-data-loss")]
    Failover {
        /// The node's name; without one it is the one that has most
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
        /// What the silent ones have and that node has not may be lost
        #[arg(long)]
        allow_data_loss: bool,
    },
    /// Change no roles automatically, until `resume`
    Pause,
    /// Change roles automatically again
    Resume,
    /// Keep a node from being chosen, or let it be chosen again
    #[command(after_help = "Examples:
  pgherd maintenance on node2
  pgherd maintenance off node2")]
    Maintenance {
        /// Whether it begins or ends
        #[arg(value_name = "on|off", action = clap::ArgAction::Set, value_parser = on_or_off())]
        on: bool,
        /// Its name; without one it is the node that is asked
        node: Option<String>,
        /// Also where it is the only standby that could lead
        #[arg(long)]
        force: bool,
    },
    /// Restart Postgres on a node; a primary keeps its lead
    Restart {
        /// Its name; without one it is the node that is asked
        node: Option<String>,
    },
    /// Have Postgres on a node read its configuration again
    Reload {
        /// Its name; without one it is the node that is asked
        node: Option<String>,
    },
    /// Throw a standby's data away and clone it again
    Reinit {
        /// Its name
        node: String,
    },
    /// Have the node that keeps the backups take one now
    #[command(after_help = "Examples:
  pgherd backup --wait
  pgherd backup --name before-the-upgrade")]
    Backup {
        /// Come back when it is complete
        #[arg(long)]
        wait: bool,
        /// What to call it
        #[arg(long)]
        name: Option<String>,
    },
    /// Show the cluster's base backups, or have one restored on trial
    #[command(after_help = "Examples:
  pgherd backups
  pgherd backups --verify latest")]
    Backups {
        #[command(flatten)]
        output: Output,
        /// Restore this one beside the others, look through all of it, and throw that away
        #[arg(long, value_name = "ID|latest", conflicts_with = "json")]
        verify: Option<String>,
    },
    /// Bring the cluster back to a backup, or to a moment since: says what is lost by it, and asks
    #[command(after_help = "Examples:
  pgherd restore --dry-run
  pgherd restore --target-time '2026-11-20 03:00:00+01:00'
  pgherd restore 20261120T030001 --target-action pause")]
    Restore(Restore),
    /// The cluster's members
    #[command(name = "node", subcommand)]
    Members(Members),
    /// Show what happened, on all nodes, and by which rule
    #[command(after_help = "Examples:
  pgherd events --limit 10
  pgherd events --follow --json")]
    Events {
        /// A line of JSON an event
        #[arg(long)]
        json: bool,
        /// Go on with what happens from now on
        #[arg(long)]
        follow: bool,
        /// Begin with so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Run psql, connected to the primary
    #[command(after_help = "Examples:
  pgherd psql -- -c 'SELECT 1'")]
    Psql {
        /// For psql, as they are
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Print what a shell needs to complete commands: source it, or put it where the shell looks
    #[command(after_help = "Examples:
  source <(pgherd completions bash)")]
    Completions {
        /// Which
        shell: Shell,
    },
    /// Print what the HTTP port answers, as an OpenAPI document
    Openapi,
    /// Exit 0 if this node is alive (with --ready: if it serves); for health checks
    Health {
        /// Succeed only when Postgres serves
        #[arg(long)]
        ready: bool,
    },
    /// The node half; `run` starts it
    #[command(hide = true, name = "node-half")]
    Node(Node),
    /// What cron has barman do
    #[command(hide = true, subcommand)]
    Barman(Barman),
    /// WAL files, for Postgres' own commands
    #[command(hide = true, subcommand)]
    Wal(Wal),
}

/// How an answer is printed.
#[derive(Args)]
pub(super) struct Output {
    /// For scripts
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct Restore {
    /// A backup's id or name; without one, the newest that serves
    #[arg(value_name = "ID|latest", default_value = "latest")]
    pub(super) backup: String,
    /// Replay what was committed until then: 2026-11-20 03:00:00+01:00 (without an offset it is UTC)
    #[arg(long, value_name = "TIME", group = "target")]
    pub(super) target_time: Option<String>,
    /// Replay up to this position
    #[arg(long, value_name = "LSN", group = "target")]
    pub(super) target_lsn: Option<String>,
    /// Replay up to this pg_create_restore_point
    #[arg(long, value_name = "NAME", group = "target")]
    pub(super) target_name: Option<String>,
    /// Replay up to this transaction
    #[arg(long, value_name = "XID", group = "target")]
    pub(super) target_xid: Option<String>,
    /// On the way to this timeline: latest, current (the backup's own), or a number
    #[arg(long, value_name = "TIMELINE")]
    pub(super) target_timeline: Option<String>,
    /// promote, or pause: a person looks first
    #[arg(long, value_name = "ACTION", value_parser = ["promote", "pause"])]
    pub(super) target_action: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Say what would happen, or why not, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args)]
pub(super) struct Run {
    /// Forward signals to the command's whole process group, not to the command alone
    #[arg(short = 'g', long)]
    pub(super) signal_group: bool,
    /// Wait before this step, as `pgherd plan` numbers them, until the container is stopped: to
    /// look at a start that goes wrong
    #[arg(long, value_name = "STEP")]
    pub(super) hold_at: Option<usize>,
    /// `postgres` with server flags (the default), or any command
    #[arg(last = true)]
    pub(super) command: Vec<OsString>,
}

#[derive(Args)]
pub(super) struct Node {
    #[arg(long)]
    pub(super) hold_at: Option<usize>,
    #[arg(last = true)]
    pub(super) flags: Vec<String>,
}

#[derive(Subcommand)]
pub(super) enum Members {
    /// Who is a member, where, and who votes
    List(Output),
    /// Say how a node is added: it joins by itself when it is started
    Add {
        /// Its name: REPMGR_NODE_NAME
        node: String,
    },
    /// Take out a member that is gone for good: its vote, its records, the WAL that is kept for it
    Remove {
        /// Its name
        node: String,
    },
}

#[derive(Subcommand)]
pub(super) enum Barman {
    Cron(Conf),
    Backup {
        /// What a person calls it
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        conf: Conf,
    },
}

#[derive(Subcommand)]
pub(super) enum Wal {
    /// For restore_command = 'pgherd wal fetch %f %p': 0 if PATH is there, 1 if nobody has it
    Fetch(Fetch),
}

#[derive(Args)]
pub(super) struct Fetch {
    /// Also a segment that is still being received, for when no primary is left
    #[arg(long)]
    pub(super) partial: bool,
    /// Not of a timeline that the newest history known here has left behind by then
    #[arg(long)]
    pub(super) following: bool,
    /// For pg_rewind; it only tells pgherd's own setting from an operator's
    #[arg(long)]
    pub(super) rewinding: bool,
    /// From what this node is restored from
    #[arg(long)]
    pub(super) restoring: bool,
    /// End the recovery where it cannot be told whether somebody has it
    #[arg(long)]
    pub(super) sure: bool,
    pub(super) name: String,
    pub(super) path: PathBuf,
}

#[derive(Args)]
pub(super) struct Conf {
    /// barman's configuration of the cluster
    pub(super) conf: PathBuf,
}

impl Command {
    /// It is a question to a running node, which may be another than the one here.
    pub(super) fn asks_a_node(&self) -> bool {
        match self {
            Command::Status { .. }
            | Command::Psql { .. }
            | Command::Switchover { .. }
            | Command::Failover { .. }
            | Command::Pause
            | Command::Resume
            | Command::Maintenance { .. }
            | Command::Restart { .. }
            | Command::Reload { .. }
            | Command::Reinit { .. }
            | Command::Backup { .. }
            | Command::Backups { .. }
            | Command::Restore(_)
            | Command::Members(_)
            | Command::Events { .. }
            | Command::Health { .. } => true,
            Command::Run(_)
            | Command::Check
            | Command::Settings(_)
            | Command::Plan(_)
            | Command::Completions { .. }
            | Command::Openapi
            | Command::Node(_)
            | Command::Barman(_)
            | Command::Wal(_) => false,
        }
    }
}

/// `on` and `off`, as a word of the command line.
fn on_or_off() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["on", "off"]).map(|word| word == "on")
}
