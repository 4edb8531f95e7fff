//! Which members a device has been told of, with
//! [lazy loading](https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members).

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use myelin_rooms::RoomNid;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{EventId, OwnedDeviceId, OwnedUserId};

use crate::SyncToken;

/// Devices that are remembered at most; others are told again.
const MAX_DEVICES: usize = 4096;
/// Member events that are remembered of one device at most.
const MAX_MEMBERS: usize = 16_384;

/// What the devices have been told.
#[derive(Debug)]
pub(crate) struct LazyMembers {
    devices: Cache<(OwnedUserId, Option<OwnedDeviceId>), Arc<Mutex<Device>>>,
}

/// What one device has been told: member events by their hash, 8 bytes each. That two of them have the same hash is
/// less likely than that the client loses them by itself.
#[derive(Debug, Default)]
pub(crate) struct Device {
    told: HashSet<u64>,
    /// The token that `told` belongs to. A client that comes with another has gone back to what it had stored, and may
    /// have lost the rest.
    since: Option<SyncToken>,
    /// What the last answer told. It counts once the device comes back with that answer's token: answers get lost.
    pending: Option<(SyncToken, Vec<u64>)>,
}

impl LazyMembers {
    pub fn new() -> Self {
        Self { devices: Cache::new(MAX_DEVICES) }
    }

    /// What a device that comes with `since` has been told.
    pub fn of(
        &self,
        user_id: &OwnedUserId,
        device_id: Option<&OwnedDeviceId>,
        since: Option<&SyncToken>,
    ) -> Arc<Mutex<Device>> {
        let key = (user_id.clone(), device_id.cloned());
        let device = match self.devices.get(&key) {
            Some(device) => device,
            None => {
                let device = Arc::<Mutex<Device>>::default();
                self.devices.insert(key, device.clone());
                device
            }
        };
        device.lock().comes_with(since);
        device
    }
}

impl Device {
    fn comes_with(&mut self, since: Option<&SyncToken>) {
        let Some(since) = since else {
            *self = Self::default();
            return;
        };
        match self.pending.take() {
            Some((token, members)) if token == *since => self.told.extend(members),
            _ if self.since.as_ref() == Some(since) => {}
            _ => self.told = HashSet::new(),
        }
        if self.told.len() > MAX_MEMBERS {
            self.told = HashSet::new();
        }
        self.since = Some(since.clone());
    }

    /// Whether the device has been told of a member event.
    pub fn knows(&self, room_nid: RoomNid, event_id: &EventId) -> bool {
        self.told.contains(&hash(room_nid, event_id))
    }

    /// Notes what an answer tells.
    pub fn told(&mut self, next_batch: SyncToken, members: Vec<u64>) {
        self.pending = Some((next_batch, members));
    }
}

/// A member event in 8 bytes.
pub(crate) fn hash(room_nid: RoomNid, event_id: &EventId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (room_nid, event_id).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use myelin_types::{Position, StreamId};
    use ruma::{event_id, owned_user_id};

    use super::*;

    #[test]
    fn a_member_counts_as_told_once_the_answer_is_known_to_have_arrived() {
        let (lazy, amy) = (LazyMembers::new(), owned_user_id!("@amy:a"));
        let token = |id| SyncToken { events: Position::at(StreamId(id)), ..SyncToken::default() };
        let (room, event) = (RoomNid(1), event_id!("$member"));
        let tell = |since: Option<&SyncToken>, next: SyncToken| {
            let device = lazy.of(&amy, None, since);
            let mut device = device.lock();
            let known = device.knows(room, event);
            device.told(next, vec![hash(room, event)]);
            known
        };
        assert!(!tell(None, token(1)));
        assert!(!tell(Some(&token(0)), token(2)), "that answer was lost");
        assert!(tell(Some(&token(2)), token(3)));
        assert!(tell(Some(&token(2)), token(3)), "what it knows it keeps");
        assert!(!tell(Some(&token(1)), token(2)), "a client that goes back has lost it");
        assert!(!tell(None, token(4)), "a client that begins anew knows nothing");
        assert!(!lazy.of(&amy, None, Some(&token(4))).lock().knows(RoomNid(2), event));
    }
}
