//! The account data of active users, each user's as a whole.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use myelin_replication::Stamped;
use myelin_storage::Result;
use myelin_types::{Position, StreamId};
use parking_lot::{Mutex, RwLock};
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::value::RawValue as RawJson;

use super::{AccountDataEvent, Place, parse_ignored_users};

/// What an entry weighs besides its text: keys, pointers, the map's nodes.
const ENTRY_OVERHEAD: usize = 160;
/// A user's weight in the cache is corrected when it is off by so many bytes.
const MAX_WEIGHT_ERROR: u64 = 16_384;
const IGNORED_USER_LIST: &str = "m.ignored_user_list";

/// One piece of a user's account data.
#[derive(Clone, Debug)]
pub struct AccountDataEntry {
    /// The room, unless it is global.
    pub room_id: Option<OwnedRoomId>,
    /// The event type.
    pub event_type: String,
    /// The content, a JSON object.
    pub content: Arc<RawJson>,
    place: Place,
}

/// All account data of one user.
#[derive(Debug, Default)]
pub struct UserAccountData {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By room and type; global account data is of the room ''.
    entries: BTreeMap<(String, String), AccountDataEntry>,
    /// The newest row's ID: most syncs ask for what is newer than that.
    newest: StreamId,
    ignored_users: Arc<HashSet<OwnedUserId>>,
    bytes: usize,
}

impl UserAccountData {
    /// The content of one type, of a room or global.
    pub fn get(&self, room: Option<&RoomId>, event_type: &str) -> Option<Arc<RawJson>> {
        let key = (room.map_or_else(String::new, ToString::to_string), event_type.to_owned());
        self.state.read().entries.get(&key).map(|entry| entry.content.clone())
    }

    /// Everything, of rooms and global.
    pub fn all(&self) -> Vec<AccountDataEntry> {
        self.state.read().entries.values().cloned().collect()
    }

    /// What `position` does not cover. Costs nothing where that is nothing.
    pub fn since(&self, position: &Position) -> Vec<AccountDataEntry> {
        let state = self.state.read();
        if state.newest <= position.minimum() {
            return Vec::new();
        }
        let is_new = |entry: &&AccountDataEntry| !position.covers(entry.place.0, entry.place.1);
        state.entries.values().filter(is_new).cloned().collect()
    }

    /// The users that this one ignores.
    pub fn ignored_users(&self) -> Arc<HashSet<OwnedUserId>> {
        self.state.read().ignored_users.clone()
    }

    fn weight(&self) -> u64 {
        self.state.read().bytes as u64
    }

    /// Takes a row over, unless there is a newer one.
    fn apply(&self, Stamped { id, writer, row }: &Stamped<AccountDataEvent>) {
        let mut state = self.state.write();
        let room = row.room_id.as_ref().map_or_else(String::new, ToString::to_string);
        let key = (room, row.event_type.clone());
        let key_bytes = key.0.len() + key.1.len();
        let old = state.entries.get(&key);
        if old.is_some_and(|old| old.place.1 >= *id) {
            return;
        }
        let old_bytes = old.map_or(0, |old| old.content.get().len() + 2 * key_bytes + ENTRY_OVERHEAD);
        state.bytes = state.bytes + row.content.get().len() + 2 * key_bytes + ENTRY_OVERHEAD - old_bytes;
        state.newest = state.newest.max(*id);
        if row.room_id.is_none() && row.event_type == IGNORED_USER_LIST {
            state.ignored_users = Arc::new(parse_ignored_users(&row.content));
        }
        let entry = AccountDataEntry {
            room_id: row.room_id.clone(),
            event_type: row.event_type.clone(),
            content: row.content.clone(),
            place: (*writer, *id),
        };
        state.entries.insert(key, entry);
    }
}

/// A user in the cache, with the weight they had when they were put there: it must not change meanwhile.
#[derive(Clone)]
struct Cached {
    data: Arc<UserAccountData>,
    weight: u64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<OwnedUserId, Cached> for ByBytes {
    fn weight(&self, user: &OwnedUserId, cached: &Cached) -> u64 {
        (user.as_str().len() + ENTRY_OVERHEAD) as u64 + cached.weight
    }
}

type Rows = Vec<Stamped<AccountDataEvent>>;

pub(super) struct UserCache {
    users: Cache<OwnedUserId, Cached, ByBytes>,
    /// Users that are being read from the database, with the rows that the stream has brought meanwhile. Held while rows
    /// are applied and while a user who was read is put into `users`, so that no row falls in between.
    loading: Mutex<HashMap<OwnedUserId, Rows>>,
}

impl fmt::Debug for UserCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserCache")
            .field("users", &self.users.len())
            .field("bytes", &self.users.weight())
            .finish()
    }
}

impl UserCache {
    pub fn new(bytes: u64) -> Self {
        let likely_users = usize::try_from(bytes / 4096).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        Self { users: Cache::with_weighter(likely_users, bytes, ByBytes), loading: Mutex::default() }
    }

    /// Takes over what the stream brings.
    pub fn apply(&self, rows: &[Stamped<AccountDataEvent>]) {
        let mut loading = self.loading.lock();
        for row in rows {
            let user = &row.row.user_id;
            if let Some(waiting) = loading.get_mut(user) {
                waiting.push(row.clone());
            } else if let Some(cached) = self.users.get(user) {
                cached.data.apply(row);
                let weight = cached.data.weight();
                if weight.abs_diff(cached.weight) > MAX_WEIGHT_ERROR {
                    self.users.insert(user.clone(), Cached { data: cached.data, weight });
                }
            }
        }
    }

    /// The user's account data, read by `load` unless it is here.
    pub async fn get_or_load(
        &self,
        user: &UserId,
        load: impl AsyncFnOnce() -> Result<Rows>,
    ) -> Result<Arc<UserAccountData>> {
        let guard = match self.users.get_value_or_guard_async(user).await {
            Ok(cached) => return Ok(cached.data),
            Err(guard) => guard,
        };
        // From here on rows of the stream are kept for us; what was committed before is what we read.
        let turn = Turn::begin(self, user);
        let rows = load().await?;
        let data = Arc::new(UserAccountData::default());
        rows.iter().for_each(|row| data.apply(row));

        let mut loading = self.loading.lock();
        let waiting = loading.remove(user).unwrap_or_default();
        waiting.iter().for_each(|row| data.apply(row));
        // Another may have put the user in our place, which then is as good.
        let _ = guard.insert(Cached { data: data.clone(), weight: data.weight() });
        drop(loading);
        turn.done();
        Ok(data)
    }

    #[cfg(test)]
    pub fn clear(&self) {
        self.users.clear();
    }
}

/// Our turn at reading a user; ends also where the request goes away in the middle.
struct Turn<'a> {
    cache: &'a UserCache,
    user: OwnedUserId,
    is_done: bool,
}

impl<'a> Turn<'a> {
    fn begin(cache: &'a UserCache, user: &UserId) -> Self {
        cache.loading.lock().insert(user.to_owned(), Rows::new());
        Self { cache, user: user.to_owned(), is_done: false }
    }

    fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.cache.loading.lock().remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use myelin_types::WriterId;

    use super::*;
    use crate::testing::alice;

    fn row(event_type: &str, content: &str, id: i64) -> Stamped<AccountDataEvent> {
        let row = AccountDataEvent {
            user_id: alice().to_owned(),
            room_id: None,
            event_type: event_type.to_owned(),
            content: RawJson::from_string(content.to_owned()).unwrap().into(),
        };
        Stamped { id: StreamId(id), writer: WriterId(1), row }
    }

    #[tokio::test]
    async fn a_row_that_comes_while_the_user_is_read_is_not_lost() {
        let cache = UserCache::new(1 << 20);
        let data = cache
            .get_or_load(alice(), async || {
                cache.apply(&[row("a", "2", 2), row("b", "3", 3)]);
                Ok(vec![row("a", "1", 1)])
            })
            .await
            .unwrap();
        assert_eq!(data.get(None, "a").unwrap().get(), "2");
        assert_eq!(data.get(None, "b").unwrap().get(), "3");
    }

    #[tokio::test]
    async fn a_read_that_fails_or_is_given_up_leaves_nothing_behind() {
        let cache = UserCache::new(1 << 20);
        let failing = async || Err(myelin_storage::StorageError::Fenced);
        assert!(cache.get_or_load(alice(), failing).await.is_err());
        let forever = cache.get_or_load(alice(), async || std::future::pending().await);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), forever).await.is_err());
        assert!(cache.loading.lock().is_empty());
        cache.get_or_load(alice(), async || Ok(Rows::new())).await.unwrap();
    }

    #[tokio::test]
    async fn the_weight_follows_the_content() {
        let cache = UserCache::new(1 << 20);
        cache.get_or_load(alice(), async || Ok(vec![row("a", "1", 1)])).await.unwrap();
        let before = cache.users.weight();
        let long = format!("\"{}\"", "x".repeat(100_000));
        cache.apply(&[row("a", &long, 2)]);
        assert!(cache.users.weight() > before + 90_000);
        cache.apply(&[row("a", "1", 3)]);
        assert_eq!(cache.users.weight(), before);
    }
}
