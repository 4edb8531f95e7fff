//! What is known of the inboxes of devices, without asking the database.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use myelin_replication::{Batch, Stamped};
use myelin_types::{Position, StreamId, WriterId};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedDeviceId, OwnedUserId};

use crate::ToDeviceRow;

/// Devices whose inbox is remembered.
const CAPACITY: usize = 20_000;
/// The latest messages of a device that are kept, and how long they may be together: for a device that is there, and takes them at
/// once.
const MESSAGES: usize = 8;
const BYTES: usize = 8192;

/// A device, by its user and its own id.
pub(super) type Device = (OwnedUserId, OwnedDeviceId);

/// The inboxes of devices that were asked for lately.
pub(super) struct Inboxes(Cache<Device, Arc<Mutex<Known>>>);

/// What is known of an inbox.
#[derive(Default)]
pub(super) struct Known {
    /// The database was asked; before that, only what came since is noted.
    pub loaded: bool,
    /// Covers every message that is in the inbox.
    pub newest: Position,
    /// Up to here everything was deleted, or is about to be.
    pub deleted: Position,
    /// The latest messages, as they came.
    latest: VecDeque<Stamped<ToDeviceRow>>,
    /// How long those are.
    bytes: usize,
    /// Covers every message that is not among those.
    forgotten: Position,
}

impl Inboxes {
    pub fn new() -> Self {
        Self(Cache::new(CAPACITY))
    }

    /// A device's inbox, of which maybe nothing is known yet.
    pub fn get(&self, device: &Device) -> Arc<Mutex<Known>> {
        let known = self.0.get_or_insert_with(device, || Ok::<_, std::convert::Infallible>(Arc::default()));
        known.unwrap_or_else(|never| match never {})
    }

    pub fn apply(&self, batch: &Batch<'_, ToDeviceRow>) {
        for stamped in batch.rows {
            // Devices that nobody asked for here are not worth a place.
            if let Some(known) = self.0.get(&(stamped.row.user_id.clone(), stamped.row.device_id.clone())) {
                known.lock().take_in(stamped);
            }
        }
    }
}

impl Known {
    /// Takes in what the database said, which was asked after this began to be told of what comes.
    pub fn load(&mut self, newest: impl Iterator<Item = (WriterId, StreamId)>) {
        for (writer, id) in newest {
            self.newest.advance(writer, id);
            self.forgotten.advance(writer, id);
        }
        self.loaded = true;
    }

    fn take_in(&mut self, stamped: &Stamped<ToDeviceRow>) {
        self.newest.advance(stamped.writer, stamped.id);
        self.bytes += size(&stamped.row);
        self.latest.push_back(stamped.clone());
        while self.latest.len() > MESSAGES || self.bytes > BYTES {
            let Some(oldest) = self.latest.pop_front() else { break };
            self.bytes -= size(&oldest.row);
            self.forgotten.advance(oldest.writer, oldest.id);
        }
    }

    /// The messages after `since` and up to `upto`, oldest first; `None` if the database has to be asked. It is asked for all who
    /// begin: a device that was deleted may have had the same name, and what is here may be its.
    pub fn between(&self, since: &Position, upto: &Position) -> Option<Vec<Stamped<ToDeviceRow>>> {
        if *since == Position::default() || !since.covers_all(&self.forgotten) {
            return None;
        }
        let is_between = |one: &&Stamped<ToDeviceRow>| {
            !since.covers(one.writer, one.id) && upto.covers(one.writer, one.id)
        };
        let mut messages: Vec<_> = self.latest.iter().filter(is_between).cloned().collect();
        messages.sort_unstable_by_key(|one| one.id);
        Some(messages)
    }

    /// Notes that the device has everything up to there, and gives whether there was something that it did not confirm before.
    pub fn confirm(&mut self, position: &Position) -> bool {
        if self.deleted.covers_all(&self.newest) || self.deleted.covers_all(position) {
            return false;
        }
        merge(&mut self.deleted, position);
        self.latest.retain(|one| !position.covers(one.writer, one.id));
        self.bytes = self.latest.iter().map(|one| size(&one.row)).sum();
        true
    }
}

fn size(row: &ToDeviceRow) -> usize {
    row.content.len() + row.event_type.len()
}

/// What devices have confirmed, and is still to be deleted.
#[derive(Default)]
pub(super) struct Confirmed(Mutex<BTreeMap<Device, Position>>);

impl Confirmed {
    /// Adds what a device has confirmed, and gives whether it is the first since they were taken.
    pub fn add(&self, device: Device, position: &Position) -> bool {
        let mut confirmed = self.0.lock();
        let is_first = confirmed.is_empty();
        merge(confirmed.entry(device).or_default(), position);
        is_first
    }

    pub fn take(&self) -> Vec<(Device, Position)> {
        std::mem::take(&mut *self.0.lock()).into_iter().collect()
    }
}

/// Moves a position to where another is, where that is farther.
fn merge(position: &mut Position, other: &Position) {
    position.advance_all(other.minimum());
    other.ahead().for_each(|(writer, id)| position.advance(writer, id));
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};

    use super::*;

    fn message(id: i64, writer: i16, content: &str) -> Stamped<ToDeviceRow> {
        let row = ToDeviceRow {
            user_id: user_id!("@a:x").to_owned(),
            device_id: device_id!("D").to_owned(),
            sender: user_id!("@b:x").to_owned(),
            event_type: "m.test".into(),
            content: content.into(),
            transaction: None,
        };
        Stamped { id: StreamId(id), writer: WriterId(writer), row }
    }

    fn ids(known: &Known, since: &str, upto: &str) -> Option<Vec<i64>> {
        let messages = known.between(&since.parse().unwrap(), &upto.parse().unwrap())?;
        Some(messages.iter().map(|one| one.id.0).collect())
    }

    #[test]
    fn what_came_lately_is_known_and_what_came_before_is_not() {
        let mut known = Known::default();
        known.load([(WriterId(1), StreamId(5))].into_iter());
        for (id, writer) in [(7, 2), (6, 1), (8, 1)] {
            known.take_in(&message(id, writer, "{}"));
        }
        assert_eq!(ids(&known, "4", "9"), None, "5 is not in memory");
        assert_eq!(ids(&known, "5", "9"), Some(vec![6, 7, 8]), "in the order of the stream");
        assert_eq!(ids(&known, "5", "5~1.6"), Some(vec![6]), "of writer 2 nothing is told yet");
        assert_eq!(ids(&known, "5~1.6", "9"), Some(vec![7, 8]));
        known.take_in(&message(9, 1, &"x".repeat(BYTES)));
        assert_eq!(ids(&known, "8", "9"), None, "it was too long to be kept");
        assert_eq!(ids(&known, "9", "9"), Some(Vec::new()));
        (10..30).for_each(|id| known.take_in(&message(id, 1, "{}")));
        assert_eq!(ids(&known, "20", "30"), None);
        assert_eq!(ids(&known, "21", "30"), Some((22..30).collect()));
    }

    #[test]
    fn what_was_confirmed_is_forgotten_and_told_once() {
        let mut known = Known::default();
        known.load(std::iter::empty());
        let at = |text: &str| -> Position { text.parse().unwrap() };
        assert!(!known.confirm(&at("3")), "there was nothing");
        known.take_in(&message(4, 1, "{}"));
        known.take_in(&message(5, 1, "{}"));
        assert!(known.confirm(&at("4")) && !known.confirm(&at("4")));
        assert_eq!(ids(&known, "1", "9"), Some(vec![5]));
        assert!(known.confirm(&at("9")));
        assert_eq!((ids(&known, "1", "9"), known.bytes), (Some(Vec::new()), 0));
    }
}
