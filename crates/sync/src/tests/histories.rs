//! Random histories: what a client puts together from its syncs is what happened.

use std::collections::{BTreeMap, HashMap, HashSet};

use myelin_rooms::MembershipAction;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use ruma::{OwnedRoomId, RoomId};
use serde_json::{Value, json};

use super::{
    truth::Truth,
    world::{AMY, BOB, CAS, World, event_ids, filter_of, next_batch},
};
use crate::{SyncOptions, SyncRequest};

const USERS: [&str; 3] = [AMY, BOB, CAS];
const STEPS: usize = 80;

/// A client that keeps what it is told.
#[derive(Default)]
struct Client {
    since: Option<String>,
    use_state_after: bool,
    lazy: bool,
    rooms: HashMap<String, ClientRoom>,
}

/// A room as a client knows it.
#[derive(Default)]
struct ClientRoom {
    timeline: Vec<String>,
    state: BTreeMap<(String, String), String>,
    /// The events that syncs brought, not filled gaps.
    told: HashSet<String>,
    counts: Option<(u64, u64)>,
    is_in: bool,
}

impl Client {
    fn take(&mut self, answer: &Value, world: &World) {
        for section in ["join", "leave"] {
            for (room_id, told) in answer["rooms"][section].as_object().unwrap() {
                let room = self.rooms.entry(room_id.clone()).or_default();
                // Who comes back begins anew: what happened in between may not have been for their eyes.
                if section == "join" && !room.is_in {
                    *room = ClientRoom::default();
                }
                room.is_in = section == "join";
                let room_id = <&RoomId>::try_from(room_id.as_str()).unwrap();
                world.truth(room_id, |truth| room.take(told, truth, self.use_state_after));
            }
        }
        self.since = Some(next_batch(answer).to_owned());
    }
}

impl ClientRoom {
    fn take(&mut self, told: &Value, truth: &Truth, use_state_after: bool) {
        let events = &told["timeline"]["events"];
        if told["timeline"]["limited"].as_bool().unwrap() {
            // What a client would ask of /messages: everything up to prev_batch.
            let prev_batch = told["timeline"]["prev_batch"].as_str().unwrap();
            let end: i64 = prev_batch.strip_prefix('t').unwrap().parse().unwrap();
            let known = self.timeline.len();
            let older = truth.events.iter().filter(|(pos, _)| *pos <= end);
            let older: Vec<String> = older.map(|(_, pdu)| pdu.event_id().to_string()).collect();
            assert_eq!(self.timeline, older[..known.min(older.len())], "what was told before is the past");
            self.timeline = older;
        }
        let state = if use_state_after { &told["state_after"] } else { &told["state"] };
        let state = state["events"].as_array().unwrap();
        let timeline = events.as_array().unwrap();
        for event in state.iter().chain(timeline.iter().filter(|_| !use_state_after)) {
            if let Some(state_key) = event["state_key"].as_str() {
                let key = (event["type"].as_str().unwrap().to_owned(), state_key.to_owned());
                self.state.insert(key, event["event_id"].as_str().unwrap().to_owned());
            }
        }
        self.told.extend(event_ids(events).into_iter().map(str::to_owned));
        self.timeline.extend(event_ids(events).into_iter().map(str::to_owned));
        if let Some(joined) = told["summary"]["m.joined_member_count"].as_u64() {
            self.counts = Some((joined, told["summary"]["m.invited_member_count"].as_u64().unwrap()));
        }
    }
}

/// What a client ought to know of a room.
fn check(user_id: &str, client: &ClientRoom, truth: &Truth, lazy: bool, context: &str) {
    if truth.membership(user_id) != "join" {
        return;
    }
    let expected = truth.event_ids();
    assert!(client.is_in, "{context}: the room is not told");
    let from = expected.len().saturating_sub(client.timeline.len());
    assert_eq!(client.timeline, expected[from..], "{context}: timeline");
    let current: BTreeMap<_, _> = truth
        .state
        .iter()
        .filter(|((event_type, _), _)| !lazy || event_type != "m.room.member")
        .map(|(key, event)| (key.clone(), event.event_id().to_string()))
        .collect();
    let mut known = client.state.clone();
    known.retain(|(event_type, _), _| !lazy || event_type != "m.room.member");
    assert_eq!(known, current, "{context}: state");
    let count = |membership: &str| {
        let events = truth.state.iter().filter(|((event_type, _), _)| event_type == "m.room.member");
        events.filter(|(_, event)| event.content().contains(membership)).count() as u64
    };
    assert_eq!(client.counts, Some((count("join"), count("invite"))), "{context}: members");
    if lazy {
        for (_, event) in &truth.events[from..] {
            let key = ("m.room.member".to_owned(), event.sender().to_string());
            let current = truth.state.get(&key).map(|event| event.event_id().to_string());
            let was_told = client.told.contains(event.event_id().as_str());
            assert!(
                !was_told || client.state.get(&key) == current.as_ref(),
                "{context}: {key:?} sent something"
            );
        }
    }
}

/// Something that somebody may do.
async fn act(world: &World, rooms: &[OwnedRoomId], rng: &mut StdRng) {
    let room_id = &rooms[rng.random_range(0..rooms.len())];
    let user_id = USERS[rng.random_range(0..USERS.len())];
    let membership = |user_id: &str| world.truth(room_id, |truth| truth.membership(user_id));
    let is_in = membership(user_id) == "join";
    let member = USERS.into_iter().find(|user_id| membership(user_id) == "join");
    match rng.random_range(0..11) {
        0..=4 if is_in => _ = world.say(user_id, room_id, &rng.random::<u64>().to_string()).await,
        5 if user_id == AMY && is_in => {
            let content = json!({"topic": rng.random::<u32>().to_string()});
            world.set(user_id, room_id, "m.room.topic", "", content).await;
        }
        6 if is_in => {
            let content = json!({"membership": "join", "displayname": rng.random::<u32>().to_string()});
            world.set(user_id, room_id, "m.room.member", user_id, content).await;
        }
        // Amy stays, so that there is always somebody who may do something.
        7 if is_in && user_id != AMY => _ = world.leave(user_id, room_id).await,
        8 if !is_in => {
            if let Some(member) = member {
                // Who is invited already can be invited again; who has the right is Amy alone.
                _ = world.change(member, room_id, MembershipAction::Invite, user_id).await;
            }
        }
        9 if !is_in => _ = world.join(user_id, room_id).await,
        10 => {
            let nid = world.nid(room_id).0;
            let typing = is_in.then_some(std::time::Duration::from_secs(5));
            world.typing.set(nid, &super::world::user(user_id), typing);
        }
        _ => {}
    }
}

async fn run(seed: u64, options: SyncOptions) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::with_options(options).await;
    let mut rooms = Vec::new();
    for _ in 0..3 {
        rooms.push(world.room(AMY).await);
    }
    let mut clients: Vec<(usize, Client)> = (0..USERS.len())
        .flat_map(|user| [(user, false, false), (user, true, false), (user, false, true)])
        .map(|(user, use_state_after, lazy)| (user, Client { use_state_after, lazy, ..Client::default() }))
        .collect();
    for step in 0..STEPS {
        for _ in 0..rng.random_range(1..4) {
            act(&world, &rooms, &mut rng).await;
        }
        match rng.random_range(0..20) {
            0 => world.sync = world.second_engine(),
            1 => world = world.restart().await,
            _ => {}
        }
        let index = rng.random_range(0..clients.len());
        let (user, client) = &mut clients[index];
        let limit = rng.random_range(1..5);
        let filter =
            json!({"room": {"timeline": {"limit": limit}, "state": {"lazy_load_members": client.lazy}}});
        let answer = world
            .sync(SyncRequest {
                filter: filter_of(filter),
                use_state_after: client.use_state_after,
                device_id: Some(format!("DEVICE{index}").as_str().into()),
                full_state: rng.random_ratio(1, 20),
                ..World::request(USERS[*user], client.since.as_deref())
            })
            .await;
        client.take(&answer, &world);
        for room_id in &rooms {
            let default = ClientRoom::default();
            let known = client.rooms.get(room_id.as_str()).unwrap_or(&default);
            let context = format!("seed {seed}, step {step}, {} in {room_id}", USERS[*user]);
            world.truth(room_id, |truth| check(USERS[*user], known, truth, client.lazy, &context));
        }
    }
}

#[tokio::test]
async fn syncs_put_together_are_what_happened() {
    for seed in 0..12 {
        run(seed, SyncOptions { few_members: few_members(seed), ..SyncOptions::default() }).await;
    }
}

#[tokio::test]
async fn it_is_the_same_when_hardly_anything_is_kept_in_memory() {
    for seed in 100..108 {
        let options = SyncOptions {
            max_cache_bytes: 1000,
            max_users: 1,
            few_members: few_members(seed),
            ..SyncOptions::default()
        };
        run(seed, options).await;
    }
}

/// Rooms have one to three members: all of them few, or all many, or some of each.
fn few_members(seed: u64) -> usize {
    [0, 2, 32][(seed % 3) as usize]
}
