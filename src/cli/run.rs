//! `pgherd run`: what the container's command means, and the init half for it.

use super::{bad_settings, log, read_settings};
use crate::pid1::{self, InitOptions, MainChild};
use crate::settings::{LogFormat, Settings};
use crate::system::output::Format;
use std::ffi::OsString;
use std::time::Duration;

/// Flags of postgres that print something and end: no node is needed for them.
const ANSWERING_FLAGS: [&str; 5] = ["-?", "--help", "--describe-config", "-V", "--version"];

/// Becomes the init half. Returns the container's exit status.
pub(super) fn run(command: Vec<OsString>, group: bool, hold_at: Option<usize>) -> u8 {
    match meaning(command) {
        Meaning::Command(argv) => {
            // Not ours: its environment need not hold settings of ours that are right.
            let options =
                InitOptions { group, stop_timeout: Duration::from_secs(60), format: Format::Text };
            pid1::run(&MainChild::Command(argv), options)
        }
        Meaning::Node(flags) => {
            let settings = match read_settings() {
                Ok(settings) => settings,
                Err(problems) => return bad_settings(&problems),
            };
            if let Err(problem) = log::filter(&settings) {
                super::say(problem);
                return super::status::BAD_SETTINGS;
            }
            let options = InitOptions {
                group,
                stop_timeout: settings.herd.stop_timeout,
                format: format(&settings),
            };
            pid1::run(&MainChild::Node(node_command(hold_at, flags)), options)
        }
    }
}

pub(super) fn format(settings: &Settings) -> Format {
    match settings.herd.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    }
}

fn node_command(hold_at: Option<usize>, flags: Vec<OsString>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = vec!["node-half".into()];
    if let Some(step) = hold_at {
        argv.extend(["--hold-at".into(), step.to_string().into()]);
    }
    argv.push("--".into());
    argv.extend(flags);
    argv
}

/// What a container's command asks for.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// A node, whose server gets these flags.
    Node(Vec<OsString>),
    /// This command.
    Command(Vec<OsString>),
}

/// The official image's rules: `postgres` or flags alone mean the server.
fn meaning(mut command: Vec<OsString>) -> Meaning {
    let is_flag = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
    if command.first().is_none_or(is_flag) {
        command.insert(0, "postgres".into());
    }
    let answers = |word: &OsString| ANSWERING_FLAGS.iter().any(|flag| word == *flag);
    if command[0] == "postgres" && !command.iter().any(answers) {
        Meaning::Node(command.split_off(1))
    } else {
        Meaning::Command(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_command_means_what_it_means_to_the_official_image() {
        let words = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        for (command, expected) in [
            ("", Meaning::Node(words(""))),
            ("postgres", Meaning::Node(words(""))),
            ("postgres -c work_mem=64MB", Meaning::Node(words("-c work_mem=64MB"))),
            ("-c work_mem=64MB", Meaning::Node(words("-c work_mem=64MB"))),
            ("postgres --version", Meaning::Command(words("postgres --version"))),
            ("--help", Meaning::Command(words("postgres --help"))),
            ("bash -c true", Meaning::Command(words("bash -c true"))),
        ] {
            assert_eq!(meaning(words(command)), expected, "{command}");
        }
    }
}
