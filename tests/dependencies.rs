//! What the program is built from: a reason for each dependency, and no licence that would bind
//! its users. `deny.toml` says the same to `cargo deny`, which knows advisories too.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// Permissive licences, and none that asks more of a user than to keep a notice.
/// The same as in `deny.toml`.
const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_says_what_it_is_here_for() {
    let manifest = fs::read_to_string("Cargo.toml").expect("tests run in the repository root");
    let mut in_dependencies = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && line.contains('=') && !line.starts_with('#') {
            let reason = line.rsplit_once('#').map(|(_, reason)| reason.trim());
            assert!(
                reason.is_some_and(|reason| !reason.is_empty()),
                "Cargo.toml: say on the same line, after a #, what this is here for: {line}"
            );
        }
    }
}

#[test]
fn every_licence_is_a_permissive_one() {
    let Some(packages) = packages() else { return };
    for package in &packages {
        let (name, version) = (&package["name"], &package["version"]);
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(
            is_allowed(licence),
            "{name} {version} has the licence {licence:?}: find another crate, or, if it binds nobody, \
             add it to ALLOWED in {} and to deny.toml",
            file!()
        );
    }
}

#[test]
fn a_licence_expression_is_read_as_spdx_means_it() {
    for (expression, expected) in [
        ("MIT", true),
        ("MIT/GPL-3.0", true), // The old way to write OR.
        ("MIT OR GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("(GPL-2.0 OR GPL-3.0) AND MIT", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), expected, "{expression}");
    }
}

#[test]
fn deny_toml_allows_the_same_licences() {
    let text = fs::read_to_string("deny.toml").expect("tests run in the repository root");
    let list = text.split_once("allow = [").and_then(|(_, rest)| rest.split_once(']'));
    let (list, _) = list.expect("deny.toml has a list of allowed licences");
    let theirs: BTreeSet<&str> = list.split('"').skip(1).step_by(2).collect();
    let ours: BTreeSet<&str> = ALLOWED.iter().copied().collect();
    assert_eq!(theirs, ours, "make deny.toml and ALLOWED in {} the same", file!());
}

/// Whether one way to read the expression asks for allowed licences only. `AND` binds tighter
/// than `OR`; every expression in use has parentheses around an `OR` inside an `AND`.
fn is_allowed(expression: &str) -> bool {
    let outer = |separator: &str| split_outside_parentheses(expression, separator);
    for (separator, all) in [(" OR ", false), ("/", false), (" AND ", true)] {
        let parts = outer(separator);
        if parts.len() > 1 {
            let mut allowed = parts.into_iter().map(|part| is_allowed(part.trim()));
            return if all { allowed.all(|one| one) } else { allowed.any(|one| one) };
        }
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_allowed(inner),
        None => ALLOWED.contains(&expression),
    }
}

fn split_outside_parentheses<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    for (at, _) in text.match_indices(separator) {
        let depth = text[..at].matches('(').count() - text[..at].matches(')').count();
        if depth == 0 {
            parts.push(&text[begin..at]);
            begin = at + separator.len();
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// What `Cargo.lock` has, as cargo describes it. `None` where cargo or a crate is missing.
fn packages() -> Option<Vec<Value>> {
    #[expect(clippy::disallowed_methods, reason = "a test asks cargo")]
    let mut cargo = std::process::Command::new("cargo");
    let output =
        cargo.args(["metadata", "--offline", "--locked", "--format-version", "1"]).output();
    let told = match output {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Err(error) => {
            println!("skipped: cargo cannot be run: {error}");
            return None;
        }
    };
    let told: Value = serde_json::from_slice(&told).expect("cargo writes JSON");
    let packages = told["packages"].as_array().expect("a list").clone();
    assert!(packages.len() > 50, "cargo describes all dependencies, not only ours");
    Some(packages)
}
