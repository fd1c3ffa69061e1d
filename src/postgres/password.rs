//! Passwords as the server keeps them. It is given a SCRAM verifier, never the password itself:
//! with `log_statement` or a failing statement, SQL ends in the log.

use crate::settings::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// A fresh verifier with a random salt.
pub(super) fn verifier(password: &Secret) -> String {
    postgres_protocol::password::scram_sha_256(password.expose().as_bytes())
}

/// Whether `stored`, from `pg_authid.rolpassword`, is a verifier of `password`. If it is, it is
/// kept: poolers copy verifiers, and a new salt would lock their users out.
///
/// Its form is `SCRAM-SHA-256$ITERATIONS:SALT$STORED_KEY:SERVER_KEY`, RFC 5803.
pub(super) fn matches(stored: &str, password: &Secret) -> bool {
    let parse = || {
        let (parameters, keys) = stored.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, _) = keys.split_once(':')?;
        Some((iterations.parse().ok()?, BASE64.decode(salt).ok()?, BASE64.decode(stored_key).ok()?))
    };
    parse().is_some_and(|(iterations, salt, stored_key): (u32, Vec<u8>, Vec<u8>)| {
        let salted = salted_password(&normalised(password.expose()), &salt, iterations);
        let client_key = hmac(&salted, &[b"Client Key"]);
        Sha256::digest(client_key).as_slice() == stored_key
    })
}

/// `Hi` of RFC 5802: PBKDF2 with HMAC-SHA-256 and one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut round = hmac(password, &[salt, &1_u32.to_be_bytes()]);
    let mut sum = round;
    for _ in 1..iterations {
        round = hmac(password, &[&round]);
        sum.iter_mut().zip(round).for_each(|(sum, round)| *sum ^= round);
    }
    sum
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length of key will do");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// SASLprep, or the text as it is where that does not apply: as Postgres does it.
fn normalised(password: &str) -> Vec<u8> {
    stringprep::saslprep(password).map_or_else(|_| password.into(), |text| text.as_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_recognised_and_another_password_is_not() {
        for text in ["iamrepmgr", "it's \"so\" \\ : @ % $", "пароль ﷺ", " "] {
            let stored = verifier(&text.into());
            assert!(matches(&stored, &text.into()), "{text}");
            assert!(!matches(&stored, &"another".into()));
        }
        for stored in ["", "md5abc", "SCRAM-SHA-256$x", "SCRAM-SHA-256$4096:!$a:b"] {
            assert!(!matches(stored, &"x".into()));
        }
    }
}
