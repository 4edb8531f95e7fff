//! The threads of a room ([spec](https://spec.matrix.org/v1.19/client-server-api/#querying-threads-in-a-room)).

use myelin_http::{ApiError, JsonBody, Routes};
use myelin_rooms::read::ThreadsRequest;
use ruma::api::client::threads::get_threads::{self, v1::IncludeThreads};

use crate::{
    App, GuestOrUser,
    error::api,
    reading::{answer, limit, token, viewer},
};

/// Threads of a page, where the client does not say.
const DEFAULT_LIMIT: usize = 20;

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(threads);
}

async fn threads(
    app: App,
    user: GuestOrUser,
    request: get_threads::v1::Request,
) -> Result<JsonBody, ApiError> {
    let viewer = viewer(&app, &user).await?;
    let participated = match request.include {
        IncludeThreads::All => false,
        IncludeThreads::Participated => true,
        _ => return Err(ApiError::invalid_param("`include` is `all` or `participated`")),
    };
    let wanted = ThreadsRequest {
        from: token(request.from.as_deref())?,
        participated,
        limit: request.limit.map_or(DEFAULT_LIMIT, limit),
    };
    let threads = app.room_reader.threads(&viewer, &request.room_id, wanted).await.map_err(api)?;
    Ok(answer(threads.chunk.size_bytes(), |object| {
        object.with("chunk", |out| threads.chunk.write(out));
        if let Some(next_batch) = threads.next_batch {
            object.display("next_batch", next_batch);
        }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn threads_are_listed_with_what_is_in_them() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let room = app.public_room("alice").await;
        app.join("bob", &room).await;
        let root = app.say("alice", &room, "root").await;
        let relation = json!({ "rel_type": "m.thread", "event_id": root });
        let content = json!({ "msgtype": "m.text", "body": "reply", "m.relates_to": relation });
        let reply = app.send("alice", &room, "m.room.message", content).await;
        let path = format!("/_matrix/client/v1/rooms/{room}/threads");
        let (status, body) = app.get(&path, Some(&bob)).await;
        assert_eq!(status, 200, "{body}");
        let thread = &body["chunk"][0]["unsigned"]["m.relations"]["m.thread"];
        assert_eq!(thread["latest_event"]["event_id"], json!(reply));
        assert_eq!(thread["current_user_participated"], false);
        let participated = format!("{path}?include=participated");
        assert_eq!(app.get(&participated, Some(&bob)).await, (200, json!({ "chunk": [] })));
        let (_, body) = app.get(&participated, Some(&alice)).await;
        assert_eq!(body["chunk"][0]["event_id"], json!(root));
        check(app.get(&format!("{path}?include=x"), Some(&bob)).await, 400, "M_INVALID_PARAM");
        check(app.get(&format!("{path}?from=x"), Some(&bob)).await, 400, "M_INVALID_PARAM");
    }
}
