//! A voter's own etcd: how it is run, and how it begins.
//!
//! The hard part is an empty directory. A voter whose disk was lost has forgotten whom it voted for
//! and what it has acknowledged; were it to begin as if nothing had been, then together with one that
//! lags behind it could make a majority that knows less than an earlier one did. So it begins a new
//! cluster only where a majority of the voters is new, and joins one that there is under another number.

use super::client::Client;
use super::error::EtcdError;
use super::json::Listed;
use super::tls::{self, Files, TlsError};
use crate::cluster::Address;
use crate::layout::Layout;
use crate::settings::{EtcdEndpoint, Failover, Settings};
use crate::system::account::Account;
use crate::system::child::Program;
use crate::system::files::{FileError, acting_as, empty_directory, ensure_directory, ensure_file};
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
    voted: PathBuf,
}

/// What etcd is to do when its directory is empty; one that is not says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It goes on, or all begin together.
    Together,
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
            voted: directory.join("voted"),
            directory,
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

    /// It has never been seen to be part of a majority: what it could have forgotten, nobody knew.
    /// The others' [`Member::prepare`] wants to know.
    pub fn is_new(&self) -> bool {
        !self.voted.exists()
    }

    /// Its etcd has answered a question that needs a majority. Costs nothing the second time.
    pub fn note_voted(&self, account: &Account) -> Result<(), FileError> {
        let text = "This voter's etcd has been part of a majority.\n";
        ensure_file(&self.voted, text, 0o600, account).map(drop)
    }

    /// How many have a vote.
    pub fn voters(&self) -> usize {
        self.voters.len()
    }

    /// Afterwards its etcd remembers nothing. That it has voted it remembers.
    pub fn forget(&self, account: &Account) -> Result<(), FileError> {
        acting_as(account, || empty_directory(&self.data, &[]))
    }

    /// A client of the other voters.
    pub fn others(&self, settings: &Settings) -> Result<Client, TlsError> {
        let others = self.voters.iter().filter(|voter| **voter != self.name).cloned();
        let port = self.port;
        let endpoints = others.map(|host| EtcdEndpoint { tls: true, host, port });
        let tls = tls::ours(&settings.herd.control_token, &self.cluster)?;
        Ok(Client::new(endpoints, Some(tls), None))
    }

    /// How it begins. With data, it goes on. Without: it joins the others where they have a majority,
    /// taking the place of the one that it was before its disk was lost; and if they have none, they
    /// begin together, given that `others_new` other voters (see [`Member::is_new`]) and itself are a
    /// majority. Else it waits: ask again.
    pub async fn prepare(
        &self,
        others: &Client,
        others_new: usize,
        within: Duration,
    ) -> Result<Beginning, MemberError> {
        if self.data.join("member/wal").exists() {
            return Ok(Beginning::Together);
        }
        let members = match others.members(within).await {
            Ok(members) => members,
            Err(error) if !error.is_no_quorum() => return Err(error.into()),
            Err(_) if (others_new + 1) * 2 > self.voters.len() => return Ok(Beginning::Together),
            Err(error) => return Err(MemberError::Waits(error)),
        };
        let url = self.peer_url(&self.name);
        match members.iter().find(|member| member.peer_urls.contains(&url)) {
            Some(member) if member.client_urls.is_empty() => {} // It is awaited.
            Some(member) => {
                others.remove_member(member.id, within).await?;
                others.add_member(&url, within).await?;
            }
            None if members.len() < self.voters.len() => others.add_member(&url, within).await?,
            None => {
                let (name, members) = (self.name.clone(), self.initial_cluster(&members));
                return Err(MemberError::NotAmongThem { name, members });
            }
        }
        let members = self.initial_cluster(&others.members(within).await?);
        Ok(Beginning::Joins { members })
    }

    /// etcd, in the foreground.
    pub fn program(&self, account: &Account, beginning: &Beginning) -> Program {
        let program =
            Program::new("etcd").account(account).umask(0o077).current_dir(&self.directory);
        self.flags(beginning).into_iter().fold(program, |program, (flag, value)| {
            // One that is also in the environment would be fatal.
            let variable = format!("ETCD_{}", flag.to_uppercase().replace('-', "_"));
            program.env_remove(variable).arg(format!("--{flag}={value}"))
        })
    }

    /// What `program` is told.
    pub fn flags(&self, beginning: &Beginning) -> Vec<(&'static str, String)> {
        let everywhere = listen_host();
        let (port, peer_port) = (self.port, self.port + 1);
        let (state, members) = match beginning {
            Beginning::Together => {
                let all = self.voters.iter().map(|voter| (voter.as_str(), self.peer_url(voter)));
                ("new", joined(all))
            }
            Beginning::Joins { members } => ("existing", members.clone()),
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
            ("initial-cluster-token", self.cluster.clone()),
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
mod tests {
    use super::*;
    use crate::settings;

    fn member(vars: &[(&str, &str)]) -> Option<Member> {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = settings::read(vars, |_| unreachable!()).unwrap();
        let layout = Layout::new(&settings, 17, "/srv/17/docker".into(), false);
        let ourselves = Address { host: "node2".to_owned(), port: 5432 };
        Member::of(&settings, &layout, &ourselves)
    }

    fn flag(member: &Member, beginning: &Beginning, name: &str) -> String {
        let flags = member.flags(beginning);
        flags.into_iter().find(|(flag, _)| *flag == name).unwrap().1
    }

    const VOTERS: (&str, &str) = ("PGHERD_VOTERS", "node3 node1 node2:6000");

    #[test]
    fn only_a_voter_runs_one_and_only_without_another() {
        assert!(member(&[VOTERS]).is_some());
        assert!(member(&[("PGHERD_VOTERS", "node1 node3 node4")]).is_none());
        assert!(member(&[]).is_none());
        assert!(member(&[VOTERS, ("PGHERD_ETCD_ENDPOINTS", "etcd")]).is_none());
        assert!(member(&[VOTERS, ("PGHERD_FAILOVER", "manual")]).is_none());
    }

    #[test]
    fn voters_that_begin_together_say_the_same() {
        let member = member(&[VOTERS, ("PGHERD_ETCD_PORT", "4001")]).unwrap();
        let together = Beginning::Together;
        assert_eq!(
            flag(&member, &together, "initial-cluster"),
            "node1=https://node1:4002,node2=https://node2:4002,node3=https://node3:4002"
        );
        assert_eq!(flag(&member, &together, "initial-cluster-state"), "new");
        assert_eq!(flag(&member, &together, "advertise-client-urls"), "https://node2:4001");
        assert_eq!(flag(&member, &together, "data-dir"), "/var/lib/postgresql/pgherd/etcd/data");
        let joins = Beginning::Joins { members: "x".to_owned() };
        assert_eq!(flag(&member, &joins, "initial-cluster"), "x");
        assert_eq!(flag(&member, &joins, "initial-cluster-state"), "existing");
    }

    #[test]
    fn an_election_is_over_before_a_lease_is() {
        for (lease, heartbeat, election) in
            [("4s", "100", "1000"), ("2s", "50", "500"), ("60s", "250", "2500")]
        {
            let member = member(&[VOTERS, ("PGHERD_LEASE", lease)]).unwrap();
            assert_eq!(flag(&member, &Beginning::Together, "heartbeat-interval"), heartbeat);
            assert_eq!(flag(&member, &Beginning::Together, "election-timeout"), election);
        }
    }

    #[test]
    fn one_that_was_added_and_not_started_is_known_by_its_address() {
        let member = member(&[VOTERS]).unwrap();
        let listed = |name: &str, host: &str| Listed {
            name: name.to_owned(),
            peer_urls: vec![format!("https://{host}:2380")],
            ..Listed::default()
        };
        assert_eq!(
            member.initial_cluster(&[listed("node1", "node1"), listed("", "node2")]),
            "node1=https://node1:2380,node2=https://node2:2380"
        );
    }
}
