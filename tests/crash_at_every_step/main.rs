//! Kill the container after every step and inside every step, start it again, kill that too, and
//! compare what is there in the end with an undisturbed run. A model stands in for the disk and
//! the server: no Postgres needed, and every pair of crash points is tried.
//!
//! The model is strict: a step whose precondition does not hold fails, as it would in a container.

mod world;

use pgherd::layout::{Layout, Means};
use pgherd::scenario::{self, Plan, Scenario, Stage, Step};
use pgherd::service::{Durability, ServiceName};
use pgherd::settings::{self, Settings};
use world::{Crash, World, must};

const FIRST_START: Scenario = Scenario::PrimaryFirstStart { begun_anew: false };
const TOOL_ROLES: [&str; 4] = ["repmgr", "repmgr_streaming", "barman", "barman_streaming"];

/// When, counted in half steps: an odd number is in the middle of one.
type HalfSteps = usize;

/// What is tried: the product's plans, or plans that were spoilt on purpose.
struct Product {
    settings: Settings,
    means: Means,
    spoil: fn(&mut Vec<Stage>),
}

impl Product {
    fn new(means: Means, spoil: fn(&mut Vec<Stage>)) -> Self {
        let database = ("POSTGRES_DB".to_owned(), "shop".to_owned());
        let no_files = |_: &std::path::Path| Ok(String::new());
        let settings = settings::read([database], no_files).expect("these settings are right");
        Product { settings, means, spoil }
    }

    fn plan(&self, scenario: Scenario) -> Plan {
        let pgdata = "/var/lib/postgresql/17/docker".into();
        let layout = Layout::new(&self.settings, 17, pgdata);
        let mut plan = scenario::plan(&self.settings, &layout, self.means, scenario);
        (self.spoil)(&mut plan.stages);
        plan
    }

    /// Starts the container; it lives for so long, or to the plan's end.
    fn start(&self, world: &mut World, lifetime: HalfSteps) -> Result<(), String> {
        let recognised = scenario::recognise(&self.settings, &world.situation());
        let scenario = recognised.map_err(|refusal| format!("refused: {refusal}"))?;
        let plan = self.plan(scenario);
        let steps: Vec<&Step> = plan.stages.iter().flat_map(|stage| &stage.steps).collect();
        for step in steps.iter().take(lifetime / 2) {
            let done = world.apply(step, &self.settings);
            done.map_err(|why| format!("cannot {step}: {why}"))?;
        }
        match steps.get(lifetime / 2) {
            Some(step) if lifetime % 2 == 1 => world.apply_half(step),
            _ => Ok(()),
        }
    }

    /// Starts, dies of each crash in turn, and starts a last time.
    fn live_through(
        &self,
        crashes: &[(HalfSteps, Crash)],
        world: &mut World,
    ) -> Result<(), String> {
        for &(lifetime, crash) in crashes {
            self.start(world, lifetime)?;
            world.crash(crash);
        }
        self.start(world, HalfSteps::MAX)
    }

    /// Tries every pair of crashes, on the way from each beginning to a node that serves.
    fn survives_every_crash(&self) -> Result<(), String> {
        let mut served = World::default();
        self.start(&mut served, HalfSteps::MAX)?;
        complete(&served, self.means)?;
        served.data()?.rows = 1;
        served.crash(Crash::Killed);

        for before in [World::default(), served] {
            let mut undisturbed = before.clone();
            self.start(&mut undisturbed, HalfSteps::MAX)?;
            for first in self.every_crash() {
                for second in self.every_crash() {
                    let mut world = before.clone();
                    self.live_through(&[first, second], &mut world)
                        .map_err(|why| format!("after {first:?} and {second:?}: {why}"))?;
                    if world != undisturbed {
                        let ends = format!("{world:#?}\ninstead of {undisturbed:#?}");
                        return Err(format!("{first:?} and {second:?} end in {ends}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// At every moment of the longest plan, and a little after its end.
    fn every_crash(&self) -> impl Iterator<Item = (HalfSteps, Crash)> {
        let end = 2 * (self.plan(FIRST_START).step_count() + 3);
        let kinds = [Crash::Killed, Crash::Recreated, Crash::PowerCut];
        (0..end).flat_map(move |lifetime| kinds.map(|kind| (lifetime, kind)))
    }
}

/// What a node that serves has, whichever way it came there.
fn complete(world: &World, means: Means) -> Result<(), String> {
    let data = world.data.as_ref().ok_or("no data directory")?;
    must(!data.marked && data.on_disk, "it is not complete")?;
    must(TOOL_ROLES.iter().all(|role| data.roles.get(role) == Some(&true)), "a role is missing")?;
    let databases = ["postgres", "repmgr", "shop"].map(str::to_owned);
    must(data.databases == databases.into(), "the databases are others")?;
    must(data.registered && data.extension && data.configured, "repmgr has no record of it")?;
    must(data.hooks_ended == 1, "the scripts did not run once")?;
    let root = means == Means::EveryAccount;
    let barmans = ["barman.conf", "crontab"].into_iter().filter(|_| root);
    let files = ["repmgr.conf"].into_iter().chain(barmans);
    must(world.files == files.collect(), "the files are others")?;
    let helpers = [ServiceName::Repmgrd].into_iter().chain(root.then_some(ServiceName::Crond));
    must(world.helpers == helpers.collect(), "the helpers are others")
}

#[test]
fn two_crashes_anywhere_leave_what_an_undisturbed_start_leaves() {
    for means in [Means::EveryAccount, Means::OneAccount] {
        Product::new(means, |_| {}).survives_every_crash().unwrap();
    }
}

/// A test that notices nothing is not one. Each of these plans is wrong, and must be found so.
#[test]
fn the_model_notices_a_plan_that_is_wrong() {
    /// Takes the first step that is like this one out of the plan.
    fn take(stages: &mut [Stage], wanted: fn(&Step) -> bool) -> Option<Step> {
        stages.iter_mut().find_map(|stage| {
            let at = stage.steps.iter().position(wanted)?;
            Some(stage.steps.remove(at))
        })
    }
    /// Puts `step` before the first step that is like this one.
    fn put_before(stages: &mut [Stage], step: Option<Step>, wanted: fn(&Step) -> bool) {
        let stage = stages.iter_mut().find(|stage| stage.steps.iter().any(wanted));
        if let (Some(stage), Some(step)) = (stage, step) {
            let at = stage.steps.iter().position(wanted).unwrap_or_default();
            stage.steps.insert(at, step);
        }
    }
    type Spoil = fn(&mut Vec<Stage>);
    let wrong: [(&str, Spoil, &str); 10] = [
        (
            "complete before the operator's scripts",
            |stages| {
                let complete = take(stages, |step| matches!(step, Step::Complete { .. }));
                put_before(stages, complete, |step| matches!(step, Step::RunInitHooks));
            },
            "a running server still writes",
        ),
        (
            "complete before the first server, where no server is in the way",
            |stages| {
                let complete = take(stages, |step| matches!(step, Step::Complete { .. }));
                put_before(stages, complete, |step| matches!(step, Step::StartPostgres { .. }));
            },
            "it is not complete",
        ),
        (
            "never complete",
            |stages| drop(take(stages, |step| matches!(step, Step::Complete { .. }))),
            "consumers reach a server that is not complete",
        ),
        (
            "build on what is left",
            |stages| drop(take(stages, |step| matches!(step, Step::DiscardUnfinished { .. }))),
            "initdb wants an empty directory",
        ),
        (
            "consumers before the scripts",
            |stages| {
                let scripts = take(stages, |step| matches!(step, Step::RunInitHooks));
                put_before(stages, scripts, |step| matches!(step, Step::Supervise { .. }));
            },
            "consumers see a half-made database",
        ),
        (
            "the scripts at each restart",
            |stages| {
                let restart = stages.iter().all(|one| !one.steps.contains(&Step::RunInitHooks));
                put_before(stages, restart.then_some(Step::RunInitHooks), |step| {
                    matches!(step, Step::EnsureRole { .. })
                });
            },
            "consumers see a half-made database",
        ),
        (
            "files of the container only at the first start",
            |stages| {
                let restart = stages.iter().all(|one| !one.steps.contains(&Step::RunInitHooks));
                if restart {
                    take(stages, |step| matches!(step, Step::WriteRepmgrConf));
                }
            },
            "repmgr needs its configuration",
        ),
        (
            "no registration",
            |stages| drop(take(stages, |step| matches!(step, Step::RegisterPrimary))),
            "repmgrd would end",
        ),
        (
            "two servers",
            |stages| drop(take(stages, |step| matches!(step, Step::StopPostgres))),
            "two servers on one directory",
        ),
        (
            "writes that are not waited for",
            |stages| {
                for step in stages.iter_mut().flat_map(|stage| &mut stage.steps) {
                    if let Step::StartPostgres { durability, .. } = step {
                        *durability = Durability::UntilComplete;
                    }
                }
            },
            "consumers' writes can be lost",
        ),
    ];
    for (how, spoil, noticed) in wrong {
        let said = Product::new(Means::EveryAccount, spoil).survives_every_crash();
        let said = said.expect_err(how);
        assert!(said.contains(noticed), "{how}: expected {noticed:?}, found: {said}");
    }
}
