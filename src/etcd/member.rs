//! A voter's own etcd: how it is run, and how it begins. The hard part is an empty directory: it joins the
//! others under a new number where they have a majority, and else they agree on a [beginning](super::beginning).

use super::beginning::begins;
use super::client::Client;
use super::error::EtcdError;
use super::json::Listed;
use super::tls::{self, Files, TlsError};
use super::words;
use crate::cluster::{Address, Nonce, Token, Vote};
use crate::layout::Layout;
use crate::settings::{EtcdEndpoint, Failover, Settings};
use crate::system::account::Account;
use crate::system::child::Program;
use crate::system::files::{
    FileError, acting_as, empty_directory, ensure_directory, ensure_file, failed, sync_directory,
};
use crate::system::nonce::nonce;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv6Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

/// Of the lease: 100 ms of 4 s. Ten of them are an election's patience, as etcd's manual has it
/// ("Tuning"), so that a leader is replaced while the lease still runs.
const HEARTBEAT_SHARE: u32 = 40;
/// What a container on a busy machine still keeps.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
/// Who wants a lease of a minute has a slow network, not a patience of a quarter of it.
const HEARTBEAT_MAX: Duration = Duration::from_millis(250);
const HEARTBEATS_OF_AN_ELECTION: u32 = 10;
/// Old revisions that are kept. Nobody reads one.
const REVISIONS_KEPT: u32 = 1000;
/// What is kept is a few KiB; its revisions, some hundred of each.
const QUOTA_BYTES: u64 = 256 << 20;
/// Log entries until a snapshot: etcd keeps them in memory, and its default of 100,000 is for servers
/// that do nothing else.
const ENTRIES_PER_SNAPSHOT: u32 = 10_000;

/// What is forgotten, until it is removed.
const FORGOTTEN: &str = "forgotten";

/// This node's member of the voters' etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its host among the voters, which the others find it by.
    pub name: String,
    voters: Vec<String>,
    cluster: String,
    port: u16,
    heartbeat: Duration,
    directory: PathBuf,
    data: PathBuf,
    files: Files,
    begins: PathBuf,
    met: PathBuf,
}

/// What a voter keeps beside its etcd's directory: which life of that it is, and what it takes part in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    nonce: Nonce,
    token: Option<Token>,
    /// It was added to the others' cluster, and has only to begin.
    #[serde(default)]
    added: bool,
    /// It has been part of a majority.
    #[serde(default)]
    voted: bool,
}

/// What the other voters say of theirs; `None` for one that is silent.
pub type Votes = BTreeMap<String, Option<Vote>>;

/// How a node's vote is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voting {
    /// What it says to the other voters.
    pub vote: Option<Vote>,
    /// Why it does not count just now, for people.
    pub trouble: Option<String>,
}

/// What etcd is to do when its directory is empty; one that is not says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It has data.
    GoesOn,
    /// It begins with others.
    Together {
        /// The beginning that they take part in.
        token: Token,
    },
    /// There is a cluster, which awaits it.
    Joins {
        /// The present members, in the words of `--initial-cluster`.
        members: String,
    },
}

/// Why it is not known how to begin.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Its directory is empty, and it is not known what the others have.
    #[error(
        "this voter's etcd has no data, and too few other voters say that theirs has none or have a \
             majority to join: {0}"
    )]
    Waits(EtcdError),
    /// The members of etcd's cluster are others.
    #[error(
        "{name} is no member of the voters' etcd, which has all it should: {members}. Give PGHERD_VOTERS \
             the same value on all nodes"
    )]
    NotAmongThem {
        /// This one.
        name: String,
        /// Those.
        members: String,
    },
    /// The others could not be asked, or did not do it.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The directories.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Member {
    /// This node's, if the voters run an etcd and it is one of them.
    pub fn of(settings: &Settings, layout: &Layout, ourselves: &Address) -> Option<Self> {
        let herd = &settings.herd;
        let runs = herd.failover == Failover::Quorum && herd.etcd.endpoints.is_empty();
        let ours = herd.voters.iter().find(|voter| runs && voter.host == ourselves.host)?;
        let mut voters: Vec<String> = herd.voters.iter().map(|voter| voter.host.clone()).collect();
        voters.sort(); // The same on each node, in whichever order they are written.
        let heartbeat = (herd.lease / HEARTBEAT_SHARE).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
        let directory = layout.etcd();
        Some(Member {
            name: ours.host.clone(),
            voters,
            cluster: herd.cluster.clone(),
            port: herd.etcd.port,
            heartbeat,
            data: directory.join("data"),
            files: Files::in_directory(&directory.join("tls")),
            begins: directory.join("begins.json"),
            met: directory.join("voted"),
            directory,
        })
    }

    /// What is wrong where a voter has this node's name, and the node another address: it would not vote,
    /// and the others would wait for it.
    pub fn misnamed(settings: &Settings, ourselves: &Address) -> Option<String> {
        let (herd, name) = (&settings.herd, &settings.repmgr.node_name);
        let votes = |host: &str| herd.voters.iter().any(|voter| voter.host == host);
        let is_ours = herd.failover == Failover::Quorum && herd.etcd.endpoints.is_empty();
        (is_ours && votes(name) && !votes(&ourselves.host)).then(|| {
            format!(
                "PGHERD_VOTERS has {name}, and this node is at {}: it does not vote. Set REPMGR_NODE_ADDRESS={name}, \
                 or have PGHERD_VOTERS say {} on all nodes",
                ourselves.host, ourselves.host
            )
        })
    }

    /// Afterwards its directories and certificates are there.
    pub fn write_files(
        &self,
        settings: &Settings,
        hostname: &str,
        account: &Account,
    ) -> Result<(), MemberError> {
        ensure_directory(&self.directory, 0o700, account)?;
        ensure_directory(&self.data, 0o700, account)?;
        let own = settings.repmgr.node_address.as_deref().unwrap_or_default();
        let (token, names) = (&settings.herd.control_token, [self.name.as_str(), own, hostname]);
        tls::write(&self.directory.join("tls"), token, &self.cluster, &names, account)?;
        Ok(())
    }

    /// The voters have never been seen to have a majority while this node had its volume: there can be no
    /// record of who leads that it does not know of. What its own etcd is has no part in that.
    pub fn may_found(&self) -> bool {
        !self.met.exists()
    }

    /// They have. Never taken back. Costs nothing the second time.
    pub fn note_met(&self, account: &Account) -> Result<(), FileError> {
        let text = "The voters have had a majority, and may have a record of who leads.\n";
        ensure_file(&self.met, text, 0o600, account).map(drop)
    }

    /// How it begins, for the other voters. None: it has not begun to.
    pub fn vote(&self) -> Option<Vote> {
        match (self.kept(), self.has_data()) {
            (Some(Kept { token: Some(token), voted: false, .. }), _) => {
                Some(Vote::Begins { token })
            }
            (_, true) => Some(Vote::Remembers), // What it joined does, or another version of ours began it.
            (Some(Kept { nonce, token: None, voted: false, .. }), false) => {
                Some(Vote::New { nonce })
            }
            (Some(_) | None, false) => None,
        }
    }

    /// Its etcd has answered a question that needs a majority. Costs nothing the second time.
    pub fn note_voted(&self, account: &Account) -> Result<(), FileError> {
        match self.kept() {
            Some(kept) if !kept.voted => self.keep(&Kept { voted: true, ..kept }, account),
            Some(_) | None => Ok(()),
        }
    }

    fn has_data(&self) -> bool {
        self.data.join("member/wal").exists()
    }

    fn kept(&self) -> Option<Kept> {
        serde_json::from_slice(&fs::read(&self.begins).ok()?).ok()
    }

    fn keep(&self, kept: &Kept, account: &Account) -> Result<(), FileError> {
        let text = serde_json::to_string(kept).expect("its keys are texts");
        ensure_file(&self.begins, text + "\n", 0o600, account).map(drop)
    }

    /// It listens there: for clients, and for its peers.
    pub fn ports(&self) -> [u16; 2] {
        [self.port, self.port + 1]
    }

    /// How many have a vote.
    pub fn voters(&self) -> usize {
        self.voters.len()
    }

    /// Afterwards its etcd remembers nothing, and this is another life of its directory. Its etcd does not
    /// run. Killed at any moment it is either as it was or empty, and what it took part in goes before
    /// what it remembers, so that it never takes part in that with an empty directory.
    pub fn forget(&self, account: &Account) -> Result<(), FileError> {
        acting_as(account, || {
            match fs::remove_file(&self.begins) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &self.begins)(error));
                }
                _ => sync_directory(&self.directory)?,
            }
            match fs::rename(self.data.join("member"), self.data.join(FORGOTTEN)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("move", &self.data)(error));
                }
                _ => sync_directory(&self.data)?,
            }
            empty_directory(&self.data, &[])
        })
    }

    /// A client of this voter's own etcd.
    pub fn own(&self, settings: &Settings) -> Result<Client, TlsError> {
        let endpoint = EtcdEndpoint { tls: true, host: "127.0.0.1".to_owned(), port: self.port };
        let tls = tls::ours(&settings.herd.control_token, &self.cluster)?;
        Ok(Client::new([endpoint], Some(tls), None))
    }

    /// A client of the other voters.
    pub fn others(&self, settings: &Settings) -> Result<Client, TlsError> {
        let others = self.voters.iter().filter(|voter| **voter != self.name).cloned();
        let port = self.port;
        let endpoints = others.map(|host| EtcdEndpoint { tls: true, host, port });
        let tls = tls::ours(&settings.herd.control_token, &self.cluster)?;
        Ok(Client::new(endpoints, Some(tls), None))
    }

    /// How it begins. With data, it goes on. Without: it takes part in the others' beginning if that counts
    /// for it; or joins them where they have a majority, in the place of the one that it was before its disk
    /// was lost; or [begins] with those of `votes` that are new (one that is not in it is silent). Else it
    /// waits: ask again. What it takes part in is on its disk when this returns.
    pub async fn prepare(
        &self,
        others: &Client,
        votes: &Votes,
        patience: bool,
        account: &Account,
        within: Duration,
    ) -> Result<Beginning, MemberError> {
        if self.has_data() {
            return Ok(Beginning::GoesOn);
        }
        let mut kept = match self.kept() {
            Some(Kept { token: Some(token), voted: false, .. }) => {
                return Ok(Beginning::Together { token });
            }
            Some(kept) if !kept.voted => kept,
            // What it had is gone, whoever took it.
            Some(_) | None => {
                acting_as(account, || empty_directory(&self.data, &[]))?;
                self.another_life(account)?
            }
        };
        let voters = self.voters.iter().filter(|voter| **voter != self.name);
        let vote_of = |voter: &String| votes.get(voter).cloned().flatten();
        let votes: Votes = voters.map(|voter| (voter.clone(), vote_of(voter))).collect();
        let begun = begins(&self.name, &kept.nonce, &votes, patience);
        let is_another_s = |token: &&Token| {
            let held = |vote: &Option<Vote>| matches!(vote, Some(Vote::Begins { token: one }) if one == *token);
            votes.values().any(held)
        };
        if let Some(token) = begun.as_ref().filter(is_another_s) {
            return self.takes_part(kept, token.clone(), account);
        }
        let members = match (others.members(within).await, begun) {
            (Ok(members), _) => members,
            (Err(error), _) if !error.is_no_quorum() => return Err(error.into()),
            (Err(_), Some(token)) => return self.takes_part(kept, token, account),
            (Err(error), None) => return Err(MemberError::Waits(error)),
        };
        let url = self.peer_url(&self.name);
        match members.iter().find(|member| member.peer_urls.contains(&url)) {
            // One that was not added in this life of the directory may have acknowledged something in another,
            // also where it never told its address.
            Some(member) if kept.added && member.client_urls.is_empty() => {}
            Some(member) => {
                // They may have begun with this very directory, and not have said so yet: it takes no part in
                // that any more, or it would come as the one that is removed here (seen: the addition was
                // refused, because they had only just begun).
                kept = self.another_life(account)?;
                others.remove_member(member.id, within).await?;
                others.add_member(&url, within).await?;
            }
            None if members.len() < self.voters.len() => others.add_member(&url, within).await?,
            None => {
                let (name, members) = (self.name.clone(), self.initial_cluster(&members));
                return Err(MemberError::NotAmongThem { name, members });
            }
        }
        self.keep(&Kept { added: true, ..kept }, account)?;
        let members = self.initial_cluster(&others.members(within).await?);
        Ok(Beginning::Joins { members })
    }

    /// Afterwards what was begun with this directory does not count for it.
    fn another_life(&self, account: &Account) -> Result<Kept, FileError> {
        let kept = Kept { nonce: nonce(), token: None, added: false, voted: false };
        self.keep(&kept, account)?;
        Ok(kept)
    }

    fn takes_part(
        &self,
        kept: Kept,
        token: Token,
        account: &Account,
    ) -> Result<Beginning, MemberError> {
        self.keep(&Kept { token: Some(token.clone()), ..kept }, account)?;
        Ok(Beginning::Together { token })
    }

    /// etcd, in the foreground.
    pub fn program(&self, account: &Account, beginning: &Beginning) -> Program {
        let program =
            Program::new("etcd").account(account).umask(0o077).current_dir(&self.directory);
        let program = program.reworded(words::for_people);
        self.flags(beginning).into_iter().fold(program, |program, (flag, value)| {
            // One that is also in the environment would be fatal.
            let variable = format!("ETCD_{}", flag.to_uppercase().replace('-', "_"));
            program.env_remove(variable).arg(format!("--{flag}={value}"))
        })
    }

    /// What `program` is told.
    pub fn flags(&self, beginning: &Beginning) -> Vec<(&'static str, String)> {
        let everywhere = listen_host();
        let [port, peer_port] = self.ports();
        let all = || joined(self.voters.iter().map(|one| (one.as_str(), self.peer_url(one))));
        let cluster = &self.cluster;
        let (state, members, token) = match beginning {
            Beginning::GoesOn => ("new", all(), cluster.clone()), // Its data says otherwise.
            // Its members are all voters, or half of them could be a majority.
            Beginning::Together { token } => ("new", all(), format!("{cluster}/{token}")),
            Beginning::Joins { members } => ("existing", members.clone(), cluster.clone()),
        };
        let Files { authority, certificate, key } = &self.files;
        let [authority, certificate, key] =
            [authority, certificate, key].map(|path| path.display().to_string());
        let election = self.heartbeat * HEARTBEATS_OF_AN_ELECTION;
        let flag = |is: bool| is.to_string();
        vec![
            ("name", self.name.clone()),
            ("data-dir", self.data.display().to_string()),
            ("listen-client-urls", format!("https://{everywhere}:{port}")),
            ("advertise-client-urls", url(&self.name, port)),
            ("listen-peer-urls", format!("https://{everywhere}:{peer_port}")),
            ("initial-advertise-peer-urls", self.peer_url(&self.name)),
            ("initial-cluster", members),
            ("initial-cluster-state", state.to_owned()),
            ("initial-cluster-token", token),
            ("trusted-ca-file", authority.clone()),
            ("cert-file", certificate.clone()),
            ("key-file", key.clone()),
            ("client-cert-auth", flag(true)),
            ("peer-trusted-ca-file", authority),
            ("peer-cert-file", certificate),
            ("peer-key-file", key),
            ("peer-client-cert-auth", flag(true)),
            // A peer's address need not resolve to its name; the authority is the cluster's own.
            ("experimental-peer-skip-client-san-verification", flag(true)),
            ("heartbeat-interval", self.heartbeat.as_millis().to_string()),
            ("election-timeout", election.as_millis().to_string()),
            // 3.4 has it off: one that was cut off would depose the leader when it is back.
            ("pre-vote", flag(true)),
            ("auto-compaction-mode", "revision".to_owned()),
            ("auto-compaction-retention", REVISIONS_KEPT.to_string()),
            ("quota-backend-bytes", QUOTA_BYTES.to_string()),
            ("snapshot-count", ENTRIES_PER_SNAPSHOT.to_string()),
            ("logger", "zap".to_owned()),
            ("log-outputs", "stderr".to_owned()),
            ("log-level", "warn".to_owned()),
        ]
    }

    fn initial_cluster(&self, members: &[Listed]) -> String {
        let named = members.iter().flat_map(|member| {
            member.peer_urls.iter().map(|url| {
                // One that was never started has no name yet, but for the voter that it is.
                let voter = self.voters.iter().find(|voter| self.peer_url(voter) == *url);
                let name = if member.name.is_empty() { voter } else { Some(&member.name) };
                (name.map_or("unnamed", String::as_str), url.clone())
            })
        });
        joined(named)
    }

    fn peer_url(&self, voter: &str) -> String {
        url(voter, self.port + 1)
    }
}

fn url(host: &str, port: u16) -> String {
    EtcdEndpoint { tls: true, host: host.to_owned(), port }.to_string()
}

fn joined<'a>(members: impl Iterator<Item = (&'a str, String)>) -> String {
    members.map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

/// Every address of the machine, of both families where there are two.
fn listen_host() -> &'static str {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => "[::]",
        Err(_) => "0.0.0.0",
    }
}

#[cfg(test)]
mod tests;
