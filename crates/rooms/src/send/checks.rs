//! What we don't let our own users send, though the authorization rules would.

use ruma::{
    UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::{Map, Value};

use super::SendEvent;
use crate::{ChangeMembership, MembershipAction, RoomError};

/// Checks the content of the types that others depend on.
pub(super) fn check_content(request: &SendEvent) -> Result<(), RoomError> {
    let content = request.content.get();
    if !content.trim_start().starts_with('{') {
        return Err(RoomError::BadJson("the content is not a JSON object".to_owned()));
    }
    match (&request.event_type, request.state_key.as_deref()) {
        (TimelineEventType::RoomPowerLevels, Some("")) => check_power_levels(content),
        (TimelineEventType::RoomCreate, _) => Err(RoomError::Forbidden("a room is created once".to_owned())),
        _ => Ok(()),
    }
}

/// Room versions before 10 accept levels that are strings, for the sake of old rooms:
/// <https://spec.matrix.org/v1.19/server-server-api/#definitions> asks us not to make new ones.
fn check_power_levels(content: &str) -> Result<(), RoomError> {
    let content: Map<String, Value> =
        serde_json::from_str(content).map_err(|error| RoomError::BadJson(error.to_string()))?;
    let is_level = |level: &Value| level.as_i64().is_some();
    for field in ["ban", "events_default", "invite", "kick", "redact", "state_default", "users_default"] {
        if content.get(field).is_some_and(|level| !is_level(level)) {
            return Err(RoomError::BadJson(format!("`{field}` is not an integer")));
        }
    }
    for field in ["users", "events", "notifications"] {
        let Some(levels) = content.get(field) else { continue };
        let levels =
            levels.as_object().ok_or_else(|| RoomError::BadJson(format!("`{field}` is not an object")))?;
        if let Some((name, _)) = levels.iter().find(|(_, level)| !is_level(level)) {
            return Err(RoomError::BadJson(format!("the level of `{name}` is not an integer")));
        }
    }
    Ok(())
}

/// The membership change that a member event asks for.
pub(super) fn membership_change(request: &SendEvent, target: &str) -> Result<ChangeMembership, RoomError> {
    let target =
        UserId::parse(target).map_err(|_| RoomError::InvalidParam(format!("{target:?} is not a user id")))?;
    let mut content: Map<String, Value> =
        serde_json::from_str(request.content.get()).map_err(|error| RoomError::BadJson(error.to_string()))?;
    let membership = content.remove("membership");
    let membership: MembershipState =
        membership
            .and_then(|membership| membership.as_str().map(Into::into))
            .ok_or_else(|| RoomError::BadJson("`membership` is missing".to_owned()))?;
    let is_own = target == request.sender;
    let action = match membership {
        MembershipState::Join => MembershipAction::Join,
        MembershipState::Invite => MembershipAction::Invite,
        MembershipState::Knock => MembershipAction::Knock,
        MembershipState::Ban => MembershipAction::Ban,
        MembershipState::Leave if is_own => MembershipAction::Leave,
        MembershipState::Leave => MembershipAction::KickOrUnban,
        _ => return Err(RoomError::BadJson("there is no such membership".to_owned())),
    };
    let must_be_own = matches!(action, MembershipAction::Join | MembershipAction::Knock);
    if must_be_own && !is_own {
        return Err(RoomError::Forbidden("nobody can do that for another user".to_owned()));
    }
    Ok(ChangeMembership {
        content,
        target,
        ..ChangeMembership::new(request.sender.clone(), request.room_id.clone(), action)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content: &str, is_accepted: bool) {
        assert_eq!(check_power_levels(content).is_ok(), is_accepted, "{content}");
    }

    #[test]
    fn power_levels_are_integers() {
        check(r#"{"users":{"@a:x":50},"ban":50,"events":{},"extra":"anything"}"#, true);
        check(r#"{"ban":"50"}"#, false);
        check(r#"{"ban":{}}"#, false);
        check(r#"{"users":{"@a:x":"50"}}"#, false);
        check(r#"{"events":[]}"#, false);
        check(r#"{"notifications":{"room":1.5}}"#, false);
    }
}
