//! Rooms in memory, put together event by event.

use std::sync::{Arc, atomic::AtomicBool};

use myelin_events::{Pdu, rules};
use myelin_push::{PushBits, PushOutcome};
use myelin_types::{Position, StreamId, WriterId};
use ruma::{RoomVersionId, owned_room_id};
use serde_json::{Value, json};

use super::{Floor, Inner, MAX_RECEIPTS, State};
use crate::{
    event::{Change, Rendered, RoomEvent},
    log::RecentLog,
};

/// Who writes all of it.
pub(crate) const WRITER: WriterId = WriterId(1);

/// Everything up to a place.
pub(crate) fn upto(pos: i64) -> Position {
    Position::at(StreamId(pos))
}

/// A message at a place, which notifies everybody.
pub(crate) fn message(pos: i64, sender: &str) -> RoomEvent {
    event(pos, sender, json!({ "type": "m.room.message", "content": { "body": "hello" } }))
}

/// A state event at a place, which replaces another.
pub(crate) fn state_event(
    pos: i64,
    sender: &str,
    (event_type, state_key): (&str, &str),
    content: Value,
    replaced: Option<&RoomEvent>,
) -> RoomEvent {
    let fields = json!({ "type": event_type, "state_key": state_key, "content": content });
    let event = event(pos, sender, fields);
    let change = Change {
        event_type: event_type.into(),
        state_key: state_key.into(),
        event: Some(event.event.clone()),
        replaced: replaced.map(|replaced| replaced.event.clone()),
    };
    RoomEvent { changes: [change].into(), ..event }
}

/// A member event of a user at a place, sent by the user.
pub(crate) fn member(pos: i64, user_id: &str, membership: &str, replaced: Option<&RoomEvent>) -> RoomEvent {
    let content = json!({ "membership": membership });
    state_event(pos, user_id, ("m.room.member", user_id), content, replaced)
}

fn event(pos: i64, sender: &str, mut fields: Value) -> RoomEvent {
    fields["sender"] = sender.into();
    fields["room_id"] = "!room:example.org".into();
    fields["origin_server_ts"] = pos.into();
    fields["depth"] = pos.into();
    for (name, empty) in [("prev_events", json!([])), ("auth_events", json!([])), ("hashes", json!({}))] {
        fields[name] = empty;
    }
    let event_id = format!("${pos}").try_into().unwrap();
    let rules = rules(&RoomVersionId::V11).unwrap();
    let pdu =
        Pdu::from_stored(owned_room_id!("!room:example.org"), event_id, fields.to_string(), rules).unwrap();
    RoomEvent {
        pos: StreamId(pos),
        writer: WRITER,
        event: Rendered::new(Arc::new(pdu)),
        shown: true,
        changes: Box::default(),
        push: PushOutcome { default: PushBits::NOTIFY, exceptions: Box::default() },
        thread_id: None,
        sent_by: None,
        redacted_because: None,
        has_relations: AtomicBool::new(false),
    }
}

/// A room with these events, of whose state all but the members is known.
pub(crate) fn room(floor: Floor, events: impl IntoIterator<Item = RoomEvent>) -> Inner {
    let mut room = Inner {
        newest: None,
        floor,
        events: Default::default(),
        state: State::default(),
        receipts: RecentLog::new(Position::default(), MAX_RECEIPTS),
        size_bytes: 0,
    };
    for event in events {
        room.push(Arc::new(event));
    }
    room.learn_state([], true, false);
    room
}
