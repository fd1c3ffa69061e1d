//! What etcd's JSON gateway is told and answers (etcd's documentation, "Why gRPC gateway"). Keys and
//! values are base64, 64-bit numbers are text, and what is zero, empty or false is left out.

use super::client::{Expected, Pair};
use super::error::Kind;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::fmt::Display;
use std::str::FromStr;

fn encoded(text: &str) -> String {
    STANDARD.encode(text)
}

pub(super) fn range(key: &str) -> Value {
    json!({"key": encoded(key)})
}

pub(super) fn put(key: &str, value: &str) -> Value {
    json!({"key": encoded(key), "value": encoded(value)})
}

/// Put if as expected; else read what is there.
pub(super) fn put_if(key: &str, expected: Expected, value: &str) -> Value {
    let mut compare = json!({"key": encoded(key), "result": "EQUAL"});
    match expected {
        Expected::Absent => {
            compare["target"] = json!("CREATE");
            compare["create_revision"] = json!("0");
        }
        Expected::At(revision) => {
            compare["target"] = json!("MOD");
            compare["mod_revision"] = json!(revision.to_string());
        }
    }
    json!({
        "compare": [compare],
        "success": [{"request_put": put(key, value)}],
        "failure": [{"request_range": range(key)}],
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) revision: i64,
    #[serde(rename = "cluster_id", deserialize_with = "number")]
    pub(super) cluster: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Range {
    pub(super) header: Header,
    pub(super) kvs: Vec<KeyValue>,
}

impl Range {
    /// Of the one key that was asked for. An error if its value is no text.
    pub(super) fn pair(self) -> Result<Option<Pair>, &'static str> {
        let Some(found) = self.kvs.into_iter().next() else { return Ok(None) };
        let value = STANDARD.decode(&found.value).map_err(|_| "its value is no base64")?;
        let value = String::from_utf8(value).map_err(|_| "its value is no text")?;
        Ok(Some(Pair { value, revision: found.mod_revision }))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "number")]
    mod_revision: i64,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Txn {
    pub(super) header: Header,
    pub(super) succeeded: bool,
    pub(super) responses: Vec<TxnResponse>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TxnResponse {
    pub(super) response_range: Option<Range>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    pub(super) header: Header,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Token {
    pub(super) token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MemberList {
    pub(super) members: Vec<Listed>,
}

/// A member of etcd's cluster, as the others have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Listed {
    /// etcd's number for it: another one when it was taken out and added again.
    #[serde(rename = "ID", deserialize_with = "number")]
    pub id: u64,
    /// Empty while it has been added and not started yet.
    pub name: String,
    /// Where the other members find it.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Where clients find it; empty until it has been started.
    #[serde(rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

/// Why it was not done.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) error: String,
    /// gRPC's.
    code: i32,
}

impl Refusal {
    pub(super) fn words(&self) -> &str {
        if self.message.is_empty() { &self.error } else { &self.message }
    }

    /// Numbers are gRPC's status codes, words those of etcd's `rpctypes/error.go`, the same in 3.4 and 3.5.
    pub(super) fn kind(&self) -> Kind {
        let says = |words: &str| self.words().contains(words);
        match self.code {
            16 => Kind::Token,
            _ if says("revision of auth store is old") => Kind::Token,
            _ if says("user name is empty") => Kind::Token,
            7 => Kind::Credentials,
            _ if says("authentication failed") || says("authentication is not enabled") => {
                Kind::Credentials
            }
            3 | 5 | 6 | 8 | 9 | 11 | 12 => Kind::Refused,
            _ => Kind::Unavailable,
        }
    }
}

/// A number that the gateway writes as text.
fn number<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr,
    T::Err: Display,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from etcd 3.4.23 and 3.5.16, which answer the same.
    const FOUND: &str = r#"{"header":{"cluster_id":"3963382793071246116","member_id":"2224147716345052543","revision":"2","raft_term":"2"},"responses":[{"response_range":{"header":{"revision":"2"},"kvs":[{"key":"L3BnaGVyZC94L2xlYWQ=","create_revision":"2","mod_revision":"2","version":"1","value":"aGVsbG8="}],"count":"1"}}]}"#;
    const PUT: &str = r#"{"header":{"cluster_id":"3963382793071246116","member_id":"2224147716345052543","revision":"2","raft_term":"2"},"succeeded":true,"responses":[{"response_put":{"header":{"revision":"2"}}}]}"#;
    const NOTHING: &str = r#"{"header":{"cluster_id":"3963382793071246116","member_id":"2224147716345052543","revision":"1","raft_term":"2"}}"#;
    const MEMBERS: &str = r#"{"header":{"cluster_id":"3963382793071246116","member_id":"2224147716345052543","raft_term":"2"},"members":[{"ID":"1344832461829520275","name":"node2","peerURLs":["https://node2:2380"],"clientURLs":["https://node2:2379"]},{"ID":"14621553635105182770","peerURLs":["https://node3:2380"]}]}"#;

    fn kind(answer: &str) -> Kind {
        serde_json::from_str::<Refusal>(answer).unwrap().kind()
    }

    #[test]
    fn a_transaction_says_what_is_there_instead() {
        let put: Txn = serde_json::from_str(PUT).unwrap();
        assert!(put.succeeded && put.header.revision == 2);
        let found: Txn = serde_json::from_str(FOUND).unwrap();
        assert!(!found.succeeded);
        let range = found.responses.into_iter().next().unwrap().response_range.unwrap();
        let expected = Pair { value: "hello".to_owned(), revision: 2 };
        assert_eq!(range.pair(), Ok(Some(expected)));
        assert_eq!(serde_json::from_str::<Range>(NOTHING).unwrap().pair(), Ok(None));
    }

    #[test]
    fn a_member_that_was_never_started_has_no_name() {
        let MemberList { members } = serde_json::from_str(MEMBERS).unwrap();
        assert_eq!(members[0].client_urls, ["https://node2:2379"]);
        let added = &members[1];
        assert_eq!((added.id, added.name.as_str()), (14_621_553_635_105_182_770, ""));
        assert!(added.client_urls.is_empty());
    }

    #[test]
    fn what_another_endpoint_may_do_better_is_known_from_what_none_does() {
        let late = r#"{"error":"etcdserver: request timed out","message":"etcdserver: request timed out","code":14}"#;
        assert_eq!(kind(late), Kind::Unavailable);
        let off = r#"{"error":"etcdserver: authentication is not enabled","message":"etcdserver: authentication is not enabled","code":9}"#;
        assert_eq!(kind(off), Kind::Credentials);
        let token = r#"{"error":"etcdserver: invalid auth token","code":16}"#;
        assert_eq!(kind(token), Kind::Token);
        let full = r#"{"error":"etcdserver: mvcc: database space exceeded","code":8}"#;
        assert_eq!(kind(full), Kind::Refused);
        assert_eq!(kind("{}"), Kind::Unavailable);
    }

    #[test]
    fn absent_is_a_key_that_was_never_made() {
        let asked = put_if("k", Expected::Absent, "v");
        assert_eq!(asked["compare"][0]["create_revision"], "0");
        let asked = put_if("k", Expected::At(7), "v");
        assert_eq!(asked["compare"][0]["mod_revision"], "7");
        assert_eq!(asked["success"][0]["request_put"]["value"], "dg==");
    }
}
