//! Typing notifications ([spec](https://spec.matrix.org/v1.19/client-server-api/#typing-notifications)).

use std::time::Duration;

use http::Method;
use myelin_http::{ApiError, RawRequest, RawResponse, Routes};
use ruma::{RoomId, UserId};
use serde::Deserialize;

use crate::{App, LocalUser, LoggedInCaller as _, error::api};

const PATHS: [&str; 2] = [
    "/_matrix/client/v3/rooms/{roomId}/typing/{userId}",
    "/_matrix/client/r0/rooms/{roomId}/typing/{userId}",
];
/// How long somebody types who does not say it.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn routes(routes: &mut Routes<App>) {
    // ruma wants a `timeout`, which the specification does not.
    routes.add_raw(Method::PUT, PATHS[0], set).also_at(PATHS[1]);
}

/// The body of the request.
#[derive(Deserialize)]
struct Typing {
    typing: bool,
    /// In milliseconds.
    timeout: Option<u64>,
}

async fn set(app: App, user: LocalUser, request: RawRequest) -> Result<RawResponse, ApiError> {
    let room_id = RoomId::parse(request.param("roomId"))
        .map_err(|_| ApiError::invalid_param("`roomId` is not a room ID"))?;
    let whose = UserId::parse(request.param("userId"))
        .map_err(|_| ApiError::invalid_param("`userId` is not a user ID"))?;
    user.require_self(&whose)?;
    let body: Typing = request.json()?;
    let room = app.room_reader.joined_room(&user.user_id, &room_id).await.map_err(api)?;
    // Nothing else would find out that this was said long ago, and that another process has been told something newer.
    if !app.typing.may_speak() {
        return Err(ApiError::unavailable("This process does not reach the others", Duration::from_secs(1)));
    }
    let timeout = body.timeout.map_or(TIMEOUT, Duration::from_millis);
    app.typing.set(room.nid.0, &user.user_id, body.typing.then_some(timeout));
    if body.typing {
        app.presence.active(&user.user_id);
    }
    Ok(RawResponse::json("{}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn the_others_see_who_is_typing() {
        let app = TestApp::new().await;
        let (alice, bob, carol) = (app.user("alice").await, app.user("bob").await, app.user("carol").await);
        let room = app.room(&alice, json!({ "preset": "public_chat" })).await;
        check(app.post(&format!("/_matrix/client/v3/join/{room}"), Some(&bob), json!({})).await, 200, "");
        let path = |user: &str| format!("/_matrix/client/v3/rooms/{room}/typing/@{user}:example.org");
        let typing = async |since: Option<&str>| {
            let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
            let (_, body) = app.get(&format!("/_matrix/client/v3/sync?timeout=0{since}"), Some(&bob)).await;
            let next = body["next_batch"].as_str().unwrap().to_owned();
            (next, body["rooms"]["join"][&room]["ephemeral"]["events"].clone())
        };
        let (since, _) = typing(None).await;

        check(
            app.put(&path("alice"), Some(&alice), json!({ "typing": true, "timeout": 20000 })).await,
            200,
            "",
        );
        let (since, events) = typing(Some(&since)).await;
        let event = |users: &[&str]| json!([{ "type": "m.typing", "content": { "user_ids": users } }]);
        assert_eq!(events, event(&["@alice:example.org"]));
        check(app.put(&path("alice"), Some(&alice), json!({ "typing": false })).await, 200, "");
        let (_, events) = typing(Some(&since)).await;
        assert_eq!(events, event(&[]));

        check(app.put(&path("alice"), Some(&alice), json!({ "typing": true })).await, 200, "");
        check(app.put(&path("alice"), Some(&alice), json!({})).await, 400, "M_MISSING_PARAM");
        check(app.put(&path("alice"), Some(&alice), json!({ "typing": "yes" })).await, 400, "M_BAD_JSON");
        check(app.put(&path("alice"), Some(&bob), json!({ "typing": true })).await, 403, "M_FORBIDDEN");
        check(app.put(&path("carol"), Some(&carol), json!({ "typing": true })).await, 403, "M_FORBIDDEN");
    }
}
