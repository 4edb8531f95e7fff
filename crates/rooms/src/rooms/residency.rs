//! The rooms in memory: found by id, one turn at a time, evicted when they are too many.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};
use tokio::sync::OwnedMutexGuard;

use crate::{RoomError, resident::Resident};

const MAPS: usize = 16;

/// A room's place in memory, empty until the room is loaded. Whoever holds it by an `Arc` keeps it from being evicted.
#[derive(Debug, Default)]
pub(crate) struct Place {
    resident: Arc<tokio::sync::Mutex<Option<Resident>>>,
    waiting: AtomicUsize,
    size_bytes: AtomicUsize,
    /// The turn that was taken last, by [`Residency::turns`].
    last_turn: AtomicU64,
}

pub(crate) struct Residency {
    maps: [Mutex<HashMap<OwnedRoomId, Arc<Place>>>; MAPS],
    hasher: RandomState,
    turns: AtomicU64,
    totals: Arc<Totals>,
    max_rooms: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Totals {
    rooms: AtomicUsize,
    size_bytes: AtomicUsize,
}

impl std::fmt::Debug for Residency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Residency").field(&self.totals).finish()
    }
}

impl Residency {
    pub fn new(max_rooms: usize, max_bytes: usize) -> Self {
        Self {
            maps: Default::default(),
            hasher: RandomState::new(),
            turns: AtomicU64::new(0),
            totals: Arc::default(),
            max_rooms,
            max_bytes,
        }
    }

    pub fn len(&self) -> usize {
        self.totals.rooms.load(Ordering::Relaxed)
    }

    /// Waits for a turn at a room.
    pub async fn turn(&self, room_id: &RoomId, max_waiting: usize) -> Result<Turn, RoomError> {
        self.make_space();
        let place = self.place(room_id);
        place.last_turn.store(self.turns.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let waiting = Waiting(&place.waiting);
        if waiting.0.fetch_add(1, Ordering::Relaxed) >= max_waiting {
            return Err(RoomError::Overloaded);
        }
        let guard = place.resident.clone().lock_owned().await;
        drop(waiting);
        Ok(Turn { guard, place, totals: self.totals.clone() })
    }

    /// The places of some rooms.
    pub fn list(&self, wanted: impl Fn(&RoomId) -> bool) -> Vec<Arc<Place>> {
        let of_map = |map: &Mutex<HashMap<OwnedRoomId, Arc<Place>>>| {
            let map = map.lock();
            map.iter()
                .filter(|(room_id, _)| wanted(room_id))
                .map(|(_, place)| place.clone())
                .collect::<Vec<_>>()
        };
        self.maps.iter().flat_map(of_map).collect()
    }

    /// Waits for a turn at a place, however many others do.
    pub async fn turn_at(&self, place: Arc<Place>) -> Turn {
        let guard = place.resident.clone().lock_owned().await;
        Turn { guard, place, totals: self.totals.clone() }
    }

    fn place(&self, room_id: &RoomId) -> Arc<Place> {
        let map = &self.maps[self.map_of(room_id)];
        let mut map = map.lock();
        if let Some(place) = map.get(room_id) {
            return place.clone();
        }
        self.totals.rooms.fetch_add(1, Ordering::Relaxed);
        map.entry(room_id.to_owned()).or_default().clone()
    }

    fn map_of(&self, room_id: &RoomId) -> usize {
        usize::try_from(self.hasher.hash_one(room_id) % MAPS as u64).expect("the remainder is below 16")
    }

    /// Evicts the rooms that were not used for the longest time, if there are too many, down to four fifths.
    fn make_space(&self) {
        let (rooms, bytes) = (&self.totals.rooms, &self.totals.size_bytes);
        let is_over = |share: usize| {
            rooms.load(Ordering::Relaxed) > self.max_rooms / 5 * share
                || bytes.load(Ordering::Relaxed) > self.max_bytes / 5 * share
        };
        if rooms.load(Ordering::Relaxed) <= self.max_rooms && bytes.load(Ordering::Relaxed) <= self.max_bytes
        {
            return;
        }
        let mut idle: Vec<(u64, OwnedRoomId)> = Vec::new();
        for map in &self.maps {
            let map = map.lock();
            let unused = map.iter().filter(|(_, place)| Arc::strong_count(place) == 1);
            idle.extend(
                unused.map(|(room_id, place)| (place.last_turn.load(Ordering::Relaxed), room_id.clone())),
            );
        }
        idle.sort_unstable_by_key(|(last_turn, _)| *last_turn);
        for (_, room_id) in idle {
            if !is_over(4) {
                return;
            }
            self.evict(&room_id);
        }
    }

    fn evict(&self, room_id: &RoomId) {
        let mut map = self.maps[self.map_of(room_id)].lock();
        let Some(place) = map.get(room_id) else { return };
        // Clones are only made under this lock, so nobody can take a turn at a place that is unused now. A room whose
        // events are being committed would be loaded without them.
        let is_unused = Arc::strong_count(place) == 1
            && place.resident.try_lock().is_ok_and(|resident| {
                resident.as_ref().is_none_or(|resident| resident.lane.in_flight() == 0)
            });
        if is_unused && let Some(place) = map.remove(room_id) {
            self.totals.rooms.fetch_sub(1, Ordering::Relaxed);
            self.totals.size_bytes.fetch_sub(place.size_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A turn at a room.
pub(crate) struct Turn {
    guard: OwnedMutexGuard<Option<Resident>>,
    place: Arc<Place>,
    totals: Arc<Totals>,
}

impl Deref for Turn {
    type Target = Option<Resident>;

    fn deref(&self) -> &Option<Resident> {
        &self.guard
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Option<Resident> {
        &mut self.guard
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = self.guard.as_ref().map_or(0, Resident::size_bytes);
        let before = self.place.size_bytes.swap(now, Ordering::Relaxed);
        self.totals.size_bytes.fetch_add(now, Ordering::Relaxed);
        self.totals.size_bytes.fetch_sub(before, Ordering::Relaxed);
    }
}
