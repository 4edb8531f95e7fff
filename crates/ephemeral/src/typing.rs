//! Who is typing where: in memory, for as long as the clients say.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use myelin_types::{Clock, Position, StreamId};
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

/// A client can't be typing for longer without saying so again.
const LONGEST: Duration = Duration::from_secs(120);
/// Rooms in which somebody typed lately; of more than these, those where it is long over are forgotten.
const MAX_QUIET_ROOMS: usize = 10_000;
/// How long a room is remembered in which nobody types any more: tokens that are older miss the end of it.
const REMEMBER_MS: i64 = 10 * 60 * 1000;
/// Users of one room who are shown as typing at most.
const MAX_PER_ROOM: usize = 100;

/// A room in which someone began or ceased to type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypingChange {
    /// The room's number.
    pub room_nid: i64,
    /// The place of this change in the order of all of them.
    pub id: StreamId,
}

/// What another process is told: a user types, or does not any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TypingUpdate {
    /// The room's number.
    pub room_nid: i64,
    /// The user.
    pub user_id: OwnedUserId,
    /// For how long, in milliseconds; `None`: not any more.
    pub timeout_ms: Option<u64>,
}

type Outlet = Box<dyn Fn(TypingUpdate) + Send + Sync>;
type Subscriber = Box<dyn Fn(TypingChange) + Send + Sync>;

/// Who is typing ([spec](https://spec.matrix.org/v1.19/client-server-api/#typing-notifications)). Clones are the same.
///
/// Nothing of it is stored. Positions start at the present time in milliseconds, so that tokens of an earlier process
/// lie behind those of a later one.
#[derive(Clone)]
pub struct Typing(Arc<Inner>);

struct Inner {
    clock: Clock,
    position: watch::Sender<StreamId>,
    state: Mutex<State>,
    /// Tells other processes.
    outlet: OnceLock<Outlet>,
}

#[derive(Default)]
struct State {
    rooms: HashMap<i64, Room>,
    last: i64,
    subscribers: Vec<Arc<Subscriber>>,
}

#[derive(Default)]
struct Room {
    changed: i64,
    users: Vec<(OwnedUserId, Instant)>,
    /// The task that ends what has run out is under way.
    expiring: bool,
}

impl std::fmt::Debug for Typing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Typing").field("position", &self.position().minimum()).finish_non_exhaustive()
    }
}

impl Typing {
    /// Nobody is typing.
    pub fn new(clock: Clock) -> Self {
        let now = i64::try_from(clock.now()).unwrap_or_default();
        let state = State { last: now, ..State::default() };
        let position = watch::Sender::new(StreamId(now));
        Self(Arc::new(Inner { clock, position, state: Mutex::new(state), outlet: OnceLock::new() }))
    }

    /// Has `subscriber` called with every change, before the position moves past it. It must not block.
    pub fn subscribe(&self, subscriber: impl Fn(TypingChange) + Send + Sync + 'static) {
        self.0.state.lock().subscribers.push(Arc::new(Box::new(subscriber)));
    }

    /// Up to where all subscribers have seen the changes.
    pub fn position(&self) -> Position {
        Position::at(*self.0.position.borrow())
    }

    /// Has `outlet` called with what happens here, for other processes to [`take`](Self::take). It must not block. Only the first
    /// counts.
    pub fn publish_to(&self, outlet: impl Fn(TypingUpdate) + Send + Sync + 'static) {
        let _ = self.0.outlet.set(Box::new(outlet));
    }

    /// `user` types in the room for `duration` (at most two minutes), or with `None` does not any more.
    pub fn set(&self, room_nid: i64, user: &UserId, duration: Option<Duration>) {
        self.take(room_nid, user, duration);
        if let Some(outlet) = self.0.outlet.get() {
            let timeout_ms = duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
            outlet(TypingUpdate { room_nid, user_id: user.to_owned(), timeout_ms });
        }
    }

    /// As [`set`](Self::set), for what happened in another process.
    pub fn take(&self, room_nid: i64, user: &UserId, duration: Option<Duration>) {
        let mut state = self.0.state.lock();
        if state.rooms.len() > MAX_QUIET_ROOMS {
            let long_ago = state.last - REMEMBER_MS;
            state.rooms.retain(|_, room| !room.users.is_empty() || room.changed > long_ago);
        }
        let room = state.rooms.entry(room_nid).or_default();
        let index = room.users.iter().position(|(typing, _)| typing == user);
        let changed = match (index, duration) {
            (Some(index), Some(duration)) => {
                room.users[index].1 = Instant::now() + duration.min(LONGEST);
                false
            }
            (None, Some(duration)) if room.users.len() < MAX_PER_ROOM => {
                room.users.push((user.to_owned(), Instant::now() + duration.min(LONGEST)));
                true
            }
            (Some(index), None) => {
                room.users.remove(index);
                true
            }
            (None, _) => false,
        };
        if !room.users.is_empty() && !room.expiring {
            room.expiring = true;
            tokio::spawn(expire(Arc::downgrade(&self.0), room_nid));
        }
        if changed {
            self.0.announce(&mut state, room_nid);
        }
    }

    /// Whoever is typing in the room now, if that changed after `since`.
    pub fn changed_since(&self, room_nid: i64, since: StreamId) -> Option<Vec<OwnedUserId>> {
        let state = self.0.state.lock();
        let room = state.rooms.get(&room_nid).filter(|room| room.changed > since.0)?;
        Some(room.users.iter().map(|(user, _)| user.clone()).collect())
    }
}

impl Inner {
    fn announce(&self, state: &mut State, room_nid: i64) {
        let now = i64::try_from(self.clock.now()).unwrap_or_default();
        state.last = (state.last + 1).max(now);
        let id = state.last;
        if let Some(room) = state.rooms.get_mut(&room_nid) {
            room.changed = id;
        }
        let change = TypingChange { room_nid, id: StreamId(id) };
        state.subscribers.iter().for_each(|subscriber| subscriber(change));
        self.position.send_replace(change.id);
    }

    /// Ends what has run out, and gives when the next will.
    fn expire(&self, room_nid: i64) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let room = state.rooms.get_mut(&room_nid)?;
        let before = room.users.len();
        room.users.retain(|(_, until)| *until > now);
        let next = room.users.iter().map(|(_, until)| *until).min();
        room.expiring = next.is_some();
        if room.users.len() != before {
            self.announce(&mut state, room_nid);
        }
        next
    }
}

/// Lives as long as somebody types in the room.
async fn expire(typing: Weak<Inner>, room_nid: i64) {
    loop {
        let Some(next) = typing.upgrade().and_then(|typing| typing.expire(room_nid)) else { return };
        tokio::time::sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn typing_ends_by_itself() {
        let typing = Typing::new(Clock::default());
        let amy = user_id!("@amy:a");
        let start = typing.position().minimum();
        typing.set(1, amy, Some(Duration::from_secs(30)));
        let began = typing.position().minimum();
        assert_eq!(typing.changed_since(1, start), Some(vec![amy.to_owned()]));
        assert_eq!(typing.changed_since(1, began), None);
        assert_eq!(typing.changed_since(2, start), None, "another room");

        typing.0.position.subscribe().wait_for(|position| *position > began).await.unwrap();
        assert_eq!(typing.changed_since(1, began), Some(vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn typing_on_is_no_change() {
        let typing = Typing::new(Clock::default());
        let amy = user_id!("@amy:a");
        typing.set(1, amy, Some(Duration::from_secs(30)));
        let began = typing.position().minimum();
        typing.set(1, amy, Some(Duration::from_secs(30)));
        assert_eq!(typing.position().minimum(), began);
        typing.set(1, amy, None);
        assert_eq!(typing.changed_since(1, began), Some(vec![]));
        typing.set(1, amy, None);
        assert_eq!(typing.changed_since(1, typing.position().minimum()), None);
    }

    #[tokio::test]
    async fn subscribers_are_told_before_the_position_moves() {
        let typing = Typing::new(Clock::default());
        let (seen, reader) = (Arc::new(Mutex::new(Vec::new())), typing.clone());
        let log = seen.clone();
        typing.subscribe(move |change| log.lock().push((change, reader.position().minimum())));
        typing.set(7, user_id!("@amy:a"), Some(Duration::from_secs(1)));
        let seen = seen.lock();
        let [(change, position)] = seen.as_slice() else { panic!("one change, not {seen:?}") };
        assert_eq!(change.room_nid, 7);
        assert!(change.id > *position);
        assert_eq!(typing.position().minimum(), change.id);
    }
}
