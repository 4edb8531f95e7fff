//! What people learn of a room before they join it
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias)).

use myelin_http::{ApiError, Routes};
use myelin_storage::aliases;
use ruma::{OwnedRoomId, RoomId, RoomOrAliasId, api::client::room::get_summary};

use crate::{App, OptionalUser, error::api};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(summary);
}

async fn summary(
    app: App,
    caller: OptionalUser,
    request: get_summary::v1::Request,
) -> Result<get_summary::v1::Response, ApiError> {
    let room_id = resolve(&app, &request.room_id_or_alias).await?;
    let user_id = caller.0.as_ref().map(|user| &*user.user_id);
    let found = app.room_reader.summary(user_id, &room_id).await.map_err(api)?;
    let mut response = get_summary::v1::Response::new((*found.summary).clone());
    response.membership = found.membership;
    Ok(response)
}

async fn resolve(app: &App, name: &RoomOrAliasId) -> Result<OwnedRoomId, ApiError> {
    if let Ok(room_id) = <&RoomId>::try_from(name) {
        return Ok(room_id.to_owned());
    }
    let client = app.database.get().await.map_err(api)?;
    let alias = aliases::get_alias(&client, name.as_str()).await.map_err(api)?;
    let room_id = alias.and_then(|alias| OwnedRoomId::try_from(alias.room_id).ok());
    room_id.ok_or_else(|| ApiError::not_found("Room not found"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn a_summary_is_for_those_who_may_join() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let room = app.public_room("alice").await;
        app.set("alice", &room, "m.room.name", json!({ "name": "Open" })).await;
        let path = format!("/_matrix/client/v1/room_summary/{room}");
        let (status, summary) = app.get(&path, Some(&alice)).await;
        assert_eq!(status, 200);
        // A room without a join rule counts as public.
        let expected = json!({
            "room_id": room,
            "name": "Open",
            "num_joined_members": 1,
            "world_readable": false,
            "guest_can_join": false,
            "room_version": "12",
            "membership": "join",
        });
        assert_eq!(summary, expected);
        let (status, summary) = app.get(&path, None).await;
        assert_eq!((status, summary.get("membership")), (200, None));
        app.set("alice", &room, "m.room.join_rules", json!({ "join_rule": "invite" })).await;
        check(app.get(&path, None).await, 404, "M_NOT_FOUND");
        assert_eq!(app.get(&path, Some(&alice)).await.0, 200);
        let unknown = "/_matrix/client/v1/room_summary/%23unknown:example.org";
        check(app.get(unknown, Some(&alice)).await, 404, "M_NOT_FOUND");
    }
}
