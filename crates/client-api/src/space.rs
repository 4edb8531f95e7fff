//! Spaces and the rooms below them
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#discovering-rooms-within-spaces)).

use myelin_http::{ApiError, JsonBody, Routes};
use myelin_rooms::read::HierarchyRequest;
use ruma::api::client::space::get_hierarchy;

use crate::{
    App, GuestOrUser,
    error::api,
    reading::{answer, limit},
};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(hierarchy);
}

async fn hierarchy(
    app: App,
    user: GuestOrUser,
    request: get_hierarchy::v1::Request,
) -> Result<JsonBody, ApiError> {
    let wanted = HierarchyRequest {
        from: request.from.filter(|from| !from.is_empty()),
        limit: request.limit.map(limit),
        max_depth: request.max_depth.map(limit),
        suggested_only: request.suggested_only,
    };
    let found = app.room_reader.hierarchy(&user.user_id, &request.room_id, &wanted).await.map_err(api)?;
    Ok(answer(found.rooms.size_bytes(), |object| {
        object.with("rooms", |out| found.rooms.write(out));
        if let Some(next_batch) = &found.next_batch {
            object.string("next_batch", next_batch);
        }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn a_room_that_is_no_space_stands_alone() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let room = app.public_room("alice").await;
        let path = format!("/_matrix/client/v1/rooms/{room}/hierarchy");
        let (status, body) = app.get(&path, Some(&bob)).await;
        assert_eq!((status, body["rooms"].as_array().map(Vec::len)), (200, Some(1)));
        let first = &body["rooms"][0];
        assert_eq!((&first["room_id"], &first["children_state"]), (&json!(room), &json!([])));
        check(app.get(&format!("{path}?from=x"), Some(&bob)).await, 400, "M_INVALID_PARAM");
        app.set("alice", &room, "m.room.join_rules", json!({ "join_rule": "invite" })).await;
        check(app.get(&path, Some(&bob)).await, 403, "M_FORBIDDEN");
        assert_eq!(app.get(&path, Some(&alice)).await.0, 200);
    }
}
