//! The sources where a process has the services themselves.

use std::{collections::HashSet, sync::Arc};

use futures_util::future::BoxFuture;
use myelin_accounts::{AccountData, AccountDataEvent, AccountDataStream};
use myelin_devices::{
    DeviceListRow, DeviceListStream, Devices, ToDevice, ToDeviceError, ToDeviceRow, ToDeviceStream,
};
use myelin_ephemeral::{Presence, Receipts, Typing};
use myelin_events::{Pdu, raw_json::ObjectWriter};
use myelin_push::{PushRules, PushRulesRow, PushRulesStream};
use myelin_replication::{Feed, Stamped};
use myelin_rooms::{
    EventStream,
    read::{ReadError, RoomReader, Viewer},
};
use myelin_storage::{Database, Result, StorageError, strings::Strings};
use myelin_types::{Clock, Position};
use ruma::{DeviceId, OwnedEventId, OwnedUserId, UserId};
use serde_json::value::RawValue;

use super::{AccountDatum, Aggregations, KeyCounts, ToDeviceBatch, ToDeviceEvent, UserData};
use crate::{Sync, SyncOptions, SyncParts};

/// Account data and push rules.
#[derive(Clone, Debug)]
pub struct AccountSource {
    /// Account data.
    pub account_data: AccountData,
    /// Push rules.
    pub push_rules: PushRules,
}

/// Devices: their keys, and messages for them.
#[derive(Clone, Debug)]
pub struct DeviceSource {
    /// Keys.
    pub devices: Devices,
    /// Messages.
    pub to_device: ToDevice,
}

/// What an engine is made of in a process that has all services itself.
#[expect(missing_debug_implementations, reason = "most of it has nothing to show")]
pub struct SyncServices {
    /// How much it may use.
    pub options: SyncOptions,
    /// The time.
    pub clock: Clock,
    /// The database.
    pub database: Database,
    /// Interned strings.
    pub strings: Strings,
    /// The events stream, as the writer of rooms feeds it.
    pub events: Feed<EventStream>,
    /// The stream of account data, as its writer feeds it.
    pub account_data_feed: Feed<AccountDataStream>,
    /// Account data.
    pub account_data: AccountData,
    /// Push rules.
    pub push_rules: PushRules,
    /// Keys of devices.
    pub devices: Devices,
    /// Messages to devices.
    pub to_device: ToDevice,
    /// Receipts.
    pub receipts: Receipts,
    /// Who is typing.
    pub typing: Typing,
    /// Who is here.
    pub presence: Presence,
    /// Relations of events.
    pub room_reader: RoomReader,
}

impl Sync {
    /// An engine over these services, subscribed to all their streams. To be made before anything is written.
    pub fn over(services: SyncServices) -> Self {
        let SyncServices { account_data_feed: account_data, push_rules, devices, to_device, .. } = services;
        let (push_rules_feed, device_lists) = (push_rules.feed().clone(), devices.feed().clone());
        let messages = to_device.feed().clone();
        let sync = Self::new(SyncParts {
            options: services.options,
            clock: services.clock,
            database: services.database,
            strings: services.strings,
            events: services.events,
            account_data: Arc::new(account_data.clone()),
            push_rules: Arc::new(push_rules_feed.clone()),
            to_device: Arc::new(messages.clone()),
            device_lists: Arc::new(device_lists.clone()),
            receipts: services.receipts.feed().clone(),
            typing: services.typing,
            presence: services.presence,
            user_data: Arc::new(AccountSource { account_data: services.account_data, push_rules }),
            devices: Arc::new(DeviceSource { devices, to_device }),
            aggregations: Arc::new(services.room_reader),
        });
        sync.follow_streams(&account_data, &push_rules_feed, &device_lists, &messages);
        sync
    }

    fn follow_streams(
        &self,
        account_data: &Feed<AccountDataStream>,
        push_rules: &Feed<PushRulesStream>,
        device_lists: &Feed<DeviceListStream>,
        to_device: &Feed<ToDeviceStream>,
    ) {
        let engine = self.clone();
        account_data.subscribe(move |batch| {
            engine.apply_account_data(batch.rows.iter().map(datum), batch.position);
        });
        let engine = self.clone();
        push_rules.subscribe(move |batch| {
            let changed = |stamped: &Stamped<PushRulesRow>| concerning(stamped, &stamped.row.user_id, ());
            engine.apply_push_rules(batch.rows.iter().map(changed), batch.position);
        });
        let engine = self.clone();
        device_lists.subscribe(move |batch| {
            engine.apply_device_lists(batch.rows.iter().filter_map(change), batch.position);
        });
        let engine = self.clone();
        to_device.subscribe(move |batch| {
            engine.apply_to_device(batch.rows.iter().map(message), batch.position);
        });
    }
}

type Concerning<T> = (myelin_types::WriterId, myelin_types::StreamId, OwnedUserId, T);

fn concerning<R, T>(stamped: &Stamped<R>, user_id: &UserId, what: T) -> Concerning<T> {
    (stamped.writer, stamped.id, user_id.to_owned(), what)
}

fn datum(stamped: &Stamped<AccountDataEvent>) -> Concerning<AccountDatum> {
    let AccountDataEvent { user_id, room_id, event_type, content } = &stamped.row;
    let datum = AccountDatum {
        room_id: room_id.clone(),
        event_type: event_type.as_str().into(),
        content: content.clone(),
    };
    concerning(stamped, user_id, datum)
}

/// Whose devices changed, and who alone is to be told.
fn change(stamped: &Stamped<DeviceListRow>) -> Option<Concerning<Option<OwnedUserId>>> {
    match &stamped.row {
        DeviceListRow::Changed { user_id } => Some(concerning(stamped, user_id, None)),
        DeviceListRow::Signed { user_id, by } => Some(concerning(stamped, user_id, Some(by.clone()))),
        // Every answer says how many there are; nobody is woken for that.
        DeviceListRow::KeyCounts { .. } => None,
    }
}

fn message(stamped: &Stamped<ToDeviceRow>) -> Concerning<ToDeviceEvent> {
    let row = &stamped.row;
    let json = to_device_event(&row.event_type, &row.sender, &row.content);
    concerning(stamped, &row.user_id, ToDeviceEvent { device_id: row.device_id.clone(), json })
}

fn to_device_event(event_type: &str, sender: &UserId, content: &str) -> Box<str> {
    let mut json = String::with_capacity(content.len() + 128);
    let mut event = ObjectWriter::new(&mut json);
    event.string("type", event_type);
    event.string("sender", sender.as_str());
    event.raw("content", content);
    event.end();
    json.into()
}

impl UserData for AccountSource {
    fn account_data<'a>(
        &'a self,
        user_id: &'a UserId,
        after: &'a Position,
    ) -> BoxFuture<'a, Result<Vec<Arc<AccountDatum>>>> {
        Box::pin(async move {
            let entries = self.account_data.of(user_id).await?.since(after);
            let datum = |entry: myelin_accounts::AccountDataEntry| AccountDatum {
                room_id: entry.room_id,
                event_type: entry.event_type.into(),
                content: entry.content,
            };
            Ok(entries.into_iter().map(|entry| Arc::new(datum(entry))).collect())
        })
    }

    fn push_rules<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<Arc<RawValue>>> {
        Box::pin(async move {
            let content = RawValue::from_string(self.push_rules.content(user_id).await?);
            content
                .map(Into::into)
                .map_err(|error| StorageError::Inconsistent(format!("push rules: {error}")))
        })
    }

    fn ignored_users<'a>(&'a self, user_id: &'a UserId) -> BoxFuture<'a, Result<HashSet<OwnedUserId>>> {
        Box::pin(async move { Ok((*self.account_data.ignored_users(user_id).await?).clone()) })
    }
}

impl super::Devices for DeviceSource {
    fn to_device<'a>(
        &'a self,
        user_id: &'a UserId,
        device_id: &'a DeviceId,
        after: &'a Position,
        upto: &'a Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<ToDeviceBatch>> {
        Box::pin(async move {
            let limit = u16::try_from(limit).unwrap_or(u16::MAX);
            let inbox = self.to_device.messages_for(user_id, device_id, after, upto, limit).await;
            let inbox = inbox.map_err(storage_error)?;
            let events = inbox.messages.iter();
            let events =
                events.map(|event| to_device_event(&event.event_type, &event.sender, event.content.get()));
            Ok(ToDeviceBatch {
                events: events.collect(),
                reached: (inbox.position != *upto).then_some(inbox.position),
            })
        })
    }

    fn confirm_to_device<'a>(
        &'a self,
        user_id: &'a UserId,
        device_id: &'a DeviceId,
        upto: &'a Position,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(
            async move { self.to_device.delete_up_to(user_id, device_id, upto).await.map_err(storage_error) },
        )
    }

    fn key_counts<'a>(
        &'a self,
        user_id: &'a UserId,
        device_id: &'a DeviceId,
    ) -> BoxFuture<'a, Result<Arc<KeyCounts>>> {
        Box::pin(self.devices.key_counts(user_id, device_id))
    }

    fn changed_users<'a>(
        &'a self,
        user_id: &'a UserId,
        after: &'a Position,
        upto: &'a Position,
    ) -> BoxFuture<'a, Result<Vec<OwnedUserId>>> {
        Box::pin(async move {
            // The engine knows better who shares a room with whom.
            let changed = self.devices.changed_since(user_id, after, upto, |_| true).await?;
            Ok(changed.into_iter().collect())
        })
    }
}

impl Aggregations for RoomReader {
    fn bundle<'a>(
        &'a self,
        viewer: &'a Viewer,
        events: &'a [Arc<Pdu>],
    ) -> BoxFuture<'a, Result<Vec<(OwnedEventId, String)>>> {
        Box::pin(async move {
            match Self::bundle(self, viewer, events).await {
                Err(ReadError::Storage(error)) => Err(error),
                Err(other) => Err(StorageError::Inconsistent(other.to_string())),
                Ok(bundles) => Ok(bundles),
            }
        })
    }
}

/// Reading and deleting fail only by the database.
fn storage_error(error: ToDeviceError) -> StorageError {
    match error {
        ToDeviceError::Storage(error) => error,
        other @ (ToDeviceError::Malformed | ToDeviceError::Write(_)) => {
            StorageError::Inconsistent(other.to_string())
        }
    }
}
