//! The questions that etcd is asked, each to as many endpoints as it takes.

use super::error::{EtcdError, Failed, Kind};
use super::gateway::Gateway;
use super::json::{self, Listed};
use super::tls::{self, TlsError};
use crate::cluster::Address;
use crate::settings::{EtcdEndpoint, Failover, Secret, Settings};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::ClientConfig;

/// A share of the limit: when the endpoint that was asked first has not answered by then, the next
/// is asked too.
const HEDGE_SHARE: u32 = 4;
/// Questions that go to the endpoint which answered last, before the first of all is tried again.
const QUESTIONS_AWAY_MAX: usize = 20;

/// Cheap to clone: connections and login are shared. Works inside the runtime.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    gateways: Vec<Gateway>,
    login: Option<(String, Secret)>,
    token: Mutex<Option<String>>,
    /// Who answered last, where that was not the first of all.
    away: AtomicUsize,
    questions_away: AtomicUsize,
}

/// A key's value, and the revision of etcd that it was written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// As it was put.
    pub value: String,
    /// etcd's `mod_revision`: another one after each change.
    pub revision: i64,
}

/// What a key must be for it to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Not there.
    Absent,
    /// Not changed since this revision.
    At(i64),
}

/// What [`Client::put_if`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It stands there.
    Done {
        /// Since this revision.
        revision: i64,
    },
    /// It does not: the key was not as expected.
    Changed {
        /// What it is instead.
        now: Option<Pair>,
    },
}

impl Client {
    /// Asks `endpoints`, the first one first. `login` is a name and its password.
    pub fn new(
        endpoints: impl IntoIterator<Item = EtcdEndpoint>,
        tls: Option<Arc<ClientConfig>>,
        login: Option<(String, Secret)>,
    ) -> Self {
        let gateway = |endpoint| Gateway::new(endpoint, tls.clone());
        Client(Arc::new(Shared {
            gateways: endpoints.into_iter().map(gateway).collect(),
            login,
            token: Mutex::default(),
            away: AtomicUsize::new(0),
            questions_away: AtomicUsize::new(0),
        }))
    }

    /// Of the etcd that the settings name, or else of the voters', this node's own first. `None` where
    /// nobody votes. Reads the files that the operator named.
    pub fn of(settings: &Settings, ourselves: &Address) -> Result<Option<Self>, TlsError> {
        let herd = &settings.herd;
        if herd.failover != Failover::Quorum {
            return Ok(None);
        }
        if !herd.etcd.endpoints.is_empty() {
            let tls = match herd.etcd.endpoints.iter().any(|endpoint| endpoint.tls) {
                true => Some(tls::operator_s(&herd.etcd)?),
                false => None,
            };
            let login = herd.etcd.user.clone().zip(herd.etcd.password.clone());
            return Ok(Some(Client::new(herd.etcd.endpoints.clone(), tls, login)));
        }
        let ours = herd.voters.iter().filter(|voter| voter.host == ourselves.host);
        // By a name that also holds while this node is in no network.
        let ours = ours.map(|_| "127.0.0.1".to_owned());
        let others = herd.voters.iter().filter(|voter| voter.host != ourselves.host);
        let hosts = ours.chain(others.map(|voter| voter.host.clone()));
        let endpoint = |host| EtcdEndpoint { tls: true, host, port: herd.etcd.port };
        let endpoints: Vec<_> = hosts.map(endpoint).collect();
        let tls = tls::ours(&herd.control_token, &herd.cluster)?;
        Ok((!endpoints.is_empty()).then(|| Client::new(endpoints, Some(tls), None)))
    }

    /// What stands under `key`, by the word of a majority.
    pub async fn get(&self, key: &str, within: Duration) -> Result<Option<Pair>, EtcdError> {
        let question = Question::new("/v3/kv/range", &json::range(key));
        self.ask(question, within, |range: json::Range| range.pair()).await
    }

    /// Puts `value` under `key` if that is as expected, and else says what is there: one step, by a
    /// majority's word. What is found there and is equal to `value` was put by this call, which may
    /// have been made twice; so no two calls may want the same value. After an error it may have been
    /// done, or may be yet: read it back.
    pub async fn put_if(
        &self,
        key: &str,
        expected: Expected,
        value: &str,
        within: Duration,
    ) -> Result<Written, EtcdError> {
        let question = Question::new("/v3/kv/txn", &json::put_if(key, expected, value));
        self.ask(question, within, |txn| written(txn, value)).await
    }

    /// Puts `value` under `key`, whatever is there. Returns its revision.
    pub async fn put(&self, key: &str, value: &str, within: Duration) -> Result<i64, EtcdError> {
        let question = Question::new("/v3/kv/put", &json::put(key, value));
        self.ask(question, within, |done: json::Done| Ok(done.header.revision)).await
    }

    /// Afterwards nothing stands under `key`.
    pub async fn delete(&self, key: &str, within: Duration) -> Result<(), EtcdError> {
        let question = Question::new("/v3/kv/deleterange", &json::range(key));
        self.ask(question, within, |_: json::Done| Ok(())).await
    }

    /// etcd's number of the cluster in which a majority answers.
    pub async fn led(&self, within: Duration) -> Result<u64, EtcdError> {
        let question = Question::new("/v3/kv/range", &json::range("/pgherd"));
        self.ask(question, within, |range: json::Range| Ok(range.header.cluster)).await
    }

    /// etcd's number of the cluster that the first endpoint which runs is a member of, whether that has a
    /// majority or not.
    pub async fn runs(&self, within: Duration) -> Result<u64, EtcdError> {
        let question = Question::new("/v3/maintenance/status", &json!({}));
        self.ask(question, within, |done: json::Done| Ok(done.header.cluster)).await
    }

    /// The members of etcd's cluster, by a majority's word.
    pub async fn members(&self, within: Duration) -> Result<Vec<Listed>, EtcdError> {
        // etcd 3.4 does not know the word and answers from memory, so a read that needs the
        // majority goes first.
        self.get("/pgherd", within).await?;
        let question = Question::new("/v3/cluster/member/list", &json!({"linearizable": true}));
        self.ask(question, within, |list: json::MemberList| Ok(list.members)).await
    }

    /// Afterwards a member is awaited at `peer_url`. One that is there already is a refusal.
    pub async fn add_member(&self, peer_url: &str, within: Duration) -> Result<(), EtcdError> {
        let question = Question::new("/v3/cluster/member/add", &json!({"peerURLs": [peer_url]}));
        self.ask(question, within, |_: json::Done| Ok(())).await
    }

    /// Takes the member with this number out. One that is not there is a refusal.
    pub async fn remove_member(&self, id: u64, within: Duration) -> Result<(), EtcdError> {
        let body = json!({"ID": id.to_string()});
        let question = Question::new("/v3/cluster/member/remove", &body);
        self.ask(question, within, |_: json::Done| Ok(())).await
    }

    /// Asks one endpoint after the other: the next one when one has failed, and also when none of
    /// those asked has answered for a while; then one may be asked again, because what was on its way to
    /// a leader that died is lost, and etcd does not send it again. The first answer holds.
    async fn ask<A: DeserializeOwned, T>(
        &self,
        question: Question,
        within: Duration,
        read: impl Fn(A) -> Result<T, &'static str>,
    ) -> Result<T, EtcdError> {
        let began = Instant::now();
        let gateways = &self.0.gateways;
        let first = self.first();
        let (mut asked, mut waiting_for) = (FuturesUnordered::new(), Vec::new());
        let mut tried = Vec::new();
        let (mut steps, mut hedges) = (0, 0);
        loop {
            let all_asked = steps >= gateways.len();
            if all_asked && asked.is_empty() {
                return Err(EtcdError::of(within, tried));
            }
            let until = began + within / HEDGE_SHARE * hedges;
            match timeout_at(until, asked.next()).await {
                Ok(Some((index, Ok(answer)))) => {
                    self.note(index);
                    return Ok(answer);
                }
                Ok(Some((index, Err(failed)))) => {
                    let failed: Failed = failed;
                    match failed.kind {
                        Kind::Token | Kind::Credentials => {
                            return Err(EtcdError::Credentials(failed));
                        }
                        Kind::Refused => return Err(EtcdError::Refused(failed)),
                        Kind::Unavailable | Kind::Certificate => {}
                    }
                    waiting_for.retain(|one| *one != index);
                    tried.push(failed);
                    if all_asked {
                        continue; // It has had its turn, and so have the others.
                    }
                }
                Ok(None) => hedges = 1, // Nobody is asked yet.
                Err(_) if hedges >= HEDGE_SHARE => {
                    waiting_for.sort_unstable();
                    waiting_for.dedup();
                    let silent =
                        |index: usize| gateways[index].failed(Kind::Unavailable, "does not answer");
                    tried.extend(waiting_for.into_iter().map(silent));
                    return Err(EtcdError::of(within, tried));
                }
                Err(_) => hedges += 1,
            }
            let index = (first + steps) % gateways.len();
            steps += 1;
            waiting_for.push(index);
            asked.push(self.ask_at(index, &question, &read));
        }
    }

    async fn ask_at<A: DeserializeOwned, T>(
        &self,
        index: usize,
        question: &Question,
        read: &impl Fn(A) -> Result<T, &'static str>,
    ) -> (usize, Result<T, Failed>) {
        let gateway = &self.0.gateways[index];
        let asked = async {
            let body = self.ask_known(gateway, question).await?;
            let refused = |cause: String| gateway.failed(Kind::Unavailable, cause);
            let answer = serde_json::from_slice(&body)
                .map_err(|error| refused(format!("its answer makes no sense: {error}")))?;
            read(answer).map_err(|cause| refused(cause.to_owned()))
        };
        (index, asked.await)
    }

    /// With a token where a login is needed; a token that has become old is renewed once.
    async fn ask_known(&self, gateway: &Gateway, question: &Question) -> Result<Bytes, Failed> {
        let Question { path, body } = question;
        let Some((user, password)) = &self.0.login else {
            return gateway.ask(path, body, None).await;
        };
        let token = self.token().clone();
        if let Some(token) = token {
            match gateway.ask(path, body, Some(&token)).await {
                Err(failed) if failed.kind == Kind::Token => {}
                other => return other,
            }
        }
        let login = json!({"name": user, "password": password.expose()});
        let login = Question::new("/v3/auth/authenticate", &login);
        let answer = gateway.ask(login.path, &login.body, None).await?;
        let answer: json::Token = serde_json::from_slice(&answer).unwrap_or_default();
        *self.token() = Some(answer.token.clone());
        gateway.ask(path, body, Some(&answer.token)).await
    }

    /// The endpoint to begin with.
    fn first(&self) -> usize {
        let Shared { away, questions_away, .. } = &*self.0;
        if questions_away.fetch_add(1, Ordering::Relaxed) >= QUESTIONS_AWAY_MAX {
            questions_away.store(0, Ordering::Relaxed);
            away.store(0, Ordering::Relaxed);
        }
        away.load(Ordering::Relaxed)
    }

    /// It answered.
    fn note(&self, index: usize) {
        if self.0.away.swap(index, Ordering::Relaxed) != index {
            self.0.questions_away.store(0, Ordering::Relaxed);
        }
    }

    fn token(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Question {
    path: &'static str,
    body: Bytes,
}

impl Question {
    fn new(path: &'static str, body: &Value) -> Self {
        Question { path, body: body.to_string().into() }
    }
}

fn written(txn: json::Txn, value: &str) -> Result<Written, &'static str> {
    if txn.succeeded {
        return Ok(Written::Done { revision: txn.header.revision });
    }
    let range = txn.responses.into_iter().find_map(|response| response.response_range);
    let now = range.ok_or("it does not say what is there")?.pair()?;
    Ok(match now {
        Some(pair) if pair.value == value => Written::Done { revision: pair.revision },
        now => Written::Changed { now },
    })
}

#[cfg(test)]
mod tests;
