//! Sending and redacting events
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room)).

use myelin_http::{ApiError, Routes};
use myelin_rooms::{RedactEvent, SendEvent};
use ruma::{
    OwnedRoomId, OwnedTransactionId,
    api::client::{message::send_message_event, redact::redact_event, state::send_state_event},
    events::TimelineEventType,
};
use serde_json::{Map, value::RawValue};

use crate::{App, GuestOrUser, LoggedInCaller as _, error::in_room};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(send);
    routes.add(set_state);
    routes.add(redact);
    // An empty state key may be left out, and the slash before it too.
    for prefix in ["r0", "v3"] {
        let without_key = format!("/_matrix/client/{prefix}/rooms/{{room_id}}/state/{{event_type}}");
        let with_key = format!("{without_key}/{{state_key}}");
        routes.alias(format!("{without_key}/"), with_key.clone());
        routes.alias(without_key, with_key);
    }
}

fn event(
    user: &GuestOrUser,
    room_id: OwnedRoomId,
    event_type: TimelineEventType,
    content: Box<RawValue>,
    txn_id: Option<OwnedTransactionId>,
) -> SendEvent {
    SendEvent {
        sender: user.user_id.clone(),
        device_id: user.device_id.clone(),
        room_id,
        event_type,
        state_key: None,
        content,
        txn_id,
        // The query's `ts` is for application services.
        timestamp: None,
    }
}

async fn send(
    app: App,
    user: GuestOrUser,
    request: send_message_event::v3::Request,
) -> Result<send_message_event::v3::Response, ApiError> {
    user.require_not_suspended()?;
    app.limits.message.check(&user.user_id)?;
    let event_type = request.event_type.to_string().into();
    let content = request.body.into_json();
    let event = event(&user, request.room_id, event_type, content, Some(request.txn_id));
    Ok(send_message_event::v3::Response::new(app.rooms.send(event).await.map_err(in_room)?))
}

async fn set_state(
    app: App,
    user: GuestOrUser,
    request: send_state_event::v3::Request,
) -> Result<send_state_event::v3::Response, ApiError> {
    user.require_not_suspended()?;
    app.limits.message.check(&user.user_id)?;
    let event_type = request.event_type.to_string().into();
    let event = event(&user, request.room_id, event_type, request.body.into_json(), None);
    let event = SendEvent { state_key: Some(request.state_key), ..event };
    Ok(send_state_event::v3::Response::new(app.rooms.send(event).await.map_err(in_room)?))
}

async fn redact(
    app: App,
    user: GuestOrUser,
    request: redact_event::v3::Request,
) -> Result<redact_event::v3::Response, ApiError> {
    match app.limits.admin_redaction.as_ref().filter(|_| user.flags.is_admin) {
        Some(limit) => limit.check(&user.user_id)?,
        None => app.limits.message.check(&user.user_id)?,
    }
    let redaction = RedactEvent {
        sender: user.user_id.clone(),
        device_id: user.device_id.clone(),
        room_id: request.room_id,
        event_id: request.event_id,
        reason: request.reason,
        content: Map::new(),
        txn_id: Some(request.txn_id),
        timestamp: None,
    };
    Ok(redact_event::v3::Response::new(app.rooms.redact(redaction).await.map_err(in_room)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn a_transaction_makes_one_event_and_belongs_to_its_device() {
        let app = TestApp::new().await;
        let (alice, other) = (app.user("alice").await, app.user("bob").await);
        let room_id = app.room(&alice, json!({ "preset": "public_chat" })).await;
        let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/one");
        let body = json!({ "msgtype": "m.text", "body": "hello" });
        let (_, first) = app.put(&path, Some(&alice), body.clone()).await;
        let (_, again) = app.put(&path, Some(&alice), body.clone()).await;
        assert!(first["event_id"].is_string(), "{first}");
        assert_eq!(first, again);
        check(app.put(&path, Some(&other), body.clone()).await, 403, "M_FORBIDDEN");
        check(app.put(&path, Some(&alice), json!([])).await, 400, "M_BAD_JSON");
        let large = json!({ "body": "x".repeat(65_536) });
        let path = path.replace("/one", "/two");
        check(app.put(&path, Some(&alice), large).await, 413, "M_TOO_LARGE");
        let none = path.replace(&room_id, "!none:example.org");
        check(app.put(&none, Some(&alice), body).await, 403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn state_is_set_with_and_without_a_key_and_slash() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let room_id = app.room(&alice, json!({})).await;
        for rest in ["m.room.topic", "m.room.topic/", "org.example/key"] {
            let path = format!("/_matrix/client/v3/rooms/{room_id}/state/{rest}");
            check(app.put(&path, Some(&alice), json!({ "topic": rest })).await, 200, "");
        }
        let path = format!("/_matrix/client/v3/rooms/{room_id}/state/m.room.power_levels");
        check(app.put(&path, Some(&alice), json!({ "users_default": "no" })).await, 400, "M_BAD_JSON");
        let path = format!("/_matrix/client/v3/rooms/{room_id}/state/m.room.canonical_alias");
        let alias = json!({ "alias": "#none:example.org" });
        check(app.put(&path, Some(&alice), alias).await, 400, "M_BAD_ALIAS");
    }

    #[tokio::test]
    async fn an_event_is_redacted_once_and_by_who_may() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let room_id = app.room(&alice, json!({ "preset": "public_chat" })).await;
        check(app.post(&format!("/_matrix/client/v3/join/{room_id}"), Some(&bob), json!({})).await, 200, "");
        let send = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/one");
        let (_, sent) = app.put(&send, Some(&alice), json!({ "body": "hello" })).await;
        let path = |event: &str, txn: &str| {
            format!("/_matrix/client/v3/rooms/{room_id}/redact/{}/{txn}", event.replace('$', "%24"))
        };
        let sent = sent["event_id"].as_str().unwrap();
        check(app.put(&path(sent, "a"), Some(&bob), json!({})).await, 403, "M_FORBIDDEN");
        let (status, first) = app.put(&path(sent, "a"), Some(&alice), json!({ "reason": "spam" })).await;
        assert_eq!(status, 200, "{first}");
        let (_, again) = app.put(&path(sent, "a"), Some(&alice), json!({ "reason": "spam" })).await;
        assert_eq!(first, again);
        check(app.put(&path("$none", "b"), Some(&alice), json!({})).await, 404, "M_NOT_FOUND");
    }
}
