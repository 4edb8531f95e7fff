//! Aliases and the room directory ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-aliases)).

use myelin_storage::{aliases, rooms};
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{RoomError, Rooms, SendEvent, resident::Resident};

/// The aliases in an `m.room.canonical_alias` event.
#[derive(Default, Deserialize)]
struct CanonicalAlias {
    #[serde(default)]
    alias: Option<String>,
    #[serde(default)]
    alt_aliases: Vec<String>,
}

impl CanonicalAlias {
    fn iter(&self) -> impl Iterator<Item = &str> {
        self.alias.iter().chain(&self.alt_aliases).map(String::as_str).filter(|alias| !alias.is_empty())
    }
}

impl Rooms {
    /// Points an alias of this server at a room that the user is in.
    ///
    /// # Errors
    /// [`RoomError::AliasTaken`], [`RoomError::InvalidParam`] for an alias of another server.
    pub async fn create_alias(
        &self,
        user_id: &UserId,
        alias: &RoomAliasId,
        room_id: &RoomId,
    ) -> Result<(), RoomError> {
        if alias.server_name() != self.server_name() {
            return Err(RoomError::InvalidParam(format!("{alias} belongs to another server")));
        }
        let room = self.enter(room_id).await?;
        room.require_joined(user_id)?;
        let room_nid = room.nid.0;
        drop(room);
        let client = self.0.database.get().await?;
        match aliases::insert_alias(&client, alias.as_str(), room_nid, user_id.as_str()).await? {
            true => Ok(()),
            false => Err(RoomError::AliasTaken(alias.to_owned())),
        }
    }

    /// The room that an alias of this server points at.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn get_alias(&self, alias: &RoomAliasId) -> Result<Option<OwnedRoomId>, RoomError> {
        let client = self.0.database.get().await?;
        let row = aliases::get_alias(&client, alias.as_str()).await?;
        Ok(row.and_then(|row| RoomId::parse(row.room_id).ok()))
    }

    /// The aliases of this server that point at a room. Who may ask is for the caller to know.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], or if the database fails.
    pub async fn list_aliases(&self, room_id: &RoomId) -> Result<Vec<OwnedRoomAliasId>, RoomError> {
        let room_nid = self.enter(room_id).await?.nid.0;
        let client = self.0.database.get().await?;
        let rows = aliases::list_aliases(&client, room_nid).await?;
        Ok(rows.into_iter().filter_map(|row| RoomAliasId::parse(row.alias).ok()).collect())
    }

    /// Takes an alias away: its maker may, who may change the room's `m.room.canonical_alias`, and administrators of
    /// the server. Where that event names the alias and the user may change it, the name goes too.
    ///
    /// # Errors
    /// [`RoomError::UnknownAlias`], [`RoomError::Forbidden`].
    pub async fn delete_alias(
        &self,
        user_id: &UserId,
        alias: &RoomAliasId,
        is_admin: bool,
    ) -> Result<(), RoomError> {
        let unknown = || RoomError::UnknownAlias(alias.to_owned());
        let client = self.0.database.get().await?;
        let row = aliases::get_alias(&client, alias.as_str()).await?.ok_or_else(unknown)?;
        drop(client);
        let room_id = RoomId::parse(&row.room_id).map_err(|_| unknown())?;
        let room = self.enter(&room_id).await?;
        let may_change_state = may_change(&room, user_id, &TimelineEventType::RoomCanonicalAlias);
        let without = canonical_alias_without(&room, alias).filter(|_| may_change_state);
        drop(room);
        if !(is_admin || may_change_state || row.creator == user_id.as_str()) {
            return Err(RoomError::Forbidden("you may not take this alias away".to_owned()));
        }
        let client = self.0.database.get().await?;
        if !aliases::delete_alias(&client, alias.as_str()).await? {
            return Err(unknown());
        }
        drop(client);
        match without {
            Some(content) => self.set_canonical_alias(user_id.to_owned(), room_id, content).await,
            None => Ok(()),
        }
    }

    /// Publishes a room in the directory of this server, or takes it out. Who may change its canonical alias may do
    /// that, and administrators.
    ///
    /// # Errors
    /// [`RoomError::Forbidden`], [`RoomError::UnknownRoom`].
    pub async fn set_visibility(
        &self,
        user_id: &UserId,
        room_id: &RoomId,
        is_public: bool,
        is_admin: bool,
    ) -> Result<(), RoomError> {
        let room = self.enter(room_id).await?;
        if !(is_admin || may_change(&room, user_id, &TimelineEventType::RoomCanonicalAlias)) {
            return Err(RoomError::Forbidden("you may not publish this room".to_owned()));
        }
        let client = self.0.database.get().await?;
        Ok(rooms::set_public(&client, room.nid.0, is_public).await?)
    }

    /// Whether a room is published in the directory of this server.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], or if the database fails.
    pub async fn is_public(&self, room_id: &RoomId) -> Result<bool, RoomError> {
        let client = self.0.database.get().await?;
        let room = rooms::get_room(&client, room_id.as_str()).await?.ok_or(RoomError::UnknownRoom)?;
        Ok(room.is_public)
    }

    /// Blocks a room, so that nobody can send to it or join it, or lifts the block.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], or if the database fails.
    pub async fn set_blocked(&self, room_id: &RoomId, is_blocked: bool) -> Result<(), RoomError> {
        let mut room = self.enter(room_id).await?;
        let client = self.0.database.get().await?;
        rooms::set_blocked(&client, room.nid.0, is_blocked).await?;
        room.is_blocked = is_blocked;
        Ok(())
    }

    async fn set_canonical_alias(
        &self,
        sender: OwnedUserId,
        room_id: OwnedRoomId,
        content: Box<RawValue>,
    ) -> Result<(), RoomError> {
        let request = SendEvent {
            sender,
            device_id: None,
            room_id,
            event_type: TimelineEventType::RoomCanonicalAlias,
            state_key: Some(String::new()),
            content,
            txn_id: None,
            timestamp: None,
        };
        Box::pin(self.send(request)).await.map(|_| ())
    }

    /// Checks that the aliases which a new `m.room.canonical_alias` adds are aliases, and point at the room
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#mroomcanonical_alias)).
    pub(crate) async fn check_canonical_alias(
        &self,
        room_id: &RoomId,
        content: &RawValue,
    ) -> Result<(), RoomError> {
        let new: CanonicalAlias = serde_json::from_str(content.get())
            .map_err(|_| RoomError::InvalidParam("the aliases are not what they should be".to_owned()))?;
        let room = self.enter(room_id).await?;
        let old = canonical_alias(&room).unwrap_or_default();
        drop(room);
        let is_new = |alias: &&str| !old.iter().any(|old| old == *alias);
        for alias in new.iter().filter(is_new) {
            let parsed = <&RoomAliasId>::try_from(alias)
                .map_err(|_| RoomError::InvalidParam(format!("{alias:?} is not an alias")))?;
            if self.get_alias(parsed).await?.as_deref() != Some(room_id) {
                return Err(RoomError::BadAlias(alias.to_owned()));
            }
        }
        Ok(())
    }
}

fn canonical_alias(room: &Resident) -> Option<CanonicalAlias> {
    room.pdu(&StateEventType::RoomCanonicalAlias, "")?.content_as().ok()
}

/// Whether a user is in the room and may send this state.
pub(crate) fn may_change(room: &Resident, user_id: &UserId, event_type: &TimelineEventType) -> bool {
    room.require_joined(user_id).is_ok()
        && room.power_levels().is_ok_and(|levels| levels.can_send(user_id, event_type, true))
}

/// The content of the room's canonical alias without this one, if it names it.
fn canonical_alias_without(room: &Resident, alias: &RoomAliasId) -> Option<Box<RawValue>> {
    let event = room.pdu(&StateEventType::RoomCanonicalAlias, "")?;
    if !canonical_alias(room)?.iter().any(|named| named == alias.as_str()) {
        return None;
    }
    let mut content: serde_json::Map<String, serde_json::Value> = event.content_as().ok()?;
    if content.get("alias").and_then(|named| named.as_str()) == Some(alias.as_str()) {
        content.remove("alias");
    }
    if let Some(serde_json::Value::Array(others)) = content.get_mut("alt_aliases") {
        others.retain(|named| named.as_str() != Some(alias.as_str()));
    }
    serde_json::value::to_raw_value(&content).ok()
}
