use ruma::RoomVersionId;
use serde_json::json;

use super::*;
use crate::test_events::{ALICE, BOB, CAROL, Fork, TestRoom};

const VERSIONS: [RoomVersionId; 4] =
    [RoomVersionId::V1, RoomVersionId::V6, RoomVersionId::V11, RoomVersionId::V12];

fn is_allowed(
    room: &TestRoom,
    fork: &Fork,
    sender: &str,
    event_type: &str,
    key: Option<&str>,
    content: serde_json::Value,
) -> bool {
    let event = room.build(fork, TestRoom::template(sender, event_type, key, &content));
    let by_state = check_against_state(&event, room.lookup(&fork.state));
    let by_auth_events = check_auth_events(&event, room.fetch());
    assert_eq!(by_state.is_ok(), by_auth_events.is_ok(), "{by_state:?} {by_auth_events:?}");
    by_state.is_ok()
}

#[test]
fn members_may_talk_and_others_may_not() {
    for version in VERSIONS {
        let (mut room, mut fork) = TestRoom::new(&version);
        let say = |room: &TestRoom, fork: &Fork| {
            is_allowed(room, fork, BOB, "m.room.message", None, json!({"body": "hi"}))
        };
        assert!(!say(&room, &fork), "room version {version}");
        room.member(&mut fork, BOB, BOB, "join");
        assert!(say(&room, &fork), "room version {version}");
        room.member(&mut fork, ALICE, BOB, "ban");
        assert!(!say(&room, &fork), "room version {version}");
    }
}

#[test]
fn power_is_needed_for_state() {
    for version in VERSIONS {
        let (mut room, mut fork) = TestRoom::new(&version);
        room.member(&mut fork, BOB, BOB, "join");
        let topic =
            |sender| is_allowed(&room, &fork, sender, "m.room.topic", Some(""), json!({"topic": "a"}));
        assert!(topic(ALICE), "room version {version}");
        assert!(!topic(BOB), "room version {version}");
    }
}

#[test]
fn float_levels_count_truncated_in_old_rooms() {
    let (mut room, mut fork) = TestRoom::new(&RoomVersionId::V3);
    room.member(&mut fork, BOB, BOB, "join");
    let content = json!({"users": {ALICE: 100, BOB: 50}, "state_default": 51});
    let levels = room.state(&mut fork, ALICE, "m.room.power_levels", "", content);
    let key = levels.state_map_key().unwrap();
    for (bob, expected) in [("51.99", true), ("50.99", false)] {
        let odd = Arc::new(
            Pdu::parse(
                &levels.json().replace(r#""@bob:two.test":50"#, &format!(r#""@bob:two.test":{bob}"#)),
                room.rules,
            )
            .unwrap(),
        );
        assert!(odd.content().contains(bob));
        fork.state.insert(key.clone(), odd.event_id().clone());
        room.events.insert(odd.event_id().clone(), odd);
        let topic = room.build(&fork, TestRoom::template(BOB, "m.room.topic", Some(""), &json!({})));
        assert_eq!(check_against_state(&topic, room.lookup(&fork.state)).is_ok(), expected, "{bob}");
    }
}

#[test]
fn rejected_events_authorize_nothing() {
    for version in VERSIONS {
        let (mut room, mut fork) = TestRoom::new(&version);
        let join = room.member(&mut fork, BOB, BOB, "join");
        let message = room.message(&mut fork, BOB, "hi");
        check_auth_events(&message, room.fetch()).unwrap();
        let rejected =
            Pdu::from_stored(join.room_id().clone(), join.event_id().clone(), join.json(), join.rules());
        room.events.insert(join.event_id().clone(), Arc::new(rejected.unwrap().with_rejected(true)));
        check_auth_events(&message, room.fetch()).unwrap_err();
    }
}

#[test]
fn missing_auth_events_are_no_permission() {
    for version in VERSIONS {
        let (mut room, mut fork) = TestRoom::new(&version);
        let message = room.message(&mut fork, ALICE, "hi");
        check_auth_events(&message, |_| None).unwrap_err();
        check_against_state(&message, |_, _| None).unwrap_err();
    }
}

#[test]
fn the_auth_events_of_a_join_are_those_that_the_rules_ask_for() {
    let (mut room, mut fork) = TestRoom::new(&RoomVersionId::V11);
    room.member(&mut fork, ALICE, CAROL, "invite");
    let template = TestRoom::template(CAROL, "m.room.member", Some(CAROL), &json!({"membership": "join"}));
    let events = auth_events_for(&template, room.rules, room.lookup(&fork.state)).unwrap();
    let mut types: Vec<_> = events.iter().map(|event| event.event_type().to_string()).collect();
    types.sort();
    assert_eq!(types, ["m.room.create", "m.room.join_rules", "m.room.member", "m.room.power_levels"]);
    let nonsense = TestRoom::template(CAROL, "m.room.member", Some(CAROL), &json!({"membership": 5}));
    auth_events_for(&nonsense, room.rules, room.lookup(&fork.state)).unwrap_err();
}

#[test]
fn the_create_event_follows_from_the_room_id_since_room_version_12() {
    for version in VERSIONS {
        let (room, fork) = TestRoom::new(&version);
        let create = room.lookup(&fork.state)(&StateEventType::RoomCreate, "").unwrap();
        let expected = (version == RoomVersionId::V12).then(|| create.event_id().clone());
        assert_eq!(create_event_id(&fork.last[0]), expected);
    }
}
