//! Syncing ([spec](https://spec.matrix.org/v1.19/client-server-api/#syncing)).

use std::sync::Arc;

use myelin_http::{ApiError, JsonBody, RequestHead, Routes};
use myelin_sync::{SyncFilter, SyncRequest};
use ruma::{
    UserId,
    api::client::sync::sync_events::v3::{Filter, Request},
};

use crate::{App, GuestOrUser, error::api};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(sync).long_poll("since");
}

async fn sync(
    app: App,
    user: GuestOrUser,
    request: Request,
    head: RequestHead,
) -> Result<JsonBody, ApiError> {
    let since = request.since.as_deref().map(str::parse).transpose();
    let request = SyncRequest {
        user_id: user.user_id.clone(),
        device_id: user.device_id.clone(),
        since: since.map_err(|_| ApiError::invalid_param("`since` is no token of this server"))?,
        filter: filter(&app, &user.user_id, request.filter).await?,
        timeout: request.timeout.unwrap_or_default(),
        full_state: request.full_state,
        set_presence: request.set_presence,
        use_state_after: request.use_state_after,
    };
    let answer = app.sync.sync(request, head.draining().started()).await;
    answer.map(JsonBody).map_err(api)
}

/// The filter of a request, which is written out or named.
async fn filter(app: &App, user_id: &UserId, filter: Option<Filter>) -> Result<Arc<SyncFilter>, ApiError> {
    let definition = match filter {
        None => return Ok(Arc::default()),
        Some(Filter::FilterDefinition(definition)) => definition,
        Some(Filter::FilterId(id)) => {
            let known = app.filters.get(user_id, &id).await.map_err(api)?;
            let known = known.ok_or_else(|| ApiError::invalid_param("You have no such filter"))?;
            (*known).clone()
        }
        // ruma may come to know more ways to name a filter.
        Some(_) => return Err(ApiError::invalid_param("`filter` is neither a filter nor the ID of one")),
    };
    Ok(Arc::new(SyncFilter::new(definition)))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value as JsonValue, json};

    use crate::testing::{TestApp, check};

    const SYNC: &str = "/_matrix/client/v3/sync";

    async fn room(app: &TestApp, token: &str) -> String {
        let request = json!({ "preset": "public_chat", "name": "Lounge" });
        let (status, body) = app.post("/_matrix/client/v3/createRoom", Some(token), request).await;
        assert_eq!(status, 200, "{body}");
        body["room_id"].as_str().unwrap().to_owned()
    }

    async fn say(app: &TestApp, token: &str, room_id: &str, txn_id: &str) -> JsonValue {
        let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{txn_id}");
        let (status, body) = app.put(&path, Some(token), json!({ "msgtype": "m.text", "body": "hi" })).await;
        assert_eq!(status, 200, "{body}");
        body["event_id"].clone()
    }

    #[tokio::test]
    async fn a_message_reaches_the_other_members() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let room_id = room(&app, &alice).await;
        app.post(&format!("/_matrix/client/v3/join/{room_id}"), Some(&bob), json!({})).await;
        let (status, first) = app.get(SYNC, Some(&bob)).await;
        assert_eq!(status, 200, "{first}");
        let state = first["rooms"]["join"][&room_id]["timeline"]["events"].as_array().unwrap();
        assert!(state.iter().any(|event| event["content"]["name"] == "Lounge"), "{state:?}");

        let event_id = say(&app, &alice, &room_id, "1").await;
        let since = first["next_batch"].as_str().unwrap();
        let next = format!("{SYNC}?since={since}&timeout=1000");
        let (_, second) = app.get(&next, Some(&bob)).await;
        let timeline = &second["rooms"]["join"][&room_id]["timeline"]["events"];
        assert_eq!(timeline[0]["event_id"], event_id);
        assert_eq!(timeline[0]["unsigned"]["transaction_id"], JsonValue::Null);
        assert_eq!(second["rooms"]["join"][&room_id]["unread_notifications"]["notification_count"], 1);
        let (_, own) = app.get(&format!("{SYNC}?since={since}"), Some(&alice)).await;
        let own = &own["rooms"]["join"][&room_id]["timeline"]["events"][0];
        assert_eq!(own["unsigned"]["transaction_id"], "1");
    }

    #[tokio::test]
    async fn a_filter_is_written_out_or_named() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let room_id = room(&app, &alice).await;
        let filter = json!({ "room": { "timeline": { "limit": 1 } } });
        let path = "/_matrix/client/v3/user/@alice:example.org/filter";
        let (_, named) = app.post(path, Some(&alice), filter.clone()).await;
        let written_out = filter.to_string().replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
        for filter in [&*written_out, named["filter_id"].as_str().unwrap()] {
            let (_, answer) = app.get(&format!("{SYNC}?filter={filter}"), Some(&alice)).await;
            let timeline = &answer["rooms"]["join"][&room_id]["timeline"];
            assert_eq!(timeline["events"].as_array().unwrap().len(), 1, "{filter}");
            assert_eq!(timeline["limited"], true);
        }
        check(app.get(&format!("{SYNC}?filter=99"), Some(&alice)).await, 400, "M_INVALID_PARAM");
        check(app.get(&format!("{SYNC}?filter=%7B"), Some(&alice)).await, 400, "M_INVALID_PARAM");
    }

    #[tokio::test]
    async fn account_data_keys_and_messages_come_along() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let (_, first) = app.get(SYNC, Some(&bob)).await;
        let data = first["account_data"]["events"].as_array().unwrap();
        assert!(data.iter().any(|datum| datum["type"] == "m.push_rules"), "{data:?}");
        let (_, me) = app.get("/_matrix/client/v3/account/whoami", Some(&bob)).await;
        let messages =
            json!({ "messages": { "@bob:example.org": { me["device_id"].as_str().unwrap(): { "n": 1 } } } });
        let path = "/_matrix/client/v3/sendToDevice/m.test/1";
        assert_eq!(app.put(path, Some(&alice), messages).await.0, 200);
        let path = "/_matrix/client/v3/user/@bob:example.org/account_data/im.test";
        assert_eq!(app.put(path, Some(&bob), json!({ "a": 1 })).await.0, 200);
        let next = format!("{SYNC}?since={}", first["next_batch"].as_str().unwrap());
        let (_, second) = app.get(&next, Some(&bob)).await;
        let message = json!({ "type": "m.test", "sender": "@alice:example.org", "content": { "n": 1 } });
        assert_eq!(second["to_device"]["events"], json!([message]));
        let datum = json!({ "type": "im.test", "content": { "a": 1 } });
        assert_eq!(second["account_data"]["events"], json!([datum]));
        assert!(second["device_one_time_keys_count"].is_object());
        let next = format!("{SYNC}?since={}", second["next_batch"].as_str().unwrap());
        let (_, third) = app.get(&next, Some(&bob)).await;
        assert_eq!(third["to_device"]["events"], json!([]));
    }

    #[tokio::test]
    async fn bad_requests_get_the_errcode_of_the_specification() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        check(app.get(SYNC, None).await, 401, "M_MISSING_TOKEN");
        check(app.get(SYNC, Some("wrong")).await, 401, "M_UNKNOWN_TOKEN");
        for query in ["since=x", "since=t5", "timeout=long", "full_state=2"] {
            let answer =
                app.call(Method::GET, &format!("{SYNC}?{query}"), Some(&alice), JsonValue::Null).await;
            check(answer, 400, "M_INVALID_PARAM");
        }
    }
}
