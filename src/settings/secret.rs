//! Text that must not be printed.

use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// What stands where a secret would.
pub(super) const HIDDEN: &str = "***";

/// A password or a token. `Debug` and `Serialize` show `***`, and there is no `Display`, so that it
/// reaches a file or a connection through [`Secret::expose`] only, which is easy to search for.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Secret(String);

impl Secret {
    /// The text itself: for a password file or a connection, nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // libpq cuts a line of a password file at `\n`, and drops a `\r` before it.
        if text.contains(['\0', '\n', '\r']) {
            return Err(
                "any text without line breaks and NUL, because Postgres, repmgr and barman \
                        read passwords from files with one line each",
            );
        }
        // The environment is read lossily: this is what stands for bytes that are no text.
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Err("text in UTF-8, because that is what the database compares");
        }
        Ok(Secret(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// A password that was written into this program, for the defaults.
impl From<&'static str> for Secret {
    fn from(text: &'static str) -> Self {
        Secret(text.to_owned())
    }
}

/// The variables that hold secrets. No child inherits them: `system::child` has the same list, which
/// a test holds to this one.
pub fn secret_variables() -> &'static [&'static str] {
    &[
        "POSTGRES_PASSWORD",
        "REPMGR_PASSWORD",
        "REPMGR_STREAMING_PASSWORD",
        "BARMAN_PASSWORD",
        "BARMAN_STREAMING_PASSWORD",
        "PGHERD_ETCD_PASSWORD",
        "PGHERD_CONTROL_TOKEN",
        "BARMAN_CLOUD_SECRET_KEY",
        "RESTORE_TOKEN",
    ]
}

pub(super) fn is_secret(variable: &str) -> bool {
    secret_variables().contains(&variable)
}

/// Whether an open variable has a secret in it: `ldapbindpasswd=…`, `http://user:password@host`.
pub(super) fn holds_secret(value: &str) -> bool {
    let value = value.to_lowercase();
    ["passwd=", "password=", "secret=", "secrets="].iter().any(|key| value.contains(key))
        || (value.contains("://") && value.contains('@'))
}
