//! The environment as written. Every field is a variable's name in lower case, in the order of the
//! contract's tables, and `default` has their third column. Nothing else lists the names.

use super::Secret;
use super::values::{
    AbsolutePath, BackupDir, BackupId, Backups, CloneFrom, CloudUrl, ClusterName, ConfigDir,
    DEFAULT_ETCD_PORT, DatabaseName, EndpointUrl, Endpoints, EtcdPort, Failover, Flag, GivenNodeId,
    Host, HostAuthMethod, InitdbArgs, Line, Location, LogFormat, Member, Members, NodeKind,
    NodeName, OomScore, Port, Priority, Retention, RoleName, Schedule, Source, Span, Synchronous,
    TargetAction, TargetLsn, TargetTime, TargetTimeline, TransactionId, Voters, WalCompression,
    WindowUnit,
};
use crate::cluster::{Address, SyncMode};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

#[derive(Clone, Deserialize, Serialize)]
// envy compares names in lower case; everybody else wants them as written.
#[serde(default, rename_all(serialize = "SCREAMING_SNAKE_CASE"))]
pub(super) struct Input {
    pub(super) postgres_port: Port,
    pub(super) postgres_technical_port: Port,
    pub(super) postgres_data_dir: AbsolutePath,
    pub(super) postgres_password: Secret,

    pub(super) repmgr_master: Flag,
    pub(super) repmgr_config_dir: ConfigDir,
    pub(super) repmgr_node_name: NodeName,
    pub(super) repmgr_slaves: Members,
    pub(super) repmgr_password: Secret,
    pub(super) repmgr_streaming_password: Secret,

    pub(super) barman_password: Secret,
    pub(super) barman_streaming_password: Secret,
    pub(super) barman_backup_dir: BackupDir,
    pub(super) barman_retention: Retention,
    pub(super) barman_config_dir: ConfigDir,

    pub(super) repmgr_master_host: Option<Member>,
    pub(super) repmgr_clone_from: CloneFrom,
    pub(super) repmgr_node_address: Option<Host>,
    pub(super) repmgr_node_id: Option<GivenNodeId>,
    pub(super) repmgr_priority: Priority,
    pub(super) repmgr_location: Location,

    pub(super) pgherd_cluster: ClusterName,
    pub(super) pgherd_role: NodeKind,
    pub(super) pgherd_backups: Backups,
    pub(super) pgherd_voters: Option<Voters>,
    pub(super) pgherd_etcd_port: EtcdPort,
    pub(super) pgherd_etcd_endpoints: Option<Endpoints>,
    pub(super) pgherd_etcd_ca_file: Option<AbsolutePath>,
    pub(super) pgherd_etcd_cert_file: Option<AbsolutePath>,
    pub(super) pgherd_etcd_key_file: Option<AbsolutePath>,
    pub(super) pgherd_etcd_user: Option<Line>,
    pub(super) pgherd_etcd_password: Option<Secret>,
    pub(super) pgherd_failover: Option<Failover>,
    pub(super) pgherd_lease: Span<2, 60>,
    pub(super) pgherd_synchronous: Synchronous,
    pub(super) pgherd_keep_old_data: Flag,
    pub(super) pgherd_http_port: Port,
    pub(super) pgherd_tls_cert_file: Option<AbsolutePath>,
    pub(super) pgherd_tls_key_file: Option<AbsolutePath>,
    pub(super) pgherd_tls_ca_file: Option<AbsolutePath>,
    pub(super) pgherd_control_token: Option<Secret>,
    pub(super) pgherd_stop_timeout: Span<5, 3600>,
    pub(super) pgherd_hook_timeout: Span<1, 60>,
    pub(super) pgherd_log_format: LogFormat,
    pub(super) pgherd_log: Line,

    pub(super) barman_schedule: Schedule,
    pub(super) barman_compression: WalCompression,
    pub(super) barman_cloud_url: Option<CloudUrl>,
    pub(super) barman_cloud_endpoint_url: Option<EndpointUrl>,
    pub(super) barman_cloud_access_key: Option<Line>,
    pub(super) barman_cloud_secret_key: Option<Secret>,

    pub(super) restore_from: Option<BackupId>,
    pub(super) restore_target_time: Option<TargetTime>,
    pub(super) restore_target_lsn: Option<TargetLsn>,
    pub(super) restore_target_name: Option<Line>,
    pub(super) restore_target_xid: Option<TransactionId>,
    pub(super) restore_target_action: TargetAction,
    pub(super) restore_target_timeline: TargetTimeline,
    pub(super) restore_cluster: Option<ClusterName>,
    pub(super) restore_source: Option<Source>,
    pub(super) restore_token: Option<Secret>,

    pub(super) postgres_user: RoleName,
    pub(super) postgres_db: Option<DatabaseName>,
    pub(super) postgres_initdb_args: InitdbArgs,
    pub(super) postgres_initdb_waldir: Option<AbsolutePath>,
    pub(super) postgres_host_auth_method: Option<HostAuthMethod>,
    pub(super) pgdata: Option<AbsolutePath>,
    pub(super) pg_oom_adjust_file: Option<AbsolutePath>,
    pub(super) pg_oom_adjust_value: Option<OomScore>,
}

impl Default for Input {
    fn default() -> Self {
        Input {
            postgres_port: Port(5432),
            postgres_technical_port: Port(5434),
            postgres_data_dir: AbsolutePath("/var/lib/postgresql".into()),
            postgres_password: "mysecretpassword".into(),

            repmgr_master: Flag(true),
            repmgr_config_dir: ConfigDir("/etc/repmgr.d/".into()),
            repmgr_node_name: NodeName("node1".into()),
            repmgr_slaves: Members::default(),
            repmgr_password: "iamrepmgr".into(),
            repmgr_streaming_password: "iamstreamingrepmgr".into(),

            barman_password: "iambarman".into(),
            barman_streaming_password: "iamstreamingbarman".into(),
            barman_backup_dir: BackupDir("/home/barman/data".into()),
            barman_retention: Retention::RecoveryWindow(5, WindowUnit::Days),
            barman_config_dir: ConfigDir("/etc/barman.d/".into()),

            repmgr_master_host: None,
            repmgr_clone_from: CloneFrom::Primary,
            repmgr_node_address: None,
            repmgr_node_id: None,
            repmgr_priority: Priority(100),
            repmgr_location: Location("default".into()),

            pgherd_cluster: ClusterName("pgherd".into()),
            pgherd_role: NodeKind::Data,
            pgherd_backups: Backups::Here,
            pgherd_voters: None,
            pgherd_etcd_port: EtcdPort(DEFAULT_ETCD_PORT),
            pgherd_etcd_endpoints: None,
            pgherd_etcd_ca_file: None,
            pgherd_etcd_cert_file: None,
            pgherd_etcd_key_file: None,
            pgherd_etcd_user: None,
            pgherd_etcd_password: None,
            pgherd_failover: None,
            pgherd_lease: Span(Duration::from_secs(4)),
            pgherd_synchronous: Synchronous(SyncMode::Preferred),
            pgherd_keep_old_data: Flag(false),
            pgherd_http_port: Port(8008),
            pgherd_tls_cert_file: None,
            pgherd_tls_key_file: None,
            pgherd_tls_ca_file: None,
            pgherd_control_token: None,
            pgherd_stop_timeout: Span(Duration::from_secs(60)),
            pgherd_hook_timeout: Span(Duration::from_secs(10)),
            pgherd_log_format: LogFormat::Text,
            pgherd_log: Line("info".into()),

            barman_schedule: Schedule::default(),
            barman_compression: WalCompression::None,
            barman_cloud_url: None,
            barman_cloud_endpoint_url: None,
            barman_cloud_access_key: None,
            barman_cloud_secret_key: None,

            restore_from: None,
            restore_target_time: None,
            restore_target_lsn: None,
            restore_target_name: None,
            restore_target_xid: None,
            restore_target_action: TargetAction::Promote,
            restore_target_timeline: TargetTimeline::Latest,
            restore_cluster: None,
            restore_source: None,
            restore_token: None,

            postgres_user: RoleName("postgres".into()),
            postgres_db: None,
            postgres_initdb_args: InitdbArgs::default(),
            postgres_initdb_waldir: None,
            postgres_host_auth_method: None,
            pgdata: None,
            pg_oom_adjust_file: None,
            pg_oom_adjust_value: None,
        }
    }
}

impl Input {
    /// The settings that `vars` ask for, and the defaults for the rest. The error says what the
    /// first wrong variable may hold, not which one that is.
    pub(super) fn parse<'a>(
        vars: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Input, String> {
        let vars = vars.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        envy::from_iter(vars).map_err(|error| error.to_string())
    }

    /// The addresses that were given for members of the cluster, the master's first.
    pub(super) fn members(&self) -> impl Iterator<Item = &Address> {
        let master = self.repmgr_master_host.iter().map(|member| &member.0);
        let voters = self.pgherd_voters.iter().flat_map(|voters| &voters.0);
        master.chain(&self.repmgr_slaves.0).chain(voters)
    }

    /// Each variable and its value as text, in the order of the fields; secrets as `***`.
    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let json = serde_json::to_string(self).expect("settings are text, numbers and lists");
        let Rows(rows) = serde_json::from_str(&json).expect("it was written the line before");
        rows
    }
}

/// Each variable and its default as text, in the order of the contract; secrets as `***`.
pub(super) fn defaults() -> impl Iterator<Item = (&'static str, &'static str)> {
    static ROWS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| Input::default().rows());
    ROWS.iter().map(|(variable, value)| (variable.as_str(), value.as_str()))
}

/// The names of all variables, in the order of the contract.
pub(super) fn variables() -> impl Iterator<Item = &'static str> {
    defaults().map(|(variable, _)| variable)
}

/// A JSON object in the order it is written in, which `serde_json::Value` would not keep.
struct Rows(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Rows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rows, A::Error> {
                let mut rows = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    rows.push((name, as_text(&value)));
                }
                Ok(Rows(rows))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(entries) => entries.iter().map(as_text).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
