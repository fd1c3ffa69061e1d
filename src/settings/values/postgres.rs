//! What the official image's variables may hold: what initdb, CREATE ROLE and pg_hba.conf take.

use super::Expected;
use serde::{Deserialize, Serialize};

/// Roles that every node makes for its tools. None of them may be the user's.
pub(in crate::settings) const TOOL_ROLES: [&str; 4] =
    ["repmgr", "repmgr_streaming", "barman", "barman_streaming"];

/// `POSTGRES_USER`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct RoleName(pub(in crate::settings) String);

impl TryFrom<String> for RoleName {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let expected = "a role name of up to 63 bytes that neither begins with pg_ nor is public, \
                        none, repmgr, repmgr_streaming, barman or barman_streaming (pgherd makes \
                        those itself)";
        // initdb refuses `pg_`; CREATE ROLE refuses `public` and `none`.
        let is_reserved = text.starts_with("pg_") || ["public", "none"].contains(&text.as_str());
        if is_reserved || TOOL_ROLES.contains(&text.as_str()) || !is_identifier(&text) {
            return Err(expected);
        }
        Ok(RoleName(text))
    }
}

impl RoleName {
    /// The database that initdb's superuser gets unless another is asked for.
    pub(in crate::settings) fn same_database(&self) -> DatabaseName {
        DatabaseName(self.0.clone())
    }
}

/// `POSTGRES_DB`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct DatabaseName(pub(in crate::settings) String);

impl TryFrom<String> for DatabaseName {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        if text == "repmgr" || !is_identifier(&text) {
            return Err("a database name of up to 63 bytes that is not repmgr (pgherd makes that \
                        itself)");
        }
        Ok(DatabaseName(text))
    }
}

/// Postgres cuts longer names; blanks and quotes are fine.
fn is_identifier(text: &str) -> bool {
    text.len() <= 63 && !text.contains(char::is_control)
}

/// `POSTGRES_INITDB_ARGS`, split as a shell would.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(in crate::settings) struct InitdbArgs(pub(in crate::settings) Vec<String>);

impl TryFrom<String> for InitdbArgs {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        let args = if text.contains('\0') { None } else { shlex::split(&text) };
        args.map(InitdbArgs).ok_or("initdb's arguments as in a shell, with quotes that match")
    }
}

impl From<InitdbArgs> for String {
    fn from(InitdbArgs(args): InitdbArgs) -> Self {
        shlex::try_join(args.iter().map(String::as_str)).unwrap_or_default()
    }
}

/// `POSTGRES_HOST_AUTH_METHOD`: a method of `pg_hba.conf`, and its options behind it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct HostAuthMethod(pub(in crate::settings) String);

impl TryFrom<String> for HostAuthMethod {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        // Without `peer`, `bsd` and `sspi`, which serve no TCP connection on Linux.
        #[rustfmt::skip]
        const METHODS: [&str; 11] = [
            "trust", "reject", "scram-sha-256", "md5", "password", "gss", "ident", "ldap",
            "radius", "cert", "pam",
        ];
        let expected = "a method of pg_hba.conf: scram-sha-256, trust, reject, md5, password, gss, \
                        ident, ldap, radius, cert or pam, with its options behind it";
        let method = text.split_whitespace().next().unwrap_or_default();
        if METHODS.contains(&method) && !text.contains(char::is_control) {
            Ok(HostAuthMethod(text))
        } else {
            Err(expected)
        }
    }
}

impl HostAuthMethod {
    /// What an operator should know who chose this method.
    pub(in crate::settings) fn warning(&self) -> Option<&'static str> {
        match self.0.as_str() {
            "trust" => Some(
                "POSTGRES_HOST_AUTH_METHOD is trust: anyone with access to the Postgres port gets \
                 to the database without a password, even if POSTGRES_PASSWORD is set",
            ),
            "md5" => Some(
                "POSTGRES_HOST_AUTH_METHOD is md5: passwords are stored for SCRAM all the same, and \
                 clients that know only md5 are refused; scram-sha-256 says what happens",
            ),
            "password" => Some(
                "POSTGRES_HOST_AUTH_METHOD is password: passwords cross the network as clear text; \
                 scram-sha-256 keeps them secret",
            ),
            _ => None,
        }
    }
}

/// `PG_OOM_ADJUST_VALUE`, as the kernel takes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(in crate::settings) struct OomScore(pub(in crate::settings) String);

impl TryFrom<String> for OomScore {
    type Error = Expected;

    fn try_from(text: String) -> Result<Self, Expected> {
        match text.parse::<i16>() {
            Ok(-1000..=1000) => Ok(OomScore(text)),
            _ => Err("a whole number from -1000 to 1000"),
        }
    }
}
