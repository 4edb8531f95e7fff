//! Whose keys to ask for again, for a client that was away
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges)).

use std::collections::{BTreeSet, HashSet};

use myelin_storage::sync::members;
use ruma::{OwnedUserId, UserId};

use crate::{Sync, SyncError, SyncToken};

/// What changed for a user between two tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyChanges {
    /// Whose devices or keys changed, and who came to share a room with the user.
    pub changed: BTreeSet<OwnedUserId>,
    /// Who shares no room with the user any more.
    pub left: BTreeSet<OwnedUserId>,
}

impl Sync {
    /// Whose keys a client has to ask for again that knows those as of `from`, and whose it can forget. What happened
    /// after `to` may be part of it. Comes from the database: clients that keep syncing are told by `/sync`.
    ///
    /// # Errors
    /// See [`SyncError`].
    pub async fn key_changes(
        &self,
        user_id: &UserId,
        from: &SyncToken,
        to: &SyncToken,
    ) -> Result<KeyChanges, SyncError> {
        let engine = &*self.0;
        engine.reach(from).await?;
        engine.reach(to).await?;
        let parts = &engine.parts;
        let devices = parts.devices.changed_users(user_id, &from.device_lists, &to.device_lists).await?;
        let client = parts.database.get().await?;
        let sid = parts.strings.intern(&client, user_id.as_str()).await?;
        let company = members::company_changed(&client, sid, from.events.minimum()).await?;
        let company: Vec<(OwnedUserId, bool)> = company
            .into_iter()
            .filter_map(|(name, together)| Some((OwnedUserId::try_from(name).ok()?, together)))
            .collect();
        let candidates: HashSet<&str> = devices
            .iter()
            .chain(company.iter().map(|(other, _)| other))
            .map(|other| other.as_str())
            .collect();
        let candidates: Vec<&str> = candidates.into_iter().filter(|other| *other != user_id).collect();
        let sharing: HashSet<String> = match candidates.is_empty() {
            true => HashSet::new(),
            false => members::sharing_a_room(&client, sid, &candidates).await?.into_iter().collect(),
        };
        drop(client);

        let mut changes = KeyChanges::default();
        changes
            .changed
            .extend(devices.into_iter().filter(|other| other == user_id || sharing.contains(other.as_str())));
        for (other, together) in company {
            if !sharing.contains(other.as_str()) {
                changes.left.insert(other);
            } else if together {
                changes.changed.insert(other);
            }
        }
        Ok(changes)
    }
}
