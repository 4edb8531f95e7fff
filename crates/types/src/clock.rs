//! The time, passed in so that tests can set it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

/// Milliseconds since the Unix epoch, as `origin_server_ts` and most timestamps of the specification have it.
pub type MillisSinceEpoch = u64;

/// Where the time comes from: the system, or a test.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's wall clock.
    #[default]
    System,
    /// A clock that only moves when it is told to.
    Manual(ManualClock),
}

impl Clock {
    /// The present moment.
    pub fn now(&self) -> MillisSinceEpoch {
        match self {
            Self::System => {
                #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
                let now = std::time::SystemTime::now();
                let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
            }
            Self::Manual(clock) => clock.now_ms.load(Ordering::Relaxed),
        }
    }
}

/// The hands of a [`Clock::Manual`]. Clones share the same time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now_ms: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn starting_at(now: MillisSinceEpoch) -> Self {
        Self { now_ms: Arc::new(AtomicU64::new(now)) }
    }

    /// Moves the time on.
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let hands = ManualClock::starting_at(5);
        let clock = Clock::Manual(hands.clone());
        assert_eq!(clock.now(), 5);
        hands.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), 1005);
    }
}
