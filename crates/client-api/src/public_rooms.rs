//! The published rooms ([spec](https://spec.matrix.org/v1.19/client-server-api/#published-room-directory)).

use myelin_http::{ApiError, Routes};
use myelin_rooms::read::{PublicRooms, PublicRoomsRequest};
use ruma::{
    OwnedServerName, UInt,
    api::client::directory::{get_public_rooms, get_public_rooms_filtered},
    directory::RoomNetwork,
};

use crate::{App, GuestOrUser, OptionalUser, error::api, reading::limit};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(public_rooms);
    routes.add(search);
}

async fn public_rooms(
    app: App,
    caller: OptionalUser,
    request: get_public_rooms::v3::Request,
) -> Result<get_public_rooms::v3::Response, ApiError> {
    if caller.0.is_none() && !app.settings.room_directory.allow_public_rooms_without_auth {
        return Err(ApiError::missing_token());
    }
    let wanted = PublicRoomsRequest {
        limit: request.limit.map(limit),
        since: request.since,
        ..PublicRoomsRequest::default()
    };
    let found = list(&app, request.server, &wanted).await?;
    let mut response = get_public_rooms::v3::Response::new(found.chunk);
    response.next_batch = found.next_batch;
    response.prev_batch = found.prev_batch;
    response.total_room_count_estimate = UInt::try_from(found.total).ok();
    Ok(response)
}

async fn search(
    app: App,
    _: GuestOrUser,
    request: get_public_rooms_filtered::v3::Request,
) -> Result<get_public_rooms_filtered::v3::Response, ApiError> {
    let wanted =
        PublicRoomsRequest { limit: request.limit.map(limit), since: request.since, filter: request.filter };
    // No application service brings a network of its own yet.
    let found = match request.room_network {
        RoomNetwork::Matrix | RoomNetwork::All => list(&app, request.server, &wanted).await?,
        _ => PublicRooms::default(),
    };
    let mut response = get_public_rooms_filtered::v3::Response::new();
    response.chunk = found.chunk;
    response.next_batch = found.next_batch;
    response.prev_batch = found.prev_batch;
    response.total_room_count_estimate = UInt::try_from(found.total).ok();
    Ok(response)
}

async fn list(
    app: &App,
    server: Option<OwnedServerName>,
    wanted: &PublicRoomsRequest,
) -> Result<PublicRooms, ApiError> {
    if server.is_some_and(|server| server != app.settings.server.server_name) {
        return Err(ApiError::not_found("This server does not talk to others yet"));
    }
    if !app.settings.room_directory.enable_room_list_search {
        return Ok(PublicRooms::default());
    }
    app.room_reader.public_rooms(wanted).await.map_err(api)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{TestApp, check};

    const PATH: &str = "/_matrix/client/v3/publicRooms";

    fn rooms(body: &Value) -> Vec<&str> {
        let chunk = body["chunk"].as_array().expect("a chunk is a list");
        chunk.iter().filter_map(|room| room["room_id"].as_str()).collect()
    }

    #[tokio::test]
    async fn published_rooms_are_listed_and_searched() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        app.user("bob").await;
        let (one, two) = (app.public_room("alice").await, app.public_room("alice").await);
        app.join("bob", &two).await;
        app.set("alice", &one, "m.room.name", json!({ "name": "Gardening" })).await;
        let (status, body) = app.get(PATH, Some(&alice)).await;
        assert_eq!((status, rooms(&body)), (200, vec![two.as_str(), one.as_str()]));
        assert_eq!(body["total_room_count_estimate"], 2);
        assert_eq!(
            (&body["chunk"][0]["num_joined_members"], &body["chunk"][1]["name"]),
            (&json!(2), &json!("Gardening"))
        );
        let (_, page) = app.get(&format!("{PATH}?limit=1"), Some(&alice)).await;
        let since = page["next_batch"].as_str().expect("there is more");
        let (_, next) = app.get(&format!("{PATH}?limit=1&since={since}"), Some(&alice)).await;
        assert_eq!((rooms(&next), next.get("next_batch")), (vec![one.as_str()], None));

        let filter = json!({ "filter": { "generic_search_term": "garden" } });
        let (status, found) = app.post(PATH, Some(&alice), filter).await;
        assert_eq!((status, rooms(&found)), (200, vec![one.as_str()]));
        let filter = json!({ "filter": { "room_types": ["m.space"] } });
        assert_eq!(rooms(&app.post(PATH, Some(&alice), filter).await.1), Vec::<&str>::new());
        let network = json!({ "third_party_instance_id": "irc" });
        assert_eq!(rooms(&app.post(PATH, Some(&alice), network).await.1), Vec::<&str>::new());
        check(app.get(&format!("{PATH}?since=x"), Some(&alice)).await, 400, "M_INVALID_PARAM");
        check(app.get(&format!("{PATH}?server=other.example"), Some(&alice)).await, 404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn anybody_can_ask_whether_a_room_is_published() {
        let app = TestApp::new().await;
        app.user("alice").await;
        let room = app.public_room("alice").await;
        let path = format!("/_matrix/client/v3/directory/list/room/{room}");
        assert_eq!(app.get(&path, None).await, (200, json!({ "visibility": "public" })));
        let unknown = "/_matrix/client/v3/directory/list/room/!unknown:example.org";
        check(app.get(unknown, None).await, 404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn the_configuration_says_who_sees_the_list() {
        let app = TestApp::new().await;
        check(app.get(PATH, None).await, 401, "M_MISSING_TOKEN");
        let app = TestApp::with(|settings| {
            settings.room_directory.allow_public_rooms_without_auth = true;
            settings.room_directory.enable_room_list_search = false;
        })
        .await;
        app.user("alice").await;
        app.public_room("alice").await;
        let (status, body) = app.get(PATH, None).await;
        assert_eq!((status, rooms(&body)), (200, Vec::new()));
    }
}
