//! Words that were never said before, and that nobody can foresee.

use std::fmt::Write;

/// 128 random bits, as hexadecimal digits. For a question, so that no answer is good for two; and for
/// the life of a process, so that no two are taken for one.
///
/// # Panics
///
/// If the kernel has no random numbers, which it says of containers that are not allowed to ask.
pub fn nonce() -> String {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // A String takes anything.
        text
    })
}
