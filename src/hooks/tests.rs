//! Who is told what, and for how long.

use super::*;
use crate::system::output::Format;
use std::time::Instant;

/// A directory of hooks that say what they are called with, and whoever calls them.
struct Stand {
    directory: PathBuf,
    hooks: Hooks,
}

impl Stand {
    fn new(name: &str, scripts: &[(&str, &str)], at_most: Duration) -> Self {
        let directory =
            std::env::temp_dir().join(format!("pgherd-hooks-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("hooks.d")).unwrap();
        for (script, text) in scripts {
            let file = directory.join("hooks.d").join(script);
            fs::write(&file, format!("#!/bin/sh\ncd {}\n{text}\n", directory.display())).unwrap();
            let mode = if script.ends_with(".txt") { 0o644 } else { 0o755 };
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let (_, out) = std::io::pipe().unwrap();
        let err = out.try_clone().unwrap();
        let (calls, received) = mpsc::channel(CALLS_MAX);
        let caller = Caller {
            directory: directory.join("hooks.d"),
            node: "node1".to_owned(),
            cluster: "pgherd".to_owned(),
            account: Account::current(),
            output: OutputHandle::new(Format::Text, out.into(), err.into()).unwrap(),
            at_most,
        };
        tokio::spawn(caller.run(received));
        Stand { directory, hooks: Hooks { told: Mutex::default(), calls, at_most } }
    }

    fn said(&self) -> Vec<String> {
        let said = fs::read_to_string(self.directory.join("said")).unwrap_or_default();
        said.lines().map(str::to_owned).collect()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(story)
}

fn told(role: Option<Role>) -> Told {
    Told { role, timeline: Some(Timeline(2)), primary: "node2:5432".parse().ok() }
}

const SAY: &str = "echo \"$* $HOOK_NODE $HOOK_TIMELINE $HOOK_PRIMARY\" >>said";

#[test]
fn a_change_is_told_once_and_a_handover_before_it_happens() {
    run(async {
        let stand = Stand::new("order", &[("say", SAY)], Duration::from_secs(20));
        for role in [Role::Standby, Role::Standby, Role::Primary, Role::Primary] {
            stand.hooks.tell(told(Some(role)));
        }
        stand.hooks.announce_handover().await;
        assert_eq!(
            stand.said(),
            [
                "role-changed none standby node1 2 node2:5432",
                "role-changed standby primary node1 2 node2:5432",
                "before-handover primary primary node1 2 node2:5432",
            ]
        );
        // It came to nothing: whoever waits for the next primary is told.
        stand.hooks.tell(told(Some(Role::Primary)));
        stand.hooks.announce_handover().await;
        assert_eq!(stand.said()[3], "role-changed none primary node1 2 node2:5432");
    });
}

#[test]
fn a_change_that_found_no_room_is_told_later() {
    run(async {
        let stand = Stand::new("room", &[("say", SAY)], Duration::from_secs(60));
        let roles = [Role::Primary, Role::Standby].into_iter().cycle();
        for role in roles.take(CALLS_MAX) {
            stand.hooks.tell(told(Some(role)));
        }
        stand.hooks.tell(told(Some(Role::Primary))); // Nobody has been called yet.
        while stand.hooks.calls.capacity() == 0 {
            tokio::task::yield_now().await;
        }
        stand.hooks.tell(told(Some(Role::Primary)));
        stand.hooks.announce_handover().await;
        let said = stand.said();
        assert_eq!(said.len(), CALLS_MAX + 2, "{said:?}");
        assert_eq!(said[CALLS_MAX], "role-changed standby primary node1 2 node2:5432");
    });
}

#[test]
fn a_hook_that_hangs_is_ended_and_nobody_waits_longer() {
    run(async {
        let at_most = Duration::from_millis(300);
        let scripts = [("1-hangs", "trap '' TERM; sleep 1000"), ("2-says", SAY)];
        let stand = Stand::new("hangs", &scripts, at_most);
        let began = Instant::now();
        stand.hooks.tell(told(Some(Role::Primary)));
        stand.hooks.announce_handover().await;
        assert!(began.elapsed() < at_most * 3, "{:?}", began.elapsed());
        let until = Instant::now() + Duration::from_secs(30);
        while stand.said().is_empty() {
            assert!(Instant::now() < until, "the second one is never called");
            tokio::task::yield_now().await;
        }
        // The announcement is about a moment that is over.
        assert_eq!(stand.said(), ["role-changed none primary node1 2 node2:5432"]);
    });
}

#[test]
fn what_is_no_hook_is_not_called() {
    run(async {
        let scripts =
            [("b", SAY), ("a", "echo a >>said"), (".c", SAY), ("b~", SAY), ("d.txt", SAY)];
        let stand = Stand::new("which", &scripts, Duration::from_secs(20));
        stand.hooks.announce_handover().await;
        assert_eq!(stand.said(), ["a", "before-handover none none node1  "]);
    });
}
