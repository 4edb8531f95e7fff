//! People who talk to each other.

use myelin_integration_tests::Server;
use serde_json::json;

#[tokio::test]
async fn an_invited_friend_joins_and_both_see_what_is_said() {
    let server = Server::start_default().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let mut alices_syncs = alice.syncer();
    let mut bobs_syncs = bob.syncer();

    let room_id = alice.create_room(json!({ "preset": "private_chat", "name": "Tea" })).await;
    alice.invite(&room_id, &bob).await;
    let invited = bobs_syncs.until(|sync| sync.invited(&room_id).is_some()).await;
    let stripped =
        invited.invited(&room_id).expect("the sync was waited for")["invite_state"]["events"].to_string();
    assert!(stripped.contains("Tea"), "the invitation names the room: {stripped}");

    bob.join(&room_id).await;
    let from_alice = alice.send_text(&room_id, "Milk?").await;
    bobs_syncs.until(|sync| sync.has(&from_alice)).await;
    let from_bob = bob.send_text(&room_id, "Please.").await;
    let seen = alices_syncs.until(|sync| sync.has(&from_bob)).await;

    let event = seen.timeline(&room_id).iter().find(|event| event["event_id"] == from_bob.as_str());
    let event = event.expect("the sync was waited for");
    assert_eq!(event["content"]["body"], "Please.");
    assert_eq!(event["sender"], bob.id.as_str());
}

#[tokio::test]
async fn a_waiting_sync_answers_when_something_is_said() {
    let server = Server::start_default().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    let mut syncs = alice.syncer();
    syncs.step().await;

    // Both at once: the sync waits longer than the test does, unless it is woken. What wakes it may also be the
    // presence of the one who syncs.
    let (event_id, seen) = tokio::join!(
        alice.send_text(&room_id, "Anybody?"),
        syncs.until(|sync| !sync.timeline(&room_id).is_empty()),
    );

    assert!(seen.has(&event_id), "the sync saw {}", seen.0);
}

#[tokio::test]
async fn a_message_sent_twice_under_one_transaction_id_is_one_event() {
    let server = Server::start_default().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    let content = json!({ "msgtype": "m.text", "body": "once" });

    let first = alice.try_send(&room_id, "m.room.message", "same", &content).await.unwrap().ok();
    let second = alice.try_send(&room_id, "m.room.message", "same", &content).await.unwrap().ok();

    assert_eq!(first["event_id"], second["event_id"]);
}

#[tokio::test]
async fn data_outlive_a_clean_stop() {
    let mut server = Server::start_default().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    let event_id = alice.send_text(&room_id, "before").await;

    let status = server.stop().await;
    assert!(status.success(), "SIGTERM ends the server with {status}");
    server.start_again().await;

    alice.sync_until(|sync| sync.has(&event_id)).await;
}
