//! Where things are: every path the program reads or writes, in one place.

use crate::service::Listen;
use crate::settings::{NodeKind, Settings};
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
    /// Where a copy of another node's cluster is made and put into place.
    pub work: Work,
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
    /// Whom a `restore_command` asks for WAL, and what it shows them; the user postgres reads it.
    pub archive_sources: PathBuf,
    /// The same for a server that recovers from a backup.
    pub restore_source: PathBuf,
    /// Lines written here by cron's jobs come out of the container's log.
    pub barman_log_pipe: PathBuf,
    /// cron's table.
    pub crontab: PathBuf,
    /// The official image's place for what a first start should run.
    pub init_hooks: PathBuf,
    /// What the operator wants called when this node's role changes.
    pub role_hooks: PathBuf,
    /// Server settings of the operator, `*.conf`.
    pub operator_conf_dir: PathBuf,
    /// Client authentication rules of the operator.
    pub operator_hba: PathBuf,
}

/// Where a copy is made while what is in the data directory stays. On the same file system, so that
/// what is complete is moved and not copied. Their names are a journal: what is there says how far
/// the last start came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Being made: nothing is lost with it.
    pub clone: PathBuf,
    /// Complete and on the disk. What is in the data directory moves to `old`.
    pub cloned: PathBuf,
    /// The data directory is empty, and this moves in, `PG_VERSION` last.
    pub moving_in: PathBuf,
    /// What was in the data directory before, until its replacement streams.
    pub old: PathBuf,
}

impl Work {
    /// Beside the data directory; inside, where that is a mount point of its own.
    pub fn of(pgdata: &Path, is_mount_point: bool) -> Self {
        let name = |what: &str| match (is_mount_point, pgdata.file_name()) {
            (false, Some(name)) => {
                let mut beside = name.to_owned();
                beside.push(format!(".{what}"));
                pgdata.with_file_name(beside)
            }
            _ => pgdata.join(format!("pgherd.{what}")),
        };
        Work {
            clone: name("clone"),
            cloned: name("cloned"),
            moving_in: name("moving-in"),
            old: name("old"),
        }
    }

    /// All four.
    pub fn all(&self) -> [&Path; 4] {
        [&self.clone, &self.cloned, &self.moving_in, &self.old]
    }
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
    /// The paths that follow from `settings` for a cluster in `pgdata`, which may be a mount point.
    pub fn new(
        settings: &Settings,
        major: Major,
        pgdata: PathBuf,
        pgdata_is_mount_point: bool,
    ) -> Self {
        let run_dir = run_dir();
        let technical_socket_dir = run_dir.join("technical");
        Layout {
            major,
            bin_dir: format!("/usr/lib/postgresql/{major}/bin").into(),
            work: Work::of(&pgdata, pgdata_is_mount_point),
            pgdata,
            state_dir: state_dir(settings),
            socket_dir: "/var/run/postgresql".into(),
            postgres_passfile: run_dir.join("pgpass"),
            barman_passfile: run_dir.join("barman.pgpass"),
            archive_sources: archive_sources(),
            restore_source: restore_source(),
            barman_log_pipe: run_dir.join("barman.log"),
            repmgr_conf_link: "/etc/repmgr.conf".into(),
            repmgr_conf: settings.repmgr.config_dir.join("repmgr.conf"),
            technical_repmgr_conf: technical_socket_dir.join("repmgr.conf"),
            barman_global_conf: "/etc/barman.conf".into(),
            barman_conf: settings.barman.config_dir.join(format!("{}.conf", settings.herd.cluster)),
            crontab: "/etc/cron.d/pgherd".into(),
            init_hooks: "/docker-entrypoint-initdb.d".into(),
            role_hooks: "/etc/pgherd/hooks.d".into(),
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

    /// The directory of the socket where Postgres listens.
    pub fn socket_dir_of(&self, listen: Listen) -> &Path {
        match listen {
            Listen::Technical { .. } => &self.technical_socket_dir,
            Listen::Consumer { .. } => &self.socket_dir,
        }
    }

    /// Present while `pg_rewind` works: whoever finds it knows that the data directory is half of
    /// one history and half of another, whatever its own files say. Outside of it, for `pg_rewind`
    /// removes what it does not know.
    pub fn rewinding_marker(&self) -> PathBuf {
        self.state_dir.join("rewinding")
    }

    /// What happened to this node, a line each.
    pub fn events(&self) -> PathBuf {
        self.state_dir.join("events.jsonl")
    }

    /// Whom this node has last known as members of its cluster.
    pub fn members(&self) -> PathBuf {
        self.state_dir.join("members.json")
    }

    /// Who votes, as this node was told by the master.
    pub fn learned_voters(&self) -> PathBuf {
        learned_voters(&self.state_dir)
    }

    /// A voter's etcd: its `data`, its `tls`, and what it has seen.
    pub fn etcd(&self) -> PathBuf {
        self.state_dir.join("etcd")
    }

    /// Present in a data directory from before `initdb` until its first start is complete.
    /// Whoever finds it knows that nobody was ever served from this directory.
    pub fn unfinished_marker(&self) -> PathBuf {
        unfinished_marker(&self.pgdata)
    }

    /// Present in a copy until it has been seen to have all that its primary had.
    pub fn behind_marker(&self) -> PathBuf {
        behind_marker(&self.pgdata)
    }

    /// Present in what a running cluster was restored to, from its first file on until it serves in the
    /// place of what it replaces.
    pub fn restored_marker(&self) -> PathBuf {
        restored_marker(&self.pgdata)
    }

    /// The same node with a data directory of its own for what is made beside the one it has.
    pub fn beside(&self) -> Self {
        Layout { pgdata: self.work.clone.clone(), ..self.clone() }
    }
}

/// See [`Layout::run_dir`].
fn run_dir() -> PathBuf {
    PathBuf::from("/run/pgherd")
}

/// See [`Layout::archive_sources`]: where whoever has no settings looks.
pub fn archive_sources() -> PathBuf {
    run_dir().join("archive.json")
}

/// See [`Layout::restore_source`].
pub fn restore_source() -> PathBuf {
    run_dir().join("restore.json")
}

/// pgherd's own directory on the volume.
pub fn state_dir(settings: &Settings) -> PathBuf {
    if settings.herd.kind == NodeKind::Backup {
        // It has no other volume.
        return settings.barman.backup_dir.join(".pgherd");
    }
    settings.postgres.data_dir.join("pgherd")
}

/// See [`Layout::learned_voters`].
pub fn learned_voters(state_dir: &Path) -> PathBuf {
    state_dir.join("voters.json")
}

/// See [`Layout::unfinished_marker`].
pub fn unfinished_marker(pgdata: &Path) -> PathBuf {
    pgdata.join("pgherd.unfinished")
}

/// See [`Layout::behind_marker`].
pub fn behind_marker(pgdata: &Path) -> PathBuf {
    pgdata.join("pgherd.behind")
}

/// See [`Layout::restored_marker`].
pub fn restored_marker(pgdata: &Path) -> PathBuf {
    pgdata.join("pgherd.restored")
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
