//! From what was written to what is meant.

use super::input::Input;
use super::source::Given;
use super::values::{Failover, HostAuthMethod, NodeKind, TOOL_ROLES};
use super::{
    BarmanSettings, HerdSettings, Listing, PostgresSettings, RepmgrSettings, Secret, Settings,
    cloud, quorum, restore, tls,
};
use crate::cluster::Role;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

impl Settings {
    pub(super) fn new(mut input: Input, given: &[Given], mut warnings: Vec<String>) -> Self {
        let database = input.postgres_db.get_or_insert_with(|| input.postgres_user.same_database());
        let database = database.0.clone();
        let method = input.postgres_host_auth_method.as_ref();
        warnings.extend(method.and_then(HostAuthMethod::warning).map(str::to_owned));
        warnings.extend(quorum::warning(&input).map(str::to_owned));

        warnings.extend(restore::warning(&input));

        let listing = Listing::new(&input, given);
        let derived = input.pgherd_control_token.is_none();
        let default_passwords = default_passwords(&input);
        let published = default_passwords.iter().any(|role| role == "repmgr");
        let control_token =
            input.pgherd_control_token.take().unwrap_or_else(|| token_from(&input.repmgr_password));

        let is_given = |variable: &str| given.iter().any(|given| given.variable == variable);
        let voters_may_be_learned = input.pgherd_role == NodeKind::Data
            && !input.repmgr_master.0
            && input.pgherd_voters.is_none()
            && !is_given("PGHERD_ETCD_ENDPOINTS")
            && !is_given("PGHERD_FAILOVER");
        let etcd = quorum::etcd(&mut input);
        let cloud = cloud::meant(&input);
        let restore = restore::meant(&mut input, &control_token);
        let tls = tls::meant(&mut input);

        Settings {
            warnings,
            default_passwords,
            listing,
            restore,
            postgres: PostgresSettings {
                port: input.postgres_port.0,
                technical_port: input.postgres_technical_port.0,
                data_dir: input.postgres_data_dir.0,
                pgdata: input.pgdata.map(|path| path.0),
                password: input.postgres_password,
                password_given: is_given("POSTGRES_PASSWORD"),
                user: input.postgres_user.0,
                database,
                initdb_args: input.postgres_initdb_args.0,
                initdb_waldir: input.postgres_initdb_waldir.map(|path| path.0),
                host_auth_method: input.postgres_host_auth_method.map(|method| method.0),
                oom_adjust_file: input.pg_oom_adjust_file.map(|path| path.0.display().to_string()),
                oom_adjust_value: input.pg_oom_adjust_value.map(|value| value.0),
            },
            repmgr: RepmgrSettings {
                first_role: if input.repmgr_master.0 { Role::Primary } else { Role::Standby },
                config_dir: input.repmgr_config_dir.0,
                node_name: input.repmgr_node_name.0,
                node_id: input.repmgr_node_id.map(|id| id.0),
                slaves: input.repmgr_slaves.0,
                master_host: input.repmgr_master_host.map(|member| member.0),
                clone_from: input.repmgr_clone_from,
                password: input.repmgr_password,
                streaming_password: input.repmgr_streaming_password,
                node_address: input.repmgr_node_address.map(|host| host.0),
                priority: input.repmgr_priority.0,
                location: input.repmgr_location.0,
            },
            barman: BarmanSettings {
                password: input.barman_password,
                streaming_password: input.barman_streaming_password,
                backup_dir: input.barman_backup_dir.0,
                retention: input.barman_retention,
                config_dir: input.barman_config_dir.0,
                schedule: input.barman_schedule,
                compression: input.barman_compression,
                cloud,
            },
            herd: HerdSettings {
                cluster: input.pgherd_cluster.0,
                kind: input.pgherd_role,
                backups: input.pgherd_backups,
                voters: input.pgherd_voters.map(|voters| voters.0).unwrap_or_default(),
                voters_may_be_learned,
                failover: input.pgherd_failover.unwrap_or(Failover::Manual),
                lease: input.pgherd_lease.0,
                synchronous: input.pgherd_synchronous.0,
                etcd,
                keep_old_data: input.pgherd_keep_old_data.0,
                http_port: input.pgherd_http_port.0,
                tls,
                control_token,
                control_token_is_published: derived && published,
                stop_timeout: input.pgherd_stop_timeout.0,
                hook_timeout: input.pgherd_hook_timeout.0,
                log_filter: input.pgherd_log.0,
                log_format: input.pgherd_log_format,
            },
        }
    }
}

/// A keyed hash: nobody gets from the token to the password but by trying passwords, and no other
/// use of the same password makes the same token.
fn token_from(password: &Secret) -> Secret {
    let mut mac = Hmac::<Sha256>::new_from_slice(password.expose().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(b"pgherd control token 1");
    let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    Secret::try_from(hex).expect("digits")
}

/// The roles that have a password of the document's; any of those, for all are public.
fn default_passwords(input: &Input) -> Vec<String> {
    /// Of the superuser, then of [`TOOL_ROLES`] in their order.
    fn passwords(input: &Input) -> [&Secret; 5] {
        [
            &input.postgres_password,
            &input.repmgr_password,
            &input.repmgr_streaming_password,
            &input.barman_password,
            &input.barman_streaming_password,
        ]
    }
    let published = Input::default();
    let published = passwords(&published);
    // A node without Postgres has no superuser.
    let has_postgres = input.pgherd_role != NodeKind::Backup;
    std::iter::once(input.postgres_user.0.as_str())
        .chain(TOOL_ROLES)
        .zip(passwords(input))
        .skip(if has_postgres { 0 } else { 1 })
        .filter(|(_, password)| published.contains(password))
        .map(|(role, _)| role.to_owned())
        .collect()
}
