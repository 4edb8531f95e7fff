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

    /// Counts again what a receipt is about, from memory; nothing up to `base` counts. `false` if the room has forgotten
    /// some of it.
    pub fn read(
        &mut self,
        thread: &ReceiptThread,
        room: &Inner,
        user_id: &UserId,
        marks: &Marks,
        base: StreamId,
    ) -> bool {
        let (root, read) = match thread {
            ReceiptThread::Unthreaded => {
                *self = Self { counted: self.counted, ..Self::default() };
                // Of threads there may be something unread before what is read of the main timeline.
                (None, marks.unthreaded)
            }
            ReceiptThread::Main => {
                self.main = Tally::default();
                (None, marks.of(None))
            }
            ReceiptThread::Thread(root) => {
                self.threads.remove(root);
                (Some(root), marks.of(Some(root)))
            }
        };
        let from = StreamId(read).max(base);
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

    /// Counts what came since, up to `upto`; nothing up to `base` counts. `false` if the room has forgotten some of it.
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
    use myelin_push::PushOutcome;
    use proptest::prelude::*;
    use ruma::{owned_event_id, user_id};

    use super::*;
    use crate::room::{
        Floor,
        fixture::{message, room, upto},
    };

    const ME: &str = "@me:example.org";
    const THREADS: [&str; 2] = ["$one", "$two"];

    fn me() -> &'static UserId {
        user_id!("@me:example.org")
    }

    fn thread(root: &str) -> ReceiptThread {
        ReceiptThread::Thread(root.try_into().unwrap())
    }

    /// A message of somebody else, of a thread or of none.
    fn said(pos: i64, root: Option<&str>, bits: PushBits) -> RoomEvent {
        RoomEvent {
            thread_id: root.map(|root| root.try_into().unwrap()),
            push: PushOutcome { default: bits, exceptions: Box::default() },
            ..message(pos, "@other:example.org")
        }
    }

    fn tally(notifications: u64, highlights: u64) -> Tally {
        Tally { notifications, highlights }
    }

    /// What is counted of a whole room by somebody who was there from the start.
    fn counted(events: Vec<RoomEvent>) -> Unread {
        let room = room(Floor::Start, events);
        let mut unread = Unread::default();
        assert!(unread.advance(&room, &upto(100), me(), &Marks::default(), StreamId::ZERO));
        unread
    }

    #[test]
    fn what_others_say_counts_as_push_rules_want_it() {
        let unread = counted(vec![
            said(1, None, PushBits::NOTIFY),
            said(2, None, PushBits::HIGHLIGHT),
            said(3, None, PushBits::NONE),
            said(4, Some("$one"), PushBits::NONE),
            said(5, Some("$two"), PushBits::HIGHLIGHT),
            message(6, ME),
            RoomEvent { shown: false, ..said(7, None, PushBits::NOTIFY) },
        ]);
        assert_eq!((unread.main, unread.counted), (tally(2, 1), StreamId(7)));
        assert_eq!(unread.threads, HashMap::from([(owned_event_id!("$two"), tally(1, 1))]));
    }

    #[test]
    fn each_event_is_counted_once_and_only_up_to_where_the_answer_is() {
        let room = room(Floor::Start, (1..=6).map(|pos| said(pos, None, PushBits::NOTIFY)));
        let mut unread = Unread::default();
        // Nothing up to the place where the user came counts.
        for (at, expected) in [(1, 0), (2, 0), (4, 2), (4, 2), (6, 4), (9, 4)] {
            assert!(unread.advance(&room, &upto(at), me(), &Marks::default(), StreamId(2)));
            assert_eq!(unread.main, tally(expected, 0), "up to {at}");
            assert!(unread.counted <= StreamId(at));
        }
    }

    #[test]
    fn what_the_room_has_forgotten_is_not_counted_from_memory() {
        let room =
            room(Floor::At(crate::room::fixture::WRITER, StreamId(3)), [said(4, None, PushBits::NOTIFY)]);
        let marks = Marks::default();
        for (base, is_counted) in [(2, false), (3, true), (4, true)] {
            assert_eq!(Unread::default().advance(&room, &upto(9), me(), &marks, StreamId(base)), is_counted);
            let unread = &mut Unread { counted: StreamId(4), ..Unread::default() };
            assert_eq!(unread.read(&ReceiptThread::Main, &room, me(), &marks, StreamId(base)), is_counted);
        }
    }

    #[test]
    fn a_receipt_for_the_whole_room_leaves_what_is_unread_of_threads_before_a_later_one_of_the_main_timeline()
    {
        let room = room(
            Floor::Start,
            [
                said(1, None, PushBits::NOTIFY),
                said(2, Some("$one"), PushBits::NOTIFY),
                said(3, None, PushBits::NOTIFY),
                said(4, None, PushBits::NOTIFY),
            ],
        );
        let (mut marks, mut unread) = (Marks::default(), Unread::default());
        assert!(unread.advance(&room, &upto(4), me(), &marks, StreamId::ZERO));
        for (thread, pos) in [(ReceiptThread::Main, 3), (ReceiptThread::Unthreaded, 1)] {
            marks.advance(&thread, pos);
            assert!(unread.read(&thread, &room, me(), &marks, StreamId::ZERO));
            assert_eq!((unread.main, unread.total()), (tally(1, 0), tally(2, 0)), "{thread:?}");
        }
    }

    #[test]
    fn a_receipt_for_what_was_before_one_came_counts_nothing_of_it() {
        let room = room(Floor::Start, (1..=4).map(|pos| said(pos, None, PushBits::NOTIFY)));
        let (mut marks, mut unread) = (Marks::default(), Unread::default());
        assert!(unread.advance(&room, &upto(4), me(), &marks, StreamId(3)));
        marks.advance(&ReceiptThread::Main, 1);
        assert!(unread.read(&ReceiptThread::Main, &room, me(), &marks, StreamId(3)));
        assert_eq!(unread.main, tally(1, 0));
    }

    proptest! {
        /// To count again what a receipt is about gives what counting everything would.
        #[test]
        fn a_receipt_changes_the_counts_as_if_all_was_counted_anew(
            events in prop::collection::vec((prop::option::of(0..2usize), 0..3usize), 1..12),
            receipts in prop::collection::vec((0..4usize, 0..12i64), 0..6),
            upto_pos in 0..12i64,
            base in 0..4i64,
        ) {
            let bits = [PushBits::NONE, PushBits::NOTIFY, PushBits::HIGHLIGHT];
            let events = (1..).zip(&events).map(|(pos, (root, kind))| {
                said(pos, root.map(|root| THREADS[root]), bits[*kind])
            });
            let (room, upto, base) = (room(Floor::Start, events), upto(upto_pos), StreamId(base));
            let (mut marks, mut unread) = (Marks::default(), Unread::default());
            prop_assert!(unread.advance(&room, &upto, me(), &marks, base));
            for (kind, pos) in receipts {
                let thread = match kind {
                    0 => ReceiptThread::Unthreaded,
                    1 => ReceiptThread::Main,
                    root => thread(THREADS[root - 2]),
                };
                marks.advance(&thread, pos);
                prop_assert!(unread.read(&thread, &room, me(), &marks, base));
                let mut anew = Unread::default();
                prop_assert!(anew.advance(&room, &upto, me(), &marks, base.max(StreamId(marks.unthreaded))));
                prop_assert_eq!((unread.main, &unread.threads), (anew.main, &anew.threads), "{:?}", marks);
            }
        }
    }

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
