//! What was read of users' public keys, in memory until the stream says that it changed.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use ruma::OwnedUserId;

/// What an entry takes besides what it holds.
const ENTRY_OVERHEAD: u64 = 160;

/// Something of a user that is kept in memory.
pub(crate) trait Weighed {
    /// About how many bytes it takes.
    fn size_bytes(&self) -> u64;
}

/// Something of each user, as of what this process has seen of the stream.
pub(crate) struct UserCache<V> {
    users: Cache<OwnedUserId, Arc<V>, BySize>,
    /// Users who are being read from the database. Held while what was read is put into `users`, and while users are
    /// forgotten, so that nothing is kept that was read before it changed.
    loading: Mutex<HashMap<OwnedUserId, Loading>>,
}

#[derive(Default)]
struct Loading {
    readers: usize,
    /// The stream has brought a change meanwhile: what is read may be of before.
    changed: bool,
}

#[derive(Clone)]
struct BySize;

impl<V: Weighed> Weighter<OwnedUserId, Arc<V>> for BySize {
    fn weight(&self, user_id: &OwnedUserId, value: &Arc<V>) -> u64 {
        user_id.as_str().len() as u64 + ENTRY_OVERHEAD + value.size_bytes()
    }
}

impl<V: Weighed> UserCache<V> {
    /// A cache of at most so many bytes.
    pub fn new(bytes: u64) -> Self {
        let likely_users = usize::try_from(bytes / 2048).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        Self { users: Cache::with_weighter(likely_users, bytes, BySize), loading: Mutex::default() }
    }

    /// What is known of a user.
    pub fn get(&self, user_id: &OwnedUserId) -> Option<Arc<V>> {
        self.users.get(user_id)
    }

    /// Announces that users are going to be read. To be called before the database is asked.
    pub fn load(&self, user_ids: Vec<OwnedUserId>) -> Load<'_, V> {
        let mut loading = self.loading.lock();
        for user_id in &user_ids {
            loading.entry(user_id.clone()).or_default().readers += 1;
        }
        drop(loading);
        Load { cache: self, user_ids }
    }

    /// Forgets what is known of a user, and what is being read.
    pub fn forget(&self, user_id: &OwnedUserId) {
        let mut loading = self.loading.lock();
        if let Some(loading) = loading.get_mut(user_id) {
            loading.changed = true;
        }
        self.users.remove(user_id);
    }
}

/// Users who are being read. May be dropped at any time.
pub(crate) struct Load<'a, V: Weighed> {
    cache: &'a UserCache<V>,
    user_ids: Vec<OwnedUserId>,
}

impl<V: Weighed> Load<'_, V> {
    /// Whom to read.
    pub fn users(&self) -> &[OwnedUserId] {
        &self.user_ids
    }

    /// Their names, as the database wants them.
    pub fn user_ids(&self) -> Vec<&str> {
        self.user_ids.iter().map(|user_id| user_id.as_str()).collect()
    }

    /// Keeps what was read, unless it has changed meanwhile.
    pub fn keep(&self, user_id: &OwnedUserId, value: &Arc<V>) {
        let loading = self.cache.loading.lock();
        if loading.get(user_id).is_some_and(|loading| !loading.changed) {
            self.cache.users.insert(user_id.clone(), value.clone());
        }
    }
}

impl<V: Weighed> Drop for Load<'_, V> {
    fn drop(&mut self) {
        let mut loading = self.cache.loading.lock();
        for user_id in &self.user_ids {
            if let Some(entry) = loading.get_mut(user_id) {
                entry.readers -= 1;
                if entry.readers == 0 {
                    loading.remove(user_id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use super::*;

    impl Weighed for u32 {
        fn size_bytes(&self) -> u64 {
            4
        }
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let cache = UserCache::<u32>::new(1 << 20);
        let amy = owned_user_id!("@amy:x");
        let load = cache.load(vec![amy.clone()]);
        cache.forget(&amy);
        let later = cache.load(vec![amy.clone()]);
        load.keep(&amy, &Arc::new(1));
        drop(load);
        assert!(cache.get(&amy).is_none());
        // It may have been read after the change, but nobody knows.
        later.keep(&amy, &Arc::new(2));
        assert!(cache.get(&amy).is_none());
        drop(later);

        let load = cache.load(vec![amy.clone()]);
        load.keep(&amy, &Arc::new(3));
        assert_eq!(cache.get(&amy).as_deref(), Some(&3));
        drop(load);
        cache.forget(&amy);
        assert!(cache.get(&amy).is_none() && cache.loading.lock().is_empty());
    }
}
