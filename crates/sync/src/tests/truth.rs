//! What everything that syncs tell is compared with.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use myelin_events::Pdu;
use myelin_replication::Stamped;
use myelin_rooms::EventRow;
use parking_lot::Mutex;
use ruma::OwnedRoomId;
use serde_json::Value;

/// What happened in a room.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// The timeline, each event with its place.
    pub events: Vec<(i64, Arc<Pdu>)>,
    /// The current state by type and key.
    pub state: BTreeMap<(String, String), Arc<Pdu>>,
    pub nid: i64,
}

impl Truth {
    /// Takes in a row of the events stream.
    pub fn apply(&mut self, stamped: &Stamped<EventRow>) {
        let row = &stamped.row;
        self.nid = row.room_nid.0;
        if row.timeline {
            self.events.push((stamped.id.0, row.pdu.clone()));
        }
        for change in &row.state_changes {
            let key = (change.event_type.to_string(), change.state_key.to_string());
            match &change.event {
                Some(event) => _ = self.state.insert(key, event.clone()),
                None => _ = self.state.remove(&key),
            }
        }
    }

    /// What somebody is in the room.
    pub fn membership(&self, user_id: &str) -> String {
        let member = self.state.get(&("m.room.member".to_owned(), user_id.to_owned()));
        let content: Value =
            member.map(|event| serde_json::from_str(event.content()).unwrap()).unwrap_or_default();
        content["membership"].as_str().unwrap_or("leave").to_owned()
    }

    /// The ids of the timeline.
    pub fn event_ids(&self) -> Vec<&str> {
        self.events.iter().map(|(_, pdu)| pdu.event_id().as_str()).collect()
    }
}

/// What happened in each room.
pub(super) type Truths = Arc<Mutex<HashMap<OwnedRoomId, Truth>>>;
