//! The read side: what rooms look like to whom.

mod directory;
mod history;
mod relations;
mod timeline;

use myelin_rooms::{
    RedactEvent, Rooms,
    read::{JsonArray, Messages, MessagesRequest, ReadError, ReadFilter, RoomReader, Viewer},
};
use myelin_storage::strings::Strings;
use myelin_types::Clock;
use ruma::{OwnedEventId, RoomId, api::Direction};
use serde_json::{Value, json};

use crate::world::{World, message, raw, user};

impl World {
    fn reader(&self) -> RoomReader {
        let clock = Clock::Manual(self.clock.clone());
        RoomReader::new((**self.database).clone(), Strings::new(1000), &self.feed, clock, 1 << 20)
    }

    async fn send(&self, sender: &str, room_id: &RoomId, event_type: &str, content: Value) -> OwnedEventId {
        let mut request = message(sender, room_id, "");
        request.event_type = event_type.into();
        request.content = raw(&content);
        self.rooms.send(request).await.unwrap()
    }
}

async fn redact(rooms: &Rooms, sender: &str, room_id: &RoomId, event_id: &OwnedEventId) -> OwnedEventId {
    let request = RedactEvent {
        sender: user(sender),
        device_id: None,
        room_id: room_id.to_owned(),
        event_id: event_id.clone(),
        reason: Some("spam".to_owned()),
        content: serde_json::Map::new(),
        txn_id: None,
        timestamp: None,
    };
    rooms.redact(request).await.unwrap()
}

fn viewer(user_id: &str) -> Viewer {
    let mut viewer = Viewer::new(user(user_id));
    viewer.device_id = Some("DEVICE".into());
    viewer
}

fn ignoring(user_id: &str, ignored: &str) -> Viewer {
    let mut viewer = viewer(user_id);
    viewer.ignored = std::sync::Arc::new([user(ignored)].into());
    viewer
}

fn page(direction: Direction, limit: usize) -> MessagesRequest {
    MessagesRequest { from: None, to: None, direction, limit, filter: ReadFilter::default() }
}

fn filtered(filter: Value, room_id: &RoomId) -> MessagesRequest {
    let filter = ReadFilter::new(serde_json::from_value(filter).unwrap(), room_id);
    MessagesRequest { filter, ..page(Direction::Backward, 100) }
}

fn parse(events: &JsonArray) -> Vec<Value> {
    serde_json::from_str(&events.to_json()).expect("the reader writes JSON")
}

fn bodies(events: &JsonArray) -> Vec<String> {
    let body = |event: &Value| event["content"]["body"].as_str().map(str::to_owned);
    parse(events).iter().filter_map(body).collect()
}

/// What is said in a room, from its first to its last message, as a user may read it.
async fn said(reader: &RoomReader, viewer: &Viewer, room_id: &RoomId) -> Result<Vec<String>, ReadError> {
    let messages: Messages = reader.messages(viewer, room_id, &page(Direction::Forward, 500)).await?;
    Ok(bodies(&messages.chunk))
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}
