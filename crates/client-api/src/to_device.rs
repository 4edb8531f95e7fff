//! Messages to devices
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging)).

use myelin_devices::SendToDevice;
use myelin_http::{ApiError, Routes};
use ruma::api::client::to_device::send_event_to_device::v3::{Request, Response};

use crate::{App, GuestOrUser, error::api};

/// Devices ask each other for the keys of rooms with it.
const ROOM_KEY_REQUEST: &str = "m.room_key_request";

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(send);
}

async fn send(app: App, user: GuestOrUser, request: Request) -> Result<Response, ApiError> {
    let event_type = request.event_type.to_string();
    // One's own devices are asked after every log-in; others see it as a nuisance.
    if event_type == ROOM_KEY_REQUEST && request.messages.keys().any(|target| *target != user.user_id) {
        app.limits.key_requests.check(&user.user_id)?;
    }
    let local = request.messages.into_iter().filter(|(user_id, _)| app.accounts.is_local(user_id));
    let messages = local
        .map(|(user_id, devices)| {
            let devices = devices.into_iter().map(|(device, content)| (device, content.into_json()));
            (user_id, devices.collect())
        })
        .collect();
    let request = SendToDevice {
        sender: user.user_id.clone(),
        transaction: user.device_id.clone().map(|device_id| (device_id, request.txn_id)),
        event_type,
        messages,
    };
    app.to_device.send(request).await.map_err(api)?;
    Ok(Response::new())
}

#[cfg(test)]
mod tests {
    use myelin_config::RateLimit;
    use ruma::user_id;
    use serde_json::json;

    use crate::{
        Settings,
        testing::{TestApp, check},
    };

    #[tokio::test]
    async fn a_message_is_sent_once_however_often_the_request_is_repeated() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let (_, body) = app.get("/_matrix/client/v3/account/whoami", Some(&bob)).await;
        let device = body["device_id"].as_str().unwrap();
        let path = "/_matrix/client/v3/sendToDevice/m.test/txn1";
        let messages = json!({ "messages": {
            "@bob:example.org": { "*": { "n": 1 } },
            "@x:else.org": { "*": { "n": 1 } },
        } });
        for _ in 0..2 {
            check(app.put(path, Some(&alice), messages.clone()).await, 200, "");
        }
        let start = myelin_types::Position::default();
        let upto = app.app.to_device.feed().position();
        let inbox =
            app.app.to_device.messages_for(user_id!("@bob:example.org"), device.into(), &start, &upto, 100);
        let messages = inbox.await.unwrap().messages;
        assert_eq!(messages.len(), 1);
        assert_eq!((&*messages[0].event_type, messages[0].content.get()), ("m.test", r#"{"n":1}"#));
        check(app.put(path, Some(&alice), json!({})).await, 400, "M_MISSING_PARAM");
        let path = "/_matrix/client/v3/sendToDevice/m.test/txn2";
        let wrong = json!({ "messages": { "@bob:example.org": { "*": 1 } } });
        check(app.put(path, Some(&alice), wrong).await, 400, "M_BAD_JSON");
    }

    #[tokio::test]
    async fn other_users_are_asked_for_keys_only_so_often() {
        let limit = |settings: &mut Settings| {
            settings.rate_limits.rc_key_requests = RateLimit { per_second: 0.1, burst_count: 1 };
        };
        let app = TestApp::with(limit).await;
        let alice = app.user("alice").await;
        let ask = async |whom: &str, txn_id: u8| {
            let path = format!("/_matrix/client/v3/sendToDevice/m.room_key_request/{txn_id}");
            app.put(&path, Some(&alice), json!({ "messages": { whom: { "*": {} } } })).await
        };
        for txn_id in 0..3 {
            check(ask("@alice:example.org", txn_id).await, 200, "");
        }
        check(ask("@bob:example.org", 3).await, 200, "");
        check(ask("@bob:example.org", 4).await, 429, "M_LIMIT_EXCEEDED");
    }
}
