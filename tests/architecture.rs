//! How the source is built, checked. Each failure says what to do instead; the reasons are in
//! `src/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FACTS: &[&str] = &["cluster", "settings", "service", "layout", "lead", "scenario"];
const TOOLS: &[&str] = &["postgres", "repmgr", "barman", "cron", "etcd"];
const HANDS: &[&str] =
    &["supervisor", "keeper", "members", "hooks", "execute", "observe", "voter", "journal"];

/// A module of the crate, or one file of it where that differs, and what it may use.
/// The lowest layer stands first.
#[rustfmt::skip] // A table.
const LAYERS: &[(&str, &[&[&str]])] = &[
    // Facts and choices.
    ("cluster",        &[]),
    ("settings",       &[&["cluster"]]),
    ("service",        &[]),
    ("layout",         &[&["settings", "service"]]),
    ("lead",           &[&["cluster"]]),
    ("scenario",       &[&["cluster", "settings", "service", "layout"]]),
    // Tools: what a plan wants is not their business, nor is another tool.
    ("system",         &[]),
    ("postgres",       &[&["cluster", "settings", "service", "layout", "system"]]),
    ("repmgr",         &[&["cluster", "settings", "service", "layout", "system"]]),
    ("barman",         &[&["cluster", "settings", "service", "layout", "system"]]),
    ("cron",           &[&["cluster", "settings", "service", "layout", "system"]]),
    ("etcd",           &[&["cluster", "settings", "service", "layout", "system"]]),
    // Hands.
    ("supervisor",     &[&["service", "system"]]),
    ("journal",        &[&["cluster", "system"]]),
    ("members",        &[FACTS, TOOLS, &["system"]]),
    ("keeper",         &[FACTS, &["etcd", "system"]]),
    ("hooks",          &[FACTS, &["system"]]),
    ("execute",        &[FACTS, TOOLS, &["system", "supervisor", "members", "journal", "keeper", "hooks"]]),
    ("observe",        &[FACTS, TOOLS, &["system", "execute", "members"]]),
    ("voter",          &[FACTS, TOOLS, &["system", "members", "execute", "keeper"]]),
    // The running node.
    ("control",        &[FACTS, TOOLS, HANDS, &["system"]]),
    // The init half has to stand when all the rest falls.
    ("pid1",           &[&["system"]]),
    // Faces. Two commands do more than show: `node` puts the node together, and `barman` is
    // what cron's jobs call.
    ("http",           &[&["cluster", "settings", "scenario", "control", "journal"]]),
    ("http/archive.rs", &[&["cluster", "settings", "layout", "system", "barman"]]),
    ("http/backup.rs", &[&["cluster", "settings", "layout", "system", "barman"]]),
    ("http/door.rs",   &[&["system"]]),
    ("http/relay.rs",  &[&["settings", "system"]]),
    ("http/token.rs",  &[&["settings", "system"]]),
    ("http/wishes.rs", &[&["cluster", "settings", "keeper", "control"]]),
    ("cli",            &[&["cluster", "settings", "layout", "scenario", "system", "control", "observe", "barman", "journal"]]),
    ("cli/log.rs",     &[&["settings", "system"]]),
    ("cli/openapi.rs", &[&["http"]]),
    ("cli/run.rs",     &[&["settings", "system", "pid1"]]),
    ("cli/node.rs",    &[FACTS, HANDS, &["system", "postgres", "barman", "etcd", "control", "http"]]),
];

/// These touch no file, process, socket or clock: whoever calls them brings what they need.
const PURE: &[&str] = &[
    "cluster",
    "settings",
    "service",
    "layout",
    "lead",
    "scenario",
    "control/decide",
    "control/observation",
];
const EFFECTS: &[&str] = &[
    "std::fs",
    "std::process",
    "std::net::Tcp",
    "std::net::Udp",
    "std::env",
    "std::thread",
    "std::io::std",
    "tokio",
    "nix::",
    "signal_hook",
    "tracing::",
    "::now()",
    ".exists()",
    ".is_dir()",
    ".is_file()",
];

/// A file is one idea, and one idea fits into this many lines.
const LINES_MAX: usize = 500;

#[test]
fn modules_use_only_what_stands_below_them() {
    for source in sources("src") {
        let Some(layer) = source.layer() else { continue };
        let allowed = allowed_in(layer);
        for (number, line) in source.code() {
            for used in used_modules(line) {
                assert!(
                    used == source.module() || allowed.contains(&used),
                    "{}:{number}: `{layer}` must not use `{used}`. Hand over what is needed as an argument \
                     or a return value, move the shared fact down, or, if the layers are wrong, change \
                     LAYERS in {} and the map in src/README.md",
                    source.name,
                    file!()
                );
            }
        }
    }
}

#[test]
fn every_module_has_its_layer() {
    let declared = fs::read_to_string("src/lib.rs").expect("tests run in the repository root");
    let declared = declared.lines().filter_map(|line| line.strip_prefix("pub mod "));
    let declared: Vec<&str> = declared.map(|name| name.trim_end_matches(';')).collect();
    for module in &declared {
        assert!(
            LAYERS.iter().any(|(name, _)| name == module),
            "module `{module}` of src/lib.rs has no layer: give it a row in LAYERS of {}",
            file!()
        );
    }
    for (name, _) in LAYERS {
        let module = name.split('/').next().unwrap_or_default();
        let there = declared.contains(&module)
            && (!name.ends_with(".rs") || Path::new("src").join(name).exists());
        assert!(there, "`{name}` is gone from src: take its row out of LAYERS of {}", file!());
    }
}

#[test]
fn facts_and_choices_touch_nothing() {
    for source in sources("src") {
        if !PURE.iter().any(|pure| source.path_in_src().starts_with(pure)) {
            continue;
        }
        for (number, line) in source.code() {
            for effect in EFFECTS {
                assert!(
                    !line.contains(effect),
                    "{}:{number}: `{effect}` in a module that only decides. Let the caller look \
                     (observe) or act (execute), and take or return a value here: {line}",
                    source.name
                );
            }
        }
    }
}

/// `system` does not know `settings`, so it has a list of its own.
#[test]
fn what_children_do_not_inherit_is_what_settings_hide() {
    use pgherd::{settings::secret_variables, system::child::SECRET_VARIABLES};
    assert_eq!(
        SECRET_VARIABLES,
        secret_variables(),
        "give src/system/child.rs and src/settings/secret.rs the same list"
    );
}

/// What clippy's `disallowed-methods` cannot see.
#[test]
fn nothing_but_wait_sleeps_and_nothing_goes_through_a_shell() {
    for (what, place, instead) in [
        ("sleep", "system/wait.rs", "wait for a condition with system::wait::until"),
        ("\"sh\"", "-", "pass an argument vector; no shell sees a value of the operator's"),
    ] {
        for source in sources("src").iter().filter(|one| one.path_in_src() != place) {
            for (number, line) in source.code() {
                assert!(!line.contains(what), "{}:{number}: {instead}: {line}", source.name);
            }
        }
    }
}

#[test]
fn a_file_is_one_idea() {
    for source in rust_files() {
        let lines = source.text.lines().count();
        assert!(
            lines < LINES_MAX,
            "{} has {lines} lines: split it by idea (its tests may move to a `tests.rs` beside it)",
            source.name
        );
    }
}

#[test]
fn nothing_is_left_to_do_in_comments() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")]; // Or this line would be found.
    for source in rust_files() {
        for (number, line) in (1..).zip(source.text.lines()) {
            let mark = marks.iter().find(|mark| line.contains(**mark));
            assert!(mark.is_none(), "{}:{number}: do it, or open an issue: {line}", source.name);
        }
    }
}

struct Source {
    /// As one would open it.
    name: String,
    text: String,
}

impl Source {
    fn path_in_src(&self) -> &str {
        self.name.strip_prefix("src/").unwrap_or(&self.name)
    }

    fn module(&self) -> &str {
        let first = self.path_in_src().split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// The row of [`LAYERS`] that holds for this file: its own, else its module's.
    fn layer(&self) -> Option<&'static str> {
        let row = |wanted: &str| LAYERS.iter().map(|(name, _)| *name).find(|name| *name == wanted);
        row(self.path_in_src()).or_else(|| row(self.module()))
    }

    /// Lines with their numbers, without comments and without the tests at the end of a file.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.name.ends_with("tests.rs") || self.name.contains("/tests/");
        let lines = (1..).zip(self.text.lines());
        let lines =
            lines.take_while(move |(_, line)| !is_test && !line.starts_with("#[cfg(test)]"));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn allowed_in(layer: &str) -> Vec<&'static str> {
    let rows: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    rows[layer].concat()
}

/// The modules after each `crate::`.
fn used_modules(line: &str) -> Vec<&str> {
    line.split("crate::")
        .skip(1)
        .map(|rest| {
            assert!(!rest.starts_with('{'), "write one `use crate::…` a module: {line}");
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            &rest[..end]
        })
        .collect()
}

fn rust_files() -> Vec<Source> {
    ["src", "tests", "benches"].into_iter().flat_map(sources).collect()
}

fn sources(directory: &str) -> Vec<Source> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(Path::new(directory), &mut paths);
    assert!(directory != "src" || paths.len() > 20, "run from the repository root");
    paths.sort();
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).expect("readable"),
        name: path.to_string_lossy().into_owned(),
    };
    paths.into_iter().map(read).collect()
}
