//! Why etcd did not do what it was asked.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::time::Duration;
use tokio_rustls::rustls;

/// Each is one line, with the endpoint and the cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// No endpoint had a majority's answer in time. What was asked may have been done, or may be yet.
    #[error("no answer of a majority from etcd within {} ms ({})", .within.as_millis(), joined(.tried))]
    NoQuorum {
        /// The limit.
        within: Duration,
        /// The endpoints that were asked.
        tried: Vec<Failed>,
    },
    /// It does not know us, or we do not know it: name, password, or certificate. Nothing was done.
    #[error("etcd does not let us in: {0}")]
    Credentials(Failed),
    /// It understood, and does not do it. Nothing was done.
    #[error("etcd refuses: {0}")]
    Refused(Failed),
}

/// What one endpoint answered, or did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Which.
    pub endpoint: String,
    /// Its words, or the network's.
    pub cause: String,
    pub(super) kind: Kind,
}

/// Whether another endpoint might do better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It might: this one is not there, or has no majority.
    Unavailable,
    /// It might: this one's certificate, or what it says of ours.
    Certificate,
    /// Not before we are known by another token.
    Token,
    /// All of them know the same users.
    Credentials,
    /// All of them would say the same.
    Refused,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.cause)
    }
}

fn joined(tried: &[Failed]) -> String {
    let all: Vec<String> = tried.iter().map(ToString::to_string).collect();
    if all.is_empty() { "nobody to ask".to_owned() } else { all.join("; ") }
}

impl EtcdError {
    /// A majority could not be had; the same may succeed later.
    pub fn is_no_quorum(&self) -> bool {
        matches!(self, EtcdError::NoQuorum { .. })
    }

    /// What it comes to that these were asked within this time.
    pub(super) fn of(within: Duration, mut tried: Vec<Failed>) -> Self {
        // One that was asked twice has its first word: the second may be silence.
        let mut seen = BTreeSet::new();
        tried.retain(|one| seen.insert(one.endpoint.clone()));
        let is_certificate = |one: &Failed| one.kind == Kind::Certificate;
        if !tried.is_empty() && tried.iter().all(is_certificate) {
            return EtcdError::Credentials(tried.remove(0));
        }
        EtcdError::NoQuorum { within, tried }
    }
}

/// Whether TLS is what failed, as far as it says so: a server that closes in a hurry does not.
pub(super) fn is_about_tls(error: &(dyn Error + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    // An io::Error's source is that of what it holds, not what it holds.
    let held = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
    held.is_some_and(|held| held.is::<rustls::Error>()) || error.source().is_some_and(is_about_tls)
}
