//! Any order in which the events of a room arrive leads to the same state, which is what a slow and straightforward
//! reference says.

use std::collections::HashSet;

use myelin_events::EventTemplate;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use ruma::{OwnedEventId, RoomVersionId};
use serde_json::json;

use crate::{
    remote::{RITA, ROB, RON, Reference, RemoteRoom, named},
    world::{ALICE, World, raw, user},
};

/// One event: who sends what, and behind which of the last events.
#[derive(Clone, Copy, Debug)]
struct Step {
    sender: usize,
    kind: usize,
    target: usize,
    behind: [usize; 2],
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..4_usize, 0..10_usize, 0..4_usize, [0..6_usize, 0..6]);
    let step = step.prop_map(|(sender, kind, target, behind)| Step { sender, kind, target, behind });
    prop::collection::vec(step, 4..24)
}

const USERS: [&str; 4] = [ROB, RITA, RON, ALICE];

fn template(step: Step, number: usize, version: &RoomVersionId) -> EventTemplate {
    let (sender, target) = (USERS[step.sender], USERS[step.target]);
    let member = |membership: &str| ("m.room.member", json!({ "membership": membership }));
    let (state_key, (event_type, content)) = match step.kind {
        0 | 1 => (Some(""), ("m.room.topic", json!({ "topic": number }))),
        2 => (Some(sender), member("join")),
        // The creator stays, to make the last event.
        3 if sender != ROB => (Some(sender), member("leave")),
        4 => (Some(target), member("ban")),
        5 => (Some(target), member("invite")),
        6 => {
            let rule = if number.is_multiple_of(2) { "invite" } else { "public" };
            (Some(""), ("m.room.join_rules", json!({ "join_rule": rule })))
        }
        7 => {
            let mut users = json!({ RITA: 50, RON: if number.is_multiple_of(2) { 0 } else { 50 } });
            if *version != RoomVersionId::V12 {
                users[ROB] = 100.into();
            }
            let levels =
                json!({ "users": users, "events": { "m.room.topic": 0 }, "invite": 0, "kick": number });
            (Some(""), ("m.room.power_levels", levels))
        }
        _ => (None, ("m.room.message", json!({ "msgtype": "m.text", "body": number.to_string() }))),
    };
    let content = raw(&content);
    match state_key {
        Some(state_key) => EventTemplate::state(user(sender), event_type.into(), state_key, content),
        None => EventTemplate::message(user(sender), event_type.into(), content),
    }
}

/// The room that the steps make, ended by an event of its creator behind all ends.
fn room_of(version: RoomVersionId, seed: u64, steps: &[Step]) -> RemoteRoom {
    let mut room = RemoteRoom::new(version.clone(), seed);
    for name in [RITA, RON] {
        room.next_state(name, "m.room.member", name, json!({ "membership": "join" }));
    }
    for (number, step) in steps.iter().enumerate() {
        let candidates = &room.order[4..];
        let behind = |back: usize| candidates[candidates.len() - 1 - back.min(candidates.len() - 1)].clone();
        let mut prev_events = vec![behind(step.behind[0]), behind(step.behind[1])];
        prev_events.sort();
        prev_events.dedup();
        room.add(&prev_events, template(*step, number, &version));
    }
    let behind: HashSet<OwnedEventId> =
        room.events.values().flat_map(|pdu| pdu.prev_events().iter().cloned()).collect();
    let ends: Vec<OwnedEventId> =
        room.order.iter().filter(|id| !behind.contains(*id)).take(20).cloned().collect();
    room.message(&ends, ROB, "the end");
    room
}

/// A permutation by a small generator, so that a failure can be repeated.
fn shuffled(ids: &[OwnedEventId], mut seed: u64) -> Vec<OwnedEventId> {
    let mut ids = ids.to_vec();
    for index in (1..ids.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ids.swap(index, usize::try_from(seed >> 33).unwrap() % (index + 1));
    }
    ids
}

async fn check(worlds: &[World], room: &RemoteRoom, seed: u64) {
    let later = &room.order[5..];
    let orders = [later.to_vec(), shuffled(later, seed), shuffled(later, !seed)];
    for (world, order) in worlds.iter().zip(&orders) {
        world.join_remote(room).await;
        let mut reference = Reference::new(room);
        for event_id in order {
            let arrives = vec![room.received(event_id)];
            world.rooms.receive(room.room_id(), arrives, room).await.unwrap();
            reference.receive(event_id);
            let stored = world.stored_state(room.room_id()).await;
            assert_eq!(stored, named(&reference.current()), "after {event_id}, order {order:?}");
        }
        for event_id in later {
            let stored = world.stored_state_before(event_id).await;
            assert_eq!(stored, named(&room.before[event_id]), "before {event_id}, order {order:?}");
        }
        let end = room.last();
        assert_eq!(world.stored_state(room.room_id()).await, named(&room.after[&end]), "one end for all");
    }
}

#[test]
fn any_order_of_the_same_events_gives_the_state_of_the_reference() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let worlds = runtime.block_on(async { [World::new().await, World::new().await, World::new().await] });
    let seeds = std::cell::Cell::new(0);
    let versions = prop::sample::select(vec![
        RoomVersionId::V1,
        RoomVersionId::V6,
        RoomVersionId::V11,
        RoomVersionId::V12,
    ]);
    let config = Config { cases: 12, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    let rooms = (versions, steps(), any::<u64>());
    let outcome = TestRunner::new(config).run(&rooms, |(version, steps, order)| {
        let seed = seeds.get() + 1;
        seeds.set(seed);
        let room = room_of(version, seed, &steps);
        let check = std::panic::AssertUnwindSafe(|| runtime.block_on(check(&worlds, &room, order)));
        std::panic::catch_unwind(check).map_err(|panic| {
            let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            TestCaseError::fail(message)
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    runtime.block_on(async { drop(worlds) });
}
