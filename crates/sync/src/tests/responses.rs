//! What the sections of an answer say of rooms.

use myelin_rooms::{MembershipAction, RedactEvent};
use ruma::{OwnedEventId, RoomId};
use serde_json::{Map, Value, json};

use super::world::{AMY, BOB, CAS, World, event_ids, filter_of, next_batch, user};
use crate::{SyncOptions, SyncRequest};

fn joined<'a>(answer: &'a Value, room_id: &RoomId) -> &'a Value {
    &answer["rooms"]["join"][room_id.as_str()]
}

fn timeline<'a>(answer: &'a Value, room_id: &RoomId) -> Vec<&'a str> {
    event_ids(&joined(answer, room_id)["timeline"]["events"])
}

/// The types and keys of a list of state events.
fn keys(events: &Value) -> Vec<(&str, &str)> {
    let mut keys: Vec<(&str, &str)> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["type"].as_str().unwrap(), event["state_key"].as_str().unwrap()))
        .collect();
    keys.sort_unstable();
    keys
}

fn ids(events: &[OwnedEventId]) -> Vec<&str> {
    events.iter().map(|event_id| event_id.as_str()).collect()
}

#[tokio::test]
async fn an_initial_sync_has_all_that_a_client_needs_of_a_room() {
    let world = World::new().await;
    let (room_id, _) = world.room_of_two().await;
    let sent = [world.say(AMY, &room_id, "one").await, world.say(BOB, &room_id, "two").await];
    let answer = world.sync_filtered(BOB, None, json!({"room": {"timeline": {"limit": 2}}})).await;
    let room = joined(&answer, &room_id);
    assert_eq!(event_ids(&room["timeline"]["events"]), ids(&sent));
    assert_eq!(room["timeline"]["limited"], true);
    assert!(room["timeline"]["prev_batch"].as_str().unwrap().starts_with('t'));
    let state = keys(&room["state"]["events"]);
    for key in
        [("m.room.create", ""), ("m.room.member", AMY), ("m.room.member", BOB), ("m.room.join_rules", "")]
    {
        assert!(state.contains(&key), "{key:?} is not in {state:?}");
    }
    assert_eq!(
        room["summary"],
        json!({"m.heroes": [AMY], "m.joined_member_count": 2, "m.invited_member_count": 0})
    );
    assert_eq!(room["unread_notifications"], json!({"highlight_count": 0, "notification_count": 1}));
    assert_eq!(answer["rooms"]["leave"], json!({}));
}

#[tokio::test]
async fn heroes_are_those_who_are_there_and_else_those_who_were() {
    for few_members in [0, 32] {
        check_heroes(&World::with_options(SyncOptions { few_members, ..SyncOptions::default() }).await).await;
    }
}

async fn check_heroes(world: &World) {
    let (room_id, _) = world.room_of_two().await;
    let lazy = json!({"room": {"state": {"lazy_load_members": true}}});
    // Asked twice: what the first answer read is kept for the second.
    let heroes = async |expected: Value| {
        for _ in 0..2 {
            let answer = world.sync_filtered(BOB, None, lazy.clone()).await;
            assert_eq!(joined(&answer, &room_id)["summary"]["m.heroes"], expected);
        }
    };
    heroes(json!([AMY])).await;
    let answer = world.sync_filtered(AMY, None, lazy.clone()).await;
    assert_eq!(joined(&answer, &room_id)["summary"]["m.heroes"], json!([BOB]), "nobody is their own hero");
    world.invite(AMY, &room_id, CAS).await;
    heroes(json!([AMY, CAS])).await;
    world.leave(AMY, &room_id).await;
    heroes(json!([CAS])).await;
    world.leave(CAS, &room_id).await;
    heroes(json!([AMY, CAS])).await;
}

#[tokio::test]
async fn an_incremental_sync_has_what_is_new_and_no_more() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let quiet = world.room(BOB).await;
    let since = next_batch(&world.sync(World::request(BOB, Some(&since))).await).to_owned();
    let sent = world.say(AMY, &room_id, "hi").await;
    let answer = world.sync(World::request(BOB, Some(&since))).await;
    assert_eq!(timeline(&answer, &room_id), [sent.as_str()]);
    assert_eq!(joined(&answer, &room_id)["timeline"]["limited"], false);
    assert_eq!(joined(&answer, &room_id)["state"]["events"], json!([]));
    assert_eq!(*joined(&answer, &quiet), Value::Null);
    let answer = world.sync(World::request(BOB, Some(next_batch(&answer)))).await;
    assert_eq!(answer["rooms"]["join"], json!({}));
}

#[tokio::test]
async fn a_gap_is_limited_and_its_state_is_told() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let topic = world.set(AMY, &room_id, "m.room.topic", "", json!({"topic": "x"})).await;
    let mut sent = Vec::new();
    for body in ["1", "2", "3"] {
        sent.push(world.say(AMY, &room_id, body).await);
    }
    for sync in [world.sync.clone(), world.second_engine()] {
        let request = SyncRequest {
            filter: filter_of(json!({"room": {"timeline": {"limit": 2}}})),
            ..World::request(BOB, Some(&since))
        };
        let answer = sync.sync(request, std::future::pending()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(timeline(&answer, &room_id), ids(&sent[1..]));
        assert_eq!(joined(&answer, &room_id)["timeline"]["limited"], true);
        assert_eq!(event_ids(&joined(&answer, &room_id)["state"]["events"]), [topic.as_str()]);
    }
}

#[tokio::test]
async fn only_the_device_that_sent_an_event_is_told_its_transaction_id() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    world.say(BOB, &room_id, "txn").await;
    let check = async |user_id: &str, device_id: &str, expected: Value| {
        for sync in [world.sync.clone(), world.second_engine()] {
            let request =
                SyncRequest { device_id: Some(device_id.into()), ..World::request(user_id, Some(&since)) };
            let answer = sync.sync(request, std::future::pending()).await.unwrap();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let event = &joined(&answer, &room_id)["timeline"]["events"][0];
            assert_eq!(event["unsigned"]["transaction_id"], expected, "{user_id} {device_id}");
            assert_eq!(event["unsigned"]["membership"], "join");
        }
    };
    check(BOB, "DEVICE", json!("txn")).await;
    check(BOB, "OTHER", Value::Null).await;
    check(AMY, "DEVICE", Value::Null).await;
}

#[tokio::test]
async fn a_state_event_says_what_it_replaced() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let old = world.set(AMY, &room_id, "m.room.topic", "", json!({"topic": "old"})).await;
    world.set(AMY, &room_id, "m.room.topic", "", json!({"topic": "new"})).await;
    let answer = world.sync(World::request(BOB, Some(&since))).await;
    let event = &joined(&answer, &room_id)["timeline"]["events"][1];
    assert_eq!(event["unsigned"]["prev_content"], json!({"topic": "old"}));
    assert_eq!(event["unsigned"]["replaces_state"], old.as_str());
    assert_eq!(event["unsigned"]["prev_sender"], AMY);
}

async fn redact(world: &World, room_id: &RoomId, event_id: &OwnedEventId) -> OwnedEventId {
    let redaction = RedactEvent {
        sender: user(AMY),
        device_id: None,
        room_id: room_id.to_owned(),
        event_id: event_id.clone(),
        reason: None,
        content: Map::new(),
        txn_id: None,
        timestamp: None,
    };
    world.rooms.redact(redaction).await.unwrap()
}

#[tokio::test]
async fn what_was_redacted_is_shown_without_its_content() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let sent = world.say(AMY, &room_id, "secret").await;
    let redaction = redact(&world, &room_id, &sent).await;
    for sync in [world.sync.clone(), world.second_engine()] {
        let answer = sync.sync(World::request(BOB, Some(&since)), std::future::pending()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(timeline(&answer, &room_id), [sent.as_str(), redaction.as_str()]);
        let event = &joined(&answer, &room_id)["timeline"]["events"][0];
        assert_eq!(event["content"], json!({}));
        assert_eq!(event["unsigned"]["redacted_because"]["event_id"], redaction.as_str());
    }
}

#[tokio::test]
async fn a_redacted_state_event_is_without_its_content_also_where_it_was_replaced() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let old = world.set(AMY, &room_id, "m.room.topic", "", json!({"topic": "secret"})).await;
    world.set(AMY, &room_id, "m.room.topic", "", json!({"topic": "new"})).await;
    redact(&world, &room_id, &old).await;
    for sync in [world.sync.clone(), world.second_engine()] {
        let answer = sync.sync(World::request(BOB, Some(&since)), std::future::pending()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let events = &joined(&answer, &room_id)["timeline"]["events"];
        assert_eq!(events[0]["content"], json!({}));
        assert_eq!(events[1]["content"], json!({"topic": "new"}));
        assert_eq!(events[1]["unsigned"]["prev_content"], json!({}));
    }
}

#[tokio::test]
async fn children_of_events_are_bundled() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    *world.sources.relations.lock() = r#"{"m.thread":{"count":1}}"#.to_owned();
    let root = world.say(AMY, &room_id, "root").await;
    world.say_in(AMY, &room_id, &root, "answer").await;
    for sync in [world.sync.clone(), world.second_engine()] {
        let answer = sync.sync(World::request(BOB, Some(&since)), std::future::pending()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let events = &joined(&answer, &room_id)["timeline"]["events"];
        assert_eq!(events[0]["unsigned"]["m.relations"], json!({"m.thread": {"count": 1}}));
        assert_eq!(events[1]["unsigned"]["m.relations"], Value::Null);
    }
}

#[tokio::test]
async fn lazy_loading_tells_of_each_member_once_and_when_needed() {
    for few_members in [0, 32] {
        check_lazy_members(&World::with_options(SyncOptions { few_members, ..SyncOptions::default() }).await)
            .await;
    }
}

async fn check_lazy_members(world: &World) {
    let (room_id, _) = world.room_of_two().await;
    world.join(CAS, &room_id).await;
    world.set(AMY, &room_id, "m.room.name", "", json!({"name": "so that nobody is a hero"})).await;
    world.say(BOB, &room_id, "1").await;
    let filter = |redundant: bool| {
        json!({"room": {
            "timeline": {"limit": 1},
            "state": {"lazy_load_members": true, "include_redundant_members": redundant},
        }})
    };
    let members = |answer: &Value| {
        let state = &joined(answer, &room_id)["state"]["events"];
        let keys = keys(state).into_iter().filter(|(event_type, _)| *event_type == "m.room.member");
        keys.map(|(_, user_id)| user_id.to_owned()).collect::<Vec<_>>()
    };
    let first = world.sync_filtered(BOB, None, filter(false)).await;
    assert_eq!(members(&first), [BOB], "the sender, and the user");
    world.say(CAS, &room_id, "2").await;
    let second = world.sync_filtered(BOB, Some(next_batch(&first)), filter(false)).await;
    assert_eq!(members(&second), [CAS]);
    world.say(CAS, &room_id, "3").await;
    let third = world.sync_filtered(BOB, Some(next_batch(&second)), filter(false)).await;
    assert_eq!(members(&third), [] as [&str; 0]);
    let again = world.sync_filtered(BOB, Some(next_batch(&second)), filter(true)).await;
    assert_eq!(members(&again), [CAS], "who wants it is told again");
    let lost = world.sync_filtered(BOB, Some(next_batch(&first)), filter(false)).await;
    assert_eq!(members(&lost), [CAS], "an answer that got lost is given again");
}

#[tokio::test]
async fn the_state_after_the_timeline_is_told_to_who_asks() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let topic = world.set(AMY, &room_id, "m.room.topic", "", json!({"topic": "x"})).await;
    let request = SyncRequest { use_state_after: true, ..World::request(BOB, Some(&since)) };
    let answer = world.sync(request).await;
    let room = joined(&answer, &room_id);
    assert_eq!(room["state"], Value::Null);
    assert_eq!(event_ids(&room["state_after"]["events"]), [topic.as_str()]);
    assert_eq!(event_ids(&room["timeline"]["events"]), [topic.as_str()]);
}

#[tokio::test]
async fn a_room_that_is_left_is_told_once_and_up_to_the_leaving() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let said = world.say(AMY, &room_id, "bye").await;
    let left = world.leave(BOB, &room_id).await;
    world.say(AMY, &room_id, "not for bob").await;
    let answer = world.sync(World::request(BOB, Some(&since))).await;
    let room = &answer["rooms"]["leave"][room_id.as_str()];
    assert_eq!(event_ids(&room["timeline"]["events"]), [said.as_str(), left.as_str()]);
    assert_eq!(answer["rooms"]["join"], json!({}));
    let answer = world.sync(World::request(BOB, Some(next_batch(&answer)))).await;
    assert_eq!(answer["rooms"]["leave"], json!({}));
}

#[tokio::test]
async fn rooms_that_were_left_are_in_an_initial_sync_for_who_asks_until_forgotten() {
    let world = World::new().await;
    let (room_id, _) = world.room_of_two().await;
    let left = world.leave(BOB, &room_id).await;
    world.set(AMY, &room_id, "m.room.topic", "", json!({"topic": "later"})).await;
    let archived = json!({"room": {"include_leave": true}});
    let leave = async |filter: Value| world.sync_filtered(BOB, None, filter).await["rooms"]["leave"].clone();
    assert_eq!(leave(json!({})).await, json!({}));
    let rooms = leave(archived.clone()).await;
    let room = &rooms[room_id.as_str()];
    assert_eq!(event_ids(&room["timeline"]["events"]).last(), Some(&left.as_str()));
    let state = keys(&room["state"]["events"]);
    assert!(!state.contains(&("m.room.topic", "")), "{state:?} is what was there");
    let rooms = leave(json!({"room": {"include_leave": true, "timeline": {"limit": 0}}})).await;
    assert!(event_ids(&rooms[room_id.as_str()]["state"]["events"]).contains(&left.as_str()), "{rooms}");
    world.rooms.forget(&user(BOB), &room_id).await.unwrap();
    assert_eq!(leave(archived).await, json!({}));
}

#[tokio::test]
async fn who_declines_an_invite_learns_nothing_of_the_room() {
    let world = World::new().await;
    let room_id = world.room(AMY).await;
    let before = world.sync(World::request(BOB, None)).await;
    world.invite(AMY, &room_id, BOB).await;
    let answer = world.sync(World::request(BOB, None)).await;
    let state = keys(&answer["rooms"]["invite"][room_id.as_str()]["invite_state"]["events"]);
    assert!(state.contains(&("m.room.member", BOB)) && state.contains(&("m.room.create", "")), "{state:?}");
    let left = world.leave(BOB, &room_id).await;
    let answer = world.sync(World::request(BOB, Some(next_batch(&answer)))).await;
    let room = &answer["rooms"]["leave"][room_id.as_str()];
    assert_eq!(room["state"]["events"], json!([]));
    assert_eq!(event_ids(&room["timeline"]["events"]), [left.as_str()], "that it is done, and nothing else");
    // A device that did not hear of the invite need not hear of that, unless it wants to know all.
    let request = World::request(BOB, Some(next_batch(&before)));
    assert_eq!(world.sync(request.clone()).await["rooms"]["leave"], json!({}));
    let answer = world.sync(SyncRequest { full_state: true, ..request }).await;
    assert!(answer["rooms"]["leave"][room_id.as_str()].is_object(), "{answer}");
}

#[tokio::test]
async fn a_ban_is_told_with_what_came_before_it() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let banned = world.change(AMY, &room_id, MembershipAction::Ban, BOB).await.unwrap();
    let answer = world.sync(World::request(BOB, Some(&since))).await;
    let events = &answer["rooms"]["leave"][room_id.as_str()]["timeline"]["events"];
    assert_eq!(event_ids(events), [banned.as_str()]);
}

#[tokio::test]
async fn who_joins_sees_the_past_only_if_the_room_lets_them() {
    let world = World::new().await;
    let check = async |visibility: &str, expected: usize| {
        let room_id = world.room(AMY).await;
        let content = json!({"history_visibility": visibility});
        world.set(AMY, &room_id, "m.room.history_visibility", "", content).await;
        world.say(AMY, &room_id, "before the invite").await;
        world.invite(AMY, &room_id, BOB).await;
        world.say(AMY, &room_id, "before the join").await;
        world.join(BOB, &room_id).await;
        world.say(AMY, &room_id, "after").await;
        for sync in [world.sync.clone(), world.second_engine()] {
            let answer = sync.sync(World::request(BOB, None), std::future::pending()).await.unwrap();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let events = joined(&answer, &room_id)["timeline"]["events"].as_array().unwrap();
            let messages = events.iter().filter(|event| event["type"] == "m.room.message");
            assert_eq!(messages.count(), expected, "{visibility}");
        }
        world.leave(BOB, &room_id).await;
    };
    check("world_readable", 3).await;
    check("shared", 3).await;
    check("invited", 2).await;
    check("joined", 1).await;
}

#[tokio::test]
async fn filters_choose_rooms_events_and_fields() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let other = world.room(BOB).await;
    let first = world.say(AMY, &room_id, "one").await;
    let topic = world.set(AMY, &room_id, "m.room.topic", "", json!({"topic": "x"})).await;
    let last = world.say(BOB, &room_id, "two").await;
    let check = async |filter: Value, expected: &[&OwnedEventId]| {
        let answer = world.sync_filtered(BOB, Some(&since), filter.clone()).await;
        let expected: Vec<&str> = expected.iter().map(|event_id| event_id.as_str()).collect();
        assert_eq!(timeline(&answer, &room_id), expected, "{filter}");
        answer
    };
    check(json!({"room": {"timeline": {"types": ["m.room.message"]}}}), &[&first, &last]).await;
    check(json!({"room": {"timeline": {"not_types": ["m.room.message"]}}}), &[&topic]).await;
    check(json!({"room": {"timeline": {"not_senders": [AMY]}}}), &[&last]).await;
    let answer = check(json!({"room": {"not_rooms": [other]}}), &[&first, &topic, &last]).await;
    assert_eq!(*joined(&answer, &other), Value::Null);
    let answer = check(json!({"event_fields": ["event_id", "content.body"]}), &[&first, &topic, &last]).await;
    let event = &joined(&answer, &room_id)["timeline"]["events"][0];
    assert_eq!(*event, json!({"event_id": first, "content": {"body": "one"}}));
    let answer = world.sync_filtered(BOB, Some(&since), json!({"event_format": "federation"})).await;
    let event = &joined(&answer, &room_id)["timeline"]["events"][0];
    assert!(event["prev_events"].is_array(), "{event}");
}

#[tokio::test]
async fn a_state_event_that_a_filter_hides_from_the_timeline_is_in_the_state() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let topic = world.set(AMY, &room_id, "m.room.topic", "", json!({"topic": "x"})).await;
    world.say(AMY, &room_id, "hi").await;
    let filter = json!({"room": {"timeline": {"types": ["m.room.message"]}}});
    let answer = world.sync_filtered(BOB, Some(&since), filter).await;
    assert_eq!(event_ids(&joined(&answer, &room_id)["state"]["events"]), [topic.as_str()]);
}

#[tokio::test]
async fn full_state_brings_all_of_it() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let answer = world.sync(SyncRequest { full_state: true, ..World::request(BOB, Some(&since)) }).await;
    let state = keys(&joined(&answer, &room_id)["state"]["events"]);
    assert!(state.contains(&("m.room.create", "")) && state.contains(&("m.room.member", AMY)), "{state:?}");
    assert_eq!(timeline(&answer, &room_id), [] as [&str; 0]);
}

#[tokio::test]
async fn a_token_survives_the_end_of_the_process() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let sent = world.say(AMY, &room_id, "hi").await;
    let world = world.restart().await;
    let later = world.say(AMY, &room_id, "again").await;
    let answer = world.sync(World::request(BOB, Some(&since))).await;
    assert_eq!(timeline(&answer, &room_id), [sent.as_str(), later.as_str()]);
    assert_eq!(joined(&answer, &room_id)["timeline"]["limited"], false);
}
