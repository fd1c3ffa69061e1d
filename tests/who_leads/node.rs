//! A node: what is on its disk, and what it does.

use pgherd::cluster::Role;

/// Who was promoted, one after the other: two bits for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct History(u16);

impl History {
    pub(crate) fn timeline(self) -> u8 {
        let promotions = (u16::BITS - self.0.leading_zeros()).div_ceil(2);
        1 + promotions as u8
    }

    pub(crate) fn promoted(self, node: usize) -> Self {
        History((self.0 << 2) | (node as u16 + 1))
    }
}

/// What a node does just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    Down,
    /// It has asked nobody yet, or waits and asks again.
    Looks,
    /// It gives up what it has for what a primary has; it awaits one.
    Joins,
    Serves,
}

/// What has changed since a node that serves told the others last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Untold {
    Nothing,
    /// It serves now.
    Started,
    /// It was promoted.
    Promoted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) life: Life,
    /// On its disk.
    pub(crate) role: Role,
    pub(crate) history: History,
    /// On its disk: the newest timeline that it has heard of.
    pub(crate) newest: u8,
    pub(crate) untold: Untold,
    /// While it led: it has to recover first.
    pub(crate) was_killed: bool,
    /// On its disk.
    pub(crate) given_up: Option<Word>,
    /// A person has said that it is gone, and is right.
    pub(crate) is_gone: bool,
}

impl Node {
    pub(crate) fn leads(&self) -> bool {
        self.life == Life::Serves && self.role == Role::Primary
    }
}

/// A person's: which one it is, and that what comes after the third is gone, up to the second.
pub(crate) type Word = (u32, u8, u8);
