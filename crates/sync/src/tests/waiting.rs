//! Syncs that wait, and what wakes them.

use std::time::Duration;

use myelin_ephemeral::{ReceiptKind, ReceiptThread};
use ruma::presence::PresenceState;
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};

use super::world::{AMY, BOB, CAS, World, event_ids, next_batch, user};
use crate::{SyncError, SyncOptions, SyncRequest};

fn patient(user_id: &str, since: &str) -> SyncRequest {
    SyncRequest { timeout: Duration::from_secs(30), ..World::request(user_id, Some(since)) }
}

/// Starts a sync and gives it once it waits.
async fn waiting(world: &World, request: SyncRequest) -> JoinHandle<Value> {
    let sync = world.sync.clone();
    let user = sync.0.enter(&request.user_id).0;
    let task = tokio::spawn(async move {
        let answer = sync.sync(request, std::future::pending()).await.unwrap();
        serde_json::from_slice(&answer).unwrap()
    });
    while !user.is_asleep() {
        tokio::task::yield_now().await;
    }
    task
}

#[tokio::test]
async fn a_message_wakes_those_who_wait_in_the_room() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let task = waiting(&world, patient(BOB, &since)).await;
    let event_id = world.say(AMY, &room_id, "hi").await;
    let answer = task.await.unwrap();
    let room = &answer["rooms"]["join"][room_id.as_str()];
    assert_eq!(event_ids(&room["timeline"]["events"]), [event_id.as_str()]);
}

#[tokio::test]
async fn an_invite_wakes_the_one_who_is_invited() {
    let world = World::new().await;
    let (_, since) = world.room_of_two().await;
    let room_id = world.room(AMY).await;
    let task = waiting(&world, patient(BOB, &since)).await;
    world.invite(AMY, &room_id, BOB).await;
    let answer = task.await.unwrap();
    let events = answer["rooms"]["invite"][room_id.as_str()]["invite_state"]["events"].as_array().unwrap();
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types.iter().filter(|event_type| **event_type == "m.room.member").count(), 2, "{types:?}");
    assert!(types.contains(&"m.room.create"));
}

#[tokio::test]
async fn typing_and_receipts_wake_too() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let event_id = world.truth(&room_id, |truth| truth.events[0].1.event_id().clone());
    let task = waiting(&world, patient(BOB, &since)).await;
    world.typing.set(world.nid(&room_id).0, &user(AMY), Some(Duration::from_secs(30)));
    let answer = task.await.unwrap();
    let ephemeral = &answer["rooms"]["join"][room_id.as_str()]["ephemeral"]["events"];
    assert_eq!(*ephemeral, json!([{"type": "m.typing", "content": {"user_ids": [AMY]}}]));

    let task = waiting(&world, patient(BOB, next_batch(&answer))).await;
    world.read(AMY, &room_id, &event_id, ReceiptKind::Read, ReceiptThread::Unthreaded).await;
    let answer = task.await.unwrap();
    let ephemeral = &answer["rooms"]["join"][room_id.as_str()]["ephemeral"]["events"];
    assert_eq!(ephemeral[0]["content"][event_id.as_str()]["m.read"][AMY], json!({"ts": 7}));
}

#[tokio::test]
async fn what_is_for_the_user_alone_wakes_too() {
    let world = World::new().await;
    let (room_id, mut since) = world.room_of_two().await;
    let bob = user(BOB);
    type Act<'a> = &'a dyn Fn(&World);
    let acts: [(&str, Act<'_>); 5] = [
        ("account data", &|world| {
            world.sources.set_account_data(&world.sync, &bob, None, "im.x", &json!({"a": 1}));
        }),
        ("account data of a room", &|world| {
            world.sources.set_account_data(&world.sync, &bob, Some(&room_id), "m.tag", &json!({"tags": {}}));
        }),
        ("push rules", &|world| world.sources.change_push_rules(&world.sync, &bob)),
        ("a message to the device", &|world| {
            world.sources.send_to_device(&world.sync, &bob, "DEVICE", r#"{"type":"m.x","content":{}}"#);
        }),
        ("somebody's keys", &|world| world.sources.change_devices(&world.sync, &user(AMY))),
    ];
    for (what, act) in acts {
        let task = waiting(&world, patient(BOB, &since)).await;
        act(&world);
        let answer = tokio::time::timeout(Duration::from_secs(10), task).await.expect(what).unwrap();
        since = next_batch(&answer).to_owned();
    }
}

#[tokio::test]
async fn draining_answers_at_once() {
    let world = World::new().await;
    let (_, since) = world.room_of_two().await;
    let (drain, draining) = oneshot::channel::<()>();
    let sync = world.sync.clone();
    let request = patient(BOB, &since);
    let task = tokio::spawn(async move { sync.sync(request, async { _ = draining.await }).await.unwrap() });
    drop(drain);
    let answer: Value = serde_json::from_slice(&task.await.unwrap()).unwrap();
    assert_eq!(answer["rooms"]["join"], json!({}));
    assert_eq!(next_batch(&answer), since);
}

#[tokio::test]
async fn the_time_a_client_gives_is_kept() {
    let world = World::new().await;
    let (_, since) = world.room_of_two().await;
    let request = SyncRequest { timeout: Duration::from_millis(20), ..patient(BOB, &since) };
    let answer = world.sync(request).await;
    assert_eq!(next_batch(&answer), since);
}

#[tokio::test]
async fn a_token_from_the_future_is_refused() {
    let options = SyncOptions { max_lag: Duration::from_millis(20), ..SyncOptions::default() };
    let world = World::with_options(options).await;
    let (_, since) = world.room_of_two().await;
    let (_, rest) = since.split_once('_').unwrap();
    let request = World::request(BOB, Some(&format!("s999999_{rest}")));
    let refused = world.sync.sync(request, std::future::pending()).await;
    assert!(matches!(refused, Err(SyncError::UnknownPosition)));
}

#[tokio::test]
async fn one_who_waits_in_another_room_is_left_alone() {
    let world = World::new().await;
    let (room_id, since) = world.room_of_two().await;
    let other = world.room(AMY).await;
    let task = waiting(&world, patient(BOB, &since)).await;
    world.say(AMY, &other, "not for bob").await;
    let bob = world.sync.0.enter(&user(BOB)).0;
    assert!(bob.is_asleep());
    let last = world.say(AMY, &room_id, "for bob").await;
    let answer = task.await.unwrap();
    let rooms = answer["rooms"]["join"].as_object().unwrap();
    assert_eq!(event_ids(&rooms[room_id.as_str()]["timeline"]["events"]), [last.as_str()]);
    assert_eq!(rooms.len(), 1);
}

/// Bob has synced and shares a room with Cas, who never has; gives where Bob is.
async fn bob_and_a_stranger() -> (World, String) {
    let world = World::new().await;
    let room_id = world.room(AMY).await;
    for user_id in [BOB, CAS] {
        world.join(user_id, &room_id).await;
    }
    let since = next_batch(&world.sync(World::request(BOB, None)).await).to_owned();
    (world, since)
}

#[tokio::test]
async fn a_change_of_devices_wakes_contacts_of_somebody_who_never_synced() {
    let (world, since) = bob_and_a_stranger().await;
    let task = waiting(&world, patient(BOB, &since)).await;
    world.sources.change_devices(&world.sync, &user(CAS));
    let answer = tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
    assert_eq!(answer["device_lists"]["changed"], json!([CAS]));
}

#[tokio::test]
async fn presence_wakes_contacts_of_somebody_who_never_synced() {
    let (world, since) = bob_and_a_stranger().await;
    let task = waiting(&world, patient(BOB, &since)).await;
    world.presence.set(&user(CAS), PresenceState::Online, Some("here".to_owned())).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
    assert_eq!(answer["presence"]["events"][0]["sender"], CAS);
}
