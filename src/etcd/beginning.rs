//! How voters with empty directories find that they begin the same cluster of etcd.
//!
//! A voter whose disk was lost has forgotten whom it voted for and what it has acknowledged. Were it taken
//! for the one that it was, it could make a majority, together with one that lags behind, which knows less
//! than an earlier one did. So no voter is ever taken for another life of itself: each empty directory has a
//! number of its own, a beginning is a [`Token`] made of the numbers of those that take part in it, and etcd
//! hashes the token into the numbers of its members and of its cluster. Who remembers another beginning is a
//! stranger to this one, whatever its name, and whenever it comes back.
//!
//! At most one beginning ever has a majority as long as no majority of the voters loses its disks, because
//!
//! 1. a voter holds one token at a time, which it has put on its disk before its etcd starts;
//! 2. a token counts for those only whose numbers are in it: whoever lost its disk since has another number;
//! 3. whoever has been part of a majority gives its token up only where the others have one without it;
//! 4. whoever has not gives it up only where more than half of the voters say that they have not either.

use super::member::Votes;
use crate::cluster::{Token, Vote};

/// What a voter begins whose directory is empty and has the number `nonce`, if it may begin now. `others`
/// are the other voters, each with what it says; `None` for one that is silent or has not shown that it is a
/// member. While one is, there is `patience`: a cluster that begins without one of its voters can
/// lose no other until that one has joined.
///
/// A beginning that somebody else takes part in, and that counts for this one, is joined. Else the first in
/// the order of names, of those that are new, makes one, if they are a majority.
pub fn begins(us: &str, nonce: &str, others: &Votes, patience: bool) -> Option<Token> {
    let tokens = others.values().flatten().filter_map(|vote| match vote {
        Vote::Begins { token } => Some(token),
        Vote::New { .. } | Vote::Remembers => None,
    });
    if let Some(token) = tokens.filter(|token| token.is_for(us, nonce)).min() {
        return Some(token.clone());
    }
    if patience && others.values().any(Option::is_none) {
        return None;
    }
    let new = others.iter().filter_map(|(name, vote)| match vote {
        Some(Vote::New { nonce }) => Some((name.clone(), nonce.clone())),
        Some(Vote::Begins { .. } | Vote::Remembers) | None => None,
    });
    let token = Token(new.chain([(us.to_owned(), nonce.to_owned())]).collect());
    let is_majority = token.0.len() * 2 > others.len() + 1;
    let is_first = token.0.keys().next().is_some_and(|first| first == us);
    (is_majority && is_first).then_some(token)
}

/// Whether a voter that has never been part of a majority, and has waited for one in vain, may give up what
/// it began: more than half of the voters, itself among them, have not been either.
pub fn may_begin_again(others: &Votes) -> bool {
    let unheard = others.values().flatten().filter(|vote| vote.is_unheard()).count();
    (unheard + 1) * 2 > others.len() + 1
}

#[cfg(test)]
mod tests;
