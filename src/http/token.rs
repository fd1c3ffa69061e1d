//! Who may change something, or have the data: whoever shows the control token.

use super::Connection;
use crate::settings::{Secret, Settings, proof};
use crate::system::network;
use axum::extract::{FromRef, FromRequestParts};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HeaderMap};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::fmt::Display;

/// `PGHERD_CONTROL_TOKEN`, or what follows from the repmgr password.
#[derive(Clone, Debug)]
pub(super) struct Token {
    token: Secret,
    neighbours_only: bool,
    certified_only: bool,
}

impl Token {
    pub(super) fn of(settings: &Settings) -> Self {
        Token {
            token: settings.herd.control_token.clone(),
            neighbours_only: settings.herd.control_token_is_published,
            certified_only: settings.herd.tls.as_ref().is_some_and(|tls| tls.ca_file.is_some()),
        }
    }

    /// What shows the others that `body` is a member's answer to the question with `nonce`.
    pub(super) fn proof(&self, nonce: &str, body: &str) -> String {
        proof(&self.token, nonce, body)
    }

    /// The request shows it, and comes from where it counts. Else the answer.
    fn admit(&self, connection: &Connection, headers: &HeaderMap) -> Result<(), Box<Response>> {
        if self.certified_only && connection.certified != Some(true) {
            let reason = "not without a certificate of PGHERD_TLS_CA_FILE's authority";
            return Err(Box::new(said(StatusCode::FORBIDDEN, reason)));
        }
        let shown =
            headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        // Blanks at its ends do not travel in a header.
        let token = self.token.expose().trim().as_bytes();
        if !shown.is_some_and(|shown| is_same(shown, token)) {
            let reason = "the control token is missing or wrong";
            return Err(Box::new(said(StatusCode::UNAUTHORIZED, reason)));
        }
        if self.neighbours_only && !network::is_neighbour(connection.peer.ip()) {
            let reason = "from outside this node's networks not before REPMGR_PASSWORD or \
                          PGHERD_CONTROL_TOKEN is one of your own";
            return Err(Box::new(said(StatusCode::FORBIDDEN, reason)));
        }
        Ok(())
    }
}

/// The request has shown the token, from where it counts: whatever changes something or hands out data
/// takes one, and nobody can make one without being asked.
pub(super) struct Admitted(());

impl<S: Send + Sync> FromRequestParts<S> for Admitted
where
    Token: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let Some(connection) = parts.extensions.get::<Connection>() else {
            unreachable!("the door introduces whoever comes in");
        };
        match Token::from_ref(state).admit(connection, &parts.headers) {
            Ok(()) => Ok(Admitted(())),
            Err(refused) => Err(*refused),
        }
    }
}

/// In a time that does not tell how much of `shown` is right: digests are compared, all of them.
fn is_same(shown: &[u8], token: &[u8]) -> bool {
    let (shown, token) = (Sha256::digest(shown), Sha256::digest(token));
    shown.iter().zip(&token).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

pub(super) fn said(code: StatusCode, words: impl Display) -> Response {
    (code, format!("{words}\n")).into_response()
}
