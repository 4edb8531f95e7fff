//! The power levels of new rooms.

use myelin_events::Rules;
use ruma::events::TimelineEventType;
use serde_json::{Map, Value, json};

use super::{CreateRoom, InitialState, Preset};
use crate::RoomsOptions;

/// The `m.room.power_levels` event: our defaults, the operator's for the preset, the creator's.
pub(super) fn event(request: &CreateRoom, rules: Rules, options: &RoomsOptions) -> InitialState {
    let preset = request.preset();
    let mut content = default_levels(request, rules, preset);
    if let Some(Value::Object(of_preset)) = options.default_power_levels.get(preset.as_str()) {
        content.extend(of_preset.clone());
    }
    content.extend(request.power_level_content_override.clone());
    InitialState { event_type: TimelineEventType::RoomPowerLevels, state_key: String::new(), content }
}

fn default_levels(request: &CreateRoom, rules: Rules, preset: Preset) -> Map<String, Value> {
    let creators_are_above = rules.authorization.explicitly_privilege_room_creators;
    let mut users = Map::new();
    if !creators_are_above {
        users.insert(request.creator.to_string(), 100.into());
        if preset == Preset::TrustedPrivateChat {
            users.extend(request.invite.iter().map(|user| (user.to_string(), 100.into())));
        }
    }
    // From room version 12 on, only creators end a room: its successor has its creators.
    let tombstone = if creators_are_above { 150 } else { 100 };
    let invite = if preset == Preset::PublicChat { 50 } else { 0 };
    let content = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": tombstone,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": invite,
    });
    match content {
        Value::Object(content) => content,
        _ => Map::new(),
    }
}
