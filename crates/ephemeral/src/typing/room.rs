//! One room: who types there, and what was said of it last.

use std::time::Duration;

use myelin_types::{Position, StreamId, WriterId};
use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Users of one room who are shown as typing at most.
const MAX_TYPING: usize = 100;
/// Users of one room of whom anything is remembered at most.
const MAX_USERS: usize = 2 * MAX_TYPING;
/// How long it is remembered that somebody ceased to type: what was said before that may still come, late.
const REMEMBER_END: Duration = Duration::from_secs(60);

/// Which of two words about a user in a room is the later one, whichever process said them and whichever comes first: each is
/// greater than all that the process had heard of before. What ends a typing by its timeout is the later one of the two, but
/// not of anything that was said meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub count: u64,
    pub said_by: WriterId,
    pub is_timeout: bool,
}

/// What a process says of a user: they type, or do not any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Word {
    pub room_nid: i64,
    pub user_id: OwnedUserId,
    /// For how much longer, in milliseconds; `None`: not any more.
    pub timeout_ms: Option<u64>,
    pub stamp: Stamp,
    /// The word's place among those of its process.
    pub id: StreamId,
}

/// The last word about a user.
struct Typist {
    user_id: OwnedUserId,
    /// Until when; `None`: not any more.
    until: Option<Instant>,
    heard: Instant,
    stamp: Stamp,
    by: WriterId,
    id: StreamId,
}

/// Who types in a room.
#[derive(Default)]
pub(super) struct Room {
    /// The last change of who is shown as typing, by each process that made one.
    pub changed: Position,
    /// The task that ends what has run out is under way.
    pub is_expiring: bool,
    typists: Vec<Typist>,
}

impl Room {
    /// Takes in a word of `by`, if it is the last one about the user; `until` is for how long it holds. Whether clients have to be
    /// told: if it changes who is shown, and also if it may have changed that for a client which was told more by another process
    /// than we knew. That somebody types on, as the same process said before, does neither,
    /// unless it `is_rest` of what that process said meanwhile.
    pub fn take(
        &mut self,
        by: WriterId,
        word: &Word,
        until: Option<Instant>,
        now: Instant,
        is_rest: bool,
    ) -> bool {
        let is_full = until.is_some() && self.typing().count() >= MAX_TYPING;
        let Some(known) = self.typists.iter_mut().find(|typist| typist.user_id == word.user_id) else {
            if is_full || !self.has_place(now) {
                return false;
            }
            let user_id = word.user_id.clone();
            self.typists.push(Typist { user_id, until, heard: now, stamp: word.stamp, by, id: word.id });
            return true;
        };
        let is_shown = known.until.is_some();
        let types_on = is_shown && until.is_some() && known.by == by;
        if known.stamp >= word.stamp || (is_full && !is_shown) {
            return false;
        }
        *known =
            Typist { user_id: known.user_id.clone(), until, heard: now, stamp: word.stamp, by, id: word.id };
        is_rest || !types_on
    }

    fn has_place(&mut self, now: Instant) -> bool {
        if self.typists.len() >= MAX_USERS {
            let is_of_use = |typist: &Typist| typist.until.is_some() || now < typist.heard + REMEMBER_END;
            self.typists.retain(is_of_use);
        }
        self.typists.len() < MAX_USERS
    }

    /// Those who type.
    pub fn typing(&self) -> impl Iterator<Item = &OwnedUserId> {
        self.typists.iter().filter(|typist| typist.until.is_some()).map(|typist| &typist.user_id)
    }

    /// Whether nobody types, nor did after `long_ago`.
    pub fn is_quiet(&self, long_ago: Option<Instant>) -> bool {
        let is_over = |heard| long_ago.is_some_and(|long_ago| heard < long_ago);
        self.typists.iter().all(|typist| typist.until.is_none() && is_over(typist.heard))
    }

    /// The last words about users that are `by`'s and come after a place, as they hold now.
    pub fn words_after(
        &self,
        room_nid: i64,
        by: WriterId,
        after: StreamId,
        now: Instant,
    ) -> impl Iterator<Item = Word> {
        let words = self.typists.iter().filter(move |typist| typist.by == by && typist.id > after);
        words.map(move |typist| Word {
            room_nid,
            user_id: typist.user_id.clone(),
            timeout_ms: typist.until.map(|until| super::millis(until - now)),
            stamp: typist.stamp,
            id: typist.id,
        })
    }

    /// Those whose time is over, and when the next one's is.
    pub fn overdue(&self, now: Instant) -> (Vec<(OwnedUserId, Stamp)>, Option<Instant>) {
        let until = |typist: &Typist| typist.until;
        let over = self.typists.iter().filter(|typist| until(typist).is_some_and(|until| until <= now));
        let over = over.map(|typist| (typist.user_id.clone(), Stamp { is_timeout: true, ..typist.stamp }));
        (over.collect(), self.typists.iter().filter_map(until).filter(|until| *until > now).min())
    }
}
