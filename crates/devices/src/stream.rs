//! The streams of this crate: `device_lists` and `to_device`.

use std::sync::Arc;

use myelin_replication::{Stamped, Stream, is_full, read_pages};
use myelin_storage::{
    Client, Result, StorageError, Write,
    device_lists::{self, DeviceListChangeRow},
    one_time_keys::{self, KeyCounts, KeyCountsRow},
    to_device::{self, ToDeviceMessageRow, ToDeviceTransactionRow},
};
use myelin_types::{MillisSinceEpoch, Position};
use ruma::{OwnedDeviceId, OwnedTransactionId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

/// Whose devices and keys changed.
#[derive(Clone, Copy, Debug)]
pub struct DeviceListStream;

/// A change of devices or keys
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceListRow {
    /// The user's devices, their keys or the cross-signing keys changed: everyone who shares a room with the user
    /// asks for them again.
    Changed {
        /// The user.
        user_id: OwnedUserId,
    },
    /// Somebody signed the user's master key, or changed a key that only they see themselves: their own devices ask
    /// for the user's keys again.
    Signed {
        /// Whose keys are to be asked for again.
        user_id: OwnedUserId,
        /// By whom.
        by: OwnedUserId,
    },
    /// A device's one-time or fallback keys
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys)) were uploaded or claimed.
    KeyCounts {
        /// Whose device.
        user_id: OwnedUserId,
        /// The device.
        device_id: OwnedDeviceId,
        /// What is left now.
        counts: Arc<KeyCounts>,
    },
}

impl Stream for DeviceListStream {
    const NAME: &'static str = "device_lists";
    type Row = DeviceListRow;

    async fn persist(db: &impl Write, rows: &[Stamped<DeviceListRow>]) -> Result<()> {
        let (mut changes, mut recounts) = (Vec::new(), Vec::new());
        for Stamped { id, writer, row } in rows {
            let (user_id, seen_by) = match row {
                DeviceListRow::Changed { user_id } => (user_id, ""),
                DeviceListRow::Signed { user_id, by } => (user_id, by.as_str()),
                DeviceListRow::KeyCounts { user_id, device_id, counts } => {
                    recounts.push(KeyCountsRow {
                        stream_id: *id,
                        writer: *writer,
                        user_id: user_id.to_string(),
                        device_id: device_id.to_string(),
                        counts: (**counts).clone(),
                    });
                    continue;
                }
            };
            changes.push(DeviceListChangeRow {
                stream_id: *id,
                writer: *writer,
                user_id: user_id.to_string(),
                seen_by: seen_by.to_owned(),
            });
        }
        one_time_keys::set_key_counts(db, &recounts).await?;
        device_lists::set_changes(db, &changes).await
    }

    async fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> Result<Vec<Stamped<DeviceListRow>>> {
        read_pages(after, upto, limit, async |from, to| {
            let changes = device_lists::changes_since(client, from, to, limit).await?;
            let counts = device_lists::key_counts_since(client, from, to, limit).await?;
            // Each list is complete up to its last row if it is full, and the two are complete as far as both are.
            let complete = [(changes.len(), changes.last().map(|row| row.stream_id))]
                .into_iter()
                .chain([(counts.len(), counts.last().map(|row| row.stream_id))])
                .filter(|(len, _)| is_full(*len, limit))
                .filter_map(|(_, last)| last)
                .min();
            let changes = changes.into_iter().map(change);
            let mut rows: Vec<_> = changes.chain(counts.into_iter().map(recount)).collect::<Result<_>>()?;
            rows.sort_by_key(|row| row.id);
            rows.retain(|row| complete.is_none_or(|complete| row.id <= complete));
            Ok((rows, complete))
        })
        .await
    }
}

fn change(row: DeviceListChangeRow) -> Result<Stamped<DeviceListRow>> {
    let user_id = user_id(&row.user_id)?;
    let change = match row.seen_by.as_str() {
        "" => DeviceListRow::Changed { user_id },
        by => DeviceListRow::Signed { user_id, by: self::user_id(by)? },
    };
    Ok(Stamped { id: row.stream_id, writer: row.writer, row: change })
}

fn recount(row: KeyCountsRow) -> Result<Stamped<DeviceListRow>> {
    let user_id = user_id(&row.user_id)?;
    let recount =
        DeviceListRow::KeyCounts { user_id, device_id: row.device_id.into(), counts: Arc::new(row.counts) };
    Ok(Stamped { id: row.stream_id, writer: row.writer, row: recount })
}

/// Messages to devices.
#[derive(Clone, Copy, Debug)]
pub struct ToDeviceStream;

/// A message to one device ([spec](https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToDeviceRow {
    /// Whom it is for.
    pub user_id: OwnedUserId,
    /// The device that it is for.
    pub device_id: OwnedDeviceId,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The event type.
    pub event_type: Arc<str>,
    /// The content: a JSON object.
    pub content: Arc<str>,
    /// In the first row of what one request sent: that request.
    pub transaction: Option<SenderTransaction>,
}

/// The transaction id of a request, so that the request can be repeated safely
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderTransaction {
    /// The device that sent.
    pub device_id: OwnedDeviceId,
    /// The event type and the id that it gave, as in the request's path.
    pub txn_id: OwnedTransactionId,
    /// When.
    pub sent_ts: MillisSinceEpoch,
}

impl Stream for ToDeviceStream {
    const NAME: &'static str = "to_device";
    type Row = ToDeviceRow;

    async fn persist(db: &impl Write, rows: &[Stamped<ToDeviceRow>]) -> Result<()> {
        let transactions: Vec<_> = rows.iter().filter_map(|stamped| transaction_row(&stamped.row)).collect();
        if !transactions.is_empty() {
            to_device::insert_transactions(db, &transactions).await?;
        }
        let messages: Vec<_> = rows
            .iter()
            .map(|Stamped { id, writer, row }| ToDeviceMessageRow {
                stream_id: *id,
                writer: *writer,
                user_id: row.user_id.to_string(),
                device_id: row.device_id.to_string(),
                sender: row.sender.to_string(),
                event_type: row.event_type.to_string(),
                content: row.content.to_string(),
            })
            .collect();
        to_device::insert_messages(db, &messages).await
    }

    async fn since(
        client: &Client,
        after: &Position,
        upto: &Position,
        limit: i64,
    ) -> Result<Vec<Stamped<ToDeviceRow>>> {
        read_pages(after, upto, limit, async |from, to| {
            let rows = to_device::messages_since(client, from, to, limit).await?;
            let complete = rows.last().map(|row| row.stream_id).filter(|_| is_full(rows.len(), limit));
            let rows = rows.into_iter().map(message).collect::<Result<Vec<_>>>()?;
            Ok((rows, complete))
        })
        .await
    }
}

fn transaction_row(row: &ToDeviceRow) -> Option<ToDeviceTransactionRow> {
    let transaction = row.transaction.as_ref()?;
    Some(ToDeviceTransactionRow {
        user_id: row.sender.to_string(),
        device_id: transaction.device_id.to_string(),
        txn_id: transaction.txn_id.to_string(),
        sent_ts: i64::try_from(transaction.sent_ts).unwrap_or(i64::MAX),
    })
}

pub(crate) fn message(row: ToDeviceMessageRow) -> Result<Stamped<ToDeviceRow>> {
    let message = ToDeviceRow {
        user_id: user_id(&row.user_id)?,
        device_id: row.device_id.into(),
        sender: user_id(&row.sender)?,
        event_type: row.event_type.into(),
        content: row.content.into(),
        transaction: None,
    };
    Ok(Stamped { id: row.stream_id, writer: row.writer, row: message })
}

pub(crate) fn user_id(text: &str) -> Result<OwnedUserId> {
    UserId::parse(text)
        .map_err(|error| StorageError::Inconsistent(format!("a row names the user {text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use myelin_types::{StreamId, WriterId};

    use super::*;
    use crate::{KeysUpload, test_support::*};

    #[tokio::test]
    async fn a_reader_that_missed_notices_gets_changes_and_counts_in_order_whatever_the_page() {
        let services = services().await;
        let start = (*services.devices.feed().position()).clone();
        let keys = ["curve25519:1".try_into().unwrap()].map(|id| (id, typed(&"k".into())));
        for device_id in ["A", "B", "C"] {
            let upload = KeysUpload { fallback_keys: keys.clone().into(), ..KeysUpload::default() };
            services.add_device(alice_id(), device_id.into()).await;
            services.devices.upload_keys(alice_id(), device_id.into(), upload).await.unwrap();
            services.devices.note_change(bob_id()).await.unwrap();
        }
        services.devices.note_change(alice_id()).await.unwrap();
        let end = (*services.devices.feed().position()).clone();
        let client = services.database.get().await.unwrap();
        for limit in 1..6 {
            let (mut position, mut seen) = (start.clone(), Vec::new());
            loop {
                let rows = DeviceListStream::since(&client, &position, &end, limit).await.unwrap();
                seen.extend(rows.iter().map(|stamped| match &stamped.row {
                    DeviceListRow::KeyCounts { device_id, .. } => device_id.to_string(),
                    DeviceListRow::Changed { user_id } => user_id.to_string(),
                    DeviceListRow::Signed { .. } => panic!("nobody signed"),
                }));
                let Some(last) = rows.last().filter(|_| is_full(rows.len(), limit)) else { break };
                position.advance_all(last.id);
            }
            // Bob's earlier changes were replaced by his last.
            assert_eq!(seen, ["A", "B", "C", "@b:x", "@a:x"], "limit {limit}");
        }
    }

    #[tokio::test]
    async fn pages_full_of_rows_that_are_covered_already_are_read_over() {
        let row = |id, writer| Stamped { id: StreamId(id), writer: WriterId(writer), row: () };
        let table: Vec<_> = (1..10).map(|id| row(id, 1)).chain([row(10, 2)]).collect();
        let page = async |from: StreamId, to: StreamId| {
            let rows: Vec<_> =
                table.iter().filter(|row| row.id > from && row.id <= to).take(2).cloned().collect();
            let complete = rows.last().map(|row| row.id).filter(|_| rows.len() == 2);
            Ok((rows, complete))
        };
        let (after, upto) = ("0~1.9".parse().unwrap(), "10".parse().unwrap());
        assert_eq!(read_pages(&after, &upto, 2, page).await.unwrap(), [row(10, 2)]);
    }
}
