use ruma::{RoomVersionId, room_id};
use serde_json::{Value, json};

use super::*;
use crate::{
    EventTemplate,
    test_events::{ALICE, TestRoom, raw, user},
};

fn parse(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_message_has_the_fields_of_the_client_format_and_no_others() {
    let (room, fork) = TestRoom::new(&RoomVersionId::V12);
    let pdu = room.build(&fork, TestRoom::template(ALICE, "org.\"odd\"", None, &json!({"body": "hi"})));
    let event = ClientEvent::new(&pdu).to_json(None, &Unsigned::default());
    let expected = json!({
        "content": {"body": "hi"},
        "event_id": pdu.event_id(),
        "origin_server_ts": pdu.origin_server_ts(),
        "sender": ALICE,
        "type": "org.\"odd\"",
    });
    assert_eq!(parse(&event), expected);
}

#[test]
fn room_id_and_unsigned_are_added_for_each_request() {
    let (room, fork) = TestRoom::new(&RoomVersionId::V10);
    let pdu = room.build(&fork, TestRoom::template(ALICE, "m.room.topic", Some(""), &json!({"topic": "a"})));
    let unsigned = Unsigned {
        age: Some(-5),
        transaction_id: Some("txn"),
        membership: Some("join"),
        prev_content: Some("{}"),
        prev_sender: Some(ALICE),
        replaces_state: Some(ruma::event_id!("$before")),
        redacted_because: Some(r#"{"type":"m.room.redaction"}"#),
        relations: Some(r#"{"m.thread":{}}"#),
        invite_room_state: Some("[1]"),
        knock_room_state: Some("[2]"),
    };
    let event = parse(ClientEvent::new(&pdu).to_raw_value(Some(room_id!("!r:x")), &unsigned).get());
    assert_eq!(event["room_id"], "!r:x");
    assert_eq!(event["state_key"], "");
    let expected = json!({
        "age": -5,
        "transaction_id": "txn",
        "membership": "join",
        "prev_content": {},
        "prev_sender": ALICE,
        "replaces_state": "$before",
        "redacted_because": {"type": "m.room.redaction"},
        "m.relations": {"m.thread": {}},
        "invite_room_state": [1],
        "knock_room_state": [2],
    });
    assert_eq!(event["unsigned"], expected);
}

#[test]
fn a_redaction_names_its_target_in_both_places_in_every_room_version() {
    for version in crate::SUPPORTED_ROOM_VERSIONS {
        let (room, fork) = TestRoom::new(&version);
        let template =
            EventTemplate::redaction(user(ALICE), "$x:y".try_into().unwrap(), raw(r#"{"reason":"r"}"#));
        let pdu = room.build(&fork, template);
        let event = parse(&ClientEvent::new(&pdu).to_json(None, &Unsigned::default()));
        assert_eq!(event["redacts"], "$x:y", "room version {version}");
        assert_eq!(event["content"], json!({"reason": "r", "redacts": "$x:y"}), "room version {version}");
    }
}

#[test]
fn the_age_may_be_negative() {
    let (room, fork) = TestRoom::new(&RoomVersionId::V10);
    let pdu = room.build(&fork, TestRoom::template(ALICE, "x", None, &json!({})));
    let sent: u64 = pdu.origin_server_ts().0.into();
    assert_eq!(Unsigned::age_of(&pdu, sent + 7), 7);
    assert_eq!(Unsigned::age_of(&pdu, sent - 7), -7);
    assert_eq!(Unsigned::age_of(&pdu, u64::MAX), i64::MAX);
}

#[test]
fn stripped_state_has_four_fields() {
    let (room, fork) = TestRoom::new(&RoomVersionId::V12);
    let pdu = room.build(&fork, TestRoom::template(ALICE, "m.room.name", Some(""), &json!({"name": "Tea"})));
    let expected =
        json!({"content": {"name": "Tea"}, "sender": ALICE, "state_key": "", "type": "m.room.name"});
    assert_eq!(parse(stripped_state(&pdu).get()), expected);
}
