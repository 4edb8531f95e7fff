//! The state of a room ([spec](https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room)).

use myelin_http::{ApiError, JsonBody, Routes};
use ruma::api::client::state::{
    get_state_event_for_key::{self, v3::StateEventFormat},
    get_state_events,
};

use crate::{App, GuestOrUser, error::api, reading::viewer};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(state);
    routes.add(state_event);
}

async fn state(
    app: App,
    user: GuestOrUser,
    request: get_state_events::v3::Request,
) -> Result<JsonBody, ApiError> {
    let viewer = viewer(&app, &user).await?;
    let state = app.room_reader.state(&viewer, &request.room_id).await.map_err(api)?;
    Ok(JsonBody(state.to_json().into()))
}

async fn state_event(
    app: App,
    user: GuestOrUser,
    request: get_state_event_for_key::v3::Request,
) -> Result<JsonBody, ApiError> {
    let viewer = viewer(&app, &user).await?;
    let is_whole = match request.format {
        StateEventFormat::Content => false,
        StateEventFormat::Event => true,
        _ => return Err(ApiError::invalid_param("`format` is `content` or `event`")),
    };
    let event_type = request.event_type.to_string();
    let key = (event_type.as_str(), request.state_key.as_str());
    let event = app.room_reader.state_event(&viewer, &request.room_id, key, is_whole).await.map_err(api)?;
    Ok(JsonBody(event.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn state_is_read_whole_and_by_key() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let room = app.public_room("alice").await;
        let path = format!("/_matrix/client/v3/rooms/{room}/state");
        let (status, state) = app.get(&path, Some(&alice)).await;
        assert_eq!(status, 200);
        let has = |event_type: &str| {
            state.as_array().is_some_and(|state| state.iter().any(|event| event["type"] == event_type))
        };
        assert!(has("m.room.create") && has("m.room.member"), "{state}");
        let rules = json!({ "join_rule": "public" });
        for key in ["", "/"] {
            let path = format!("{path}/m.room.join_rules{key}");
            assert_eq!(app.get(&path, Some(&alice)).await, (200, rules.clone()), "{key:?}");
        }
        let (_, whole) = app.get(&format!("{path}/m.room.join_rules/?format=event"), Some(&alice)).await;
        assert_eq!((&whole["content"], &whole["sender"]), (&rules, &json!("@alice:example.org")));
        let (_, member) = app.get(&format!("{path}/m.room.member/@alice:example.org"), Some(&alice)).await;
        assert_eq!(member["membership"], "join");
        check(app.get(&format!("{path}/m.room.topic"), Some(&alice)).await, 404, "M_NOT_FOUND");
        let nonsense = format!("{path}/m.room.join_rules?format=nonsense");
        check(app.get(&nonsense, Some(&alice)).await, 400, "M_INVALID_PARAM");
        check(app.get(&path, Some(&bob)).await, 403, "M_FORBIDDEN");
        check(app.get(&format!("{path}/m.room.join_rules"), Some(&bob)).await, 403, "M_FORBIDDEN");
    }
}
