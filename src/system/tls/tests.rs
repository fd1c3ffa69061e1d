//! Who believes whom.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// An authority, and a directory for what it signs.
struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        static AUTHORITIES: AtomicU32 = AtomicU32::new(0);
        let number = AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("pgherd-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(directory.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { directory, issuer: Issuer::new(params, key) }
    }

    /// Afterwards a node's files are others than before.
    fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.directory.join("node.pem"), certificate.pem()).unwrap();
        fs::write(self.directory.join("node.key"), key.serialize_pem()).unwrap();
    }

    fn paths(&self) -> [PathBuf; 3] {
        ["node.pem", "node.key", "ca.pem"].map(|name| self.directory.join(name))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A question over TLS, asked for `host`: the certificate that was shown, and whether the other side saw
/// one of ours.
async fn asked(
    acceptor: TlsAcceptor,
    files: Files<'_>,
    host: &str,
) -> io::Result<(CertificateDer<'static>, bool)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let answered = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let certified = stream.get_ref().1.peer_certificates().is_some();
        stream.write_all(&[u8::from(certified)]).await?;
        stream.shutdown().await
    });
    let stream = TcpStream::connect(address).await?;
    let mut stream = connect(files, host, stream).await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    let _ = answered.await;
    Ok((shown, answer == [1]))
}

fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(story)
}

#[test]
fn with_an_authority_nodes_know_each_other_and_nobody_else() {
    run(async {
        let (ours, theirs) = (Authority::new(), Authority::new());
        ours.sign("node1");
        theirs.sign("node1");
        let ([cert, key, ca], [their_cert, their_key, their_ca]) = (ours.paths(), theirs.paths());
        let files: Files<'_> = (&cert, &key, Some(&ca));
        let acceptor = || Acceptor::new(files).unwrap().current();
        // By its name, and from within its own container.
        for host in ["node1", "127.0.0.1"] {
            assert!(asked(acceptor(), files, host).await.unwrap().1, "{host}");
        }
        asked(acceptor(), files, "node2").await.expect_err("it has another's name");
        let stranger: Files<'_> = (&their_cert, &their_key, Some(&their_ca));
        asked(acceptor(), stranger, "node1").await.expect_err("they do not believe us");
        let pretends: Files<'_> = (&their_cert, &their_key, Some(&ca));
        asked(acceptor(), pretends, "node1").await.expect_err("we do not believe them");
        // Who shows nothing may ask.
        let nothing: Files<'_> = (&their_cert, &their_key, None);
        assert!(!asked(acceptor(), nothing, "node1").await.unwrap().1);
    });
}

#[test]
fn files_that_change_are_read_again_and_those_that_are_half_written_are_not_used() {
    run(async {
        let authority = Authority::new();
        authority.sign("a");
        let [cert, key, _] = authority.paths();
        let files: Files<'_> = (&cert, &key, None);
        let mut acceptor = Acceptor::new(files).unwrap();
        let before = asked(acceptor.current(), files, "a").await.unwrap().0;
        fs::write(&cert, "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
        assert_eq!(asked(acceptor.current(), files, "a").await.unwrap().0, before);
        authority.sign("another-name");
        assert_ne!(asked(acceptor.current(), files, "a").await.unwrap().0, before);
    });
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_variable() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    ours.sign("node1");
    theirs.sign("node1");
    let ([cert, key, ca], [_, their_key, _]) = (ours.paths(), theirs.paths());
    let missing = Path::new("/nowhere.pem");
    let said = |files| Acceptor::new(files).err().expect("it is refused").to_string();
    for (files, words) in [
        ((missing, key.as_path(), None), ["PGHERD_TLS_CERT_FILE", "/nowhere.pem"]),
        ((&key, &key, None), ["PGHERD_TLS_CERT_FILE", "no certificate"]),
        ((&cert, &ca, None), ["PGHERD_TLS_KEY_FILE", "no private key"]),
        ((&cert, &key, Some(missing)), ["PGHERD_TLS_CA_FILE", "/nowhere.pem"]),
        ((&cert, &their_key, None), ["together", "node.key"]),
    ] {
        let said = said(files);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}
