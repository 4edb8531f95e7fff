//! Messages to devices ([spec](https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging)).

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use myelin_replication::{Feed, Stamped, StreamWriter, WriteError};
use myelin_storage::{Database, StorageError, device_keys, to_device};
use myelin_types::{Clock, Position};
use parking_lot::Mutex;
use ruma::{
    DeviceId, OwnedDeviceId, OwnedTransactionId, OwnedUserId, UserId, to_device::DeviceIdOrAllDevices,
};
use serde::Serialize;
use serde_json::value::RawValue;
use tracing::warn;

use crate::{SenderTransaction, ToDeviceRow, ToDeviceStream, stream};

mod inbox;

use inbox::{Confirmed, Device, Inboxes, Known};

/// How long confirmed messages wait for others, to be deleted together.
const DELETE_AFTER: Duration = Duration::from_millis(250);
/// How long a client may repeat a request.
const TRANSACTION_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Transactions that are forgotten in one statement, the pause between two, and how often it is looked for some.
const PRUNE_ROWS: i64 = 5000;
const PRUNE_PAUSE: Duration = Duration::from_secs(1);
const PRUNE_EVERY: Duration = Duration::from_secs(10 * 60);

/// Why messages were not sent.
#[derive(Debug, thiserror::Error)]
pub enum ToDeviceError {
    /// The content of a message is not an object.
    #[error("The content of a message must be an object")]
    Malformed,
    /// Nothing was written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A request to send messages, all of one type.
#[derive(Clone, Debug)]
pub struct SendToDevice {
    /// Who sends.
    pub sender: OwnedUserId,
    /// The sending device and its transaction id. `None`: this is never a repetition.
    pub transaction: Option<(OwnedDeviceId, OwnedTransactionId)>,
    /// The event type.
    pub event_type: String,
    /// The content for each device of local users; those who don't exist get nothing.
    pub messages: BTreeMap<OwnedUserId, BTreeMap<DeviceIdOrAllDevices, Box<RawValue>>>,
}

/// A message as its device gets it; serializes to the event of
/// [`/sync`](https://spec.matrix.org/v1.19/client-server-api/#extensions-to-sync).
#[derive(Clone, Debug, Serialize)]
pub struct ToDeviceMessage {
    /// The content.
    pub content: Box<RawValue>,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The event type.
    #[serde(rename = "type")]
    pub event_type: String,
}

/// What a device gets.
#[derive(Clone, Debug)]
pub struct Inbox {
    /// The messages, oldest first.
    pub messages: Vec<ToDeviceMessage>,
    /// The position to put into the token: it covers these messages, and not those that were left for later.
    pub position: Position,
}

/// The messages that wait for their devices. Clones are the same.
#[derive(Clone)]
pub struct ToDevice(Arc<Inner>);

struct Inner {
    database: Database,
    clock: Clock,
    feed: Feed<ToDeviceStream>,
    writer: StreamWriter<ToDeviceStream>,
    inboxes: Arc<Inboxes>,
    confirmed: Confirmed,
}

impl std::fmt::Debug for ToDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToDevice").field("feed", &self.0.feed).finish_non_exhaustive()
    }
}

impl ToDevice {
    /// The messages in `database`. `feed` was opened just before.
    pub fn new(
        database: Database,
        clock: Clock,
        feed: Feed<ToDeviceStream>,
        writer: StreamWriter<ToDeviceStream>,
    ) -> Self {
        let inboxes = Arc::new(Inboxes::new());
        let sink = inboxes.clone();
        feed.subscribe(move |batch| sink.apply(batch));
        Self(Arc::new(Inner { database, clock, feed, writer, inboxes, confirmed: Confirmed::default() }))
    }

    /// The stream of messages, to wait for it or to be told.
    pub fn feed(&self) -> &Feed<ToDeviceStream> {
        &self.0.feed
    }

    /// Sends messages. A request that was sent already, by the device's transaction id, does nothing.
    ///
    /// # Errors
    /// If it could not be written; nobody gets anything then.
    pub async fn send(&self, request: SendToDevice) -> Result<(), ToDeviceError> {
        let mut rows = self.rows(&request).await?;
        let Some(first) = rows.first_mut() else { return Ok(()) };
        first.transaction = request.transaction.map(|(device_id, txn_id)| SenderTransaction {
            device_id,
            // Only a request to the same path is a repetition, and the path has the type in it:
            // <https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers>
            txn_id: format!("{}/{txn_id}", request.event_type).into(),
            sent_ts: self.0.clock.now(),
        });
        match self.0.writer.append(rows).await {
            Err(WriteError::Storage(error)) if error.is_unique_violation() => Ok(()),
            outcome => Ok(outcome.map(|_| ())?),
        }
    }

    /// A row for each device that is named, whether or not it exists, which is seen when the rows are written; and for each that
    /// a user has, where all are meant.
    async fn rows(&self, request: &SendToDevice) -> Result<Vec<ToDeviceRow>, ToDeviceError> {
        let mut contents = request.messages.values().flat_map(BTreeMap::values);
        if contents.any(|content| !content.get().starts_with('{')) {
            return Err(ToDeviceError::Malformed);
        }
        let all = self.all_devices(request).await?;
        let event_type: Arc<str> = request.event_type.as_str().into();
        let mut rows = Vec::new();
        for (user_id, messages) in &request.messages {
            let row = |device_id: OwnedDeviceId, content: &Arc<str>| ToDeviceRow {
                user_id: user_id.clone(),
                device_id,
                sender: request.sender.clone(),
                event_type: event_type.clone(),
                content: content.clone(),
                transaction: None,
            };
            for (target, content) in messages {
                let content: Arc<str> = content.get().into();
                match target {
                    DeviceIdOrAllDevices::DeviceId(id) => rows.push(row(id.clone(), &content)),
                    DeviceIdOrAllDevices::AllDevices => {
                        let own = all.iter().filter(|(owner, _)| *user_id == owner.as_str());
                        rows.extend(own.map(|(_, id)| row(id.as_str().into(), &content)));
                    }
                }
            }
        }
        Ok(rows)
    }

    /// The devices of those of whom all devices are meant.
    async fn all_devices(&self, request: &SendToDevice) -> Result<Vec<(String, String)>, StorageError> {
        let is_for_all = |messages: &BTreeMap<DeviceIdOrAllDevices, _>| {
            messages.contains_key(&DeviceIdOrAllDevices::AllDevices)
        };
        let users = request.messages.iter().filter(|(_, messages)| is_for_all(messages));
        let user_ids: Vec<&str> = users.map(|(user_id, _)| user_id.as_str()).collect();
        if user_ids.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.0.database.get().await?;
        device_keys::list_devices_of(&client, &user_ids).await
    }

    /// The messages of a device after `since` and up to `upto`, at most `limit`. No query if there are none, for a
    /// device that was asked for lately.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn messages_for(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        since: &Position,
        upto: &Position,
        limit: u16,
    ) -> Result<Inbox, ToDeviceError> {
        let device = (user_id.to_owned(), device_id.to_owned());
        let known = self.known(&device).await?;
        let in_memory = {
            let known = known.lock();
            if since.covers_all(&known.newest) || since.covers_all(upto) {
                return Ok(Inbox { messages: Vec::new(), position: upto.clone() });
            }
            known.between(since, upto)
        };
        let mut rows = match in_memory {
            Some(rows) => rows,
            None => self.stored(&device, since, upto, limit).await?,
        };
        rows.truncate(limit.into());
        let mut position = upto.clone();
        if let Some(last) = rows.last().filter(|_| rows.len() >= usize::from(limit)) {
            // There may be more: the token covers what was delivered, and of each writer no more than that.
            position = since.clone();
            position.advance_all(last.id.min(upto.minimum()));
            rows.iter().for_each(|row| position.advance(row.writer, row.id));
        }
        let messages = rows.into_iter().map(|stamped| to_message(stamped.row)).collect::<Result<_, _>>()?;
        Ok(Inbox { messages, position })
    }

    /// The same as the database has it.
    async fn stored(
        &self,
        (user_id, device_id): &Device,
        since: &Position,
        upto: &Position,
        limit: u16,
    ) -> Result<Vec<Stamped<ToDeviceRow>>, StorageError> {
        let client = self.0.database.get().await?;
        let (user, device) = (user_id.as_str(), device_id.as_str());
        let rows = to_device::list_messages(&client, user, device, since, upto, i64::from(limit)).await?;
        rows.into_iter().map(stream::message).collect()
    }

    /// Notes that a device has confirmed the messages that `position` covers, by coming back with a token that holds it. They are
    /// deleted a moment later, together with those of others; should this process end before that, when the device comes back
    /// once more. No query if there are none, for a device that was asked for lately.
    ///
    /// # Errors
    /// If the database fails; the messages stay.
    pub async fn delete_up_to(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
        position: &Position,
    ) -> Result<(), ToDeviceError> {
        let device = (user_id.to_owned(), device_id.to_owned());
        let known = self.known(&device).await?;
        if known.lock().confirm(position) && self.0.confirmed.add(device, position) {
            tokio::spawn(delete_later(Arc::downgrade(&self.0)));
        }
        Ok(())
    }

    /// Does the work that no request waits for, until `stop` is ready: forgets transaction ids that no client will
    /// repeat any more.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            let pause = match self.prune_transactions().await {
                Ok(true) => PRUNE_PAUSE,
                Ok(false) => PRUNE_EVERY,
                Err(error) => {
                    warn!(%error, "could not forget old transaction ids");
                    PRUNE_EVERY
                }
            };
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Forgets some of the transaction ids that no client will repeat any more, and gives whether there are more.
    pub(crate) async fn prune_transactions(&self) -> Result<bool, StorageError> {
        let life = u64::try_from(TRANSACTION_LIFE.as_millis()).unwrap_or(u64::MAX);
        let oldest = i64::try_from(self.0.clock.now().saturating_sub(life)).unwrap_or(i64::MAX);
        let client = self.0.database.get().await?;
        let pruned = to_device::delete_transactions_before(&client, oldest, PRUNE_ROWS).await?;
        Ok(i64::try_from(pruned).is_ok_and(|pruned| pruned >= PRUNE_ROWS))
    }

    /// What is known of a device's inbox, having asked the database if nothing was.
    async fn known(&self, device: &Device) -> Result<Arc<Mutex<Known>>, StorageError> {
        // It is there before we read: what the stream brings meanwhile is not lost.
        let known = self.0.inboxes.get(device);
        if known.lock().loaded {
            return Ok(known);
        }
        let client = self.0.database.get().await?;
        let newest = to_device::newest_messages(&client, device.0.as_str(), device.1.as_str()).await?;
        drop(client);
        known.lock().load(newest.into_iter());
        Ok(known)
    }
}

impl Inner {
    /// Deletes what devices have confirmed.
    async fn delete_confirmed(&self) -> Result<(), StorageError> {
        let confirmed = self.confirmed.take();
        let rows: Vec<_> = confirmed
            .iter()
            .map(|((user_id, device_id), position)| (user_id.as_str(), device_id.as_str(), position))
            .collect();
        let deleted = async {
            let client = self.database.get().await?;
            to_device::delete_messages(&client, &rows).await
        };
        let outcome = deleted.await;
        if outcome.is_err() {
            confirmed.iter().for_each(|(device, position)| _ = self.confirmed.add(device.clone(), position));
        }
        outcome.map(|_| ())
    }
}

/// Deletes what devices have confirmed, once more of them may have.
async fn delete_later(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(DELETE_AFTER).await;
        let Some(inner) = inner.upgrade() else { return };
        match inner.delete_confirmed().await {
            Ok(()) => return,
            Err(error) => warn!(%error, "could not delete messages that devices have"),
        }
    }
}

fn to_message(row: ToDeviceRow) -> Result<ToDeviceMessage, StorageError> {
    let content = RawValue::from_string(row.content.as_ref().to_owned())
        .map_err(|error| StorageError::Inconsistent(format!("a to-device message: {error}")))?;
    Ok(ToDeviceMessage { content, sender: row.sender, event_type: row.event_type.as_ref().to_owned() })
}

#[cfg(test)]
mod tests;
