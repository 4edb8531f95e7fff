//! Which events a new room begins with, in the order of the specification.

use myelin_events::Rules;
use ruma::{OwnedRoomAliasId, OwnedUserId, RoomVersionId, events::TimelineEventType};
use serde_json::{Map, Value, json};

use super::{CreateRoom, InitialState, Preset, RequestId, power_levels};
use crate::{ChangeMembership, EncryptNewRooms, MembershipAction, RoomError, Rooms, membership};

/// The first events of a room.
#[derive(Debug)]
pub(crate) struct Plan {
    pub creator: OwnedUserId,
    pub is_public: bool,
    pub alias: Option<OwnedRoomAliasId>,
    pub events: Vec<InitialState>,
    pub request: Option<RequestId>,
}

/// Invites that one request may ask for.
const MAX_INVITES: usize = 100;

impl Rooms {
    pub(crate) async fn plan(
        &self,
        mut request: CreateRoom,
        version: &RoomVersionId,
        rules: Rules,
    ) -> Result<Plan, RoomError> {
        request.invite.sort();
        request.invite.dedup();
        request.invite.retain(|user| *user != request.creator);
        if request.invite.len() > MAX_INVITES {
            return Err(RoomError::InvalidParam(format!("more than {MAX_INVITES} invites")));
        }
        let preset = request.preset();
        let mut events = vec![create_event(&request, version, rules)?];
        events.push(self.member_event(&request, &request.creator, MembershipAction::Join).await);
        let mut initial = std::mem::take(&mut request.initial_state);
        events.push(match take(&mut initial, &TimelineEventType::RoomPowerLevels) {
            Some(levels) => levels,
            None => power_levels::event(&request, rules, &self.0.options),
        });
        if let Some(alias) = &request.alias {
            take(&mut initial, &TimelineEventType::RoomCanonicalAlias);
            events.push(state(TimelineEventType::RoomCanonicalAlias, json!({ "alias": alias })));
        }
        events.extend(preset_events(preset).into_iter().filter(|event| !has(&initial, &event.event_type)));
        let is_encrypted = match self.0.options.encrypt_new_rooms {
            EncryptNewRooms::Never => false,
            EncryptNewRooms::Private => preset != Preset::PublicChat,
            EncryptNewRooms::All => true,
        };
        if is_encrypted && !has(&initial, &TimelineEventType::RoomEncryption) {
            let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
            events.push(state(TimelineEventType::RoomEncryption, content));
        }
        if request.name.is_some() {
            take(&mut initial, &TimelineEventType::RoomName);
        }
        if request.topic.is_some() {
            take(&mut initial, &TimelineEventType::RoomTopic);
        }
        events.append(&mut initial);
        if let Some(name) = &request.name {
            events.push(state(TimelineEventType::RoomName, json!({ "name": name })));
        }
        if let Some(topic) = &request.topic {
            let content = json!({ "topic": topic, "m.topic": { "m.text": [{ "body": topic }] } });
            events.push(state(TimelineEventType::RoomTopic, content));
        }
        for invited in &request.invite {
            events.push(self.member_event(&request, invited, MembershipAction::Invite).await);
        }
        let CreateRoom { creator, is_public, alias, request, .. } = request;
        Ok(Plan { creator, is_public, alias, events, request })
    }

    async fn member_event(
        &self,
        request: &CreateRoom,
        target: &OwnedUserId,
        action: MembershipAction,
    ) -> InitialState {
        let profile = self.0.profiles.profile(target).await;
        let room_id = "!new".try_into().expect("a room id of room version 12");
        let mut change = ChangeMembership::new(request.creator.clone(), room_id, action);
        if action == MembershipAction::Invite && request.is_direct {
            change.content.insert("is_direct".to_owned(), true.into());
        }
        InitialState {
            event_type: TimelineEventType::RoomMember,
            state_key: target.to_string(),
            content: membership::content(&change, &profile),
        }
    }
}

/// The `m.room.create` event.
fn create_event(
    request: &CreateRoom,
    version: &RoomVersionId,
    rules: Rules,
) -> Result<InitialState, RoomError> {
    let mut content = request.creation_content.clone();
    content.insert("room_version".to_owned(), version.as_str().into());
    match rules.authorization.use_room_create_sender {
        true => _ = content.remove("creator"),
        false => _ = content.insert("creator".to_owned(), request.creator.as_str().into()),
    }
    let is_trusted = request.preset() == Preset::TrustedPrivateChat && !request.invite.is_empty();
    if rules.authorization.additional_room_creators && is_trusted {
        let creators = content.entry("additional_creators").or_insert_with(|| json!([]));
        let creators = creators
            .as_array_mut()
            .ok_or_else(|| RoomError::InvalidParam("`additional_creators` is not a list".to_owned()))?;
        for invited in &request.invite {
            let invited = Value::from(invited.as_str());
            if !creators.contains(&invited) {
                creators.push(invited);
            }
        }
    }
    Ok(InitialState { event_type: TimelineEventType::RoomCreate, state_key: String::new(), content })
}

fn preset_events(preset: Preset) -> Vec<InitialState> {
    let (join_rule, guest_access) = match preset {
        Preset::PrivateChat | Preset::TrustedPrivateChat => ("invite", "can_join"),
        Preset::PublicChat => ("public", "forbidden"),
    };
    vec![
        state(TimelineEventType::RoomJoinRules, json!({ "join_rule": join_rule })),
        state(TimelineEventType::RoomHistoryVisibility, json!({ "history_visibility": "shared" })),
        state(TimelineEventType::RoomGuestAccess, json!({ "guest_access": guest_access })),
    ]
}

/// A state event with an empty key.
pub(crate) fn state(event_type: TimelineEventType, content: Value) -> InitialState {
    let content = match content {
        Value::Object(content) => content,
        _ => Map::new(),
    };
    InitialState { event_type, state_key: String::new(), content }
}

fn has(initial: &[InitialState], event_type: &TimelineEventType) -> bool {
    initial.iter().any(|event| event.event_type == *event_type && event.state_key.is_empty())
}

/// Takes the (last) event of this type and an empty key out of the list.
fn take(initial: &mut Vec<InitialState>, event_type: &TimelineEventType) -> Option<InitialState> {
    let mut taken = None;
    initial.retain(|event| {
        let is_it = event.event_type == *event_type && event.state_key.is_empty();
        if is_it {
            taken = Some(event.clone());
        }
        !is_it
    });
    taken
}
