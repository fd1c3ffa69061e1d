//! One question to one endpoint, over a connection that is kept for the next.

use super::error::{Failed, Kind, is_about_tls};
use super::json::Refusal;
use crate::settings::EtcdEndpoint;
use crate::system::error::chain;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::rt::{Read, Write};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Several questions at the same time are a few.
const KEPT_MAX: usize = 4;
/// Of an answer: a record is a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

type Sender = SendRequest<Full<Bytes>>;
type Cause = Box<dyn Error + Send + Sync>;

/// An endpoint and its idle connections.
pub(super) struct Gateway {
    endpoint: EtcdEndpoint,
    tls: Option<Arc<ClientConfig>>,
    kept: Mutex<Vec<Sender>>,
}

impl Gateway {
    pub(super) fn new(endpoint: EtcdEndpoint, tls: Option<Arc<ClientConfig>>) -> Self {
        Gateway { endpoint, tls, kept: Mutex::default() }
    }

    pub(super) fn failed(&self, kind: Kind, cause: impl Into<String>) -> Failed {
        Failed { endpoint: self.endpoint.to_string(), cause: cause.into(), kind }
    }

    /// The body of the answer, if it is one. A connection that was kept may have been closed
    /// meanwhile; then a new one is asked, and what is asked may be done twice.
    pub(super) async fn ask(
        &self,
        path: &str,
        body: &Bytes,
        token: Option<&str>,
    ) -> Result<Bytes, Failed> {
        let kept = self.kept().pop();
        let asked = match kept {
            Some(sender) => self.ask_over(sender, path, body, token).await.ok(),
            None => None,
        };
        let asked = match asked {
            Some(answer) => Ok(answer),
            None => match self.connect().await {
                Ok(sender) => self.ask_over(sender, path, body, token).await,
                Err(error) => Err(error),
            },
        };
        let (status, answer) = asked.map_err(|error| {
            let kind = if is_about_tls(&*error) { Kind::Certificate } else { Kind::Unavailable };
            self.failed(kind, chain(&*error))
        })?;
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let refusal: Refusal = serde_json::from_slice(&answer).unwrap_or_default();
        match refusal.words() {
            "" => Err(self.failed(Kind::Unavailable, format!("it answers {status}"))),
            words => Err(self.failed(refusal.kind(), words)),
        }
    }

    async fn ask_over(
        &self,
        mut sender: Sender,
        path: &str,
        body: &Bytes,
        token: Option<&str>,
    ) -> Result<(StatusCode, Bytes), Cause> {
        sender.ready().await?;
        let authority = self.endpoint.to_string();
        let authority = authority.split_once("://").map_or(authority.as_str(), |(_, rest)| rest);
        let mut request = Request::post(path)
            .header(HOST, authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))?;
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, token.parse()?);
        }
        let response = sender.send_request(request).await?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?;
        let mut kept = self.kept();
        if kept.len() < KEPT_MAX && !sender.is_closed() {
            kept.push(sender);
        }
        Ok((status, answer.to_bytes()))
    }

    async fn connect(&self) -> Result<Sender, Cause> {
        let EtcdEndpoint { tls, host, port } = &self.endpoint;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        match (tls, &self.tls) {
            (false, _) => introduced(TokioIo::new(stream)).await,
            (true, Some(config)) => {
                let name = ServerName::try_from(host.clone())?;
                let connector = TlsConnector::from(Arc::clone(config));
                introduced(TokioIo::new(connector.connect(name, stream).await?)).await
            }
            (true, None) => Err("there are no certificates for it".into()),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Sender>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// HTTP over `stream`, which is read and written by a task until either side closes it.
async fn introduced<S>(stream: S) -> Result<Sender, Cause>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await?;
    tokio::spawn(async move {
        let _ = connection.await; // Whoever asked over it hears of it.
    });
    Ok(sender)
}
