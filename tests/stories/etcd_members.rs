//! The voters' etcd, as Debian builds it, with our certificates, flags and client.

use crate::harness::{Container, Network, Recipe, await_that, docker, unique};
use pgherd::cluster::{Address, Token};
use pgherd::etcd::{
    Beginning, Client, EtcdError, Expected, Member, MemberError, Votes, Written, tls,
};
use pgherd::layout::Layout;
use pgherd::settings::{self, EtcdEndpoint, Secret, Settings};
use pgherd::system::account::Account;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

const VOTERS: [&str; 3] = ["node1", "node2", "node3"];
const WITHIN: Duration = Duration::from_secs(5);
const KEY: &str = "/pgherd/story/lead";

/// Three voters, each a container in which only etcd runs.
struct Voters {
    members: Vec<Member>,
    containers: Vec<Container>,
    network: Network,
    state: PathBuf,
}

impl Voters {
    /// All at the same time. Voter 3 has its certificate from `third_s_token`.
    fn start(third_s_token: &'static str) -> Self {
        let network = Network::new();
        let state = std::env::temp_dir().join(unique("etcd"));
        let mut voters = Voters { members: Vec::new(), containers: Vec::new(), network, state };
        for (index, name) in VOTERS.iter().enumerate() {
            let token = if index == 2 { third_s_token } else { "token" };
            voters.members.push(voters.member(name, token));
            let container = voters.begin(index, &Beginning::Together { token: of_all() });
            voters.containers.push(container);
        }
        voters
    }

    /// With its files in a directory of this machine, which is copied into the container.
    fn member(&self, name: &str, token: &'static str) -> Member {
        let vars = [
            ("PGHERD_VOTERS", VOTERS.join(",")),
            ("PGHERD_CONTROL_TOKEN", token.to_owned()),
            ("POSTGRES_DATA_DIR", self.state.join(name).display().to_string()),
            // The machine that tests may be slow; what is tried does not depend on it.
            ("PGHERD_LEASE", "10s".to_owned()),
        ];
        let settings = read(vars);
        let layout = Layout::new(&settings, 17, "/nowhere".into(), false);
        let ourselves = Address { host: name.to_owned(), port: 5432 };
        let member = Member::of(&settings, &layout, &ourselves).expect("a voter");
        member.write_files(&settings, "a-hostname", &Account::current()).expect("written");
        assert!(member.may_found() && member.vote().is_none());
        member
    }

    fn begin(&self, index: usize, beginning: &Beginning) -> Container {
        let member = &self.members[index];
        let flags = member.flags(beginning);
        let flags: Vec<_> = flags.iter().map(|(flag, value)| format!("--{flag}={value}")).collect();
        let recipe = Recipe::node("some-other-name")
            .network(&self.network, &member.name)
            .entrypoint("etcd")
            .option("-p")
            .option("127.0.0.1::2379")
            .command(flags.iter().map(String::as_str));
        let container = recipe.create();
        // With all directories above it, which the image does not have.
        let tree = self.state.components().nth(1).expect("/tmp").as_os_str().to_owned();
        let copy = std::env::temp_dir().join(unique("tree"));
        let beneath = copy.join(self.state.strip_prefix("/").expect("absolute"));
        std::fs::create_dir_all(&beneath).expect("ours");
        let (from, to) = (self.state.join(&member.name), beneath.join(&member.name));
        copied(&from, &to);
        let (from, to) = (copy.join(&tree), format!("{}:/", container.name));
        docker(["cp".as_ref(), from.as_os_str(), to.as_ref()]).ok();
        std::fs::remove_dir_all(&copy).expect("ours");
        docker(["start", &container.name]).ok();
        container
    }

    fn endpoint(&self, index: usize) -> EtcdEndpoint {
        let shown = docker(["port", &self.containers[index].name, "2379"]).ok();
        let (_, port) = shown.rsplit_once(':').expect("an address");
        let port = port.parse().expect("a port");
        EtcdEndpoint { tls: true, host: Ipv4Addr::LOCALHOST.to_string(), port }
    }

    fn client(&self, which: &[usize], token: &'static str) -> Client {
        let tls = tls::ours(&Secret::from(token), "pgherd").expect("certificates");
        Client::new(which.iter().map(|index| self.endpoint(*index)), Some(tls), None)
    }
}

impl Drop for Voters {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

/// As they would agree on.
fn of_all() -> Token {
    Token(VOTERS.map(|name| (name.to_owned(), "1".to_owned())).into())
}

/// How `member` begins, where the others are etcds without a pgherd.
fn prepared(member: &Member, others: &Client) -> Result<Beginning, MemberError> {
    let us = Account::current();
    running(member.prepare(others, &Votes::new(), false, &us, WITHIN))
}

fn copied(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("ours");
    for entry in std::fs::read_dir(from).expect("ours").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copied(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("ours");
        }
    }
}

fn read<const N: usize>(vars: [(&str, String); N]) -> Settings {
    let vars = vars.map(|(name, value)| (name.to_owned(), value));
    settings::read(vars, |_| unreachable!("no variable names a file")).expect("good settings")
}

fn running<T>(asking: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(asking)
}

async fn await_quorum(client: &Client) {
    let mut last = None;
    for _ in 0..20 {
        match client.get(KEY, WITHIN).await {
            Ok(_) => return,
            Err(error) => last = Some(error),
        }
        // A container that starts refuses at once; there is nothing else to wait for.
        tokio::task::spawn_blocking(|| std::thread::park_timeout(Duration::from_millis(250)))
            .await
            .expect("nobody calls it off");
    }
    panic!("{last:?}");
}

#[test]
#[ignore = "needs docker: make test"]
fn one_of_two_who_want_the_same_key_gets_it_whichever_voter_is_gone() {
    let voters = Voters::start("token");
    let all = voters.client(&[0, 1, 2], "token");
    running(async {
        await_quorum(&all).await;
        let first = all.put_if(KEY, Expected::Absent, "a", WITHIN).await.expect("put");
        let Written::Done { revision } = first else { panic!("{first:?}") };
        let second = all.put_if(KEY, Expected::Absent, "b", WITHIN).await.expect("asked");
        let Written::Changed { now: Some(now) } = second else { panic!("{second:?}") };
        assert_eq!((now.value.as_str(), now.revision), ("a", revision));
        let again = all.put_if(KEY, Expected::Absent, "a", WITHIN).await.expect("asked");
        assert_eq!(again, Written::Done { revision }, "it was ours");

        // One freezes, whichever it is, and the others go on.
        let mut at = revision;
        for index in 0..3 {
            voters.containers[index].pause();
            await_quorum(&all).await;
            let value = format!("without {index}");
            let put = all.put_if(KEY, Expected::At(at), &value, WITHIN).await.expect("put");
            let Written::Done { revision } = put else { panic!("{put:?}") };
            at = revision;
            voters.containers[index].unpause();
        }
        // Two are too many.
        voters.containers[0].pause();
        voters.containers[1].pause();
        let within = Duration::from_secs(2);
        let error = all.put_if(KEY, Expected::At(at), "minority", within).await.unwrap_err();
        assert!(error.is_no_quorum(), "{error}");
        voters.containers[0].unpause();
        voters.containers[1].unpause();
    });
}

#[test]
#[ignore = "needs docker: make test"]
fn who_has_another_token_or_none_is_not_let_in() {
    // The third voter's peers are those of another cluster, to it.
    let voters = Voters::start("another");
    running(async {
        await_quorum(&voters.client(&[0, 1], "token")).await;
        let stranger = voters.client(&[0, 1], "another").get(KEY, WITHIN).await.unwrap_err();
        assert!(matches!(stranger, EtcdError::Credentials(_)), "{stranger}");
        let third = voters.client(&[2], "another").get(KEY, Duration::from_secs(3)).await;
        assert!(third.unwrap_err().is_no_quorum(), "it is no part of the cluster");
        let members = voters.client(&[0, 1], "token").members(WITHIN).await.expect("a majority");
        let third = members.iter().find(|member| member.name == "node3").expect("listed");
        assert!(third.client_urls.is_empty(), "it never got in");
    });
    let EtcdEndpoint { host, port, .. } = voters.endpoint(0);
    #[expect(clippy::disallowed_methods, reason = "who has no certificate is not our client")]
    let mut curl = std::process::Command::new("curl");
    let url = format!("https://{host}:{port}/v3/kv/range");
    if let Ok(nobody) = curl.args(["-sk", "-m", "5", "-d", "{}", &url]).output() {
        assert!(!nobody.status.success() && nobody.stdout.is_empty(), "{nobody:?}");
    }
}

#[test]
#[ignore = "needs docker: make test"]
fn a_voter_whose_disk_was_lost_joins_again_and_only_where_there_is_a_majority() {
    let mut voters = Voters::start("token");
    let others = voters.client(&[0, 1], "token");
    let member = voters.members[2].clone();
    running(async {
        await_quorum(&others).await;
        others.put(KEY, "kept", WITHIN).await.expect("put");
    });
    await_that("the third has told its address", || {
        let members = running(others.members(WITHIN)).ok()?;
        members.iter().all(|member| !member.client_urls.is_empty()).then_some(())
    });
    let before = running(others.members(WITHIN)).expect("a majority");

    let lost = voters.containers.pop().expect("three");
    drop(lost);
    // Without a majority it is not known what it knew.
    voters.containers[0].pause();
    let waits = prepared(&member, &others);
    assert!(waits.is_err(), "{waits:?}");
    voters.containers[0].unpause();

    let beginning = await_that("the others take it in again", || prepared(&member, &others).ok());
    assert!(matches!(beginning, Beginning::Joins { .. }), "{beginning:?}");
    // Killed before etcd began: the same again.
    let again = prepared(&member, &others).expect("it is awaited");
    assert_eq!(again, beginning);
    let third = voters.begin(2, &beginning);
    voters.containers.push(third);
    let itself = voters.client(&[2], "token");
    running(async {
        await_quorum(&itself).await;
        assert_eq!(itself.get(KEY, WITHIN).await.expect("asked").expect("there").value, "kept");
        let now = itself.members(WITHIN).await.expect("a majority");
        assert_eq!(now.len(), 3);
        let number = |members: &[pgherd::etcd::Listed]| {
            members.iter().find(|member| member.name == "node3").map(|member| member.id)
        };
        assert_ne!(number(&now), number(&before), "its votes of before are nobody's");
    });
}
