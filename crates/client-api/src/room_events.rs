//! The events of a room: single ones, pages, and what happened around one
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room)).

use myelin_http::{ApiError, JsonBody, Routes};
use myelin_rooms::read::{ContextRequest, MessagesRequest, ReadFilter};
use ruma::api::{
    IncomingRequest, Metadata,
    client::{
        context::get_context,
        message::get_message_events,
        room::{get_event_by_timestamp, get_room_event},
    },
    error::DeserializationError,
};

use crate::{
    App, GuestOrUser,
    error::api,
    reading::{answer, limit, token, viewer},
};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(event);
    routes.add(context);
    routes.add(messages);
    routes.add(event_by_timestamp);
}

async fn event(
    app: App,
    user: GuestOrUser,
    request: get_room_event::v3::Request,
) -> Result<JsonBody, ApiError> {
    let viewer = viewer(&app, &user).await?;
    let event = app.room_reader.event(&viewer, &request.room_id, &request.event_id).await.map_err(api)?;
    Ok(JsonBody(event.into()))
}

async fn context(
    app: App,
    user: GuestOrUser,
    request: get_context::v3::Request,
) -> Result<JsonBody, ApiError> {
    let viewer = viewer(&app, &user).await?;
    let wanted = ContextRequest {
        limit: limit(request.limit),
        filter: ReadFilter::new(request.filter, &request.room_id),
    };
    let reader = &app.room_reader;
    let context = reader.context(&viewer, &request.room_id, &request.event_id, &wanted).await.map_err(api)?;
    let bytes = context.events_before.size_bytes() + context.events_after.size_bytes();
    Ok(answer(bytes + context.state.size_bytes() + context.event.len(), |object| {
        object.display("start", context.start);
        object.display("end", context.end);
        object.raw("event", &context.event);
        object.with("events_before", |out| context.events_before.write(out));
        object.with("events_after", |out| context.events_after.write(out));
        object.with("state", |out| context.state.write(out));
    }))
}

/// A request for messages, in which `dir` may be missing: as in Synapse, that is `f`, and clients came to rely on it.
#[derive(Clone, Debug)]
struct MessagesQuery(get_message_events::v3::Request);

impl Metadata for MessagesQuery {
    const METHOD: http::Method = get_message_events::v3::Request::METHOD;
    const RATE_LIMITED: bool = get_message_events::v3::Request::RATE_LIMITED;
    type Authentication = <get_message_events::v3::Request as Metadata>::Authentication;
    type PathBuilder = <get_message_events::v3::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = get_message_events::v3::Request::PATH_BUILDER;
}

impl IncomingRequest for MessagesQuery {
    type EndpointError = <get_message_events::v3::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = get_message_events::v3::Response;

    fn try_from_http_request_inner(
        mut request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let query = request.uri().query().unwrap_or_default();
        if !query.split('&').any(|parameter| parameter.starts_with("dir=")) {
            let path = request.uri().path();
            *request.uri_mut() = format!("{path}?{query}&dir=f").parse().unwrap_or_default();
        }
        get_message_events::v3::Request::try_from_http_request_inner(request, path_args).map(Self)
    }
}

async fn messages(
    app: App,
    user: GuestOrUser,
    MessagesQuery(request): MessagesQuery,
) -> Result<JsonBody, ApiError> {
    let viewer = viewer(&app, &user).await?;
    let wanted = MessagesRequest {
        from: token(request.from.as_deref())?,
        to: token(request.to.as_deref())?,
        direction: request.dir,
        limit: limit(request.limit),
        filter: ReadFilter::new(request.filter, &request.room_id),
    };
    let messages = app.room_reader.messages(&viewer, &request.room_id, &wanted).await.map_err(api)?;
    Ok(answer(messages.chunk.size_bytes() + messages.state.size_bytes(), |object| {
        // What came in goes back as it came, as the specification says.
        match request.from.as_deref().filter(|from| !from.is_empty()) {
            Some(from) => object.string("start", from),
            None => object.display("start", messages.start),
        }
        if let Some(end) = messages.end {
            object.display("end", end);
        }
        object.with("chunk", |out| messages.chunk.write(out));
        if !messages.state.is_empty() {
            object.with("state", |out| messages.state.write(out));
        }
    }))
}

async fn event_by_timestamp(
    app: App,
    user: GuestOrUser,
    request: get_event_by_timestamp::v1::Request,
) -> Result<get_event_by_timestamp::v1::Response, ApiError> {
    let viewer = viewer(&app, &user).await?;
    let reader = &app.room_reader;
    let found =
        reader.event_at_time(&viewer, &request.room_id, request.ts, request.dir).await.map_err(api)?;
    Ok(get_event_by_timestamp::v1::Response::new(found.event_id, found.origin_server_ts))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{TestApp, check};

    fn bodies(events: &Value) -> Vec<&str> {
        let events = events.as_array().expect("events are a list");
        events.iter().filter_map(|event| event["content"]["body"].as_str()).collect()
    }

    #[tokio::test]
    async fn messages_are_read_page_by_page() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let room = app.public_room("alice").await;
        for body in ["one", "two", "three"] {
            app.say("alice", &room, body).await;
        }
        let path = format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=2");
        let (status, page) = app.get(&path, Some(&alice)).await;
        assert_eq!((status, bodies(&page["chunk"])), (200, vec!["three", "two"]));
        assert_eq!(page.get("state"), None);
        let end = page["end"].as_str().expect("there is more");
        let (_, next) = app.get(&format!("{path}&from={end}"), Some(&alice)).await;
        assert_eq!((bodies(&next["chunk"])[0], &next["start"]), ("one", &json!(end)));

        let path = format!("/_matrix/client/v3/rooms/{room}/messages");
        let (_, forward) = app.get(&path, Some(&alice)).await;
        assert_eq!(forward["chunk"][0]["type"], "m.room.create", "without a direction it is forward");

        let lazy = r#"&filter={"lazy_load_members":true,"types":["m.room.message"]}"#;
        let (_, page) = app.get(&format!("{path}?dir=b{}", encode(lazy)), Some(&alice)).await;
        assert_eq!(page["state"][0]["state_key"], "@alice:example.org");
    }

    /// What a query may not have in it.
    fn encode(query: &str) -> String {
        query
            .replace('{', "%7B")
            .replace('}', "%7D")
            .replace('"', "%22")
            .replace('[', "%5B")
            .replace(']', "%5D")
    }

    #[tokio::test]
    async fn requests_that_make_no_sense_are_refused() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let room = app.public_room("alice").await;
        let path = format!("/_matrix/client/v3/rooms/{room}/messages");
        check(app.get(&format!("{path}?dir=b&from=nonsense"), Some(&alice)).await, 400, "M_INVALID_PARAM");
        check(app.get(&format!("{path}?dir=x"), Some(&alice)).await, 400, "M_INVALID_PARAM");
        check(app.get(&format!("{path}?dir=b"), Some(&bob)).await, 403, "M_FORBIDDEN");
        check(app.get(&format!("{path}?dir=b"), None).await, 401, "M_MISSING_TOKEN");
        let unknown = "/_matrix/client/v3/rooms/!unknown:example.org/messages?dir=b";
        check(app.get(unknown, Some(&alice)).await, 403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn an_event_is_found_with_what_happened_around_it() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let room = app.public_room("alice").await;
        let mut events = Vec::new();
        for body in ["one", "two", "three"] {
            events.push(app.say("alice", &room, body).await);
        }
        let path = format!("/_matrix/client/v3/rooms/{room}/event/{}", events[1]);
        let (status, event) = app.get(&path, Some(&alice)).await;
        assert_eq!((status, &event["content"]["body"]), (200, &json!("two")));
        check(app.get(&path, Some(&bob)).await, 404, "M_NOT_FOUND");

        let path = format!("/_matrix/client/v3/rooms/{room}/context/{}?limit=2", events[1]);
        let (status, context) = app.get(&path, Some(&alice)).await;
        assert_eq!(status, 200);
        assert_eq!(bodies(&context["events_before"]), ["one"]);
        assert_eq!(bodies(&context["events_after"]), ["three"]);
        assert_eq!(context["event"], event);
        assert!(context["state"].as_array().is_some_and(|state| !state.is_empty()));
        assert!(context["start"].is_string() && context["end"].is_string());
        check(app.get(&path, Some(&bob)).await, 404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn the_event_of_a_time_is_found() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let room = app.public_room("alice").await;
        let path = format!("/_matrix/client/v1/rooms/{room}/timestamp_to_event");
        let (status, found) = app.get(&format!("{path}?ts=1&dir=f"), Some(&alice)).await;
        assert_eq!((status, &found["origin_server_ts"]), (200, &json!(1_700_000_000_000_u64)));
        check(app.get(&format!("{path}?ts=1&dir=b"), Some(&alice)).await, 404, "M_NOT_FOUND");
    }
}
