//! Events as clients see them ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-event-format)).
//!
//! A [`ClientEvent`] is the part that is the same for everybody, made once and kept; who asks and when adds the room
//! id and [`Unsigned`] to it.

use ruma::{EventId, RoomId, events::TimelineEventType};
use serde_json::value::RawValue;

use crate::{
    Pdu,
    raw_json::{self, ObjectWriter},
};

/// An event in the format of the client-server API, all but `room_id` and `unsigned`, as a fragment of JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientEvent {
    /// An object that is still open.
    fragment: Box<str>,
}

/// What `unsigned` tells about an event. Whatever is `None` is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unsigned<'a> {
    /// How long ago the event was sent, in milliseconds.
    pub age: Option<i64>,
    /// The transaction id, for the device that sent the event.
    pub transaction_id: Option<&'a str>,
    /// The membership of the user who asks, at the event.
    pub membership: Option<&'a str>,
    /// For state: the content before, as JSON.
    pub prev_content: Option<&'a str>,
    /// For state: the sender of the event before. Clients in the field read it though the specification lacks it.
    pub prev_sender: Option<&'a str>,
    /// For state: the id of the event before.
    pub replaces_state: Option<&'a EventId>,
    /// The redaction of this event, in client format, as JSON.
    pub redacted_because: Option<&'a str>,
    /// The [bundled aggregations](https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events),
    /// `m.relations`, as JSON.
    pub relations: Option<&'a str>,
    /// For an invite: `invite_room_state`, stripped state as JSON.
    pub invite_room_state: Option<&'a str>,
    /// For a knock: `knock_room_state`, stripped state as JSON.
    pub knock_room_state: Option<&'a str>,
}

impl Unsigned<'_> {
    /// The age of an event at the time `now`, in milliseconds since 1970.
    pub fn age_of(pdu: &Pdu, now: u64) -> i64 {
        let sent: u64 = pdu.origin_server_ts().0.into();
        i64::try_from(i128::from(now) - i128::from(sent)).unwrap_or(i64::MAX)
    }

    fn is_empty(&self) -> bool {
        let Self { age, transaction_id, membership, prev_content, prev_sender, .. } = self;
        age.is_none()
            && transaction_id.is_none()
            && membership.is_none()
            && prev_content.is_none()
            && prev_sender.is_none()
            && self.replaces_state.is_none()
            && self.redacted_because.is_none()
            && self.relations.is_none()
            && self.invite_room_state.is_none()
            && self.knock_room_state.is_none()
    }

    fn write(&self, mut object: ObjectWriter<'_>) {
        if let Some(age) = self.age {
            object.integer("age", age);
        }
        let strings = [
            ("transaction_id", self.transaction_id),
            ("membership", self.membership),
            ("prev_sender", self.prev_sender),
            ("replaces_state", self.replaces_state.map(EventId::as_str)),
        ];
        for (name, text) in strings {
            if let Some(text) = text {
                object.string(name, text);
            }
        }
        let fragments = [
            ("prev_content", self.prev_content),
            ("redacted_because", self.redacted_because),
            ("m.relations", self.relations),
            ("invite_room_state", self.invite_room_state),
            ("knock_room_state", self.knock_room_state),
        ];
        for (name, json) in fragments {
            if let Some(json) = json {
                object.raw(name, json);
            }
        }
        object.end();
    }
}

impl ClientEvent {
    /// The fixed part of an event.
    pub fn new(pdu: &Pdu) -> Self {
        // About the sizes of ids, names and punctuation.
        let mut fragment = String::with_capacity(pdu.content().len() + 320);
        let mut object = ObjectWriter::new(&mut fragment);
        write_content(&mut object, pdu);
        object.string("event_id", pdu.event_id().as_str());
        object.integer("origin_server_ts", i64::from(ruma::Int::from(pdu.origin_server_ts().0)));
        object.string("sender", pdu.sender().as_str());
        if let Some(state_key) = pdu.state_key() {
            object.string("state_key", state_key);
        }
        object.display("type", pdu.event_type());
        if let Some(redacts) = pdu.redacts() {
            // Old clients look here, new ones in the content: <https://spec.matrix.org/v1.19/rooms/v11/#moving-the-redacts-property-of-mroomredaction-events-to-a-content-property>
            object.string("redacts", redacts.as_str());
        }
        object.leave_open();
        Self { fragment: fragment.into() }
    }

    /// Appends the whole event. `room_id` is for responses that don't name the room elsewhere.
    pub fn write(&self, out: &mut String, room_id: Option<&RoomId>, unsigned: &Unsigned<'_>) {
        out.reserve(self.fragment.len() + 128);
        out.push_str(&self.fragment);
        let mut object = ObjectWriter::resume(out);
        if let Some(room_id) = room_id {
            object.string("room_id", room_id.as_str());
        }
        if !unsigned.is_empty() {
            unsigned.write(object.object("unsigned"));
        }
        object.end();
    }

    /// The whole event as a text of its own.
    pub fn to_json(&self, room_id: Option<&RoomId>, unsigned: &Unsigned<'_>) -> String {
        let mut json = String::new();
        self.write(&mut json, room_id, unsigned);
        json
    }

    /// The whole event as a value for ruma's types.
    pub fn to_raw_value(&self, room_id: Option<&RoomId>, unsigned: &Unsigned<'_>) -> Box<RawValue> {
        raw_json::into_raw_value(self.to_json(room_id, unsigned))
    }

    /// The memory that this takes, for caches that are bounded by bytes.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.fragment.len()
    }
}

/// Appends an event as [stripped state](https://spec.matrix.org/v1.19/client-server-api/#stripped-state): what people
/// who are invited, knock or look at the hierarchy get of a room's state.
pub fn write_stripped_state(out: &mut String, pdu: &Pdu) {
    let mut object = ObjectWriter::new(out);
    object.raw("content", pdu.content());
    object.string("sender", pdu.sender().as_str());
    object.string("state_key", pdu.state_key().unwrap_or_default());
    object.display("type", pdu.event_type());
    object.end();
}

/// An event as stripped state, as a value for ruma's types.
pub fn stripped_state(pdu: &Pdu) -> Box<RawValue> {
    let mut json = String::with_capacity(pdu.content().len() + 128);
    write_stripped_state(&mut json, pdu);
    raw_json::into_raw_value(json)
}

/// The content, to which `redacts` is added in the room versions that have it outside.
fn write_content(object: &mut ObjectWriter<'_>, pdu: &Pdu) {
    let content = pdu.content();
    let is_old_redaction =
        *pdu.event_type() == TimelineEventType::RoomRedaction && !pdu.rules().redaction.content_field_redacts;
    let Some(redacts) = pdu.redacts().filter(|_| is_old_redaction) else {
        return object.raw("content", content);
    };
    let mut fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(content).unwrap_or_default();
    fields.insert("redacts".to_owned(), redacts.as_str().into());
    object.with("content", |out| out.push_str(&serde_json::Value::Object(fields).to_string()));
}

#[cfg(test)]
mod tests;
