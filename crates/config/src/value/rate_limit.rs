//! `rc_…` options: a leaky bucket.

use crate::section::section;

section! {
    /// How often something may be done: a bucket of `burst_count` actions that refills at `per_second`. Where a file
    /// gives only one of the two, the other one keeps its default.
    RateLimit {
        /// Actions a second that are possible in the long run.
        per_second: f64,
        /// Actions that are possible at once before `per_second` slows down.
        burst_count: u32,
    }
}

impl RateLimit {
    /// A limit that is never reached, for tests and for users who are exempt.
    pub const UNLIMITED: Self = Self { per_second: f64::MAX, burst_count: u32::MAX };
}
