//! Who is typing where: in memory, for as long as the clients say.

mod exchange;
mod room;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use myelin_types::{Clock, Position, StreamId, WriterId};
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};
use tokio::{sync::watch, time::Instant};

pub use self::exchange::TypingMessage;
use self::{
    exchange::{Answered, Heard, Outlet},
    room::{Room, Stamp, Word},
};

/// A client can't be typing for longer without saying so again.
const LONGEST: Duration = Duration::from_secs(120);
/// For how much longer somebody types of whom another process says so: it also says when that ends, if it lives.
const GRACE: Duration = Duration::from_secs(3);
/// Rooms in which somebody typed lately; of more than these, those where it is long over are forgotten.
const MAX_QUIET_ROOMS: usize = 10_000;
/// How long a room is remembered in which nobody types any more: tokens that are older miss the end of it.
const REMEMBER: Duration = Duration::from_secs(10 * 60);
/// The words of one life of a process are counted in so many bits, those of the next one come after them.
const COUNTER_BITS: u32 = 32;

/// A room in which someone began or ceased to type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypingChange {
    /// The room's number.
    pub room_nid: i64,
    /// The process that said so.
    pub writer: WriterId,
    /// The place of this change among those of that process.
    pub id: StreamId,
}

type Subscriber = Box<dyn Fn(TypingChange) + Send + Sync>;
type Condition = Box<dyn Fn() -> bool + Send + Sync>;

/// Who is typing ([spec](https://spec.matrix.org/v1.19/client-server-api/#typing-notifications)). Clones are the same.
///
/// Nothing of it is stored. Each process numbers what it says, after all that it said in an earlier life; the others hear it in
/// that order, and ask for what they missed. So a position means the same in all of them.
#[derive(Clone)]
pub struct Typing(Arc<Inner>);

struct Inner {
    clock: Clock,
    me: WriterId,
    position: watch::Sender<Position>,
    state: Mutex<State>,
    /// Tells other processes.
    outlet: OnceLock<Outlet>,
    is_heard: OnceLock<Condition>,
}

#[derive(Default)]
struct State {
    rooms: HashMap<i64, Room>,
    /// How many rooms there are when it is looked next which of them are quiet.
    look_for_quiet_at: usize,
    /// The place of our last word.
    last: StreamId,
    last_said: Option<Instant>,
    /// The greatest count of all stamps that we know of.
    count: u64,
    /// What we have heard of other processes.
    heard: HashMap<WriterId, Heard>,
    /// Our last answer to those who missed something.
    answered: Option<Answered>,
    subscribers: Vec<Arc<Subscriber>>,
}

impl std::fmt::Debug for Typing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Typing").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl Typing {
    /// Nobody is typing, as far as the process `me` knows in its life number `epoch`.
    pub fn new(clock: Clock, me: WriterId, epoch: i64) -> Self {
        let last = StreamId(epoch << COUNTER_BITS);
        let state = State { last, look_for_quiet_at: MAX_QUIET_ROOMS, ..State::default() };
        Self(Arc::new(Inner {
            clock,
            me,
            position: watch::Sender::default(),
            state: Mutex::new(state),
            outlet: OnceLock::new(),
            is_heard: OnceLock::new(),
        }))
    }

    /// Has `subscriber` called with every change, before the position moves past it. It must not block.
    pub fn subscribe(&self, subscriber: impl Fn(TypingChange) + Send + Sync + 'static) {
        self.0.state.lock().subscribers.push(Arc::new(Box::new(subscriber)));
    }

    /// Up to where all subscribers have seen the changes.
    pub fn position(&self) -> Position {
        self.0.position.borrow().clone()
    }

    /// Says when this process may speak: not once others take it for dead, and have been told something newer. Only the first
    /// counts.
    pub fn speak_while(&self, is_heard: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.0.is_heard.set(Box::new(is_heard));
    }

    /// Whether this process may [`set`](Self::set) anything.
    pub fn may_speak(&self) -> bool {
        self.0.is_heard.get().is_none_or(|is_heard| is_heard())
    }

    /// `user` types in the room for `duration` (at most two minutes), or with `None` does not any more.
    pub fn set(&self, room_nid: i64, user: &UserId, duration: Option<Duration>) {
        let mut state = self.0.state.lock();
        state.count = (state.count + 1).max(self.0.clock.now());
        let stamp = Stamp { count: state.count, said_by: self.0.me, is_timeout: false };
        self.0.say(&mut state, room_nid, user.to_owned(), duration.map(|it| it.min(LONGEST)), stamp);
    }

    /// Whoever is typing in the room now, if `since` does not cover the last change of that.
    pub fn changed_since(&self, room_nid: i64, since: &Position) -> Option<Vec<OwnedUserId>> {
        let state = self.0.state.lock();
        let room = state.rooms.get(&room_nid).filter(|room| !since.covers_all(&room.changed))?;
        Some(room.typing().cloned().collect())
    }
}

impl Inner {
    /// Takes in a word of ours, and tells the other processes.
    fn say(
        self: &Arc<Self>,
        state: &mut State,
        room_nid: i64,
        user_id: OwnedUserId,
        duration: Option<Duration>,
        stamp: Stamp,
    ) {
        let before = state.last;
        state.last = StreamId(before.0 + 1);
        state.last_said = Some(Instant::now());
        let timeout_ms = duration.map(millis);
        let word = Word { room_nid, user_id, timeout_ms, stamp, id: state.last };
        self.take(state, self.me, &word, false);
        self.tell(state, exchange::What::Word { before, word });
    }

    /// Takes in what a process says; where it is all that is left of more, clients may know what came in between.
    fn take(self: &Arc<Self>, state: &mut State, by: WriterId, word: &Word, is_rest: bool) {
        if state.rooms.len() >= state.look_for_quiet_at {
            let long_ago = Instant::now().checked_sub(REMEMBER);
            state.rooms.retain(|_, room| !room.is_quiet(long_ago));
            state.look_for_quiet_at = (2 * state.rooms.len()).max(MAX_QUIET_ROOMS);
        }
        let now = Instant::now();
        let grace = if by == self.me { Duration::ZERO } else { GRACE };
        let until = word.timeout_ms.map(|timeout| now + Duration::from_millis(timeout).min(LONGEST) + grace);
        state.count = state.count.max(word.stamp.count);
        let room = state.rooms.entry(word.room_nid).or_default();
        let is_changed = room.take(by, word, until, now, is_rest);
        if until.is_some() && !room.is_expiring {
            room.is_expiring = true;
            tokio::spawn(expire(Arc::downgrade(self), word.room_nid));
        }
        if is_changed {
            room.changed.advance(by, word.id);
            let change = TypingChange { room_nid: word.room_nid, writer: by, id: word.id };
            state.subscribers.iter().for_each(|subscriber| subscriber(change));
            self.position.send_modify(|position| position.advance(by, word.id));
        }
    }

    /// Ends what has run out, and gives when the next will.
    fn expire(self: &Arc<Self>, room_nid: i64) -> Option<Instant> {
        let mut state = self.state.lock();
        let (over, next) = state.rooms.get(&room_nid)?.overdue(Instant::now());
        for (user_id, stamp) in over {
            self.say(&mut state, room_nid, user_id, None, stamp);
        }
        state.rooms.get_mut(&room_nid)?.is_expiring = next.is_some();
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
