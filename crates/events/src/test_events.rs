//! Events for tests: a small world of users on two servers, and a room that grows.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId, UInt,
    events::{StateEventType, TimelineEventType},
    signatures::PublicKeyMap,
};
use serde_json::{json, value::RawValue};

use crate::{
    EventContext, EventReference, EventTemplate, Pdu, Rules, ServerSigningKey, StateMap,
    auth::auth_events_for, build::build, limits::next_depth, rules,
};

pub const ALICE: &str = "@alice:one.test";
pub const BOB: &str = "@bob:two.test";
pub const CAROL: &str = "@carol:one.test";

/// The key that all servers of these tests share.
pub static KEY: LazyLock<ServerSigningKey> =
    LazyLock::new(|| ServerSigningKey::from_seed("test", [7; 32]).unwrap());

pub fn keys() -> PublicKeyMap {
    ["one.test", "two.test"].map(|server| (server.to_owned(), KEY.public_key_set())).into()
}

pub fn user(id: &str) -> OwnedUserId {
    id.try_into().expect("tests use valid user ids")
}

pub fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("tests use valid JSON")
}

/// A lone state event by Alice with an empty state key.
pub fn pdu_with_content(version: &RoomVersionId, event_type: &str, content: &str) -> Pdu {
    let template = EventTemplate::state(user(ALICE), event_type.into(), "", raw(content));
    let room_id: OwnedRoomId = "!room:one.test".try_into().unwrap();
    let rules = rules(version).unwrap();
    let states_room = event_type != "m.room.create" || rules.event_format.require_room_create_room_id;
    let context = EventContext {
        rules,
        room_id: states_room.then_some(&room_id),
        prev_events: &[],
        auth_events: &[],
        depth: 1,
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(1u32)),
        key: &KEY,
    };
    build(template, &context).expect("the content of tests makes an event")
}

/// A room whose events are all kept, so that tests can go on from any of its states.
pub struct TestRoom {
    pub rules: Rules,
    pub room_id: Option<OwnedRoomId>,
    pub events: HashMap<OwnedEventId, Arc<Pdu>>,
    pub clock: u32,
}

/// One end of the room's graph: the event it ends with and the state behind that.
#[derive(Clone)]
pub struct Fork {
    pub last: Vec<Arc<Pdu>>,
    pub state: StateMap<OwnedEventId>,
}

impl TestRoom {
    /// A room made by Alice, in which she is and which anyone may join.
    pub fn new(version: &RoomVersionId) -> (Self, Fork) {
        let rules = rules(version).unwrap();
        let is_hash = rules.authorization.room_create_event_id_as_room_id;
        let room_id = (!is_hash).then(|| "!room:one.test".try_into().unwrap());
        let mut room = Self { rules, room_id, events: HashMap::new(), clock: 1000 };
        let mut fork = Fork { last: Vec::new(), state: StateMap::new() };
        let create = json!({"creator": ALICE, "room_version": version});
        room.state(&mut fork, ALICE, "m.room.create", "", create);
        room.room_id = Some(fork.last[0].room_id().clone());
        room.member(&mut fork, ALICE, ALICE, "join");
        let alice_level = if is_hash { json!({}) } else { json!({ALICE: 100}) };
        room.state(&mut fork, ALICE, "m.room.power_levels", "", json!({"users": alice_level}));
        room.state(&mut fork, ALICE, "m.room.join_rules", "", json!({"join_rule": "public"}));
        (room, fork)
    }

    pub fn fetch(&self) -> impl Fn(&EventId) -> Option<Arc<Pdu>> + '_ {
        |event_id| self.events.get(event_id).cloned()
    }

    pub fn lookup<'a>(
        &'a self,
        state: &'a StateMap<OwnedEventId>,
    ) -> impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>> + 'a {
        |event_type, state_key| {
            self.events.get(state.get(&(event_type.clone(), state_key.to_owned()))?).cloned()
        }
    }

    pub fn template(
        sender: &str,
        event_type: &str,
        key: Option<&str>,
        content: &serde_json::Value,
    ) -> EventTemplate {
        EventTemplate {
            event_type: TimelineEventType::from(event_type),
            state_key: key.map(ToOwned::to_owned),
            content: raw(&content.to_string()),
            sender: user(sender),
            redacts: None,
        }
    }

    /// Builds an event behind a fork without adding it anywhere.
    pub fn build(&self, fork: &Fork, template: EventTemplate) -> Pdu {
        let auth_events = auth_events_for(&template, self.rules, self.lookup(&fork.state)).unwrap();
        let references = |events: &[Arc<Pdu>]| {
            events.iter().map(|event| EventReference::to(event).unwrap()).collect::<Vec<_>>()
        };
        let context = EventContext {
            rules: self.rules,
            room_id: self.room_id.as_deref(),
            prev_events: &references(&fork.last),
            auth_events: &references(&auth_events),
            depth: next_depth(fork.last.iter().map(|event| event.depth()).max().unwrap_or(0)),
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(self.clock)),
            key: &KEY,
        };
        build(template, &context).expect("tests build valid events")
    }

    /// Adds an event behind a fork, whether or not it is allowed there.
    pub fn add(&mut self, fork: &mut Fork, template: EventTemplate) -> Arc<Pdu> {
        let event = Arc::new(self.build(fork, template));
        self.clock += 1;
        self.events.insert(event.event_id().clone(), event.clone());
        if let Some(key) = event.state_map_key() {
            fork.state.insert(key, event.event_id().clone());
        }
        fork.last = vec![event.clone()];
        event
    }

    pub fn state(
        &mut self,
        fork: &mut Fork,
        sender: &str,
        event_type: &str,
        state_key: &str,
        content: serde_json::Value,
    ) -> Arc<Pdu> {
        self.add(fork, Self::template(sender, event_type, Some(state_key), &content))
    }

    pub fn member(&mut self, fork: &mut Fork, sender: &str, target: &str, membership: &str) -> Arc<Pdu> {
        self.state(fork, sender, "m.room.member", target, json!({"membership": membership}))
    }

    pub fn message(&mut self, fork: &mut Fork, sender: &str, body: &str) -> Arc<Pdu> {
        self.add(
            fork,
            Self::template(sender, "m.room.message", None, &json!({"body": body, "msgtype": "m.text"})),
        )
    }
}
