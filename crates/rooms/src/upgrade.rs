//! Upgrading rooms to another version ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-upgrades)).

use myelin_events::{EventTemplate, Rules, rules};
use myelin_storage::{aliases, rooms};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId,
    events::{StateEventType, TimelineEventType},
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use tracing::warn;

use crate::{
    EventRow, RequestId, RoomError, Rooms, SendEvent,
    aliases::may_change,
    membership::raw,
    resident::{Draft, Resident},
    rooms::InRoom,
};

mod replicate;

/// An upgrade that a local user asks for.
#[derive(Clone, Debug)]
pub struct UpgradeRoom {
    /// The user.
    pub sender: OwnedUserId,
    /// The room.
    pub room_id: OwnedRoomId,
    /// The version of its successor.
    pub new_version: RoomVersionId,
    /// Who is a creator of the successor beside the user, from room version 12 on.
    pub additional_creators: Vec<OwnedUserId>,
    /// The request: if it has made a successor already, what is left of the upgrade is done.
    pub request: Option<RequestId>,
}

/// What of `m.room.create` tells where a room comes from.
#[derive(Deserialize)]
struct Origin {
    predecessor: Option<Predecessor>,
}

#[derive(Deserialize)]
struct Predecessor {
    room_id: OwnedRoomId,
}

/// What of `m.room.tombstone` tells where a room went.
#[derive(Deserialize)]
struct Replacement {
    replacement_room: Option<OwnedRoomId>,
}

impl Rooms {
    /// The room that a room replaces
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#mroomcreate)), if it names one. No query for a room in memory.
    ///
    /// # Errors
    /// If the room is not known here, or can't be loaded.
    pub async fn predecessor(&self, room_id: &RoomId) -> Result<Option<OwnedRoomId>, RoomError> {
        let room = self.enter(room_id).await?;
        let create = room.pdu(&StateEventType::RoomCreate, "");
        let origin = create.and_then(|create| create.content_as::<Origin>().ok());
        Ok(origin.and_then(|origin| origin.predecessor).map(|predecessor| predecessor.room_id))
    }

    /// Makes a successor of a room with the same state, points the room's aliases at it, and ends the room with an
    /// `m.room.tombstone`. Gives the id of the successor.
    ///
    /// # Errors
    /// [`RoomError::Forbidden`] without the power to send the tombstone, [`RoomError::UnsupportedVersion`].
    pub async fn upgrade(&self, request: UpgradeRoom) -> Result<OwnedRoomId, RoomError> {
        let version = &request.new_version;
        let rules = rules(version).ok_or_else(|| RoomError::UnsupportedVersion(version.clone()))?;
        // Held to the end: the tombstone is the last event before the successor begins.
        let mut old = self.enter(&request.room_id).await?;
        old.require_joined(&request.sender)?;
        if !may_change(&old, &request.sender, &TimelineEventType::RoomTombstone) {
            return Err(RoomError::Forbidden("you may not upgrade this room".to_owned()));
        }
        let is_public = self.is_public(&request.room_id).await?;
        let (new_id, tombstone) = match self.made_by(request.request.as_ref()).await? {
            Some(made) => (made, None),
            None => self.make_successor(&mut old, &request, rules, is_public).await?,
        };
        let tombstone = match tombstone {
            None if replacement(&old).as_deref() != Some(&new_id) => {
                Some(old.compose(self.tombstone(&request, &new_id).await?).await?)
            }
            tombstone => tombstone,
        };
        let old_nid = old.nid.0;
        let old_levels = restricted_levels(&old);
        let canonical_alias = content(&old, &StateEventType::RoomCanonicalAlias);
        let canonical_alias = canonical_alias.filter(|content| !content.is_empty());
        // What follows takes turns of its own at the old room.
        match tombstone {
            Some(tombstone) => _ = old.write(tombstone).await?,
            None => drop(old),
        }
        self.move_aliases(old_nid, &new_id, is_public).await?;
        // What is left is good manners: the upgrade stands without it.
        let follow_ups = [
            canonical_alias.clone().map(|content| (&new_id, TimelineEventType::RoomCanonicalAlias, content)),
            canonical_alias.map(|_| (&request.room_id, TimelineEventType::RoomCanonicalAlias, Map::new())),
            old_levels.map(|levels| (&request.room_id, TimelineEventType::RoomPowerLevels, levels)),
        ];
        for (room_id, event_type, content) in follow_ups.into_iter().flatten() {
            let sent = self.send_state(&request.sender, room_id, event_type.clone(), content).await;
            if let Err(error) = sent {
                warn!(%room_id, %event_type, %error, "an event after an upgrade was not sent");
            }
        }
        Ok(new_id)
    }

    /// Makes the successor, and the tombstone that names it if that could be made before.
    async fn make_successor(
        &self,
        old: &mut InRoom,
        request: &UpgradeRoom,
        rules: Rules,
        is_public: bool,
    ) -> Result<(OwnedRoomId, Option<EventRow>), RoomError> {
        let new_id = self.new_room_id(rules)?;
        // Room ids that are hashes of the create event can't be named before it is made.
        let tombstone = match &new_id {
            Some(new_id) => Some(old.compose(self.tombstone(request, new_id).await?).await?),
            None => None,
        };
        let last_event = tombstone.as_ref().map(|tombstone| tombstone.pdu.event_id().clone());
        let plan = replicate::plan(self, old, request, rules, last_event, is_public).await?;
        let new_id = self.create_planned(&plan, new_id, request.new_version.clone(), rules).await?;
        Ok((new_id, tombstone))
    }

    async fn tombstone(&self, request: &UpgradeRoom, new_id: &RoomId) -> Result<Draft, RoomError> {
        let content = json!({ "body": "This room has been replaced", "replacement_room": new_id });
        let content: Box<RawValue> = serde_json::value::to_raw_value(&content)
            .map_err(|error| RoomError::BadJson(error.to_string()))?;
        let template =
            EventTemplate::state(request.sender.clone(), TimelineEventType::RoomTombstone, "", content);
        Draft::new(&self.0, template).await
    }

    /// The new room may be another process's by now, so it is not entered.
    async fn move_aliases(&self, old_nid: i64, new_id: &RoomId, was_public: bool) -> Result<(), RoomError> {
        let client = self.0.database.get().await?;
        let new = rooms::get_room(&client, new_id.as_str()).await?.ok_or(RoomError::UnknownRoom)?;
        aliases::move_aliases(&client, old_nid, new.room_nid).await?;
        if was_public {
            rooms::set_public(&client, old_nid, false).await?;
        }
        Ok(())
    }

    async fn send_state(
        &self,
        sender: &OwnedUserId,
        room_id: &OwnedRoomId,
        event_type: TimelineEventType,
        content: Map<String, Value>,
    ) -> Result<OwnedEventId, RoomError> {
        self.send(SendEvent {
            sender: sender.clone(),
            device_id: None,
            room_id: room_id.clone(),
            event_type,
            state_key: Some(String::new()),
            content: raw(content)?,
            txn_id: None,
            timestamp: None,
        })
        .await
    }
}

/// The content of a state event with an empty key.
fn content(room: &Resident, event_type: &StateEventType) -> Option<Map<String, Value>> {
    room.pdu(event_type, "")?.content_as().ok()
}

/// The room that replaces a room.
fn replacement(room: &Resident) -> Option<OwnedRoomId> {
    let tombstone = room.pdu(&StateEventType::RoomTombstone, "")?;
    tombstone.content_as::<Replacement>().ok()?.replacement_room
}

/// Power levels by which ordinary members can't send to the room nor invite to it any more; `None` if it is so already.
fn restricted_levels(room: &InRoom) -> Option<Map<String, Value>> {
    let mut levels = content(room, &StateEventType::RoomPowerLevels).unwrap_or_default();
    let level = |field: &str, default: i64| {
        let stated = levels.get(field);
        let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
        stated.and_then(number).unwrap_or(default)
    };
    let wanted = 50.max(level("users_default", 0).saturating_add(1));
    let raised: Vec<&str> =
        ["events_default", "invite"].into_iter().filter(|field| level(field, 0) < wanted).collect();
    for field in &raised {
        levels.insert((*field).to_owned(), wanted.into());
    }
    (!raised.is_empty()).then_some(levels)
}

/// Whether creators stand above all levels.
fn creators_are_above(rules: Rules) -> bool {
    rules.authorization.explicitly_privilege_room_creators
}
