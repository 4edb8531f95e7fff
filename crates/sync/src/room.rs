//! A room as this process follows it: its latest events, its state, its receipts, and who of its users is here.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
};

use myelin_ephemeral::ReceiptRow;
use myelin_events::Rules;
use myelin_replication::Stamped;
use myelin_rooms::{EventRow, RoomNid};
use myelin_types::{Position, StreamId, WriterId};
use parking_lot::{Mutex, RwLock};
use ruma::OwnedRoomId;

use crate::{
    SyncToken,
    event::{Rendered, RoomEvent},
    log::RecentLog,
    user::UserFeed,
};

#[cfg(test)]
pub(crate) mod fixture;
mod state;
mod timeline;

pub(crate) use state::{Counts, Earlier, Entry, FirstMembers, State};
pub(crate) use timeline::{Missing, Selected, Selection, View};

/// Events of a room that are kept at most, from the newest backwards.
const MAX_EVENTS: usize = 128;
/// Receipts of a room that are kept at most.
const MAX_RECEIPTS: usize = 256;

/// A room that somebody follows here.
pub(crate) struct Room {
    pub nid: RoomNid,
    pub room_id: OwnedRoomId,
    pub rules: Rules,
    /// Nothing later is of interest, and the state is the one just after this place.
    pub frozen_at: Option<StreamId>,
    /// The newest id of the events stream that concerns this room: what is not past a token need not be looked at.
    latest_event: AtomicI64,
    /// The same for receipts.
    latest_receipt: AtomicI64,
    /// The last changes of who is typing, as far as is known.
    latest_typing: RwLock<Position>,
    /// When a sync last looked at it.
    pub used: AtomicU64,
    /// Answers that are being made of it: nothing that they read is thrown away meanwhile.
    pins: AtomicUsize,
    /// The users who have joined it and are followed here.
    watchers: Mutex<Vec<Arc<UserFeed>>>,
    pub inner: RwLock<Inner>,
}

/// What is known of a room. All of it can be thrown away and read again.
pub(crate) struct Inner {
    /// The newest event that is known.
    pub newest: Option<(WriterId, StreamId)>,
    /// What comes before the first event that is kept.
    pub floor: Floor,
    /// Events by their place, without gaps.
    pub events: VecDeque<Arc<RoomEvent>>,
    pub state: State,
    pub receipts: RecentLog<Arc<Stamped<ReceiptRow>>>,
    /// About what the events take.
    size_bytes: usize,
}

/// What comes before the events that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Floor {
    /// Nobody looked yet.
    Unknown,
    /// This event, which is not kept.
    At(WriterId, StreamId),
    /// Nothing: the room begins with them.
    Start,
}

/// Events that were read from the database.
pub(crate) struct Older {
    /// Newest first.
    pub events: Vec<Arc<RoomEvent>>,
    /// What comes before the last of them.
    pub floor: Floor,
    /// The first event that was here when they were read: they come before it. `None`: none was here.
    pub before: Option<StreamId>,
}

/// A room that an answer is being made of.
#[derive(Debug)]
pub(crate) struct Pinned(Arc<Room>);

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("room_id", &self.room_id).finish_non_exhaustive()
    }
}

impl Room {
    /// A room of which nothing is known but what comes after `seen`.
    pub fn new(nid: RoomNid, room_id: OwnedRoomId, rules: Rules, seen: &SyncToken) -> Self {
        Self {
            frozen_at: None,
            nid,
            room_id,
            rules,
            latest_event: AtomicI64::new(i64::MAX),
            latest_receipt: AtomicI64::new(seen.receipts.maximum().0),
            latest_typing: RwLock::new(seen.typing.clone()),
            used: AtomicU64::new(0),
            pins: AtomicUsize::new(0),
            watchers: Mutex::default(),
            inner: RwLock::new(Inner {
                newest: None,
                floor: Floor::Unknown,
                events: VecDeque::new(),
                state: State::default(),
                receipts: RecentLog::new(seen.receipts.clone(), MAX_RECEIPTS),
                size_bytes: 0,
            }),
        }
    }

    /// A room as it was at a place, for a user who left there.
    pub fn frozen(nid: RoomNid, room_id: OwnedRoomId, rules: Rules, at: StreamId) -> Self {
        Self { frozen_at: Some(at), ..Self::new(nid, room_id, rules, &SyncToken::default()) }
    }

    /// Whether nothing is known of its timeline yet.
    pub fn is_unknown(&self) -> bool {
        self.inner.read().floor == Floor::Unknown
    }

    /// Notes what the database said, after the room was followed, is the newest event; if nothing is known yet.
    pub fn learn_newest(&self, newest: Option<(WriterId, StreamId)>) {
        let mut inner = self.inner.write();
        if inner.floor != Floor::Unknown {
            return;
        }
        // Otherwise what arrived meanwhile may or may not be all: the first reader finds out.
        if let Some((writer, pos)) = newest
            && inner.events.front().is_none_or(|first| pos < first.pos)
        {
            inner.floor = Floor::At(writer, pos);
            inner.newest = inner.events.back().map_or(newest, |last| Some((last.writer, last.pos)));
            self.publish(&inner);
        }
    }

    /// Puts events from the database before those that are here, see [`Inner::extend_back`]. Gives by how many bytes the room grew.
    pub fn learn_older(&self, older: Older) -> usize {
        let mut inner = self.inner.write();
        let before = inner.size_bytes();
        inner.extend_back(older);
        self.publish(&inner);
        inner.size_bytes().saturating_sub(before)
    }

    /// Takes over what was read of the state, see [`Inner::learn_state`]. Gives by how many bytes the room grew.
    pub fn learn_state(&self, entries: Vec<Entry>, with_others: bool, all_members: bool) -> usize {
        let mut inner = self.inner.write();
        let before = inner.size_bytes();
        inner.learn_state(entries, with_others, all_members);
        inner.size_bytes().saturating_sub(before)
    }

    fn publish(&self, inner: &Inner) {
        let latest = match (inner.floor, inner.newest) {
            (Floor::Unknown, _) => i64::MAX,
            (_, newest) => newest.map_or(0, |(_, pos)| pos.0),
        };
        self.latest_event.store(latest, Ordering::Release);
    }

    /// Whether the room may have events that `since` does not cover.
    pub fn has_events_since(&self, since: &Position) -> bool {
        let latest = self.latest_event.load(Ordering::Acquire);
        if latest <= since.minimum().0 {
            return false;
        }
        latest == i64::MAX || self.inner.read().newest.is_none_or(|(writer, pos)| !since.covers(writer, pos))
    }

    /// Whether the room may have receipts that `since` does not cover.
    pub fn has_receipts_since(&self, since: &Position) -> bool {
        let latest = self.latest_receipt.load(Ordering::Acquire);
        // Past the minimum only the log knows; a token from before its time is looked at too.
        latest > since.minimum().0 && {
            let inner = self.inner.read();
            !inner.receipts.reaches_back_to(since)
                || inner.receipts.iter().any(|(writer, id, _)| !since.covers(*writer, *id))
        }
    }

    /// Whether somebody began or ceased to type whom `since` does not cover, as far as is known.
    pub fn has_typing_since(&self, since: &Position) -> bool {
        !since.covers_all(&self.latest_typing.read())
    }

    /// Takes in that somebody began or ceased to type.
    pub fn somebody_types(&self, writer: WriterId, id: StreamId) {
        self.latest_typing.write().advance(writer, id);
    }

    /// Takes in a row of the events stream. Gives by how many bytes the room grew.
    pub fn apply(&self, stamped: &Stamped<EventRow>) -> usize {
        let row = &stamped.row;
        let event = Arc::new(RoomEvent::new(stamped));
        let mut inner = self.inner.write();
        let before = inner.size_bytes();
        inner.state.apply(&event);
        if let Some(redacts) = &row.redacts {
            inner.redact(&redacts.pdu, &event);
        }
        if let Some(relation) = &row.relation {
            inner.relate(&relation.event_id);
        }
        if row.timeline || !row.state_changes.is_empty() {
            inner.push(event);
            if !self.is_pinned() {
                inner.trim();
            }
            self.publish(&inner);
        }
        inner.size_bytes().saturating_sub(before)
    }

    /// Takes in a receipt.
    pub fn apply_receipt(&self, stamped: &Stamped<ReceiptRow>) {
        let mut inner = self.inner.write();
        inner.receipts.push(stamped.writer, stamped.id, Arc::new(stamped.clone()));
        self.latest_receipt.fetch_max(stamped.id.0, Ordering::AcqRel);
    }

    /// Keeps what is known of the room until the guard is dropped.
    pub fn pin(self: &Arc<Self>) -> Pinned {
        self.pins.fetch_add(1, Ordering::AcqRel);
        Pinned(self.clone())
    }

    fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Acquire) > 0
    }

    /// Forgets what can be read again, unless the room is pinned. Gives how many bytes that freed.
    pub fn shrink(&self) -> usize {
        let mut inner = self.inner.write();
        // Asked under the lock: who pins it later finds it empty, and reads again.
        if self.is_pinned() {
            return 0;
        }
        let freed = inner.size_bytes();
        if let Some(last) = inner.events.back().map(|event| (event.writer, event.pos)) {
            inner.floor = Floor::At(last.0, last.1);
        }
        inner.events = VecDeque::new();
        inner.state = State::default();
        inner.size_bytes = 0;
        freed
    }

    /// Adds somebody who has joined and is followed here.
    pub fn watch(&self, user: &Arc<UserFeed>) {
        let mut watchers = self.watchers.lock();
        if !watchers.iter().any(|watcher| Arc::ptr_eq(watcher, user)) {
            watchers.push(user.clone());
        }
    }

    /// Removes somebody; whether anybody is left.
    pub fn unwatch(&self, user: &UserFeed) -> bool {
        let mut watchers = self.watchers.lock();
        watchers.retain(|watcher| !std::ptr::eq(&**watcher, user));
        !watchers.is_empty()
    }

    /// Calls `visit` with everybody who is followed here.
    pub fn for_each_watcher(&self, visit: impl FnMut(&Arc<UserFeed>)) {
        self.watchers.lock().iter().for_each(visit);
    }
}

impl Inner {
    /// About how much memory this takes.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes + self.state.size_bytes()
    }

    /// Whether every event after a place is here.
    pub fn reaches_back_to(&self, pos: StreamId) -> bool {
        match self.floor {
            Floor::Start => true,
            Floor::At(_, floor) => floor <= pos,
            Floor::Unknown => false,
        }
    }

    /// The place of the event before those that are here; the newest of all if none was looked for.
    pub fn place_before(&self) -> StreamId {
        match self.floor {
            Floor::Start => StreamId::ZERO,
            Floor::At(_, floor) => floor,
            Floor::Unknown => self.newest.map_or(StreamId::ZERO, |(_, pos)| pos),
        }
    }

    /// A place before which lies all of the room that a position covers.
    pub fn place_of(&self, upto: &Position) -> StreamId {
        let last = self.events.iter().rev().find(|event| upto.covers(event.writer, event.pos));
        let before_first = self.events.front().map(|first| StreamId(first.pos.0 - 1));
        last.map(|last| last.pos).or(before_first).unwrap_or(upto.maximum())
    }

    /// Appends a new event.
    fn push(&mut self, event: Arc<RoomEvent>) {
        self.newest = Some((event.writer, event.pos));
        let is_known = match (self.events.back(), self.floor) {
            // Read from the database before the notice came.
            (Some(last), _) => last.pos >= event.pos,
            (None, Floor::At(_, pos)) => pos >= event.pos,
            (None, _) => false,
        };
        if is_known {
            return;
        }
        self.size_bytes += event.size_bytes();
        self.events.push_back(event);
    }

    /// Forgets the oldest events if there are too many.
    fn trim(&mut self) {
        while self.events.len() > MAX_EVENTS {
            if let Some(first) = self.events.pop_front() {
                self.size_bytes = self.size_bytes.saturating_sub(first.size_bytes());
                self.floor = Floor::At(first.writer, first.pos);
            }
        }
    }

    /// Puts events from the database before those that are here. What was read when other events were here is not
    /// used: it might leave a gap.
    fn extend_back(&mut self, older: Older) {
        let Older { events, floor, before } = older;
        let fits = match (self.events.front(), before) {
            (Some(first), Some(before)) => first.pos == before,
            (None, Some(_)) => false,
            (Some(_), None) => true,
            (None, None) => match self.floor {
                Floor::At(_, pos) => events.first().is_some_and(|newest| newest.pos >= pos),
                Floor::Unknown | Floor::Start => true,
            },
        };
        if !fits {
            return;
        }
        for event in events {
            if self.events.front().is_none_or(|first| event.pos < first.pos) {
                self.size_bytes += event.size_bytes();
                self.events.push_front(event);
            }
        }
        let last = self.events.back().map(|last| (last.writer, last.pos));
        // By the place alone: a room may have had several writers.
        self.newest = self.newest.into_iter().chain(last).max_by_key(|(_, pos)| *pos);
        self.floor = floor;
    }

    fn redact(&mut self, redacted: &Arc<myelin_events::Pdu>, redaction: &RoomEvent) {
        let redacted = Rendered::new(redacted.clone());
        for event in &mut self.events {
            if let Some(without) = event.redacted(&redacted, &redaction.event) {
                *event = Arc::new(without);
            }
        }
        self.state.redact(&redacted);
    }

    fn relate(&mut self, target: &ruma::EventId) {
        for event in self.events.iter().filter(|event| event.event.pdu.event_id() == target) {
            event.has_relations.store(true, Ordering::Relaxed);
        }
    }
}
