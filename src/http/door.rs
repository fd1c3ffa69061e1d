//! Who comes in: how many at the same time, for how long, with how much, and over TLS where that is wanted.

use super::Connection;
use crate::system::tls;
use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

/// So many may ask at the same time; more wait to be accepted. Load balancers and probes are a few.
const CONNECTIONS_MAX: usize = 128;
/// … and so many from one address; more are cut. Half of all: a client gone wrong leaves room for the
/// others. Two addresses that mean it keep them out, and an IPv6 host has many of them; but counted by
/// /64, one host would keep out all of its network, which mostly is the cluster's.
const FROM_ONE_ADDRESS_MAX: usize = CONNECTIONS_MAX / 2;
/// Until a question is there, TLS agreed on before it. Who is slower than that over any network does not
/// mean to ask.
const QUESTION_WITHIN: Duration = Duration::from_secs(3);
/// Who asks a probe again and again may do it over one connection: it costs half. Until then; who goes on asks
/// for another, so that a place is nobody's for long.
const KEPT_AT_MOST: Duration = Duration::from_secs(5);
/// So many places have to be free for that: one that is kept may be of one who has forgotten it.
const FREE_AT_LEAST: usize = CONNECTIONS_MAX * 3 / 4;
/// From a connection's first byte to the last of its answers; whoever is slower holds the place of another.
/// Copies of WAL and backups have a limit of their own, to each of their pieces.
const CONNECTION_AT_MOST: Duration = Duration::from_secs(10);
/// Of a question's line and headers. A token of a kilobyte has room in it, and a browser's cookies.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Nothing is said in a body; what some clients send along is not read.
const BODY_BYTES_MAX: u64 = 64 << 10;

/// Where people come in.
pub struct Door {
    /// The port.
    pub listener: TcpListener,
    /// It speaks TLS, and nothing else.
    pub tls: Option<tls::Acceptor>,
}

impl Door {
    /// Answers until the node ends.
    pub(super) async fn answer_all(self, routes: Router) {
        let Door { mut listener, tls: mut acceptor } = self;
        let service = TowerToHyperService::new(routes);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let by_address = ByAddress::default();
        loop {
            let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
            // axum's: it waits a little after an error such as too many open files, and goes on.
            let (stream, peer) = Listener::accept(&mut listener).await;
            let Some(counted) = by_address.enter(peer.ip()) else {
                debug!("{peer} has {FROM_ONE_ADDRESS_MAX} connections already: this one is cut");
                continue;
            };
            let tls = acceptor.as_mut().map(tls::Acceptor::current);
            let (service, all) = (service.clone(), Arc::clone(&places));
            tokio::spawn(async move {
                let connection = Connection { peer, marks: Arc::default(), certified: None };
                match tls {
                    None => answer(stream, connection, service, all).await,
                    Some(tls) => {
                        // Who does not agree with us has heard why.
                        if let Ok(Ok(stream)) = timeout(QUESTION_WITHIN, tls.accept(stream)).await {
                            let shown = stream.get_ref().1.peer_certificates().is_some();
                            let connection = Connection { certified: Some(shown), ..connection };
                            answer(stream, connection, service, all).await;
                        }
                    }
                }
                drop((place, counted));
            });
        }
    }
}

/// With a probe's answer: its connection may be kept.
#[derive(Clone, Copy)]
pub(super) struct MayAskAgain;

/// One question, one answer; or more, see [`KEPT_AT_MOST`].
async fn answer<S>(
    stream: S,
    connection: Connection,
    routes: TowerToHyperService<Router>,
    places: Arc<Semaphore>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let marks = Arc::clone(&connection.marks);
    let introduced = service_fn(move |mut request: Request<Incoming>| {
        let is_another = connection.marks.asked.swap(true, Ordering::Relaxed);
        request.extensions_mut().insert(connection.clone());
        let too_much = is_too_much(&request).then_some(StatusCode::PAYLOAD_TOO_LARGE);
        let (routes, places) = (routes.clone(), Arc::clone(&places));
        async move {
            if is_another {
                // The keeper of the lease has a turn, however fast they come.
                tokio::task::yield_now().await;
            }
            let mut answer = match too_much {
                Some(code) => code.into_response(),
                None => routes.call(request).await?,
            };
            let is_free = places.available_permits() >= FREE_AT_LEAST;
            if !is_free || answer.extensions().get::<MayAskAgain>().is_none() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<Response<Body>, Infallible>(answer)
        }
    });
    let mut questions = http1::Builder::new();
    questions.max_buf_size(HEAD_BYTES_MAX);
    let mut answers = pin!(questions.serve_connection(TokioIo::new(stream), introduced));
    // Whoever asked may have gone, or is late.
    if timeout(QUESTION_WITHIN, &mut answers).await.is_ok() || !is(&marks.asked) {
        return;
    }
    if timeout(KEPT_AT_MOST - QUESTION_WITHIN, &mut answers).await.is_ok() {
        return;
    }
    // The one under way is the last.
    answers.as_mut().graceful_shutdown();
    if timeout(CONNECTION_AT_MOST - KEPT_AT_MOST, &mut answers).await.is_ok() {
        return;
    }
    if is(&marks.may_last) {
        let _ = answers.await;
    }
}

fn is(mark: &AtomicBool) -> bool {
    mark.load(Ordering::Relaxed)
}

fn is_too_much(request: &Request<Incoming>) -> bool {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.is_some_and(|length| length.parse::<u64>().is_ok_and(|bytes| bytes > BODY_BYTES_MAX))
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct ByAddress(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl ByAddress {
    /// Counts one more, until it is dropped; none where there are too many.
    fn enter(&self, address: IpAddr) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= FROM_ONE_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Counted { of: self.clone(), address })
    }
}

struct Counted {
    of: ByAddress,
    address: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
