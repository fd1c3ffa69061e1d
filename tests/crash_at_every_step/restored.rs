//! A node that brings a backup back, killed everywhere.

use crate::life::Product;
use crate::world::{Crash, Data, Done, Fault, World, must};
use crate::{TOOL_ROLES, leads};
use pgherd::cluster::{Archive, Backup, Lsn, Moment, SystemId, Timeline};
use pgherd::layout::Means;
use pgherd::scenario::{Kept, KeptBy, Stage, Step};
use pgherd::service::Listen;

/// What barman has beside it, whenever that is asked for.
pub(crate) fn kept() -> Kept {
    let backup = Backup {
        id: "20261121T000000".to_owned(),
        name: None,
        system: SystemId(7),
        timeline: Timeline(1),
        begin: Lsn(1),
        end: Lsn(2),
        ended: Moment::default(),
        bytes: 1,
        major: 17,
        unfit: None,
        verified: None,
    };
    let archive = Archive {
        name: "pgherd".to_owned(),
        backups: vec![backup],
        histories: Vec::new(),
        ends: Vec::new(),
    };
    Kept { archives: vec![(KeptBy::Here, archive)], asked: true, ..Kept::default() }
}

impl World {
    /// As it was when it was backed up.
    pub(crate) fn bring_back(&mut self) -> Done {
        let fresh = Data { marked: true, ..Data::default() };
        let data = self.data.get_or_insert_with(|| fresh.clone());
        must(*data == fresh, "it is unpacked over something")?;
        data.initialised = true;
        data.restored = true;
        data.timeline = 1;
        data.roles = ["superuser"].into_iter().chain(TOOL_ROLES).map(|role| (role, true)).collect();
        data.databases = ["postgres", "repmgr", "shop"].map(str::to_owned).into();
        data.extension = true;
        (data.hooks_begun, data.hooks_ended) = (1, 1);
        data.rows = 1;
        Ok(())
    }

    pub(crate) fn recover(&mut self) -> Done {
        must(self.server.is_none(), "two servers on one directory")?;
        let data = self.data()?;
        let is_whole = data.initialised && data.restored && !data.garbage;
        must(is_whole && data.configured, "there is nothing to recover")?;
        must(data.marked && !data.recovered, "it recovers what was served from")?;
        data.recovered = true;
        data.timeline = 2;
        self.server = Some(Listen::Technical { port: 5434 });
        Ok(())
    }
}

/// From an empty volume, or what is left of another start, to a primary that serves what was backed up.
fn a_restore_survives(means: Means, spoil: fn(&mut Vec<Stage>)) -> Result<(), String> {
    let variables =
        [("POSTGRES_DB", "shop"), ("REPMGR_NODE_NAME", "web"), ("RESTORE_FROM", "latest")];
    let product = Product::with(&variables, means, spoil);
    let half_made = Data { marked: true, garbage: true, ..Data::default() };
    let half_made = World { data: Some(half_made), ..World::default() };
    let mut undisturbed = World::default();
    product.live(&mut undisturbed, &mut |_, _| {})?;
    let is_right = |end: &World| -> Result<(), Fault> {
        leads(end, means)?;
        let data = end.data.as_ref().ok_or("no data directory")?;
        must(data.restored && data.recovered && data.rows == 1, "it has other data")?;
        must(data.timeline == 2, "it goes on the way of what was backed up")
    };
    let mut served = undisturbed;
    served.crash(Crash::Killed);
    let beginnings = vec![
        ("an empty volume", World::default()),
        ("a first start that was interrupted", half_made),
        ("a restored primary", served),
    ];
    product.survives_every_crash(beginnings, |end| {
        is_right(end).map_err(|fault| format!("{fault:?}: it ends in {end:#?}"))
    })
}

#[test]
fn a_restore_ends_as_if_nothing_had_happened() {
    for means in [Means::EveryAccount, Means::OneAccount] {
        a_restore_survives(means, |_| {}).unwrap();
    }
}

#[test]
fn each_step_of_a_restore_is_needed() {
    let without: [fn(&mut Vec<Stage>); 4] = [
        |stages| drop_steps(stages, |step| matches!(step, Step::DiscardUnfinished { .. })),
        |stages| drop_steps(stages, |step| matches!(step, Step::Recover { .. })),
        |stages| drop_steps(stages, |step| matches!(step, Step::BeginArchive)),
        |stages| drop_steps(stages, |step| matches!(step, Step::Complete { .. })),
    ];
    for spoil in without {
        assert!(a_restore_survives(Means::EveryAccount, spoil).is_err());
    }
}

fn drop_steps(stages: &mut [Stage], is_it: impl Fn(&Step) -> bool) {
    stages.iter_mut().for_each(|stage| stage.steps.retain(|step| !is_it(step)));
}
