//! The operating system, as far as this program needs it.

pub mod account;
pub mod child;
pub mod clock;
pub mod disk;
pub mod download;
pub mod error;
pub mod files;
pub mod guard;
pub mod lent_name;
pub mod lock;
pub mod network;
pub mod nonce;
pub mod output;
pub mod priority;
pub mod process;
pub mod signals;
pub mod tls;
pub mod wait;
