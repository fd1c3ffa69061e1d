//! The swap with real directories, interrupted before each of its changes.

use super::*;
use crate::postgres::copy::{discard_unfinished_copy, finish_copy};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};

/// A data directory with a cluster called `old`, and beside or inside it a finished copy.
struct World {
    root: PathBuf,
    layout: Layout,
    account: Account,
}

impl World {
    fn new(test: &str, is_mount_point: bool) -> Self {
        let root = std::env::temp_dir().join(format!("pgherd-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let pgdata = root.join("17/docker");
        let settings = crate::settings::read([], |_| unreachable!("no variable names a file"));
        let mut layout = Layout::new(&settings.unwrap(), 17, pgdata.clone(), is_mount_point);
        // At worst all of the volume is the data directory.
        layout.state_dir = if is_mount_point { pgdata.join("pgherd") } else { root.join("pgherd") };
        fs::create_dir_all(&layout.state_dir).unwrap();
        fs::write(layout.state_dir.join("node-id"), "2").unwrap();
        cluster(&pgdata, "old");
        fs::create_dir(pgdata.join("lost+found")).unwrap();
        World { root, layout, account: Account::current() }
    }

    fn with_copy(test: &str, is_mount_point: bool) -> Self {
        let world = World::new(test, is_mount_point);
        cluster(&world.layout.work.cloned, "new");
        world
    }

    /// What each cluster file's directory and name is, and whose content it has.
    fn files(&self) -> BTreeMap<PathBuf, String> {
        let Work { clone, cloned, moving_in, old } = &self.layout.work;
        let mut found = BTreeMap::new();
        for directory in [&self.layout.pgdata, clone, cloned, moving_in, old] {
            for name in ["PG_VERSION", "base/1", "global/pg_control"] {
                if let Ok(text) = fs::read_to_string(directory.join(name)) {
                    found.insert(directory.join(name), text);
                }
            }
        }
        found
    }

    fn of(&self, directory: &Path) -> Vec<String> {
        self.files()
            .into_iter()
            .filter(|(path, _)| path.starts_with(directory))
            .filter(|(path, _)| {
                let works = self.layout.work.all();
                directory != self.layout.pgdata || !works.iter().any(|work| path.starts_with(work))
            })
            .map(|(_, text)| text)
            .collect()
    }

    fn assert_swapped(&self, first: &str, context: &str) {
        assert_eq!(left(&self.layout), Left::Nothing, "{context}");
        assert_eq!(self.of(&self.layout.pgdata), ["new"; 3], "{context}");
        assert_eq!(self.of(&self.layout.work.old), [first; 3], "{context}");
        assert!(!self.layout.rewinding_marker().exists(), "{context}");
        assert_eq!(fs::read_to_string(self.layout.state_dir.join("node-id")).unwrap(), "2");
        assert!(self.layout.pgdata.join("lost+found").exists(), "{context}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

use crate::layout::Work;

fn cluster(directory: &Path, content: &str) {
    for name in ["base", "global", "pg_tblspc"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    for name in ["PG_VERSION", "base/1", "global/pg_control"] {
        fs::write(directory.join(name), content).unwrap();
    }
}

/// Dies before change number `budget`.
fn interrupted(world: &World, budget: usize) -> bool {
    let mut changes = 0;
    let done = move_in_with(&world.layout, &world.account, &mut |_| {
        changes += 1;
        if changes > budget { Err(io::Error::other("killed")) } else { Ok(()) }
    });
    done.is_err()
}

#[test]
fn a_swap_that_is_killed_anywhere_goes_on_and_loses_nothing() {
    for is_mount_point in [false, true] {
        for leftover in [false, true] {
            // What was there first stays, whatever was to replace it.
            let first = if leftover { "older" } else { "old" };
            let mut budget = 0;
            loop {
                let world = World::with_copy("swap", is_mount_point);
                if leftover {
                    cluster(&world.layout.work.old, "older");
                }
                fs::write(world.layout.rewinding_marker(), "").unwrap();
                let inode = fs::metadata(&world.layout.pgdata).unwrap().ino();
                let context = format!("mount {is_mount_point} leftover {leftover} {budget}");
                let was_interrupted = interrupted(&world, budget);
                let there = world.files().into_values().collect::<Vec<_>>();
                for whose in [first, "new"] {
                    let count = there.iter().filter(|text| *text == whose).count();
                    assert_eq!(count, 3, "{context}: {there:?}");
                }
                if world.layout.pgdata.join("PG_VERSION").exists() {
                    let whole = world.of(&world.layout.pgdata);
                    assert!(whole == ["old"; 3] || whole == ["new"; 3], "{context}: {whole:?}");
                }
                interrupted(&world, 1); // Killed once more.
                move_in(&world.layout, &world.account).unwrap();
                world.assert_swapped(first, &context);
                assert_eq!(fs::metadata(&world.layout.pgdata).unwrap().ino(), inode, "{context}");
                move_in(&world.layout, &world.account).unwrap();
                world.assert_swapped(first, &context);
                if !was_interrupted {
                    break;
                }
                budget += 1;
            }
            assert!(budget >= 10, "it has at least ten changes, not {budget}");
        }
    }
}

#[test]
fn a_copy_moves_into_a_directory_that_has_no_cluster() {
    let world = World::with_copy("first", false);
    fs::remove_dir_all(&world.layout.pgdata).unwrap();
    move_in(&world.layout, &world.account).unwrap();
    assert_eq!(world.of(&world.layout.pgdata), ["new"; 3]);
    assert!(!has_old(&world.layout), "there was nothing to keep");
}

#[test]
fn what_was_moved_out_is_discarded_or_kept() {
    let world = World::with_copy("old", false);
    move_in(&world.layout, &world.account).unwrap();
    let kept = keep_old(&world.layout, &world.account).unwrap().unwrap();
    assert!(kept.ends_with("docker.old-1") && kept.join("PG_VERSION").exists());
    assert!(!has_old(&world.layout));
    cluster(&world.layout.work.old, "x");
    let second = keep_old(&world.layout, &world.account).unwrap().unwrap();
    assert!(second.ends_with("docker.old-2"), "{}", second.display());
    discard_old(&world.layout, &world.account).unwrap();
    assert!(kept.exists() && second.exists());

    let inside = World::with_copy("old-inside", true);
    move_in(&inside.layout, &inside.account).unwrap();
    assert_eq!(keep_old(&inside.layout, &inside.account).unwrap(), None);
    discard_old(&inside.layout, &inside.account).unwrap();
    assert!(!has_old(&inside.layout));
    assert_eq!(inside.of(&inside.layout.pgdata), ["new"; 3]);
}

#[test]
fn a_copy_that_was_not_finished_goes_with_what_it_put_outside() {
    for is_mount_point in [false, true] {
        let world = World::new("unfinished", is_mount_point);
        let (layout, account) = (&world.layout, &world.account);
        let clone = &layout.work.clone;
        let place = |name: &str| {
            let place = world.root.join(name);
            fs::create_dir_all(place.join("PG_17_202406281/5")).unwrap();
            fs::write(place.join("theirs"), "").unwrap();
            place
        };
        let (ours, listed, linked) = (place("ours"), place("listed"), place("linked"));
        let wal = world.root.join("wal");
        fs::create_dir_all(wal.join("archive_status")).unwrap();
        symlink(&ours, layout.pgdata.join("pg_tblspc/1")).unwrap();
        cluster(clone, "half");
        symlink(&ours, clone.join("pg_tblspc/1")).unwrap();
        symlink(&linked, clone.join("pg_tblspc/2")).unwrap();
        symlink(&wal, clone.join("pg_wal")).unwrap();
        symlink(&world.root, clone.join("elsewhere")).unwrap();
        let list = format!("{}\n{}\n", listed.display(), ours.display());
        fs::write(layout.state_dir.join("clone-tablespaces"), list).unwrap();
        assert_eq!(left(layout), Left::Clone);

        discard_unfinished_copy(layout, account).unwrap();
        assert_eq!(left(layout), Left::Nothing);
        assert!(ours.join("PG_17_202406281/5").exists(), "the data directory has it");
        for place in [&listed, &linked] {
            let names: Vec<_> = fs::read_dir(place).unwrap().flatten().collect();
            assert_eq!(names.len(), 1, "only what is not the copy's: {names:?}");
        }
        assert_eq!(fs::read_dir(&wal).unwrap().count(), 0);
        assert_eq!(world.of(&layout.pgdata), ["old"; 3]);
        assert!(!layout.state_dir.join("clone-tablespaces").exists());
        discard_unfinished_copy(layout, account).unwrap();
    }
}

#[test]
fn a_finished_copy_is_nobodys_to_discard() {
    let world = World::new("finished", false);
    let (layout, account) = (&world.layout, &world.account);
    let place = world.root.join("place");
    fs::create_dir_all(place.join("PG_17_202406281")).unwrap();
    fs::write(layout.state_dir.join("clone-tablespaces"), place.to_str().unwrap()).unwrap();
    cluster(&layout.work.clone, "new");
    symlink(&place, layout.work.clone.join("pg_tblspc/1")).unwrap();
    finish_copy(layout, account).unwrap();
    finish_copy(layout, account).unwrap();
    assert_eq!(left(layout), Left::Cloned);
    discard_unfinished_copy(layout, account).unwrap();
    move_in(layout, account).unwrap();
    discard_unfinished_copy(layout, account).unwrap();
    discard_old(layout, account).unwrap();
    assert!(place.join("PG_17_202406281").exists());
    assert_eq!(world.of(&layout.pgdata), ["new"; 3]);
}
