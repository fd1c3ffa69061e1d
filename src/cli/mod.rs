//! The command line. Answers go to standard output, talk to standard error.

mod ask;
mod backups;
mod change;
mod command;
mod events;
mod follow;
mod log;
mod members;
mod node;
mod openapi;
mod psql;
mod restore;
mod run;
mod show;
mod watch;
mod when;

use crate::layout;
use crate::observe::{self, Asking, Bearings, Ports};
use crate::scenario::{self, Decision, Lead, Refusal};
use crate::settings::{self, Failover, Problems, Settings};
use ask::Entrance;
use clap::{CommandFactory, Parser};
use clap_complete::Shell;
pub use command::Cli;
use command::{Barman, Command, Conf, Fetch, Members, Node, Output, Run, Wal};
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Exit statuses; the contract's.
pub(crate) mod status {
    /// It was done.
    pub(crate) const DONE: u8 = 0;
    /// It failed.
    pub(crate) const FAILED: u8 = 1;
    /// It was asked for in words that mean nothing.
    pub(crate) const USAGE: u8 = 2;
    /// It is not done, for a reason that is said.
    pub(crate) const REFUSED: u8 = 3;
    /// The node does not answer.
    pub(crate) const CANNOT_REACH: u8 = 4;
    pub(crate) use crate::settings::BAD_SETTINGS;
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let Cli { at, command } = Cli::parse();
    // One says where, and for a switchover another may say when.
    let (times, places): (Vec<_>, Vec<_>) = at
        .into_iter()
        .partition(|at| matches!(command, Command::Switchover { .. }) && when::is_meant(at));
    if times.len() > 1 || places.len() > 1 {
        usage("--at is there more than once");
    }
    let (time, at) = (times.into_iter().next(), places.into_iter().next());
    if at.is_some() && !command.asks_a_node() {
        usage("--at is for commands that ask a running node");
    }
    let asks = |then: &dyn Fn(&Entrance) -> Result<u8, u8>| {
        with_settings(|settings| {
            let entrance = Entrance::new(settings, at.as_deref());
            entrance.and_then(|entrance| then(&entrance)).unwrap_or_else(|status| status)
        })
    };
    let status = match command {
        Command::Run(Run { signal_group, hold_at, command }) => {
            run::run(command, signal_group, hold_at)
        }
        Command::Node(Node { hold_at, flags }) => node::run(flags, hold_at),
        Command::Check => check(),
        Command::Settings(Output { json }) => show_settings(json),
        Command::Plan(Output { json }) => plan(json),
        Command::Status { output: Output { json }, watch: false } => {
            asks(&|node| show::status(node, json))
        }
        Command::Status { output: Output { json }, watch: true } => {
            asks(&|node| watch::watch(node, json))
        }
        Command::Psql { args } => with_settings(|settings| {
            let entrance = Entrance::new(settings, at.as_deref());
            let psql = entrance.and_then(|node| psql::psql(&node, settings, &args));
            psql.unwrap_or_else(|status| status)
        }),
        Command::Completions { shell } => completions(shell),
        Command::Openapi => openapi::print(),
        Command::Switchover { cancel: true, .. } => asks(&change::cancel_switchover),
        Command::Switchover { to, dry_run, cancel: false } => {
            let at = time.map(|time| when::seconds(&time, &jiff::Zoned::now())).transpose();
            match at {
                Ok(at) => asks(&|node| change::switchover(node, to.as_deref(), at, dry_run)),
                Err(why) => usage(&why),
            }
        }
        Command::Failover { to, allow_data_loss } => {
            asks(&|node| change::failover(node, to.as_deref(), allow_data_loss))
        }
        Command::Pause => asks(&|node| change::pause(node, true)),
        Command::Resume => asks(&|node| change::pause(node, false)),
        Command::Maintenance { on, node: name, force } => {
            asks(&|node| change::maintenance(node, on, name.as_deref(), force))
        }
        Command::Restart { node: name } => asks(&|node| change::restart(node, name.as_deref())),
        Command::Reload { node: name } => asks(&|node| change::reload(node, name.as_deref())),
        Command::Reinit { node: name } => asks(&|node| change::reinit(node, &name)),
        Command::Backup { wait, name } => asks(&|node| backups::take(node, wait, name.as_deref())),
        Command::Backups { verify: Some(id), .. } => asks(&|node| backups::verify(node, &id)),
        Command::Backups { output: Output { json }, verify: None } => {
            asks(&|node| backups::show(node, json))
        }
        Command::Restore(wanted) => asks(&|node| restore::restore(node, &wanted)),
        Command::Members(Members::List(Output { json })) => asks(&|node| show::members(node, json)),
        Command::Members(Members::Add { node: name }) => asks(&|node| members::add(node, &name)),
        Command::Members(Members::Remove { node: name }) => {
            asks(&|node| members::remove(node, &name))
        }
        Command::Events { json, follow, limit } => {
            asks(&|node| events::show(node, json, follow, limit))
        }
        Command::Health { ready } => asks(&|node| Ok(show::health(node, ready))),
        Command::Barman(job) => barman(job),
        Command::Wal(Wal::Fetch(wanted)) => fetch_wal(&wanted),
    };
    ExitCode::from(status)
}

/// Says why, and ends.
fn usage(why: &str) -> ! {
    Cli::command().error(clap::error::ErrorKind::ArgumentConflict, why).exit()
}

/// The names of the commands that people use.
pub fn commands() -> Vec<String> {
    let cli = Cli::command();
    let shown = cli.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| command.get_name().to_owned()).collect()
}

fn completions(shell: Shell) -> u8 {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pgherd", &mut text);
    answer(String::from_utf8_lossy(&text).into_owned())
}

/// The settings, as the process environment has them.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub(crate) fn read_settings() -> Result<Settings, Problems> {
    let lossy = |text: OsString| text.to_string_lossy().into_owned();
    let vars = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
    settings::read(vars, |path| std::fs::read_to_string(path))
}

fn with_settings(then: impl FnOnce(&Settings) -> u8) -> u8 {
    match read_settings() {
        Ok(settings) => then(&settings),
        Err(problems) => bad_settings(&problems),
    }
}

fn bad_settings(problems: &Problems) -> u8 {
    problems.warnings.iter().for_each(say);
    problems.problems.iter().for_each(say);
    status::BAD_SETTINGS
}

fn check() -> u8 {
    with_settings(|settings| {
        settings.warnings.iter().for_each(say);
        match log::filter(settings) {
            Ok(_) => status::DONE,
            Err(problem) => {
                say(problem);
                status::BAD_SETTINGS
            }
        }
    })
}

fn show_settings(json: bool) -> u8 {
    with_settings(|settings| {
        let listing = settings.listing();
        answer(if json { pretty(listing) } else { listing.to_string() })
    })
}

fn plan(json: bool) -> u8 {
    with_settings(|settings| {
        let ports = if show::answers(settings) { Ports::Ours } else { Ports::Try };
        let bearings = match observe::bearings(settings) {
            Ok(bearings) => bearings,
            Err(error) => return failed(&error),
        };
        let mut restores = None;
        let recognised = observe::refuse_unwritable(settings, &bearings).and_then(|()| {
            // Not ours to be mistaken for a start.
            let lead = match settings.herd.failover {
                Failover::Quorum => Lead::Unknown { why: "a plan does not ask for it".to_owned() },
                Failover::Manual | Failover::Eager => Lead::NotKept,
            };
            let asking = Asking::Everybody { instance: "plan", leads_alone: false, lead: &lead };
            let situation = block_on(observe::situation(settings, &bearings, ports, asking));
            restores = scenario::would_restore(settings, &situation);
            scenario::recognise(settings, &situation)
        });
        match recognised {
            Ok(Decision::Wait(wait)) => {
                say(format!("would wait: {wait}"));
                match restores {
                    Some(Ok(restore)) => {
                        let end = restore.up_to();
                        say(format!(
                            "and then, unless another node leads: restore {restore}, up to {end}"
                        ));
                    }
                    Some(Err(why)) => say(format!("and could restore nothing: {why}")),
                    None => {}
                }
                status::REFUSED
            }
            Ok(Decision::Begin(scenario)) => {
                let Bearings { layout, means, .. } = &bearings;
                let plan = scenario::plan(settings, layout, *means, scenario);
                answer(if json { pretty(&plan) } else { plan.to_string() })
            }
            Err(refusal) => refused(&refusal),
        }
    })
}

fn barman(job: Barman) -> u8 {
    log::begin_plainly();
    let done = block_on(async {
        match job {
            Barman::Cron(Conf { conf }) => crate::barman::cron(&conf).await,
            Barman::Backup { name, conf } => {
                crate::barman::backup(&conf.conf, name.as_deref()).await
            }
        }
    });
    done.map_or_else(|error| failed(&error), |()| status::DONE)
}

/// Postgres takes 1 to 125 for "there is none": a standby then asks its primary and comes back,
/// and a recovery without one ends there. More than that ends the server (the manual on
/// `restore_command`), which is right where an end too early would be worse.
fn fetch_wal(Fetch { partial, following, restoring, sure, name, path, .. }: &Fetch) -> u8 {
    const ENDS_THE_RECOVERY: u8 = 255;
    let pg_wal = path.parent().filter(|_| *following);
    if pg_wal.is_some_and(|pg_wal| crate::barman::is_left_behind(pg_wal, name)) {
        return status::FAILED;
    }
    let sources = if *restoring { layout::restore_source() } else { layout::archive_sources() };
    match block_on(crate::barman::fetch_wal(&sources, name, path, *partial)) {
        Ok(true) => status::DONE,
        Ok(false) => status::FAILED, // Without a word: Postgres asks for many that never were.
        Err(error) => {
            say(format!("cannot fetch {name}: {}", crate::system::error::chain(&error)));
            if *sure { ENDS_THE_RECOVERY } else { status::FAILED }
        }
    }
}

fn refused(refusal: &Refusal) -> u8 {
    say(refusal);
    status::REFUSED
}

fn failed(error: &dyn std::error::Error) -> u8 {
    say(crate::system::error::chain(error));
    status::FAILED
}

/// One line for a person, on standard error.
#[expect(clippy::print_stderr, reason = "this is the place")]
pub(crate) fn say(line: impl Display) {
    eprintln!("pgherd: {line}");
}

/// The answer, on standard output. A reader that went away (`| head`) is no failure.
fn answer(text: String) -> u8 {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = stdout.write_all(b"\n");
    }
    status::DONE
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("what we print has text keys only")
}

/// One thread is enough: nothing here computes.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("the kernel gives an epoll and a pipe")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = runtime();
    let done = runtime.block_on(future);
    // A resolver that still looks for a node that is gone is not waited for.
    runtime.shutdown_background();
    done
}
