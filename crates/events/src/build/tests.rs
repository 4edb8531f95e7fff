use ruma::{RoomVersionId, UInt};

use super::*;
use crate::{
    SUPPORTED_ROOM_VERSIONS, check_received,
    limits::MAX_CANONICAL_INTEGER,
    rules,
    test_events::{ALICE, KEY, TestRoom, keys, raw, user},
};

fn context(version: &RoomVersionId) -> EventContext<'static> {
    EventContext {
        rules: rules(version).unwrap(),
        room_id: Some(ruma::room_id!("!room:one.test")),
        prev_events: &[],
        auth_events: &[],
        depth: 5,
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(1000u32)),
        key: &KEY,
    }
}

fn message(content: &str) -> EventTemplate {
    EventTemplate::message(user(ALICE), TimelineEventType::RoomMessage, raw(content))
}

#[test]
fn other_servers_accept_what_we_build_in_every_room_version() {
    for version in SUPPORTED_ROOM_VERSIONS {
        let (room, _) = TestRoom::new(&version);
        for event in room.events.values() {
            let received = check_received(event.json(), room.rules, &keys()).unwrap();
            assert!(!received.is_redacted, "room version {version}: {event:?}");
            assert_eq!(received.pdu.event_id(), event.event_id());
            assert_eq!(received.pdu.json(), event.json());
        }
    }
}

#[test]
fn the_id_has_the_form_of_the_room_version() {
    let id = |version| build(message("{}"), &context(&version)).unwrap().event_id().clone();
    assert_eq!(id(RoomVersionId::V1).server_name().unwrap(), "one.test");
    assert_eq!(id(RoomVersionId::V2).server_name().unwrap(), "one.test");
    for version in SUPPORTED_ROOM_VERSIONS.into_iter().skip(2) {
        assert_eq!(id(version).as_str().len(), 44);
    }
}

#[test]
fn the_target_of_a_redaction_is_put_where_the_room_version_wants_it() {
    let template =
        EventTemplate::redaction(user(ALICE), "$x".try_into().unwrap(), raw(r#"{"reason":"spam"}"#));
    let old = build(template.clone(), &context(&RoomVersionId::V10)).unwrap();
    assert_eq!(old.content(), r#"{"reason":"spam"}"#);
    assert_eq!(old.redacts().unwrap(), "$x");
    let new = build(template, &context(&RoomVersionId::V11)).unwrap();
    assert_eq!(new.content(), r#"{"reason":"spam","redacts":"$x"}"#);
    assert_eq!(new.redacts().unwrap(), "$x");
}

#[track_caller]
fn check_refused(template: EventTemplate, version: RoomVersionId, expected: impl Fn(&BuildError) -> bool) {
    let error = build(template, &context(&version)).unwrap_err();
    assert!(expected(&error), "{error}");
}

#[test]
fn content_must_be_a_canonical_json_object() {
    for content in ["[]", "1", r#"{"a":1.5}"#, r#"{"a":9007199254740992}"#, r#"{"a":-0}"#] {
        for version in [RoomVersionId::V1, RoomVersionId::V12] {
            check_refused(message(content), version, |error| matches!(error, BuildError::NotCanonical(_)));
        }
    }
}

#[test]
fn sizes_are_limited() {
    let version = RoomVersionId::V11;
    let body = |length| message(&format!(r#"{{"body":"{}"}}"#, "x".repeat(length)));
    let overhead = build(body(0), &context(&version)).unwrap().json().len();
    build(body(MAX_PDU_BYTES - overhead), &context(&version)).unwrap();
    check_refused(body(MAX_PDU_BYTES - overhead + 1), version.clone(), |error| {
        *error == BuildError::TooLarge(MAX_PDU_BYTES + 1)
    });
    // 128 characters, but 256 bytes.
    let template = EventTemplate::state(user(ALICE), "x".into(), "ü".repeat(128), raw("{}"));
    check_refused(template, version.clone(), |error| *error == BuildError::FieldTooLong("state_key"));
    let template = EventTemplate::message(user(ALICE), "t".repeat(256).into(), raw("{}"));
    check_refused(template, version.clone(), |error| *error == BuildError::FieldTooLong("type"));
    let template = EventTemplate::state(user(ALICE), "x".into(), "a\0b", raw("{}"));
    check_refused(template, version, |error| *error == BuildError::Nul("state_key"));
}

#[test]
fn an_impossible_context_is_an_error() {
    let by_id = [EventReference::by_id("$x:one.test".try_into().unwrap())];
    let old = EventContext { prev_events: &by_id, ..context(&RoomVersionId::V2) };
    assert!(matches!(build(message("{}"), &old), Err(BuildError::MissingReferenceHash(_))));
    let deep = EventContext { depth: MAX_CANONICAL_INTEGER + 1, ..context(&RoomVersionId::V11) };
    assert!(matches!(build(message("{}"), &deep), Err(BuildError::Context(_))));
    let homeless = EventContext { room_id: None, ..context(&RoomVersionId::V11) };
    assert!(matches!(build(message("{}"), &homeless), Err(BuildError::Context(_))));
    let many = vec![EventReference::by_id("$x".try_into().unwrap()); MAX_PREV_EVENTS + 1];
    let wide = EventContext { prev_events: &many, ..context(&RoomVersionId::V11) };
    assert!(matches!(build(message("{}"), &wide), Err(BuildError::Context(_))));
}

#[test]
fn another_server_can_add_its_signature() {
    let pdu = build(message("{}"), &context(&RoomVersionId::V11)).unwrap();
    let other_key = ServerSigningKey::from_seed("other", [1; 32]).unwrap();
    let signed = add_signature(&pdu, ruma::server_name!("two.test"), &other_key).unwrap();
    assert_eq!(signed.event_id(), pdu.event_id());
    assert!(signed.json().contains(r#""two.test":{"ed25519:other""#));
    check_received(signed.json(), signed.rules(), &keys()).unwrap();
}

/// The event signing [test vectors](https://spec.matrix.org/v1.19/appendices/#event-signing).
#[test]
fn events_are_signed_as_the_test_vectors_of_the_specification() {
    let key = ServerSigningKey::parse("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap();
    let rules = rules(&RoomVersionId::V1).unwrap();
    for (json, hash, signature) in [
        (
            r#"{"room_id":"!x:domain","sender":"@a:domain","origin":"domain","origin_server_ts":1000000,"signatures":{},"hashes":{},"type":"X","content":{},"prev_events":[],"auth_events":[],"depth":3,"unsigned":{"age_ts":1000000}}"#,
            "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            r#"{"content":{"body":"Here is the message content"},"event_id":"$0:domain","origin":"domain","origin_server_ts":1000000,"type":"m.room.message","room_id":"!r:domain","sender":"@u:domain","signatures":{},"unsigned":{"age_ts":1000000}}"#,
            "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ] {
        let mut object = EventObject::parse(json, rules).unwrap();
        hash_and_sign(&mut object, rules, ruma::server_name!("domain"), &key).unwrap();
        let signed: serde_json::Value = serde_json::from_str(&object.to_json()).unwrap();
        assert_eq!(signed["hashes"]["sha256"], hash);
        assert_eq!(signed["signatures"]["domain"]["ed25519:1"], signature);
    }
}
