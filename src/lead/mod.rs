//! Who may lead, and for how long. Pure: whoever calls brings what was read, and the instant.
//!
//! One [`Record`] is agreed on, and only a compare-and-swap on its revision changes it. What holds:
//!
//! - Whoever leads writes until [`Hold::writes_until`], and not an instant longer: that is before
//!   any other may take the lead ([`View::is_over`]).
//! - Only a node that surely has every acknowledged write takes it ([`may_take`]).
//! - `record.sync` names nobody of whom that is not true ([`sync::next`] sees to it).
//!
//! Instants are durations since the machine began (`CLOCK_BOOTTIME`, which goes on while a machine
//! sleeps), by the node's own clock: no clock is compared with another's.

mod desired;
mod hold;
pub mod lease;
mod record;
pub mod sync;
mod takeover;
mod view;
mod why;

pub use desired::{Appointment, Desire, Desired};
pub use hold::{Answer, Attempt, Change, Hold, Lost, Try};
pub use record::{Before, Record, Released, Us};
pub use takeover::{Ask, Candidate, Rival, Taking, may_take};
pub use view::{Revision, View};
pub use why::Why;

#[cfg(test)]
mod tests;
