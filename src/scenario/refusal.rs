//! Why a node is not started, and what the operator can do about it. One line each.

use super::NoBackup;
use crate::cluster::{Address, SystemId, Timeline};
use crate::layout::Major;
use std::path::PathBuf;

/// Why nothing is done, and what the operator can do about it. One line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Files, but no cluster.
    #[error(
        "{} is not empty and holds no database cluster (found: {found}); \
         empty it, mount another volume, or name another place with PGDATA", .pgdata.display()
    )]
    ForeignFiles {
        /// The data directory.
        pgdata: PathBuf,
        /// Some of what is in it.
        found: String,
    },
    /// A cluster without the file everything else depends on.
    #[error(
        "{} holds a database cluster that cannot be read: {reason}; nothing was changed; \
         look at the disk, or restore the cluster from a backup", .pgdata.display()
    )]
    BrokenCluster {
        /// The data directory.
        pgdata: PathBuf,
        /// What `pg_controldata` said.
        reason: String,
    },
    /// It may be anybody's data.
    #[error(
        "cannot look at {}: {reason}; nothing was changed; see to it that uid {expected} may read \
         it, and start again", .pgdata.display()
    )]
    CannotLook {
        /// The data directory.
        pgdata: PathBuf,
        /// What stood in the way.
        reason: String,
        /// Whom Postgres runs as.
        expected: u32,
    },
    /// Two servers on one directory would destroy it.
    #[error(
        "{} was made by another image and its server was not shut down: it may be running; stop \
         that container with docker stop (if it crashed, start it once more with its own image, \
         then stop it), and start this one again", .pgdata.display()
    )]
    MaybeInUse {
        /// The data directory.
        pgdata: PathBuf,
    },
    /// A cluster of another major version.
    #[error(
        "{} was made by PostgreSQL {found}, and this image carries {ours}; \
         use the image for {found}, or bring the data over with pg_upgrade or pg_dump", .pgdata.display()
    )]
    OtherMajor {
        /// The data directory.
        pgdata: PathBuf,
        /// `PG_VERSION`.
        found: String,
        /// The image's.
        ours: Major,
    },
    /// Files that Postgres may not touch.
    #[error(
        "{} belongs to uid {uid}, and Postgres runs as {expected}: another image made it, or the \
         container runs as another user; stop whatever uses it, then chown -R {expected} it",
        .pgdata.display()
    )]
    OtherOwner {
        /// The data directory.
        pgdata: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Whose it should be.
        expected: u32,
    },
    /// Nothing can be written.
    #[error(
        "{} cannot be written ({reason}); mount the volume read-write, owned by uid {expected}",
        .directory.display()
    )]
    NotWritable {
        /// The directory that was tried.
        directory: PathBuf,
        /// What the kernel said.
        reason: String,
        /// Whom Postgres runs as.
        expected: u32,
    },
    /// A first start needs some room.
    #[error(
        "{} has {free_mib} MiB free, and a first start needs {needed_mib} MiB; \
         give the volume more room", .directory.display()
    )]
    NoRoom {
        /// Where the cluster would go.
        directory: PathBuf,
        /// What there is.
        free_mib: u64,
        /// What is needed.
        needed_mib: u64,
    },
    /// Somebody listens where we should.
    #[error(
        "port {port} is taken by another process of this network (network_mode: host?); \
         stop it, or choose another port with {variable}"
    )]
    PortInUse {
        /// The port.
        port: u16,
        /// The variable that changes it.
        variable: &'static str,
    },
    /// Data that would be lost with the container.
    #[error(
        "a volume is mounted at {} and holds no cluster, but the cluster goes to {}, outside of it; \
         mount the volume at {}, or set PGDATA={}/pgdata",
        .mounted.display(), .pgdata.display(), .data_dir.display(), .mounted.display()
    )]
    MountedElsewhere {
        /// The mount point.
        mounted: PathBuf,
        /// Where the cluster would go.
        pgdata: PathBuf,
        /// `POSTGRES_DATA_DIR`.
        data_dir: PathBuf,
    },
    /// The backups of another cluster would be mixed with ours.
    #[error(
        "{} holds backups of a database cluster (system identifier {found}) that is not in {}: is \
         this the right data volume, and the right image? To bring one of them back: RESTORE_FROM=latest. \
         To begin another cluster, give it another BARMAN_BACKUP_DIR, or another volume there", .directory.display(), .pgdata.display()
    )]
    ForeignBackups {
        /// barman's directory of this cluster.
        directory: PathBuf,
        /// Where a new cluster would go.
        pgdata: PathBuf,
        /// Whose backups they are.
        found: String,
    },
    /// A restore is asked for, and nothing serves.
    #[error(
        "RESTORE_FROM is set, and {why}; nothing was changed (README, \"Bring a backup back\")"
    )]
    NothingToRestore {
        /// Why.
        why: NoBackup,
    },
    /// A restore needs room for all of it.
    #[error(
        "{} has {free_mib} MiB free, and to bring backup {id} back takes {needed_mib} MiB; nothing was \
         changed; give the volume more room", .directory.display()
    )]
    NoRoomToRestore {
        /// Where the cluster would go.
        directory: PathBuf,
        /// Which backup.
        id: String,
        /// What there is.
        free_mib: u64,
        /// What is needed.
        needed_mib: u64,
    },
    /// A node without Postgres has nothing but cron, which needs root.
    #[error(
        "PGHERD_ROLE is backup, and the container runs as uid {uid}: cron, which has barman do its \
         work, needs root; start this node without --user"
    )]
    BackupNodeNeedsRoot {
        /// Whom the container runs as.
        uid: u32,
    },
    /// A slave without a master.
    #[error(
        "REPMGR_MASTER is false, and this node knows of no other; name the master, or any member, \
         with REPMGR_MASTER_HOST"
    )]
    NobodyToFollow,
    /// A recovery of the operator's own is under way.
    #[error(
        "{} is in the middle of a recovery that pgherd did not begin (it has a recovery.signal); \
         let it end under the image that began it, then start this one", .pgdata.display()
    )]
    Recovering {
        /// The data directory.
        pgdata: PathBuf,
    },
    /// What a member says belongs to another cluster than what is on our disk.
    #[error(
        "{address} leads another database cluster (system identifier {theirs}) than the one in {} \
         ({ours}); nothing was changed; mount this node's own volume, or an empty one to join \
         that cluster, or take the address out of REPMGR_MASTER_HOST, REPMGR_SLAVES and \
         PGHERD_VOTERS", .pgdata.display()
    )]
    AnotherCluster {
        /// Who leads it.
        address: Address,
        /// Its cluster.
        theirs: SystemId,
        /// The one on our disk.
        ours: SystemId,
        /// The data directory.
        pgdata: PathBuf,
    },
    /// A member says that it belongs to a cluster of another name.
    #[error(
        "{address} is a node of cluster {theirs}, and this one is of cluster {ours} \
         (PGHERD_CLUSTER); give both the same name, or this node the addresses of its own cluster"
    )]
    OtherName {
        /// The member.
        address: Address,
        /// `PGHERD_CLUSTER` there.
        theirs: String,
        /// And here.
        ours: String,
    },
    /// Two directories that both were the primary's on one branch of history.
    #[error(
        "{address} leads on the same timeline {timeline} that {} was the primary of: one is a copy \
         of the other, or both were promoted by hand and went two ways; nothing was changed; give \
         this node an empty volume to join that one, or stop that one to go on with this one's data",
        .pgdata.display()
    )]
    SamePrimary {
        /// Who leads.
        address: Address,
        /// On which branch.
        timeline: Timeline,
        /// The data directory.
        pgdata: PathBuf,
    },
}

impl Refusal {
    /// Another environment is what is needed, and nothing else.
    pub fn is_about_settings(&self) -> bool {
        matches!(self, Refusal::NobodyToFollow | Refusal::BackupNodeNeedsRoot { .. })
    }
}
