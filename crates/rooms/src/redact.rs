//! Redactions by local users ([spec](https://spec.matrix.org/v1.19/client-server-api/#redactions)).

use std::sync::Arc;

use myelin_events::{EventTemplate, Pdu};
use myelin_storage::events;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedTransactionId,
    OwnedUserId, events::TimelineEventType,
};
use serde_json::{Map, Value, value::RawValue};

use crate::{EventNid, RoomError, Rooms, SendEvent, resident::Draft, rooms::InRoom, stream::stored};

/// A redaction that a local user asks for.
#[derive(Clone, Debug)]
pub struct RedactEvent {
    /// The user.
    pub sender: OwnedUserId,
    /// The user's device.
    pub device_id: Option<OwnedDeviceId>,
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event whose content is to go.
    pub event_id: OwnedEventId,
    /// Why.
    pub reason: Option<String>,
    /// What else the content of the redaction says.
    pub content: Map<String, Value>,
    /// The transaction id.
    pub txn_id: Option<OwnedTransactionId>,
    /// When it was sent, where an application service may say so; else now.
    pub timestamp: Option<MilliSecondsSinceUnixEpoch>,
}

impl RedactEvent {
    /// The redaction in an `m.room.redaction` event that was sent as such, as room version 11 allows.
    pub(crate) fn of(request: SendEvent) -> Result<Self, RoomError> {
        let mut content: Map<String, Value> = serde_json::from_str(request.content.get())
            .map_err(|error| RoomError::BadJson(error.to_string()))?;
        let event_id = content
            .remove("redacts")
            .and_then(|redacts| EventId::parse(redacts.as_str()?).ok())
            .ok_or_else(|| RoomError::BadJson("`redacts` names no event".to_owned()))?;
        Ok(Self {
            sender: request.sender,
            device_id: request.device_id,
            room_id: request.room_id,
            event_id,
            reason: None,
            content,
            txn_id: request.txn_id,
            timestamp: request.timestamp,
        })
    }
}

impl Rooms {
    /// Takes an event's content away: the user's own event, or any with the power to redact. Gives the id of the
    /// redaction.
    ///
    /// # Errors
    /// [`RoomError::UnknownEvent`] if there is no such event in the room, [`RoomError::Forbidden`] without the power.
    pub async fn redact(&self, request: RedactEvent) -> Result<OwnedEventId, RoomError> {
        let RedactEvent { sender, device_id, room_id, event_id, reason, mut content, txn_id, timestamp } =
            request;
        if let Some(reason) = reason {
            content.insert("reason".to_owned(), reason.into());
        }
        let content = RawValue::from_string(Value::Object(content).to_string())
            .map_err(|error| RoomError::BadJson(error.to_string()))?;
        let template = EventTemplate::redaction(sender.clone(), event_id.clone(), content);
        let mut draft = Draft::new(&self.0, template).await?;
        draft.timestamp = timestamp;
        let room = self.enter(&room_id).await?;
        room.require_joined(&sender)?;
        let (target, nid) = self.event_in(&room, &event_id).await?.ok_or(RoomError::UnknownEvent)?;
        if *target.event_type() == TimelineEventType::RoomCreate {
            return Err(RoomError::Forbidden("the event that created the room can't be redacted".to_owned()));
        }
        let is_own = *target.sender() == sender;
        if !is_own && !room.power_levels()?.can_redact_others(&sender) {
            return Err(RoomError::Forbidden("you can't redact events of others in this room".to_owned()));
        }
        draft.redacts = Some((target, nid));
        self.send_draft(room, draft, device_id, txn_id).await
    }

    /// An event of the room, from memory or the database; outliers don't count.
    async fn event_in(
        &self,
        room: &InRoom,
        event_id: &EventId,
    ) -> Result<Option<(Arc<Pdu>, EventNid)>, RoomError> {
        if let Some(recent) = room.recent.get(event_id).filter(|recent| recent.is_shown()) {
            return Ok(Some((recent.pdu.clone(), recent.nid)));
        }
        let client = self.0.database.get().await?;
        let found = events::list_events_by_id(&client, room.nid.0, &[event_id.as_str()]).await?;
        let Some(event) = found.first().filter(|event| event.pos.is_some()) else { return Ok(None) };
        let pdu = stored(&room.room_id, room.rules, event)?;
        Ok(Some((pdu, EventNid(event.event_nid))))
    }
}
