//! A container's life, from its start until it serves and there is nothing left to do; and every
//! moment in it at which it could be killed.

use crate::world::{Crash, Failure, Fault, World};
use pgherd::layout::{Layout, Means};
use pgherd::scenario::{self, Decision, Plan, Scenario, Stage, Step};
use pgherd::settings::{self, Settings};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

/// Where in a life.
pub(crate) struct Moment<'a> {
    title: &'a str,
    /// This one is about to be taken, or so far in the middle. None: all is done.
    step: Option<(&'a Step, usize)>,
}

impl fmt::Display for Moment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.title, self.step) {
            (title, Some((step, 0))) => write!(f, "{title}: before \"{step}\""),
            (title, Some((step, nth))) => write!(f, "{title}: in \"{step}\", after change {nth}"),
            (_, None) => write!(f, "at its end"),
        }
    }
}

/// A life that takes more plans goes round in circles.
const PLANS_MAX: usize = 10;

/// What is tried: the product's plans, or plans that were spoilt on purpose.
pub(crate) struct Product {
    settings: Settings,
    means: Means,
    spoil: fn(&mut Vec<Stage>),
}

impl Product {
    pub(crate) fn new(means: Means, spoil: fn(&mut Vec<Stage>)) -> Self {
        // Its name has no number: the primary gives it one.
        let variables = [("POSTGRES_DB", "shop"), ("REPMGR_NODE_NAME", "web")];
        Self::with(&variables, means, spoil)
    }

    /// The same with something else in the environment.
    pub(crate) fn with(
        variables: &[(&str, &str)],
        means: Means,
        spoil: fn(&mut Vec<Stage>),
    ) -> Self {
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let no_files = |_: &std::path::Path| Ok(String::new());
        let settings = settings::read(variables, no_files).expect("these settings are right");
        Product { settings, means, spoil }
    }

    fn plan(&self, scenario: Scenario) -> Plan {
        let pgdata = "/var/lib/postgresql/17/docker".into();
        let layout = Layout::new(&self.settings, 17, pgdata, false);
        let mut plan = scenario::plan(&self.settings, &layout, self.means, scenario);
        (self.spoil)(&mut plan.stages);
        plan
    }

    /// What a node does that begins, or that runs.
    fn next(&self, world: &mut World) -> Result<Option<Scenario>, String> {
        if world.server.is_some() {
            return running(world).map_err(|fault| format!("{fault:?}"));
        }
        match scenario::recognise(&self.settings, &world.situation()) {
            Ok(Decision::Begin(scenario)) => Ok(Some(scenario)),
            Ok(Decision::Wait(wait)) => Err(format!("waits: {wait}")),
            Err(refusal) => Err(format!("refused: {refusal}")),
        }
    }

    /// Lives until there is nothing more to do. `moments` gets what the world is like at each
    /// moment, with a word about it.
    pub(crate) fn live(
        &self,
        world: &mut World,
        moments: &mut impl FnMut(Moment<'_>, &World),
    ) -> Result<(), String> {
        let mut next = self.next(world)?;
        for _ in 0..PLANS_MAX {
            let Some(scenario) = next else {
                moments(Moment { title: "", step: None }, world);
                return Ok(());
            };
            let plan = self.plan(scenario);
            next = match self.carry_out(&plan, world, moments) {
                Ok(()) => self.next(world)?,
                Err(Fault::Wrong(why)) => {
                    return Err(format!("{}: {why}", plan.scenario.title()));
                }
                Err(Fault::Fails(failure)) => Some(instead_of(&plan.scenario, failure)),
            };
        }
        Err("it goes on for ever".to_owned())
    }

    fn carry_out(
        &self,
        plan: &Plan,
        world: &mut World,
        moments: &mut impl FnMut(Moment<'_>, &World),
    ) -> Result<(), Fault> {
        let steps: Vec<&Step> = plan.stages.iter().flat_map(|stage| &stage.steps).collect();
        for step in steps {
            let title = plan.scenario.title();
            moments(Moment { title, step: Some((step, 0)) }, world);
            for nth in 1..=World::halves(step) {
                let mut half = world.clone();
                // What cannot even begin is found when all of it is tried.
                if half.apply_half(step, nth).is_ok() && half != *world {
                    moments(Moment { title, step: Some((step, nth)) }, &half);
                }
            }
            world.apply(step, &self.settings).map_err(|fault| match fault {
                Fault::Wrong(why) => Fault::Wrong(format!("cannot {step}: {why}")),
                Fault::Fails(failure) => Fault::Fails(failure),
            })?;
        }
        Ok(())
    }

    /// Lives through every sequence of crashes, of any length, on the way from each of the
    /// `beginnings`; and looks at every end.
    pub(crate) fn survives_every_crash(
        &self,
        beginnings: Vec<(&str, World)>,
        is_right: impl Fn(&World) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut to_do: VecDeque<World> =
            beginnings.iter().map(|(_, world)| world.clone()).collect();
        let ways = beginnings.into_iter().map(|(what, world)| (world, what.to_owned()));
        let mut way_to: HashMap<World, String> = ways.collect();
        let mut killed_before = HashSet::new();
        while let Some(world) = to_do.pop_front() {
            let way = way_to[&world].clone();
            let mut end = world.clone();
            let lived = self.live(&mut end, &mut |moment, at| {
                // What else a crash does, it does to this.
                let mut killed = at.clone();
                killed.crash(Crash::Killed);
                if killed_before.contains(&killed) {
                    return;
                }
                for crash in Crash::ALL.into_iter().filter(|how| killed.may_crash(*how)) {
                    let mut after = killed.clone();
                    after.crash(crash);
                    if !way_to.contains_key(&after) {
                        way_to.insert(after.clone(), format!("{way}\n  {crash:?} {moment}"));
                        to_do.push_back(after);
                    }
                }
                killed_before.insert(killed);
            });
            lived.and_then(|()| is_right(&end)).map_err(|why| format!("{way}\n  then {why}"))?;
        }
        Ok(())
    }
}

/// `control::decide`, as far as this model goes.
fn running(world: &mut World) -> Result<Option<Scenario>, Fault> {
    if std::mem::take(&mut world.wishes) {
        return Ok(Some(crate::in_place::wished()));
    }
    let is_standby = world.data()?.is_standby;
    Ok(match (&world.elsewhere, is_standby) {
        (Some(_), false) => Some(Scenario::Rejoin { as_standby: false }),
        (Some(_), true) if !world.is_settled() => {
            Some(Scenario::Follow { replaces: world.work.old.is_some() })
        }
        _ => None,
    })
}

/// `instead_of` in `control::node::ended`.
fn instead_of(scenario: &Scenario, failure: Failure) -> Scenario {
    match failure {
        Failure::Forked => Scenario::Rejoin { as_standby: true },
        Failure::WalGone if *scenario != Scenario::FromArchive => Scenario::FromArchive,
        Failure::WalGone | Failure::NotArchived | Failure::Rewind => Scenario::Replace,
    }
}
