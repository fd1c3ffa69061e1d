//! The lease in parts. Whoever leads uses three quarters of it; the last one is for the fence, which
//! has to stop a server, and for clocks that do not run alike.

use std::time::Duration;

/// So much of the lease a holder may write after it asked for it, in quarters.
pub const WRITES_FOR_QUARTERS: u32 = 3;
/// A holder renews so often in a lease.
pub const RENEWALS_IN_A_LEASE: u32 = 4;
/// The others look so often in a lease.
pub const LOOKS_IN_A_LEASE: u32 = 8;

/// How long a holder may write after it sent what was answered well.
pub fn writes_for(lease: Duration) -> Duration {
    lease * WRITES_FOR_QUARTERS / 4
}

/// From one renewal to the next, and as long without an answer until everybody is asked.
pub fn renew_every(lease: Duration) -> Duration {
    lease / RENEWALS_IN_A_LEASE
}

/// From one look at the record to the next. An answer that takes longer is not waited for.
pub fn look_every(lease: Duration) -> Duration {
    lease / LOOKS_IN_A_LEASE
}
