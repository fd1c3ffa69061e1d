//! Being served first.

use nix::libc;

/// Puts this process before all that are not real-time, where that is allowed (`CAP_SYS_NICE`, which
/// containers do not have by default). For one that hardly ever runs, and starts no more processes;
/// one that it did start would be an ordinary one again all the same.
#[expect(unsafe_code, reason = "nix has neither call")]
pub fn raise() {
    // SAFETY: a structure of integers, for which zeros are valid, and calls that touch no other memory.
    unsafe {
        let mut lowest: libc::sched_param = std::mem::zeroed();
        lowest.sched_priority = 1;
        if libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &lowest) != 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, -20);
        }
    }
}
