//! The container's entrypoint and the operator's command.

use pgherd::pid1::{self, InitOptions, MainChild};
use pgherd::system::output::Format;
use std::process::ExitCode;
use std::time::Duration;

/// For trials of the init half only: `pgherd run [-g] -- COMMAND…`.
fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    let Some(end) = args.iter().position(|arg| arg == "--") else {
        return ExitCode::from(2);
    };
    let command = args.split_off(end + 1);
    let group = args.iter().any(|arg| arg == "-g");
    let stop_timeout = Duration::from_secs(60);
    let options = InitOptions { group, stop_timeout, format: Format::Text };
    ExitCode::from(pid1::run(&MainChild::Command(command), options))
}
