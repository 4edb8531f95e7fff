//! Profiles ([spec](https://spec.matrix.org/v1.19/client-server-api/#profiles)).

use std::sync::Arc;

use myelin_accounts::{Profile, is_shown_in_rooms};
use myelin_http::{ApiError, Routes};
use ruma::{
    UserId,
    api::client::profile::{delete_profile_field, get_profile, get_profile_field, set_profile_field},
    profile::{ProfileFieldName, ProfileFieldValue},
};

use crate::{App, GuestOrUser, LoggedInCaller as _, OptionalUser, error::api};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(get);
    routes.add(get_field);
    routes.add(set_field);
    routes.add(delete_field);
}

async fn get(
    app: App,
    asker: OptionalUser,
    request: get_profile::v3::Request,
) -> Result<get_profile::v3::Response, ApiError> {
    let profile = read(&app, &asker, &request.user_id).await?;
    let fields = profile.iter().map(|(name, value)| (name.clone(), value.clone()));
    Ok(fields.collect())
}

async fn get_field(
    app: App,
    asker: OptionalUser,
    request: get_profile_field::v3::Request,
) -> Result<get_profile_field::v3::Response, ApiError> {
    let profile = read(&app, &asker, &request.user_id).await?;
    let value = profile.get(request.field.as_str());
    let value = value.ok_or_else(|| ApiError::not_found("The profile has no such field"))?;
    let value = ProfileFieldValue::new(request.field.as_str(), value.clone()).map_err(ApiError::internal)?;
    Ok(get_profile_field::v3::Response::new(value))
}

async fn read(app: &App, asker: &OptionalUser, user: &UserId) -> Result<Arc<Profile>, ApiError> {
    if app.settings.users.require_auth_for_profile_requests && asker.0.is_none() {
        return Err(ApiError::missing_token());
    }
    let unknown = || ApiError::not_found("There is no such user");
    if !app.accounts.is_local(user) {
        // Other servers are asked once there is federation.
        return Err(unknown());
    }
    app.profiles.of(user).await.map_err(api)?.ok_or_else(unknown)
}

async fn set_field(
    app: App,
    user: GuestOrUser,
    request: set_profile_field::v3::Request,
) -> Result<set_profile_field::v3::Response, ApiError> {
    let name = request.value.field_name();
    require_may_change(&app, &user, &request.user_id, &name)?;
    let value = request.value.value();
    app.profiles.set(&user.user_id, name.as_str(), &value).await.map_err(api)?;
    show_in_rooms(&app, &user, &name);
    Ok(set_profile_field::v3::Response::new())
}

async fn delete_field(
    app: App,
    user: GuestOrUser,
    request: delete_profile_field::v3::Request,
) -> Result<delete_profile_field::v3::Response, ApiError> {
    require_may_change(&app, &user, &request.user_id, &request.field)?;
    app.profiles.delete(&user.user_id, request.field.as_str()).await.map_err(api)?;
    show_in_rooms(&app, &user, &request.field);
    Ok(delete_profile_field::v3::Response::new())
}

/// Carries what member events show into the rooms of the user
/// (<https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information>).
fn show_in_rooms(app: &App, user: &GuestOrUser, field: &ProfileFieldName) {
    if is_shown_in_rooms(field.as_str()) {
        app.rooms.profile_changed(user.user_id.clone());
    }
}

fn require_may_change(
    app: &App,
    user: &GuestOrUser,
    whose: &UserId,
    field: &ProfileFieldName,
) -> Result<(), ApiError> {
    user.require_self(whose)?;
    user.require_not_suspended()?;
    if user.flags.is_guest && *field != ProfileFieldName::DisplayName {
        return Err(ApiError::forbidden("Guests can only change their display name"));
    }
    let users = &app.settings.users;
    let is_open = match field {
        ProfileFieldName::DisplayName => users.enable_set_displayname,
        ProfileFieldName::AvatarUrl => users.enable_set_avatar_url,
        _ => true,
    };
    match is_open || user.flags.is_admin {
        true => Ok(()),
        false => Err(ApiError::forbidden("This field can't be changed on this server")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{TestApp, check};

    const ALICE: &str = "/_matrix/client/v3/profile/@alice:example.org";

    #[tokio::test]
    async fn a_profile_is_its_owners_to_change_and_everyones_to_see() {
        let app = TestApp::new().await;
        let (alice, bob) = (app.user("alice").await, app.user("bob").await);
        let field = |name: &str| format!("{ALICE}/{name}");
        assert_eq!(app.get(ALICE, None).await, (200, json!({ "displayname": "alice" })));
        check(app.put(&field("m.tz"), Some(&alice), json!({ "m.tz": "Europe/Berlin" })).await, 200, "");
        check(
            app.put(&field("avatar_url"), Some(&alice), json!({ "avatar_url": "mxc://a/b" })).await,
            200,
            "",
        );
        check(app.put(&field("org.x"), Some(&alice), json!({ "org.x": null })).await, 200, "");
        check(
            app.put(&field("displayname"), Some(&bob), json!({ "displayname": "x" })).await,
            403,
            "M_FORBIDDEN",
        );
        check(app.delete(&field("displayname"), Some(&alice), json!({})).await, 200, "");

        let expected = json!({ "avatar_url": "mxc://a/b", "m.tz": "Europe/Berlin", "org.x": null });
        assert_eq!(app.get(ALICE, Some(&bob)).await, (200, expected));
        assert_eq!(app.get(&field("avatar_url"), None).await, (200, json!({ "avatar_url": "mxc://a/b" })));
        check(app.get(&field("displayname"), None).await, 404, "M_NOT_FOUND");
        check(app.get("/_matrix/client/v3/profile/@nobody:example.org", None).await, 404, "M_NOT_FOUND");
        check(app.get("/_matrix/client/v3/profile/@alice:else.org", None).await, 404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn a_bad_field_is_told_what_is_wrong() {
        let app = TestApp::new().await;
        let alice = app.user("alice").await;
        let expect = async |name: &str, body: serde_json::Value, status: u16, errcode: &str| {
            check(app.put(&format!("{ALICE}/{name}"), Some(&alice), body).await, status, errcode);
        };
        expect("displayname", json!({ "avatar_url": "x" }), 400, "M_BAD_JSON").await;
        expect("displayname", json!({ "displayname": 5 }), 400, "M_BAD_JSON").await;
        expect("displayname", json!([]), 400, "M_BAD_JSON").await;
        expect("displayname", json!({ "displayname": "x".repeat(257) }), 400, "M_BAD_JSON").await;
        expect("Bad%20Name", json!({ "Bad Name": 1 }), 400, "M_INVALID_PARAM").await;
        let long = "x".repeat(256);
        expect(&long, json!({ long.clone(): 1 }), 400, "M_KEY_TOO_LARGE").await;
        expect("org.x", json!({ "org.x": "x".repeat(65_536) }), 400, "M_PROFILE_TOO_LARGE").await;
    }

    #[tokio::test]
    async fn an_operator_can_close_profiles() {
        let app = TestApp::with(|settings| {
            settings.users.enable_set_displayname = false;
            settings.users.require_auth_for_profile_requests = true;
        });
        let app = app.await;
        let alice = app.user("alice").await;
        check(app.get(ALICE, None).await, 401, "M_MISSING_TOKEN");
        check(app.get(ALICE, Some(&alice)).await, 200, "");
        let path = format!("{ALICE}/displayname");
        check(app.put(&path, Some(&alice), json!({ "displayname": "x" })).await, 403, "M_FORBIDDEN");
    }
}
