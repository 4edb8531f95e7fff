//! Unread counts: sums over the events after a user's receipts
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications)).

use std::collections::HashMap;

use myelin_ephemeral::ReceiptThread;
use myelin_push::PushBits;
use myelin_storage::sync::unread::UnreadRow;
use myelin_types::{Position, StreamId};
use ruma::{OwnedEventId, UserId};

use crate::{event::RoomEvent, room::Inner};

/// Up to where a user has read a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// All of it, threads too.
    pub unthreaded: i64,
    /// What is in no thread.
    pub main: i64,
    /// Threads.
    pub threads: HashMap<OwnedEventId, i64>,
}

impl Marks {
    /// Notes a receipt; public and private ones count alike, and the one that is ahead wins.
    pub fn advance(&mut self, thread: &ReceiptThread, pos: i64) {
        let mark = match thread {
            ReceiptThread::Unthreaded => &mut self.unthreaded,
            ReceiptThread::Main => &mut self.main,
            ReceiptThread::Thread(root) => self.threads.entry(root.clone()).or_insert(pos),
        };
        *mark = (*mark).max(pos);
    }

    /// Up to where events of a thread (`None`: of none) are read.
    fn of(&self, thread: Option<&OwnedEventId>) -> i64 {
        let own = match thread {
            None => self.main,
            Some(root) => self.threads.get(root).copied().unwrap_or_default(),
        };
        own.max(self.unthreaded)
    }
}

/// How many events notify, and how many of them highlight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub notifications: u64,
    pub highlights: u64,
}

impl Tally {
    fn add(&mut self, bits: PushBits) {
        self.notifications += u64::from(bits.notifies());
        self.highlights += u64::from(bits.highlights());
    }
}

/// What is unread of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Events up to here are counted.
    pub counted: StreamId,
    pub main: Tally,
    /// Only threads that have something unread.
    pub threads: HashMap<OwnedEventId, Tally>,
}

impl Unread {
    /// Everything, threads included.
    pub fn total(&self) -> Tally {
        self.threads.values().fold(self.main, |sum, tally| Tally {
            notifications: sum.notifications + tally.notifications,
            highlights: sum.highlights + tally.highlights,
        })
    }

    /// What the database counted up to `counted`.
    pub fn from_rows<'a>(rows: impl IntoIterator<Item = &'a UnreadRow>, counted: StreamId) -> Self {
        let mut unread = Self { counted, ..Self::default() };
        for row in rows {
            let tally = Tally {
                notifications: row.notifications.unsigned_abs(),
                highlights: row.highlights.unsigned_abs(),
            };
            match row.thread_id.as_deref().map(OwnedEventId::try_from) {
                None => unread.main = tally,
                Some(Ok(root)) => _ = unread.threads.insert(root, tally),
                Some(Err(_)) => {}
            }
        }
        unread
    }

    /// Counts again what a receipt is about, from memory. `false` if the room has forgotten some of it.
    pub fn read(&mut self, thread: &ReceiptThread, room: &Inner, user_id: &UserId, marks: &Marks) -> bool {
        let root = match thread {
            ReceiptThread::Unthreaded => {
                *self = Self { counted: self.counted, ..Self::default() };
                None
            }
            ReceiptThread::Main => {
                self.main = Tally::default();
                None
            }
            ReceiptThread::Thread(root) => {
                self.threads.remove(root);
                Some(root)
            }
        };
        let from = StreamId(marks.of(root));
        if !room.reaches_back_to(from) {
            return false;
        }
        let counted = self.counted;
        let unread = room.events.iter().rev().take_while(|event| event.pos > from);
        for event in unread.filter(|event| event.pos <= counted) {
            if *thread == ReceiptThread::Unthreaded || event.thread_id.as_ref() == root {
                self.count(event, user_id, marks);
            }
        }
        true
    }

    /// Counts what came since, up to `upto`. `false` if the room has forgotten some of it.
    pub fn advance(
        &mut self,
        room: &Inner,
        upto: &Position,
        user_id: &UserId,
        marks: &Marks,
        base: StreamId,
    ) -> bool {
        let from = self.counted.max(base);
        if !room.reaches_back_to(from) {
            return false;
        }
        let mut counted = self.counted;
        let unread = room.events.iter().rev().take_while(|event| event.pos > from);
        for event in unread.filter(|event| upto.covers(event.writer, event.pos)) {
            counted = counted.max(event.pos);
            self.count(event, user_id, marks);
        }
        self.counted = counted;
        true
    }

    fn count(&mut self, event: &RoomEvent, user_id: &UserId, marks: &Marks) {
        if !event.shown || event.event.pdu.sender() == user_id {
            return;
        }
        let bits = event.push.for_user(user_id);
        if bits == PushBits::NONE || event.pos.0 <= marks.of(event.thread_id.as_ref()) {
            return;
        }
        match &event.thread_id {
            None => self.main.add(bits),
            Some(root) => self.threads.entry(root.clone()).or_default().add(bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_event_id;

    use super::*;

    #[test]
    fn a_mark_counts_for_its_thread_and_the_unthreaded_one_for_all() {
        let (one, two) = (owned_event_id!("$one"), owned_event_id!("$two"));
        let mut marks = Marks::default();
        marks.advance(&ReceiptThread::Thread(one.clone()), 7);
        marks.advance(&ReceiptThread::Main, 5);
        marks.advance(&ReceiptThread::Unthreaded, 6);
        marks.advance(&ReceiptThread::Unthreaded, 4);
        assert_eq!(marks.of(Some(&one)), 7);
        assert_eq!(marks.of(Some(&two)), 6);
        assert_eq!(marks.of(None), 6);
    }

    #[test]
    fn the_total_includes_threads() {
        let row = |thread: Option<&str>, notifications, highlights| UnreadRow {
            room_nid: 1,
            thread_id: thread.map(str::to_owned),
            notifications,
            highlights,
        };
        let unread = Unread::from_rows(&[row(None, 3, 1), row(Some("$t"), 2, 2)], StreamId(9));
        assert_eq!(unread.main, Tally { notifications: 3, highlights: 1 });
        assert_eq!(unread.total(), Tally { notifications: 5, highlights: 3 });
        assert_eq!(unread.counted, StreamId(9));
    }
}
