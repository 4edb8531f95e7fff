//! Account data and devices as the tests set them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use myelin_events::Pdu;
use myelin_rooms::read::Viewer;
use myelin_storage::Result;
use myelin_types::{Position, StreamId, WriterId};
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedEventId, OwnedUserId, UserId};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{
    Sync,
    sources::{
        AccountDatum, Aggregations, Devices, KeyCounts, Progress, ToDeviceBatch, ToDeviceEvent, UserData,
    },
};

const WRITER: WriterId = WriterId(1);

/// A stream as the test moves it.
#[derive(Default)]
pub(super) struct TestProgress(Mutex<Arc<Position>>);

impl TestProgress {
    fn next(&self) -> StreamId {
        let mut position = self.0.lock();
        let next = StreamId(position.minimum().0 + 1);
        *position = Arc::new(Position::at(next));
        next
    }
}

impl Progress for TestProgress {
    fn position(&self) -> Arc<Position> {
        self.0.lock().clone()
    }

    fn wait_for<'a>(&'a self, position: &'a Position, _: Duration) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(self.position().covers_all(position)))
    }
}

/// A user's piece of account data with its place.
type Datum = (StreamId, OwnedUserId, Arc<AccountDatum>);
/// A message with its place.
type Message = (StreamId, OwnedUserId, ToDeviceEvent);

/// What accounts and devices would keep.
#[derive(Default)]
pub(super) struct TestSources {
    pub account_data: Arc<TestProgress>,
    pub push_rules: Arc<TestProgress>,
    pub to_device: Arc<TestProgress>,
    pub device_lists: Arc<TestProgress>,
    data: Mutex<Vec<Datum>>,
    messages: Mutex<Vec<Message>>,
    devices_changed: Mutex<Vec<(StreamId, OwnedUserId)>>,
    /// `m.relations` that every event with children gets.
    pub relations: Mutex<String>,
}

impl TestSources {
    /// Sets a piece of account data and tells the engine.
    pub fn set_account_data(
        &self,
        sync: &Sync,
        user_id: &UserId,
        room_id: Option<&ruma::RoomId>,
        event_type: &str,
        content: &Value,
    ) {
        let datum = AccountDatum {
            room_id: room_id.map(ToOwned::to_owned),
            event_type: event_type.into(),
            content: to_raw_value(content).unwrap().into(),
        };
        let id = self.account_data.next();
        let mut data = self.data.lock();
        let is_same = |old: &AccountDatum| old.room_id == datum.room_id && old.event_type == datum.event_type;
        data.retain(|(_, owner, old)| owner != user_id || !is_same(old));
        data.push((id, user_id.to_owned(), Arc::new(datum.clone())));
        drop(data);
        sync.apply_account_data([(WRITER, id, user_id.to_owned(), datum)], &Position::at(id));
    }

    /// Sends a message to a device and tells the engine.
    pub fn send_to_device(&self, sync: &Sync, user_id: &UserId, device_id: &str, json: &str) {
        let id = self.to_device.next();
        let message = ToDeviceEvent { device_id: device_id.into(), json: json.into() };
        self.messages.lock().push((id, user_id.to_owned(), message.clone()));
        sync.apply_to_device([(WRITER, id, user_id.to_owned(), message)], &Position::at(id));
    }

    /// How many messages are kept.
    pub fn messages(&self) -> usize {
        self.messages.lock().len()
    }

    /// Somebody's keys changed.
    pub fn change_devices(&self, sync: &Sync, user_id: &UserId) {
        let id = self.device_lists.next();
        self.devices_changed.lock().push((id, user_id.to_owned()));
        sync.apply_device_lists([(WRITER, id, user_id.to_owned(), None)], &Position::at(id));
    }

    /// Somebody's push rules changed.
    pub fn change_push_rules(&self, sync: &Sync, user_id: &UserId) {
        let id = self.push_rules.next();
        sync.apply_push_rules([(WRITER, id, user_id.to_owned(), ())], &Position::at(id));
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, Result<T>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl UserData for TestSources {
    fn account_data<'a>(
        &'a self,
        user_id: &'a UserId,
        after: &'a Position,
    ) -> BoxFuture<'a, Result<Vec<Arc<AccountDatum>>>> {
        let data = self.data.lock();
        let new = data.iter().filter(|(id, owner, _)| owner == user_id && !after.covers(WRITER, *id));
        ready(new.map(|(.., datum)| datum.clone()).collect())
    }

    fn push_rules<'a>(&'a self, _: &'a UserId) -> BoxFuture<'a, Result<Arc<RawValue>>> {
        ready(to_raw_value(&json!({"global": {}})).unwrap().into())
    }

    fn ignored_users<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<HashSet<OwnedUserId>>> {
        let data = self.data.lock();
        let list = data
            .iter()
            .find(|(_, owner, datum)| owner == user_id && &*datum.event_type == "m.ignored_user_list");
        ready(list.map(|(.., datum)| crate::sources::ignored_users(datum.content.get())).unwrap_or_default())
    }
}

impl Devices for TestSources {
    fn to_device<'a>(
        &'a self,
        user_id: &'a UserId,
        device_id: &'a DeviceId,
        after: &'a Position,
        upto: &'a Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<ToDeviceBatch>> {
        let messages = self.messages.lock();
        let mut new = messages.iter().filter(|(id, owner, message)| {
            owner == user_id
                && message.device_id == device_id
                && !after.covers(WRITER, *id)
                && upto.covers(WRITER, *id)
        });
        let batch: Vec<_> = new.by_ref().take(limit).collect();
        let reached = new.next().and(batch.last()).map(|(id, ..)| Position::at(*id));
        ready(ToDeviceBatch {
            events: batch.into_iter().map(|(.., message)| message.json.clone()).collect(),
            reached,
        })
    }

    fn confirm_to_device<'a>(
        &'a self,
        user_id: &'a UserId,
        device_id: &'a DeviceId,
        upto: &'a Position,
    ) -> BoxFuture<'a, Result<()>> {
        self.messages.lock().retain(|(id, owner, message)| {
            owner != user_id || message.device_id != device_id || !upto.covers(WRITER, *id)
        });
        ready(())
    }

    fn key_counts<'a>(&'a self, _: &'a UserId, _: &'a DeviceId) -> BoxFuture<'a, Result<Arc<KeyCounts>>> {
        let one_time = BTreeMap::from([("signed_curve25519".to_owned(), 50)]);
        ready(Arc::new(KeyCounts { one_time, unused_fallback: vec!["signed_curve25519".to_owned()] }))
    }

    fn changed_users<'a>(
        &'a self,
        _: &'a UserId,
        after: &'a Position,
        upto: &'a Position,
    ) -> BoxFuture<'a, Result<Vec<OwnedUserId>>> {
        let changed = self.devices_changed.lock();
        let new = changed.iter().filter(|(id, _)| !after.covers(WRITER, *id) && upto.covers(WRITER, *id));
        ready(new.map(|(_, user_id)| user_id.clone()).collect())
    }
}

impl Aggregations for TestSources {
    fn bundle<'a>(
        &'a self,
        _: &'a Viewer,
        events: &'a [Arc<Pdu>],
    ) -> BoxFuture<'a, Result<Vec<(OwnedEventId, String)>>> {
        let relations = self.relations.lock();
        if relations.is_empty() {
            return ready(Vec::new());
        }
        ready(events.iter().map(|pdu| (pdu.event_id().clone(), relations.clone())).collect())
    }
}
