//! A room as other servers know it, with a slow and straightforward reference of what has to be made of its events.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
};

use myelin_events::{
    EventContext, EventReference, EventTemplate, Pdu, ReceivedPdu, Rules, ServerSigningKey, StateMap,
    auth::{auth_events_for, check_against_state, check_auth_events},
    build::build,
    limits::next_depth,
    rules,
    state_res::{auth_chain, resolve},
};
use myelin_rooms::{EventSource, Fetching, JoinAnswer, SourceError, StateIds};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, RoomVersionId, UInt,
    events::StateEventType,
};
use serde_json::{Value, json};

use crate::world::{ALICE, World, raw, user};

pub const ROB: &str = "@rob:two.test";
pub const RITA: &str = "@rita:two.test";
pub const RON: &str = "@ron:three.test";

/// One of the crowd.
pub fn member(number: usize) -> String {
    format!("@member{number}:two.test")
}

pub type State = StateMap<OwnedEventId>;

/// A room of @rob:two.test, which [`ALICE`] has joined through that server.
pub struct RemoteRoom {
    pub version: RoomVersionId,
    pub rules: Rules,
    pub room_id: Option<OwnedRoomId>,
    pub events: HashMap<OwnedEventId, Arc<Pdu>>,
    pub rejected: HashSet<OwnedEventId>,
    /// The state before and after each event, by the rules alone.
    pub before: HashMap<OwnedEventId, State>,
    pub after: HashMap<OwnedEventId, State>,
    /// In the order in which they were made.
    pub order: Vec<OwnedEventId>,
    pub key: ServerSigningKey,
    /// What its server does not give away.
    pub withheld: Mutex<HashSet<OwnedEventId>>,
    alices_join: usize,
    clock: u64,
}

impl RemoteRoom {
    /// `seed` makes it another room than others of the same version.
    pub fn new(version: RoomVersionId, seed: u64) -> Self {
        Self::with_crowd(version, seed, 0)
    }

    /// A room in which so many others are when Alice joins: `@member0:two.test` and so on.
    pub fn with_crowd(version: RoomVersionId, seed: u64, members: usize) -> Self {
        let rules = rules(&version).unwrap();
        let mut room = Self {
            room_id: (!rules.authorization.room_create_event_id_as_room_id)
                .then(|| format!("!room{seed}:two.test").try_into().unwrap()),
            version: version.clone(),
            rules,
            events: HashMap::new(),
            rejected: HashSet::new(),
            before: HashMap::new(),
            after: HashMap::new(),
            order: Vec::new(),
            key: ServerSigningKey::from_seed("test", [1; 32]).unwrap(),
            withheld: Mutex::default(),
            alices_join: 4 + members,
            clock: 1_600_000_000_000 + seed * 1_000_000,
        };
        let mut create = json!({ "room_version": version });
        if !rules.authorization.use_room_create_sender {
            create["creator"] = ROB.into();
        }
        room.state(&[], ROB, "m.room.create", "", create);
        room.room_id = Some(room.events[&room.order[0]].room_id().clone());
        room.next_state(ROB, "m.room.member", ROB, json!({ "membership": "join" }));
        let users = match rules.authorization.explicitly_privilege_room_creators {
            true => json!({ RITA: 50 }),
            false => json!({ ROB: 100, RITA: 50 }),
        };
        let levels = json!({ "users": users, "events": { "m.room.topic": 0 }, "invite": 0 });
        room.next_state(ROB, "m.room.power_levels", "", levels);
        room.next_state(ROB, "m.room.join_rules", "", json!({ "join_rule": "public" }));
        room.crowd(members);
        room.next_state(ALICE, "m.room.member", ALICE, json!({ "membership": "join" }));
        room
    }

    pub fn room_id(&self) -> &RoomId {
        self.room_id.as_ref().expect("the room was created")
    }

    pub fn last(&self) -> OwnedEventId {
        self.order.last().expect("the room has events").clone()
    }

    fn fetch(&self) -> impl Fn(&EventId) -> Option<Arc<Pdu>> + '_ {
        |event_id| self.events.get(event_id).cloned()
    }

    /// The state that several branches resolve to.
    pub fn resolve(&self, ends: &[OwnedEventId]) -> State {
        let states: Vec<State> = ends.iter().map(|end| self.after[end].clone()).collect();
        resolve(self.rules, &states, self.fetch()).unwrap()
    }

    /// What the rules say to an event in a state.
    pub fn is_allowed(&self, pdu: &Pdu, state: &State) -> bool {
        let held = |event_type: &StateEventType, key: &str| {
            self.events.get(state.get(&(event_type.clone(), key.to_owned()))?).cloned()
        };
        check_against_state(pdu, held).is_ok()
    }

    /// Has members join one after the other. The state between two of them is not kept: there would be too much.
    fn crowd(&mut self, members: usize) {
        let last = self.last();
        let mut state = self.after[&last].clone();
        for member in (0..members).map(member) {
            let content = raw(&json!({ "membership": "join" }));
            let template = EventTemplate::state(user(&member), "m.room.member".into(), &member, content);
            let pdu = self.build(&[self.last()], template, &state);
            let key = pdu.state_map_key().expect("it is a state event");
            state.insert(key, pdu.event_id().clone());
            self.order.push(pdu.event_id().clone());
            self.events.insert(pdu.event_id().clone(), pdu);
        }
        self.after.insert(self.last(), state);
    }

    fn build(&mut self, prev_events: &[OwnedEventId], template: EventTemplate, before: &State) -> Arc<Pdu> {
        let held = |event_type: &StateEventType, key: &str| {
            self.events.get(before.get(&(event_type.clone(), key.to_owned()))?).cloned()
        };
        let auth_events = auth_events_for(&template, self.rules, held).unwrap();
        let references = |events: &[Arc<Pdu>]| {
            events.iter().map(|pdu| EventReference::to(pdu).unwrap()).collect::<Vec<_>>()
        };
        let prev: Vec<Arc<Pdu>> = prev_events.iter().map(|id| self.events[id].clone()).collect();
        let is_create = prev_events.is_empty();
        self.clock += 1;
        let context = EventContext {
            rules: self.rules,
            room_id: self.room_id.as_deref().filter(|_| !is_create || self.room_id.is_some()),
            prev_events: &references(&prev),
            auth_events: &references(&auth_events),
            depth: next_depth(prev.iter().map(|pdu| pdu.depth()).max().unwrap_or(0)),
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::try_from(self.clock).unwrap()),
            key: &self.key,
        };
        let pdu = build(template, &context).unwrap();
        let is_rejected = check_auth_events(&pdu, self.fetch()).is_err() || !self.is_allowed(&pdu, before);
        Arc::new(pdu.with_rejected(is_rejected))
    }

    /// Makes an event behind some others, whether or not it is allowed there.
    pub fn add(&mut self, prev_events: &[OwnedEventId], template: EventTemplate) -> OwnedEventId {
        let before = self.resolve(prev_events);
        let pdu = self.build(prev_events, template, &before);
        let event_id = pdu.event_id().clone();
        let mut after = before.clone();
        if pdu.is_rejected() {
            self.rejected.insert(event_id.clone());
        } else if let Some(key) = pdu.state_map_key() {
            after.insert(key, event_id.clone());
        }
        self.before.insert(event_id.clone(), before);
        self.after.insert(event_id.clone(), after);
        self.events.insert(event_id.clone(), pdu);
        self.order.push(event_id.clone());
        event_id
    }

    pub fn state(
        &mut self,
        prev_events: &[OwnedEventId],
        sender: &str,
        event_type: &str,
        state_key: &str,
        content: Value,
    ) -> OwnedEventId {
        let template = EventTemplate::state(user(sender), event_type.into(), state_key, raw(&content));
        self.add(prev_events, template)
    }

    /// A state event behind the last event.
    pub fn next_state(&mut self, sender: &str, event_type: &str, key: &str, content: Value) -> OwnedEventId {
        let last: Vec<OwnedEventId> = self.order.last().cloned().into_iter().collect();
        self.state(&last, sender, event_type, key, content)
    }

    pub fn message(&mut self, prev_events: &[OwnedEventId], sender: &str, body: &str) -> OwnedEventId {
        let content = raw(&json!({ "msgtype": "m.text", "body": body }));
        let template = EventTemplate::message(user(sender), "m.room.message".into(), content);
        self.add(prev_events, template)
    }

    /// An event as it arrives.
    pub fn received(&self, event_id: &EventId) -> ReceivedPdu {
        ReceivedPdu { pdu: Pdu::parse(self.events[event_id].json(), self.rules).unwrap(), is_redacted: false }
    }

    /// What `send_join` answers to Alice's join.
    pub fn join_answer(&self) -> JoinAnswer {
        let join = &self.order[self.alices_join];
        let state: Vec<OwnedEventId> = self.before[join].values().cloned().collect();
        let chain = auth_chain(state.iter().cloned(), self.fetch());
        JoinAnswer {
            room_version: self.version.clone(),
            event: self.received(join),
            state: state.iter().map(|id| self.received(id)).collect(),
            auth_chain: chain.iter().map(|id| self.received(id)).collect(),
        }
    }

    pub fn withhold(&self, event_id: &OwnedEventId) {
        self.withheld.lock().unwrap().insert(event_id.clone());
    }

    fn give<'a>(&self, ids: impl IntoIterator<Item = &'a OwnedEventId>) -> Vec<ReceivedPdu> {
        let withheld = self.withheld.lock().unwrap();
        let has = |id: &&OwnedEventId| self.events.contains_key(*id) && !withheld.contains(*id);
        ids.into_iter().filter(has).map(|id| self.received(id)).collect()
    }
}

impl EventSource for RemoteRoom {
    fn missing_events<'a>(
        &'a self,
        _: &'a RoomId,
        earliest: &'a [OwnedEventId],
        latest: &'a [OwnedEventId],
        limit: usize,
    ) -> Fetching<'a, Vec<ReceivedPdu>> {
        let mut found: Vec<OwnedEventId> = Vec::new();
        let mut to_visit: Vec<OwnedEventId> = latest.to_vec();
        while found.len() < limit && !to_visit.is_empty() {
            let id = to_visit.remove(0);
            let Some(pdu) = self.events.get(&id) else { continue };
            for prev in pdu.prev_events() {
                if !earliest.contains(prev) && !found.contains(prev) && found.len() < limit {
                    found.push(prev.clone());
                    to_visit.push(prev.clone());
                }
            }
        }
        let given = self.give(&found);
        Box::pin(async move { Ok(given) })
    }

    fn state_ids<'a>(&'a self, _: &'a RoomId, event_id: &'a OwnedEventId) -> Fetching<'a, StateIds> {
        let state: Option<Vec<OwnedEventId>> =
            self.before.get(event_id).map(|state| state.values().cloned().collect());
        let answer = state.ok_or_else(|| SourceError("no such event".to_owned())).map(|state| StateIds {
            auth_chain: auth_chain(state.iter().cloned(), self.fetch()).iter().cloned().collect(),
            state,
        });
        Box::pin(async move { answer })
    }

    fn events<'a>(&'a self, _: &'a RoomId, ids: &'a [OwnedEventId]) -> Fetching<'a, Vec<ReceivedPdu>> {
        let given = self.give(ids);
        Box::pin(async move { Ok(given) })
    }

    fn auth_chain<'a>(&'a self, _: &'a RoomId, event_id: &'a OwnedEventId) -> Fetching<'a, Vec<ReceivedPdu>> {
        let chain = auth_chain([event_id.clone()], self.fetch());
        let given = self.give(chain.iter());
        Box::pin(async move { Ok(given) })
    }
}

/// A server that sees the events of a [`RemoteRoom`] one by one: what the engine should make of them.
pub struct Reference<'a> {
    room: &'a RemoteRoom,
    pub here: HashSet<OwnedEventId>,
    accepted: Vec<OwnedEventId>,
}

impl<'a> Reference<'a> {
    /// After Alice's join.
    pub fn new(room: &'a RemoteRoom) -> Self {
        let here = room.order[..5].iter().cloned().collect();
        Self { room, here, accepted: vec![room.order[4].clone()] }
    }

    /// Takes an event in, and before it all that it builds on, older events first.
    pub fn receive(&mut self, event_id: &OwnedEventId) {
        let mut new: Vec<OwnedEventId> = Vec::new();
        let mut to_visit = vec![event_id.clone()];
        while let Some(id) = to_visit.pop() {
            if !self.here.contains(&id) && !new.contains(&id) {
                to_visit.extend(self.room.events[&id].prev_events().iter().cloned());
                new.push(id);
            }
        }
        // Soft failures depend on the order.
        let age = |id: &OwnedEventId| {
            let pdu = &self.room.events[id];
            (pdu.depth(), pdu.origin_server_ts(), id.clone())
        };
        new.sort_by_key(age);
        for id in new {
            self.take_in(&id);
        }
    }

    fn take_in(&mut self, event_id: &OwnedEventId) {
        self.here.insert(event_id.clone());
        let is_rejected = self.room.rejected.contains(event_id);
        if !is_rejected && self.room.is_allowed(&self.room.events[event_id], &self.current()) {
            self.accepted.push(event_id.clone());
        }
    }

    /// The accepted events that no accepted event comes after.
    pub fn heads(&self) -> Vec<OwnedEventId> {
        let mut behind: HashSet<OwnedEventId> = HashSet::new();
        let mut to_visit: Vec<OwnedEventId> = self.accepted.clone();
        while let Some(id) = to_visit.pop() {
            for prev in self.room.events[&id].prev_events() {
                if behind.insert(prev.clone()) {
                    to_visit.push(prev.clone());
                }
            }
        }
        self.accepted.iter().filter(|id| !behind.contains(*id)).cloned().collect()
    }

    pub fn current(&self) -> State {
        self.room.resolve(&self.heads())
    }
}

/// A state by the names of its keys, to be compared and printed.
pub type Named = BTreeMap<String, OwnedEventId>;

pub fn named(state: &State) -> Named {
    state.iter().map(|((event_type, key), id)| (format!("{event_type} {key}"), id.clone())).collect()
}

impl World {
    /// A world whose Alice has joined a remote room.
    pub async fn join_remote(&self, room: &RemoteRoom) {
        self.rooms.accept_join(room.join_answer()).await.unwrap();
    }

    /// The current state of a room in the database.
    pub async fn stored_state(&self, room_id: &RoomId) -> Named {
        const SQL: &str = "
            SELECT t.value || ' ' || k.value, e.event_id
              FROM room_state s JOIN rooms r USING (room_nid) JOIN events e USING (room_nid, event_nid)
              JOIN strings t ON t.string_id = s.type_sid JOIN strings k ON k.string_id = s.key_sid
             WHERE r.room_id = $1";
        self.named(SQL, room_id.as_str()).await
    }

    /// The state before an event as the database tells it.
    pub async fn stored_state_before(&self, event_id: &EventId) -> Named {
        const SQL: &str = "
            WITH e AS (
                SELECT room_nid, coalesce(state_base, pos - 1) AS base, state_delta FROM events WHERE event_id = $1),
            mainline AS (
                SELECT s.type_sid, s.key_sid, s.event_nid FROM room_state s JOIN e USING (room_nid) WHERE since <= base
                 UNION ALL
                SELECT s.type_sid, s.key_sid, s.event_nid FROM room_state_past s JOIN e USING (room_nid)
                 WHERE since <= base AND until > base),
            delta AS (
                SELECT unnest(type_sids) AS type_sid, unnest(key_sids) AS key_sid, unnest(event_nids) AS event_nid
                  FROM state_deltas JOIN e USING (room_nid, state_delta)),
            held AS (
                SELECT type_sid, key_sid, coalesce(d.event_nid, m.event_nid) AS event_nid
                  FROM mainline m FULL JOIN delta d USING (type_sid, key_sid))
            SELECT t.value || ' ' || k.value, n.event_id
              FROM held CROSS JOIN e JOIN events n ON n.room_nid = e.room_nid AND n.event_nid = held.event_nid
              JOIN strings t ON t.string_id = held.type_sid JOIN strings k ON k.string_id = held.key_sid";
        self.named(SQL, event_id.as_str()).await
    }

    async fn named(&self, sql: &str, parameter: &str) -> Named {
        let client = self.database.get().await.unwrap();
        let rows = client.query(sql, &[&parameter]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get::<_, String>(1).try_into().unwrap())).collect()
    }
}
