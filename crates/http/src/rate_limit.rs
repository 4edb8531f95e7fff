//! Limits on how often something may be done: by a user, from an address, in a room.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use myelin_types::Clock;

use crate::error::ApiError;

/// How often: `burst_count` times at once, and `per_second` on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// How many actions a second are allowed for ever. Zero: those of the burst, and then no more.
    pub per_second: f64,
    /// How many actions are allowed at once, after a pause. Below one: nothing is allowed.
    pub burst_count: f64,
}

impl RateLimit {
    /// Microseconds until one more action is allowed.
    fn interval(self) -> u64 {
        // Ten years stand for ever; sums of these stay far below the range of u64.
        const FOREVER: f64 = 10.0 * 365.0 * 86_400.0 * 1e6;
        let interval = 1e6 / self.per_second;
        // Truncation loses less than a microsecond, and NaN and negative rates mean "never".
        if interval > 0.0 { interval.min(FOREVER) as u64 } else { FOREVER as u64 }
    }

    /// How far ahead of the even pace one may be.
    fn tolerance(self) -> u64 {
        let ahead = (self.burst_count - 1.0).clamp(0.0, 1e9);
        (self.interval() as f64 * ahead) as u64
    }
}

/// Too often: how long to wait. As an [`ApiError`] it is 429 `M_LIMIT_EXCEEDED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rate limit exceeded, retry in {0:?}")]
pub struct RetryAfter(pub Duration);

impl From<RetryAfter> for ApiError {
    fn from(RetryAfter(wait): RetryAfter) -> Self {
        Self::limit_exceeded(wait)
    }
}

/// Counts actions by key and refuses those that come too fast.
///
/// This is the generic cell rate algorithm: a key's whole state is the moment at which it would be at an even pace
/// again. A key at rest is therefore the same as one never seen, and memory is bounded: when a shard is full, keys
/// at rest are forgotten, and if there are none the half that is nearest to it.
///
/// Counts are this process's own.
pub struct RateLimiter<K> {
    limit: RateLimit,
    clock: Clock,
    hasher: RandomState,
    shards: Box<[Mutex<Shard<K>>]>,
    keys_per_shard: usize,
}

/// Key → theoretical arrival time, in microseconds.
type Shard<K> = HashMap<K, u64, RandomState>;

const SHARDS: usize = 16;

impl<K: Hash + Eq> RateLimiter<K> {
    /// How many keys are remembered, unless said otherwise: a few megabytes.
    const DEFAULT_CAPACITY: usize = 65_536;

    /// A limiter that remembers [`Self::DEFAULT_CAPACITY`] keys.
    pub fn new(limit: RateLimit, clock: Clock) -> Self {
        Self::with_capacity(limit, clock, Self::DEFAULT_CAPACITY)
    }

    /// A limiter that remembers about `capacity` keys. No memory is taken before they come.
    pub fn with_capacity(limit: RateLimit, clock: Clock, capacity: usize) -> Self {
        let hasher = RandomState::new();
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect();
        Self { limit, clock, hasher, shards, keys_per_shard: capacity.div_ceil(SHARDS).max(1) }
    }

    /// The limit for keys without one of their own.
    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Counts one action, or refuses it; a refused action is not counted.
    ///
    /// # Errors
    /// With how long to wait, if there were too many.
    pub fn check<Q>(&self, key: &Q) -> Result<(), RetryAfter>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.check_with(key, self.limit)
    }

    /// As [`Self::check`], with the limit that this key has for itself (an administrator's override, say).
    ///
    /// # Errors
    /// With how long to wait, if there were too many.
    pub fn check_with<Q>(&self, key: &Q, limit: RateLimit) -> Result<(), RetryAfter>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.decide(key, limit, true)
    }

    /// Whether [`Self::check`] would allow one more action. Counts nothing: what is counted are the failures, with
    /// [`Self::check`], after the fact (log-ins).
    ///
    /// # Errors
    /// With how long to wait, if there were too many.
    pub fn peek<Q>(&self, key: &Q) -> Result<(), RetryAfter>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.decide(key, self.limit, false)
    }

    fn decide<Q>(&self, key: &Q, limit: RateLimit, count: bool) -> Result<(), RetryAfter>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let now = self.clock.now().saturating_mul(1000);
        if limit.burst_count < 1.0 {
            return Err(RetryAfter(Duration::from_micros(limit.interval())));
        }
        let mut shard = self.shard(key);
        let known = shard.get(key).copied();
        let arrival = known.unwrap_or(now).max(now);
        let ahead = arrival - now;
        if ahead > limit.tolerance() {
            return Err(RetryAfter(Duration::from_micros(ahead - limit.tolerance())));
        }
        if count {
            let next = arrival.saturating_add(limit.interval());
            if known.is_none() && shard.len() >= self.keys_per_shard {
                make_room(&mut shard, now);
            }
            match shard.get_mut(key) {
                Some(entry) => *entry = next,
                None => {
                    shard.insert(key.to_owned(), next);
                }
            }
        }
        Ok(())
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> std::sync::MutexGuard<'_, Shard<K>> {
        // The map uses the lower bits of the same hash.
        let index = (self.hasher.hash_one(key) >> 56) as usize % SHARDS;
        // A shard is consistent at every point where its holder could panic.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }
}

/// Forgets the keys at rest; if that is less than half, as many more of those that are nearest to it.
///
/// Half, so that a full shard of busy keys does not do this for every one that comes.
fn make_room<K: Hash + Eq>(shard: &mut Shard<K>, now: u64) {
    let keep = shard.len() / 2;
    shard.retain(|_, arrival| *arrival > now);
    if shard.len() > keep {
        let mut arrivals: Vec<u64> = shard.values().copied().collect();
        let forget = arrivals.len() - keep;
        let (_, last, _) = arrivals.select_nth_unstable(forget - 1);
        let last = *last;
        let mut left = forget;
        shard.retain(|_, arrival| {
            let forgotten = *arrival <= last && left > 0;
            left -= usize::from(forgotten);
            !forgotten
        });
    }
}

#[cfg(test)]
mod tests {
    use myelin_types::ManualClock;
    use proptest::prelude::*;

    use super::*;

    fn limiter(per_second: f64, burst_count: f64) -> (RateLimiter<String>, ManualClock) {
        let hands = ManualClock::starting_at(1_700_000_000_000);
        let clock = Clock::Manual(hands.clone());
        (RateLimiter::new(RateLimit { per_second, burst_count }, clock), hands)
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_even_pace() {
        let (limiter, hands) = limiter(10.0, 3.0);
        for _ in 0..3 {
            assert_eq!(limiter.check("alice"), Ok(()));
        }
        assert_eq!(limiter.check("alice"), Err(RetryAfter(Duration::from_millis(100))));
        assert_eq!(limiter.check("bob"), Ok(()), "keys are apart");
        hands.advance(Duration::from_millis(60));
        assert_eq!(limiter.check("alice"), Err(RetryAfter(Duration::from_millis(40))));
        hands.advance(Duration::from_millis(40));
        assert_eq!(limiter.check("alice"), Ok(()));
        assert!(limiter.check("alice").is_err());
        hands.advance(Duration::from_secs(3600));
        for _ in 0..3 {
            assert_eq!(limiter.check("alice"), Ok(()), "a pause earns one burst");
        }
        assert!(limiter.check("alice").is_err(), "and no more");
    }

    #[test]
    fn peeking_counts_nothing() {
        let (limiter, _) = limiter(0.1, 1.0);
        for _ in 0..5 {
            assert_eq!(limiter.peek("alice"), Ok(()));
        }
        assert_eq!(limiter.check("alice"), Ok(()));
        assert!(limiter.peek("alice").is_err());
    }

    #[test]
    fn odd_limits_mean_what_they_say() {
        let check = |per_second: f64, burst_count: f64, allowed: usize| {
            let (limiter, _) = limiter(per_second, burst_count);
            let counted = (0..50).filter(|_| limiter.check("alice").is_ok()).count();
            assert_eq!(counted, allowed, "{per_second} per second, burst of {burst_count}");
        };
        check(0.0, 5.0, 5);
        check(-1.0, 2.0, 2);
        check(f64::NAN, 2.0, 2);
        check(1000.0, 0.0, 0);
        check(0.003, 5.0, 5);
        check(1e12, 1.0, 50);
    }

    #[test]
    fn a_key_may_have_a_limit_of_its_own() {
        let (limiter, _) = limiter(1.0, 1.0);
        let generous = RateLimit { per_second: 1.0, burst_count: 4.0 };
        for _ in 0..4 {
            assert_eq!(limiter.check_with("bridge", generous), Ok(()));
        }
        assert!(limiter.check_with("bridge", generous).is_err());
    }

    #[test]
    fn memory_is_bounded_and_the_busiest_are_remembered() {
        let clock = Clock::Manual(ManualClock::starting_at(1_700_000_000_000));
        let limit = RateLimit { per_second: 0.001, burst_count: 3.0 };
        let limiter: RateLimiter<String> = RateLimiter::with_capacity(limit, clock, 160);
        while limiter.check("busy").is_ok() {}
        for number in 0..10_000 {
            let _ = limiter.check(number.to_string().as_str());
            assert!(limiter.len() <= 160);
        }
        assert!(limiter.check("busy").is_err(), "a flood of new keys must not free the one that is limited");
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_pace_together(pauses in proptest::collection::vec(0..400u64, 1..60)) {
            let (limiter, hands) = limiter(5.0, 4.0);
            let mut allowed = 0u64;
            let mut elapsed = 0u64;
            for pause in pauses {
                hands.advance(Duration::from_millis(pause));
                elapsed += pause;
                allowed += u64::from(limiter.check("alice").is_ok());
                prop_assert!(allowed <= 4 + elapsed * 5 / 1000, "{allowed} after {elapsed} ms");
            }
        }

        #[test]
        fn waiting_as_long_as_told_is_enough(calls in 1..20usize) {
            let (limiter, hands) = limiter(7.0, 2.0);
            for _ in 0..calls {
                if let Err(RetryAfter(wait)) = limiter.check("alice") {
                    // The clock has milliseconds; clients are told those rounded up.
                    hands.advance(wait + Duration::from_millis(1));
                    prop_assert_eq!(limiter.check("alice"), Ok(()));
                }
            }
        }
    }
}
