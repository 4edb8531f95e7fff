//! Account data ([spec](https://spec.matrix.org/v1.19/client-server-api/#client-config)).

use std::sync::Arc;

use http::StatusCode;
use myelin_accounts::AccountDataEvent;
use myelin_http::{ApiError, Routes};
use ruma::{
    OwnedRoomId, RoomId, UserId,
    api::client::config::{
        get_global_account_data, get_room_account_data, set_global_account_data, set_room_account_data,
    },
    serde::Raw,
};
use serde_json::value::RawValue as RawJson;

use crate::{App, LocalUser, LoggedInCaller as _, error::api};

/// The server manages these itself.
const SERVER_MANAGED: [&str; 2] = ["m.fully_read", "m.push_rules"];

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(set_global);
    routes.add(get_global);
    routes.add(set_for_room);
    routes.add(get_for_room);
}

async fn set_global(
    app: App,
    user: LocalUser,
    request: set_global_account_data::v3::Request,
) -> Result<set_global_account_data::v3::Response, ApiError> {
    let event_type = request.event_type.to_string();
    set(&app, &user, &request.user_id, None, event_type, request.data.into_json()).await?;
    Ok(set_global_account_data::v3::Response::new())
}

async fn set_for_room(
    app: App,
    user: LocalUser,
    request: set_room_account_data::v3::Request,
) -> Result<set_room_account_data::v3::Response, ApiError> {
    let event_type = request.event_type.to_string();
    set(&app, &user, &request.user_id, Some(request.room_id), event_type, request.data.into_json()).await?;
    Ok(set_room_account_data::v3::Response::new())
}

async fn set(
    app: &App,
    user: &LocalUser,
    whose: &UserId,
    room_id: Option<OwnedRoomId>,
    event_type: String,
    content: Box<RawJson>,
) -> Result<(), ApiError> {
    user.require_self(whose)?;
    if SERVER_MANAGED.contains(&event_type.as_str()) {
        let message = format!("{event_type} can't be set through this endpoint");
        return Err(ApiError::bad_json(message).with_status(StatusCode::METHOD_NOT_ALLOWED));
    }
    if !content.get().starts_with('{') {
        return Err(ApiError::bad_json("Account data must be a JSON object"));
    }
    let event =
        AccountDataEvent { user_id: user.user_id.clone(), room_id, event_type, content: Arc::from(content) };
    app.account_data.set(event).await.map_err(api)?;
    Ok(())
}

async fn get_global(
    app: App,
    user: LocalUser,
    request: get_global_account_data::v3::Request,
) -> Result<get_global_account_data::v3::Response, ApiError> {
    let content = get(&app, &user, &request.user_id, None, &request.event_type.to_string()).await?;
    Ok(get_global_account_data::v3::Response::new(Raw::from_json(content)))
}

async fn get_for_room(
    app: App,
    user: LocalUser,
    request: get_room_account_data::v3::Request,
) -> Result<get_room_account_data::v3::Response, ApiError> {
    let event_type = request.event_type.to_string();
    let content = get(&app, &user, &request.user_id, Some(&request.room_id), &event_type).await?;
    Ok(get_room_account_data::v3::Response::new(Raw::from_json(content)))
}

async fn get(
    app: &App,
    user: &LocalUser,
    whose: &UserId,
    room: Option<&RoomId>,
    event_type: &str,
) -> Result<Box<RawJson>, ApiError> {
    user.require_self(whose)?;
    let data = app.account_data.of(&user.user_id).await.map_err(api)?;
    let content = data.get(room, event_type);
    content
        .map(|content| (*content).to_owned())
        .ok_or_else(|| ApiError::not_found("There is no such account data"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn account_data_is_ones_own_globally_and_by_room() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let path = |user: &str, rest: &str| format!("/_matrix/client/v3/user/@{user}:example.org/{rest}");
        let global = path("alice", "account_data/org.example");
        let room = path("alice", "rooms/!r:example.org/account_data/org.example");
        check(app.get(&global, Some(&alice)).await, 404, "M_NOT_FOUND");
        check(app.put(&global, Some(&alice), json!({ "n": 1 })).await, 200, "");
        check(app.put(&room, Some(&alice), json!({ "n": 2 })).await, 200, "");
        assert_eq!(app.get(&global, Some(&alice)).await, (200, json!({ "n": 1 })));
        assert_eq!(app.get(&room, Some(&alice)).await, (200, json!({ "n": 2 })));

        check(app.put(&global, Some(&alice), json!([1])).await, 400, "M_BAD_JSON");
        check(
            app.put(&path("alice", "account_data/a%00b"), Some(&alice), json!({})).await,
            400,
            "M_INVALID_PARAM",
        );
        let bobs = path("bob", "account_data/org.example");
        check(app.put(&bobs, Some(&alice), json!({})).await, 403, "M_FORBIDDEN");
        check(app.get(&bobs, Some(&alice)).await, 403, "M_FORBIDDEN");
        for managed in ["m.fully_read", "m.push_rules"] {
            for place in ["account_data", "rooms/!r:example.org/account_data"] {
                let path = path("alice", &format!("{place}/{managed}"));
                check(app.put(&path, Some(&alice), json!({})).await, 405, "M_BAD_JSON");
            }
        }
    }
}
