//! The directory, summaries and spaces.

use myelin_rooms::{
    CreateRoom,
    read::{HierarchyRequest, PublicRoomsRequest, ReadError},
};
use ruma::{
    OwnedRoomId,
    directory::{Filter, RoomTypeFilter},
    events::room::member::MembershipState,
};
use serde_json::{Value, json};

use super::parse;
use crate::world::{ALICE, BOB, CAROL, World, object, user};

async fn named(world: &World, name: &str, members: &[&str]) -> OwnedRoomId {
    let room = world.room().await;
    world.set(ALICE, &room, "m.room.name", "", json!({ "name": name })).await.unwrap();
    for member in members {
        world.join(member, &room).await.unwrap();
    }
    room
}

async fn private(world: &World) -> OwnedRoomId {
    world.rooms.create_room(CreateRoom::new(user(ALICE))).await.unwrap()
}

#[tokio::test]
async fn published_rooms_are_listed_by_members_and_searched() {
    let world = World::new().await;
    let reader = world.reader();
    named(&world, "Small", &[]).await;
    let large = named(&world, "Large", &[BOB, CAROL]).await;
    let middle = named(&world, "Middle", &[BOB]).await;
    private(&world).await;
    world.set(ALICE, &middle, "m.room.topic", "", json!({ "topic": "about LARGE things" })).await.unwrap();
    let names = |rooms: &[ruma::directory::PublicRoomsChunk]| -> Vec<String> {
        rooms.iter().filter_map(|room| room.name.clone()).collect()
    };
    let all = reader.public_rooms(&PublicRoomsRequest::default()).await.unwrap();
    assert_eq!(names(&all.chunk), ["Large", "Middle", "Small"]);
    assert_eq!((all.total, &all.next_batch, &all.prev_batch), (3, &None, &None));
    let room = &all.chunk[0];
    assert_eq!((room.num_joined_members, &room.room_id), (3_u8.into(), &large));

    let mut request = PublicRoomsRequest { limit: Some(2), ..PublicRoomsRequest::default() };
    let first = reader.public_rooms(&request).await.unwrap();
    assert_eq!(names(&first.chunk), ["Large", "Middle"]);
    request.since = first.next_batch;
    let second = reader.public_rooms(&request).await.unwrap();
    assert_eq!((names(&second.chunk), &second.next_batch), (vec!["Small".to_owned()], &None));
    request.since = second.prev_batch;
    let back = reader.public_rooms(&request).await.unwrap();
    assert_eq!((names(&back.chunk), back.prev_batch), (names(&first.chunk), None));
    request.since = Some("nonsense".to_owned());
    assert!(matches!(reader.public_rooms(&request).await, Err(ReadError::InvalidParam(_))));

    let mut filter = Filter::new();
    filter.generic_search_term = Some("large".to_owned());
    let found = reader.public_rooms(&PublicRoomsRequest { filter, ..Default::default() }).await.unwrap();
    assert_eq!(names(&found.chunk), ["Large", "Middle"]);
    let mut filter = Filter::new();
    filter.room_types = vec![RoomTypeFilter::Space];
    let found = reader.public_rooms(&PublicRoomsRequest { filter, ..Default::default() }).await.unwrap();
    assert!(found.chunk.is_empty());

    // What is kept in memory follows the rooms.
    world.join(CAROL, &middle).await.unwrap();
    world.join("@dora:one.test", &middle).await.unwrap();
    let all = reader.public_rooms(&PublicRoomsRequest::default()).await.unwrap();
    assert_eq!(names(&all.chunk), ["Middle", "Large", "Small"]);
}

#[tokio::test]
async fn a_summary_is_for_those_who_may_join() {
    let world = World::new().await;
    let reader = world.reader();
    let (open, closed) = (named(&world, "Open", &[BOB]).await, private(&world).await);
    let (alice, bob) = (user(ALICE), user(BOB));
    let of_bob = reader.summary(Some(&bob), &open).await.unwrap();
    assert_eq!(of_bob.membership, Some(MembershipState::Join));
    assert_eq!(of_bob.summary.name.as_deref(), Some("Open"));
    assert_eq!(of_bob.summary.num_joined_members, 2_u8.into());
    let of_stranger = reader.summary(None, &open).await.unwrap();
    assert_eq!(of_stranger.membership, None);
    assert!(matches!(reader.summary(Some(&bob), &closed).await, Err(ReadError::NotFound(_))));
    assert!(matches!(reader.summary(None, &closed).await, Err(ReadError::NotFound(_))));
    assert_eq!(reader.summary(Some(&alice), &closed).await.unwrap().membership, Some(MembershipState::Join));
}

async fn space(world: &World) -> OwnedRoomId {
    let mut request = CreateRoom::new(user(ALICE));
    request.is_public = true;
    request.creation_content = object(json!({ "type": "m.space" }));
    request.preset = Some(myelin_rooms::Preset::PublicChat);
    world.rooms.create_room(request).await.unwrap()
}

async fn add_child(world: &World, space: &OwnedRoomId, child: &OwnedRoomId, more: Value) {
    let mut content = json!({ "via": ["one.test"] });
    content.as_object_mut().unwrap().extend(object(more));
    world.set(ALICE, space, "m.space.child", child.as_str(), content).await.unwrap();
}

#[tokio::test]
async fn a_space_is_walked_depth_first() {
    let world = World::new().await;
    let reader = world.reader();
    let (top, below) = (space(&world).await, space(&world).await);
    let (one, two, hidden) =
        (named(&world, "one", &[]).await, named(&world, "two", &[]).await, private(&world).await);
    add_child(&world, &top, &two, json!({ "order": "b", "suggested": true })).await;
    add_child(&world, &top, &below, json!({ "order": "a" })).await;
    add_child(&world, &top, &hidden, json!({})).await;
    add_child(&world, &below, &one, json!({})).await;
    // A loop, and a child that was taken away.
    add_child(&world, &below, &top, json!({})).await;
    world.set(ALICE, &top, "m.space.child", "!gone:one.test", json!({})).await.unwrap();
    let bob = user(BOB);
    let walk = async |request: HierarchyRequest| {
        let page = reader.hierarchy(&bob, &top, &request).await.unwrap();
        let ids: Vec<Value> = parse(&page.rooms).iter().map(|room| room["room_id"].clone()).collect();
        (ids, page)
    };
    let expected: Vec<Value> = [&top, &below, &one, &two].map(|room| room.as_str().into()).into();
    let (ids, page) = walk(HierarchyRequest::default()).await;
    assert_eq!(ids, expected);
    let first = &parse(&page.rooms)[0];
    assert_eq!(first["room_type"], "m.space");
    let children: Vec<&Value> =
        first["children_state"].as_array().unwrap().iter().map(|child| &child["state_key"]).collect();
    assert_eq!(children, [below.as_str(), two.as_str(), hidden.as_str()]);

    let (ids, _) = walk(HierarchyRequest { max_depth: Some(1), ..Default::default() }).await;
    assert_eq!(ids, [&top, &below, &two].map(|room| Value::from(room.as_str())));
    let (ids, _) = walk(HierarchyRequest { suggested_only: true, ..Default::default() }).await;
    assert_eq!(ids, [&top, &two].map(|room| Value::from(room.as_str())));
    let (ids, page) = walk(HierarchyRequest { limit: Some(3), ..Default::default() }).await;
    assert_eq!(ids, expected[..3]);
    let (ids, page) = walk(HierarchyRequest { from: page.next_batch, ..Default::default() }).await;
    assert_eq!((ids, page.next_batch), (expected[3..].to_vec(), None));

    let refused = reader.hierarchy(&bob, &hidden, &HierarchyRequest::default()).await;
    assert!(matches!(refused, Err(ReadError::Forbidden(_))));
}
