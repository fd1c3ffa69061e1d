//! Where things are: every path the program reads or writes, in one place.

use crate::settings::Settings;
use std::path::{Path, PathBuf};

/// A major version of PostgreSQL, such as 17.
pub type Major = u32;

/// The node's paths. Fixed for the life of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Major version of the PostgreSQL that the image carries.
    pub major: Major,
    /// Its programs: `initdb`, `postgres`, `pg_controldata`, `repmgr`, `repmgrd`.
    pub bin_dir: PathBuf,
    /// The database cluster.
    pub pgdata: PathBuf,
    /// pgherd's own state, on the volume: the lock, the node's id.
    pub state_dir: PathBuf,
    /// What lives as long as the container: password files, the technical socket.
    pub run_dir: PathBuf,
    /// Where consumers inside the container find the socket.
    pub socket_dir: PathBuf,
    /// Where Postgres listens while no consumer may reach it.
    pub technical_socket_dir: PathBuf,
    /// libpq's password file of the system user postgres.
    pub postgres_passfile: PathBuf,
    /// libpq's password file of the system user barman.
    pub barman_passfile: PathBuf,
    /// Where repmgr looks for its configuration when it is not told: a link to it.
    pub repmgr_conf_link: PathBuf,
    /// repmgr's configuration.
    pub repmgr_conf: PathBuf,
    /// The same with the technical socket in it, for the registration.
    pub technical_repmgr_conf: PathBuf,
    /// barman's own configuration, where barman looks for it.
    pub barman_global_conf: PathBuf,
    /// barman's configuration of this cluster.
    pub barman_conf: PathBuf,
    /// Lines written here by cron's jobs come out of the container's log.
    pub barman_log_pipe: PathBuf,
    /// cron's table.
    pub crontab: PathBuf,
    /// The official image's place for what a first start should run.
    pub init_hooks: PathBuf,
    /// Server settings of the operator, `*.conf`.
    pub operator_conf_dir: PathBuf,
    /// Client authentication rules of the operator.
    pub operator_hba: PathBuf,
}

/// What the user that the container runs as allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Root: each process gets the account that it should have.
    EveryAccount,
    /// `docker run --user`: all runs as that user, and cron, which needs root, does not.
    OneAccount,
}

impl Layout {
    /// The paths that follow from `settings` for a cluster in `pgdata`.
    pub fn new(settings: &Settings, major: Major, pgdata: PathBuf) -> Self {
        let run_dir = PathBuf::from("/run/pgherd");
        let technical_socket_dir = run_dir.join("technical");
        Layout {
            major,
            bin_dir: format!("/usr/lib/postgresql/{major}/bin").into(),
            pgdata,
            state_dir: state_dir(settings),
            socket_dir: "/var/run/postgresql".into(),
            postgres_passfile: run_dir.join("pgpass"),
            barman_passfile: run_dir.join("barman.pgpass"),
            barman_log_pipe: run_dir.join("barman.log"),
            repmgr_conf_link: "/etc/repmgr.conf".into(),
            repmgr_conf: settings.repmgr.config_dir.join("repmgr.conf"),
            technical_repmgr_conf: technical_socket_dir.join("repmgr.conf"),
            barman_global_conf: "/etc/barman.conf".into(),
            barman_conf: settings.barman.config_dir.join(format!("{}.conf", settings.herd.cluster)),
            crontab: "/etc/cron.d/pgherd".into(),
            init_hooks: "/docker-entrypoint-initdb.d".into(),
            operator_conf_dir: "/etc/pgherd/postgresql.conf.d".into(),
            operator_hba: "/etc/pgherd/pg_hba.conf".into(),
            technical_socket_dir,
            run_dir,
        }
    }

    /// A program of the PostgreSQL in the image.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    /// Present in a data directory from before `initdb` until its first start is complete.
    /// Whoever finds it knows that nobody was ever served from this directory.
    pub fn unfinished_marker(&self) -> PathBuf {
        unfinished_marker(&self.pgdata)
    }
}

/// pgherd's own directory on the volume.
pub fn state_dir(settings: &Settings) -> PathBuf {
    settings.postgres.data_dir.join("pgherd")
}

/// See [`Layout::unfinished_marker`].
pub fn unfinished_marker(pgdata: &Path) -> PathBuf {
    pgdata.join("pgherd.unfinished")
}

/// Where a cluster may be, the likeliest first: the directory the operator named, else the
/// official image's places, newest layout first. The first one that holds a cluster is taken;
/// if none does, a new cluster goes to the first.
pub fn pgdata_candidates(settings: &Settings, major: Major) -> Vec<PathBuf> {
    match &settings.postgres.pgdata {
        Some(pgdata) => vec![pgdata.clone()],
        None => {
            let dir = &settings.postgres.data_dir;
            vec![dir.join(major.to_string()).join("docker"), dir.join("data"), dir.clone()]
        }
    }
}
