//! What the voters and their clients know each other by: certificates of an authority that each
//! node makes for itself, from the control token.
//!
//! The authority's key follows from the token and the cluster's name, so all nodes have the same one,
//! and nobody has to carry files around. Its certificate is made anew on each node and differs in the
//! signature, which nobody checks of a root. Who has the token can make any certificate, as they can
//! ask a node for anything. The validity is wide, because a container's clock may be wrong and a
//! certificate of one's own making is not better for being young.
//!
//! etcd compares the names in a client's certificate with the address that it comes from (and asks
//! the DNS for that): so clients show one without names, and peers, who have one certificate for
//! both directions, are run without that check (`super::member`).

use crate::settings::{EtcdSettings, Secret};
use crate::system::account::Account;
use crate::system::files::{FileError, ensure_directory, ensure_file};
use crate::system::tls;
use hmac::{Hmac, KeyInit, Mac};
use p256::SecretKey;
use p256::pkcs8::EncodePrivateKey;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use sha2::Sha256;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Where Debian keeps the authorities that everybody trusts.
const PUBLIC_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate could not be made.
    #[error("cannot make a certificate for etcd")]
    Make(#[from] rcgen::Error),
    /// What there is cannot be used.
    #[error("cannot use the certificates for etcd")]
    Use(#[from] rustls::Error),
    /// The operator's file.
    #[error("cannot read {variable}, which is {}: {cause}", .path.display())]
    File {
        /// Which variable names it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// One of ours.
    #[error(transparent)]
    Write(#[from] FileError),
}

/// Where a voter's etcd finds what it shows and whom it believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The voter's own.
    pub certificate: PathBuf,
    /// The key to that.
    pub key: PathBuf,
}

impl Files {
    /// Those in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        let file = |name| directory.join(name);
        Files { authority: file("ca.pem"), certificate: file("node.pem"), key: file("node.key") }
    }
}

/// Afterwards the files of a voter are in `directory`, with a certificate for `names` (hosts and IP
/// addresses, and always those of the machine itself). Another one each time; etcd looks at its files
/// for each connection.
pub fn write(
    directory: &Path,
    token: &Secret,
    cluster: &str,
    names: &[&str],
    account: &Account,
) -> Result<Files, TlsError> {
    let mut all: Vec<String> = Vec::new();
    for name in names.iter().copied().chain(["localhost", "127.0.0.1", "::1"]) {
        if !name.is_empty() && !all.iter().any(|one| one == name) {
            all.push(name.to_owned());
        }
    }
    let authority = Authority::of(token, cluster)?;
    let (certificate, key) = authority.leaf(all)?;
    let files = Files::in_directory(directory);
    ensure_directory(directory, 0o700, account)?;
    ensure_file(&files.authority, authority.certificate.pem(), 0o600, account)?;
    ensure_file(&files.key, key.serialize_pem(), 0o600, account)?;
    ensure_file(&files.certificate, certificate.pem(), 0o600, account)?;
    Ok(files)
}

/// For a client of the voters' etcd.
pub fn ours(token: &Secret, cluster: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let authority = Authority::of(token, cluster)?;
    let (certificate, key) = authority.leaf(Vec::new())?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone())?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    configured(roots, Some((vec![certificate.der().clone()], key)))
}

/// For a client of the operator's etcd.
pub fn operator_s(etcd: &EtcdSettings) -> Result<Arc<ClientConfig>, TlsError> {
    let public = PathBuf::from(PUBLIC_AUTHORITIES);
    let authorities = etcd.ca_file.as_ref().unwrap_or(&public);
    let mut roots = RootCertStore::empty();
    for root in certificates("PGHERD_ETCD_CA_FILE", authorities)? {
        match roots.add(root) {
            // Among the public ones may be some that rustls does not know how to use.
            Err(error) if etcd.ca_file.is_some() => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    let shown = match (&etcd.cert_file, &etcd.key_file) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("PGHERD_ETCD_CERT_FILE", certificate)?;
            let key = tls::private_key(key)
                .map_err(|cause| file_error("PGHERD_ETCD_KEY_FILE", key, &cause))?;
            Some((chain, key))
        }
        _ => None,
    };
    configured(roots, shown)
}

fn configured(
    roots: RootCertStore,
    shown: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(Arc::new(match shown {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    }))
}

fn certificates(
    variable: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    tls::certificates(path).map_err(|cause| file_error(variable, path, &cause))
}

fn file_error(variable: &'static str, path: &Path, cause: &str) -> TlsError {
    TlsError::File { variable, path: path.to_owned(), cause: cause.to_owned() }
}

struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The same on each node that has the same token.
    fn of(token: &Secret, cluster: &str) -> Result<Self, TlsError> {
        let key = authority_key(token, cluster);
        let der = key.to_pkcs8_der().map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        let der = PrivatePkcs8KeyDer::from(der.as_bytes());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(&format!("pgherd {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Authority { certificate, issuer: Issuer::new(params, key) })
    }

    /// A certificate with a key of its own, for servers and clients: etcd's gateway and its peers are
    /// both with one certificate.
    fn leaf(&self, names: Vec<String>) -> Result<(rcgen::Certificate, KeyPair), TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let named = CertificateParams::new(names)?.subject_alt_names;
        let mut params = params("pgherd");
        params.subject_alt_names = named;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok((params.signed_by(&key, &self.issuer)?, key))
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2999, 12, 31);
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// HKDF-SHA256 (RFC 5869) of the token; a block that is no key, one in 2^32, gives way to the next.
fn authority_key(token: &Secret, cluster: &str) -> SecretKey {
    let mac = |key: &[u8], parts: &[&[u8]]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length of key will do");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes()
    };
    let extracted = mac(b"pgherd etcd authority 1", &[token.expose().trim().as_bytes()]);
    let mut block: Vec<u8> = Vec::new();
    for count in 1..=u8::MAX {
        block = mac(&extracted, &[&block, cluster.as_bytes(), &[count]]).to_vec();
        if let Ok(key) = SecretKey::from_slice(&block) {
            return key;
        }
    }
    unreachable!("255 blocks that are no key do not happen")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_token_makes_the_same_authority_and_another_another() {
        let key = |token: &'static str, cluster| {
            Authority::of(&token.into(), cluster).unwrap().issuer.key().public_key_pem()
        };
        assert_eq!(key("t", "c"), key(" t\t", "c"));
        assert_ne!(key("t", "c"), key("u", "c"));
        assert_ne!(key("t", "c"), key("t", "d"));
        // Other versions and other nodes must come to the same.
        let known = authority_key(&"t".into(), "c").to_bytes();
        let hex: String = known.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "2498195d4d821c0244b557d7e5ba5a0fa07ff5c892542457eb9f477242d9dabb");
    }

    #[test]
    fn a_client_s_configuration_is_accepted_by_rustls() {
        ours(&"t".into(), "c").unwrap();
    }
}
