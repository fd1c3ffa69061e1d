//! The page at `/` for browsers, and what keeps it up to date. It shows what the [`Snapshot`] and the
//! journal have; nothing in it is secret, and nothing in it changes anything: [`super::relay`] does
//! that, for whoever gives the token.

mod picture;
mod plot;
mod view;
mod words;

use super::{Connection, GET_OR_OPTIONS, Snapshots, answered, probes::Probe};
use crate::control::Snapshot;
use crate::journal::Journal;
use askama::Template;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, on};
use futures_util::stream;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use view::View;

/// So many pages may be kept up to date at the same time; others ask again every few seconds.
const WATCHERS_MAX: usize = 16;
/// Ages grow also while nothing happens.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// However much happens.
const TELL_AT_MOST_EVERY: Duration = Duration::from_millis(200);
/// Then the browser asks again: whoever has gone unnoticed frees the place.
const WATCH_AT_MOST: Duration = Duration::from_secs(10 * 60);
/// Of the events on the page.
const EVENTS_MAX: usize = 40;

/// Scripts and styles are files of their own, and nothing comes from anywhere else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page is made of.
#[derive(Clone)]
struct Site {
    snapshots: Snapshots,
    journal: Option<Journal>,
    watchers: Arc<Semaphore>,
}

pub(super) fn routes(snapshots: Snapshots, journal: Option<Journal>) -> Router {
    let watchers = Arc::new(Semaphore::new(WATCHERS_MAX));
    let asset = |kind: &'static str, text: &'static str| {
        get(async move || ([(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff")], text))
    };
    let style = include_str!("../../../templates/dashboard/dashboard.css");
    let script = include_str!("../../../templates/dashboard/dashboard.js");
    let icon = include_str!("../../../templates/dashboard/icon.svg");
    Router::new()
        .route("/", on(GET_OR_OPTIONS, root))
        .route("/dashboard/live", get(live))
        .route("/dashboard.css", asset("text/css; charset=utf-8", style))
        .route("/dashboard.js", asset("text/javascript; charset=utf-8", script))
        .route("/dashboard.svg", asset("image/svg+xml", icon))
        .with_state(Site { snapshots, journal, watchers })
}

/// The page for browsers; for others this node's state, as `/primary` has it.
async fn root(
    State(site): State<Site>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let wants_page = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if method == Method::OPTIONS || !wants_page {
        let seen = site.snapshots.borrow();
        let answer = answered(Probe::Primary, &seen, &method, query.as_deref());
        return ([(VARY, "Accept")], answer).into_response();
    }
    let main = site.main();
    let page = Page { cluster: main.cluster.clone(), node: main.node.clone(), main: html(&main) };
    (headers_of_page(), html(&page)).into_response()
}

fn headers_of_page() -> [(HeaderName, &'static str); 6] {
    [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (VARY, "Accept"),
    ]
}

#[derive(Template)]
#[template(path = "dashboard/page.html")]
struct Page {
    cluster: String,
    node: String,
    /// As [`View`] has it.
    main: String,
}

fn html(template: &impl Template) -> String {
    template.render().expect("a String takes everything")
}

/// Server-sent events, each of them the whole of the page's main part.
async fn live(State(site): State<Site>, Extension(connection): Extension<Connection>) -> Response {
    let Ok(place) = Arc::clone(&site.watchers).try_acquire_owned() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    connection.may_last();
    let watch = Watch { site, _place: place, began: Instant::now(), told: None };
    let events = stream::unfold(watch, |watch| watch.next());
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(events)).into_response()
}

/// One page that is kept up to date.
struct Watch {
    site: Site,
    _place: OwnedSemaphorePermit,
    began: Instant,
    told: Option<Instant>,
}

impl Watch {
    /// The next event, when something has changed or a while has passed. None: it has lasted long enough,
    /// or the node ends.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if let Some(told) = self.told {
            if self.began.elapsed() > WATCH_AT_MOST {
                return None;
            }
            if let Ok(Err(_)) = timeout(TELL_EVERY, self.site.snapshots.changed()).await {
                return None;
            }
            let soonest = told + TELL_AT_MOST_EVERY;
            let rest = soonest.saturating_duration_since(Instant::now());
            // What else happens meanwhile is told together with it.
            let _ = timeout(rest, std::future::pending::<()>()).await;
        }
        self.site.snapshots.mark_unchanged();
        self.told = Some(Instant::now());
        let event = event(&html(&self.site.main()));
        Some((Ok(Bytes::from(event)), self))
    }
}

/// As the format of server-sent events has it: a field a line, an empty line at the end.
fn event(text: &str) -> String {
    let mut event = "event: main\n".to_owned();
    // A carriage return would end a line there, too.
    for line in text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event + "\n"
}

impl Site {
    fn main(&self) -> View {
        let seen: Snapshot = self.snapshots.borrow().now();
        let own = self.journal.as_ref().map(|journal| journal.last(EVENTS_MAX)).unwrap_or_default();
        View::of(&seen, own, EVENTS_MAX)
    }
}

#[cfg(test)]
mod tests;
