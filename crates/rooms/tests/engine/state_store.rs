//! What the state store holds, and what it costs.

use myelin_replication::Stream as _;
use myelin_rooms::{EventStream, MembershipAction};
use myelin_storage::{query, state, strings::Strings};
use myelin_types::{Position, StreamId};
use serde_json::json;

use crate::world::{ALICE, World};

#[expect(clippy::print_stdout, reason = "the figure is what it is for")]
#[tokio::test]
async fn a_membership_change_takes_few_bytes_of_state() {
    // Tables grow by pages of 8 KiB: that many changes, for a page more or less to be a few bytes for each.
    const CHANGES: i64 = 1_500;
    let world = World::new().await;
    let room_id = world.room().await;
    let size = "
        SELECT sum(pg_relation_size(c.oid))::bigint FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
         WHERE coalesce(i.indrelid, c.oid)
            IN ('room_state'::regclass, 'room_state_past'::regclass, 'state_deltas'::regclass)";
    let before = world.count(size).await;
    for number in 0..CHANGES / 2 {
        let member = format!("@user{number}:one.test");
        world.join(&member, &room_id).await.unwrap();
        world.change(&member, &room_id, MembershipAction::Leave, &member).await.unwrap();
    }
    let per_change = (world.count(size).await - before) / CHANGES;
    println!("{per_change} bytes of state per membership change");
    assert!(per_change <= 220, "{per_change} bytes per membership change");
}

#[tokio::test]
async fn every_past_state_can_be_read() {
    let world = World::new().await;
    let room_id = world.room().await;
    for number in 0..5 {
        world.set(ALICE, &room_id, "m.room.topic", "", json!({ "topic": number.to_string() })).await.unwrap();
        world.say(ALICE, &room_id, "in between").await.unwrap();
    }
    let client = world.database.get().await.unwrap();
    let strings = Strings::new(100);
    let topic = strings.intern(&client, "m.room.topic").await.unwrap();
    let key = strings.intern(&client, "").await.unwrap();
    let mut held = None;
    for row in world.seen() {
        let at = state::list_state_at(&client, row.row.room_nid.0, row.id).await.unwrap();
        let change =
            row.row.state_changes.iter().find(|change| change.event_type.to_string() == "m.room.topic");
        if change.is_some() {
            held = Some(row.row.nid.0);
        }
        let whole = at.iter().find(|state| state.type_sid == topic).map(|state| state.event_nid);
        let single =
            state::list_state_keys_at(&client, row.row.room_nid.0, row.id, &[topic], &[key]).await.unwrap();
        assert_eq!(whole, held, "after {}", row.id);
        assert_eq!(single.first().map(|state| state.event_nid), held, "after {}", row.id);
    }
    let current = state::list_current_state(&client, world.seen()[0].row.room_nid.0).await.unwrap();
    assert!(current.iter().any(|state| Some(state.event_nid) == held));
}

#[tokio::test]
async fn a_feed_that_catches_up_is_told_the_same() {
    let world = World::new().await;
    let room_id = world.room().await;
    let relation =
        json!({"m.relates_to": {"rel_type": "m.thread", "event_id": "$root"}, "body": "b", "url": "u"});
    let mut request = crate::world::message(ALICE, &room_id, "");
    request.content = crate::world::raw(&relation);
    request.txn_id = Some("txn".into());
    let event_id = world.rooms.send(request).await.unwrap();
    let redaction = myelin_rooms::RedactEvent {
        sender: crate::world::user(ALICE),
        device_id: None,
        room_id: room_id.clone(),
        event_id,
        reason: None,
        content: serde_json::Map::new(),
        txn_id: None,
        timestamp: None,
    };
    world.set(ALICE, &room_id, "m.room.topic", "", json!({"topic": "one"})).await.unwrap();
    world.set(ALICE, &room_id, "m.room.topic", "", json!({"topic": "two"})).await.unwrap();
    let before = world.seen();
    let client = world.database.get().await.unwrap();
    let read = async || {
        let upto = Position::at(before.last().unwrap().id);
        EventStream::since(&client, &Position::at(StreamId::ZERO), &upto, 1000).await.unwrap()
    };
    let told =
        |rows: &[myelin_replication::Stamped<myelin_rooms::EventRow>]| serde_json::to_string(rows).unwrap();
    assert_eq!(told(&read().await), told(&before));
    // What travels between processes is the same again.
    let travelled: Vec<myelin_replication::Stamped<myelin_rooms::EventRow>> =
        serde_json::from_str(&told(&before)).unwrap();
    assert_eq!(told(&travelled), told(&before));

    world.rooms.redact(redaction).await.unwrap();
    let last = world.seen().pop().unwrap();
    let read =
        EventStream::since(&client, &Position::at(before.last().unwrap().id), &Position::at(last.id), 10)
            .await
            .unwrap();
    let redacted = read[0].row.redacts.as_ref().unwrap();
    assert_eq!(redacted.pdu.json(), last.row.redacts.unwrap().pdu.json());
    let relations = query(&client, "SELECT 1 FROM relations", &[]).await.unwrap();
    assert!(relations.is_empty(), "a redacted event points at nothing");
}
