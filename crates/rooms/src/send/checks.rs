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
    if !content.starts_with('{') {
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
    use ruma::{owned_room_id, owned_user_id};
    use serde_json::{json, value::to_raw_value};

    use super::*;

    const ME: &str = "@me:x";
    const OTHER: &str = "@other:x";

    fn request(event_type: &str, state_key: &str, content: &Value) -> SendEvent {
        SendEvent {
            sender: owned_user_id!("@me:x"),
            device_id: None,
            room_id: owned_room_id!("!r:x"),
            event_type: event_type.into(),
            state_key: Some(state_key.to_owned()),
            content: to_raw_value(content).unwrap(),
            txn_id: None,
            timestamp: None,
        }
    }

    #[track_caller]
    fn check(content: &Value, is_accepted: bool) {
        let outcome = check_content(&request("m.room.power_levels", "", content));
        match is_accepted {
            true => assert!(outcome.is_ok(), "{content}: {outcome:?}"),
            false => assert!(matches!(outcome, Err(RoomError::BadJson(_))), "{content}: {outcome:?}"),
        }
    }

    #[test]
    fn power_levels_are_integers() {
        check(&json!({ "users": { ME: 50 }, "ban": 50, "events": {}, "extra": "anything" }), true);
        for field in ["ban", "events_default", "invite", "kick", "redact", "state_default", "users_default"] {
            check(&json!({ field: -1 }), true);
            for level in [json!("50"), json!({}), json!(1.5), json!(null)] {
                check(&json!({ field: level }), false);
            }
        }
        for field in ["users", "events", "notifications"] {
            check(&json!({ field: { "some": 1, "other": -1 } }), true);
            for levels in [json!([]), json!(50), json!({ "some": 1, "other": "50" }), json!({ "some": 1.5 })]
            {
                check(&json!({ field: levels }), false);
            }
        }
        let of_another_key = check_content(&request("m.room.power_levels", "x", &json!({ "ban": "50" })));
        assert!(of_another_key.is_ok(), "{of_another_key:?}");
    }

    #[test]
    fn a_content_is_an_object_and_makes_no_room() {
        assert!(check_content(&request("a.type", "", &json!({ "any": "thing" }))).is_ok());
        for content in [json!([]), json!("{}"), json!(1), json!(null)] {
            let refused = check_content(&request("a.type", "", &content));
            assert!(matches!(refused, Err(RoomError::BadJson(_))), "{content}: {refused:?}");
        }
        for key in ["", "x"] {
            let refused = check_content(&request("m.room.create", key, &json!({})));
            assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
        }
    }

    #[test]
    fn a_member_event_is_what_its_membership_makes_of_its_target() {
        use MembershipAction::{Ban, Invite, Join, KickOrUnban, Knock, Leave};

        for (target, membership, expected) in [
            (ME, "join", Some(Join)),
            (OTHER, "join", None),
            (ME, "knock", Some(Knock)),
            (OTHER, "knock", None),
            (OTHER, "invite", Some(Invite)),
            (ME, "leave", Some(Leave)),
            (OTHER, "leave", Some(KickOrUnban)),
            (OTHER, "ban", Some(Ban)),
        ] {
            let content = json!({ "membership": membership, "reason": "because" });
            let change = membership_change(&request("m.room.member", target, &content), target);
            let Some(action) = expected else {
                assert!(
                    matches!(change, Err(RoomError::Forbidden(_))),
                    "{membership} of {target}: {change:?}"
                );
                continue;
            };
            let change = change.unwrap();
            assert_eq!(change.action, action, "{membership} of {target}");
            assert_eq!((change.sender.as_str(), change.target.as_str()), (ME, target));
            assert_eq!(Value::from(change.content), json!({ "reason": "because" }));
        }
    }

    #[test]
    fn a_member_event_needs_a_user_and_a_membership() {
        for content in [json!({}), json!({ "membership": 1 }), json!({ "membership": "friend" })] {
            let refused = membership_change(&request("m.room.member", ME, &content), ME);
            assert!(matches!(refused, Err(RoomError::BadJson(_))), "{content}: {refused:?}");
        }
        let content = json!({ "membership": "join" });
        let refused = membership_change(&request("m.room.member", "me", &content), "me");
        assert!(matches!(refused, Err(RoomError::InvalidParam(_))), "{refused:?}");
    }
}
