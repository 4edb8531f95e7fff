//! Events of other servers.

use std::{collections::BTreeSet, slice::from_ref, sync::Arc};

use myelin_events::{Pdu, rules};
use myelin_replication::Stream as _;
use myelin_rooms::{EventRow, EventStream, NotPlaced, Received, RoomError};
use myelin_types::{Position, StreamId};
use ruma::{OwnedEventId, RoomVersionId, events::StateEventType};
use serde_json::json;

use crate::{
    remote::{RITA, ROB, RON, RemoteRoom, named},
    world::{ALICE, BOB, World},
};

async fn receive(
    world: &World,
    room: &RemoteRoom,
    ids: &[&OwnedEventId],
) -> Vec<Result<Received, NotPlaced>> {
    let pdus = ids.iter().map(|id| room.received(id)).collect();
    let outcomes = world.rooms.receive(room.room_id(), pdus, room).await.unwrap();
    assert!(outcomes.iter().map(|(id, _)| id).eq(ids.iter().copied()), "in the order of the request");
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[tokio::test]
async fn a_room_of_another_server_can_be_joined_and_talked_in() {
    for version in myelin_events::SUPPORTED_ROOM_VERSIONS {
        let world = World::new().await;
        let mut room = RemoteRoom::new(version.clone(), 1);
        world.join_remote(&room).await;
        let room_id = room.room_id().to_owned();
        assert_eq!(world.stored_state(&room_id).await, named(&room.after[&room.last()]), "{version}");
        assert_eq!(world.timeline(&room_id).len(), 1, "the join alone");
        let join = room.last();
        assert_eq!(world.stored_state_before(&join).await, named(&room.before[&join]), "{version}");
        let hello = room.message(&[room.last()], ROB, "hello");
        assert_eq!(receive(&world, &room, &[&hello]).await, [Ok(Received::Accepted)]);
        assert_eq!(receive(&world, &room, &[&hello]).await, [Ok(Received::Known)]);
        let ours = world.say(ALICE, &room_id, "hello Rob").await.unwrap();
        let timeline = world.timeline(&room_id);
        assert_eq!(timeline.last().unwrap().prev_events(), [hello]);
        assert_eq!(*timeline.last().unwrap().event_id(), ours);
        world.join(BOB, &room_id).await.unwrap();
        let world = world.restart().await;
        world.say(BOB, &room_id, "still here").await.unwrap();
    }
}

#[tokio::test]
async fn a_join_that_the_told_state_does_not_allow_leaves_nothing_behind() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V10, 1);
    let answer = room.join_answer();
    room.next_state(ROB, "m.room.member", ALICE, json!({ "membership": "ban" }));
    let banned = room.last();
    let mut lie = room.join_answer();
    lie.state.push(room.received(&banned));
    lie.auth_chain.push(room.received(&room.order[4]));
    let refused = world.rooms.accept_join(lie).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    let mut other_version = room.join_answer();
    other_version.state.retain(|event| event.pdu.event_type().to_string() != "m.room.create");
    let refused = world.rooms.accept_join(other_version).await;
    assert!(matches!(refused, Err(RoomError::InvalidRoomState(_))), "{refused:?}");
    assert_eq!(world.count("SELECT count(*) FROM events").await, 0);
    world.rooms.accept_join(answer).await.unwrap();
}

#[tokio::test]
async fn only_a_join_of_a_user_of_ours_is_taken_for_one() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
    let robs_join = room.order[1].clone();
    let message = room.message(&[room.last()], ALICE, "hello");
    let leave = room.next_state(ALICE, "m.room.member", ALICE, json!({ "membership": "leave" }));
    let invite = room.next_state(ALICE, "m.room.member", BOB, json!({ "membership": "invite" }));
    let of_bob = room.next_state(ALICE, "m.room.member", BOB, json!({ "membership": "join" }));
    let topic = room.next_state(ALICE, "m.room.topic", ALICE, json!({ "membership": "join" }));
    for event_id in [robs_join, message, leave, invite, of_bob, topic] {
        let mut answer = room.join_answer();
        answer.event = room.received(&event_id);
        let refused = world.rooms.accept_join(answer).await;
        assert!(matches!(refused, Err(RoomError::InvalidRoomState(_))), "{refused:?}");
    }
    for version in [RoomVersionId::V10, RoomVersionId::V12] {
        let mut answer = room.join_answer();
        answer.room_version = version;
        let refused = world.rooms.accept_join(answer).await;
        assert!(matches!(refused, Err(RoomError::InvalidRoomState(_))), "{refused:?}");
    }
    let mut answer = room.join_answer();
    let other_rules = rules(&RoomVersionId::V10).unwrap();
    answer.event.pdu = Pdu::parse(answer.event.pdu.json(), other_rules).unwrap();
    let refused = world.rooms.accept_join(answer).await;
    assert!(matches!(refused, Err(RoomError::InvalidRoomState(_))), "{refused:?}");
    let mut answer = room.join_answer();
    answer.room_version = "unknown".try_into().unwrap();
    let refused = world.rooms.accept_join(answer).await;
    assert!(matches!(refused, Err(RoomError::UnsupportedVersion(_))), "{refused:?}");
    assert_eq!(world.count("SELECT count(*) FROM events").await, 0);
}

#[tokio::test]
async fn what_is_told_beside_a_join_counts_if_it_is_of_the_room_and_allowed() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
    let mut other = RemoteRoom::new(RoomVersionId::V11, 2);
    let join = room.last();
    let foreign = other.next_state(ROB, "m.room.topic", "", json!({ "topic": "of another room" }));
    let not_allowed =
        room.state(&[room.order[0].clone()], RON, "m.room.name", "", json!({ "name": "Ron's" }));
    let mut answer = room.join_answer();
    answer.state.extend([other.received(&foreign), room.received(&not_allowed)]);
    answer.auth_chain.extend(other.order.iter().map(|event_id| other.received(event_id)));
    world.rooms.accept_join(answer).await.unwrap();
    assert_eq!(world.stored_state(room.room_id()).await, named(&room.after[&join]));
}

#[tokio::test]
async fn the_state_before_a_join_has_what_the_user_was_until_then() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
    room.next_state(ALICE, "m.room.member", ALICE, json!({ "membership": "leave" }));
    let join = room.next_state(ALICE, "m.room.member", ALICE, json!({ "membership": "join" }));
    let mut answer = room.join_answer();
    answer.event = room.received(&join);
    answer.state = room.before[&join].values().map(|event_id| room.received(event_id)).collect();
    let others = room.order.iter().filter(|event_id| **event_id != join);
    answer.auth_chain = others.map(|event_id| room.received(event_id)).collect();
    world.rooms.accept_join(answer).await.unwrap();
    assert_eq!(world.stored_state_before(&join).await, named(&room.before[&join]));
    assert_eq!(world.stored_state(room.room_id()).await, named(&room.after[&join]));
}

#[tokio::test]
async fn a_join_that_was_told_beside_another_is_taken_in_later() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
    let alices = room.last();
    let bobs = room.next_state(BOB, "m.room.member", BOB, json!({ "membership": "join" }));
    let mut answer = room.join_answer();
    answer.event = room.received(&bobs);
    answer.state = room.before[&bobs].values().map(|event_id| room.received(event_id)).collect();
    world.rooms.accept_join(answer).await.unwrap();
    assert_eq!(world.timeline(room.room_id()).len(), 1);
    assert_eq!(world.rooms.accept_join(room.join_answer()).await.unwrap(), alices);
    assert_eq!(world.timeline(room.room_id()).len(), 2);
    assert_eq!(world.stored_state(room.room_id()).await, named(&room.after[&bobs]));
    assert_eq!(world.stored_state_before(&alices).await, named(&room.before[&alices]));
    let gaps = "SELECT count(*) FROM backward_extremities";
    assert_eq!(world.count(gaps).await, 1, "what comes before the first join is only known as state");
}

#[tokio::test]
async fn a_join_that_is_told_twice_happens_once_and_none_into_a_blocked_room() {
    let world = World::new().await;
    let room = RemoteRoom::new(RoomVersionId::V11, 1);
    world.join_remote(&room).await;
    let before = world.seen().len();
    let again = world.rooms.accept_join(room.join_answer()).await.unwrap();
    assert_eq!((again, world.seen().len()), (room.last(), before));
    world.rooms.set_blocked(room.room_id(), true).await.unwrap();
    let refused = world.rooms.accept_join(room.join_answer()).await;
    assert!(matches!(refused, Err(RoomError::Blocked)), "{refused:?}");
}

#[tokio::test]
async fn what_comes_before_an_event_is_asked_for() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
    world.join_remote(&room).await;
    for number in 0..70 {
        let last = room.last();
        match number % 7 {
            0 => _ = room.state(&[last], ROB, "m.room.topic", "", json!({ "topic": number })),
            _ => _ = room.message(&[last], ROB, &number.to_string()),
        }
    }
    assert_eq!(receive(&world, &room, &[&room.last()]).await, [Ok(Received::Accepted)]);
    let timeline: Vec<OwnedEventId> =
        world.timeline(room.room_id()).iter().map(|pdu| pdu.event_id().clone()).collect();
    assert_eq!(timeline, room.order[4..]);
    assert_eq!(world.stored_state(room.room_id()).await, named(&room.after[&room.last()]));
}

#[tokio::test]
async fn where_history_has_a_gap_the_state_is_asked_for_and_the_gap_can_be_closed_later() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V12, 1);
    world.join_remote(&room).await;
    let join = room.last();
    let lost_topic = room.next_state(ROB, "m.room.topic", "", json!({ "topic": "lost" }));
    let lost = room.message(from_ref(&lost_topic), ROB, "lost");
    room.next_state(RON, "m.room.member", RON, json!({ "membership": "join" }));
    let last = room.last();
    room.withhold(&lost);
    assert_eq!(receive(&world, &room, &[&last]).await, [Ok(Received::Accepted)]);
    assert_eq!(world.stored_state_before(&last).await, named(&room.before[&last]));
    assert_eq!(world.stored_state(room.room_id()).await, named(&room.after[&last]));
    let gaps = "SELECT count(*) FROM backward_extremities";
    // Before the join there are others.
    assert_eq!(world.count(gaps).await, 2);

    let world = world.restart().await;
    assert_eq!(receive(&world, &room, &[&lost]).await, [Ok(Received::Accepted)]);
    assert_eq!(world.count(gaps).await, 1);
    assert_eq!(world.stored_state_before(&lost).await, named(&room.before[&lost]));
    assert_eq!(world.stored_state(room.room_id()).await, named(&room.after[&last]));
    world.say(ALICE, room.room_id(), "one end").await.unwrap();
    let timeline = world.timeline(room.room_id());
    assert!(!timeline.last().unwrap().prev_events().contains(&lost), "it was passed long ago");
    assert!(timeline.last().unwrap().prev_events().contains(&last));
    assert!(!timeline.last().unwrap().prev_events().contains(&join));
}

#[tokio::test]
async fn events_that_can_not_be_placed_are_not_stored() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
    world.join_remote(&room).await;
    let other = RemoteRoom::new(RoomVersionId::V11, 2);
    let foreign = vec![other.received(&other.last())];
    let outcome = world.rooms.receive(room.room_id(), foreign, &room).await.unwrap();
    assert_eq!(outcome[0].1, Err(NotPlaced::OtherRoom));
    let unknown = world.rooms.receive(other.room_id(), vec![other.received(&other.last())], &room).await;
    assert!(matches!(unknown, Err(RoomError::UnknownRoom)), "{unknown:?}");

    let rita = room.next_state(RITA, "m.room.member", RITA, json!({ "membership": "join" }));
    let hello = room.message(&[room.last()], RITA, "hello");
    room.withhold(&rita);
    let before = world.count("SELECT count(*) FROM events").await;
    assert!(matches!(receive(&world, &room, &[&hello]).await[..], [Err(NotPlaced::MissingAuthEvents)]));
    assert_eq!(world.count("SELECT count(*) FROM events").await, before);
    room.withheld.lock().unwrap().clear();
    assert_eq!(receive(&world, &room, &[&hello]).await, [Ok(Received::Accepted)]);
}

#[tokio::test]
async fn rejected_events_are_remembered_and_count_for_nothing() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
    world.join_remote(&room).await;
    let join = room.last();
    let name = room.state(from_ref(&join), ALICE, "m.room.name", "", json!({ "name": "mine" }));
    let after = room.message(from_ref(&name), ROB, "after it");
    let outcomes = receive(&world, &room, &[&after, &name]).await;
    assert!(matches!(&outcomes[..], [Ok(Received::Accepted), Ok(Received::Rejected(_))]), "{outcomes:?}");
    let timeline = world.timeline(room.room_id());
    assert_eq!(timeline.len(), 2, "the join and what came after the rejected event");
    assert!(world.state(room.room_id(), "m.room.name", "").is_none());
    world.say(ALICE, room.room_id(), "on").await.unwrap();
    assert_eq!(world.timeline(room.room_id()).last().unwrap().prev_events(), [after]);
}

#[tokio::test]
async fn what_only_the_current_state_forbids_fails_softly() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
    world.join_remote(&room).await;
    let ron = room.next_state(RON, "m.room.member", RON, json!({ "membership": "join" }));
    let ban = room.state(from_ref(&ron), ROB, "m.room.member", RON, json!({ "membership": "ban" }));
    let evasion = room.message(from_ref(&ron), RON, "I don't know of the ban");
    assert_eq!(receive(&world, &room, &[&ban]).await, [Ok(Received::Accepted)]);
    assert_eq!(receive(&world, &room, &[&evasion]).await, [Ok(Received::SoftFailed)]);
    assert!(world.timeline(room.room_id()).iter().all(|pdu| *pdu.event_id() != evasion));
    // Who builds on it makes it part of the history, and of no timeline.
    let next = room.message(&[evasion.clone(), ban.clone()], ROB, "next");
    assert_eq!(receive(&world, &room, &[&next]).await, [Ok(Received::Accepted)]);
    world.say(ALICE, room.room_id(), "on").await.unwrap();
    assert_eq!(world.timeline(room.room_id()).last().unwrap().prev_events(), [next]);
    assert_eq!(world.stored_state_before(&evasion).await, named(&room.before[&evasion]));
}

#[tokio::test]
async fn branches_share_the_delta_of_their_state_and_are_tied_up_by_our_events() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V12, 1);
    world.join_remote(&room).await;
    let fork = room.last();
    let topic = room.state(from_ref(&fork), ROB, "m.room.topic", "", json!({ "topic": "main" }));
    let mut branch = room.state(from_ref(&fork), ROB, "m.room.name", "", json!({ "name": "branch" }));
    let mut events = vec![topic.clone(), branch.clone()];
    for number in 0..5 {
        branch = room.message(&[branch], ROB, &number.to_string());
        events.push(branch.clone());
    }
    let outcomes = receive(&world, &room, &events.iter().collect::<Vec<_>>()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Ok(Received::Accepted)));
    for event_id in &events {
        assert_eq!(world.stored_state_before(event_id).await, named(&room.before[event_id]));
    }
    let deltas = world.count("SELECT count(*) FROM state_deltas").await;
    assert_eq!(deltas, 2, "one for the join, one for the whole branch");
    let ends = [topic, branch];
    assert_eq!(world.stored_state(room.room_id()).await, named(&room.resolve(&ends)));
    let world = world.restart().await;
    world.say(ALICE, room.room_id(), "together").await.unwrap();
    let mut prev_events = world.timeline(room.room_id()).last().unwrap().prev_events().to_vec();
    prev_events.sort();
    let mut expected = ends.to_vec();
    expected.sort();
    assert_eq!(prev_events, expected);
}

#[tokio::test]
async fn too_many_forward_extremities_are_tied_up() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
    world.join_remote(&room).await;
    let fork = room.last();
    let ends: Vec<OwnedEventId> =
        (0..12).map(|number| room.message(from_ref(&fork), ROB, &number.to_string())).collect();
    receive(&world, &room, &ends.iter().collect::<Vec<_>>()).await;
    let last = world.timeline(room.room_id()).pop().unwrap();
    assert_eq!(last.event_type().to_string(), "org.matrix.dummy_event");
    assert_eq!(last.prev_events().len(), 12);
}

#[tokio::test]
async fn a_redaction_and_its_target_may_come_in_any_order() {
    for redaction_first in [false, true] {
        let world = World::new().await;
        let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
        world.join_remote(&room).await;
        let fork = room.last();
        let secret = room.message(from_ref(&fork), ROB, "secret");
        let content = crate::world::raw(&json!({}));
        let template =
            myelin_events::EventTemplate::redaction(crate::world::user(ROB), secret.clone(), content);
        let redaction = room.add(&[fork], template);
        let order = if redaction_first { [&redaction, &secret] } else { [&secret, &redaction] };
        for event_id in order {
            assert_eq!(receive(&world, &room, &[event_id]).await, [Ok(Received::Accepted)]);
        }
        let redacted = world.count("SELECT count(*) FROM events WHERE redacted_by IS NOT NULL").await;
        assert_eq!(redacted, 1, "redaction first: {redaction_first}");
        assert_eq!(world.count("SELECT count(*) FROM events WHERE json LIKE '%secret%'").await, 0);
        assert_eq!(world.count("SELECT count(*) FROM relations").await, 0, "nothing waits any more");
    }
}

#[tokio::test]
async fn a_room_that_was_left_and_joined_again_is_what_it_is_now() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
    world.join_remote(&room).await;
    let left = room.next_state(ALICE, "m.room.member", ALICE, json!({ "membership": "leave" }));
    receive(&world, &room, &[&left]).await;
    room.next_state(ROB, "m.room.topic", "", json!({ "topic": "meanwhile" }));
    room.message(&[room.last()], ROB, "meanwhile");
    let join = room.next_state(ALICE, "m.room.member", ALICE, json!({ "membership": "join" }));
    let mut answer = room.join_answer();
    answer.event = room.received(&join);
    answer.state = room.before[&join].values().map(|id| room.received(id)).collect();
    answer.auth_chain = answer.state.iter().map(|event| room.received(event.pdu.event_id())).collect();
    world.rooms.accept_join(answer).await.unwrap();
    assert_eq!(world.stored_state(room.room_id()).await, named(&room.after[&join]));
    world.say(ALICE, room.room_id(), "back").await.unwrap();
    assert_eq!(world.timeline(room.room_id()).last().unwrap().prev_events(), [join]);
    let topic = room.after[&room.last()].get(&(StateEventType::RoomTopic, String::new()));
    assert_eq!(world.state(room.room_id(), "m.room.topic", "").unwrap().event_id(), topic.unwrap());
}

#[tokio::test]
async fn forward_extremities_that_do_not_fit_into_one_event_are_left_for_the_next() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V10, 1);
    world.join_remote(&room).await;
    let levels = |events_default: u32| json!({ "users": { ROB: 100 }, "events_default": events_default });
    let quiet = room.next_state(ROB, "m.room.power_levels", "", levels(50));
    let mut events = vec![quiet.clone()];
    for number in 0..25 {
        events.push(room.message(from_ref(&quiet), ROB, &number.to_string()));
    }
    // Nobody here may tie them up before this.
    events.push(room.state(from_ref(&quiet), ROB, "m.room.power_levels", "", levels(0)));
    for event_id in &events[..26] {
        receive(&world, &room, &[event_id]).await;
    }
    let refused = world.say(ALICE, room.room_id(), "may I?").await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    receive(&world, &room, &[&events[26]]).await;
    let world = world.restart().await;
    world.say(ALICE, room.room_id(), "the rest").await.unwrap();
    world.say(ALICE, room.room_id(), "one end").await.unwrap();
    let timeline = world.timeline(room.room_id());
    let counts: Vec<usize> = timeline.iter().map(|pdu| pdu.prev_events().len()).collect();
    assert_eq!(counts, [7, 1], "20 of 26 were tied up before the restart");
}

#[tokio::test]
async fn a_feed_that_catches_up_is_told_what_forks_did() {
    let world = World::new().await;
    let mut room = RemoteRoom::new(RoomVersionId::V11, 1);
    world.join_remote(&room).await;
    for name in [RITA, RON] {
        room.next_state(name, "m.room.member", name, json!({ "membership": "join" }));
    }
    let fork = room.last();
    let topic = room.state(from_ref(&fork), RON, "m.room.topic", "", json!({ "topic": "banned" }));
    let ban = room.state(from_ref(&fork), ROB, "m.room.member", RON, json!({ "membership": "ban" }));
    let name = room.state(from_ref(&fork), ROB, "m.room.name", "", json!({ "name": "n" }));
    for event_id in [&topic, &ban, &name] {
        assert_eq!(receive(&world, &room, &[event_id]).await, [Ok(Received::Accepted)]);
    }
    assert!(world.state(room.room_id(), "m.room.topic", "").is_none(), "the ban took it away");
    let seen: Vec<_> = world.seen().into_iter().filter(|row| row.row.timeline).collect();
    let client = world.database.get().await.unwrap();
    let upto = Position::at(seen.last().unwrap().id);
    let read = EventStream::since(&client, &Position::at(StreamId::ZERO), &upto, 1000).await.unwrap();
    assert_eq!(read.len(), seen.len());
    for (read, seen) in read.iter().zip(&seen) {
        assert_eq!(read.row.pdu.json(), seen.row.pdu.json());
        let changes = |row: &EventRow| -> BTreeSet<_> {
            let id = |event: &Option<Arc<Pdu>>| event.as_ref().map(|event| event.event_id().clone());
            let changes = row.state_changes.iter();
            changes
                .map(|change| {
                    let key = (change.event_type.to_string(), change.state_key.clone());
                    (key, id(&change.event), id(&change.replaced))
                })
                .collect()
        };
        assert_eq!(changes(&read.row), changes(&seen.row));
    }
}
