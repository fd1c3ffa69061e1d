//! Questions to our own server, as the superuser over its socket.

use super::password;
use super::peer::Record;
use crate::cluster::{Address, Lsn, Role, SystemId, Timeline};
use crate::layout::Layout;
use crate::service::Listen;
use crate::settings::{Secret, Settings};
use std::error::Error;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Row};

/// A server that is up answers within milliseconds; one that is short of everything, later.
/// The whole handshake: a postmaster that is frozen is still connected to by the kernel.
const OPEN_AT_MOST: Duration = Duration::from_secs(30);
/// Nothing we ask for takes a second by itself; but it may wait for a lock of somebody's, and
/// `CREATE DATABASE` for a checkpoint on a slow disk.
const STATEMENT_AT_MOST: Duration = Duration::from_secs(10 * 60);

/// Nothing that an operator set, for a role, a database or the server, may change what we read,
/// keep us from writing, or have us wait for a standby that is not there. And whatever they have
/// logged, our statements are not: some have a verifier in them.
const OPTIONS: &str = "-c search_path=pg_catalog -c statement_timeout=0 \
    -c default_transaction_read_only=off -c synchronous_commit=local -c log_statement=none \
    -c log_min_duration_statement=-1 -c log_min_duration_sample=-1 \
    -c log_transaction_sample_rate=0 -c log_min_error_statement=panic";

/// A connection to one database.
#[derive(Debug)]
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
}

/// A question that was not answered. See [`SqlError::is_silence`] for which of them says
/// something about the server's health.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// Nobody answered, or not to us.
    #[error("cannot connect to database {database} as {user} (POSTGRES_USER)")]
    Connect {
        /// Which database.
        database: String,
        /// As whom.
        user: String,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The server refused a statement.
    #[error("cannot {doing}")]
    Query {
        /// What the statement was for.
        doing: String,
        /// The server's words.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server said nothing.
    #[error("cannot {doing}: no answer within {} s", .at_most.as_secs())]
    Late {
        /// What was asked for.
        doing: String,
        /// How long was waited.
        at_most: Duration,
    },
}

impl SqlError {
    /// Nobody could be served just now. A server that refuses us, or a statement of ours, does
    /// serve.
    pub fn is_silence(&self) -> bool {
        match self {
            SqlError::Connect { source, .. } => {
                source.code().is_none_or(|code| *code == SqlState::CANNOT_CONNECT_NOW)
            }
            SqlError::Query { .. } => false,
            SqlError::Late { .. } => true,
        }
    }
}

/// What a running server says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// Whether it replays another server's WAL.
    pub role: Role,
    /// Written (a primary) or replayed (a standby) up to here.
    pub lsn: Option<Lsn>,
    /// The branch of history it writes or replays.
    pub timeline: Timeline,
    /// Which cluster it is a copy of.
    pub system: SystemId,
    /// Whom it streams from at this moment.
    pub upstream: Option<Address>,
    /// It has replayed all that it can get, and gets no more.
    pub waits_for_wal: bool,
    /// How old what it replayed last is, where it has received more than that.
    pub lag_seconds: Option<f64>,
}

impl Session {
    /// Connects as the superuser over the socket that belongs to `listen`.
    pub async fn open(
        settings: &Settings,
        layout: &Layout,
        listen: Listen,
        database: &str,
    ) -> Result<Session, SqlError> {
        let user = &settings.postgres.user;
        let failed = |source| SqlError::Connect {
            database: database.to_owned(),
            user: user.clone(),
            source,
        };
        let mut server = tokio_postgres::Config::new();
        server
            .host_path(layout.socket_dir_of(listen))
            .port(listen.port())
            .user(user)
            // The socket asks for none, unless the operator's own rules do.
            .password(settings.postgres.password.expose())
            .dbname(database)
            .application_name("pgherd")
            .options(OPTIONS);
        let doing = format!("connect to database {database} as {user}");
        let connecting = async { server.connect(NoTls).await.map_err(failed) };
        let (client, connection) = within(&doing, OPEN_AT_MOST, connecting).await?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to our own server ended");
            }
        });
        Ok(Session { client, connection })
    }

    /// Says good-bye and waits until that is said: a server that is stopped the next moment
    /// would complain of us in its log.
    pub async fn close(self) {
        drop(self.client);
        let _ = self.connection.await; // It ends with the client.
    }

    /// Whether the connection is still of use.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Afterwards the login role exists and `password` is its password.
    pub async fn ensure_role(&self, role: &str, password: &Secret) -> Result<(), SqlError> {
        let name = identifier(role);
        let rows = self
            .rows(
                &format!("look up role {role}"),
                &format!("SELECT rolpassword FROM pg_authid WHERE rolname = {}", literal(role)),
            )
            .await?;
        let verb = match rows.first().map(|row| row.get::<_, Option<String>>(0)) {
            None => "CREATE",
            Some(Some(kept)) if password::matches(&kept, password) => {
                return Ok(());
            }
            Some(_) => "ALTER",
        };
        let verifier = password::verifier(password);
        self.run(
            &format!("set up role {role}"),
            &format!("{verb} ROLE {name} LOGIN PASSWORD {}", literal(&verifier)),
        )
        .await
    }

    /// Afterwards the database exists. One that is there is left as it is.
    pub async fn ensure_database(&self, name: &str) -> Result<(), SqlError> {
        let known = format!("SELECT FROM pg_database WHERE datname = {}", literal(name));
        if self.rows("list the databases", &known).await?.is_empty() {
            let create = format!("CREATE DATABASE {}", identifier(name));
            self.run(&format!("create database {name}"), &create).await?;
        }
        Ok(())
    }

    /// Role, position, timeline and upstream, in one cheap question.
    pub async fn health(&self) -> Result<Health, SqlError> {
        let doing = "ask the server for its state";
        let rows = self.rows(doing, include_str!("../../templates/sql/health.sql")).await?;
        let row = rows.first().expect("a SELECT without a table has one row");
        let in_recovery: bool = row.get("in_recovery");
        let timeline = match row.get::<_, Option<&str>>("writes") {
            Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).unwrap_or_default(),
            None => u32::try_from(row.get::<_, i32>("replays")).unwrap_or_default(),
        };
        let host: Option<String> = row.get("host");
        let port: Option<i32> = row.get("port");
        Ok(Health {
            role: if in_recovery { Role::Standby } else { Role::Primary },
            lsn: row.get::<_, Option<&str>>("lsn").and_then(|text| text.parse().ok()),
            timeline: Timeline(timeline),
            system: SystemId(row.get::<_, i64>("system").cast_unsigned()),
            upstream: host
                .zip(port)
                .and_then(|(host, port)| Some(Address { host, port: u16::try_from(port).ok()? })),
            waits_for_wal: row.get("waits_for_wal"),
            lag_seconds: row.get("lag_seconds"),
        })
    }

    /// repmgr's records, in the database repmgr.
    pub async fn records(&self) -> Result<Vec<Record>, SqlError> {
        let doing = "list repmgr's nodes";
        let rows = self.rows(doing, Record::ALL).await?;
        let records = rows.iter().map(Record::of).collect::<Result<_, _>>();
        records.map_err(|source| SqlError::Query { doing: doing.to_owned(), source })
    }

    /// Runs statements that return nothing of interest. `doing` completes "cannot …".
    pub async fn run(&self, doing: &str, statements: &str) -> Result<(), SqlError> {
        let ran = self.client.batch_execute(statements);
        let ran = async { ran.await.map_err(|error| query_error(doing, error)) };
        within(doing, STATEMENT_AT_MOST, ran).await
    }

    /// The one boolean that `query` returns.
    pub async fn is_true(&self, doing: &str, query: &str) -> Result<bool, SqlError> {
        Ok(self.rows(doing, query).await?.first().is_some_and(|row| row.get(0)))
    }

    pub(super) async fn rows(&self, doing: &str, query: &str) -> Result<Vec<Row>, SqlError> {
        let answer = self.client.query(query, &[]);
        let answer = async { answer.await.map_err(|error| query_error(doing, error)) };
        within(doing, STATEMENT_AT_MOST, answer).await
    }
}

/// What `asked` says, if it says so in time. `doing` completes "cannot …".
async fn within<T>(
    doing: &str,
    at_most: Duration,
    asked: impl Future<Output = Result<T, SqlError>>,
) -> Result<T, SqlError> {
    let late = |_| SqlError::Late { doing: doing.to_owned(), at_most };
    tokio::time::timeout(at_most, asked).await.map_err(late)?
}

/// tokio-postgres says "db error" and keeps the server's words in its source.
fn query_error(doing: &str, error: tokio_postgres::Error) -> SqlError {
    let source = match error.as_db_error() {
        Some(words) => words.clone().into(),
        None => error.into(),
    };
    SqlError::Query { doing: doing.to_owned(), source }
}

/// A name as SQL takes it.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it.
pub(crate) fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}
