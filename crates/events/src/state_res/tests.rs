use proptest::prelude::*;
use ruma::{RoomVersionId, events::StateEventType};
use serde_json::json;

use super::*;
use crate::{
    SUPPORTED_ROOM_VERSIONS,
    test_events::{ALICE, BOB, CAROL, Fork, TestRoom},
};

/// A room where Bob is a moderator and Carol a member.
fn moderated_room(version: &RoomVersionId) -> (TestRoom, Fork) {
    let (mut room, mut fork) = TestRoom::new(version);
    room.member(&mut fork, BOB, BOB, "join");
    room.member(&mut fork, CAROL, CAROL, "join");
    let levels = with_creator(&room, json!({"users": {BOB: 50}}));
    room.state(&mut fork, ALICE, "m.room.power_levels", "", levels);
    (room, fork)
}

/// Power levels that keep Alice at 100, where she isn't above all levels anyway.
fn with_creator(room: &TestRoom, mut levels: serde_json::Value) -> serde_json::Value {
    if !room.rules.authorization.explicitly_privilege_room_creators {
        levels["users"][ALICE] = json!(100);
    }
    levels
}

fn resolved(room: &TestRoom, forks: &[&Fork]) -> StateMap<OwnedEventId> {
    let states: Vec<_> = forks.iter().map(|fork| fork.state.clone()).collect();
    let result = resolve(room.rules, &states, room.fetch()).unwrap();
    let reversed: Vec<_> = states.into_iter().rev().collect();
    assert_eq!(result, resolve(room.rules, &reversed, room.fetch()).unwrap(), "the order of states matters");
    result
}

fn get(
    room: &TestRoom,
    state: &StateMap<OwnedEventId>,
    event_type: &str,
    key: &str,
) -> Option<serde_json::Value> {
    room.lookup(state)(&StateEventType::from(event_type), key).map(|event| event.content_as().unwrap())
}

#[test]
fn the_later_of_two_topics_wins() {
    for version in SUPPORTED_ROOM_VERSIONS {
        let (mut room, base) = moderated_room(&version);
        let (mut left, mut right) = (base.clone(), base);
        room.state(&mut left, ALICE, "m.room.topic", "", json!({"topic": "first"}));
        room.message(&mut right, ALICE, "to be deeper");
        room.state(&mut right, BOB, "m.room.topic", "", json!({"topic": "second"}));
        let state = resolved(&room, &[&left, &right]);
        assert_eq!(
            get(&room, &state, "m.room.topic", ""),
            Some(json!({"topic": "second"})),
            "room version {version}"
        );
    }
}

#[test]
fn state_that_only_one_side_has_is_kept_if_it_is_allowed() {
    for version in SUPPORTED_ROOM_VERSIONS {
        let (mut room, base) = moderated_room(&version);
        let (mut left, mut right) = (base.clone(), base);
        room.state(&mut left, ALICE, "m.room.name", "", json!({"name": "Tea"}));
        room.state(&mut right, ALICE, "m.room.topic", "", json!({"topic": "Milk first?"}));
        let state = resolved(&room, &[&left, &right]);
        assert!(get(&room, &state, "m.room.name", "").is_some(), "room version {version}");
        assert!(get(&room, &state, "m.room.topic", "").is_some(), "room version {version}");
    }
}

#[test]
fn a_ban_beats_what_the_banned_did_at_the_same_time() {
    // Room version 1 doesn't know this: a topic that nothing conflicts with stays.
    for version in SUPPORTED_ROOM_VERSIONS.into_iter().skip(1) {
        let (mut room, base) = moderated_room(&version);
        let (mut left, mut right) = (base.clone(), base);
        room.member(&mut left, ALICE, BOB, "ban");
        room.state(&mut right, BOB, "m.room.topic", "", json!({"topic": "mutiny"}));
        room.member(&mut right, BOB, CAROL, "ban");
        let state = resolved(&room, &[&left, &right]);
        assert_eq!(
            get(&room, &state, "m.room.member", BOB).unwrap()["membership"],
            "ban",
            "room version {version}"
        );
        assert_eq!(
            get(&room, &state, "m.room.member", CAROL).unwrap()["membership"],
            "join",
            "room version {version}"
        );
        assert_eq!(get(&room, &state, "m.room.topic", ""), None, "room version {version}");
    }
}

#[test]
fn power_levels_of_the_more_powerful_count_for_the_rest() {
    for version in SUPPORTED_ROOM_VERSIONS.into_iter().skip(1) {
        let (mut room, base) = moderated_room(&version);
        let (mut left, mut right) = (base.clone(), base);
        let demotion = with_creator(&room, json!({"users": {}}));
        room.state(&mut left, ALICE, "m.room.power_levels", "", demotion.clone());
        let promotion = with_creator(&room, json!({"users": {BOB: 50, CAROL: 50}}));
        room.state(&mut right, BOB, "m.room.power_levels", "", promotion);
        room.state(&mut right, CAROL, "m.room.name", "", json!({"name": "Carol's"}));
        let state = resolved(&room, &[&left, &right]);
        assert_eq!(get(&room, &state, "m.room.power_levels", ""), Some(demotion), "room version {version}");
        assert_eq!(get(&room, &state, "m.room.name", ""), None, "room version {version}");
    }
}

#[test]
fn room_version_1_goes_by_depth_and_the_rules() {
    let (mut room, base) = moderated_room(&RoomVersionId::V1);
    let (mut left, mut right) = (base.clone(), base);
    // Shallow, but allowed: the levels that everything else must pass.
    let demotion = with_creator(&room, json!({"users": {}}));
    room.state(&mut left, ALICE, "m.room.power_levels", "", demotion.clone());
    room.state(&mut left, ALICE, "m.room.topic", "", json!({"topic": "Alice's"}));
    // Deeper, but by Bob, who has lost his power when the first of the list is in the state.
    room.message(&mut right, BOB, "deeper");
    let promotion = with_creator(&room, json!({"users": {BOB: 50, CAROL: 50}}));
    room.state(&mut right, BOB, "m.room.power_levels", "", promotion);
    room.state(&mut right, BOB, "m.room.topic", "", json!({"topic": "Bob's"}));
    let state = resolved(&room, &[&left, &right]);
    assert_eq!(get(&room, &state, "m.room.power_levels", ""), Some(demotion));
    assert_eq!(get(&room, &state, "m.room.topic", ""), Some(json!({"topic": "Alice's"})));
}

#[test]
fn room_version_1_resolves_memberships_step_by_step() {
    let (mut room, base) = moderated_room(&RoomVersionId::V1);
    let (mut left, mut right) = (base.clone(), base);
    room.member(&mut left, CAROL, CAROL, "leave");
    room.message(&mut right, BOB, "deeper");
    room.member(&mut right, BOB, CAROL, "ban");
    let state = resolved(&room, &[&left, &right]);
    assert_eq!(get(&room, &state, "m.room.member", CAROL).unwrap()["membership"], "ban");
    // Behind the ban, a join is no longer allowed, however deep it is.
    let mut back = left.clone();
    room.message(&mut back, BOB, "deeper");
    room.message(&mut back, BOB, "and deeper");
    room.member(&mut back, CAROL, CAROL, "join");
    let state = resolved(&room, &[&left, &right, &back]);
    assert_eq!(get(&room, &state, "m.room.member", CAROL).unwrap()["membership"], "ban");
}

#[test]
fn room_version_1_breaks_ties_by_the_hash_of_the_id() {
    let (mut room, base) = moderated_room(&RoomVersionId::V1);
    let (mut left, mut right) = (base.clone(), base);
    let first = room.state(&mut left, ALICE, "m.room.topic", "", json!({"topic": "a"}));
    let second = room.state(&mut right, ALICE, "m.room.topic", "", json!({"topic": "b"}));
    let hash = |event: &Pdu| <sha1::Sha1 as sha1::Digest>::digest(event.event_id().as_bytes());
    let lowest = if hash(&first) < hash(&second) { first } else { second };
    let state = resolved(&room, &[&left, &right]);
    assert_eq!(state.get(&lowest.state_map_key().unwrap()), Some(lowest.event_id()));
}

#[test]
fn room_version_12_replays_the_subgraph_so_that_state_is_not_reset() {
    // Power levels change twice on the one side; the other still has the first. What lies between is looked at again.
    let (mut room, base) = moderated_room(&RoomVersionId::V12);
    let (mut left, right) = (base.clone(), base);
    room.state(&mut left, ALICE, "m.room.power_levels", "", json!({"users": {BOB: 50, CAROL: 10}}));
    room.state(&mut left, BOB, "m.room.join_rules", "", json!({"join_rule": "invite"}));
    room.state(&mut left, ALICE, "m.room.power_levels", "", json!({"users": {BOB: 50, CAROL: 20}}));
    let state = resolved(&room, &[&left, &right]);
    assert_eq!(state, left.state);
    let conflicted = StateMap::from([(
        (StateEventType::RoomPowerLevels, String::new()),
        [&left, &right]
            .map(|fork| fork.state[&(StateEventType::RoomPowerLevels, String::new())].clone())
            .into(),
    )]);
    let subgraph = conflicted_state_subgraph(&conflicted, room.fetch());
    let between = room
        .events
        .values()
        .find(|event| event.content() == r#"{"users":{"@bob:two.test":50,"@carol:one.test":10}}"#)
        .unwrap();
    assert_eq!(subgraph.len(), 3);
    assert!(subgraph.contains(between.event_id()));
}

#[test]
fn nothing_resolves_to_nothing() {
    for version in SUPPORTED_ROOM_VERSIONS {
        let (room, _) = TestRoom::new(&version);
        assert!(resolve(room.rules, &[], room.fetch()).unwrap().is_empty());
    }
}

#[test]
fn events_that_are_missing_lose() {
    for version in SUPPORTED_ROOM_VERSIONS {
        let (mut room, base) = moderated_room(&version);
        let (mut left, mut right) = (base.clone(), base);
        let kept = room.state(&mut left, ALICE, "m.room.topic", "", json!({"topic": "a"}));
        let lost = room.state(&mut right, ALICE, "m.room.topic", "", json!({"topic": "b"}));
        room.events.remove(lost.event_id());
        let state = resolved(&room, &[&left, &right]);
        assert_eq!(
            state.get(&kept.state_map_key().unwrap()),
            Some(kept.event_id()),
            "room version {version}"
        );
    }
}

/// One thing that happens on one of three forks.
#[derive(Debug, Clone)]
struct Step {
    fork: usize,
    actor: &'static str,
    action: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0usize..3, proptest::sample::select(vec![ALICE, BOB, CAROL]), 0usize..9)
        .prop_map(|(fork, actor, action)| Step { fork, actor, action });
    proptest::collection::vec(step, 0..14)
}

/// Three forks of a room on which the steps happened that were allowed where they happened.
fn forks(version: &RoomVersionId, steps: &[Step]) -> (TestRoom, Vec<Fork>) {
    let (mut room, base) = moderated_room(version);
    let mut forks = vec![base.clone(), base.clone(), base];
    for step in steps {
        let (event_type, key, content) = match step.action {
            0 => ("m.room.topic", "", json!({"topic": step.actor})),
            1 => ("m.room.name", "", json!({"name": step.actor})),
            2 => ("m.room.member", CAROL, json!({"membership": "ban"})),
            3 => ("m.room.member", CAROL, json!({"membership": "leave"})),
            4 => ("m.room.member", step.actor, json!({"membership": "leave"})),
            5 => ("m.room.member", step.actor, json!({"membership": "join"})),
            6 => ("m.room.join_rules", "", json!({"join_rule": "invite"})),
            7 => ("m.room.power_levels", "", with_creator(&room, json!({"users": {BOB: 50, CAROL: 50}}))),
            _ => ("m.room.power_levels", "", with_creator(&room, json!({"users": {}}))),
        };
        let fork = &mut forks[step.fork];
        let template = TestRoom::template(step.actor, event_type, Some(key), &content);
        let event = room.build(fork, template.clone());
        if crate::auth::check_against_state(&event, room.lookup(&fork.state)).is_ok() {
            room.add(fork, template);
        }
    }
    (room, forks)
}

/// One room version of each algorithm, and those whose rules differ most.
fn version() -> impl Strategy<Value = RoomVersionId> {
    proptest::sample::select(vec![
        RoomVersionId::V1,
        RoomVersionId::V2,
        RoomVersionId::V10,
        RoomVersionId::V12,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_states_does_not_matter(version in version(), steps in steps()) {
        let (room, forks) = forks(&version, &steps);
        let states: Vec<_> = forks.into_iter().map(|fork| fork.state).collect();
        let expected = resolve(room.rules, &states, room.fetch()).unwrap();
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let states = order.map(|index| states[index].clone());
            prop_assert_eq!(&resolve(room.rules, &states, room.fetch()).unwrap(), &expected);
        }
    }

    #[test]
    fn resolving_equal_states_changes_nothing(version in version(), steps in steps()) {
        let (room, forks) = forks(&version, &steps);
        for fork in forks {
            let states = [fork.state.clone(), fork.state.clone()];
            prop_assert_eq!(&resolve(room.rules, &states, room.fetch()).unwrap(), &fork.state);
        }
    }

    #[test]
    fn the_resolution_of_a_resolution_is_itself(version in version(), steps in steps()) {
        let (room, forks) = forks(&version, &steps);
        let states: Vec<_> = forks.into_iter().map(|fork| fork.state).collect();
        let once = resolve(room.rules, &states, room.fetch()).unwrap();
        prop_assert_eq!(&resolve(room.rules, &[once.clone(), once.clone()], room.fetch()).unwrap(), &once);
    }

    #[test]
    fn what_all_states_agree_on_stays_and_nothing_comes_from_nowhere(version in version(), steps in steps()) {
        let (room, forks) = forks(&version, &steps);
        let states: Vec<_> = forks.into_iter().map(|fork| fork.state).collect();
        let resolved = resolve(room.rules, &states, room.fetch()).unwrap();
        for (key, event_id) in &states[0] {
            if states.iter().all(|state| state.get(key) == Some(event_id)) {
                prop_assert_eq!(resolved.get(key), Some(event_id));
            }
        }
        prop_assert!(resolved.keys().all(|key| states.iter().any(|state| state.contains_key(key))));
    }

    #[test]
    fn leaving_out_shared_auth_chains_makes_no_difference(version in version(), steps in steps()) {
        let (room, forks) = forks(&version, &steps);
        let states: Vec<_> = forks.into_iter().map(|fork| fork.state).collect();
        let full = states.iter().map(|state| auth_chain(state.values().cloned(), room.fetch())).collect();
        let subgraph = |conflicted: &StateMap<Vec<OwnedEventId>>| conflicted_state_subgraph(conflicted, room.fetch());
        let expected = resolve_with(room.rules, &states, full, room.fetch(), subgraph).unwrap();
        prop_assert_eq!(resolve(room.rules, &states, room.fetch()).unwrap(), expected);
    }
}
