//! Aliases of rooms, and the directory that they can be published in
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-aliases)).

use myelin_http::{ApiError, Routes};
use myelin_rooms::RoomError;
use ruma::api::{
    client::{
        alias::{create_alias, delete_alias, get_alias},
        directory::{get_room_visibility, set_room_visibility},
        room::{Visibility, aliases},
    },
    error::ErrorKind,
};

use crate::{
    Anyone, App, GuestOrUser, LocalUser, LoggedInCaller as _,
    error::{api, in_room},
};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(create);
    routes.add(get);
    routes.add(delete);
    routes.add(list);
    routes.add(get_visibility);
    routes.add(set_visibility);
}

async fn create(
    app: App,
    user: LocalUser,
    request: create_alias::v3::Request,
) -> Result<create_alias::v3::Response, ApiError> {
    user.require_not_suspended()?;
    let created = app.rooms.create_alias(&user.user_id, &request.room_alias, &request.room_id).await;
    created.map_err(|error| match error {
        RoomError::AliasTaken(_) => {
            ApiError::new(ErrorKind::Unknown, error.to_string()).with_status(http::StatusCode::CONFLICT)
        }
        error => in_room(error),
    })?;
    Ok(create_alias::v3::Response::new())
}

async fn get(
    app: App,
    _: Anyone,
    request: get_alias::v3::Request,
) -> Result<get_alias::v3::Response, ApiError> {
    let room_id = app.rooms.get_alias(&request.room_alias).await.map_err(api)?;
    let room_id = room_id.ok_or_else(|| {
        ApiError::not_found(format!("There is no room with the alias {}", request.room_alias))
    })?;
    Ok(get_alias::v3::Response::new(room_id, vec![app.settings.server.server_name.clone()]))
}

async fn delete(
    app: App,
    user: LocalUser,
    request: delete_alias::v3::Request,
) -> Result<delete_alias::v3::Response, ApiError> {
    user.require_not_suspended()?;
    app.rooms.delete_alias(&user.user_id, &request.room_alias, user.flags.is_admin).await.map_err(api)?;
    Ok(delete_alias::v3::Response::new())
}

async fn list(
    app: App,
    user: GuestOrUser,
    request: aliases::v3::Request,
) -> Result<aliases::v3::Response, ApiError> {
    app.room_reader.require_present(&user.user_id, &request.room_id).await.map_err(api)?;
    let aliases = app.rooms.list_aliases(&request.room_id).await.map_err(in_room)?;
    Ok(aliases::v3::Response::new(aliases))
}

async fn get_visibility(
    app: App,
    _: Anyone,
    request: get_room_visibility::v3::Request,
) -> Result<get_room_visibility::v3::Response, ApiError> {
    let is_public = app.rooms.is_public(&request.room_id).await.map_err(api)?;
    let visibility = if is_public { Visibility::Public } else { Visibility::Private };
    Ok(get_room_visibility::v3::Response::new(visibility))
}

async fn set_visibility(
    app: App,
    user: LocalUser,
    request: set_room_visibility::v3::Request,
) -> Result<set_room_visibility::v3::Response, ApiError> {
    user.require_not_suspended()?;
    let is_public = match request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        other => return Err(ApiError::invalid_param(format!("`{}` is no visibility", other.as_str()))),
    };
    app.rooms
        .set_visibility(&user.user_id, &request.room_id, is_public, user.flags.is_admin)
        .await
        .map_err(api)?;
    Ok(set_room_visibility::v3::Response::new())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{TestApp, check};

    #[tokio::test]
    async fn an_alias_is_made_found_and_taken_away_by_who_may() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let room_id = app.room(&alice, json!({ "preset": "public_chat" })).await;
        let path = "/_matrix/client/v3/directory/room/%23there:example.org";
        let body = json!({ "room_id": room_id });
        check(app.get(path, None).await, 404, "M_NOT_FOUND");
        check(app.put(path, Some(&bob), body.clone()).await, 403, "M_FORBIDDEN");
        check(app.put(path, Some(&alice), body.clone()).await, 200, "");
        check(app.put(path, Some(&alice), body.clone()).await, 409, "M_UNKNOWN");
        let elsewhere = "/_matrix/client/v3/directory/room/%23there:else.org";
        check(app.put(elsewhere, Some(&alice), body).await, 400, "M_INVALID_PARAM");
        let found = json!({ "room_id": room_id, "servers": ["example.org"] });
        assert_eq!(app.get(path, None).await, (200, found));
        check(app.delete(path, Some(&bob), Value::Null).await, 403, "M_FORBIDDEN");
        check(app.delete(path, Some(&alice), Value::Null).await, 200, "");
        check(app.delete(path, Some(&alice), Value::Null).await, 404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn a_room_is_published_by_who_may() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let room_id = app.room(&alice, json!({ "preset": "public_chat" })).await;
        let path = format!("/_matrix/client/v3/directory/list/room/{room_id}");
        assert_eq!(app.get(&path, None).await, (200, json!({ "visibility": "private" })));
        let public = json!({ "visibility": "public" });
        check(app.put(&path, Some(&bob), public.clone()).await, 403, "M_FORBIDDEN");
        check(app.put(&path, Some(&alice), public.clone()).await, 200, "");
        assert_eq!(app.get(&path, None).await, (200, public));
        check(app.put(&path, Some(&alice), json!({ "visibility": "x" })).await, 400, "M_INVALID_PARAM");
        let none = "/_matrix/client/v3/directory/list/room/!none:example.org";
        check(app.get(none, None).await, 404, "M_NOT_FOUND");
    }
}
