//! Named volumes: what outlives a node's container.

use super::{Recipe, docker, labels, unique};
use std::path::PathBuf;

/// A named volume, removed at the end of the story.
#[derive(Debug)]
pub struct Volume {
    pub name: String,
}

impl Volume {
    /// A fresh one. Declare it before the containers that use it: it is removed after them.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The same with options of `docker volume create`.
    pub fn with(options: &[&str]) -> Self {
        let name = unique("volume");
        let create = ["volume", "create"].map(str::to_owned).into_iter().chain(labels());
        let rest = options.iter().copied().chain([name.as_str()]).map(str::to_owned);
        docker(create.chain(rest)).ok();
        Volume { name }
    }

    /// Where docker keeps it on this machine: looked at from here a thousand times a second, it
    /// shows what a `docker exec` is too slow for.
    pub fn mountpoint(&self) -> PathBuf {
        docker(["volume", "inspect", "-f", "{{.Mountpoint}}", &self.name]).ok().into()
    }

    /// Runs a script of bash as root in a container that has it at /v, and returns what it says.
    pub fn shell(&self, script: &str) -> String {
        let recipe = Recipe::node("volume").volume(self, "/v").entrypoint("bash");
        recipe.command(["-c", script]).run().ok()
    }

    /// Everything in it: kind, mode, owner, size and name, a line each. Without pgherd's lock,
    /// which every start makes before it looks around.
    pub fn listing(&self) -> String {
        self.listing_after("true")
    }

    /// The same once `script` has run in it.
    pub fn listing_after(&self, script: &str) -> String {
        // A directory's size and anybody's clock say nothing. That a start was refused is an event.
        self.shell(&format!(
            "set -e; cd /v; {script}; cd /v; \
             find . -mindepth 1 ! -path ./pgherd ! -path ./pgherd/lock \
             ! -path ./pgherd/events.jsonl \
             \\( -type d -printf '%y %m %U:%G - %p\\n' -o -printf '%y %m %U:%G %s %p\\n' \\) | sort"
        ))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        docker(["volume", "rm", "-f", &self.name]);
    }
}
