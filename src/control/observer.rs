//! Asks the server how it is, again and again.

use super::node::Event;
use super::snapshot::{NodeState, Snapshot};
use crate::execute::Hands;
use crate::postgres::{Health, Session, SqlError};
use crate::service::Listen;
use crate::system::wait;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How often the server is asked how it is.
const OBSERVE_EVERY: Duration = Duration::from_secs(3);
/// A server that serves answers within milliseconds.
const ANSWER_AT_MOST: Duration = Duration::from_secs(5);
/// So many questions are asked over one connection: each new one costs the server a process, but
/// a postmaster that is stuck shows in nothing else.
const QUESTIONS_PER_SESSION: usize = 10;

/// Reports as long as there is a node.
pub(super) async fn observe(
    hands: Arc<Hands>,
    mut snapshots: watch::Receiver<Snapshot>,
    sender: mpsc::Sender<Event>,
) {
    let mut session = None;
    for number in 0_usize.. {
        // Nothing is asked of a server that is being prepared.
        let serving = |seen: &Snapshot| {
            matches!(seen.nodes[0].state, NodeState::Running | NodeState::Unreachable)
        };
        if snapshots.wait_for(serving).await.is_err() {
            return;
        }
        if number % QUESTIONS_PER_SESSION == 0 {
            session = None;
        }
        // One that is late is waited for: to ask again and again would leave the server, when it
        // wakes up, with a process for each.
        let mut asked = pin!(ask(&hands, &mut session));
        let seen = loop {
            if let Ok(seen) = timeout(ANSWER_AT_MOST, &mut asked).await {
                break seen;
            }
            let doing = "ask the server for its state".to_owned();
            let late = SqlError::Late { doing, at_most: ANSWER_AT_MOST };
            if sender.send(Event::Observed(Err(late))).await.is_err() {
                return;
            }
        };
        if sender.send(Event::Observed(seen)).await.is_err() {
            return;
        }
        wait::back_off(OBSERVE_EVERY).await;
    }
}

async fn ask(hands: &Hands, kept: &mut Option<Session>) -> Result<Health, SqlError> {
    if kept.as_ref().is_none_or(Session::is_closed) {
        let consumers = Listen::Consumer { port: hands.settings.postgres.port };
        let listen = hands.supervisor.listening().unwrap_or(consumers);
        *kept = Some(Session::open(&hands.settings, &hands.layout, listen, "postgres").await?);
    }
    let Some(session) = kept else { unreachable!("opened above") };
    let seen = session.health().await;
    if seen.is_err() {
        *kept = None;
    }
    seen
}
