//! Making rooms.

use futures_util::future::join_all;
use myelin_events::SUPPORTED_ROOM_VERSIONS;
use myelin_rooms::{CreateRoom, EncryptNewRooms, InitialState, Preset, RequestId, RoomError};
use ruma::{RoomVersionId, owned_room_alias_id};
use serde_json::{Value, json};

use crate::world::{ALICE, BOB, CAROL, World, object, user};

#[tokio::test]
async fn rooms_of_every_version_can_be_made_and_talked_in() {
    let world = World::new().await;
    for version in SUPPORTED_ROOM_VERSIONS {
        let room_id = world.room_of_version(version.clone()).await;
        world.join(BOB, &room_id).await.unwrap();
        world.say(BOB, &room_id, "hello").await.unwrap();
        let create = world.content(&room_id, "m.room.create", "");
        assert_eq!(create["room_version"], version.as_str());
        let names_creator = !matches!(version, RoomVersionId::V11 | RoomVersionId::V12);
        assert_eq!(create.get("creator").is_some(), names_creator);
        let timeline = world.timeline(&room_id);
        let is_hash = version == RoomVersionId::V12;
        assert_eq!(room_id.server_name().is_none(), is_hash);
        assert_eq!(room_id.as_str()[1..] == timeline[0].event_id().as_str()[1..], is_hash);
        for pair in timeline.windows(2) {
            assert_eq!(pair[1].prev_events(), [pair[0].event_id().clone()], "room version {version}");
            assert_eq!(pair[1].depth(), pair[0].depth() + 1);
        }
    }
}

#[tokio::test]
async fn the_events_of_a_new_room_come_in_the_order_of_the_specification() {
    let world = World::new().await;
    let mut request = CreateRoom::new(user(ALICE));
    request.name = Some("A name".to_owned());
    request.topic = Some("A topic".to_owned());
    request.alias = Some(owned_room_alias_id!("#pub:one.test"));
    request.invite = vec![user(BOB), user(BOB), user(ALICE)];
    request.is_direct = true;
    let state = |event_type: &str, content: Value| InitialState {
        event_type: event_type.into(),
        state_key: String::new(),
        content: object(content),
    };
    request.initial_state = vec![
        state("m.room.name", json!({"name": "overridden"})),
        state("m.room.join_rules", json!({"join_rule": "knock"})),
        state("org.example.own", json!({"a": 1})),
    ];
    let room_id = world.rooms.create_room(request).await.unwrap();
    let types: Vec<String> =
        world.timeline(&room_id).iter().map(|event| event.event_type().to_string()).collect();
    assert_eq!(
        types,
        [
            "m.room.create",
            "m.room.member",
            "m.room.power_levels",
            "m.room.canonical_alias",
            "m.room.history_visibility",
            "m.room.guest_access",
            "m.room.join_rules",
            "org.example.own",
            "m.room.name",
            "m.room.topic",
            "m.room.member",
        ]
    );
    assert_eq!(world.content(&room_id, "m.room.name", "")["name"], "A name");
    let invite = world.content(&room_id, "m.room.member", BOB);
    assert_eq!(invite, json!({"membership": "invite", "displayname": "bob", "is_direct": true}));
    let found = world.rooms.get_alias(&owned_room_alias_id!("#pub:one.test")).await.unwrap();
    assert_eq!(found, Some(room_id));
}

#[track_caller]
fn check_levels(content: &Value, expected_users: Value, tombstone: i64, invite: i64) {
    assert_eq!(content["users"], expected_users);
    assert_eq!(content["events"]["m.room.tombstone"], tombstone);
    assert_eq!(content["invite"], invite);
}

#[tokio::test]
async fn presets_decide_about_power_and_doors() {
    let world = World::new().await;
    let create = async |preset: Preset, version: RoomVersionId| {
        let mut request = CreateRoom::new(user(ALICE));
        request.preset = Some(preset);
        request.room_version = Some(version);
        request.invite = vec![user(BOB)];
        let room_id = world.rooms.create_room(request).await.unwrap();
        let rule = world.content(&room_id, "m.room.join_rules", "")["join_rule"].clone();
        let create = world.content(&room_id, "m.room.create", "");
        (world.content(&room_id, "m.room.power_levels", ""), rule, create["additional_creators"].clone())
    };
    let (levels, rule, creators) = create(Preset::PrivateChat, RoomVersionId::V11).await;
    check_levels(&levels, json!({ALICE: 100}), 100, 0);
    assert_eq!((rule, creators), (json!("invite"), Value::Null));
    let (levels, rule, creators) = create(Preset::TrustedPrivateChat, RoomVersionId::V11).await;
    check_levels(&levels, json!({ALICE: 100, BOB: 100}), 100, 0);
    assert_eq!((rule, creators), (json!("invite"), Value::Null));
    let (levels, _, creators) = create(Preset::TrustedPrivateChat, RoomVersionId::V12).await;
    check_levels(&levels, json!({}), 150, 0);
    assert_eq!(creators, json!([BOB]));
    let (levels, rule, creators) = create(Preset::PublicChat, RoomVersionId::V12).await;
    check_levels(&levels, json!({}), 150, 50);
    assert_eq!((rule, creators), (json!("public"), Value::Null));
}

#[tokio::test]
async fn what_can_not_be_leaves_no_room_behind() {
    let world = World::new().await;
    let base = || CreateRoom::new(user(ALICE));

    let mut powerless = base();
    powerless.room_version = Some(RoomVersionId::V11);
    powerless.name = Some("no".to_owned());
    powerless.power_level_content_override = object(json!({"users": {CAROL: 100}}));
    let refused = world.rooms.create_room(powerless).await;
    assert!(matches!(refused, Err(RoomError::InvalidRoomState(_))), "{refused:?}");

    let mut remote = base();
    remote.invite = vec![user("@someone:two.test")];
    let refused = world.rooms.create_room(remote).await;
    assert!(matches!(refused, Err(RoomError::RemoteUser(_))), "{refused:?}");

    let mut unknown = base();
    unknown.room_version = Some("org.example.none".try_into().unwrap());
    let refused = world.rooms.create_room(unknown).await;
    assert!(matches!(refused, Err(RoomError::UnsupportedVersion(_))), "{refused:?}");

    let mut aliased = base();
    aliased.alias = Some(owned_room_alias_id!("#taken:one.test"));
    world.rooms.create_room(aliased.clone()).await.unwrap();
    let refused = world.rooms.create_room(aliased).await;
    assert!(matches!(refused, Err(RoomError::AliasTaken(_))), "{refused:?}");

    assert_eq!(world.count("SELECT count(*) FROM rooms").await, 1);
    assert_eq!(world.count("SELECT count(DISTINCT room_nid) FROM events").await, 1);
}

#[tokio::test]
async fn operators_can_have_new_rooms_encrypted() {
    let world = World::with(|options| options.encrypt_new_rooms = EncryptNewRooms::Private).await;
    let private = world.rooms.create_room(CreateRoom::new(user(ALICE))).await.unwrap();
    assert_eq!(world.content(&private, "m.room.encryption", "")["algorithm"], "m.megolm.v1.aes-sha2");
    let public = world.room().await;
    assert_eq!(world.content(&public, "m.room.encryption", ""), Value::Null);
}

#[tokio::test]
async fn a_request_that_is_repeated_makes_one_room() {
    let world = World::new().await;
    let request = |creator: &str, name: &str| {
        let mut request = CreateRoom::new(user(creator));
        request.alias = Some(owned_room_alias_id!("#one:one.test"));
        request.request = RequestId::new(&user(creator), name);
        assert!(request.request.is_some());
        request
    };
    let at_once = join_all((0..4).map(|_| world.rooms.create_room(request(ALICE, "one")))).await.into_iter();
    let made: Vec<_> = at_once.map(|made| made.expect("it is made once")).collect();
    assert!(made.iter().all(|room_id| *room_id == made[0]), "{made:?}");
    assert_eq!(world.rooms.create_room(request(ALICE, "one")).await.unwrap(), made[0], "also later");

    let taken = world.rooms.create_room(request(ALICE, "two")).await;
    assert!(matches!(taken, Err(RoomError::AliasTaken(_))), "another request: {taken:?}");
    let mut of_bob = request(BOB, "one");
    of_bob.alias = None;
    assert_ne!(world.rooms.create_room(of_bob).await.unwrap(), made[0], "another user");
}
