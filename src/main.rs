//! The container's entrypoint and the operator's command.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgherd::cli::main()
}
