//! Making rooms, and successors of rooms
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#creation)).

use myelin_http::{ApiError, REQUEST_ID, RequestHead, Routes};
use myelin_rooms::{CreateRoom, InitialState, Preset, RequestId, UpgradeRoom};
use ruma::{
    OwnedRoomAliasId, RoomAliasId,
    api::{
        client::room::{
            Visibility,
            create_room::v3::{Request, Response, RoomPreset},
            upgrade_room,
        },
        error::ErrorKind,
    },
    events::TimelineEventType,
    serde::Raw,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value as JsonValue};

use crate::{App, LocalUser, LoggedInCaller as _, error::api, replaced_room};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(create);
    routes.add(upgrade);
}

/// The name that the request has, so that it may be repeated.
fn request_id(user: &LocalUser, head: &RequestHead) -> Option<RequestId> {
    RequestId::new(&user.user_id, head.header(REQUEST_ID)?)
}

async fn create(
    app: App,
    user: LocalUser,
    request: Request,
    head: RequestHead,
) -> Result<Response, ApiError> {
    user.require_not_suspended()?;
    app.limits.room_creation.check(&user.user_id)?;
    if !request.invite_3pid.is_empty() {
        return Err(threepids_refused());
    }
    if !request.invite.is_empty() {
        require_may_invite(&app, &user)?;
    }
    let mut room = CreateRoom::new(user.user_id.clone());
    room.room_version = request.room_version;
    room.preset = request.preset.map(preset).transpose()?;
    room.is_public = request.visibility == Visibility::Public;
    room.alias = request.room_alias_name.as_deref().map(|name| alias(&app, name)).transpose()?;
    room.name = request.name;
    room.topic = request.topic;
    room.invite = request.invite;
    room.is_direct = request.is_direct;
    room.creation_content = object(request.creation_content.as_ref())?;
    room.initial_state = request.initial_state.iter().map(initial_state).collect::<Result<_, _>>()?;
    room.power_level_content_override = object(request.power_level_content_override.as_ref())?;
    room.request = request_id(&user, &head);
    let replaces = room.creation_content.contains_key("predecessor");
    let room_id = app.rooms.create_room(room).await.map_err(api)?;
    if replaces {
        replaced_room::carry_over(&app, &user, &room_id).await;
    }
    Ok(Response::new(room_id))
}

/// Invites by e-mail address take an identity server, which is not spoken to.
pub(crate) fn threepids_refused() -> ApiError {
    ApiError::new(ErrorKind::ThreepidDenied, "This server can't invite by third-party identifiers")
}

/// Refuses invites where only administrators may invite (`block_non_admin_invites`).
pub(crate) fn require_may_invite(app: &App, user: &LocalUser) -> Result<(), ApiError> {
    match app.settings.rooms.block_non_admin_invites && !user.flags.is_admin {
        true => Err(ApiError::forbidden("Invites have been disabled on this server")),
        false => Ok(()),
    }
}

fn preset(preset: RoomPreset) -> Result<Preset, ApiError> {
    match preset {
        RoomPreset::PrivateChat => Ok(Preset::PrivateChat),
        RoomPreset::PublicChat => Ok(Preset::PublicChat),
        RoomPreset::TrustedPrivateChat => Ok(Preset::TrustedPrivateChat),
        other => Err(ApiError::invalid_param(format!("`{}` is not a valid preset", other.as_str()))),
    }
}

fn alias(app: &App, name: &str) -> Result<OwnedRoomAliasId, ApiError> {
    if name.contains([':', '\0']) || name.chars().any(char::is_whitespace) {
        return Err(ApiError::invalid_param("`room_alias_name` has characters that an alias can't have"));
    }
    RoomAliasId::parse(format!("#{name}:{}", app.settings.server.server_name))
        .map_err(|error| ApiError::invalid_param(format!("`room_alias_name`: {error}")))
}

fn parse<T: DeserializeOwned, R>(raw: &Raw<R>) -> Result<T, ApiError> {
    serde_json::from_str(raw.json().get()).map_err(|error| ApiError::from_json(&error))
}

fn object<R>(raw: Option<&Raw<R>>) -> Result<Map<String, JsonValue>, ApiError> {
    raw.map_or_else(|| Ok(Map::new()), parse)
}

fn initial_state<R>(raw: &Raw<R>) -> Result<InitialState, ApiError> {
    #[derive(Deserialize)]
    struct StateEvent {
        #[serde(rename = "type")]
        event_type: TimelineEventType,
        #[serde(default)]
        state_key: String,
        content: Map<String, JsonValue>,
    }
    let StateEvent { event_type, state_key, content } = parse(raw)?;
    Ok(InitialState { event_type, state_key, content })
}

async fn upgrade(
    app: App,
    user: LocalUser,
    request: upgrade_room::v3::Request,
    head: RequestHead,
) -> Result<upgrade_room::v3::Response, ApiError> {
    user.require_not_suspended()?;
    app.limits.room_creation.check(&user.user_id)?;
    let upgrade = UpgradeRoom {
        sender: user.user_id.clone(),
        room_id: request.room_id,
        new_version: request.new_version,
        additional_creators: request.additional_creators,
        request: request_id(&user, &head),
    };
    let room_id = app.rooms.upgrade(upgrade).await.map_err(api)?;
    replaced_room::carry_over(&app, &user, &room_id).await;
    Ok(upgrade_room::v3::Response::new(room_id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    const CREATE: &str = "/_matrix/client/v3/createRoom";

    #[tokio::test]
    async fn a_room_is_made_and_replaced() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let request = json!({
            "preset": "public_chat", "name": "N", "room_alias_name": "here", "room_version": "11",
            "initial_state": [{ "type": "org.example", "content": {} }],
            "creation_content": { "m.federate": false },
        });
        let (status, body) = app.post(CREATE, Some(&alice), request.clone()).await;
        assert_eq!(status, 200, "{body}");
        let room_id = body["room_id"].as_str().unwrap();
        check(app.post(CREATE, Some(&bob), request).await, 400, "M_ROOM_IN_USE");
        let upgrade = format!("/_matrix/client/v3/rooms/{room_id}/upgrade");
        check(app.post(&upgrade, Some(&bob), json!({ "new_version": "12" })).await, 403, "M_FORBIDDEN");
        let unknown = json!({ "new_version": "org.none" });
        check(app.post(&upgrade, Some(&alice), unknown).await, 400, "M_UNSUPPORTED_ROOM_VERSION");
        let (status, body) = app.post(&upgrade, Some(&alice), json!({ "new_version": "12" })).await;
        assert_eq!(status, 200, "{body}");
        let (_, body_of_alias) = app.get("/_matrix/client/v3/directory/room/%23here:example.org", None).await;
        assert_eq!(body_of_alias["room_id"], body["replacement_room"]);
    }

    #[tokio::test]
    async fn settings_go_along_into_the_room_that_replaces_another() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let old = app.room(&alice, json!({ "preset": "public_chat" })).await;
        let rule = |room_id: &str| format!("/_matrix/client/v3/pushrules/global/room/{room_id}");
        for user in [&alice, &bob] {
            check(app.post(&format!("/_matrix/client/v3/join/{old}"), Some(user), json!({})).await, 200, "");
            check(app.put(&rule(&old), Some(user), json!({ "actions": ["dont_notify"] })).await, 200, "");
        }
        let upgrade = format!("/_matrix/client/v3/rooms/{old}/upgrade");
        let (_, body) = app.post(&upgrade, Some(&alice), json!({ "new_version": "11" })).await;
        let new = body["replacement_room"].as_str().expect("a new room");
        check(app.get(&rule(new), Some(&bob)).await, 404, "M_NOT_FOUND");
        check(app.post(&format!("/_matrix/client/v3/join/{new}"), Some(&bob), json!({})).await, 200, "");
        for user in [&alice, &bob] {
            let (_, body) = app.get(&rule(new), Some(user)).await;
            assert_eq!(body["actions"], json!(["dont_notify"]));
        }
    }

    #[tokio::test]
    async fn what_makes_no_room_is_refused() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let refuse = async |request: serde_json::Value, status: u16, errcode: &str| {
            check(app.post(CREATE, Some(&alice), request).await, status, errcode);
        };
        refuse(json!({ "preset": "none" }), 400, "M_INVALID_PARAM").await;
        refuse(json!({ "room_alias_name": "a:b" }), 400, "M_INVALID_PARAM").await;
        refuse(json!({ "room_version": "org.none" }), 400, "M_UNSUPPORTED_ROOM_VERSION").await;
        refuse(json!({ "initial_state": [{ "content": {} }] }), 400, "M_MISSING_PARAM").await;
        refuse(json!({ "initial_state": {} }), 400, "M_BAD_JSON").await;
        refuse(json!({ "name": 1 }), 400, "M_BAD_JSON").await;
        refuse(json!({ "invite": ["nobody"] }), 400, "M_BAD_JSON").await;
        let by_mail = json!({ "invite_3pid": [
            { "id_server": "x", "id_access_token": "y", "medium": "email", "address": "a@b" },
        ] });
        refuse(by_mail, 403, "M_THREEPID_DENIED").await;
        check(app.post(CREATE, None, json!({})).await, 401, "M_MISSING_TOKEN");
    }
}
