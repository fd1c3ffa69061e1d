//! How a node shows that it is a member: with the control token, which it does not show.

use super::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::Write;

/// What only who has `token` can say of `body` when asked with `nonce`. Hexadecimal.
pub fn proof(token: &Secret, nonce: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(token.expose().trim().as_bytes())
        .expect("any length of key will do");
    for part in ["pgherd member", nonce, body] {
        // With its length, so that no two triples are the same text.
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // A String takes anything.
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_answer_to_one_question_by_one_token() {
        let of = |token: &'static str, nonce, body| proof(&token.into(), nonce, body);
        let right = of("t", "n", "b");
        assert_eq!((right.len(), of(" t ", "n", "b")), (64, right.clone()));
        for other in [of("u", "n", "b"), of("t", "m", "b"), of("t", "n", "c"), of("t", "nb", "")] {
            assert_ne!(other, right);
        }
    }
}
