//! TLS between nodes, and for whoever asks one, from three files of the operator's: what this node shows,
//! the key to that, and, if it is given, who signs the certificates that are believed.
//!
//! Without an authority the other side's certificate is not looked at: what nodes tell each other is proved by
//! the control token anyway (`settings::proof`), and TLS keeps it from those who listen. Whoever can put
//! himself between two nodes is kept away by an authority only, and so the README says.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};
use tracing::{info, warn};

/// The certificate, the key, and the authority's certificates: `PGHERD_TLS_*_FILE`.
pub type Files<'a> = (&'a Path, &'a Path, Option<&'a Path>);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has something else in it.
    #[error("cannot use {}, which {variable} names: {cause}", .path.display())]
    File {
        /// Which.
        variable: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The key is another certificate's, for instance.
    #[error("cannot use {} and {} together: {cause}", .certificate.display(), .key.display())]
    Pair {
        /// `PGHERD_TLS_CERT_FILE`.
        certificate: PathBuf,
        /// `PGHERD_TLS_KEY_FILE`.
        key: PathBuf,
        /// What rustls says.
        cause: Error,
    },
}

/// The certificates in a PEM file, at least one; or what is wrong with it.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err("there is no certificate in it".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}

/// The private key in a PEM file; or what is wrong with it.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let none = matches!(error, rustls::pki_types::pem::Error::NoItemsFound);
        if none { "there is no private key in it".to_owned() } else { error.to_string() }
    })
}

/// The same cryptography for all of the program.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn shown((certificate, key, _): Files<'_>) -> Result<Shown, TlsError> {
    let file = |variable, path: &Path| {
        let path = path.to_owned();
        move |cause| TlsError::File { variable, path, cause }
    };
    let chain = certificates(certificate).map_err(file("PGHERD_TLS_CERT_FILE", certificate))?;
    Ok((chain, private_key(key).map_err(file("PGHERD_TLS_KEY_FILE", key))?))
}

fn believed(authority: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let file = |cause| TlsError::File {
        variable: "PGHERD_TLS_CA_FILE",
        path: authority.to_owned(),
        cause,
    };
    let mut roots = RootCertStore::empty();
    for root in certificates(authority).map_err(file)? {
        roots.add(root).map_err(|error| file(error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

fn pair((certificate, key, _): Files<'_>) -> impl FnOnce(Error) -> TlsError {
    let (certificate, key) = (certificate.to_owned(), key.to_owned());
    move |cause| TlsError::Pair { certificate, key, cause }
}

/// For who asks `host`, over a connection that there is already. The files are read each time: they may be
/// others since the last.
pub async fn connect(
    files: Files<'_>,
    host: &str,
    stream: TcpStream,
) -> io::Result<client::TlsStream<TcpStream>> {
    let config = client_config(files).map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn client_config(files: Files<'_>) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let by = match files.2 {
        Some(authority) => {
            let roots = believed(authority)?;
            let by = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
            Some(by.build().map_err(|error| TlsError::File {
                variable: "PGHERD_TLS_CA_FILE",
                path: authority.to_owned(),
                cause: error.to_string(),
            })?)
        }
        None => None,
    };
    let verifier = Verifier { by, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair(files))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    if files.2.is_none() {
        return Ok(builder.with_no_client_auth());
    }
    let (chain, key) = shown(files)?;
    builder.with_client_auth_cert(chain, key).map_err(pair(files))
}

/// Believes what the authority has signed; anybody, where there is none.
#[derive(Debug)]
struct Verifier {
    by: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(by) = &self.by else { return Ok(ServerCertVerified::assertion()) };
        match by.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // A node is asked at 127.0.0.1 from within its own container; no certificate is for that.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if is_loopback(name) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn is_loopback(name: &ServerName<'_>) -> bool {
    match name {
        ServerName::IpAddress(address) => IpAddr::from(*address).is_loopback(),
        ServerName::DnsName(_) | _ => false,
    }
}

/// For who is asked.
pub struct Acceptor {
    certificate: PathBuf,
    key: PathBuf,
    authority: Option<PathBuf>,
    stamps: Vec<Option<(SystemTime, u64)>>,
    config: Arc<ServerConfig>,
}

impl Acceptor {
    /// Of files that can be used.
    pub fn new(files: Files<'_>) -> Result<Self, TlsError> {
        let (certificate, key, authority) = files;
        let config = Arc::new(server_config(files)?);
        let mut acceptor = Acceptor {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            authority: authority.map(Path::to_owned),
            stamps: Vec::new(),
            config,
        };
        acceptor.stamps = acceptor.look();
        Ok(acceptor)
    }

    /// With the files as they are now. Where these have changed and cannot be used, with those of before:
    /// they may be half written.
    pub fn current(&mut self) -> TlsAcceptor {
        let stamps = self.look();
        if stamps != self.stamps {
            self.stamps = stamps;
            match server_config(self.files()) {
                Ok(config) => {
                    self.config = Arc::new(config);
                    info!("the files for TLS have changed: they are read again");
                }
                Err(error) => {
                    warn!("the files for TLS have changed, those of before stay: {error}")
                }
            }
        }
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    fn files(&self) -> Files<'_> {
        (&self.certificate, &self.key, self.authority.as_deref())
    }

    /// When each was written, and how long it is.
    fn look(&self) -> Vec<Option<(SystemTime, u64)>> {
        let stamp = |path: &Path| {
            let about = fs::metadata(path).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        let all = [Some(&self.certificate), Some(&self.key), self.authority.as_ref()];
        all.into_iter().flatten().map(|path| stamp(path)).collect()
    }
}

fn server_config(files: Files<'_>) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(pair(files))?;
    let builder = match files.2 {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = believed(authority)?;
            // Who shows none may look; what needs the control token needs a certificate, too.
            let clients = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError::File {
                    variable: "PGHERD_TLS_CA_FILE",
                    path: authority.to_owned(),
                    cause: error.to_string(),
                })?;
            builder.with_client_cert_verifier(clients)
        }
    };
    let (chain, key) = shown(files)?;
    builder.with_single_cert(chain, key).map_err(pair(files))
}

#[cfg(test)]
mod tests;
