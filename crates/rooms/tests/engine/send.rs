//! Sending, repeating, redacting; and commits that fail.

use futures_util::future::join_all;
use myelin_replication::WriteError;
use myelin_rooms::{RedactEvent, RoomError};
use ruma::{RoomVersionId, event_id};
use serde_json::{Map, json};

use crate::world::{ALICE, BOB, CAROL, World, message, user};

#[tokio::test]
async fn concurrent_sends_of_one_room_share_commits_and_have_one_order() {
    let world = World::new().await;
    let room_id = world.room().await;
    let before = world.timeline(&room_id).len();
    let sends = (0..200).map(|number| world.rooms.send(message(ALICE, &room_id, &number.to_string())));
    let sent: Vec<_> = join_all(sends).await.into_iter().map(Result::unwrap).collect();
    let timeline = world.timeline(&room_id);
    assert_eq!(timeline.len(), before + 200);
    for event_id in &sent {
        assert_eq!(timeline.iter().filter(|event| event.event_id() == event_id).count(), 1);
    }
    for pair in timeline.windows(2) {
        assert_eq!(pair[1].prev_events(), [pair[0].event_id().clone()], "a chain without forks");
    }
    // Rows of one transaction have the same xmin.
    let commits = world.count("SELECT count(DISTINCT xmin::text) FROM events").await;
    assert!(commits < 40, "200 sends took {commits} commits");
}

#[tokio::test]
async fn a_transaction_id_makes_one_event_also_after_a_restart() {
    let world = World::new().await;
    let room_id = world.room().await;
    let mut request = message(ALICE, &room_id, "once");
    request.txn_id = Some("txn".into());
    let both = join_all([world.rooms.send(request.clone()), world.rooms.send(request.clone())]).await;
    let first = both[0].clone().unwrap();
    assert_eq!(both[1].clone().unwrap(), first);
    let mut other_device = request.clone();
    other_device.device_id = Some("OTHER".into());
    assert_ne!(world.rooms.send(other_device).await.unwrap(), first);
    let world = world.restart().await;
    assert_eq!(world.rooms.send(request).await.unwrap(), first);
}

#[tokio::test]
async fn state_that_says_nothing_new_is_not_sent_again() {
    let world = World::new().await;
    let room_id = world.room().await;
    let first = world.set(ALICE, &room_id, "m.room.topic", "", json!({"topic": "a", "x": 1})).await.unwrap();
    let again = world.set(ALICE, &room_id, "m.room.topic", "", json!({"x": 1, "topic": "a"})).await.unwrap();
    assert_eq!(again, first);
    let other = world.set(ALICE, &room_id, "m.room.topic", "", json!({"topic": "b"})).await.unwrap();
    assert_ne!(other, first);
}

#[tokio::test]
async fn who_is_not_in_a_room_or_lacks_the_power_is_refused() {
    let world = World::new().await;
    let room_id = world.room().await;
    let refused = world.say(BOB, &room_id, "hello").await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    world.join(BOB, &room_id).await.unwrap();
    world.say(BOB, &room_id, "hello").await.unwrap();
    let refused = world.set(BOB, &room_id, "m.room.name", "", json!({"name": "mine"})).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    let refused = world.set(ALICE, &room_id, "m.room.power_levels", "", json!({"ban": "50"})).await;
    assert!(matches!(refused, Err(RoomError::BadJson(_))), "{refused:?}");
    let large = world.say(ALICE, &room_id, &"x".repeat(70_000)).await;
    assert!(matches!(large, Err(RoomError::TooLarge(_))), "{large:?}");
    let unknown = world.say(ALICE, ruma::room_id!("!none:one.test"), "hello").await;
    assert!(matches!(unknown, Err(RoomError::UnknownRoom)), "{unknown:?}");
}

/// Has the commit of an event fail that says "poison".
const REFUSE_POISON: &str = "
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF NEW.json LIKE '%poison%' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()";

#[tokio::test]
async fn who_repeats_what_is_not_committed_yet_is_not_told_that_it_is_there() {
    let world = World::new().await;
    let room_id = world.room().await;
    world.execute(REFUSE_POISON).await;
    let mut request = message(ALICE, &room_id, "poison");
    request.txn_id = Some("txn".into());
    let sent = join_all((0..10).map(|_| world.rooms.send(request.clone()))).await;
    assert!(sent.iter().all(Result::is_err), "{sent:?}");
    let topic = || world.set(ALICE, &room_id, "m.room.topic", "", json!({"topic": "poison"}));
    let set = join_all((0..10).map(|_| topic())).await;
    assert!(set.iter().all(Result::is_err), "{set:?}");
}

#[tokio::test]
async fn what_is_built_on_a_failed_commit_is_discarded_and_can_be_sent_again() {
    let world = World::new().await;
    let (room_id, other) = (world.room().await, world.room().await);
    world.execute(REFUSE_POISON).await;
    let bodies: Vec<String> =
        (0..40).map(|number| if number == 20 { "poison".to_owned() } else { number.to_string() }).collect();
    let sends = bodies.iter().map(|body| {
        let mut request = message(ALICE, &room_id, body);
        request.txn_id = Some(body.as_str().into());
        world.rooms.send(request)
    });
    let elsewhere = (0..20).map(|number| world.rooms.send(message(ALICE, &other, &number.to_string())));
    let (sent, elsewhere) = tokio::join!(join_all(sends), join_all(elsewhere));
    assert!(elsewhere.iter().all(Result::is_ok), "other rooms don't suffer: {elsewhere:?}");
    assert!(matches!(sent[20], Err(RoomError::Unavailable(_))), "{:?}", sent[20]);
    assert!(sent.iter().any(Result::is_ok), "what came before stands");
    for (number, outcome) in sent.iter().enumerate().filter(|(number, _)| *number != 20) {
        let built_on_it = matches!(outcome, Err(RoomError::Unavailable(WriteError::Superseded)));
        assert!(outcome.is_ok() || built_on_it, "{number}: {outcome:?}");
    }

    for (body, first) in bodies.iter().zip(&sent).filter(|(body, _)| *body != "poison") {
        let mut request = message(ALICE, &room_id, body);
        request.txn_id = Some(body.as_str().into());
        let again = world.rooms.send(request).await.unwrap();
        if let Ok(first) = first {
            assert_eq!(again, *first, "what was answered 200 was written");
        }
    }
    let timeline = world.timeline(&room_id);
    let said: Vec<_> = timeline.iter().filter(|event| event.content().contains("body")).collect();
    assert_eq!(said.len(), 39, "each once");
    for pair in timeline.windows(2) {
        assert_eq!(pair[1].prev_events(), [pair[0].event_id().clone()], "nothing builds on what never was");
    }
}

fn redaction(sender: &str, room_id: &ruma::RoomId, event_id: &ruma::EventId) -> RedactEvent {
    RedactEvent {
        sender: user(sender),
        device_id: None,
        room_id: room_id.to_owned(),
        event_id: event_id.to_owned(),
        reason: Some("spam".to_owned()),
        content: Map::new(),
        txn_id: None,
        timestamp: None,
    }
}

#[tokio::test]
async fn redactions_take_content_away_from_the_database_and_the_state() {
    for version in [RoomVersionId::V10, RoomVersionId::V12] {
        let world = World::new().await;
        let room_id = world.room_of_version(version).await;
        world.join(BOB, &room_id).await.unwrap();
        let secret = world.say(BOB, &room_id, "secret").await.unwrap();
        world.join(CAROL, &room_id).await.unwrap();
        let refused = world.rooms.redact(redaction(CAROL, &room_id, &secret)).await;
        assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
        let missing = world.rooms.redact(redaction(BOB, &room_id, event_id!("$none"))).await;
        assert!(matches!(missing, Err(RoomError::UnknownEvent)), "{missing:?}");
        world.rooms.redact(redaction(BOB, &room_id, &secret)).await.unwrap();
        assert_eq!(world.count("SELECT count(*) FROM events WHERE json LIKE '%secret%'").await, 0);
        assert_eq!(world.count("SELECT count(*) FROM events WHERE redacted_by IS NOT NULL").await, 1);
        let last = world.seen().pop().unwrap().row;
        assert_eq!(last.redacts.unwrap().pdu.content(), "{}");

        let topic = world.set(ALICE, &room_id, "m.room.topic", "", json!({"topic": "t"})).await.unwrap();
        world.rooms.redact(redaction(ALICE, &room_id, &topic)).await.unwrap();
        let again = world.set(ALICE, &room_id, "m.room.topic", "", json!({"topic": "t"})).await.unwrap();
        assert_ne!(again, topic, "the redacted topic says nothing any more");
    }
}
