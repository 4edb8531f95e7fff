//! Writes that build on one another.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// A row of writes of which each builds on those before, as the events of one room do. Their maker goes on building
/// while the first are being committed; if one fails, the later ones must not be written, and are not: the lane is
/// *broken* for good, and its maker starts again from what the database has, with a new lane.
///
/// Clones are the same lane.
#[derive(Clone, Debug, Default)]
pub struct Lane(Arc<State>);

#[derive(Debug, Default)]
struct State {
    broken: AtomicBool,
    in_flight: AtomicUsize,
}

impl Lane {
    /// A new lane.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a write failed. Nothing of the lane is written any more once this is true.
    pub fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Acquire)
    }

    /// How many writes were handed over whose end is not known yet.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Acquire)
    }

    pub(crate) fn ticket(&self) -> Ticket {
        self.0.in_flight.fetch_add(1, Ordering::AcqRel);
        Ticket { lane: self.clone(), is_done: false }
    }
}

/// A write under way. Dropped without being done, for whatever reason, it breaks its lane.
#[derive(Debug)]
pub(crate) struct Ticket {
    lane: Lane,
    is_done: bool,
}

impl Ticket {
    pub(crate) fn done(mut self) {
        self.is_done = true;
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.lane.is_broken()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_done {
            self.lane.0.broken.store(true, Ordering::Release);
        }
        self.lane.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_is_lost_breaks_its_lane() {
        let lane = Lane::new();
        let (first, second) = (lane.ticket(), lane.ticket());
        first.done();
        assert_eq!((lane.is_broken(), lane.in_flight()), (false, 1));
        drop(second);
        assert_eq!((lane.is_broken(), lane.in_flight()), (true, 0));
    }
}
