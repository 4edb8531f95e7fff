//! Presence ([spec](https://spec.matrix.org/v1.19/client-server-api/#presence)).

use std::time::Duration;

use myelin_http::{ApiError, Routes};
use ruma::{
    api::client::presence::{get_presence, set_presence},
    presence::PresenceState,
};

use crate::{App, LocalUser, LoggedInCaller as _, error::api};

/// A status message has at most so many bytes.
const MAX_STATUS_LEN: usize = 4096;

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(get);
    routes.add(set);
}

async fn get(
    app: App,
    user: LocalUser,
    request: get_presence::v3::Request,
) -> Result<get_presence::v3::Response, ApiError> {
    let whose = &request.user_id;
    if !app.room_reader.share_a_room(&user.user_id, whose).await.map_err(api)? {
        return Err(ApiError::forbidden("You share no room with this user"));
    }
    let Some(row) = app.presence.get(whose).await.map_err(api)? else {
        return Ok(get_presence::v3::Response::new(PresenceState::Offline));
    };
    let mut response = get_presence::v3::Response::new(row.presence.clone());
    response.status_msg.clone_from(&row.status_msg);
    response.currently_active =
        (row.presence == PresenceState::Online).then(|| app.presence.is_currently_active(&row));
    response.last_active_ago =
        Some(Duration::from_millis(app.clock.now().saturating_sub(row.last_active_ts)));
    Ok(response)
}

async fn set(
    app: App,
    user: LocalUser,
    request: set_presence::v3::Request,
) -> Result<set_presence::v3::Response, ApiError> {
    user.require_self(&request.user_id)?;
    let is_known = matches!(
        request.presence,
        PresenceState::Online | PresenceState::Unavailable | PresenceState::Offline
    );
    if !is_known {
        return Err(ApiError::invalid_param("`presence` is `online`, `unavailable` or `offline`"));
    }
    if request.status_msg.as_ref().is_some_and(|message| message.len() > MAX_STATUS_LEN) {
        return Err(ApiError::invalid_param(format!("`status_msg` is longer than {MAX_STATUS_LEN} bytes")));
    }
    app.limits.presence.check(&user.user_id)?;
    app.presence.set(&user.user_id, request.presence, request.status_msg).await.map_err(api)?;
    Ok(set_presence::v3::Response::new())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    const ALICE: &str = "/_matrix/client/v3/presence/@alice:example.org/status";

    #[tokio::test]
    async fn presence_is_for_those_who_share_a_room() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let away = json!({ "presence": "unavailable", "status_msg": "At lunch" });
        check(app.put(ALICE, Some(&alice), away).await, 200, "");
        check(app.get(ALICE, Some(&bob)).await, 403, "M_FORBIDDEN");
        let room = app.room(&alice, json!({ "preset": "public_chat" })).await;
        let (_, body) = app.get("/_matrix/client/v3/sync?timeout=0", Some(&bob)).await;
        check(app.post(&format!("/_matrix/client/v3/join/{room}"), Some(&bob), json!({})).await, 200, "");

        for user in [&alice, &bob] {
            let (status, body) = app.get(ALICE, Some(user)).await;
            assert_eq!(
                (status, &body["presence"], &body["status_msg"]),
                (200, &json!("unavailable"), &json!("At lunch"))
            );
            assert!(body["last_active_ago"].is_u64(), "{body}");
        }
        let since = body["next_batch"].as_str().unwrap();
        let path = format!("/_matrix/client/v3/sync?timeout=0&set_presence=offline&since={since}");
        let (_, body) = app.get(&path, Some(&bob)).await;
        let events = body["presence"]["events"].as_array().unwrap();
        let alices = events.iter().find(|event| event["sender"] == "@alice:example.org");
        assert_eq!(alices.unwrap()["content"]["status_msg"], "At lunch");
    }

    #[tokio::test]
    async fn one_sets_ones_own_presence_to_what_there_is() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        check(app.put(ALICE, Some(&bob), json!({ "presence": "online" })).await, 403, "M_FORBIDDEN");
        check(app.put(ALICE, Some(&alice), json!({ "presence": "asleep" })).await, 400, "M_INVALID_PARAM");
        check(app.put(ALICE, Some(&alice), json!({})).await, 400, "M_MISSING_PARAM");
        let long = json!({ "presence": "online", "status_msg": "x".repeat(5000) });
        check(app.put(ALICE, Some(&alice), long).await, 400, "M_INVALID_PARAM");
        let (_, body) = app.get(ALICE, Some(&alice)).await;
        assert_eq!(body, json!({ "presence": "offline" }));
    }
}
