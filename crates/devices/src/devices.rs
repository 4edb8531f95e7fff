//! [`Devices`]: what all families of keys share.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::BoxFuture;
use myelin_replication::{Combined, Feed, StreamWriter};
use myelin_storage::{
    Database, Result, StorageError, Transaction, device_keys as table, device_lists, one_time_keys::ClaimRow,
};
use myelin_types::Position;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::{
    DeviceListRow, DeviceListStream, KeyCounts, KeyError,
    device_keys::{self, CheckedUpload, Stored},
    device_lists::{RecentChanges, concerns},
    key_counts::KeyCountCache,
    key_query::QueryCache,
    one_time_keys::{self, Claimed},
    stream,
};

/// How many changes one query reads for a reader who was away for long.
const PAGE: i64 = 1000;

/// Uploads, or claims, in one transaction at most.
const AT_ONCE: usize = 64;

/// Work of another crate that is to be done in a transaction of ours, with what it gives.
pub type TransactionWork<T> =
    Box<dyn for<'a> FnOnce(&'a Transaction<'a>) -> BoxFuture<'a, Result<T, StorageError>> + Send>;

/// The keys of devices and users. Clones are the same.
#[derive(Clone)]
pub struct Devices(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub database: Database,
    pub writer: StreamWriter<DeviceListStream>,
    pub uploads: Combined<Arc<CheckedUpload>, Stored>,
    pub claims: Combined<Vec<ClaimRow>, Claimed>,
    feed: Feed<DeviceListStream>,
    recent: Arc<RecentChanges>,
    counts: Arc<KeyCountCache>,
    pub queried: Arc<QueryCache>,
}

impl std::fmt::Debug for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Devices").field("feed", &self.0.feed).finish_non_exhaustive()
    }
}

impl Devices {
    /// The keys in `database`. `feed` was opened just before, so that the caches miss nothing.
    pub fn new(
        database: Database,
        feed: Feed<DeviceListStream>,
        writer: StreamWriter<DeviceListStream>,
    ) -> Self {
        let counts = Arc::new(KeyCountCache::new());
        let recent = Arc::new(RecentChanges::new((*feed.position()).clone()));
        let queried = Arc::new(QueryCache::new());
        let sinks = (counts.clone(), recent.clone(), queried.clone());
        feed.subscribe(move |batch| {
            sinks.0.apply(batch);
            sinks.1.apply(batch);
            sinks.2.apply(batch);
        });
        let uploads = Combined::new(writer.clone(), AT_ONCE, |transaction, uploads| {
            Box::pin(device_keys::store(transaction, uploads))
        });
        let claims = Combined::new(writer.clone(), AT_ONCE, |transaction, claims| {
            Box::pin(one_time_keys::claim(transaction, claims))
        });
        Self(Arc::new(Inner { database, writer, uploads, claims, feed, recent, counts, queried }))
    }

    /// The stream of changes, to wait for it or to be told.
    pub fn feed(&self) -> &Feed<DeviceListStream> {
        &self.0.feed
    }

    /// How many one-time keys a device has left, and which fallback keys are unused, for
    /// [`/sync`](https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync). No query for a device that
    /// was asked for lately.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn key_counts(&self, user_id: &UserId, device_id: &DeviceId) -> Result<Arc<KeyCounts>> {
        self.0.counts.get(&self.0.database, user_id, device_id).await
    }

    /// The users whose devices or keys `asker` has to ask for again
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user)), because they
    /// changed after `since` and up to `upto`: `device_lists.changed` without those who only now came to share a room.
    /// `shares_room` tells who shares a room with the asker.
    ///
    /// No query unless `since` is older than what this process remembers.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn changed_since(
        &self,
        asker: &UserId,
        since: &Position,
        upto: &Position,
        shares_room: impl Fn(&UserId) -> bool,
    ) -> Result<BTreeSet<OwnedUserId>> {
        if since.covers_all(upto) {
            return Ok(BTreeSet::new());
        }
        if let Some(changed) = self.0.recent.since(since, upto, asker, &shares_room) {
            return Ok(changed);
        }
        let client = self.0.database.get().await?;
        let mut changed = BTreeSet::new();
        let mut after = since.minimum();
        loop {
            let rows = device_lists::changes_since(&client, after, upto.maximum(), PAGE).await?;
            for row in rows.iter().filter(|row| !since.covers(row.writer, row.stream_id)) {
                let seen_by = Some(row.seen_by.as_str()).filter(|seen_by| !seen_by.is_empty());
                let change = (stream::user_id(&row.user_id)?, seen_by.map(stream::user_id).transpose()?);
                // A user who changed once more after `upto` may have changed before it too: better once too often.
                if concerns(&change, asker, &shares_room) {
                    changed.insert(change.0);
                }
            }
            match rows.last() {
                Some(last) if i64::try_from(rows.len()).is_ok_and(|len| len >= PAGE) => {
                    after = last.stream_id
                }
                _ => return Ok(changed),
            }
        }
    }

    /// Tells those who share a room with the user to ask for the user's devices again: after a device got another name
    /// or was made, say.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn note_change(&self, user_id: &UserId) -> Result<(), KeyError> {
        self.0.writer.append(vec![DeviceListRow::Changed { user_id: user_id.to_owned() }]).await?;
        Ok(())
    }

    /// Deletes the keys and waiting messages of devices, does `work` (deleting the devices themselves and their
    /// tokens) in the same transaction, and tells those who share a room with the user.
    ///
    /// # Errors
    /// If it could not be written; nothing was deleted then.
    pub async fn remove_devices<T: Send + 'static>(
        &self,
        user_id: &UserId,
        device_ids: Vec<OwnedDeviceId>,
        work: TransactionWork<T>,
    ) -> Result<T, KeyError> {
        let owner = user_id.to_owned();
        let doomed = device_ids.clone();
        let outcome = self
            .0
            .writer
            .transact(move |transaction| {
                Box::pin(async move {
                    let outcome = work(transaction).await?;
                    let ids: Vec<&str> = doomed.iter().map(|device_id| device_id.as_str()).collect();
                    let had_keys = table::delete_devices(transaction, owner.as_str(), &ids).await?;
                    let change = DeviceListRow::Changed { user_id: owner };
                    // A device without keys was on nobody's list.
                    Ok((outcome, if had_keys { vec![change] } else { Vec::new() }))
                })
            })
            .await?;
        self.0.counts.forget(user_id, &device_ids);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};

    use super::*;
    use crate::{KeysUpload, test_support::*};

    #[tokio::test]
    async fn a_change_is_found_in_memory_and_by_a_process_that_has_just_started() {
        let services = services().await;
        let start = (*services.devices.feed().position()).clone();
        services.devices.note_change(user_id!("@a:x")).await.unwrap();
        services.devices.note_change(user_id!("@stranger:x")).await.unwrap();
        let now = services.devices.feed().position();

        let feed = Feed::<DeviceListStream>::open((*services.database).clone()).await.unwrap();
        let late = Devices::new((*services.database).clone(), feed, services.devices.0.writer.clone());
        for devices in [&services.devices, &late] {
            let changed = devices
                .changed_since(user_id!("@me:x"), &start, &now, |user_id| user_id == "@a:x")
                .await
                .unwrap();
            assert_eq!(changed.iter().collect::<Vec<_>>(), ["@a:x"]);
            let changed = devices.changed_since(user_id!("@me:x"), &now, &now, |_| true).await.unwrap();
            assert!(changed.is_empty());
        }
    }

    #[tokio::test]
    async fn removing_a_device_takes_its_keys_along_and_is_told_once() {
        let services = services().await;
        let (alice, phone) = (user_id!("@a:x"), device_id!("PHONE"));
        services.add_device(alice, phone).await;
        let upload = KeysUpload {
            device_keys: Some(typed(&device_keys(alice, phone, &TestKey::new("PHONE")))),
            ..KeysUpload::default()
        };
        services.devices.upload_keys(alice, phone, upload).await.unwrap();
        for told in [true, false] {
            let before = (*services.devices.feed().position()).clone();
            let work: TransactionWork<u64> = Box::new(|transaction| {
                Box::pin(async {
                    const SQL: &str = "DELETE FROM devices WHERE user_id = '@a:x'";
                    myelin_storage::execute(transaction, SQL, &[]).await
                })
            });
            let deleted = services.devices.remove_devices(alice, vec![phone.to_owned()], work).await.unwrap();
            assert_eq!(deleted, u64::from(told));
            let now = services.devices.feed().position();
            let changed = services.devices.changed_since(alice, &before, &now, |_| false).await.unwrap();
            assert_eq!(!changed.is_empty(), told);
        }
    }
}
