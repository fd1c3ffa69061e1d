//! Names that look like ours and are not: misspelt ones, and those of Bitnami's image.

use super::input::variables;
use strsim::damerau_levenshtein;

const PREFIXES: [&str; 6] =
    ["POSTGRES_", "POSTGRESQL_", "REPMGR_", "BARMAN_", "PGHERD_", "RESTORE_"];

/// What others call ours: Bitnami's postgresql-repmgr image first, then habits.
const SYNONYMS: [(&str, &str); 22] = [
    ("REPMGR_PARTNER_NODES", "REPMGR_SLAVES"),
    ("REPMGR_REPLICATION_NODES", "REPMGR_SLAVES"),
    ("REPMGR_PRIMARY_HOST", "REPMGR_MASTER_HOST"),
    ("REPMGR_PRIMARY_PORT", "REPMGR_MASTER_HOST"),
    ("REPMGR_NODE_NETWORK_NAME", "REPMGR_NODE_ADDRESS"),
    ("REPMGR_NODE_PRIORITY", "REPMGR_PRIORITY"),
    ("REPMGR_NODE_LOCATION", "REPMGR_LOCATION"),
    ("REPMGR_NODE_TYPE", "PGHERD_ROLE"),
    ("REPMGR_PORT_NUMBER", "POSTGRES_PORT"),
    ("REPMGR_FAILOVER", "PGHERD_FAILOVER"),
    ("REPMGR_LOG_LEVEL", "PGHERD_LOG"),
    ("POSTGRESQL_PASSWORD", "POSTGRES_PASSWORD"),
    ("POSTGRESQL_POSTGRES_PASSWORD", "POSTGRES_PASSWORD"),
    ("POSTGRESQL_USERNAME", "POSTGRES_USER"),
    ("POSTGRESQL_DATABASE", "POSTGRES_DB"),
    ("POSTGRESQL_VOLUME_DIR", "POSTGRES_DATA_DIR"),
    ("POSTGRESQL_DATA_DIR", "PGDATA"),
    ("POSTGRESQL_INITDB_WAL_DIR", "POSTGRES_INITDB_WALDIR"),
    ("POSTGRESQL_PORT_NUMBER", "POSTGRES_PORT"),
    ("POSTGRESQL_SYNCHRONOUS_REPLICAS_MODE", "PGHERD_SYNCHRONOUS"),
    ("POSTGRES_USERNAME", "POSTGRES_USER"),
    ("POSTGRES_DATABASE", "POSTGRES_DB"),
];

/// A warning for each of `names` that has no effect here, though its owner seems to expect one.
pub(super) fn warnings<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let known: Vec<String> =
        variables().flat_map(|name| [name.to_owned(), format!("{name}_FILE")]).collect();
    names
        .filter(|name| !known.iter().any(|known| known == name))
        .filter_map(|name| Some((name, synonym(name).or_else(|| nearest(name, &known))?)))
        .map(|(name, ours)| {
            format!("{} is not a setting; did you mean {ours}?", name.escape_debug())
        })
        .collect()
}

fn synonym(name: &str) -> Option<String> {
    let (stem, suffix) = match name.strip_suffix("_FILE") {
        Some(stem) => (stem, "_FILE"),
        None => (name, ""),
    };
    let (_, ours) = SYNONYMS.iter().find(|(theirs, _)| *theirs == stem)?;
    Some(format!("{ours}{suffix}"))
}

/// The known name that `name` was probably meant to be. A short name must be nearer than a long
/// one: `POSTGRES_HOST`, which other programs read, is two letters from `POSTGRES_PORT`.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    let written = name.to_uppercase().replace("POSTGRESQL_", "POSTGRES_");
    let distance_max = match PREFIXES.iter().find_map(|prefix| written.strip_prefix(prefix)) {
        Some(rest) => (rest.len() / 3).clamp(1, 3),
        // PGDATA and PG_OOM_ADJUST_*, amid libpq's PGHOST, PGPORT and so on.
        None if written.starts_with("PG") => 2,
        None => return None,
    };
    let without_underscores = |name: &str| name.replace('_', "");
    let squeezed = without_underscores(&written);
    known
        .iter()
        .map(|known| match without_underscores(known) == squeezed {
            true => (0, known),
            // The difference in length is a lower bound, and spares long names the comparison.
            false if written.len().abs_diff(known.len()) > distance_max => (usize::MAX, known),
            false => (damerau_levenshtein(&written, known), known),
        })
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(name: &str) -> Option<String> {
        let warnings = warnings([name].into_iter());
        let warning = warnings.first()?;
        let ours = warning.strip_prefix(&format!("{name} is not a setting; did you mean "))?;
        ours.strip_suffix('?').map(str::to_owned)
    }

    #[test]
    fn a_typo_is_told_the_name_it_was_meant_to_be() {
        for (written, ours) in [
            ("REPMGR_NODENAME", "REPMGR_NODE_NAME"),
            ("REPMGR_NODENAME_FILE", "REPMGR_NODE_NAME_FILE"),
            ("POSTGRES_PASSWROD", "POSTGRES_PASSWORD"),
            ("POSTGRES_PASSWORD_FLIE", "POSTGRES_PASSWORD_FILE"),
            ("POSTGRES_INITDBARGS", "POSTGRES_INITDB_ARGS"),
            ("POSTGRESQL_PORT", "POSTGRES_PORT"),
            ("PGHERD_ETCD_ENDPOINT", "PGHERD_ETCD_ENDPOINTS"),
            ("PG_DATA", "PGDATA"),
            ("pgherd_cluster", "PGHERD_CLUSTER"),
            ("RESTORE_TARGET_TIMELNE", "RESTORE_TARGET_TIMELINE"),
        ] {
            assert_eq!(meant(written).as_deref(), Some(ours), "{written}");
        }
    }

    #[test]
    fn names_of_bitnami_s_image_are_translated() {
        assert_eq!(meant("REPMGR_PARTNER_NODES").as_deref(), Some("REPMGR_SLAVES"));
        assert_eq!(meant("POSTGRESQL_PASSWORD_FILE").as_deref(), Some("POSTGRES_PASSWORD_FILE"));
        let known: Vec<_> = variables().collect();
        for (theirs, ours) in SYNONYMS {
            assert!(known.contains(&ours) && !known.contains(&theirs), "{theirs} -> {ours}");
        }
    }

    #[test]
    fn what_others_own_is_left_alone() {
        for name in [
            "PATH",
            "PGHOST",
            "PGPORT",
            "PGUSER",
            "PGTZ",
            "PGDATABASE",
            "PGPASSWORD",
            "PG_MAJOR",
            "PG_VERSION",
            "POSTGRES_HOST",
            "POSTGRES_SERVICE_PORT",
            "POSTGRES_PORT_5432_TCP_ADDR",
            "POSTGRES_NAME",
            "PGHERD_ETCD_CA_FILE",
            "PGDATA_FILE",
            "REPMGR_USE_PASSFILE",
        ] {
            assert_eq!(meant(name), None, "{name}");
        }
    }
}
