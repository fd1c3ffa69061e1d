//! Questions to another node's server, over the network.
//!
//! Every answer comes within seconds or counts as none. "Cannot connect" and "the question failed"
//! are two things, and neither is ever a "no".

mod slots;

pub use slots::Slot;

use crate::cluster::{Address, History, Lsn, NodeId, Role, SystemId, Timeline};
use crate::postgres::conninfo;
use crate::settings::Settings;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Row};

/// From the look-up of its name to the end of the handshake. A peer in the same network takes
/// milliseconds, one whose host is gone takes for ever.
const CONNECT_AT_MOST: Duration = Duration::from_secs(2);
/// Nothing asked here takes longer by itself; a server that is frozen never answers.
const ANSWER_AT_MOST: Duration = Duration::from_secs(5);
/// A checkpoint writes all of the server's memory to its disk.
const CHECKPOINT_AT_MOST: Duration = Duration::from_secs(10 * 60);

/// What an operator set for a role or a server may neither change what is read nor keep us from
/// writing or have us wait for a standby.
const OPTIONS: &str = "-c search_path=pg_catalog -c statement_timeout=0 -c lock_timeout=0 \
    -c default_transaction_read_only=off -c synchronous_commit=local";

/// As whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// What a node is, whom it knows, how it is.
    Repmgr,
    /// Its files and its slots.
    Streaming,
}

/// A connection to another node's database repmgr.
#[derive(Debug)]
pub struct Peer {
    address: Address,
    client: Client,
    connection: JoinHandle<()>,
}

/// What another node's server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Whether it replays another's WAL.
    pub role: Role,
    /// The timeline that it writes or replays, right from the moment of a promotion on.
    pub timeline: Timeline,
    /// Written or replayed up to here.
    pub lsn: Lsn,
    /// Which cluster this is a copy of.
    pub system: SystemId,
    /// `cluster_name`: its node's name.
    pub name: String,
}

/// A row of `repmgr.nodes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// repmgr's number.
    pub id: NodeId,
    /// `REPMGR_NODE_NAME`.
    pub name: String,
    /// `primary`, `standby` or `witness`, as last recorded.
    pub kind: String,
    /// repmgr has not marked it as gone.
    pub active: bool,
    /// Whom it streams from, as last recorded.
    pub upstream: Option<NodeId>,
    /// Where it is found; `None` where the record does not name one host.
    pub address: Option<Address>,
    /// repmgr's priority.
    pub priority: u32,
    /// repmgr's location.
    pub location: String,
}

impl Record {
    /// All of them, in the database repmgr.
    pub(in crate::postgres) const ALL: &str = "SELECT node_id, node_name, type, active, \
        upstream_node_id, conninfo, priority, location FROM repmgr.nodes ORDER BY node_id";

    /// From a row of [`Record::ALL`].
    pub(in crate::postgres) fn of(row: &Row) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let id = |number: i32| number.to_string().parse::<NodeId>();
        Ok(Record {
            id: id(row.try_get(0)?)?,
            name: row.try_get(1)?,
            kind: row.try_get(2)?,
            active: row.try_get(3)?,
            upstream: row.try_get::<_, Option<i32>>(4)?.map(id).transpose()?,
            address: conninfo::address(row.try_get(5)?),
            priority: u32::try_from(row.try_get::<_, i32>(6)?)?,
            location: row.try_get(7)?,
        })
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Nobody answered in time, or the connection broke. That says nothing about the other node.
    #[error("{address} does not answer")]
    Silent {
        /// Who.
        address: Address,
        /// Why, where more is known than that time ran out.
        #[source]
        source: Option<tokio_postgres::Error>,
    },
    /// A server is there and starts up, shuts down or recovers.
    #[error("{address} is not ready to answer")]
    NotYet {
        /// Who.
        address: Address,
        /// Its words.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A server is there and does not let us in: another password, no such database, a rule.
    #[error("{address} does not let {user} in{}", hint(.user, .source))]
    Refuses {
        /// Who.
        address: Address,
        /// Whom.
        user: &'static str,
        /// Its words.
        #[source]
        source: tokio_postgres::Error,
    },
    /// It let us in, and could not do what was asked.
    #[error("{address} cannot {doing}")]
    Failed {
        /// Who.
        address: Address,
        /// What was asked.
        doing: String,
        /// Its words, or what is wrong with its answer.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl PeerError {
    /// The server's error code, if it is the server that said no.
    fn code(&self) -> Option<&SqlState> {
        match self {
            PeerError::Silent { .. } => None,
            PeerError::NotYet { source, .. } | PeerError::Refuses { source, .. } => source.code(),
            PeerError::Failed { source, .. } => {
                source.downcast_ref::<tokio_postgres::error::DbError>().map(|words| words.code())
            }
        }
    }
}

impl As {
    fn role(self) -> &'static str {
        match self {
            As::Repmgr => "repmgr",
            As::Streaming => "repmgr_streaming",
        }
    }
}

impl Peer {
    /// Connects to the database repmgr of the server at `address`.
    pub async fn open(settings: &Settings, address: &Address, who: As) -> Result<Peer, PeerError> {
        let password = match who {
            As::Repmgr => &settings.repmgr.password,
            As::Streaming => &settings.repmgr.streaming_password,
        };
        let mut server = tokio_postgres::Config::new();
        server
            .host(&address.host)
            .port(address.port)
            .user(who.role())
            .password(password.expose())
            .dbname("repmgr")
            .application_name("pgherd")
            .connect_timeout(CONNECT_AT_MOST)
            .options(OPTIONS);
        let address = address.clone();
        match tokio::time::timeout(CONNECT_AT_MOST, server.connect(NoTls)).await {
            Err(_) => Err(PeerError::Silent { address, source: None }),
            Ok(Err(error)) => Err(not_let_in(address, who.role(), error)),
            Ok(Ok((client, connection))) => {
                let connection = tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "connection to a peer ended");
                    }
                });
                Ok(Peer { address, client, connection })
            }
        }
    }

    /// Whom it is connected to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Role, timeline and position. As [`As::Repmgr`], who may see a standby's receiver.
    pub async fn serving(&self) -> Result<Serving, PeerError> {
        // The checkpoint's timeline is late on both: a primary's first checkpoint on a new one may
        // be minutes away, and a standby has received before it has replayed.
        let doing = "say what it does";
        let rows = self.rows(doing, include_str!("../../../templates/sql/serving.sql")).await?;
        let parse = |row: &Row| {
            let timeline = match row.try_get::<_, Option<&str>>("writes")? {
                Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16)?,
                None => u32::try_from(row.try_get::<_, i32>("replays")?)?,
            };
            Ok(Serving {
                role: if row.try_get("in_recovery")? { Role::Standby } else { Role::Primary },
                timeline: Timeline(timeline),
                lsn: row.try_get::<_, &str>("lsn")?.parse()?,
                // Signed in SQL, which has no other.
                system: SystemId(row.try_get::<_, i64>("system")?.cast_unsigned()),
                name: row.try_get("name")?,
            })
        };
        self.one(doing, &rows, parse)
    }

    /// All nodes that are or were recorded, by their numbers. As [`As::Repmgr`].
    pub async fn records(&self) -> Result<Vec<Record>, PeerError> {
        let doing = "list the nodes of its cluster";
        let rows = self.rows(doing, Record::ALL).await?;
        let records = rows.iter().map(Record::of).collect::<Result<_, _>>();
        records.map_err(|source| self.failed(doing, source))
    }

    /// The way to `timeline`, which it has been on or is. As [`As::Streaming`], who may read files.
    pub async fn history(&self, timeline: Timeline) -> Result<History, PeerError> {
        if timeline == Timeline(1) {
            return Ok(History::first()); // It has no file.
        }
        let doing = format!("show the history of timeline {timeline}");
        // As long as a file of a few thousand promotions; NULL where it is missing.
        let sql = format!(
            "SELECT pg_read_binary_file('pg_wal/{:08X}.history', 0, 1048576, true)",
            timeline.0
        );
        let rows = self.rows(&doing, &sql).await?;
        self.one(&doing, &rows, |row| {
            let bytes = row.try_get::<_, Option<&[u8]>>(0)?.ok_or("it has no such file")?;
            let history = History::parse(timeline, std::str::from_utf8(bytes)?);
            Ok(history.ok_or("the file is no history")?)
        })
    }

    /// Whether a standby that has everything up to `lsn` of `timeline` finds what follows among
    /// this server's WAL files. Whether it is on the way of `history`, this server's, at all is for that to
    /// say. As [`As::Streaming`].
    pub async fn has_wal_from(
        &self,
        history: &History,
        timeline: Timeline,
        lsn: Lsn,
    ) -> Result<bool, PeerError> {
        // A file with the same number of a timeline that leads elsewhere is no help: a restored or rewound
        // server may have some.
        let ways = history.before.iter().map(|(before, _)| *before).chain([history.timeline]);
        let ways = ways.filter(|way| *way >= timeline);
        let ways: Vec<_> = ways.map(|way| format!("'{:08X}'", way.0)).collect();
        // A standby asks from the beginning of the segment. The one in which the next timeline
        // begins is kept under that one's name only (`WalSndSegmentOpen` in walsender.c). Where
        // the server itself has not written further, there is nothing that could be missing.
        let sql = format!(
            "WITH segment AS (SELECT pg_size_bytes(current_setting('wal_segment_size')) AS bytes), \
             wanted AS (SELECT trunc({lsn} / bytes) AS number, 4294967296 / bytes AS in_one \
                        FROM segment), \
             name AS (SELECT upper(lpad(to_hex(div(number, in_one)::bigint), 8, '0') || \
                                   lpad(to_hex(mod(number, in_one)::bigint), 8, '0')) AS last \
                      FROM wanted) \
             SELECT EXISTS (SELECT FROM name, pg_ls_dir('pg_wal', true, false) AS file \
                            WHERE file ~ '^[0-9A-F]{{24}}$' AND right(file, 16) = last \
                            AND left(file, 8) IN ({ways})) \
             OR '{at}'::pg_lsn >= CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                                       ELSE pg_current_wal_lsn() END",
            lsn = format_args!("{}::numeric", lsn.0),
            ways = ways.join(", "),
            at = lsn,
        );
        let doing = format!("look for its WAL from {lsn} on");
        let rows = self.rows(&doing, &sql).await?;
        self.one(&doing, &rows, |row| Ok(row.try_get(0)?))
    }

    /// How large each of its WAL files is.
    pub async fn wal_segment_bytes(&self) -> Result<u64, PeerError> {
        let doing = "say how large its WAL files are";
        let sql = "SELECT pg_size_bytes(current_setting('wal_segment_size'))";
        let rows = self.rows(doing, sql).await?;
        self.one(doing, &rows, |row| Ok(u64::try_from(row.try_get::<_, i64>(0)?)?))
    }

    /// Where its tablespaces lie, apart from those inside its data directory.
    pub async fn tablespaces(&self) -> Result<Vec<PathBuf>, PeerError> {
        let doing = "list its tablespaces";
        let sql = "SELECT location FROM pg_tablespace, pg_tablespace_location(oid) AS location \
                   WHERE location LIKE '/%'";
        let rows = self.rows(doing, sql).await?;
        let parse = |row: &Row| Ok(PathBuf::from(row.try_get::<_, &str>(0)?));
        let found = rows.iter().map(parse).collect::<Result<_, _>>();
        found.map_err(|source| self.failed(doing, source))
    }

    /// Afterwards its control file says what it is: on 15 `pg_rewind` reads the source's timeline
    /// there, and takes a new primary for what it was before. As [`As::Repmgr`].
    pub async fn checkpoint(&self) -> Result<(), PeerError> {
        self.within(
            "write a checkpoint",
            CHECKPOINT_AT_MOST,
            self.client.batch_execute("CHECKPOINT"),
        )
        .await
    }

    /// Says good-bye and waits until that is said.
    pub async fn close(self) {
        drop(self.client);
        let _ = tokio::time::timeout(CONNECT_AT_MOST, self.connection).await;
    }

    async fn rows(&self, doing: &str, query: &str) -> Result<Vec<Row>, PeerError> {
        self.within(doing, ANSWER_AT_MOST, self.client.query(query, &[])).await
    }

    /// Runs a statement that returns nothing of interest. `doing` completes "cannot …".
    pub async fn run(&self, doing: &str, statement: &str) -> Result<(), PeerError> {
        self.within(doing, ANSWER_AT_MOST, self.client.batch_execute(statement)).await
    }

    async fn within<T>(
        &self,
        doing: &str,
        at_most: Duration,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PeerError> {
        let address = || self.address.clone();
        match tokio::time::timeout(at_most, asked).await {
            Err(_) => Err(PeerError::Silent { address: address(), source: None }),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(match error.as_db_error() {
                // "terminating connection due to administrator command" and the like.
                Some(words) if is_going(words.code()) => {
                    PeerError::NotYet { address: address(), source: error }
                }
                Some(words) => self.failed(doing, words.clone().into()),
                None => PeerError::Silent { address: address(), source: Some(error) },
            }),
        }
    }

    fn one<T>(
        &self,
        doing: &str,
        rows: &[Row],
        parse: impl FnOnce(&Row) -> Result<T, Box<dyn Error + Send + Sync>>,
    ) -> Result<T, PeerError> {
        let row = rows.first().ok_or_else(|| "it answered nothing".into());
        row.and_then(parse).map_err(|source| self.failed(doing, source))
    }

    fn failed(&self, doing: &str, source: Box<dyn Error + Send + Sync>) -> PeerError {
        PeerError::Failed { address: self.address.clone(), doing: doing.to_owned(), source }
    }
}

fn not_let_in(address: Address, user: &'static str, error: tokio_postgres::Error) -> PeerError {
    match error.code() {
        Some(code) if is_going(code) => PeerError::NotYet { address, source: error },
        // The others may have taken all connections: that is no word about us.
        Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => {
            PeerError::NotYet { address, source: error }
        }
        Some(_) => PeerError::Refuses { address, user, source: error },
        None => PeerError::Silent { address, source: Some(error) },
    }
}

/// What is likely to be wrong.
fn hint(user: &str, error: &tokio_postgres::Error) -> String {
    let variable = if user == "repmgr" { "REPMGR_PASSWORD" } else { "REPMGR_STREAMING_PASSWORD" };
    match error.code() {
        Some(code) if *code == SqlState::INVALID_PASSWORD => {
            format!(" (is {variable} the same on both nodes?)")
        }
        _ => String::new(),
    }
}

/// It starts up or shuts down, or its postmaster is gone.
fn is_going(code: &SqlState) -> bool {
    let codes = [SqlState::CANNOT_CONNECT_NOW, SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
    codes.contains(code)
}
