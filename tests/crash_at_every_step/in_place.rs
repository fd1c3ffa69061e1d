//! A primary that a person has restored while it runs, killed everywhere: in the end it serves what was
//! restored, or what was there before, and nothing is left of the other.

use crate::leads;
use crate::life::Product;
use crate::world::{Crash, Data, Done, Fault, Work, World, must};
use pgherd::cluster::Timeline;
use pgherd::layout::Means;
use pgherd::scenario::{KeptBy, Restore, Restored, Scenario, Stage, Step};
use std::path::Path;

const ROWS_BEFORE: usize = 7;

pub(crate) fn wished() -> Scenario {
    let kept = crate::restored::kept();
    let archive = &kept.archives[0].1;
    let restore = Restore {
        kept_by: KeptBy::Here,
        archive: archive.name.clone(),
        backup: archive.backups[0].clone(),
        target: None,
        timeline: Timeline(1),
        end: None,
        pauses: false,
    };
    Scenario::RestoreInPlace { restore: Box::new(restore) }
}

impl World {
    pub(crate) fn is_beside(pgdata: &Path) -> bool {
        pgdata.extension().is_some_and(|extension| extension == "clone")
    }

    pub(crate) fn bring_back_beside(&mut self) -> Done {
        must(self.server.is_some(), "nobody is served while it is copied")?;
        must(self.work.clone.is_none(), "it is unpacked over something")?;
        let mut elsewhere = World::default();
        elsewhere.bring_back()?;
        let brought = elsewhere.data()?.clone();
        self.work.clone = Some(Data {
            marked: true,
            in_place: true,
            configured: true,
            registered: true,
            names_another: true,
            ..brought
        });
        Ok(())
    }

    pub(crate) fn recover_beside(&mut self) -> Done {
        must(self.server.is_none(), "two servers")?;
        let data = self.data()?;
        must(data.shut_down, "what is there was not shut down")?;
        let newest = data.timeline;
        let beside = self.work.clone.as_mut().ok_or("there is nothing to recover")?;
        must(beside.marked && !beside.garbage, "half of a backup is recovered")?;
        // Newer than all that the archive has: it may go on in there.
        (beside.restored, beside.timeline) = (false, newest + 1);
        (beside.shut_down, beside.on_disk, beside.marked) = (true, true, false);
        Ok(())
    }

    pub(crate) fn replace_history(&mut self) -> Done {
        if let Restored::Beside(_) = self.restored() {
            self.work.cloned = self.work.clone.take();
        }
        Ok(())
    }

    /// As `observe` tells it.
    pub(crate) fn restored(&self) -> Restored {
        let here = self.data.as_ref().is_some_and(|data| data.in_place);
        let beside = self.work.clone.as_ref().filter(|data| data.in_place && !data.marked);
        match (here, beside) {
            (true, _) => Restored::Here,
            (false, Some(data)) => Restored::Beside(Timeline(data.timeline)),
            (false, None) => Restored::Nothing,
        }
    }

    pub(crate) fn restored_moves_in(&self) -> bool {
        let Work { cloned, moving_in, .. } = &self.work;
        let places = match moving_in {
            Some(_) => [moving_in, &self.data],
            None => [cloned, cloned],
        };
        places.into_iter().flatten().any(|data| data.in_place)
    }
}

fn a_restore_in_place_survives(means: Means, spoil: fn(&mut Vec<Stage>)) -> Result<(), String> {
    let product = Product::new(means, spoil);
    let mut served = World::default();
    product.live(&mut served, &mut |_, _| {})?;
    served.data.as_mut().ok_or("no data directory")?.rows = ROWS_BEFORE;
    let asked = World { wishes: true, ..served };
    let followed = World { is_followed: true, ..asked.clone() };
    let is_right = |end: &World| -> Result<(), Fault> {
        leads(end, means)?;
        must(end.work == Work::default(), "something is left of a copy")?;
        let data = end.data.as_ref().ok_or("no data directory")?;
        must(!data.in_place, "it still says that it was restored")?;
        match data.rows {
            ROWS_BEFORE => must(!data.restored && data.timeline == 1, "half of both"),
            _ => must(data.timeline == 2, "it is on the timeline of before"),
        }
    };
    let mut undisturbed = asked.clone();
    product.live(&mut undisturbed, &mut |_, _| {})?;
    let rows = undisturbed.data.as_ref().map(|data| data.rows);
    if rows != Some(1) {
        return Err(format!("nothing was restored: {rows:?}"));
    }
    let mut killed = asked.clone();
    killed.crash(Crash::Killed);
    let beginnings = vec![
        ("a primary", asked),
        ("one that has a standby", followed),
        ("one that is killed first", killed),
    ];
    product.survives_every_crash(beginnings, |end| {
        is_right(end).map_err(|fault| format!("{fault:?}: it ends in {end:#?}"))
    })
}

#[test]
fn a_cluster_is_restored_or_as_it_was_whenever_it_is_interrupted() {
    for means in [Means::EveryAccount, Means::OneAccount] {
        a_restore_in_place_survives(means, |_| {}).unwrap();
    }
}

#[test]
fn each_step_of_a_restore_in_place_is_needed() {
    let without: [fn(&mut Vec<Stage>); 6] = [
        |stages| drop_steps(stages, |step| matches!(step, Step::DiscardCopy)),
        |stages| drop_steps(stages, |step| matches!(step, Step::RecoverBeside { .. })),
        |stages| drop_steps(stages, |step| matches!(step, Step::ReplaceHistory)),
        |stages| drop_steps(stages, |step| matches!(step, Step::MoveIn)),
        |stages| drop_steps(stages, |step| matches!(step, Step::ForgetOthers)),
        |stages| drop_steps(stages, |step| matches!(step, Step::DiscardOld)),
    ];
    for spoil in without {
        assert!(a_restore_in_place_survives(Means::EveryAccount, spoil).is_err());
    }
}

fn drop_steps(stages: &mut [Stage], is_it: impl Fn(&Step) -> bool) {
    stages.iter_mut().for_each(|stage| stage.steps.retain(|step| !is_it(step)));
}
