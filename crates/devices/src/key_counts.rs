//! How many one-time keys ([spec](https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys)) devices
//! have left, in memory.

use std::sync::Arc;

use myelin_replication::{Batch, Stamped};
use myelin_storage::{Database, Result, one_time_keys};
use myelin_types::StreamId;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::{DeviceListRow, KeyCounts};

/// Devices whose counts are remembered.
const CAPACITY: usize = 20_000;

/// The latest that is known of a device, with its place in the stream. `None` until it was read.
type Slot = Arc<Mutex<Option<(StreamId, Arc<KeyCounts>)>>>;

pub(crate) struct KeyCountCache {
    devices: Cache<(OwnedUserId, OwnedDeviceId), Slot>,
}

impl KeyCountCache {
    pub fn new() -> Self {
        Self { devices: Cache::new(CAPACITY) }
    }

    /// The counts as of what this process has seen of the stream.
    pub async fn get(
        &self,
        database: &Database,
        user_id: &UserId,
        device_id: &DeviceId,
    ) -> Result<Arc<KeyCounts>> {
        let key = (user_id.to_owned(), device_id.to_owned());
        // The slot is there before we read: what the stream brings meanwhile is not lost.
        let slot =
            self.devices.get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(Slot::default()));
        let slot = slot.unwrap_or_else(|never| match never {});
        if let Some((_, counts)) = &*slot.lock() {
            return Ok(counts.clone());
        }
        let client = database.get().await?;
        let read = one_time_keys::get_key_counts(&client, user_id.as_str(), device_id.as_str()).await?;
        drop(client);
        let (id, counts) = read.unwrap_or_default();
        Ok(offer(&slot, id, &Arc::new(counts)))
    }

    /// Takes in what a batch of the stream says.
    pub fn apply(&self, batch: &Batch<'_, DeviceListRow>) {
        for Stamped { id, row, .. } in batch.rows {
            let DeviceListRow::KeyCounts { user_id, device_id, counts } = row else { continue };
            // Devices that nobody asked for here are not worth a place.
            if let Some(slot) = self.devices.get(&(user_id.clone(), device_id.clone())) {
                offer(&slot, *id, counts);
            }
        }
    }

    /// Forgets devices that were deleted: one of the same name starts anew.
    pub fn forget(&self, user_id: &UserId, device_ids: &[OwnedDeviceId]) {
        for device_id in device_ids {
            self.devices.remove(&(user_id.to_owned(), device_id.clone()));
        }
    }
}

/// Stores counts unless newer ones are there, and gives the newest.
fn offer(slot: &Slot, id: StreamId, counts: &Arc<KeyCounts>) -> Arc<KeyCounts> {
    let mut known = slot.lock();
    match &*known {
        Some((known_id, newer)) if *known_id >= id => newer.clone(),
        _ => {
            *known = Some((id, counts.clone()));
            counts.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_arrive_late_do_not_replace_newer_ones() {
        let slot = Slot::default();
        let counts = |unused: &str| {
            Arc::new(KeyCounts { unused_fallback: vec![unused.to_owned()], ..KeyCounts::default() })
        };
        assert_eq!(offer(&slot, StreamId(5), &counts("5")), counts("5"));
        assert_eq!(offer(&slot, StreamId(4), &counts("4")), counts("5"));
        assert_eq!(offer(&slot, StreamId(6), &counts("6")), counts("6"));
    }
}
