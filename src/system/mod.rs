//! The operating system, as far as this program needs it.

pub mod account;
pub mod child;
pub mod download;
pub mod error;
pub mod files;
pub mod lent_name;
pub mod lock;
pub mod network;
pub mod output;
pub mod process;
pub mod signals;
pub mod wait;
