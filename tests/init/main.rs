//! The init half, tried as what it is: PID 1 of a pid namespace (as root, with
//! unshare(1)), and the subreaper of an ordinary process. To the effect of what
//! tini's and dumb-init's own tests check.
//!
//! `cargo test --test init [-- PART_OF_A_NAME…]`

#![expect(clippy::unwrap_used, reason = "in a test, that is how to say what must be so")]

mod cases;
mod container;
mod fence;
mod leader;
mod node_half;
mod roles;

use std::panic::catch_unwind;
use std::process::ExitCode;

/// No case takes a tenth of it, seconds; SIGALRM then ends the run at the case last named.
const CASE_SECONDS_MAX: u32 = 60;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, args @ ..] = args.as_slice()
        && let Some(role) = role.strip_prefix("--role=")
    {
        return roles::play(role, args);
    }
    let wanted: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let mut failed = Vec::new();
    for (name, case) in cases::ALL.iter().chain(node_half::ALL).chain(fence::ALL) {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(*part)) {
            println!("test {name} ...");
            nix::unistd::alarm::set(CASE_SECONDS_MAX);
            if catch_unwind(case).is_err() {
                failed.push(name);
            }
            nix::unistd::alarm::cancel();
        }
    }
    if failed.is_empty() {
        println!("test result: ok");
        return ExitCode::SUCCESS;
    }
    println!("test result: FAILED: {failed:?}");
    ExitCode::FAILURE
}
