//! Who is in a room, and in which rooms the user is
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-membership)).

use myelin_http::{ApiError, JsonBody, Routes};
use myelin_rooms::read::MembersRequest;
use ruma::api::client::membership::{get_member_events, joined_members, joined_rooms};

use crate::{
    App, GuestOrUser,
    error::api,
    reading::{answer, token, viewer},
};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(members);
    routes.add(joined);
    routes.add(rooms);
}

async fn members(
    app: App,
    user: GuestOrUser,
    request: get_member_events::v3::Request,
) -> Result<JsonBody, ApiError> {
    let viewer = viewer(&app, &user).await?;
    let wanted = MembersRequest {
        at: token(request.at.as_deref())?,
        membership: request.membership,
        not_membership: request.not_membership,
    };
    let members = app.room_reader.members(&viewer, &request.room_id, &wanted).await.map_err(api)?;
    Ok(answer(members.size_bytes(), |object| object.with("chunk", |out| members.write(out))))
}

async fn joined(
    app: App,
    user: GuestOrUser,
    request: joined_members::v3::Request,
) -> Result<JsonBody, ApiError> {
    let viewer = viewer(&app, &user).await?;
    let members = app.room_reader.joined_members(&viewer, &request.room_id).await.map_err(api)?;
    Ok(answer(members.len(), |object| object.raw("joined", &members)))
}

async fn rooms(
    app: App,
    user: GuestOrUser,
    _: joined_rooms::v3::Request,
) -> Result<joined_rooms::v3::Response, ApiError> {
    let rooms = app.room_reader.joined_rooms(&user.user_id).await.map_err(api)?;
    Ok(joined_rooms::v3::Response::new(rooms))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn members_and_rooms_are_listed() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let room = app.public_room("alice").await;
        let members = format!("/_matrix/client/v3/rooms/{room}/members");
        let joined_members = format!("/_matrix/client/v3/rooms/{room}/joined_members");
        let joined_rooms = "/_matrix/client/v3/joined_rooms";
        check(app.get(&members, Some(&bob)).await, 403, "M_FORBIDDEN");
        check(app.get(&joined_members, Some(&bob)).await, 403, "M_FORBIDDEN");
        assert_eq!(app.get(joined_rooms, Some(&bob)).await, (200, json!({ "joined_rooms": [] })));

        app.join("bob", &room).await;
        let (_, all) = app.get(&members, Some(&alice)).await;
        assert_eq!(all["chunk"].as_array().map(Vec::len), Some(2), "{all}");
        let (_, none) = app.get(&format!("{members}?not_membership=join"), Some(&alice)).await;
        assert_eq!(none, json!({ "chunk": [] }));
        check(app.get(&format!("{members}?at=nonsense"), Some(&alice)).await, 400, "M_INVALID_PARAM");
        let expected = json!({ "joined": {
            "@alice:example.org": { "display_name": "alice", "avatar_url": null },
            "@bob:example.org": { "display_name": "bob", "avatar_url": null },
        } });
        assert_eq!(app.get(&joined_members, Some(&bob)).await, (200, expected));
        assert_eq!(app.get(joined_rooms, Some(&bob)).await, (200, json!({ "joined_rooms": [room] })));
    }
}
