use ruma::RoomVersionId;

use super::*;
use crate::{
    rules,
    test_events::{ALICE, TestRoom},
};

const STORED: &str = r#"{"auth_events":["$a","$b"],"content":{"body":"hi"},"depth":12,"hashes":{"sha256":"x"},"origin_server_ts":1404838188000,"prev_events":["$c"],"room_id":"!r:x","sender":"@a:x","signatures":{},"state_key":"k\"ey","type":"m.room.message"}"#;

fn stored(json: &str, version: &RoomVersionId) -> Result<Pdu, MalformedEvent> {
    Pdu::from_stored("!r:x".try_into().unwrap(), "$id".try_into().unwrap(), json, rules(version).unwrap())
}

#[test]
fn a_stored_event_is_read_field_by_field() {
    let pdu = stored(STORED, &RoomVersionId::V10).unwrap();
    assert_eq!(pdu.event_id(), "$id");
    assert_eq!(pdu.room_id(), "!r:x");
    assert_eq!(pdu.sender(), "@a:x");
    assert_eq!(pdu.origin(), "x");
    assert_eq!(pdu.event_type(), &TimelineEventType::RoomMessage);
    assert_eq!(pdu.state_key(), Some("k\"ey"));
    assert_eq!(pdu.content(), r#"{"body":"hi"}"#);
    assert_eq!(pdu.depth(), 12);
    assert_eq!(u64::from(pdu.origin_server_ts().0), 1_404_838_188_000);
    assert_eq!(pdu.prev_events(), ["$c"]);
    assert_eq!(pdu.auth_events(), ["$a", "$b"]);
    assert_eq!(pdu.json(), STORED);
    assert!(!pdu.is_rejected());
    assert!(pdu.with_rejected(true).is_rejected());
}

#[test]
fn references_of_room_version_1_are_read() {
    let json = STORED
        .replace(r#"["$a","$b"]"#, r#"[["$a:x",{"sha256":"h"}]]"#)
        .replace(r#"["$c"]"#, r#"[["$c:x",{}]]"#);
    let pdu = stored(&json, &RoomVersionId::V1).unwrap();
    assert_eq!(pdu.prev_events(), ["$c:x"]);
    assert_eq!(pdu.auth_events(), ["$a:x"]);
}

#[test]
fn damaged_events_are_refused() {
    for (from, to) in [
        (r#"{"body":"hi"}"#, "[]"),
        ("12", "\"12\""),
        (r#"["$c"]"#, r#"["c"]"#),
        (r#"["$c"]"#, r#"[["$c"]]"#),
        (r#"["$c"]"#, r#"[["$c",{},1]]"#),
        ("@a:x", "a:x"),
        ("!r:x", "!other:x"),
        (r#""room_id":"!r:x","#, ""),
        (r#""type":"m.room.message""#, r#""type":5"#),
    ] {
        let json = STORED.replace(from, to);
        assert_ne!(json, STORED);
        stored(&json, &RoomVersionId::V10).expect_err(&json);
    }
}

#[test]
fn odd_numbers_in_old_events_do_not_hurt() {
    let json = STORED.replace("1404838188000", "-1.5").replace("12", "9223372036854775807");
    let pdu = stored(&json, &RoomVersionId::V5).unwrap();
    assert_eq!(u64::from(pdu.origin_server_ts().0), 0);
    assert_eq!(pdu.depth(), i64::MAX as u64);
}

#[test]
fn redacts_is_read_from_where_the_room_version_keeps_it() {
    let json = STORED
        .replace(r#"{"body":"hi"}"#, r#"{"redacts":"$new"}"#)
        .replace("m.room.message", "m.room.redaction")
        .replace(r#""room_id""#, r#""redacts":"$old","room_id""#);
    assert_eq!(stored(&json, &RoomVersionId::V10).unwrap().redacts().unwrap(), "$old");
    assert_eq!(stored(&json, &RoomVersionId::V11).unwrap().redacts().unwrap(), "$new");
    let odd = json.replace(r#""$old""#, "[1]").replace(r#""$new""#, "{}");
    assert_eq!(stored(&odd, &RoomVersionId::V10).unwrap().redacts(), None);
    assert_eq!(stored(&odd, &RoomVersionId::V11).unwrap().redacts(), None);
    let message = json.replace("m.room.redaction", "m.room.message");
    assert_eq!(stored(&message, &RoomVersionId::V10).unwrap().redacts(), None);
}

#[test]
fn a_room_of_version_12_is_named_by_its_create_event() {
    let (room, fork) = TestRoom::new(&RoomVersionId::V12);
    let room_id = room.room_id.clone().unwrap();
    let create =
        room.events.values().find(|event| *event.event_type() == TimelineEventType::RoomCreate).unwrap();
    assert_eq!(room_id.strip_sigil(), &create.event_id().as_str()[1..]);
    assert_eq!(Pdu::room_id(create), &room_id);
    assert!(!create.json().contains("room_id"));
    assert!(Event::room_id(create).is_none());
    let last = &fork.last[0];
    assert_eq!(Event::room_id(last), Some(&*room_id));
    assert!(!Pdu::auth_events(last).contains(create.event_id()));
}

#[test]
fn the_content_of_an_event_is_not_logged() {
    let pdu = stored(STORED, &RoomVersionId::V10).unwrap();
    let debug = format!("{pdu:?}");
    assert!(debug.contains("$id") && !debug.contains("body"), "{debug}");
}

#[test]
fn events_read_from_their_json_have_the_same_id() {
    for version in crate::SUPPORTED_ROOM_VERSIONS {
        let (mut room, mut fork) = TestRoom::new(&version);
        let message = room.message(&mut fork, ALICE, "hello");
        let again = Pdu::parse(message.json(), room.rules).unwrap();
        assert_eq!(again.event_id(), message.event_id(), "room version {version}");
        assert_eq!(again.json(), message.json());
    }
}
