//! Who may see what: history visibility, membership at the time, and states.

use std::collections::BTreeSet;

use myelin_rooms::{
    MembershipAction,
    read::{JsonArray, MembersRequest, PaginationToken, ReadError, RoomReader},
};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, RoomId,
    api::Direction,
    events::{receipt::ReceiptThread, room::member::MembershipState},
};
use serde_json::{Value, json};

use super::{page, parse, said, viewer};
use crate::world::{ALICE, BOB, CAROL, World, user};

async fn set_visibility(world: &World, room: &RoomId, visibility: &str) {
    let content = json!({ "history_visibility": visibility });
    world.set(ALICE, room, "m.room.history_visibility", "", content).await.unwrap();
}

/// A room of Alice in which Bob comes and goes.
async fn room_with_a_guest(world: &World, visibility: &str) -> OwnedRoomId {
    let room = world.room().await;
    set_visibility(world, &room, visibility).await;
    world.say(ALICE, &room, "before").await.unwrap();
    world.change(ALICE, &room, MembershipAction::Invite, BOB).await.unwrap();
    world.say(ALICE, &room, "invited").await.unwrap();
    world.join(BOB, &room).await.unwrap();
    world.say(ALICE, &room, "joined").await.unwrap();
    world.change(BOB, &room, MembershipAction::Leave, BOB).await.unwrap();
    world.say(ALICE, &room, "after").await.unwrap();
    room
}

#[tokio::test]
async fn history_is_seen_as_its_visibility_says() {
    let world = World::new().await;
    let reader = world.reader();
    for (visibility, of_bob) in [
        ("world_readable", &["before", "invited", "joined", "after"][..]),
        ("shared", &["before", "invited", "joined"]),
        ("invited", &["invited", "joined"]),
        ("joined", &["joined"]),
    ] {
        let room = room_with_a_guest(&world, visibility).await;
        assert_eq!(said(&reader, &viewer(BOB), &room).await.unwrap(), of_bob, "{visibility}");
        let of_alice = said(&reader, &viewer(ALICE), &room).await.unwrap();
        assert_eq!(of_alice, ["before", "invited", "joined", "after"], "{visibility}");
        let of_carol = said(&reader, &viewer(CAROL), &room).await;
        match visibility {
            "world_readable" => assert_eq!(of_carol.unwrap().len(), 4),
            _ => assert!(matches!(of_carol, Err(ReadError::Forbidden(_))), "{visibility}"),
        }
    }
}

#[tokio::test]
async fn users_see_their_own_comings_and_goings() {
    let world = World::new().await;
    let room = room_with_a_guest(&world, "joined").await;
    let reader = world.reader();
    let messages = reader.messages(&viewer(BOB), &room, &page(Direction::Backward, 100)).await.unwrap();
    let types: Vec<Value> = parse(&messages.chunk).iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types[..3], ["m.room.member", "m.room.message", "m.room.member"]);
    // What was before the history was restricted is for whoever joined later, but nothing in between.
    assert_eq!(types[3], "m.room.history_visibility");
    assert_eq!(messages.end, None);
    let memberships: Vec<Value> =
        parse(&messages.chunk).iter().map(|event| event["unsigned"]["membership"].clone()).collect();
    assert_eq!(memberships[..4], ["leave", "join", "join", "leave"]);
}

#[tokio::test]
async fn the_membership_beside_an_event_is_that_of_who_reads_it() {
    let world = World::new().await;
    let room = world.room().await;
    let reader = world.reader();
    let joined = world.join(BOB, &room).await.unwrap();
    let named = world.set(ALICE, &room, "a.type", "x", json!({})).await.unwrap();
    let of_alice = world.set(ALICE, &room, "a.type", ALICE, json!({})).await.unwrap();
    let removed = world.change(ALICE, &room, MembershipAction::Kick, BOB).await.unwrap();
    for (reads, event_id, expected) in [
        (BOB, &joined, "join"),
        (ALICE, &joined, "join"),
        (ALICE, &named, "join"),
        (ALICE, &of_alice, "join"),
        (ALICE, &removed, "join"),
        (BOB, &removed, "leave"),
    ] {
        let event = reader.event(&viewer(reads), &room, event_id).await.unwrap();
        let event: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(event["unsigned"]["membership"], expected, "{reads} of {event_id}");
    }
}

#[tokio::test]
async fn a_change_of_visibility_counts_from_then_on() {
    let world = World::new().await;
    let room = world.room().await;
    set_visibility(&world, &room, "joined").await;
    world.say(ALICE, &room, "hidden").await.unwrap();
    set_visibility(&world, &room, "shared").await;
    world.say(ALICE, &room, "open").await.unwrap();
    world.join(BOB, &room).await.unwrap();
    // What was said before the room's history was ever restricted is shared, too.
    assert_eq!(said(&world.reader(), &viewer(BOB), &room).await.unwrap(), ["open"]);
}

#[tokio::test]
async fn a_forgotten_room_is_as_if_it_had_never_been() {
    let world = World::new().await;
    let room = room_with_a_guest(&world, "shared").await;
    let reader = world.reader();
    reader.state(&viewer(BOB), &room).await.unwrap();
    world.rooms.forget(user_id(BOB), &room).await.unwrap();
    let of_bob = said(&reader, &viewer(BOB), &room).await;
    assert!(matches!(of_bob, Err(ReadError::Forbidden(_))));
    let state = reader.state(&viewer(BOB), &room).await;
    assert!(matches!(state, Err(ReadError::Forbidden(_))));
}

fn user_id(text: &str) -> &ruma::UserId {
    text.try_into().expect("tests use valid user ids")
}

async fn topic(reader: &RoomReader, user: &str, room: &RoomId) -> Result<Value, ReadError> {
    let json = reader.state_event(&viewer(user), room, ("m.room.topic", ""), false).await?;
    Ok(serde_json::from_str(&json).unwrap())
}

#[tokio::test]
async fn who_left_sees_the_state_as_it_was_then() {
    let world = World::new().await;
    let room = world.room().await;
    let reader = world.reader();
    world.set(ALICE, &room, "m.room.topic", "", json!({ "topic": "then" })).await.unwrap();
    world.join(BOB, &room).await.unwrap();
    world.change(BOB, &room, MembershipAction::Leave, BOB).await.unwrap();
    world.set(ALICE, &room, "m.room.topic", "", json!({ "topic": "now" })).await.unwrap();
    world.join(CAROL, &room).await.unwrap();
    assert_eq!(topic(&reader, ALICE, &room).await.unwrap(), json!({ "topic": "now" }));
    assert_eq!(topic(&reader, BOB, &room).await.unwrap(), json!({ "topic": "then" }));
    let has_carol = |events: &JsonArray| parse(events).iter().any(|event| event["state_key"] == CAROL);
    assert!(has_carol(&reader.state(&viewer(ALICE), &room).await.unwrap()));
    assert!(!has_carol(&reader.state(&viewer(BOB), &room).await.unwrap()));
    let missing = reader.state_event(&viewer(ALICE), &room, ("m.room.topic", "x"), false).await;
    assert!(matches!(missing, Err(ReadError::NotFound(_))));
    let outsider = topic(&reader, "@dora:one.test", &room).await;
    assert!(matches!(outsider, Err(ReadError::Forbidden(_))));
}

#[tokio::test]
async fn state_is_read_from_memory_only_while_it_is_true() {
    let world = World::new().await;
    let room = world.room().await;
    let reader = world.reader();
    for round in 0..3 {
        world.set(ALICE, &room, "m.room.topic", "", json!({ "topic": round })).await.unwrap();
        // The first fills the memory, the second is answered from it.
        reader.state(&viewer(ALICE), &room).await.unwrap();
        assert_eq!(topic(&reader, ALICE, &room).await.unwrap(), json!({ "topic": round }));
        world.say(ALICE, &room, "in between").await.unwrap();
        assert_eq!(topic(&reader, ALICE, &room).await.unwrap(), json!({ "topic": round }));
    }
    let whole = reader.state_event(&viewer(ALICE), &room, ("m.room.topic", ""), true).await.unwrap();
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!((&whole["type"], &whole["sender"]), (&json!("m.room.topic"), &json!(ALICE)));
}

#[tokio::test]
async fn who_is_in_a_room_and_where_its_latest_events_are_is_known_without_the_database() {
    let world = World::new().await;
    let room = world.room().await;
    world.join(BOB, &room).await.unwrap();
    let strings = myelin_storage::strings::Strings::new(1000);
    let reader =
        RoomReader::new(world.reading.clone(), strings, &world.feed, myelin_types::Clock::System, 1 << 20);
    let bob = user(BOB);
    let root = world.say(ALICE, &room, "hello").await.unwrap();
    let relation = json!({ "body": "hi", "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    let info = reader.joined_room(&bob, &room).await.unwrap();
    {
        let answer = world.send(ALICE, &room, "m.room.message", relation).await;
        // All connections that the reader could read through are in our hands.
        let _taken = futures_util::future::try_join_all((0..4).map(|_| world.reading.get())).await.unwrap();
        reader.joined_room(&bob, &room).await.unwrap();
        let place = reader.event_place(&info, &answer).await.unwrap();
        assert_eq!(place.thread.as_ref(), Some(&root));
        assert_eq!(place.pos, world.seen().last().unwrap().id);
        let nobody = reader.joined_room(&user(CAROL), &room).await;
        assert!(matches!(nobody, Err(ReadError::Storage(_))), "{nobody:?}");
    }
    world.change(BOB, &room, MembershipAction::Leave, BOB).await.unwrap();
    let gone = reader.joined_room(&bob, &room).await;
    assert!(matches!(gone, Err(ReadError::Forbidden(_))), "{gone:?}");
    world.join(BOB, &room).await.unwrap();
    reader.joined_room(&bob, &room).await.unwrap();
}

#[tokio::test]
async fn a_receipt_is_about_an_event_of_its_thread() {
    let world = World::new().await;
    let room = world.room().await;
    let reader = world.reader();
    let info = reader.joined_room(&user(ALICE), &room).await.unwrap();
    let relate = async |rel_type: &str, to: &OwnedEventId| {
        let content = json!({ "body": "hi", "m.relates_to": { "rel_type": rel_type, "event_id": to } });
        world.send(ALICE, &room, "m.room.message", content).await
    };
    let root = world.say(ALICE, &room, "root").await.unwrap();
    let other = world.say(ALICE, &room, "other").await.unwrap();
    let reply = relate("m.thread", &root).await;
    let mut to_reply = reply.clone();
    for _ in 0..4 {
        to_reply = relate("m.reference", &to_reply).await;
    }
    // What points at the root, over one to four events.
    let mut hops = vec![relate("m.reference", &root).await];
    for _ in 0..3 {
        hops.push(relate("m.reference", hops.last().unwrap()).await);
    }

    let thread = |root: &OwnedEventId| ReceiptThread::Thread(root.clone());
    for (event_id, thread, is_of_it) in [
        (&root, ReceiptThread::Unthreaded, true),
        (&reply, ReceiptThread::Unthreaded, true),
        (&root, ReceiptThread::Main, true),
        (&other, ReceiptThread::Main, true),
        (&reply, ReceiptThread::Main, false),
        (&to_reply, ReceiptThread::Main, false),
        (&hops[0], ReceiptThread::Main, true),
        (&root, thread(&root), true),
        (&reply, thread(&root), true),
        (&to_reply, thread(&root), true),
        (&hops[0], thread(&root), true),
        (&hops[2], thread(&root), true),
        (&hops[3], thread(&root), false),
        (&other, thread(&root), false),
        (&root, thread(&other), false),
        (&reply, thread(&other), false),
    ] {
        match reader.place_for_receipt(&info, event_id, &thread).await {
            Ok(place) => {
                assert!(is_of_it, "{event_id} {thread:?}");
                assert_eq!(place, reader.event_place(&info, event_id).await.unwrap());
            }
            Err(ReadError::InvalidParam(_)) => assert!(!is_of_it, "{event_id} {thread:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    let unknown = EventId::parse("$unknown").unwrap();
    let unknown = reader.place_for_receipt(&info, &unknown, &ReceiptThread::Unthreaded).await;
    assert!(matches!(unknown, Err(ReadError::NotFound(_))), "{unknown:?}");
}

#[tokio::test]
async fn members_are_told_as_they_are_and_as_they_were() {
    let world = World::new().await;
    let room = world.room().await;
    let reader = world.reader();
    world.join(BOB, &room).await.unwrap();
    world.change(ALICE, &room, MembershipAction::Invite, CAROL).await.unwrap();
    let then = PaginationToken(world.seen().last().unwrap().id.get());
    world.change(BOB, &room, MembershipAction::Leave, BOB).await.unwrap();
    world.join(CAROL, &room).await.unwrap();
    let check = async |request: MembersRequest, expected: &[&str]| {
        let members = reader.members(&viewer(ALICE), &room, &request).await.unwrap();
        let found: BTreeSet<String> =
            parse(&members).iter().map(|event| event["state_key"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found, expected.iter().map(|&user| user.to_owned()).collect(), "{request:?}");
    };
    let all = MembersRequest::default();
    let joined = Some(MembershipState::Join);
    check(all.clone(), &[ALICE, BOB, CAROL]).await;
    check(MembersRequest { membership: joined.clone(), ..all.clone() }, &[ALICE, CAROL]).await;
    check(MembersRequest { not_membership: joined.clone(), ..all.clone() }, &[BOB]).await;
    let both = Some(MembershipState::Leave);
    check(MembersRequest { membership: both, not_membership: joined.clone(), ..all.clone() }, &[BOB]).await;
    check(MembersRequest { at: Some(then), membership: joined, ..all.clone() }, &[ALICE, BOB]).await;
    // Before the room began nobody was in it, so it is told who was there when the user came.
    check(MembersRequest { at: Some(PaginationToken(0)), ..all }, &[ALICE]).await;
}

#[tokio::test]
async fn joined_members_and_rooms_are_those_of_now() {
    let world = World::new().await;
    let (one, two) = (world.room().await, world.room().await);
    let reader = world.reader();
    world.join(BOB, &one).await.unwrap();
    world.join(BOB, &two).await.unwrap();
    world.change(BOB, &two, MembershipAction::Leave, BOB).await.unwrap();
    assert_eq!(reader.joined_rooms(user_id(BOB)).await.unwrap(), std::slice::from_ref(&one));
    assert_eq!(reader.joined_rooms(user_id(CAROL)).await.unwrap(), Vec::<OwnedRoomId>::new());
    let members: Value =
        serde_json::from_str(&reader.joined_members(&viewer(BOB), &one).await.unwrap()).unwrap();
    let member = |name: &str| json!({ "display_name": name, "avatar_url": null });
    assert_eq!(members, json!({ ALICE: member("alice"), BOB: member("bob") }));
    let left = reader.joined_members(&viewer(BOB), &two).await;
    assert!(matches!(left, Err(ReadError::Forbidden(_))));
}

#[tokio::test]
async fn who_was_erased_is_only_read_by_those_who_were_there() {
    let world = World::new().await;
    let room = world.room().await;
    set_visibility(&world, &room, "shared").await;
    world.say(ALICE, &room, "hello").await.unwrap();
    world.join(BOB, &room).await.unwrap();
    world.say(ALICE, &room, "hello Bob").await.unwrap();
    world
        .execute("INSERT INTO users (user_id, created_ts, erased) VALUES ('@alice:one.test', 0, true)")
        .await;
    assert_eq!(said(&world.reader(), &viewer(BOB), &room).await.unwrap(), ["hello Bob"]);
}

#[tokio::test]
async fn on_a_branch_of_history_the_state_of_the_branch_counts() {
    let world = World::new().await;
    let room = world.room().await;
    set_visibility(&world, &room, "joined").await;
    let event_id = world.say(ALICE, &room, "on a branch").await.unwrap();
    world.say(ALICE, &room, "on the mainline").await.unwrap();
    world.join(BOB, &room).await.unwrap();
    let reader = world.reader();
    assert_eq!(said(&reader, &viewer(BOB), &room).await.unwrap(), Vec::<String>::new());
    // In the state before the first message, Bob was there already.
    let branch = format!(
        "INSERT INTO state_deltas (room_nid, state_delta, type_sids, key_sids, event_nids)
         SELECT room_nid, 7, ARRAY[type_sid], ARRAY[key_sid], ARRAY[event_nid] FROM room_state
          WHERE key_sid = (SELECT string_id FROM strings WHERE value = '{BOB}');
         UPDATE events SET state_base = pos - 1, state_delta = 7 WHERE event_id = '{event_id}'"
    );
    world.execute(&branch).await;
    assert_eq!(said(&reader, &viewer(BOB), &room).await.unwrap(), ["on a branch"]);
}
