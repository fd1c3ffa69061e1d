//! What each step does to the world: all of it, or as much as is there when it is killed in its
//! middle. The model is strict: a step whose precondition does not hold fails, as it would in a
//! container.

use crate::world::{Data, Done, World, must};
use pgherd::scenario::Step;
use pgherd::service::{Durability, Listen, ServiceName};
use pgherd::settings::Settings;

impl World {
    /// Does all of `step`.
    pub(crate) fn apply(&mut self, step: &Step, wanted: &Settings) -> Done {
        match step {
            Step::DiscardUnfinished { .. } => {
                must(self.server.is_none(), "the server's files are discarded under it")?;
                let data = self.data()?;
                must(data.marked, "an unmarked directory is discarded")?;
                *data = Data { marked: true, ..Data::default() };
            }
            Step::InitDataDirectory { .. } => {
                let fresh = Data { marked: true, ..Data::default() };
                let data = self.data.get_or_insert_with(|| fresh.clone());
                must(*data == fresh, "initdb wants an empty directory")?;
                data.initialised = true;
                data.shut_down = true;
                data.timeline = 1;
                data.roles.insert("superuser", true);
                data.databases.insert("postgres".to_owned());
            }
            Step::BringBack { pgdata, .. } if World::is_beside(pgdata) => {
                self.bring_back_beside()?;
            }
            Step::BringBack { .. } => self.bring_back()?,
            Step::RecoverBeside { .. } => self.recover_beside()?,
            Step::ReplaceHistory => self.replace_history()?,
            Step::Recover { .. } => self.recover()?,
            Step::BeginArchive => self.own_archive = true,
            Step::StartPostgres { listen, durability } => self.start(*listen, *durability)?,
            Step::StopPostgres => {
                must(self.server.take().is_some(), "no server runs that could be stopped")?;
                self.data()?.shut_down = true;
            }
            Step::WritePostgresConf => {
                let data = self.data()?;
                must(data.initialised, "there is no postgresql.conf that could include ours")?;
                data.configured = true;
            }
            Step::CheckServerSettings => {
                must(self.data()?.configured, "our own settings are not there yet")?;
            }
            Step::EnsureSuperuserPassword => {
                must(self.asked()?.roles.contains_key("superuser"), "initdb makes the superuser")?;
            }
            Step::EnsureRole { role } => drop(self.asked()?.roles.insert(role, true)),
            Step::EnsureDatabase { name } => drop(self.asked()?.databases.insert(name.clone())),
            Step::EnsureRepmgrExtension => {
                let data = self.asked()?;
                must(data.databases.contains("repmgr"), "it goes into database repmgr")?;
                must(data.configured, "its library is not preloaded")?;
                data.extension = true;
            }
            Step::RunInitHooks => {
                let unreachable = !matches!(self.server, Some(Listen::Consumer { .. }));
                must(unreachable, "consumers see a half-made database")?;
                let database = &wanted.postgres.database;
                let data = self.asked()?;
                must(data.databases.contains(database), "scripts begin in POSTGRES_DB")?;
                must(data.hooks_begun == data.hooks_ended, "half a run of the scripts is there")?;
                data.hooks_begun += 1;
                data.hooks_ended += 1;
            }
            Step::WriteRepmgrConf => {
                self.files.insert("repmgr.conf");
                // The first one's number, where nobody has given it one.
                self.id_kept = self.id || self.elsewhere.is_none();
                self.id = self.id_kept;
            }
            Step::ForgetOthers => {
                let data = self.asked()?;
                must(data.extension, "there are no records")?;
                data.names_another = false;
            }
            Step::RegisterPrimary => {
                must(self.files.contains("repmgr.conf"), "repmgr needs its configuration")?;
                let data = self.asked()?;
                must(
                    data.extension && data.roles.get("repmgr") == Some(&true),
                    "repmgr cannot log in",
                )?;
                must(!data.names_another, "repmgr refuses a second primary")?;
                data.registered = true;
            }
            Step::WriteBarmanConf => {
                let restored = self.data.as_ref().is_some_and(|data| data.restored);
                must(!restored || self.own_archive, "barman writes to what it was restored from")?;
                self.files.insert("barman.conf");
            }
            Step::WriteBarmanCron => drop(self.files.insert("crontab")),
            Step::Complete { .. } => {
                must(self.server.is_none(), "a running server still writes")?;
                let data = self.data()?;
                must(data.recovered == data.restored, "half of a history is complete")?;
                data.on_disk = true;
                data.marked = false;
            }
            Step::Supervise { service } => self.supervise(*service)?,
            Step::Cease { service } => drop(self.helpers.remove(service)),
            Step::AwaitPrimary { .. } => self.upstream = Some(self.elsewhere()?.generation),
            Step::ClaimIdentity => self.claim_identity()?,
            Step::DiscardCopy => self.work.clone = None,
            Step::FollowByName => {} // Nobody's address changes here.
            Step::TakeCopy { .. } => self.take_copy(usize::MAX)?,
            Step::MoveIn => self.move_in(usize::MAX)?,
            Step::Fence => self.fence()?,
            Step::EndInOrder { .. } => self.end_in_order()?,
            Step::Rewind => self.rewind(usize::MAX)?,
            Step::FollowPrimary { drop_slots } => self.follow(*drop_slots, usize::MAX)?,
            Step::AskArchive => self.ask_archive()?,
            Step::AwaitReplay | Step::AwaitStream => self.await_replay()?,
            Step::RegisterStandby => self.register_standby()?,
            Step::Checkpoint => drop(self.asked()?),
            Step::DiscardOld => self.discard_old()?,
            // What the others may do meanwhile is the model's in `tests/lease_model`.
            Step::TakeLead
            | Step::Promote
            | Step::AwaitSynchronous { .. }
            | Step::AnnounceHandover
            | Step::AwaitReceived { .. }
            | Step::ReleaseLead { .. } => unreachable!("nobody keeps a record of who leads here"),
        }
        Ok(())
    }

    /// So often `step` can be killed in its middle and leave something else behind than before.
    pub(crate) fn halves(step: &Step) -> usize {
        match step {
            Step::TakeCopy { .. } => World::COPY_HALVES,
            Step::MoveIn => World::MOVE_HALVES,
            Step::Rewind => World::REWIND_HALVES,
            Step::FollowPrimary { .. } => World::FOLLOW_HALVES,
            Step::InitDataDirectory { .. }
            | Step::BringBack { .. }
            | Step::Recover { .. }
            | Step::RecoverBeside { .. }
            | Step::RunInitHooks
            | Step::EnsureRole { .. }
            | Step::Complete { .. }
            | Step::DiscardUnfinished { .. }
            | Step::DiscardCopy
            | Step::DiscardOld
            | Step::ClaimIdentity => 1,
            // Each is one file, one transaction or one process: there or not.
            Step::StartPostgres { .. }
            | Step::BeginArchive
            | Step::ReplaceHistory
            | Step::StopPostgres
            | Step::FollowByName
            | Step::WritePostgresConf
            | Step::CheckServerSettings
            | Step::EnsureSuperuserPassword
            | Step::EnsureDatabase { .. }
            | Step::EnsureRepmgrExtension
            | Step::WriteRepmgrConf
            | Step::ForgetOthers
            | Step::RegisterPrimary
            | Step::WriteBarmanConf
            | Step::WriteBarmanCron
            | Step::Supervise { .. }
            | Step::Cease { .. }
            | Step::AwaitPrimary { .. }
            | Step::Fence
            | Step::EndInOrder { .. }
            | Step::AskArchive
            | Step::AwaitReplay
            | Step::AwaitStream
            | Step::RegisterStandby
            | Step::TakeLead
            | Step::Promote
            | Step::AwaitSynchronous { .. }
            | Step::AnnounceHandover
            | Step::Checkpoint
            | Step::AwaitReceived { .. }
            | Step::ReleaseLead { .. } => 0,
        }
    }

    /// Does as much of `step` as is seen from outside when it is killed in its middle, for the
    /// `nth` time that it could be, from one.
    pub(crate) fn apply_half(&mut self, step: &Step, nth: usize) -> Done {
        #[expect(clippy::wildcard_enum_match_arm)] // `halves` has named them all.
        match step {
            Step::TakeCopy { .. } => self.take_copy(nth)?,
            Step::MoveIn => self.move_in(nth)?,
            Step::Rewind => self.rewind(nth)?,
            Step::FollowPrimary { drop_slots } => self.follow(*drop_slots, nth)?,
            Step::InitDataDirectory { .. } => {
                self.data.get_or_insert_default().marked = true;
            }
            Step::BringBack { pgdata, .. } if World::is_beside(pgdata) => {
                let half = Data { marked: true, garbage: true, in_place: true, ..Data::default() };
                self.work.clone = Some(half);
            }
            Step::BringBack { .. } => {
                let data = self.data.get_or_insert_default();
                (data.marked, data.garbage) = (true, true);
            }
            // It replays, and nothing of it is on the disk.
            Step::Recover { .. } => self.data()?.garbage = true,
            Step::RecoverBeside { .. } => {
                self.work.clone.iter_mut().for_each(|data| data.garbage = true);
            }
            Step::RunInitHooks => {
                let data = self.asked()?;
                data.hooks_begun += 1;
                data.databases.insert("of the first script".to_owned());
            }
            Step::EnsureRole { role } => {
                self.asked()?.roles.entry(role).or_insert(false);
            }
            Step::Complete { .. } => self.data()?.on_disk = true,
            // What is being removed is there, and good for nothing.
            Step::DiscardUnfinished { .. } => self.data()?.garbage = true,
            Step::DiscardCopy => self.work.clone.iter_mut().for_each(|data| data.garbage = true),
            Step::DiscardOld => {
                self.clone().discard_old()?;
                // `PG_VERSION` goes first.
                self.work.old.iter_mut().for_each(|data| {
                    (data.initialised, data.garbage) = (false, true);
                });
            }
            // The record is there, and the number not on the disk yet.
            Step::ClaimIdentity => self.claim_identity()?,
            other => unreachable!("{other} has no middle"),
        }
        Ok(())
    }

    fn start(&mut self, listen: Listen, durability: Durability) -> Done {
        must(self.server.is_none(), "two servers on one directory")?;
        must(!self.rewinding, "half of a rewound directory is started")?;
        let leads_elsewhere = self.elsewhere.is_some();
        let data = self.data()?;
        let whole = data.initialised && !data.garbage && !data.missing;
        must(whole, "there is no cluster to start")?;
        must(data.recovered == data.restored, "it would recover what it finds, and no further")?;
        if leads_elsewhere {
            must(data.is_standby, "it takes writes beside the primary")?;
            must(data.follows.is_some(), "it would wait for WAL from nobody")?;
        }
        if let Listen::Consumer { .. } = listen {
            must(!data.marked, "consumers reach a server that is not complete")?;
            must(data.configured, "consumers reach a server without our settings")?;
            must(durability == Durability::Durable, "consumers' writes can be lost")?;
        }
        data.on_disk &= durability == Durability::Durable;
        data.shut_down = false;
        self.server = Some(listen);
        Ok(())
    }

    fn supervise(&mut self, service: ServiceName) -> Done {
        let serves = matches!(self.server, Some(Listen::Consumer { .. }));
        must(serves, "helpers come after the server")?;
        match service {
            ServiceName::Postgres => return Err("it is started by its own step".into()),
            ServiceName::Etcd => return Err("no plan starts it".into()),
            ServiceName::Repmgrd => must(self.is_recorded(), "repmgrd would end")?,
            ServiceName::Crond => must(
                self.files.is_superset(&["barman.conf", "crontab"].into()),
                "cron has nothing to do",
            )?,
        }
        self.helpers.insert(service);
        Ok(())
    }
}
