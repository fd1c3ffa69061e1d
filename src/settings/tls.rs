//! TLS on the HTTP port.

use super::input::Input;
use super::{HerdSettings, Problem};
use std::path::{Path, PathBuf};

/// Files with PEM in them; whether they can be used is seen when the node starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// What the node shows, with what leads to its authority. `PGHERD_TLS_CERT_FILE`.
    pub cert_file: PathBuf,
    /// `PGHERD_TLS_KEY_FILE`.
    pub key_file: PathBuf,
    /// Who signs the certificates of nodes and of who may change anything. `PGHERD_TLS_CA_FILE`.
    pub ca_file: Option<PathBuf>,
}

/// One of them without the other.
pub(super) fn problem(input: &Input, unread: &[Problem]) -> Option<Problem> {
    let Input { pgherd_tls_cert_file: cert, pgherd_tls_key_file: key, .. } = input;
    let (given, missing) = match (cert, key, &input.pgherd_tls_ca_file) {
        (Some(_), Some(_), _) | (None, None, None) => return None,
        (Some(_), None, _) => ("PGHERD_TLS_CERT_FILE", "PGHERD_TLS_KEY_FILE"),
        (None, Some(_), _) => ("PGHERD_TLS_KEY_FILE", "PGHERD_TLS_CERT_FILE"),
        (None, None, Some(_)) => ("PGHERD_TLS_CA_FILE", "PGHERD_TLS_CERT_FILE"),
    };
    if unread.iter().any(|problem| problem.is_about(missing)) {
        return None;
    }
    let message = format!("is given, and {missing} is not: the port speaks TLS with both.");
    Some(Problem::new(given, message))
}

pub(super) fn meant(input: &mut Input) -> Option<TlsSettings> {
    Some(TlsSettings {
        cert_file: input.pgherd_tls_cert_file.take()?.0,
        key_file: input.pgherd_tls_key_file.take()?.0,
        ca_file: input.pgherd_tls_ca_file.take().map(|path| path.0),
    })
}

impl HerdSettings {
    /// The certificate, the key and the authority.
    pub fn tls_files(&self) -> Option<(&Path, &Path, Option<&Path>)> {
        let TlsSettings { cert_file, key_file, ca_file } = self.tls.as_ref()?;
        Some((cert_file, key_file, ca_file.as_deref()))
    }
}
