//! What `recognise` takes for granted.

/// What recognise relies on, and cannot see to itself. Each is needed: without it something goes
/// wrong, and a test shows what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReliesOn {
    /// More than half of all members serve, see the promotion and keep that on their disks.
    pub(crate) promotions_are_seen: bool,
    /// Nobody promotes a standby that any of them knows to be behind.
    pub(crate) the_newest_is_promoted: bool,
    /// Nobody promotes between a look and the start that follows from it.
    pub(crate) nobody_promotes_meanwhile: bool,
    /// A node says at once that it serves, or was promoted.
    pub(crate) all_is_told_at_once: bool,
    /// A node that starts tells what it has heard of in its life before.
    pub(crate) memory_is_told_from_the_start: bool,
    /// A person's word is not kept if somebody who answers had newer data.
    pub(crate) words_in_vain_are_forgotten: bool,
    /// A person's word is heard of from whoever leads by it only: the numbers of timelines that
    /// are given up come again.
    pub(crate) words_are_taken_from_leaders: bool,
    /// A node that joins takes nobody's data that is older than its own.
    pub(crate) joins_nothing_older: bool,
}

pub(crate) const ALL: ReliesOn = ReliesOn {
    promotions_are_seen: true,
    the_newest_is_promoted: true,
    nobody_promotes_meanwhile: true,
    all_is_told_at_once: true,
    memory_is_told_from_the_start: true,
    words_in_vain_are_forgotten: true,
    words_are_taken_from_leaders: true,
    joins_nothing_older: true,
};
