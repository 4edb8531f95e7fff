//! Pages, single events and what happened around them.

use std::time::Duration;

use myelin_rooms::read::{ContextRequest, MessagesRequest, PaginationToken, ReadError, ReadFilter};
use ruma::{MilliSecondsSinceUnixEpoch, UInt, api::Direction};
use serde_json::{Value, json};

use super::{bodies, filtered, ignoring, page, parse, redact, text, viewer};
use crate::world::{ALICE, BOB, CAROL, World};

/// A room in which 25 messages were said.
async fn busy_room(world: &World) -> ruma::OwnedRoomId {
    let room = world.room().await;
    for number in 0..25 {
        world.say(ALICE, &room, &number.to_string()).await.unwrap();
    }
    room
}

#[tokio::test]
async fn pages_go_through_the_whole_timeline_in_both_directions() {
    let world = World::new().await;
    let room = busy_room(&world).await;
    let reader = world.reader();
    let expected: Vec<Value> =
        world.timeline(&room).iter().map(|pdu| pdu.event_id().as_str().into()).collect();
    for direction in [Direction::Backward, Direction::Forward] {
        let mut seen = Vec::new();
        let mut request = page(direction, 7);
        loop {
            let messages = reader.messages(&viewer(ALICE), &room, &request).await.unwrap();
            seen.extend(parse(&messages.chunk).iter().map(|event| event["event_id"].clone()));
            if let Some(from) = request.from {
                assert_eq!(messages.start, from);
            }
            request.from = messages.end;
            if messages.end.is_none() {
                break;
            }
        }
        if direction == Direction::Backward {
            seen.reverse();
        }
        assert_eq!(seen, expected, "{direction:?}");
    }
}

#[tokio::test]
async fn a_page_ends_where_it_is_told_to() {
    let world = World::new().await;
    let room = busy_room(&world).await;
    let reader = world.reader();
    let five = reader.messages(&viewer(ALICE), &room, &page(Direction::Backward, 5)).await.unwrap();
    assert_eq!(bodies(&five.chunk), ["24", "23", "22", "21", "20"]);
    // The same events again, from the other side and up to where they began.
    let request = MessagesRequest { from: five.end, to: Some(five.start), ..page(Direction::Forward, 100) };
    let again = reader.messages(&viewer(ALICE), &room, &request).await.unwrap();
    assert_eq!(bodies(&again.chunk), ["20", "21", "22", "23", "24"]);
    assert_eq!(again.end, None);
    let request = MessagesRequest { from: Some(PaginationToken(i64::MIN)), ..page(Direction::Backward, 5) };
    let nothing = reader.messages(&viewer(ALICE), &room, &request).await.unwrap();
    assert!(nothing.chunk.is_empty() && nothing.end.is_none());
}

#[tokio::test]
async fn filters_decide_what_is_in_a_page() {
    let world = World::new().await;
    let room = world.room().await;
    world.join(BOB, &room).await.unwrap();
    world.say(ALICE, &room, "from Alice").await.unwrap();
    world.say(BOB, &room, "from Bob").await.unwrap();
    world.send(BOB, &room, "m.reaction", json!({ "body": "reaction" })).await;
    world.send(BOB, &room, "m.room.message", json!({ "body": "picture", "url": "mxc://a/b" })).await;
    let reader = world.reader();
    let check = async |filter: Value, expected: &[&str]| {
        let messages =
            reader.messages(&viewer(ALICE), &room, &filtered(filter.clone(), &room)).await.unwrap();
        assert_eq!(bodies(&messages.chunk), expected, "{filter}");
        assert_eq!(messages.end, None, "{filter}");
    };
    check(json!({}), &["picture", "reaction", "from Bob", "from Alice"]).await;
    check(json!({ "types": ["m.room.message"] }), &["picture", "from Bob", "from Alice"]).await;
    check(json!({ "types": ["m.r*n"] }), &["reaction"]).await;
    check(json!({ "types": ["m.room_message"] }), &[]).await;
    check(json!({ "types": [] }), &[]).await;
    check(json!({ "not_types": ["m.room.*"] }), &["reaction"]).await;
    check(json!({ "senders": [ALICE] }), &["from Alice"]).await;
    check(json!({ "not_senders": [ALICE], "types": ["m.room.message"] }), &["picture", "from Bob"]).await;
    check(json!({ "contains_url": true }), &["picture"]).await;
    check(json!({ "contains_url": false }), &["reaction", "from Bob", "from Alice"]).await;
    check(json!({ "not_rooms": [room] }), &[]).await;
    let messages =
        reader.messages(&ignoring(ALICE, BOB), &room, &page(Direction::Backward, 100)).await.unwrap();
    assert_eq!(bodies(&messages.chunk), ["from Alice"]);
    // What an ignored user does to the room's state is told all the same.
    assert_eq!(parse(&messages.chunk)[1]["state_key"], BOB);
}

#[tokio::test]
async fn a_filter_that_lets_little_pass_still_finds_it() {
    let world = World::new().await;
    let room = busy_room(&world).await;
    let mut request = filtered(json!({ "types": ["m.room.create"] }), &room);
    request.limit = 1;
    let messages = world.reader().messages(&viewer(ALICE), &room, &request).await.unwrap();
    assert_eq!(parse(&messages.chunk)[0]["type"], "m.room.create");
    assert_eq!(messages.end, None);
}

#[tokio::test]
async fn lazy_loading_adds_the_members_who_wrote() {
    let world = World::new().await;
    let room = world.room().await;
    world.join(BOB, &room).await.unwrap();
    world.join(CAROL, &room).await.unwrap();
    world.say(BOB, &room, "hello").await.unwrap();
    let mut request = filtered(json!({ "lazy_load_members": true }), &room);
    request.limit = 1;
    let messages = world.reader().messages(&viewer(ALICE), &room, &request).await.unwrap();
    let members: Vec<Value> = parse(&messages.state).iter().map(|event| event["state_key"].clone()).collect();
    assert_eq!(members, [BOB]);
    let context = ContextRequest { limit: 0, filter: request.filter };
    let event_id = parse(&messages.chunk)[0]["event_id"].as_str().unwrap().to_owned();
    let event_id: &ruma::EventId = event_id.as_str().try_into().unwrap();
    let context = world.reader().context(&viewer(ALICE), &room, event_id, &context).await.unwrap();
    let state = parse(&context.state);
    let members: Vec<&Value> = state
        .iter()
        .filter(|event| event["type"] == "m.room.member")
        .map(|event| &event["state_key"])
        .collect();
    assert_eq!(members, [BOB]);
    assert!(state.iter().any(|event| event["type"] == "m.room.create"));
}

#[tokio::test]
async fn an_event_tells_what_it_replaced_who_redacted_it_and_who_sent_it() {
    let world = World::new().await;
    let room = world.room().await;
    world.join(BOB, &room).await.unwrap();
    let reader = world.reader();
    let event = async |user: &str, event_id: &ruma::EventId| -> Value {
        let json = reader.event(&viewer(user), &room, event_id).await.unwrap();
        serde_json::from_str(&json).unwrap()
    };
    let one = world.set(ALICE, &room, "m.room.topic", "", json!({ "topic": "one" })).await.unwrap();
    let two = world.set(ALICE, &room, "m.room.topic", "", json!({ "topic": "two" })).await.unwrap();
    let topic = event(BOB, &two).await;
    assert_eq!(topic["unsigned"]["prev_content"], json!({ "topic": "one" }));
    assert_eq!(topic["unsigned"]["replaces_state"], one.as_str());
    assert_eq!(topic["room_id"], room.as_str());

    let mut request = crate::world::message(ALICE, &room, "secret");
    request.txn_id = Some("txn".into());
    let sent = world.rooms.send(request).await.unwrap();
    assert_eq!(event(ALICE, &sent).await["unsigned"]["transaction_id"], "txn");
    assert_eq!(event(BOB, &sent).await["unsigned"].get("transaction_id"), None);
    assert_eq!(event(BOB, &sent).await["unsigned"]["membership"], "join");

    let redaction = redact(&world.rooms, ALICE, &room, &sent).await;
    let redacted = event(BOB, &sent).await;
    assert_eq!(redacted["content"], json!({}));
    assert_eq!(redacted["unsigned"]["redacted_because"]["event_id"], redaction.as_str());
    assert_eq!(redacted["unsigned"]["redacted_because"]["content"]["reason"], "spam");
}

#[tokio::test]
async fn context_is_what_happened_around_an_event() {
    let world = World::new().await;
    let room = busy_room(&world).await;
    let reader = world.reader();
    let event_id = world.timeline(&room)[world.timeline(&room).len() - 5].event_id().clone();
    let check = async |limit: usize, before: &[&str], after: &[&str]| {
        let request = ContextRequest { limit, filter: ReadFilter::default() };
        let context = reader.context(&viewer(ALICE), &room, &event_id, &request).await.unwrap();
        assert_eq!(bodies(&context.events_before), before);
        assert_eq!(bodies(&context.events_after), after);
        let event: Value = serde_json::from_str(&context.event).unwrap();
        assert_eq!(event["content"]["body"], "20");
        assert!(parse(&context.state).iter().any(|event| event["type"] == "m.room.create"));
        context
    };
    check(0, &[], &[]).await;
    check(1, &[], &["21"]).await;
    check(10, &["19", "18", "17", "16", "15"], &["21", "22", "23", "24"]).await;
    let context = check(4, &["19", "18"], &["21", "22"]).await;
    let older = MessagesRequest { from: Some(context.start), ..page(Direction::Backward, 1) };
    let newer = MessagesRequest { from: Some(context.end), ..page(Direction::Forward, 1) };
    assert_eq!(bodies(&reader.messages(&viewer(ALICE), &room, &older).await.unwrap().chunk), ["17"]);
    assert_eq!(bodies(&reader.messages(&viewer(ALICE), &room, &newer).await.unwrap().chunk), ["23"]);
}

#[tokio::test]
async fn the_state_of_a_context_is_that_of_its_time() {
    let world = World::new().await;
    let room = world.room().await;
    world.set(ALICE, &room, "m.room.topic", "", json!({ "topic": "then" })).await.unwrap();
    let event_id = world.say(ALICE, &room, "hello").await.unwrap();
    world.set(ALICE, &room, "m.room.topic", "", json!({ "topic": "now" })).await.unwrap();
    let request = ContextRequest { limit: 0, filter: ReadFilter::default() };
    let context = world.reader().context(&viewer(ALICE), &room, &event_id, &request).await.unwrap();
    let state = parse(&context.state);
    let topic = state.iter().find(|event| event["type"] == "m.room.topic").unwrap();
    assert_eq!(topic["content"]["topic"], "then");
}

#[tokio::test]
async fn the_state_of_a_context_is_filtered_as_its_events_are() {
    let world = World::new().await;
    let room = world.room().await;
    world.set(ALICE, &room, "m.room.topic", "", json!({ "topic": "news" })).await.unwrap();
    world.set(ALICE, &room, "m.room.avatar", "", json!({ "url": "mxc://one.test/a" })).await.unwrap();
    let event_id = world.say(ALICE, &room, "hello").await.unwrap();
    let reader = world.reader();
    let check = async |filter: Value, expected: &[&str]| {
        let request = ContextRequest { limit: 0, filter: filtered(filter.clone(), &room).filter };
        let context = reader.context(&viewer(ALICE), &room, &event_id, &request).await.unwrap();
        let mut types: Vec<String> = parse(&context.state)
            .iter()
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .filter(|event_type| ["m.room.topic", "m.room.avatar"].contains(&event_type.as_str()))
            .collect();
        types.sort_unstable();
        assert_eq!(types, expected, "{filter}");
    };
    check(json!({}), &["m.room.avatar", "m.room.topic"]).await;
    check(json!({ "contains_url": true }), &["m.room.avatar"]).await;
    check(json!({ "contains_url": false }), &["m.room.topic"]).await;
    check(json!({ "types": ["m.room.t*"] }), &["m.room.topic"]).await;
    check(json!({ "not_senders": [ALICE] }), &[]).await;
    let lazily = json!({ "contains_url": true, "lazy_load_members": true });
    check(lazily, &["m.room.avatar"]).await;
}

#[tokio::test]
async fn the_event_closest_to_a_time_is_found() {
    let world = World::new().await;
    let start = 1_700_000_000_000;
    world.clock.advance(Duration::from_secs(1));
    let room = world.room().await;
    for second in [10, 20, 30] {
        let mut request = crate::world::message(ALICE, &room, &second.to_string());
        let sent_at = UInt::try_from(start + second * 1000).unwrap();
        request.timestamp = Some(MilliSecondsSinceUnixEpoch(sent_at));
        world.rooms.send(request).await.unwrap();
    }
    let reader = world.reader();
    let timeline = world.timeline(&room);
    let at = |second: u64| MilliSecondsSinceUnixEpoch(UInt::try_from(start + second * 1000).unwrap());
    let check = async |second, direction, expected: Option<u64>| {
        let found = reader.event_at_time(&viewer(ALICE), &room, at(second), direction).await;
        assert_eq!(found.as_ref().ok().map(|found| found.origin_server_ts), expected.map(at), "{second}");
        if let Ok(found) = found {
            assert!(timeline.iter().any(|pdu| *pdu.event_id() == found.event_id));
        }
    };
    check(15, Direction::Forward, Some(20)).await;
    check(15, Direction::Backward, Some(10)).await;
    check(20, Direction::Forward, Some(20)).await;
    check(20, Direction::Backward, Some(20)).await;
    check(99, Direction::Backward, Some(30)).await;
    check(99, Direction::Forward, None).await;
    check(0, Direction::Backward, None).await;
    check(0, Direction::Forward, Some(1)).await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let world = World::new().await;
    let room = world.room().await;
    let other = world.room().await;
    let event_id = world.send(ALICE, &room, "m.room.message", text("hello")).await;
    let reader = world.reader();
    let check = async |user: &str, room: &ruma::RoomId, event_id: &ruma::EventId| {
        let found = reader.event(&viewer(user), room, event_id).await;
        assert!(matches!(found, Err(ReadError::NotFound(_))), "{found:?}");
    };
    check(ALICE, &room, ruma::event_id!("$unknown")).await;
    check(ALICE, &other, &event_id).await;
    check(ALICE, ruma::room_id!("!unknown:one.test"), &event_id).await;
    check(BOB, &room, &event_id).await;
}
