//! How many requests may be under way at once.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Into so many groups callers are put by chance; those of a group share what one of them may have.
const GROUPS: usize = 1024;

/// The requests under way in this process. Those that work and those that wait (long polls) are counted apart: ten
/// thousand sleeping clients must not keep one message out.
pub(crate) struct InFlight {
    working: Arc<Places>,
    waiting: Arc<Places>,
    hasher: RandomState,
}

/// Whose a request is, as far as its head tells: who sends many is not to keep others out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose<'r> {
    /// That of an access token's owner.
    Owner(&'r str),
    /// There is no token.
    Address(Option<IpAddr>),
}

impl<'r> Whose<'r> {
    /// The owner of an access token, of which nobody knows yet whether it is one.
    pub(crate) fn of_token(token: &'r str) -> Self {
        Self::Owner(owner_of(token))
    }
}

/// The part of an access token that is the same for all tokens of a user.
pub fn owner_of(token: &str) -> &str {
    token.split('_').nth(1).unwrap_or(token)
}

/// The places of one kind, and how many each group of callers holds.
struct Places {
    kind: &'static str,
    max: u32,
    free: Semaphore,
    held: Box<[AtomicU32]>,
}

/// A place among the requests under way. It is free again when this is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    group: usize,
}

impl InFlight {
    pub(crate) fn new(max_working: usize, max_waiting: usize) -> Self {
        Self {
            working: Arc::new(Places::new("working", max_working)),
            waiting: Arc::new(Places::new("waiting", max_waiting)),
            hasher: RandomState::new(),
        }
    }

    /// Waits until nothing is under way.
    pub(crate) async fn idle(&self) {
        for places in [&self.working, &self.waiting] {
            // An error would mean that the semaphore was closed, which nobody does.
            let _ = places.free.acquire_many(places.max).await;
        }
    }

    /// Takes a place, or says that there are too many already, or that the caller has too many of them. Never waits: a client that
    /// is told so at once can go to another process.
    pub(crate) fn enter(&self, long_poll: bool, whose: Whose<'_>) -> Result<Place, ApiError> {
        let places = if long_poll { &self.waiting } else { &self.working };
        let group = usize::try_from(self.hasher.hash_one(whose) % GROUPS as u64).unwrap_or_default();
        if places.take(group) {
            metrics::gauge!("myelin_http_requests_in_flight", "kind" => places.kind).increment(1);
            return Ok(Place { places: places.clone(), group });
        }
        metrics::counter!("myelin_http_requests_refused_total", "kind" => places.kind).increment(1);
        let pause = Duration::from_secs(2);
        let error = ApiError::unavailable("The server is overloaded", pause);
        // Not every client reads the header.
        Err(error.with_field("retry_after_ms", u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Places {
    fn new(kind: &'static str, max: usize) -> Self {
        // What can be taken back at once is counted in 32 bits.
        let max = u32::try_from(max.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let held = (0..GROUPS).map(|_| AtomicU32::new(0)).collect();
        Self { kind, max, free: Semaphore::new(max as usize), held }
    }

    /// Takes a place if one is free and the group does not hold more than are. So who is alone may have half of all, of two that
    /// want as many as they can get each a third, and whoever has none finds one for as long as there is any: a share is fair
    /// without anybody knowing how many want one.
    fn take(&self, group: usize) -> bool {
        let held = self.held[group].fetch_add(1, Ordering::Relaxed);
        let is_fair = self.free.available_permits() >= held as usize;
        match self.free.try_acquire() {
            Ok(permit) if is_fair => {
                permit.forget();
                true
            }
            _ => {
                self.held[group].fetch_sub(1, Ordering::Relaxed);
                false
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held[self.group].fetch_sub(1, Ordering::Relaxed);
        self.places.free.add_permits(1);
        metrics::gauge!("myelin_http_requests_in_flight", "kind" => self.places.kind).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as many places as there are to be had.
    fn take_all(in_flight: &InFlight, who: &str) -> Vec<Place> {
        std::iter::from_fn(|| in_flight.enter(false, Whose::of_token(who)).ok()).collect()
    }

    #[test]
    fn who_takes_all_that_they_can_leaves_places_for_others() {
        let in_flight = InFlight::new(64, 1);
        let loud = take_all(&in_flight, "syt_loud_1");
        assert_eq!(loud.len(), 33);
        let louder = take_all(&in_flight, "syt_louder_1");
        assert_eq!(louder.len(), 16);
        let quiet = in_flight.enter(false, Whose::of_token("syt_quiet_1"));
        assert!(quiet.is_ok(), "who has no place gets one");
        assert!(in_flight.enter(false, Whose::of_token("syt_loud_2")).is_err(), "whichever token it is");

        // What the loud ones give back, others may have, until each has as much as is left.
        drop(loud);
        assert_eq!(take_all(&in_flight, "syt_louder_2").len() + louder.len(), 32);
    }

    #[test]
    fn all_places_are_taken_if_many_want_one_and_none_gets_lost() {
        let in_flight = InFlight::new(64, 1);
        let address = |number: u8| Whose::Address(Some(IpAddr::from([192, 0, 2, number])));
        for _ in 0..3 {
            let taken: Vec<Place> =
                (0..=255).filter_map(|number| in_flight.enter(false, address(number)).ok()).collect();
            assert_eq!(taken.len(), 64);
            assert!(in_flight.enter(false, Whose::Address(None)).is_err());
            assert!(in_flight.enter(true, Whose::Address(None)).is_ok(), "those who wait are counted apart");
        }
        assert_eq!(in_flight.working.free.available_permits(), 64);
        assert!(in_flight.working.held.iter().all(|held| held.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn one_place_is_one_place() {
        let in_flight = InFlight::new(1, 1);
        let place = in_flight.enter(false, Whose::Address(None));
        assert!(place.is_ok());
        assert!(in_flight.enter(false, Whose::Owner("other")).is_err());
        drop(place);
        assert!(in_flight.enter(false, Whose::Owner("other")).is_ok());
    }

    #[test]
    fn the_owner_is_told_from_the_token() {
        assert_eq!(owner_of("syt_YWxpY2U_abc_xyz"), "YWxpY2U");
        assert_eq!(owner_of("other"), "other");
    }
}
