//! What is wrong with the environment, in words for the operator.

use super::input::defaults;
use super::secret::{holds_secret, is_secret};
use super::source::{Given, Origin};
use std::fmt;

/// A variable that cannot be used. `Display` is one line: the variable, what it holds (never a
/// secret), what it may hold, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable's name; that of its `_FILE` form where the file is what is wrong.
    pub variable: String,
    /// The rest of the line.
    pub message: String,
}

/// Every variable that cannot be used, in the order of the contract's tables, then the ports that
/// are the same and the directories in the way; at least one.
/// `Display` is one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// What stops the start.
    pub problems: Vec<Problem>,
    /// What would have been [`super::Settings::warnings`]; a misspelt name may explain a problem.
    pub warnings: Vec<String>,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.variable, self.message)
    }
}

impl Problem {
    pub(super) fn new(variable: &str, message: impl Into<String>) -> Self {
        Problem { variable: variable.to_owned(), message: message.into() }
    }

    /// Whether it is about `variable`, or the file that should hold its value.
    pub(super) fn is_about(&self, variable: &str) -> bool {
        self.variable == variable || self.variable.strip_suffix("_FILE") == Some(variable)
    }

    /// `given` is not what its variable may hold, which is `expected`.
    pub(super) fn refused(given: &Given, expected: &str) -> Self {
        let Given { variable, value, origin } = given;
        let place = match origin {
            Origin::File(path) => format!("(from {}) ", quoted(&path.to_string_lossy())),
            Origin::Environment | Origin::Default => String::new(),
        };
        let shown = match is_secret(variable) || holds_secret(value) {
            true => "a value that is not shown".to_owned(),
            false => quoted(value),
        };
        let remedy = remedy(given);
        let message = format!("{place}holds {shown}; it may hold {expected}. {remedy}");
        Problem::new(variable, message)
    }
}

fn remedy(Given { variable, value, .. }: &Given) -> String {
    if value.starts_with("tcp://") {
        return format!(
            "Docker links and Kubernetes set it so for a service of that name: set {variable} \
             yourself, or rename the service (in a pod, enableServiceLinks: false does too)."
        );
    }
    // A published password is no remedy.
    if is_secret(variable) {
        return "Correct it.".to_owned();
    }
    match defaults().find(|(name, _)| name == variable) {
        Some((_, default)) if !default.is_empty() => {
            format!("Correct it, or remove it for the default, {default}.")
        }
        Some(_) | None => "Correct it or remove it.".to_owned(),
    }
}

/// `value` in quotes, on one line, and not too long to be read.
pub(super) fn quoted(value: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    match value.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}…", &value[..end]),
        None => format!("{value:?}"),
    }
}
