//! What a successor takes over.

use myelin_events::{MemberContent, Rules};
use ruma::{
    OwnedEventId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde_json::{Map, Value, json};

use super::{UpgradeRoom, content, creators_are_above};
use crate::{
    CreateRoom, InitialState, RoomError, Rooms,
    create::{Plan, state},
    resident::Resident,
};

/// The state that the specification recommends to transfer, but for the power levels.
const TRANSFERRED: [StateEventType; 8] = [
    StateEventType::RoomJoinRules,
    StateEventType::RoomHistoryVisibility,
    StateEventType::RoomGuestAccess,
    StateEventType::RoomServerAcl,
    StateEventType::RoomEncryption,
    StateEventType::RoomName,
    StateEventType::RoomAvatar,
    StateEventType::RoomTopic,
];

/// The first events of the successor.
pub(super) async fn plan(
    rooms: &Rooms,
    old: &Resident,
    request: &UpgradeRoom,
    rules: Rules,
    last_event: Option<OwnedEventId>,
    is_public: bool,
) -> Result<Plan, RoomError> {
    let mut create = CreateRoom::new(request.sender.clone());
    create.is_public = is_public;
    create.request.clone_from(&request.request);
    create.creation_content = creation_content(old, request, rules, last_event);
    let levels = power_levels(old, request, rules);
    // Whoever upgrades must be able to send all of what follows; what is too much is taken back at the end.
    let mut first_levels = levels.clone();
    if !creators_are_above(rules) {
        let users = first_levels.entry("users").or_insert_with(|| json!({}));
        if let Value::Object(users) = users {
            let needed = highest_level(&levels).max(100);
            users.insert(request.sender.to_string(), needed.into());
        }
    }
    create.initial_state.push(InitialState {
        event_type: TimelineEventType::RoomPowerLevels,
        state_key: String::new(),
        content: first_levels.clone(),
    });
    create.initial_state.extend(transferred(old));
    let mut plan = rooms.plan(create, &request.new_version, rules).await?;
    if first_levels != levels {
        plan.events.push(state(TimelineEventType::RoomPowerLevels, Value::Object(levels)));
    }
    Ok(plan)
}

fn creation_content(
    old: &Resident,
    request: &UpgradeRoom,
    rules: Rules,
    last_event: Option<OwnedEventId>,
) -> Map<String, Value> {
    let mut new = content(old, &StateEventType::RoomCreate).unwrap_or_default();
    new.remove("additional_creators");
    new.remove("creator");
    let mut predecessor = json!({ "room_id": old.room_id });
    if let Some(event_id) = last_event {
        predecessor["event_id"] = event_id.as_str().into();
    }
    new.insert("predecessor".to_owned(), predecessor);
    if rules.authorization.additional_room_creators && !request.additional_creators.is_empty() {
        new.insert("additional_creators".to_owned(), json!(request.additional_creators));
    }
    new
}

/// The state to be transferred: what the specification recommends, the rooms of a space, and who is banned.
fn transferred(old: &Resident) -> Vec<InitialState> {
    let event = |event_type: &StateEventType, state_key: &str, content: Map<String, Value>| InitialState {
        event_type: event_type.to_string().into(),
        state_key: state_key.to_owned(),
        content,
    };
    let mut events: Vec<InitialState> = TRANSFERRED
        .iter()
        .filter_map(|event_type| Some(event(event_type, "", content(old, event_type)?)))
        .collect();
    let children = old.state.of_type(&StateEventType::SpaceChild);
    events.extend(children.filter_map(|(room_id, held)| {
        let content: Map<String, Value> = held.pdu.content_as().ok()?;
        (!content.is_empty()).then(|| event(&StateEventType::SpaceChild, room_id, content))
    }));
    let members = old.state.of_type(&StateEventType::RoomMember);
    events.extend(members.filter_map(|(user_id, held)| {
        let member = MemberContent::of(&held.pdu)?;
        let is_banned = member.membership == MembershipState::Ban;
        let mut content = Map::from_iter([("membership".to_owned(), "ban".into())]);
        content.extend(member.reason.map(|reason| ("reason".to_owned(), reason.into())));
        is_banned.then(|| event(&StateEventType::RoomMember, user_id, content))
    }));
    events
}

/// The power levels of the successor: those of the room, as its version wants them.
fn power_levels(old: &Resident, request: &UpgradeRoom, rules: Rules) -> Map<String, Value> {
    let mut levels = content(old, &StateEventType::RoomPowerLevels).unwrap_or_default();
    if rules.authorization.integer_power_levels {
        levels.values_mut().for_each(to_integers);
    }
    let creators = old.power_levels.as_deref().map(|levels| levels.creators().clone()).unwrap_or_default();
    let users = levels.entry("users").or_insert_with(|| json!({}));
    let Value::Object(users) = users else { return levels };
    if creators_are_above(rules) {
        users.remove(request.sender.as_str());
        request.additional_creators.iter().for_each(|creator| _ = users.remove(creator.as_str()));
        let state_default = levels.get("state_default").and_then(Value::as_i64).unwrap_or(50);
        let events = levels.entry("events").or_insert_with(|| json!({}));
        if let Value::Object(events) = events {
            let tombstone = events.get("m.room.tombstone").and_then(Value::as_i64).unwrap_or(0);
            events.insert("m.room.tombstone".to_owned(), tombstone.max(150).max(state_default + 1).into());
        }
    } else if creators_are_above(old.rules) {
        // Creators who stood above all levels are not to lose their power; there is no higher one to give.
        for creator in creators {
            users.insert(creator.to_string(), 100.into());
        }
    }
    levels
}

/// The highest level that anything takes or anybody has.
fn highest_level(levels: &Map<String, Value>) -> i64 {
    let nested = |value: &Value| match value {
        Value::Object(levels) => levels.values().filter_map(Value::as_i64).max(),
        level => level.as_i64(),
    };
    levels.values().filter_map(nested).max().unwrap_or(0)
}

/// Levels that old room versions wrote as strings.
fn to_integers(value: &mut Value) {
    match value {
        Value::Object(levels) => levels.values_mut().for_each(to_integers),
        Value::String(text) => {
            if let Ok(level) = text.trim().parse::<i64>() {
                *value = level.into();
            }
        }
        _ => {}
    }
}
