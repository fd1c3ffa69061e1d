//! The init half.
