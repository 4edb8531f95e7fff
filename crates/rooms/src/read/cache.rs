//! What is kept in memory of rooms: true as long as their state does not change.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use myelin_replication::{Feed, Stamped};
use quick_cache::{Weighter, sync::Cache};
use ruma::{EventId, OwnedEventId, OwnedUserId, UserId, room::RoomSummary};

use super::{place::EventPlace, state::RoomState, view::Standing};
use crate::{EventStream, RoomNid};

/// Counters of changes; rooms whose numbers are alike share one, which only costs a needless read.
const COUNTERS: usize = 4096;
/// Rooms of which a summary is kept.
const SUMMARIES: usize = 50_000;
/// Members of rooms of whom it is kept what they may see.
const STANDINGS: usize = 20_000;
/// Events of which it is kept where they stand: the latest, which are those that receipts are for.
const PLACES: usize = 10_000;
/// What a cached state takes beside its events.
const ENTRY_BYTES: u64 = 256;

/// How often the states of rooms changed.
struct Changes(Box<[AtomicU64]>);

impl Changes {
    fn counter(&self, room: RoomNid) -> &AtomicU64 {
        let index = usize::try_from(room.0.unsigned_abs() % COUNTERS as u64).unwrap_or_default();
        &self.0[index]
    }
}

/// Something that is true as long as a room's counter stays where it was.
struct Kept<T> {
    counter: u64,
    value: Arc<T>,
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { counter: self.counter, value: self.value.clone() }
    }
}

/// Weighs states by their bytes.
#[derive(Clone)]
struct Bytes;

impl Weighter<RoomNid, Kept<RoomState>> for Bytes {
    fn weight(&self, _: &RoomNid, kept: &Kept<RoomState>) -> u64 {
        ENTRY_BYTES + u64::try_from(kept.value.size_bytes()).unwrap_or(u64::MAX)
    }
}

/// The caches of current states, of summaries, of members and of the places of events.
pub(super) struct Caches {
    changes: Arc<Changes>,
    standings: Cache<(RoomNid, OwnedUserId), Kept<Standing>>,
    places: Arc<Cache<(RoomNid, OwnedEventId), Kept<EventPlace>>>,
    states: Cache<RoomNid, Kept<RoomState>, Bytes>,
    summaries: Cache<RoomNid, Kept<RoomSummary>>,
}

/// Taken before something is read: what changes afterwards makes it too old to be kept.
#[derive(Clone, Copy)]
pub(super) struct Reading(u64);

impl Caches {
    pub fn new(feed: &Feed<EventStream>, state_bytes: u64) -> Self {
        let changes = Arc::new(Changes((0..COUNTERS).map(|_| AtomicU64::new(0)).collect()));
        let counters = changes.clone();
        let places: Arc<Cache<(RoomNid, OwnedEventId), Kept<EventPlace>>> = Arc::new(Cache::new(PLACES));
        let seen = places.clone();
        feed.subscribe(move |batch| {
            for Stamped { id, row, .. } in batch.rows {
                let counter = counters.counter(row.room_nid);
                if !row.state_changes.is_empty() || row.redacts.is_some() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                if row.timeline {
                    let place = EventPlace { pos: *id, thread: row.thread_id.clone() };
                    let kept = Kept { counter: counter.load(Ordering::SeqCst), value: Arc::new(place) };
                    seen.insert((row.room_nid, row.pdu.event_id().to_owned()), kept);
                }
            }
        });
        Self {
            changes,
            standings: Cache::new(STANDINGS),
            places,
            states: Cache::with_weighter(1000, state_bytes, Bytes),
            summaries: Cache::new(SUMMARIES),
        }
    }

    pub fn begin(&self, room: RoomNid) -> Reading {
        Reading(self.changes.counter(room).load(Ordering::SeqCst))
    }

    pub fn standing(&self, room: RoomNid, user_id: &UserId) -> Option<Arc<Standing>> {
        self.valid(room, self.standings.get(&(room, user_id.to_owned()))?)
    }

    pub fn keep_standing(&self, room: RoomNid, user_id: &UserId, reading: Reading, value: Arc<Standing>) {
        self.standings.insert((room, user_id.to_owned()), Kept { counter: reading.0, value });
    }

    pub fn place(&self, room: RoomNid, event_id: &EventId) -> Option<Arc<EventPlace>> {
        self.valid(room, self.places.get(&(room, event_id.to_owned()))?)
    }

    pub fn keep_place(&self, room: RoomNid, event_id: &EventId, reading: Reading, value: Arc<EventPlace>) {
        self.places.insert((room, event_id.to_owned()), Kept { counter: reading.0, value });
    }

    pub fn state(&self, room: RoomNid) -> Option<Arc<RoomState>> {
        self.valid(room, self.states.get(&room)?)
    }

    pub fn keep_state(&self, room: RoomNid, reading: Reading, value: Arc<RoomState>) {
        self.states.insert(room, Kept { counter: reading.0, value });
    }

    pub fn summary(&self, room: RoomNid) -> Option<Arc<RoomSummary>> {
        self.valid(room, self.summaries.get(&room)?)
    }

    pub fn keep_summary(&self, room: RoomNid, reading: Reading, value: Arc<RoomSummary>) {
        self.summaries.insert(room, Kept { counter: reading.0, value });
    }

    fn valid<T>(&self, room: RoomNid, kept: Kept<T>) -> Option<Arc<T>> {
        (kept.counter == self.begin(room).0).then_some(kept.value)
    }
}
