use ruma::{RoomVersionId, signatures::PublicKeyMap};
use serde_json::{Value, json};

use super::*;
use crate::{
    ServerSigningKey, rules,
    test_events::{ALICE, BOB, KEY, TestRoom, keys},
};

/// A valid event of the room version, as other servers send it.
fn event(version: &RoomVersionId) -> Value {
    let (room, fork) = TestRoom::new(version);
    let content = json!({"body": "hello"});
    let pdu = room.build(&fork, TestRoom::template(ALICE, "m.room.message", None, &content));
    serde_json::from_str(pdu.json()).unwrap()
}

/// Replaces a top-level field by another value, or takes it away if the value is null.
fn with(mut event: Value, field: &str, value: Value) -> Value {
    let fields = event.as_object_mut().unwrap();
    if value.is_null() {
        fields.remove(field)
    } else {
        fields.insert(field.to_owned(), value)
    };
    event
}

fn receive(event: &Value, version: &RoomVersionId) -> Result<ReceivedPdu, ReceiveError> {
    check_received(&event.to_string(), rules(version).unwrap(), &keys())
}

#[track_caller]
fn check_malformed(version: RoomVersionId, field: &str, value: Value) {
    let event = with(event(&version), field, value);
    match receive(&event, &version) {
        Err(ReceiveError::Malformed(message)) => assert!(message.contains(field), "{message}"),
        other => panic!("room version {version}, {field}: {other:?}"),
    }
}

#[test]
fn events_of_the_wrong_format_are_malformed() {
    use RoomVersionId::{V2, V3, V11, V12};
    for field in [
        "type",
        "sender",
        "room_id",
        "content",
        "depth",
        "hashes",
        "signatures",
        "prev_events",
        "auth_events",
    ] {
        check_malformed(V11, field, Value::Null);
        check_malformed(V11, field, json!(true));
    }
    check_malformed(V2, "event_id", Value::Null);
    check_malformed(V2, "event_id", json!("$hash"));
    check_malformed(V11, "state_key", json!(5));
    check_malformed(V11, "state_key", json!("a\0b"));
    check_malformed(V11, "state_key", json!("ü".repeat(128)));
    check_malformed(V11, "type", json!("t".repeat(256)));
    check_malformed(V11, "sender", json!("alice"));
    check_malformed(V11, "room_id", json!("room"));
    check_malformed(V11, "origin_server_ts", json!("now"));
    check_malformed(V11, "depth", json!(-1));
    check_malformed(V3, "depth", json!(u64::MAX));
    check_malformed(V11, "prev_events", json!(vec!["$x"; 21]));
    check_malformed(V11, "auth_events", json!(vec!["$x"; 11]));
    let room_id = event(&V12)["room_id"].as_str().unwrap().replace('!', "$");
    check_malformed(V12, "auth_events", json!([room_id]));
}

#[test]
fn a_create_event_of_room_version_12_states_no_room() {
    let (room, _) = TestRoom::new(&RoomVersionId::V12);
    let create = room.events.values().find(|event| event.prev_events().is_empty()).unwrap();
    let received = check_received(create.json(), room.rules, &keys()).unwrap();
    assert_eq!(Some(received.pdu.room_id()), room.room_id.as_ref());
    let stated = with(serde_json::from_str(create.json()).unwrap(), "room_id", json!("!room:one.test"));
    assert!(matches!(receive(&stated, &RoomVersionId::V12), Err(ReceiveError::Malformed(_))));
}

#[test]
fn numbers_outside_of_canonical_json_are_refused_since_room_version_6() {
    for (version, is_accepted) in [(RoomVersionId::V5, true), (RoomVersionId::V6, false)] {
        let json = event(&version).to_string().replace(r#""hello""#, "0.10");
        let unverified = UnverifiedPdu::parse(&json, rules(&version).unwrap());
        assert_eq!(unverified.is_ok(), is_accepted, "room version {version}");
        if let Ok(unverified) = unverified {
            assert_eq!(unverified.unverified().content(), r#"{"body":0.1}"#);
        }
    }
}

#[test]
fn an_event_with_odd_numbers_keeps_its_hash_and_signature() {
    let rules = rules(&RoomVersionId::V5).unwrap();
    let json = r#"{"auth_events":["$c"],"content":{"f":1e-7,"n":100000000000000000000},"depth":3,"origin_server_ts":5,"prev_events":["$p"],"room_id":"!r:one.test","sender":"@alice:one.test","type":"x"}"#;
    let mut object = EventObject::parse(json, rules).unwrap();
    let hash = base64::engine::general_purpose::STANDARD_NO_PAD.encode(object.content_hash());
    object
        .fields_mut()
        .insert("hashes".to_owned(), CanonicalJsonObject::from([("sha256".to_owned(), hash.into())]).into());
    let signed = object.to_signed_json(&rules.redaction).unwrap();
    KEY.insert_signature("one.test", &signed, object.fields_mut()).unwrap();
    let received = check_received(&object.to_json(), rules, &keys()).unwrap();
    assert!(!received.is_redacted);
    assert_eq!(received.pdu.content(), r#"{"f":1e-07,"n":100000000000000000000}"#);
    assert_eq!(redact(&received.pdu).unwrap().content(), "{}");
}

#[test]
fn size_is_counted_without_unsigned() {
    let version = RoomVersionId::V11;
    let padded = with(event(&version), "unsigned", json!({"padding": "x".repeat(MAX_PDU_BYTES)}));
    let received = receive(&padded, &version).unwrap();
    assert!(!received.pdu.json().contains("unsigned"));
    let large = with(event(&version), "content", json!({"body": "x".repeat(MAX_PDU_BYTES)}));
    assert!(matches!(receive(&large, &version), Err(ReceiveError::TooLarge(_))));
    let huge = with(event(&version), "unsigned", json!({"padding": "x".repeat(4 * MAX_PDU_BYTES)}));
    assert!(matches!(receive(&huge, &version), Err(ReceiveError::TooLarge(_))));
}

#[test]
fn an_event_whose_hash_is_wrong_is_redacted() {
    for version in [RoomVersionId::V1, RoomVersionId::V4, RoomVersionId::V12] {
        let original = event(&version);
        let changed = with(original.clone(), "content", json!({"body": "changed"}));
        let received = receive(&changed, &version).unwrap();
        assert!(received.is_redacted);
        assert_eq!(received.pdu.content(), "{}");
        let original = receive(&original, &version).unwrap();
        assert_eq!(received.pdu.event_id(), original.pdu.event_id());
    }
}

#[test]
fn an_event_that_was_changed_where_it_matters_is_dropped() {
    let version = RoomVersionId::V11;
    let changed = with(event(&version), "depth", json!(99));
    assert!(matches!(
        receive(&changed, &version),
        Err(ReceiveError::Signature(SignatureError::Wrong { .. }))
    ));
    let forged = with(event(&version), "sender", json!(BOB));
    assert!(matches!(receive(&forged, &version), Err(ReceiveError::Signature(SignatureError::Missing(_)))));
}

#[test]
fn without_keys_nothing_is_accepted() {
    let json = event(&RoomVersionId::V11).to_string();
    let error = check_received(&json, rules(&RoomVersionId::V11).unwrap(), &PublicKeyMap::new()).unwrap_err();
    assert_eq!(error, ReceiveError::Signature(SignatureError::Missing("one.test".to_owned())));
}

#[track_caller]
fn check_required(version: RoomVersionId, changes: Value, expected: &[&str]) {
    let mut event = event(&version);
    for (field, value) in changes.as_object().unwrap() {
        event = with(event, field, value.clone());
    }
    let unverified = UnverifiedPdu::parse(&event.to_string(), rules(&version).unwrap()).unwrap();
    let servers: Vec<_> = unverified.required_signatures().into_keys().collect();
    assert_eq!(servers, expected, "room version {version}: {changes}");
}

#[test]
fn the_servers_that_must_have_signed_follow_from_the_event() {
    use RoomVersionId::{V2, V3, V7, V8};
    check_required(V3, json!({}), &["one.test"]);
    check_required(V2, json!({"event_id": "$x:two.test"}), &["one.test", "two.test"]);
    check_required(V3, json!({"event_id": "$x:two.test"}), &["one.test"]);
    let restricted = json!({"type": "m.room.member", "state_key": ALICE,
        "content": {"membership": "join", "join_authorised_via_users_server": BOB}});
    check_required(V7, restricted.clone(), &["one.test"]);
    check_required(V8, restricted, &["one.test", "two.test"]);
    let third_party = json!({"type": "m.room.member", "state_key": BOB,
        "content": {"membership": "invite", "third_party_invite": {"signed": {}}}});
    check_required(V8, third_party, &[]);
    // In other events the field means nothing.
    check_required(V8, json!({"content": {"join_authorised_via_users_server": BOB}}), &["one.test"]);
}

#[test]
fn the_keys_to_fetch_are_told() {
    let version = RoomVersionId::V11;
    let unverified = UnverifiedPdu::parse(&event(&version).to_string(), rules(&version).unwrap()).unwrap();
    let required = unverified.required_signatures();
    assert_eq!(required.values().flatten().collect::<Vec<_>>(), ["ed25519:test"]);
}

#[test]
fn a_restricted_join_needs_the_signature_of_the_authorizing_server() {
    let version = RoomVersionId::V10;
    let (room, fork) = TestRoom::new(&version);
    let content = json!({"membership": "join", "join_authorised_via_users_server": BOB});
    let join = room.build(&fork, TestRoom::template(ALICE, "m.room.member", Some(ALICE), &content));
    let error = check_received(join.json(), room.rules, &keys()).unwrap_err();
    assert_eq!(error, ReceiveError::Signature(SignatureError::Missing("two.test".to_owned())));
    let key = ServerSigningKey::from_seed("test", [7; 32]).unwrap();
    let signed = crate::build::add_signature(&join, ruma::server_name!("two.test"), &key).unwrap();
    check_received(signed.json(), room.rules, &keys()).unwrap();
}

#[test]
fn a_join_that_no_user_authorizes_is_malformed() {
    for value in [json!(5), json!("nobody")] {
        let content = json!({"membership": "join", "join_authorised_via_users_server": value});
        let member = json!({"type": "m.room.member", "state_key": ALICE, "content": content});
        for (version, is_accepted) in [(RoomVersionId::V7, true), (RoomVersionId::V8, false)] {
            let mut event = event(&version);
            event.as_object_mut().unwrap().extend(member.as_object().unwrap().clone());
            let unverified = UnverifiedPdu::parse(&event.to_string(), rules(&version).unwrap());
            assert_eq!(unverified.is_ok(), is_accepted, "room version {version}: {value}");
        }
    }
}

#[test]
fn the_room_of_any_event_can_be_peeked() {
    assert_eq!(peek_room_id(r#"{"room_id":"!r:x","x":1.5}"#).unwrap(), "!r:x");
    assert_eq!(peek_room_id(r#"{"room_id":5}"#), None);
    assert_eq!(peek_room_id("nonsense"), None);
}
