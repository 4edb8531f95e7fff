//! What the processes say in the end, each asked by itself.

use anyhow::Context as _;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Load, Room};
use crate::{
    Api, User,
    invariants::{History, State, StateEvent},
    path_segment,
};

/// More pages than any test writes.
const MAX_PAGES: usize = 1_000;

impl Load {
    /// Asks each process for the state of every room and for what everybody has not read, and reads each room from its start.
    ///
    /// # Panics
    ///
    /// If a process doesn't answer, or there is none.
    pub async fn audit(&self, processes: &[(&str, &Api)], history: &mut History) {
        for room in &self.rooms {
            let reader = self.users[room.members[0]].at(processes[0].1);
            history.state_events(&room.id, state_events(&reader, room).await);
            let states =
                processes.iter().map(async |(name, api)| (*name, state(&reader.at(api), room).await));
            for (name, state) in join_all(states).await {
                history.state(&room.id, name, state);
            }
        }
        for user in &self.users {
            let counts = processes.iter().map(async |(name, api)| (*name, unread(&user.at(api)).await));
            for (name, counts) in join_all(counts).await {
                for (room_id, notifications) in counts {
                    history.unread(&room_id, &user.id, name, notifications);
                }
            }
        }
    }
}

/// The state events of a room in the order of its timeline.
async fn state_events(reader: &User, room: &Room) -> Vec<StateEvent> {
    let mut events = Vec::new();
    let mut from = String::new();
    for _ in 0..MAX_PAGES {
        let room_id = path_segment(&room.id);
        let path = format!("/_matrix/client/v3/rooms/{room_id}/messages?dir=f&limit=1000{from}");
        let page = reader.get(&path).await;
        events.extend(page["chunk"].as_array().into_iter().flatten().filter_map(state_event));
        match page["end"].as_str() {
            Some(end) => from = format!("&from={}", path_segment(end)),
            None => return events,
        }
    }

    panic!("{} does not come to an end", room.id)
}

fn state_event(event: &Value) -> Option<StateEvent> {
    let text = |key: &str| event[key].as_str().map(str::to_owned);

    Some(StateEvent { key: (text("type")?, text("state_key")?), event_id: text("event_id")? })
}

async fn state(reader: &User, room: &Room) -> State {
    let state = reader.get(&format!("/_matrix/client/v3/rooms/{}/state", path_segment(&room.id))).await;
    let events = state.as_array().into_iter().flatten().filter_map(state_event);

    events.map(|event| (event.key, event.event_id)).collect()
}

/// The notifications of each room that the user is in, by a first sync.
async fn unread(user: &User) -> Vec<(String, u64)> {
    let filter = json!({ "room": { "timeline": { "limit": 1 } } }).to_string();
    let sync = user.get(&format!("/_matrix/client/v3/sync?timeout=0&filter={}", path_segment(&filter))).await;
    let rooms = sync["rooms"]["join"].as_object().context("everybody is in a room");
    let rooms = rooms.unwrap_or_else(|error| panic!("{error}: {sync}"));

    let counts = rooms.iter().map(|(room_id, room)| {
        let count = room["unread_notifications"]["notification_count"].as_u64();
        (room_id.clone(), count.unwrap_or_else(|| panic!("no count in {room}")))
    });
    counts.collect()
}
