//! Relations, threads, and what is bundled with events.

use myelin_rooms::read::{PaginationToken, ReadError, RelationsRequest, RoomReader, ThreadsRequest};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, api::Direction};
use serde_json::{Value, json};

use super::{bodies, ignoring, parse, redact, text, viewer};
use crate::world::{ALICE, BOB, World};

fn related(rel_type: &str, event_id: &EventId, body: &str) -> Value {
    json!({
        "msgtype": "m.text",
        "body": body,
        "m.relates_to": { "rel_type": rel_type, "event_id": event_id },
    })
}

fn edit(event_id: &EventId, body: &str) -> Value {
    let mut content = related("m.replace", event_id, body);
    content["m.new_content"] = text(body);
    content
}

async fn relations(reader: &RoomReader, user: &str, room: &RoomId, event_id: &EventId) -> Value {
    let event = reader.event(&viewer(user), room, event_id).await.unwrap();
    let event: Value = serde_json::from_str(&event).unwrap();
    event["unsigned"]["m.relations"].clone()
}

/// A room of Alice and Bob, and a message of Alice in it.
async fn conversation(world: &World) -> (OwnedRoomId, OwnedEventId) {
    let room = world.room().await;
    world.join(BOB, &room).await.unwrap();
    let root = world.say(ALICE, &room, "root").await.unwrap();
    (room, root)
}

#[tokio::test]
async fn the_latest_valid_edit_is_bundled() {
    let world = World::new().await;
    let reader = world.reader();
    let (room, root) = conversation(&world).await;
    assert_eq!(relations(&reader, BOB, &room, &root).await, Value::Null);
    let first = world.send(ALICE, &room, "m.room.message", edit(&root, "first")).await;
    world.clock.advance(std::time::Duration::from_secs(1));
    let second = world.send(ALICE, &room, "m.room.message", edit(&root, "second")).await;
    world.clock.advance(std::time::Duration::from_secs(1));
    world.send(BOB, &room, "m.room.message", edit(&root, "not mine")).await;
    world.send(ALICE, &room, "m.other", edit(&root, "another type")).await;
    let latest = async || relations(&reader, BOB, &room, &root).await["m.replace"]["event_id"].clone();
    assert_eq!(latest().await, second.as_str());
    redact(&world.rooms, ALICE, &room, &second).await;
    assert_eq!(latest().await, first.as_str());
    // An edit is not edited itself.
    world.send(ALICE, &room, "m.room.message", edit(&first, "an edit of an edit")).await;
    assert_eq!(relations(&reader, BOB, &room, &first).await, Value::Null);
    redact(&world.rooms, ALICE, &room, &root).await;
    assert_eq!(latest().await, Value::Null);
}

#[tokio::test]
async fn a_thread_is_summarized_with_its_latest_event() {
    let world = World::new().await;
    let reader = world.reader();
    let (room, root) = conversation(&world).await;
    world.send(BOB, &room, "m.room.message", related("m.thread", &root, "one")).await;
    let two = world.send(ALICE, &room, "m.room.message", related("m.thread", &root, "two")).await;
    let edited = world.send(ALICE, &room, "m.room.message", edit(&two, "two!")).await;
    let thread = relations(&reader, BOB, &room, &root).await["m.thread"].clone();
    assert_eq!(thread["count"], 2);
    assert_eq!(thread["current_user_participated"], true);
    assert_eq!(thread["latest_event"]["event_id"], two.as_str());
    let of_latest = &thread["latest_event"]["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(of_latest["event_id"], edited.as_str());

    redact(&world.rooms, ALICE, &room, &two).await;
    let thread = relations(&reader, BOB, &room, &root).await["m.thread"].clone();
    assert_eq!((&thread["count"], &thread["latest_event"]["content"]["body"]), (&json!(1), &json!("one")));
    let by_alice = reader.event(&ignoring(ALICE, BOB), &room, &root).await.unwrap();
    assert!(!by_alice.contains("m.relations"), "Alice ignores the only one who wrote: {by_alice}");
}

#[tokio::test]
async fn references_are_listed_and_annotations_are_not() {
    let world = World::new().await;
    let (room, root) = conversation(&world).await;
    let one = world.send(BOB, &room, "m.room.message", related("m.reference", &root, "one")).await;
    let two = world.send(ALICE, &room, "m.room.message", related("m.reference", &root, "two")).await;
    let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": root, "key": "👍" } });
    world.send(BOB, &room, "m.reaction", reaction).await;
    let expected = json!({ "m.reference": { "chunk": [{ "event_id": one }, { "event_id": two }] } });
    assert_eq!(relations(&world.reader(), BOB, &room, &root).await, expected);
}

#[tokio::test]
async fn events_of_several_rooms_are_bundled_at_once() {
    let world = World::new().await;
    let mut parents = Vec::new();
    for _ in 0..3 {
        let (room, root) = conversation(&world).await;
        world.send(ALICE, &room, "m.room.message", edit(&root, "edited")).await;
        parents.extend(world.timeline(&room).iter().filter(|pdu| *pdu.event_id() == root).cloned());
    }
    let bundles = world.reader().bundle(&viewer(BOB), &parents).await.unwrap();
    assert_eq!(bundles.len(), 3);
    for (event_id, json) in bundles {
        assert!(parents.iter().any(|pdu| *pdu.event_id() == event_id));
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["m.replace"]["content"]["m.new_content"]["body"], "edited");
    }
}

fn request() -> RelationsRequest {
    RelationsRequest {
        rel_type: None,
        event_type: None,
        from: None,
        to: None,
        direction: Direction::Backward,
        limit: 50,
        recurse: false,
    }
}

#[tokio::test]
async fn relations_are_filtered_paged_and_followed() {
    let world = World::new().await;
    let reader = world.reader();
    let (room, root) = conversation(&world).await;
    let one = world.send(BOB, &room, "m.room.message", related("m.thread", &root, "one")).await;
    world.send(BOB, &room, "m.room.message", related("m.thread", &root, "two")).await;
    world.send(ALICE, &room, "m.reaction", related("m.annotation", &root, "reaction")).await;
    world.send(ALICE, &room, "m.reaction", related("m.annotation", &one, "deeper")).await;
    let check = async |request: RelationsRequest, expected: &[&str]| -> Option<PaginationToken> {
        let related = reader.relations(&viewer(ALICE), &room, &root, &request).await.unwrap();
        assert_eq!(bodies(&related.chunk), expected, "{request:?}");
        assert_eq!(related.recursion_depth, request.recurse.then_some(3));
        related.next_batch
    };
    let text = |text: &str| Some(text.to_owned());
    check(request(), &["reaction", "two", "one"]).await;
    check(RelationsRequest { direction: Direction::Forward, ..request() }, &["one", "two", "reaction"]).await;
    check(RelationsRequest { rel_type: text("m.thread"), ..request() }, &["two", "one"]).await;
    let of_type =
        RelationsRequest { rel_type: text("m.annotation"), event_type: text("m.room.message"), ..request() };
    check(of_type, &[]).await;
    check(RelationsRequest { recurse: true, ..request() }, &["deeper", "reaction", "two", "one"]).await;
    let annotations = RelationsRequest { rel_type: text("m.annotation"), recurse: true, ..request() };
    check(annotations, &["reaction"]).await;
    let next = check(RelationsRequest { limit: 2, ..request() }, &["reaction", "two"]).await;
    assert_eq!(check(RelationsRequest { from: next, limit: 2, ..request() }, &["one"]).await, None);
    let unknown = reader.relations(&viewer(ALICE), &room, ruma::event_id!("$x"), &request()).await;
    assert!(matches!(unknown, Err(ReadError::NotFound(_))));
}

#[tokio::test]
async fn threads_are_listed_by_their_latest_activity() {
    let world = World::new().await;
    let reader = world.reader();
    let (room, first) = conversation(&world).await;
    let second = world.say(ALICE, &room, "second").await.unwrap();
    world.send(ALICE, &room, "m.room.message", related("m.thread", &second, "b")).await;
    world.send(BOB, &room, "m.room.message", related("m.thread", &first, "a")).await;
    let list = async |user: &str, request: ThreadsRequest| {
        let threads = reader.threads(&viewer(user), &room, request).await.unwrap();
        for event in parse(&threads.chunk) {
            assert_eq!(event["unsigned"]["m.relations"]["m.thread"]["count"], 1);
        }
        (bodies(&threads.chunk), threads.next_batch)
    };
    let all = ThreadsRequest { from: None, participated: false, limit: 10 };
    assert_eq!(list(BOB, all).await, (vec!["root".to_owned(), "second".to_owned()], None));
    let participated = ThreadsRequest { participated: true, ..all };
    assert_eq!(list(BOB, participated).await.0, ["root"]);
    assert_eq!(list(ALICE, participated).await.0, ["root", "second"]);
    let (page, next) = list(BOB, ThreadsRequest { limit: 1, ..all }).await;
    assert_eq!(page, ["root"]);
    assert_eq!(
        list(BOB, ThreadsRequest { from: next, limit: 1, ..all }).await,
        (vec!["second".to_owned()], None)
    );
    // The root of somebody who is ignored is told without its content.
    let threads = reader.threads(&ignoring(BOB, ALICE), &room, all).await.unwrap();
    let events = parse(&threads.chunk);
    assert_eq!((events.len(), &events[0]["content"]), (1, &json!({})));
}
