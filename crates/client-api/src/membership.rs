//! Who is in a room ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-membership)).

use myelin_http::{ApiError, RequestHead, Routes};
use myelin_rooms::{ChangeMembership, MembershipAction, RoomError};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomOrAliasId,
    api::{
        client::{
            knock::knock_room,
            membership::{
                ban_user, forget_room, invite_user, invite_user::v3::InvitationRecipient, join_room_by_id,
                join_room_by_id_or_alias, kick_user, leave_room, unban_user,
            },
        },
        error::ErrorKind,
    },
};
use serde_json::{Map, Value as JsonValue};

use crate::{
    App, GuestOrUser, LocalUser, LoggedInCaller,
    create_room::{require_may_invite, threepids_refused},
    error::{api, in_room},
    replaced_room,
};

type JsonObject = Map<String, JsonValue>;

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(join);
    routes.add(join_by_alias);
    routes.add(knock);
    routes.add(invite);
    routes.add(leave);
    routes.add(kick);
    routes.add(ban);
    routes.add(unban);
    routes.add(forget);
}

/// A change of the caller's own membership.
fn own(
    user: &impl LoggedInCaller,
    room_id: OwnedRoomId,
    action: MembershipAction,
    reason: Option<String>,
) -> ChangeMembership {
    let login = user.login();
    ChangeMembership {
        reason,
        is_guest: login.flags.is_guest,
        device_id: login.device_id.clone(),
        ..ChangeMembership::new(login.user_id.clone(), room_id, action)
    }
}

async fn join(
    app: App,
    user: GuestOrUser,
    request: join_room_by_id::v3::Request,
    head: RequestHead,
) -> Result<join_room_by_id::v3::Response, ApiError> {
    let room_id = join_room(&app, &user, &head, request.room_id, request.reason).await?;
    Ok(join_room_by_id::v3::Response::new(room_id))
}

async fn join_by_alias(
    app: App,
    user: GuestOrUser,
    request: join_room_by_id_or_alias::v3::Request,
    head: RequestHead,
) -> Result<join_room_by_id_or_alias::v3::Response, ApiError> {
    let room_id = find(&app, &request.room_id_or_alias).await?;
    let room_id = join_room(&app, &user, &head, room_id, request.reason).await?;
    Ok(join_room_by_id_or_alias::v3::Response::new(room_id))
}

async fn join_room(
    app: &App,
    user: &GuestOrUser,
    head: &RequestHead,
    room_id: OwnedRoomId,
    reason: Option<String>,
) -> Result<OwnedRoomId, ApiError> {
    user.require_not_suspended()?;
    app.limits.join_local.check(&user.user_id)?;
    app.limits.join_per_room.check(&room_id)?;
    let mut change = own(user, room_id.clone(), MembershipAction::Join, reason);
    change.content = further_content(head)?;
    app.rooms.change_membership(change).await.map_err(api)?;
    replaced_room::carry_over(app, user, &room_id).await;
    Ok(room_id)
}

/// What the body of a join has beyond what the specification gives a meaning: clients mark their member events so.
fn further_content(head: &RequestHead) -> Result<JsonObject, ApiError> {
    if head.body().is_empty() {
        return Ok(JsonObject::new());
    }
    let mut body: JsonObject =
        serde_json::from_slice(head.body()).map_err(|error| ApiError::from_json(&error))?;
    for known in ["reason", "third_party_signed", "membership", "join_authorised_via_users_server"] {
        body.remove(known);
    }
    Ok(body)
}

/// The room that is meant. Other servers are asked once there is federation.
async fn find(app: &App, named: &RoomOrAliasId) -> Result<OwnedRoomId, ApiError> {
    match <&ruma::RoomId>::try_from(named) {
        Ok(room_id) => Ok(room_id.to_owned()),
        Err(alias) => {
            let room_id = app.rooms.get_alias(alias).await.map_err(api)?;
            room_id.ok_or_else(|| ApiError::not_found(format!("There is no room with the alias {alias}")))
        }
    }
}

async fn knock(
    app: App,
    user: LocalUser,
    request: knock_room::v3::Request,
) -> Result<knock_room::v3::Response, ApiError> {
    user.require_not_suspended()?;
    let room_id = find(&app, &request.room_id_or_alias).await?;
    app.limits.join_per_room.check(&room_id)?;
    let change = own(&user, room_id.clone(), MembershipAction::Knock, request.reason);
    app.rooms.change_membership(change).await.map_err(api)?;
    Ok(knock_room::v3::Response::new(room_id))
}

async fn invite(
    app: App,
    user: LocalUser,
    request: invite_user::v3::Request,
) -> Result<invite_user::v3::Response, ApiError> {
    user.require_not_suspended()?;
    require_may_invite(&app, &user)?;
    let InvitationRecipient::UserId(invited) = request.recipient else { return Err(threepids_refused()) };
    app.limits.invite_per_issuer.check(&user.user_id)?;
    app.limits.invite_per_user.check(&invited.user_id)?;
    app.limits.invite_per_room.check(&request.room_id)?;
    let change = own(&user, request.room_id, MembershipAction::Invite, invited.reason);
    change_other(&app, change, invited.user_id).await?;
    Ok(invite_user::v3::Response::new())
}

async fn leave(
    app: App,
    user: GuestOrUser,
    request: leave_room::v3::Request,
) -> Result<leave_room::v3::Response, ApiError> {
    let change = own(&user, request.room_id, MembershipAction::Leave, request.reason);
    app.rooms.change_membership(change).await.map_err(in_room)?;
    Ok(leave_room::v3::Response::new())
}

async fn change_other(app: &App, change: ChangeMembership, target: OwnedUserId) -> Result<(), ApiError> {
    let change = ChangeMembership { target, ..change };
    app.rooms.change_membership(change).await.map_err(in_room)?;
    Ok(())
}

async fn kick(
    app: App,
    user: LocalUser,
    request: kick_user::v3::Request,
) -> Result<kick_user::v3::Response, ApiError> {
    user.require_not_suspended()?;
    let change = own(&user, request.room_id, MembershipAction::Kick, request.reason);
    change_other(&app, change, request.user_id).await?;
    Ok(kick_user::v3::Response::new())
}

async fn ban(
    app: App,
    user: LocalUser,
    request: ban_user::v3::Request,
) -> Result<ban_user::v3::Response, ApiError> {
    user.require_not_suspended()?;
    let change = own(&user, request.room_id, MembershipAction::Ban, request.reason);
    change_other(&app, change, request.user_id).await?;
    Ok(ban_user::v3::Response::new())
}

async fn unban(
    app: App,
    user: LocalUser,
    request: unban_user::v3::Request,
) -> Result<unban_user::v3::Response, ApiError> {
    user.require_not_suspended()?;
    let change = own(&user, request.room_id, MembershipAction::Unban, request.reason);
    change_other(&app, change, request.user_id).await?;
    Ok(unban_user::v3::Response::new())
}

async fn forget(
    app: App,
    user: GuestOrUser,
    request: forget_room::v3::Request,
) -> Result<forget_room::v3::Response, ApiError> {
    app.rooms.forget(&user.user_id, &request.room_id).await.map_err(|error| match error {
        // What the specification wants for a room that one has not left.
        RoomError::Forbidden(reason) => {
            ApiError::new(ErrorKind::Unknown, reason).with_status(http::StatusCode::BAD_REQUEST)
        }
        error => in_room(error),
    })?;
    Ok(forget_room::v3::Response::new())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{TestApp, check};

    fn room(room_id: &str, action: &str) -> String {
        format!("/_matrix/client/v3/rooms/{room_id}/{action}")
    }

    #[tokio::test]
    async fn users_come_and_go_as_they_may() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let room_id = app.room(&alice, json!({ "preset": "private_chat", "room_alias_name": "den" })).await;
        let act = async |user: &str, action: &str, body: Value, status: u16, errcode: &str| {
            check(app.post(&room(&room_id, action), Some(user), body).await, status, errcode);
        };
        let target = json!({ "user_id": "@bob:example.org" });
        let by_alias = "/_matrix/client/v3/join/%23den:example.org";
        check(app.post(by_alias, Some(&bob), json!({})).await, 403, "M_FORBIDDEN");
        act(&bob, "invite", target.clone(), 403, "M_FORBIDDEN").await;
        act(&alice, "invite", target.clone(), 200, "").await;
        // Without a body, as matrix-nio does it.
        let (status, body) = app.post(by_alias, Some(&bob), Value::Null).await;
        assert_eq!((status, &body["room_id"]), (200, &json!(room_id)));
        act(&bob, "forget", json!({}), 400, "M_UNKNOWN").await;
        act(&bob, "join", json!({ "org.example.mood": "merry" }), 200, "").await;
        let path = room(&room_id, "state/m.room.member/@bob:example.org");
        let (_, content) = app.get(&path, Some(&bob)).await;
        assert_eq!(content["org.example.mood"], "merry");
        act(&bob, "kick", json!({ "user_id": "@alice:example.org" }), 403, "M_FORBIDDEN").await;
        act(&alice, "kick", target.clone(), 200, "").await;
        act(&bob, "join", json!({}), 403, "M_FORBIDDEN").await;
        act(&alice, "ban", target.clone(), 200, "").await;
        act(&alice, "invite", target.clone(), 403, "M_FORBIDDEN").await;
        act(&bob, "forget", json!({}), 200, "").await;
        act(&alice, "unban", target.clone(), 200, "").await;
        act(&alice, "invite", target, 200, "").await;
        act(&bob, "leave", json!({ "reason": "no" }), 200, "").await;
        act(&alice, "invite", json!({ "user_id": "nobody" }), 400, "M_BAD_JSON").await;
        act(&alice, "kick", json!({}), 400, "M_MISSING_PARAM").await;
        let by_mail =
            json!({ "id_server": "x", "id_access_token": "y", "medium": "email", "address": "a@b" });
        act(&alice, "invite", by_mail, 403, "M_THREEPID_DENIED").await;
    }

    #[tokio::test]
    async fn rooms_that_are_not_here_are_not_found_or_not_told_of() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        for (action, status, errcode) in
            [("join", 404, "M_NOT_FOUND"), ("leave", 403, "M_FORBIDDEN"), ("forget", 403, "M_FORBIDDEN")]
        {
            check(
                app.post(&room("!none:example.org", action), Some(&alice), json!({})).await,
                status,
                errcode,
            );
        }
        let by_alias = "/_matrix/client/v3/join/%23none:example.org";
        check(app.post(by_alias, Some(&alice), json!({})).await, 404, "M_NOT_FOUND");
        check(
            app.post("/_matrix/client/v3/join/none", Some(&alice), json!({})).await,
            400,
            "M_INVALID_PARAM",
        );
    }

    #[tokio::test]
    async fn a_knock_asks_to_be_let_in() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let rule = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
        let room_id = app.room(&alice, json!({ "initial_state": rule })).await;
        let knock = format!("/_matrix/client/v3/knock/{room_id}");
        let (status, body) = app.post(&knock, Some(&bob), json!({ "reason": "hello" })).await;
        assert_eq!((status, &body["room_id"]), (200, &json!(room_id)));
        check(app.post(&room(&room_id, "join"), Some(&bob), json!({})).await, 403, "M_FORBIDDEN");
        let target = json!({ "user_id": "@bob:example.org" });
        check(app.post(&room(&room_id, "invite"), Some(&alice), target).await, 200, "");
        check(app.post(&room(&room_id, "join"), Some(&bob), json!({})).await, 200, "");
    }
}
