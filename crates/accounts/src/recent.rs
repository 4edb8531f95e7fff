//! What was read from the database of late, so that it costs no query the next time.

use std::hash::Hash;

use parking_lot::Mutex;
use quick_cache::{Equivalent, UnitWeighter, Weighter, sync::Cache};

/// Values by key, until they are forgotten or others need the room.
pub(crate) struct Recent<K, V, W = UnitWeighter> {
    values: Cache<K, V, W>,
    /// How often something was forgotten. Held while it changes and while a value is added.
    generation: Mutex<u64>,
}

/// The state of the cache before the database was asked.
#[derive(Clone, Copy)]
pub(crate) struct Generation(u64);

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Holds so many values.
    pub fn new(capacity: usize) -> Self {
        Self { values: Cache::new(capacity), generation: Mutex::default() }
    }
}

impl<K: Eq + Hash, V: Clone, W: Weighter<K, V> + Clone> Recent<K, V, W> {
    /// Holds values of so much weight together.
    pub fn of_weight(weight: u64, likely: usize, weighter: W) -> Self {
        Self { values: Cache::with_weighter(likely, weight, weighter), generation: Mutex::default() }
    }

    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.values.get(key)
    }

    pub fn generation(&self) -> Generation {
        Generation(*self.generation.lock())
    }

    /// Adds what the database said, unless something was forgotten since `before`: it may have been this very value, which
    /// changed while the answer was on its way.
    pub fn insert(&self, before: Generation, key: K, value: V) {
        let generation = self.generation.lock();
        if *generation == before.0 {
            self.values.insert(key, value);
        }
    }

    pub fn forget<'a, Q>(&self, keys: impl IntoIterator<Item = &'a Q>)
    where
        Q: Hash + Equivalent<K> + ?Sized + 'a,
    {
        let mut keys = keys.into_iter().peekable();
        if keys.peek().is_none() {
            return;
        }
        let mut generation = self.generation.lock();
        *generation += 1;
        for key in keys {
            self.values.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_while_it_is_read_does_not_stay() {
        let recent: Recent<String, u32> = Recent::new(10);
        let before = recent.generation();
        recent.forget(["a"]);
        recent.insert(before, "a".to_owned(), 1);
        assert_eq!(recent.get("a"), None);

        recent.insert(recent.generation(), "a".to_owned(), 2);
        assert_eq!(recent.get("a"), Some(2));
        recent.forget(std::iter::empty::<&str>());
        assert_eq!(recent.get("a"), Some(2));
        recent.forget(["a"]);
        assert_eq!(recent.get("a"), None);
    }
}
