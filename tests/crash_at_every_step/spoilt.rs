//! Plans that are spoilt on purpose. A test that notices nothing is not one: each of these is wrong,
//! and must be found so.

use crate::elsewhere::Elsewhere;
use crate::{a_primary_survives, a_standby_survives};
use pgherd::layout::Means;
use pgherd::scenario::{Stage, Step};
use pgherd::service::Durability;

type Spoil = fn(&mut Vec<Stage>);

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

#[test]
fn a_primarys_plan_that_is_wrong_is_noticed() {
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
        let said = a_primary_survives(Means::EveryAccount, spoil);
        let said = said.expect_err(how);
        assert!(said.contains(noticed), "{how}: expected {noticed:?}, found: {said}");
    }
}

#[test]
fn a_standbys_plan_that_is_wrong_is_noticed() {
    let wrong: [(&str, Spoil, &str); 15] = [
        (
            "throw the old data away before the copy streams",
            |stages| {
                let discard = take(stages, |step| matches!(step, Step::DiscardOld));
                put_before(stages, discard, |step| matches!(step, Step::AwaitReplay));
            },
            "old data goes before what replaced it streams",
        ),
        (
            "keep the old data for ever",
            |stages| drop(take(stages, |step| matches!(step, Step::DiscardOld))),
            "it goes on for ever",
        ),
        (
            "start what was rewound as it is",
            |stages| drop(take(stages, |step| matches!(step, Step::FollowPrimary { .. }))),
            "half of a rewound directory is started",
        ),
        (
            "rewind a standby that was killed",
            |stages| drop(take(stages, |step| matches!(step, Step::EndInOrder { .. }))),
            "a crashed standby is recovered as a primary",
        ),
        (
            "rewind under the server",
            |stages| drop(take(stages, |step| matches!(step, Step::Fence))),
            "a server runs on what is rewound",
        ),
        (
            "move in before the copy is taken",
            |stages| {
                let copies = has(stages, |step| matches!(step, Step::TakeCopy { .. }));
                let moves = copies.then(|| take(stages, |step| matches!(step, Step::MoveIn)));
                put_before(stages, moves.flatten(), |step| matches!(step, Step::TakeCopy { .. }));
            },
            "there is nothing to move in",
        ),
        (
            "forget that a copy was moving in",
            |stages| {
                if !has(stages, |step| matches!(step, Step::TakeCopy { .. })) {
                    take(stages, |step| matches!(step, Step::MoveIn));
                }
            },
            "cannot",
        ),
        (
            "copy into what is left",
            |stages| drop(take(stages, |step| matches!(step, Step::DiscardCopy))),
            "what is left of a copy is in the way",
        ),
        (
            "keep the slots of a former primary",
            |stages| {
                for step in stages.iter_mut().flat_map(|stage| &mut stage.steps) {
                    if let Step::FollowPrimary { drop_slots } = step {
                        *drop_slots = false;
                    }
                }
            },
            "it has slots for nobody",
        ),
        (
            "take a number without asking",
            |stages| drop(take(stages, |step| matches!(step, Step::ClaimIdentity))),
            "its number is lost",
        ),
        (
            "keep the number in mind only",
            |stages| {
                if has(stages, |step| matches!(step, Step::ClaimIdentity)) {
                    take(stages, |step| matches!(step, Step::WriteRepmgrConf));
                }
            },
            "repmgr needs its configuration",
        ),
        (
            "settings of the node that was copied",
            |stages| {
                if has(stages, |step| matches!(step, Step::TakeCopy { .. })) {
                    take(stages, |step| matches!(step, Step::WritePostgresConf));
                }
            },
            "our own settings are not there yet",
        ),
        (
            "no registration",
            |stages| drop(take(stages, |step| matches!(step, Step::RegisterStandby))),
            "repmgrd would end",
        ),
        (
            "register before anything streams",
            |stages| {
                let register = take(stages, |step| matches!(step, Step::RegisterStandby));
                put_before(stages, register, |step| matches!(step, Step::AwaitReplay));
            },
            "its record would never come here",
        ),
        (
            "follow whoever was followed before",
            |stages| {
                if !has(stages, |step| matches!(step, Step::Rewind)) {
                    take(stages, |step| matches!(step, Step::FollowPrimary { .. }));
                }
            },
            "it streams from nobody",
        ),
    ];
    for (how, spoil, noticed) in wrong {
        let said = a_standby_survives(spoil, |_| {}).expect_err(how);
        assert!(said.contains(noticed), "{how}: expected {noticed:?}, found: {said}");
    }
}

#[test]
fn a_copy_without_a_signal_file_is_noticed() {
    let without = |elsewhere: &mut Elsewhere| elsewhere.copies_have_a_signal = false;
    let said = a_standby_survives(|_| {}, without).expect_err("it is a primary");
    assert!(said.contains("it takes writes beside the primary"), "{said}");
}

fn has(stages: &[Stage], wanted: fn(&Step) -> bool) -> bool {
    stages.iter().any(|stage| stage.steps.iter().any(wanted))
}
