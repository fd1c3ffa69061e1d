//! Who votes, and what follows from that.

use super::input::Input;
use super::values::{Failover, Voters};
use super::{EtcdSettings, NodeKind, Problem};
use crate::cluster::Address;

/// Fills in what was not given: the voters, who are the master and its slaves where these can
/// vote, and who changes the roles. `hostname` is the container's, as its environment has it.
pub(super) fn complete(input: &mut Input, hostname: Option<&str>) {
    if input.pgherd_voters.is_none() && input.pgherd_etcd_endpoints.is_none() {
        input.pgherd_voters = default_voters(input, hostname);
    }
    let votes = input.pgherd_voters.is_some() || input.pgherd_etcd_endpoints.is_some();
    let default = if votes { Failover::Quorum } else { Failover::Manual };
    input.pgherd_failover.get_or_insert(default);
}

/// The master and `REPMGR_SLAVES`, if each of these nodes comes to the same three or five.
fn default_voters(input: &Input, hostname: Option<&str>) -> Option<Voters> {
    let named = input.repmgr_node_address.as_ref().map(|host| host.0.as_str());
    let is_first_master = input.repmgr_master.0 && input.pgherd_role == NodeKind::Data;
    let ourselves = || {
        let host = named.or(hostname).filter(|_| is_first_master)?;
        Some(Address { host: host.to_owned(), port: input.postgres_port.0 })
    };
    let master = match &input.repmgr_master_host {
        Some(master) => master.0.clone(),
        None => ourselves()?,
    };
    let mut voters = vec![master];
    for slave in &input.repmgr_slaves.0 {
        if voters.iter().all(|voter| voter.host != slave.host) {
            voters.push(slave.clone());
        }
    }
    Voters::of(voters).ok()
}

/// What people should know who chose it.
pub(super) fn warning(input: &Input) -> Option<&'static str> {
    (input.pgherd_failover == Some(Failover::Eager)).then_some(
        "PGHERD_FAILOVER is eager: a slave whose master is silent for a lease leads, and where only the \
         cable between them was cut, both take writes until it heals; then what the old master took \
         is thrown away. A third vote (PGHERD_VOTERS) has no such moment",
    )
}

/// An etcd of the cluster's own runs on the voters, as far as the variables say.
pub(super) fn runs_etcd(input: &Input) -> bool {
    input.pgherd_failover == Some(Failover::Quorum)
        && input.pgherd_voters.is_some()
        && input.pgherd_etcd_endpoints.is_none()
}

/// What does not go together, as far as the variables could be read.
pub(super) fn problems(input: &Input, unread: &[Problem]) -> Vec<Problem> {
    let is_unread = |variable: &str| unread.iter().any(|problem| problem.is_about(variable));
    let mut problems = Vec::new();
    let sources = ["PGHERD_VOTERS", "PGHERD_ETCD_ENDPOINTS", "REPMGR_SLAVES", "REPMGR_MASTER_HOST"];
    let nobody_votes = input.pgherd_voters.is_none() && input.pgherd_etcd_endpoints.is_none();
    if input.pgherd_failover == Some(Failover::Quorum)
        && nobody_votes
        && !sources.into_iter().any(is_unread)
    {
        let message = "is quorum, and nobody has a vote. Name three or five nodes in PGHERD_VOTERS, \
                       the same on each node (a backup node may be one), or an etcd in \
                       PGHERD_ETCD_ENDPOINTS; or set PGHERD_FAILOVER to manual.";
        problems.push(Problem::new("PGHERD_FAILOVER", message));
    }
    let (cert, key) = ("PGHERD_ETCD_CERT_FILE", "PGHERD_ETCD_KEY_FILE");
    let (has_cert, has_key) =
        (input.pgherd_etcd_cert_file.is_some(), input.pgherd_etcd_key_file.is_some());
    let has_password = input.pgherd_etcd_password.is_some();
    for (one, is_there, other, other_is_there) in [
        (cert, has_cert, key, has_key),
        (key, has_key, cert, has_cert),
        (
            "PGHERD_ETCD_USER",
            input.pgherd_etcd_user.is_some(),
            "PGHERD_ETCD_PASSWORD",
            has_password,
        ),
    ] {
        if is_there && !other_is_there && !is_unread(other) {
            let message = format!("needs {other}, which is not set. Set both, or neither of them.");
            problems.push(Problem::new(one, message));
        }
    }
    problems
}

/// What was asked for about etcd.
pub(super) fn etcd(input: &mut Input) -> EtcdSettings {
    let [ca_file, cert_file, key_file] = [
        &mut input.pgherd_etcd_ca_file,
        &mut input.pgherd_etcd_cert_file,
        &mut input.pgherd_etcd_key_file,
    ]
    .map(|file| file.take().map(|path| path.0));
    let has_tls_files = ca_file.is_some() || cert_file.is_some();
    let endpoints = input.pgherd_etcd_endpoints.take().map(|endpoints| endpoints.0);
    let endpoints = endpoints.iter().flatten().map(|one| one.meant(has_tls_files)).collect();
    EtcdSettings {
        port: input.pgherd_etcd_port.0,
        endpoints,
        ca_file,
        cert_file,
        key_file,
        user: input.pgherd_etcd_user.take().map(|user| user.0),
        password: input.pgherd_etcd_password.take(),
    }
}
