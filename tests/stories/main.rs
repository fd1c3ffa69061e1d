//! What pgherd promises, tried in containers with real servers. `make test` runs them; they need
//! docker and the images that `make image` builds, so `cargo test` alone leaves them out.
//!
//! A story is named by the promise that it keeps. It starts containers of its own, with labels by
//! which the harness removes them whatever happens, and waits for conditions, never for a time.

mod adopted;
mod all_together;
mod backups_interrupted;
mod backups_verified;
mod bad_input;
mod clone_interrupted;
mod converging;
mod copies;
mod document;
mod etcd_members;
mod failover;
mod from_archive;
mod full_volume;
mod harness;
mod killed_at_each_step;
mod master_first_start;
mod master_goes_on;
mod master_replaced;
mod members;
mod official_image;
mod one_writer;
mod over_tls;
mod own_etcd;
mod page;
mod reached;
mod restored;
mod restored_cluster;
mod restored_in_place;
mod retention;
mod secrets;
mod seen;
mod slave_first_start;
mod slave_goes_on;
mod soak;
mod stack;
mod strangers;
mod switchover;
mod synchronous;
mod timelines;
mod two_nodes;
mod voters_lost;
mod wishes;
