//! The sources where a process has the services themselves.

use std::{collections::HashSet, sync::Arc};

use futures_util::future::BoxFuture;
use myelin_accounts::{AccountData, AccountDataEvent, AccountDataStream};
use myelin_devices::{
    DeviceListRow, DeviceListStream, Devices, ToDevice, ToDeviceError, ToDeviceRow, ToDeviceStream,
};
use myelin_events::raw_json::ObjectWriter;
use myelin_push::{PushRules, PushRulesRow, PushRulesStream};
use myelin_replication::{Feed, Stamped};
use myelin_storage::{Result, StorageError};
use myelin_types::Position;
use ruma::{DeviceId, OwnedUserId, UserId};
use serde_json::value::RawValue;

use super::{AccountDatum, KeyCounts, ToDeviceBatch, ToDeviceEvent, UserData};
use crate::Sync;

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

/// Tells the engine of what is committed to these streams from now on. To be called right after the engine was made.
pub fn connect(
    sync: &Sync,
    account_data: &Feed<AccountDataStream>,
    push_rules: &Feed<PushRulesStream>,
    device_lists: &Feed<DeviceListStream>,
    to_device: &Feed<ToDeviceStream>,
) {
    let engine = sync.clone();
    account_data
        .subscribe(move |batch| engine.apply_account_data(batch.rows.iter().map(datum), batch.position));
    let engine = sync.clone();
    push_rules.subscribe(move |batch| {
        let changed = |stamped: &Stamped<PushRulesRow>| concerning(stamped, &stamped.row.user_id, ());
        engine.apply_push_rules(batch.rows.iter().map(changed), batch.position);
    });
    let engine = sync.clone();
    device_lists.subscribe(move |batch| {
        engine.apply_device_lists(batch.rows.iter().filter_map(change), batch.position)
    });
    let engine = sync.clone();
    to_device.subscribe(move |batch| engine.apply_to_device(batch.rows.iter().map(message), batch.position));
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

/// Reading and deleting fail only by the database.
fn storage_error(error: ToDeviceError) -> StorageError {
    match error {
        ToDeviceError::Storage(error) => error,
        other @ (ToDeviceError::Malformed | ToDeviceError::Write(_)) => {
            StorageError::Inconsistent(other.to_string())
        }
    }
}
