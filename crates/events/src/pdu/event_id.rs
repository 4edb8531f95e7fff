//! The ids that follow from an event itself.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, RoomId,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
};

use super::{MalformedEvent, invalid};
use crate::{
    Rules,
    canonical::{EventObject, reference_hash},
};

/// The id of an event that is given as JSON: its reference hash, or its `event_id` in room versions 1 and 2.
///
/// # Errors
///
/// If this is no JSON object of the room version, or lacks a `type` or (in room versions 1 and 2) its id.
pub fn event_id_of(json: &str, rules: Rules) -> Result<OwnedEventId, MalformedEvent> {
    let object = EventObject::parse(json, rules)?;
    event_id(&object, &object.to_signed_json(&rules.redaction)?, rules)
}

/// The id of an event of which `signed_json` is what [`EventObject::to_signed_json`] gave.
pub(super) fn event_id(
    object: &EventObject,
    signed_json: &str,
    rules: Rules,
) -> Result<OwnedEventId, MalformedEvent> {
    if rules.event_format.require_event_id {
        let id =
            object.string("event_id").ok_or_else(|| MalformedEvent("missing field `event_id`".to_owned()))?;
        return EventId::parse(id).map_err(|error| invalid("event_id", &error));
    }
    let hash = encode_reference_hash(&reference_hash(signed_json), rules);
    Ok(EventId::parse(format!("${hash}")).expect("base64 makes a valid event id"))
}

/// The text form of a reference hash: room version 4 changed its alphabet to the one that is safe in URLs.
pub(crate) fn encode_reference_hash(hash: &[u8; 32], rules: &RoomVersionRules) -> String {
    match rules.event_id_format {
        EventIdFormatVersion::V1 | EventIdFormatVersion::V2 => STANDARD_NO_PAD.encode(hash),
        _ => URL_SAFE_NO_PAD.encode(hash),
    }
}

/// The room of an event; that of a `m.room.create` event of room version 12 follows from its id.
pub(super) fn room_id(
    object: &EventObject,
    event_id: &EventId,
    rules: Rules,
) -> Result<OwnedRoomId, MalformedEvent> {
    let is_create = object.string("type") == Some("m.room.create");
    if is_create && !rules.event_format.require_room_create_room_id {
        return Ok(room_id_of_create_event(event_id));
    }
    let id = object.string("room_id").ok_or_else(|| MalformedEvent("missing field `room_id`".to_owned()))?;
    RoomId::parse(id).map_err(|error| invalid("room_id", &error))
}

/// The room that an `m.room.create` event [of room version 12](https://spec.matrix.org/v1.19/appendices/#room-ids) makes.
pub(crate) fn room_id_of_create_event(event_id: &EventId) -> OwnedRoomId {
    let hash = event_id.as_str().trim_start_matches('$');
    RoomId::parse(format!("!{hash}")).expect("the hash in an event id makes a valid room id")
}
