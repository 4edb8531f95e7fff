//! Sending events: `PUT …/send/{eventType}/{txnId}` and `PUT …/state/{eventType}/{stateKey}`
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room)).

use myelin_events::{EventTemplate, Pdu};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedTransactionId, OwnedUserId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::value::RawValue;

use crate::{
    RedactEvent, RoomError, Rooms,
    resident::{Draft, TransactionKey},
    rooms::InRoom,
};

mod checks;

/// An event that a local user sends.
#[derive(Clone, Debug)]
pub struct SendEvent {
    /// The user.
    pub sender: OwnedUserId,
    /// The user's device: transaction ids are its own, and it alone is told of them.
    pub device_id: Option<OwnedDeviceId>,
    /// The room.
    pub room_id: OwnedRoomId,
    /// The type.
    pub event_type: TimelineEventType,
    /// The state key of a state event.
    pub state_key: Option<String>,
    /// The content, a JSON object.
    pub content: Box<RawValue>,
    /// The transaction id: with the same, the same device gets the same event, however often it asks.
    pub txn_id: Option<OwnedTransactionId>,
    /// When the event was sent, where an application service may say so; else now.
    pub timestamp: Option<MilliSecondsSinceUnixEpoch>,
}

impl Rooms {
    /// Sends an event and gives its id once it is committed. A state event that would say what the same user's state
    /// event says already is not sent again. Membership events and redactions go the way of
    /// [`Rooms::change_membership`] and [`Rooms::redact`].
    ///
    /// # Errors
    /// See [`RoomError`]; after [`RoomError::Unavailable`] and [`RoomError::Overloaded`] it can be tried again with
    /// the same transaction id.
    pub async fn send(&self, request: SendEvent) -> Result<OwnedEventId, RoomError> {
        match (&request.event_type, &request.state_key) {
            (TimelineEventType::RoomMember, Some(target)) => {
                let change = checks::membership_change(&request, target)?;
                return self.change_membership(change).await;
            }
            (TimelineEventType::RoomRedaction, None) => {
                let redaction = RedactEvent::of(request)?;
                return self.redact(redaction).await;
            }
            _ => {}
        }
        checks::check_content(&request)?;
        let SendEvent { sender, device_id, room_id, event_type, state_key, content, txn_id, timestamp } =
            request;
        if event_type == TimelineEventType::RoomCanonicalAlias && state_key.as_deref() == Some("") {
            self.check_canonical_alias(&room_id, &content).await?;
        }
        let template = EventTemplate { event_type, state_key, content, sender, redacts: None };
        let mut draft = Draft::new(&self.0, template).await?;
        draft.timestamp = timestamp;
        let room = self.enter(&room_id).await?;
        self.send_draft(room, draft, device_id, txn_id).await
    }

    /// Sends what was drafted, unless the room is blocked, or the transaction id or the state says that it was sent before.
    pub(crate) async fn send_draft(
        &self,
        room: InRoom,
        draft: Draft,
        device_id: Option<OwnedDeviceId>,
        txn_id: Option<OwnedTransactionId>,
    ) -> Result<OwnedEventId, RoomError> {
        if room.is_blocked {
            return Err(RoomError::Blocked);
        }
        self.send_even_if_blocked(room, draft, device_id, txn_id).await
    }

    /// Sends what was drafted, whose sender may send it to a blocked room too.
    pub(crate) async fn send_even_if_blocked(
        &self,
        mut room: InRoom,
        mut draft: Draft,
        device_id: Option<OwnedDeviceId>,
        txn_id: Option<OwnedTransactionId>,
    ) -> Result<OwnedEventId, RoomError> {
        draft.sent_by = txn_id.map(|txn_id| (device_id.unwrap_or_else(|| "".into()), txn_id));
        if let Some((device_id, txn_id)) = &draft.sent_by {
            let key = TransactionKey::new(draft.sender_sid, device_id.as_str(), txn_id.as_str());
            if let Some(event_id) = room.transactions.get(&key).cloned() {
                return room.already(event_id).await;
            }
        }
        let row = room.compose(draft).await?;
        if let Some(same) = same_state(&room, &row.pdu) {
            return room.already(same).await;
        }
        room.write(row).await
    }
}

/// The state event of the same user that says the same already.
fn same_state(room: &InRoom, pdu: &Pdu) -> Option<OwnedEventId> {
    let event_type: StateEventType = pdu.event_type().to_string().into();
    let held = room.pdu(&event_type, pdu.state_key()?)?;
    let is_same = held.sender() == pdu.sender() && held.content() == pdu.content();
    is_same.then(|| held.event_id().clone())
}
