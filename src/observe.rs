//! What is there: the disk, the ports, the accounts. Looks and touches nothing, so that
//! `pgherd plan` may use it beside a running server.

mod kept;

pub use kept::kept_anywhere;

use crate::barman;
use crate::cluster::{Address, ControlData, GivenUp, NodeId, Role};
use crate::etcd::Member;
use crate::execute::read_node_id;
use crate::layout::{self, Layout, Major, Means, Work};
use crate::members::{self, AsOf, Memory};
use crate::postgres::copy::{self, Left};
use crate::postgres::{self, PostgresError};
use crate::scenario::{
    Cluster, DataDirectory, Lead, NEEDS_MIB, Ourselves, PortInUse, Refusal, Restored, Situation,
};
use crate::settings::{Failover, NodeKind, Settings};
use crate::system::account::{Account, AccountError};
use crate::system::error::chain;
use crate::system::files;
use nix::unistd::{AccessFlags, access};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What stays as it is for the life of the container.
#[derive(Clone, Debug)]
pub struct Bearings {
    /// Where things are.
    pub layout: Layout,
    /// repmgr's number of this node. None where the cluster has to give it one.
    pub id: Option<NodeId>,
    /// Where the others, and consumers, find it.
    pub address: Address,
    /// What the container's user allows.
    pub means: Means,
    /// Whom Postgres and repmgr run as.
    pub postgres: Account,
    /// Whom barman runs as.
    pub barman: Account,
    /// Whom we run as.
    pub ourselves: Account,
}

/// Something that every image has is not there.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// No PostgreSQL.
    #[error("there is no PostgreSQL in /usr/lib/postgresql; this is not an image of pgherd's")]
    NoPostgres,
    /// A user is missing.
    #[error("this is not an image of pgherd's")]
    Account(#[from] AccountError),
}

/// Whether the ports are tried: a running node has them itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Somebody else must not have them.
    Try,
    /// They are ours already.
    Ours,
}

/// Whether the other members are asked.
#[derive(Clone, Copy, Debug)]
pub enum Asking<'a> {
    /// What is on the disk is enough to refuse.
    Nobody,
    /// What is done depends on them.
    Everybody {
        /// This node's own [`Report::instance`](crate::cluster::Report).
        instance: &'a str,
        /// A person has said that whoever is silent is gone.
        leads_alone: bool,
        /// What the cluster's record says, where there is one.
        lead: &'a Lead,
    },
}

/// Who and where we are.
pub fn bearings(settings: &Settings) -> Result<Bearings, ObserveError> {
    let ourselves = Account::current();
    let (means, postgres, barman) = if ourselves.is_root() {
        (Means::EveryAccount, Account::named("postgres")?, Account::named("barman")?)
    } else {
        (Means::OneAccount, ourselves.clone(), ourselves.clone())
    };
    let major = major().ok_or(ObserveError::NoPostgres)?;
    let pgdata = pgdata(settings, major);
    let is_mount_point = files::is_mount_point(&pgdata);
    let layout = Layout::new(settings, major, pgdata, is_mount_point);
    let repmgr = &settings.repmgr;
    // Once given it is kept: repmgr's records and the other nodes know it.
    let id =
        read_node_id(&layout.state_dir).or(repmgr.node_id).or_else(|| repmgr.node_id_from_name());
    let address = address(settings);
    Ok(Bearings { layout, id, address, means, postgres, barman, ourselves })
}

/// The newest PostgreSQL in the image; an image of ours has one.
fn major() -> Option<Major> {
    let directories = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    directories.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).max()
}

/// Only "there is no such thing" means no. What cannot be looked at may be somebody's data: it
/// counts as there, and [`situation`] says what stood in the way.
fn is_there(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(error) => !is_absence(&error),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn pgdata(settings: &Settings, major: Major) -> PathBuf {
    let candidates = layout::pgdata_candidates(settings, major);
    let has_cluster = |path: &&PathBuf| {
        let work = Work::of(path, files::is_mount_point(path));
        is_there(&path.join("PG_VERSION"))
            || is_there(&layout::unfinished_marker(path))
            || is_there(&work.cloned)
            || is_there(&work.moving_in)
    };
    let ours = candidates.iter().find(has_cluster).cloned();
    ours.or_else(|| of_another_major(settings)).unwrap_or_else(|| candidates[0].clone())
}

/// A cluster in the place that an image of another major version has for it: it is not to be
/// passed over for an empty one beside it.
fn of_another_major(settings: &Settings) -> Option<PathBuf> {
    if settings.postgres.pgdata.is_some() {
        return None;
    }
    let entries = fs::read_dir(&settings.postgres.data_dir).ok()?.flatten();
    let majors = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.parse::<Major>().is_ok())
    });
    let mut clusters: Vec<_> = majors
        .map(|entry| entry.path().join("docker"))
        .filter(|path| {
            is_there(&path.join("PG_VERSION")) && !is_there(&layout::unfinished_marker(path))
        })
        .collect();
    clusters.sort();
    clusters.pop()
}

fn address(settings: &Settings) -> Address {
    let host = settings.repmgr.node_address.clone().unwrap_or_else(|| {
        let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        name.unwrap_or_else(|| "localhost".to_owned())
    });
    Address { host, port: settings.postgres.port }
}

/// What a start would find. For a start it is asked under the volume's lock.
pub async fn situation(
    settings: &Settings,
    bearings: &Bearings,
    ports: Ports,
    asking: Asking<'_>,
) -> Situation {
    let Bearings { layout, postgres, address, .. } = bearings;
    let pgdata = &layout.pgdata;
    let mut memory = Memory::read(layout);
    let everybody = members::everybody(settings, &memory, address);
    let free_mib = [files::free_mib(pgdata), files::free_mib(&pgdata.join("pg_wal"))];
    let free_mib = free_mib.into_iter().flatten().min();
    let data_directory = match settings.herd.kind {
        NodeKind::Data => {
            let compares = !everybody.is_empty()
                || settings.herd.failover == Failover::Quorum
                || free_mib.is_some_and(|free_mib| free_mib < NEEDS_MIB);
            data_directory(layout, postgres, compares).await
        }
        // It has no use for one, and whatever is there is not its business.
        NodeKind::Backup | NodeKind::Witness => DataDirectory::Empty,
    };
    let mut sightings = match asking {
        Asking::Nobody => Vec::new(),
        Asking::Everybody { instance, .. } => {
            members::ask(settings, &everybody, address, instance, AsOf::Now).await
        }
    };
    members::find_again(&memory, &mut sightings);
    if let Asking::Everybody { leads_alone: true, .. } = asking {
        // What the word is about, if it is followed.
        let heard = sightings.iter().filter_map(|one| one.report()?.newest()).max();
        let ours = if let DataDirectory::Cluster(Cluster { control: Some(control), .. }) =
            &data_directory
        {
            Some(control.timeline)
        } else {
            None
        };
        if let (Some(kept), Some(up_to)) = (ours, heard.max(memory.newest))
            && up_to > kept
        {
            let before = sightings.iter().filter_map(|one| one.report()?.given_up).max();
            let word = before.max(memory.given_up).map_or(1, |before| before.word + 1);
            memory.given_up = Some(GivenUp { word, up_to, kept });
        }
    }
    let tried = match ports {
        Ports::Try => ports_in_use(settings, layout, address),
        Ports::Ours => Vec::new(),
    };
    let mounted_elsewhere = || {
        let candidates = layout::pgdata_candidates(settings, layout.major);
        let others =
            candidates.into_iter().skip(1).filter(|path| *path != settings.postgres.data_dir);
        others.into_iter().find(|path| files::is_mount_point(path) && !pgdata.starts_with(path))
    };
    let backups = barman::backup_directory(settings);
    Situation {
        major: layout.major,
        owner_uid: fs::metadata(pgdata).ok().map(|meta| meta.uid()),
        postgres_uid: postgres.uid.as_raw(),
        // What an interrupted copy takes of it is thrown away first.
        free_mib: free_mib.filter(|_| copy::left(layout) != Left::Clone),
        ports_in_use: tried,
        mounted_elsewhere: mounted_elsewhere(),
        backups_of: barman::backups_of(&backups)
            .filter(|_| settings.herd.keeps_backups())
            .map(|system| (backups, system)),
        kept: kept::for_a_start(settings, bearings, &data_directory, &everybody, asking).await,
        ourselves: Ourselves {
            address: address.clone(),
            newest: memory.newest,
            given_up: memory.given_up,
            had_members: !memory.members.is_empty(),
            knows_nobody: everybody.is_empty(),
            leads_alone: matches!(asking, Asking::Everybody { leads_alone: true, .. }),
        },
        sightings,
        lead: match asking {
            Asking::Nobody => Lead::NotKept,
            Asking::Everybody { lead, .. } => lead.clone(),
        },
        pgdata: pgdata.clone(),
        data_dir: settings.postgres.data_dir.clone(),
        data_directory,
    }
}

async fn data_directory(
    layout: &Layout,
    postgres: &Account,
    there_are_others: bool,
) -> DataDirectory {
    let pgdata = &layout.pgdata;
    // Also beside a first start that did not end: its mark is what moves out first.
    if let Left::Cloned | Left::MovingIn = copy::left(layout) {
        return DataDirectory::Cluster(Cluster {
            role: if copy::is_restored(layout) { Role::Primary } else { Role::Standby },
            recovering: false,
            control: None,
            made_here: true,
            may_be_in_use: false,
            half_rewound: false,
            moves_in: true,
            restored: Restored::Nothing,
        });
    }
    match fs::symlink_metadata(layout.unfinished_marker()) {
        Ok(_) => return DataDirectory::Unfinished,
        Err(error) if is_absence(&error) => {}
        Err(error) => return DataDirectory::Unreadable { reason: error.to_string() },
    }
    match fs::read_to_string(pgdata.join("PG_VERSION")) {
        Ok(version) if version.trim() == layout.major.to_string() => {
            cluster(layout, postgres, there_are_others).await
        }
        Ok(version) => DataDirectory::OtherMajor { found: version.trim().to_owned() },
        Err(error) if is_absence(&error) => foreign_or_empty(layout),
        Err(error) => DataDirectory::Unreadable { reason: error.to_string() },
    }
}

/// Of a cluster that pgherd has had before and that has no other members, Postgres itself says
/// best what is wrong with it; another's is looked at before it is taken over.
async fn cluster(layout: &Layout, postgres: &Account, there_are_others: bool) -> DataDirectory {
    let pgdata = &layout.pgdata;
    let has = |name: &str| is_there(&pgdata.join(name));
    let role = if has("standby.signal") { Role::Standby } else { Role::Primary };
    let made_here = has(postgres::conf::FILE);
    let half_rewound = is_there(&layout.rewinding_marker());
    let control = if half_rewound || (made_here && role == Role::Primary && !there_are_others) {
        None
    } else {
        match postgres::control_data(&layout.bin_dir, pgdata, postgres).await {
            Ok(control) if role == Role::Primary => {
                let timeline = control.timeline.max(postgres::newest_history(pgdata, postgres));
                Some(ControlData { timeline, ..control })
            }
            Ok(control) => Some(control),
            Err(error) => return unreadable(&error),
        }
    };
    let was_shut_down = control.as_ref().is_none_or(|control| control.shut_down);
    DataDirectory::Cluster(Cluster {
        role,
        recovering: has("recovery.signal"),
        may_be_in_use: !made_here && has("postmaster.pid") && !was_shut_down,
        control,
        made_here,
        half_rewound,
        moves_in: false,
        restored: restored(layout, postgres).await,
    })
}

/// What a restore on the running cluster has left; nothing of what nobody is to go on with.
async fn restored(layout: &Layout, postgres: &Account) -> Restored {
    if copy::is_restored(layout) {
        return Restored::Here;
    }
    if !copy::restored_beside(layout) {
        return Restored::Nothing;
    }
    let beside = layout.beside();
    match postgres::control_data(&layout.bin_dir, &beside.pgdata, postgres).await {
        Ok(control) if control.shut_down => Restored::Beside(control.timeline),
        Ok(_) | Err(_) => Restored::Nothing,
    }
}

fn unreadable(error: &PostgresError) -> DataDirectory {
    let reason = chain(error);
    if error.is_about_the_cluster() {
        DataDirectory::Broken { reason }
    } else {
        DataDirectory::Unreadable { reason }
    }
}

fn foreign_or_empty(layout: &Layout) -> DataDirectory {
    let pgdata = &layout.pgdata;
    let entries = match fs::read_dir(pgdata) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return DataDirectory::Foreign { found: "a file, not a directory".to_owned() };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return DataDirectory::Empty,
        Err(error) => return DataDirectory::Unreadable { reason: error.to_string() },
        Ok(entries) => entries,
    };
    let half_a_mark = files::beside(&layout::unfinished_marker(pgdata));
    let mut names: Vec<String> = entries
        .flatten()
        // Where the data directory is all of the volume, our own lock lies in it.
        .filter(|entry| entry.path() != half_a_mark && entry.path() != layout.state_dir)
        .filter(|entry| !layout.work.all().contains(&entry.path().as_path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "lost+found")
        .collect();
    names.sort();
    match names.len() {
        0 => DataDirectory::Empty,
        1..=5 => DataDirectory::Foreign { found: names.join(", ") },
        more => {
            let found = format!("{}, and {} more", names[..5].join(", "), more - 5);
            DataDirectory::Foreign { found }
        }
    }
}

/// The volume cannot be written. Asked before anything else is: the lock is a file on it.
pub fn refuse_unwritable(settings: &Settings, bearings: &Bearings) -> Result<(), Refusal> {
    let Layout { pgdata, state_dir, .. } = &bearings.layout;
    let backup_dir = &settings.barman.backup_dir;
    let is_backup_node = settings.herd.kind == NodeKind::Backup;
    if is_backup_node && bearings.means == Means::OneAccount {
        let uid = bearings.ourselves.uid.as_raw();
        return Err(Refusal::BackupNodeNeedsRoot { uid });
    }
    let (refused, owner) = match is_backup_node {
        true => (not_writable([backup_dir]), &bearings.barman),
        false => (not_writable([pgdata, state_dir]), &bearings.postgres),
    };
    match refused {
        None => Ok(()),
        Some((directory, reason)) => {
            Err(Refusal::NotWritable { directory, reason, expected: owner.uid.as_raw() })
        }
    }
}

/// The first of these directories, or of their parents where they are not there yet, that we may
/// not write to.
fn not_writable<'a>(
    directories: impl IntoIterator<Item = &'a PathBuf>,
) -> Option<(PathBuf, String)> {
    directories.into_iter().find_map(|directory| {
        let there = directory.ancestors().find(|path| path.is_dir())?;
        let refused = access(there, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
        Some((there.to_owned(), refused.desc().to_owned()))
    })
}

fn ports_in_use(settings: &Settings, layout: &Layout, address: &Address) -> Vec<PortInUse> {
    let postgres = (settings.postgres.port, "POSTGRES_PORT");
    let postgres = (settings.herd.kind != NodeKind::Backup).then_some(postgres);
    let http = (settings.herd.http_port, "PGHERD_HTTP_PORT");
    let etcd = Member::of(settings, layout, address).map(|member| member.ports());
    let etcd = etcd.into_iter().flatten().map(|port| (port, "PGHERD_ETCD_PORT"));
    let ours = postgres.into_iter().chain([http]).chain(etcd);
    let taken = |port| {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    let found = ours.filter(|(port, _)| taken(*port));
    found.map(|(port, variable)| PortInUse { port, variable }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    #[test]
    fn a_voters_etcd_needs_its_ports_too() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        for (etcd_port, voters) in [(port, "n1 n2 n3"), (port - 1, "n1 n2 n3"), (port, "n2 n3 n4")]
        {
            let vars = [("PGHERD_VOTERS", voters), ("PGHERD_ETCD_PORT", &etcd_port.to_string())];
            let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let mut settings = settings::read(vars, |_| unreachable!()).unwrap();
            (settings.postgres.port, settings.herd.http_port) = (0, 0); // Always free.
            let layout = Layout::new(&settings, 17, "/srv/17/docker".into(), false);
            let address = Address { host: "n1".to_owned(), port: 5432 };
            let found = ports_in_use(&settings, &layout, &address);
            let votes = voters.starts_with("n1");
            assert_eq!(
                found.iter().map(|one| one.port).collect::<Vec<_>>(),
                if votes { vec![port] } else { vec![] }
            );
        }
    }
}
