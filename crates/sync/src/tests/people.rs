//! What an answer says of users: receipts, counts, account data, messages, keys, presence.

use std::time::Duration;

use myelin_ephemeral::{
    ReceiptKind::{Read, ReadPrivate},
    ReceiptThread::{Main, Thread, Unthreaded},
};
use ruma::{RoomId, presence::PresenceState};
use serde_json::{Value, json};

use super::world::{AMY, BOB, CAS, World, next_batch, user};
use crate::{Sync, SyncRequest};

fn joined<'a>(answer: &'a Value, room_id: &RoomId) -> &'a Value {
    &answer["rooms"]["join"][room_id.as_str()]
}

#[tokio::test]
async fn private_receipts_are_for_the_reader_alone() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let event_id = world.say(AMY, &room_id, "hi").await;
    world.read(BOB, &room_id, &event_id, ReadPrivate, Unthreaded).await;
    world.read(AMY, &room_id, &event_id, Read, Main).await;
    let check = async |user_id: &str, expected: Value| {
        for since in [None, Some(&*since)] {
            let answer = world.sync(World::request(user_id, since)).await;
            let events = &joined(&answer, &room_id)["ephemeral"]["events"];
            assert_eq!(events[0]["content"][event_id.as_str()], expected, "{user_id} {since:?}");
        }
    };
    let public = json!({AMY: {"ts": 7, "thread_id": "main"}});
    check(AMY, json!({"m.read": public})).await;
    check(BOB, json!({"m.read": public, "m.read.private": {BOB: {"ts": 7}}})).await;
}

#[tokio::test]
async fn a_receipt_for_the_same_event_in_two_threads_needs_two_events() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let root = world.say(AMY, &room_id, "root").await;
    world.read(AMY, &room_id, &root, Read, Main).await;
    world.read(AMY, &room_id, &root, Read, Thread(root.clone())).await;
    let answer = world.sync(World::request(BOB, Some(&since))).await;
    let events = joined(&answer, &room_id)["ephemeral"]["events"].as_array().unwrap().clone();
    let mut threads: Vec<&str> = events
        .iter()
        .map(|event| event["content"][root.as_str()]["m.read"][AMY]["thread_id"].as_str().unwrap())
        .collect();
    threads.sort_unstable();
    assert_eq!(threads, [root.as_str(), "main"]);
}

#[tokio::test]
async fn counts_follow_the_receipts_of_the_room_and_of_its_threads() {
    let world = World::new().await;
    let (room_id, _) = world.room_of_two().await;
    let root = world.say(AMY, &room_id, "root").await;
    let first = world.say_in(AMY, &room_id, &root, "1").await;
    let named = world.say_in(AMY, &room_id, &root, BOB).await;
    let last = world.say(AMY, &room_id, "last").await;
    let apart = json!({"room": {"timeline": {"unread_thread_notifications": true}}});
    let check = async |what: &str, main: [u64; 2], thread: Option<[u64; 2]>| {
        let counts = |[highlights, notifications]: [u64; 2]| json!({"highlight_count": highlights, "notification_count": notifications});
        // One that has followed all along, and one that asks the database.
        for sync in [world.sync.clone(), world.second_engine()] {
            let request =
                SyncRequest { filter: super::world::filter_of(apart.clone()), ..World::request(BOB, None) };
            let answer = sync.sync(request, std::future::pending()).await.unwrap();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let room = joined(&answer, &room_id);
            assert_eq!(room["unread_notifications"], counts(main), "{what}");
            let threads = thread.map_or(Value::Null, |thread| json!({root.as_str(): counts(thread)}));
            assert_eq!(room["unread_thread_notifications"], threads, "{what}");
            let request = World::request(BOB, None);
            let answer = sync.sync(request, std::future::pending()).await.unwrap();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let both = [0, 1].map(|index| main[index] + thread.map_or(0, |thread| thread[index]));
            assert_eq!(joined(&answer, &room_id)["unread_notifications"], counts(both), "{what}: together");
        }
    };
    check("nothing is read", [0, 2], Some([1, 2])).await;
    world.read(BOB, &room_id, &root, Read, Main).await;
    check("the root", [0, 1], Some([1, 2])).await;
    world.read(BOB, &room_id, &first, ReadPrivate, Thread(root.clone())).await;
    check("the first of the thread", [0, 1], Some([1, 1])).await;
    world.read(BOB, &room_id, &named, Read, Thread(root.clone())).await;
    check("all of the thread", [0, 1], None).await;
    world.read(BOB, &room_id, &last, Read, Unthreaded).await;
    check("everything", [0, 0], None).await;
    world.say_in(AMY, &room_id, &root, "more").await;
    check("something new", [0, 0], Some([0, 1])).await;
    world.say(BOB, &room_id, "mine").await;
    check("what is one's own never counts", [0, 0], Some([0, 1])).await;
}

#[tokio::test]
async fn counts_are_the_same_however_much_of_the_room_was_read() {
    let world = World::new().await;
    let (room_id, _) = world.room_of_two().await;
    let root = world.say(AMY, &room_id, "root").await;
    let seen = world.say_in(AMY, &room_id, &root, "seen").await;
    world.read(BOB, &room_id, &seen, Read, Thread(root.clone())).await;
    // More than an engine reads at once.
    for number in 0..40 {
        match number % 4 {
            0 => world.say_in(AMY, &room_id, &root, &format!("in the thread {number}")).await,
            1 => world.say(BOB, &room_id, &format!("mine {number}")).await,
            2 => world.say(AMY, &room_id, &format!("{BOB} {number}")).await,
            _ => world.say(AMY, &room_id, &format!("hi {number}")).await,
        };
    }
    let mut engines: Vec<Sync> = [0, 1, 5, 12, 35, 100].iter().map(|_| world.second_engine()).collect();
    engines.push(world.sync.clone());
    for (sync, limit) in engines.into_iter().zip([0, 1, 5, 12, 35, 100, 10]) {
        let timeline = json!({"unread_thread_notifications": true, "limit": limit});
        for _ in 0..2 {
            let filter = super::world::filter_of(json!({"room": {"timeline": timeline}}));
            let request = SyncRequest { filter, ..World::request(BOB, None) };
            let answer = sync.sync(request, std::future::pending()).await.unwrap();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let room = joined(&answer, &room_id);
            let counts = json!({"highlight_count": 10, "notification_count": 21});
            assert_eq!(room["unread_notifications"], counts, "{limit}");
            let counts = json!({"highlight_count": 0, "notification_count": 10});
            assert_eq!(room["unread_thread_notifications"], json!({root.as_str(): counts}), "{limit}");
        }
    }
}

#[tokio::test]
async fn counts_begin_when_the_user_came_whatever_name_they_took_since() {
    let world = World::new().await;
    let (room_id, _) = world.room_of_two().await;
    world.leave(BOB, &room_id).await;
    world.say(AMY, &room_id, "not while Bob was away").await;
    world.join(BOB, &room_id).await;
    world.say(AMY, &room_id, "one").await;
    let content = json!({"membership": "join", "displayname": "Robert"});
    world.set(BOB, &room_id, "m.room.member", BOB, content).await;
    world.say(AMY, &room_id, "two").await;
    for sync in [world.sync.clone(), world.second_engine()] {
        let answer = sync.sync(World::request(BOB, None), std::future::pending()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(joined(&answer, &room_id)["unread_notifications"]["notification_count"], 2);
    }
}

#[tokio::test]
async fn what_is_read_on_another_device_is_told() {
    let world = World::new().await;
    let (room_id, _) = world.room_of_two().await;
    let event_id = world.say(AMY, &room_id, "hi").await;
    let since = world.sync(World::request(BOB, None)).await;
    assert_eq!(joined(&since, &room_id)["unread_notifications"]["notification_count"], 1);
    world.read(BOB, &room_id, &event_id, ReadPrivate, Unthreaded).await;
    let answer = world.sync(World::request(BOB, Some(next_batch(&since)))).await;
    assert_eq!(joined(&answer, &room_id)["unread_notifications"]["notification_count"], 0);
}

#[tokio::test]
async fn messages_and_invites_of_ignored_users_are_not_shown() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    world.join(CAS, &room_id).await;
    let list = json!({"ignored_users": {CAS: {}}});
    world.sources.set_account_data(&world.sync, &user(BOB), None, "m.ignored_user_list", &list);
    world.say(CAS, &room_id, "spam").await;
    let topic_less = world.say(AMY, &room_id, "ham").await;
    let other = world.room(CAS).await;
    world.invite(CAS, &other, BOB).await;
    for sync in [world.sync.clone(), world.second_engine()] {
        let answer = sync.sync(World::request(BOB, Some(&since)), std::future::pending()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let events = joined(&answer, &room_id)["timeline"]["events"].as_array().unwrap();
        let messages: Vec<&Value> = events.iter().filter(|event| event["type"] == "m.room.message").collect();
        assert_eq!(messages.len(), 1, "{events:?}");
        assert_eq!(messages[0]["event_id"], topic_less.as_str());
        assert_eq!(events.len(), 2, "that an ignored user joined is told");
        assert_eq!(answer["rooms"]["invite"], json!({}));
    }
}

#[tokio::test]
async fn account_data_is_told_when_it_changes() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let bob = user(BOB);
    for color in ["red", "blue"] {
        world.sources.set_account_data(&world.sync, &bob, None, "im.color", &json!({"color": color}));
    }
    world.sources.set_account_data(&world.sync, &bob, Some(&room_id), "m.tag", &json!({"tags": {}}));
    let color = json!({"type": "im.color", "content": {"color": "blue"}});
    let tag = json!([{"type": "m.tag", "content": {"tags": {}}}]);
    for sync in [world.sync.clone(), world.second_engine()] {
        let answer = sync.sync(World::request(BOB, Some(&since)), std::future::pending()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["account_data"]["events"], json!([color]));
        assert_eq!(joined(&answer, &room_id)["account_data"]["events"], tag);
    }
    let answer = world.sync(World::request(BOB, None)).await;
    let push_rules = json!({"type": "m.push_rules", "content": {"global": {}}});
    assert_eq!(answer["account_data"]["events"], json!([color, push_rules]));
    let since = next_batch(&answer).to_owned();
    world.sources.change_push_rules(&world.sync, &bob);
    let answer = world.sync(World::request(BOB, Some(&since))).await;
    assert_eq!(answer["account_data"]["events"], json!([push_rules]));
    let nobody = world.sync(World::request(AMY, None)).await;
    assert_eq!(nobody["account_data"]["events"], json!([push_rules]), "that was Bob's");
}

#[tokio::test]
async fn messages_to_a_device_are_kept_until_it_comes_back_with_the_token() {
    let world = World::new().await;
    let (_, since) = world.room_of_two().await;
    let message = |number: usize| format!(r#"{{"type":"m.x","sender":"{AMY}","content":{{"n":{number}}}}}"#);
    for number in 0..150 {
        world.sources.send_to_device(&world.sync, &user(BOB), "DEVICE", &message(number));
    }
    world.sources.send_to_device(&world.sync, &user(BOB), "OTHER", &message(999));
    let numbers = |answer: &Value| {
        let events = answer["to_device"]["events"].as_array().unwrap();
        events.iter().map(|event| event["content"]["n"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let first = world.sync(World::request(BOB, Some(&since))).await;
    assert_eq!(numbers(&first), (0..100).collect::<Vec<_>>());
    let again = world.sync(World::request(BOB, Some(&since))).await;
    assert_eq!(again["to_device"], first["to_device"], "the answer may have been lost");
    let second = world.sync(World::request(BOB, Some(next_batch(&first)))).await;
    assert_eq!(numbers(&second), (100..150).collect::<Vec<_>>());
    let third = world.sync(World::request(BOB, Some(next_batch(&second)))).await;
    assert_eq!(numbers(&third), [] as [u64; 0]);
    assert_eq!(world.sources.messages(), 1, "that of the other device");
}

#[tokio::test]
async fn the_keys_that_a_device_has_left_are_always_told() {
    let world = World::new().await;
    let (_, since) = world.room_of_two().await;
    let answer = world.sync(World::request(BOB, Some(&since))).await;
    assert_eq!(answer["device_one_time_keys_count"], json!({"signed_curve25519": 50}));
    assert_eq!(answer["device_unused_fallback_key_types"], json!(["signed_curve25519"]));
}

#[tokio::test]
async fn device_lists_follow_keys_and_memberships() {
    let world = World::new().await;
    let (room_id, mut since) = world.room_of_two().await;
    let mut lists = async || {
        let answer = world.sync(World::request(BOB, Some(&since))).await;
        since = next_batch(&answer).to_owned();
        answer["device_lists"].clone()
    };
    world.sources.change_devices(&world.sync, &user(AMY));
    world.sources.change_devices(&world.sync, &user(CAS));
    assert_eq!(lists().await, json!({"changed": [AMY], "left": []}), "Cas is a stranger");
    world.join(CAS, &room_id).await;
    assert_eq!(lists().await, json!({"changed": [CAS], "left": []}));
    let second = world.room(CAS).await;
    world.join(BOB, &second).await;
    lists().await;
    world.leave(CAS, &room_id).await;
    assert_eq!(lists().await, json!({"changed": [], "left": []}), "they still share a room");
    world.leave(BOB, &second).await;
    assert_eq!(lists().await, json!({"changed": [], "left": [CAS]}));
    world.leave(BOB, &room_id).await;
    assert_eq!(lists().await, json!({"changed": [], "left": [AMY]}));
}

#[tokio::test]
async fn presence_is_told_to_those_who_share_a_room() {
    let world = World::new().await;
    let (_, since) = world.room_of_two().await;
    world.room(CAS).await;
    for user_id in [AMY, CAS] {
        world.presence.set(&user(user_id), PresenceState::Online, Some("here".to_owned())).await.unwrap();
    }
    for since in [None, Some(&*since)] {
        let answer = world.sync(World::request(BOB, since)).await;
        let events = answer["presence"]["events"].as_array().unwrap();
        let senders: Vec<&Value> = events.iter().map(|event| &event["sender"]).collect();
        assert_eq!(senders, [AMY]);
        assert_eq!(events[0]["content"]["status_msg"], "here");
    }
}

#[tokio::test]
async fn who_types_is_told_until_they_cease() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let nid = world.nid(&room_id).0;
    world.typing.set(nid, &user(AMY), Some(Duration::from_secs(5)));
    let answer = world.sync(World::request(BOB, Some(&since))).await;
    let typing = |users: &[&str]| json!([{"type": "m.typing", "content": {"user_ids": users}}]);
    assert_eq!(joined(&answer, &room_id)["ephemeral"]["events"], typing(&[AMY]));
    let since = next_batch(&answer).to_owned();
    world.typing.set(nid, &user(AMY), None);
    let answer = world.sync(World::request(BOB, Some(&since))).await;
    assert_eq!(joined(&answer, &room_id)["ephemeral"]["events"], typing(&[]));
    let answer = world.sync(World::request(BOB, Some(next_batch(&answer)))).await;
    assert_eq!(answer["rooms"]["join"], json!({}));
}
