//! `pgherd openapi`.

use super::{answer, pretty};
use crate::http;

/// Prints what the port answers.
pub(super) fn print() -> u8 {
    answer(pretty(&http::openapi()))
}
