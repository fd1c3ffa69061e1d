//! Where a value comes from: the variable itself, or the file that its `_FILE` form names.

use super::problem::{Problem, quoted};
use super::secret::is_secret;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Where the value of a variable comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// The variable itself.
    Environment,
    /// The file that its `_FILE` form names.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Environment => f.write_str("environment"),
            Origin::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What the operator gave for a variable. Never empty; trimmed, but for a secret.
pub(super) struct Given {
    pub(super) variable: &'static str,
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// What was given for `variable`, if anything: an empty value is none, since compose files write
/// `NAME=` for "not set".
pub(super) fn find(
    variable: &'static str,
    vars: &BTreeMap<String, String>,
    read_file: impl Fn(&Path) -> io::Result<String>,
) -> Result<Option<Given>, Problem> {
    let file_variable = format!("{variable}_FILE");
    let set = |name: &str| vars.get(name).filter(|value| !value.is_empty());

    let (value, origin) = match (set(variable), set(&file_variable)) {
        (None, None) => return Ok(None),
        (Some(value), None) => (value.clone(), Origin::Environment),
        (None, Some(path)) => {
            let content = read_file(Path::new(path))
                .map_err(|error| unreadable(variable, &file_variable, path, &error))?;
            // As `$(< file)` in the official image, and for editors that end lines with `\r\n`.
            let value = content.trim_end_matches(['\n', '\r']).to_owned();
            if value.is_empty() && is_secret(variable) {
                let message = format!(
                    "names {}, which is empty. Write the secret into it, or unset {file_variable}.",
                    quoted(path)
                );
                return Err(Problem::new(&file_variable, message));
            }
            (value, Origin::File(path.into()))
        }
        (Some(_), Some(_)) => {
            let message = format!(
                "cannot be used: both {variable} and {file_variable} are set (but are exclusive). \
                 Unset one of them."
            );
            return Err(Problem::new(variable, message));
        }
    };
    let value = if is_secret(variable) { value } else { value.trim().to_owned() };
    Ok((!value.is_empty()).then_some(Given { variable, value, origin }))
}

fn unreadable(variable: &str, file_variable: &str, path: &str, error: &io::Error) -> Problem {
    // A password that was put here by mistake does not begin with a slash.
    let shown = match is_secret(variable) && !path.starts_with('/') {
        true => "a file (not shown, for it may be the secret itself)".to_owned(),
        false => quoted(path),
    };
    let message = format!(
        "names {shown}, which cannot be read: {error}. Mount it and let root read it, or unset \
         {file_variable}."
    );
    Problem::new(file_variable, message)
}
