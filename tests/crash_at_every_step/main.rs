//! Kill the container before every step and inside every step, start it again, kill that too, and
//! so on, in every way there is; and compare what is there in the end with an undisturbed run. A
//! model stands in for the disk, the server and the primary elsewhere: no Postgres needed, and no
//! way is left out.

mod elsewhere;
mod in_place;
mod life;
mod restored;
mod spoilt;
mod standby;
mod steps;
mod world;

use elsewhere::{Elsewhere, Record};
use life::Product;
use pgherd::layout::Means;
use pgherd::scenario::Stage;
use pgherd::service::{Listen, ServiceName};
use world::{Crash, Data, Fault, Way, Work, World, must};

const TOOL_ROLES: [&str; 4] = ["repmgr", "repmgr_streaming", "barman", "barman_streaming"];

/// What a primary that serves has, whichever way it came there.
fn leads(world: &World, means: Means) -> Result<(), Fault> {
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

/// What a standby that streams has, whichever way it came there, and nothing else.
fn streams(world: &World) -> Result<(), Fault> {
    let elsewhere = world.elsewhere.as_ref().ok_or("nobody leads")?;
    let leader = elsewhere.generation;
    let data = world.data.as_ref().ok_or("no data directory")?;
    must(matches!(world.server, Some(Listen::Consumer { .. })), "nobody is served")?;
    must(data.is_standby && data.streamed && data.way == Way::Same, "it does not stream")?;
    must(data.follows == Some(leader) && data.timeline == leader, "it follows another")?;
    must(data.rows == elsewhere.content.rows, "it has other data than the primary")?;
    must(data.on_disk && data.configured, "it is not complete")?;
    must(!data.asks_archive, "it looks into the archive for ever")?;
    must(!data.slots, "it has slots for nobody")?;
    must(world.work == Work::default(), "something is left of a copy")?;
    must(!world.rewinding, "it still says that it is being rewound")?;
    must(world.id && world.id_kept, "its number is lost")?;
    must(elsewhere.slots == ["repmgr_slot_2"].into(), "the slots are others")?;
    let record = Record { active: true, upstream: Some(leader) };
    must(elsewhere.record == Some(record), "the record is another")?;
    must(world.files.contains("repmgr.conf"), "repmgr has no configuration")?;
    must(world.helpers == [ServiceName::Repmgrd].into(), "the helpers are others")
}

/// From an empty volume and from a primary that serves, to a primary that serves.
fn a_primary_survives(means: Means, spoil: fn(&mut Vec<Stage>)) -> Result<(), String> {
    let product = Product::new(means, spoil);
    let mut served = World::default();
    product.live(&mut served, &mut |_, _| {})?;
    leads(&served, means).map_err(|fault| format!("{fault:?}"))?;
    let data = served.data.as_mut().ok_or("no data directory")?;
    data.rows = 1;
    served.crash(Crash::Killed);
    let followed = World { is_followed: true, ..served.clone() };
    for (what, beginning) in [
        ("an empty volume", World::default()),
        ("a primary", served),
        ("a primary that has a standby", followed),
    ] {
        let mut undisturbed = beginning.clone();
        product.live(&mut undisturbed, &mut |_, _| {})?;
        product.survives_every_crash(vec![(what, beginning)], |end| match *end == undisturbed {
            true => Ok(()),
            false => Err(format!("ends in {end:#?}\ninstead of {undisturbed:#?}")),
        })?;
    }
    Ok(())
}

/// Where a node begins that is to follow another.
fn beginnings() -> Result<Vec<(&'static str, World)>, String> {
    let product = Product::new(Means::EveryAccount, |_| {});
    let mut primary = World::default();
    product.live(&mut primary, &mut |_, _| {})?;
    // What is in it does not matter here, and takes time to compare.
    let content = primary.data.as_mut().ok_or("no data directory")?;
    content.roles.clear();
    content.databases.clear();
    let content = content.clone();
    let empty = World { elsewhere: Some(Elsewhere::leading(2, &content)), ..World::default() };
    let half_made = Data { marked: true, garbage: true, ..Data::default() };

    // It was the first primary, wrote something that nobody else has, and was replaced.
    let mut successor = Elsewhere::leading(2, &content);
    successor.record = Some(Record { active: false, upstream: None });
    let former = Data { rows: 7, slots: true, way: Way::Forked, ..content.clone() };
    let still_leads = World {
        data: Some(former),
        id: true,
        id_kept: true,
        elsewhere: Some(successor),
        ..primary.clone()
    };
    let mut hopeless = still_leads.clone();
    hopeless.crash(Crash::Killed);
    hopeless.elsewhere.iter_mut().for_each(|elsewhere| elsewhere.rewind_fails = true);
    let mut archived = World { data: Some(half_made), is_killed_first: true, ..empty.clone() };
    archived.elsewhere.iter_mut().for_each(|elsewhere| elsewhere.archives = true);
    Ok(vec![
        ("an empty volume", empty),
        ("a first start of its own that was interrupted, and an archive", archived),
        ("a primary that is replaced while it runs", still_leads),
        ("a primary that was replaced and cannot be rewound", hopeless),
    ])
}

fn a_standby_survives(
    spoil: fn(&mut Vec<Stage>),
    spoil_primary: fn(&mut Elsewhere),
) -> Result<(), String> {
    let product = Product::new(Means::EveryAccount, spoil);
    let mut beginnings = beginnings()?;
    beginnings.iter_mut().flat_map(|(_, world)| &mut world.elsewhere).for_each(spoil_primary);
    product.survives_every_crash(beginnings, |end| {
        streams(end).map_err(|fault| format!("{fault:?}: it ends in {end:#?}"))
    })
}

#[test]
fn a_primary_ends_as_if_nothing_had_happened() {
    for means in [Means::EveryAccount, Means::OneAccount] {
        a_primary_survives(means, |_| {}).unwrap();
    }
}

#[test]
fn a_standby_streams_in_the_end() {
    if let Err(why) = a_standby_survives(|_| {}, |_| {}) {
        panic!("{why}");
    }
}
