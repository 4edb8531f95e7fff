//! What about a room never changes, and which rooms a user is in.

use std::{collections::HashMap, sync::Arc};

use myelin_events::{Rules, rules};
use myelin_storage::{Client, StorageError, memberships, room_reads, rooms::RoomRow};
use ruma::{OwnedRoomId, RoomId, RoomVersionId, UserId};

use super::{Result, RoomReader};
use crate::RoomNid;

/// What about a room never changes.
#[derive(Debug)]
pub struct RoomInfo {
    /// Its number.
    pub nid: RoomNid,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its version.
    pub version: RoomVersionId,
    /// The rules of that version.
    pub rules: Rules,
}

impl RoomInfo {
    fn of(row: &RoomRow) -> std::result::Result<Self, StorageError> {
        let inconsistent = |what: &str| StorageError::Inconsistent(format!("room {}: {what}", row.room_nid));
        let room_id = RoomId::parse(row.room_id.as_str()).map_err(|_| inconsistent("no room id"))?;
        let version = RoomVersionId::try_from(row.room_version.as_str()).ok();
        let version = version.and_then(|version| Some((rules(&version)?, version)));
        let (rules, version) = version.ok_or_else(|| inconsistent("no room version"))?;
        Ok(Self { nid: RoomNid(row.room_nid), room_id, version, rules })
    }
}

impl RoomReader {
    /// The room of that id, if it is known here. No query for rooms that were asked for lately.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn room(&self, room_id: &RoomId) -> Result<Option<Arc<RoomInfo>>> {
        if let Some(room) = self.0.rooms.get(room_id) {
            return Ok(Some(room));
        }
        self.room_with(&self.client().await?, room_id).await
    }

    pub(super) async fn room_with(&self, client: &Client, room_id: &RoomId) -> Result<Option<Arc<RoomInfo>>> {
        Ok(self.rooms_with(client, &[room_id]).await?.remove(room_id))
    }

    /// Those of these rooms that there are: one query at most.
    pub(super) async fn rooms_with(
        &self,
        client: &Client,
        room_ids: &[&RoomId],
    ) -> Result<HashMap<OwnedRoomId, Arc<RoomInfo>>> {
        let mut found = HashMap::with_capacity(room_ids.len());
        let mut missing = Vec::new();
        for room_id in room_ids {
            match self.0.rooms.get(*room_id) {
                Some(room) => _ = found.insert((*room_id).to_owned(), room),
                None => missing.push(room_id.as_str()),
            }
        }
        if !missing.is_empty() {
            for row in room_reads::list_rooms(client, &missing).await? {
                let room = self.remember(&row)?;
                found.insert(room.room_id.clone(), room);
            }
        }
        Ok(found)
    }

    /// Keeps what was read of a room.
    pub(super) fn remember(&self, row: &RoomRow) -> Result<Arc<RoomInfo>> {
        let room = Arc::new(RoomInfo::of(row)?);
        self.0.rooms.insert(room.room_id.clone(), room.clone());
        Ok(room)
    }

    /// The rooms that a user is in
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms)).
    ///
    /// # Errors
    /// If the database fails.
    pub async fn joined_rooms(&self, user_id: &UserId) -> Result<Vec<OwnedRoomId>> {
        let client = self.client().await?;
        let Some(user_sid) = self.0.strings.find(&client, user_id.as_str()).await? else {
            return Ok(Vec::new());
        };
        let room_ids = memberships::list_rooms_with_membership(&client, user_sid, 1).await?;
        let parse = |room_id: String| {
            OwnedRoomId::try_from(room_id)
                .map_err(|_| StorageError::Inconsistent("a room's id is none".to_owned()).into())
        };
        room_ids.into_iter().map(parse).collect()
    }
}
