//! One container, one Postgres node. The map is in `src/README.md`.

pub mod cluster;
pub mod pid1;
pub mod settings;
pub mod system;
