//! etcd: what must be agreed is kept in it, under keys that only compare-and-swap changes.
//!
//! Its JSON gateway is spoken, not gRPC: a client for that wants a compiler of protocol files to build
//! with, and what is asked here is five small questions. Both ways were tried with etcd 3.4 and 3.5.
//!
//! `client` asks, `gateway` carries a question to one endpoint, `json` has its words; `beginning` is how voters
//! find to each other, `member` says how a voter's own etcd is run, `words` what becomes of its log, and `tls` what the voters know each other by.

mod beginning;
mod client;
mod error;
mod gateway;
mod json;
mod member;
pub mod tls;
mod words;

pub use beginning::{begins, may_begin_again};
pub use client::{Client, Expected, Pair, Written};
pub use error::EtcdError;
pub use json::Listed;
pub use member::{Beginning, Member, MemberError, Votes, Voting};
