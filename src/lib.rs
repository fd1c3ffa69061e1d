//! One container, one Postgres node. The map is in `src/README.md`.

pub mod barman;
pub mod cli;
pub mod cluster;
pub mod control;
pub mod cron;
pub mod etcd;
pub mod execute;
pub mod hooks;
pub mod http;
pub mod journal;
pub mod keeper;
pub mod layout;
pub mod lead;
pub mod members;
pub mod observe;
pub mod pid1;
pub mod postgres;
pub mod repmgr;
pub mod scenario;
pub mod service;
pub mod settings;
pub mod supervisor;
pub mod system;
pub mod voter;
