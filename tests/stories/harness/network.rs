//! A network of docker's, where nodes find each other by name.

use super::{docker, labels, unique};

/// Removed at the end of the story. Declare it before the containers in it: one that is in use stays.
#[derive(Debug)]
pub struct Network {
    pub name: String,
}

impl Network {
    /// A fresh one.
    pub fn new() -> Self {
        let name = unique("network");
        let create = ["network", "create"].map(str::to_owned).into_iter();
        docker(create.chain(labels()).chain([name.clone()])).ok();
        Network { name }
    }

    /// `container` is found in it under `alias`.
    pub fn connect(&self, container: &str, alias: Option<&str>) {
        let alias = alias.into_iter().flat_map(|alias| ["--alias", alias]);
        let connect = ["network", "connect"].into_iter().chain(alias);
        docker(connect.chain([self.name.as_str(), container])).ok();
    }

    /// `container` is cut off: what it sends goes nowhere, and nobody tells the other end.
    pub fn disconnect(&self, container: &str) {
        docker(["network", "disconnect", &self.name, container]).ok();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        docker(["network", "rm", &self.name]);
    }
}
