//! Events that point at others ([spec](https://spec.matrix.org/v1.19/client-server-api/#relationships-api)).

use myelin_http::{ApiError, JsonBody, Routes};
use myelin_rooms::read::RelationsRequest;
use ruma::{
    OwnedEventId, OwnedRoomId, UInt,
    api::client::relations::{
        get_relating_events, get_relating_events_with_rel_type,
        get_relating_events_with_rel_type_and_event_type,
    },
};

use crate::{
    App, GuestOrUser,
    error::api,
    reading::{answer, limit, token, viewer},
};

/// Events of a page, where the client does not say.
const DEFAULT_LIMIT: usize = 20;

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(relations);
    routes.add(relations_of_type);
    routes.add(relations_of_types);
}

/// A request, whichever of the three it was.
macro_rules! wanted {
    ($request:ident, $rel_type:expr, $event_type:expr) => {
        RelationsRequest {
            rel_type: $rel_type,
            event_type: $event_type,
            from: token($request.from.as_deref())?,
            to: token($request.to.as_deref())?,
            direction: $request.dir,
            limit: page($request.limit),
            recurse: $request.recurse,
        }
    };
}

async fn relations(
    app: App,
    user: GuestOrUser,
    request: get_relating_events::v1::Request,
) -> Result<JsonBody, ApiError> {
    let wanted = wanted!(request, None, None);
    list(&app, &user, request.room_id, request.event_id, request.from, wanted).await
}

async fn relations_of_type(
    app: App,
    user: GuestOrUser,
    request: get_relating_events_with_rel_type::v1::Request,
) -> Result<JsonBody, ApiError> {
    let wanted = wanted!(request, Some(request.rel_type.to_string()), None);
    list(&app, &user, request.room_id, request.event_id, request.from, wanted).await
}

async fn relations_of_types(
    app: App,
    user: GuestOrUser,
    request: get_relating_events_with_rel_type_and_event_type::v1::Request,
) -> Result<JsonBody, ApiError> {
    let types = (request.rel_type.to_string(), request.event_type.to_string());
    let wanted = wanted!(request, Some(types.0), Some(types.1));
    list(&app, &user, request.room_id, request.event_id, request.from, wanted).await
}

fn page(wanted: Option<UInt>) -> usize {
    wanted.map_or(DEFAULT_LIMIT, limit)
}

async fn list(
    app: &App,
    user: &GuestOrUser,
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
    from: Option<String>,
    wanted: RelationsRequest,
) -> Result<JsonBody, ApiError> {
    let viewer = viewer(app, user).await?;
    let related = app.room_reader.relations(&viewer, &room_id, &event_id, &wanted).await.map_err(api)?;
    Ok(answer(related.chunk.size_bytes(), |object| {
        object.with("chunk", |out| related.chunk.write(out));
        if let Some(next_batch) = related.next_batch {
            object.display("next_batch", next_batch);
        }
        if let Some(from) = &from {
            object.string("prev_batch", from);
        }
        if let Some(depth) = related.recursion_depth {
            object.integer("recursion_depth", depth.into());
        }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn relations_are_listed_by_type() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let room = app.public_room("alice").await;
        let root = app.say("alice", &room, "root").await;
        for (event_type, rel_type) in [("m.reaction", "m.annotation"), ("m.room.message", "m.thread")] {
            let relation = json!({ "rel_type": rel_type, "event_id": root, "key": "x" });
            let content = json!({ "msgtype": "m.text", "body": rel_type, "m.relates_to": relation });
            app.send("alice", &room, event_type, content).await;
        }
        let path = format!("/_matrix/client/v1/rooms/{room}/relations/{root}");
        let check_list = async |rest: &str, expected: &[&str]| -> Value {
            let (status, body) = app.get(&format!("{path}{rest}"), Some(&alice)).await;
            assert_eq!(status, 200, "{body}");
            let chunk = body["chunk"].as_array().expect("a chunk is a list");
            let found: Vec<&Value> = chunk.iter().map(|event| &event["content"]["body"]).collect();
            assert_eq!(found, expected, "{rest}");
            body
        };
        let all = check_list("", &["m.thread", "m.annotation"]).await;
        assert_eq!((all.get("next_batch"), all.get("recursion_depth")), (None, None));
        check_list("/m.thread", &["m.thread"]).await;
        check_list("/m.annotation/m.reaction", &["m.annotation"]).await;
        check_list("/m.annotation/m.room.message", &[]).await;
        let deep = check_list("?recurse=true&dir=f", &["m.annotation", "m.thread"]).await;
        assert_eq!(deep["recursion_depth"], 3);
        let first = check_list("?limit=1", &["m.thread"]).await;
        let rest = format!("?limit=1&from={}", first["next_batch"].as_str().expect("there is more"));
        let second = check_list(&rest, &["m.annotation"]).await;
        assert_eq!((second.get("next_batch"), second["prev_batch"].is_string()), (None, true));
        let unknown = format!("/_matrix/client/v1/rooms/{room}/relations/$unknown");
        check(app.get(&unknown, Some(&alice)).await, 404, "M_NOT_FOUND");
    }
}
