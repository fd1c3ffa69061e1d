//! What the containers of a bench are made of.

use super::container::{Container, Network, Place};
use super::setting;

/// An image, and what every container of it is given.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) name: String,
    /// Mounted over the image's own pgherd.
    binary: Option<String>,
    options: String,
}

impl Image {
    /// `PGHERD_IMAGE` (pgherd:17), `PGHERD_BINARY` (the image's own), `BENCH_DOCKER_OPTIONS`.
    pub(crate) fn of_settings() -> Self {
        Image {
            name: setting("PGHERD_IMAGE").unwrap_or_else(|| "pgherd:17".to_owned()),
            binary: setting("PGHERD_BINARY"),
            options: setting("BENCH_DOCKER_OPTIONS").unwrap_or_default(),
        }
    }

    /// A container with these options and this command; not started.
    pub(crate) fn container(
        &self,
        network: &Network,
        place: Place,
        options: &[&str],
        command: &[&str],
    ) -> Container {
        let mount = self.binary.as_ref().map(|path| format!("{path}:/usr/local/bin/pgherd:ro"));
        let mut args = Vec::new();
        args.extend(mount.iter().flat_map(|mount| ["-v", mount.as_str()]));
        args.extend(self.options.split_whitespace());
        args.extend(options);
        args.push(&self.name);
        args.extend(command);
        Container::create(network, place, &args)
    }

    /// Nothing but postgres with these flags, on a data directory that is there.
    pub(crate) fn alone(
        &self,
        network: &Network,
        place: Place,
        pgdata: &str,
        options: &[&str],
        flags: &[&str],
    ) -> Container {
        let pgdata = format!("PGDATA={pgdata}");
        let own = ["-e", &pgdata, "--entrypoint", "setpriv", "--no-healthcheck"];
        let command = ["--reuid=postgres", "--regid=postgres", "--init-groups", "postgres"];
        let listen = ["-c", "listen_addresses=*"];
        let command = [&command[..], &listen, flags].concat();
        self.container(network, place, &[&own, options].concat(), &command)
    }
}
