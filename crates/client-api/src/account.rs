//! The account itself: who am I, password, deactivation, addresses, OpenID
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#legacy-account-management)).

use std::time::Duration;

use myelin_accounts::{Accounts, SessionsEnded};
use myelin_devices::TransactionWork;
use myelin_http::{ApiError, RequestHead, Routes};
use myelin_push::Pushers;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt, UserId,
    api::client::account::{
        ThirdPartyIdRemovalStatus, change_password, deactivate, get_3pids, request_openid_token, whoami,
    },
    authentication::TokenType,
    thirdparty::{ThirdPartyIdentifier, ThirdPartyIdentifierInit},
};

use crate::{
    App, GuestOrUser, LocalUser, LoggedInCaller as _, device,
    error::api,
    ui_auth::{Recent, require_confirmation},
};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(whoami);
    routes.add(change_password);
    routes.add(deactivate);
    routes.add(list_threepids);
    routes.add(request_openid_token);
}

async fn whoami(_: App, user: GuestOrUser, _: whoami::v3::Request) -> Result<whoami::v3::Response, ApiError> {
    let mut response = whoami::v3::Response::new(user.user_id.clone(), user.flags.is_guest);
    response.device_id = user.device_id.clone();
    Ok(response)
}

async fn change_password(
    app: App,
    user: LocalUser,
    request: change_password::v3::Request,
    head: RequestHead,
) -> Result<change_password::v3::Response, ApiError> {
    if !app.settings.has_password_login() {
        return Err(ApiError::forbidden("Log-in by password is switched off"));
    }
    app.accounts.check_new_password(&request.new_password).map_err(api)?;
    require_confirmation(&app, &head, &user, request.auth.as_ref(), Recent::IsNotEnough).await?;
    app.accounts.set_password(&user.user_id, &request.new_password).await.map_err(api)?;
    if request.logout_devices {
        device::delete_all_devices(&app, &user.user_id, user.device_id.clone()).await?;
    }
    Ok(change_password::v3::Response::new())
}

async fn deactivate(
    app: App,
    user: LocalUser,
    request: deactivate::v3::Request,
    head: RequestHead,
) -> Result<deactivate::v3::Response, ApiError> {
    require_confirmation(&app, &head, &user, request.auth.as_ref(), Recent::IsNotEnough).await?;
    deactivate_user(&app, &user.user_id, request.erase).await?;
    // Addresses are never bound to an identity server here, so there is nothing to unbind.
    Ok(deactivate::v3::Response::new(ThirdPartyIdRemovalStatus::Success))
}

/// Deactivates an account with all that belongs to it, but its membership of rooms.
pub(crate) async fn deactivate_user(app: &App, user: &UserId, erase: bool) -> Result<(), ApiError> {
    if erase {
        app.profiles.erase(user).await.map_err(api)?;
    }
    let devices = device::list_all_but(app, user, None).await?;
    let user_id = user.to_owned();
    let work: TransactionWork<Option<SessionsEnded>> = Box::new(move |transaction| {
        Box::pin(async move {
            Pushers::delete_all_in(transaction, &user_id).await?;
            Accounts::deactivate_in(transaction, &user_id, erase).await
        })
    });
    let ended = app.devices.remove_devices(user, devices, work).await.map_err(api)?;
    let ended = ended.ok_or_else(|| ApiError::not_found("There is no such user"))?;
    app.accounts.forget_tokens(&ended.revoked).await;
    Ok(())
}

async fn list_threepids(
    app: App,
    user: LocalUser,
    _: get_3pids::v3::Request,
) -> Result<get_3pids::v3::Response, ApiError> {
    let time = |ts: u64| MilliSecondsSinceUnixEpoch(UInt::new_saturating(ts));
    let threepids = app.accounts.threepids(&user.user_id).await.map_err(api)?.into_iter();
    let threepids = threepids.map(|threepid| -> ThirdPartyIdentifier {
        ThirdPartyIdentifierInit {
            address: threepid.address,
            medium: threepid.medium.into(),
            validated_at: time(threepid.validated_ts),
            added_at: time(threepid.added_ts),
        }
        .into()
    });
    Ok(get_3pids::v3::Response::new(threepids.collect()))
}

/// <https://spec.matrix.org/v1.19/client-server-api/#openid>
async fn request_openid_token(
    app: App,
    user: LocalUser,
    request: request_openid_token::v3::Request,
) -> Result<request_openid_token::v3::Response, ApiError> {
    user.require_self(&request.user_id)?;
    let (token, expires_in): (String, Duration) =
        app.accounts.create_openid_token(&user.user_id).await.map_err(api)?;
    let server_name = app.accounts.server_name().to_owned();
    Ok(request_openid_token::v3::Response::new(token, TokenType::Bearer, server_name, expires_in))
}

#[cfg(test)]
mod tests {
    use myelin_accounts::LogIn;
    use serde_json::{Value as JsonValue, json};

    use crate::testing::{PASSWORD, TestApp, check};

    const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

    fn confirmed(mut body: JsonValue) -> JsonValue {
        let identifier = json!({ "type": "m.id.user", "user": "@alice:example.org" });
        body["auth"] = json!({ "type": "m.login.password", "identifier": identifier, "password": PASSWORD });
        body
    }

    #[tokio::test]
    async fn a_new_password_logs_the_other_devices_out() {
        let path = "/_matrix/client/v3/account/password";
        let app = TestApp::new().await;
        let here = app.user("alice").await;
        let alice = ruma::user_id!("@alice:example.org");
        let there = app.app.accounts.log_in(alice, LogIn::default()).await.unwrap().access_token;
        check(app.post(path, Some(&here), json!({ "new_password": "" })).await, 400, "M_WEAK_PASSWORD");
        check(app.post(path, Some(&here), json!({ "new_password": "new" })).await, 401, "");
        check(app.post(path, None, json!({ "new_password": "new" })).await, 401, "M_MISSING_TOKEN");

        let stay = confirmed(json!({ "new_password": PASSWORD, "logout_devices": false }));
        check(app.post(path, Some(&here), stay).await, 200, "");
        check(app.get(WHOAMI, Some(&there)).await, 200, "");
        check(app.post(path, Some(&here), confirmed(json!({ "new_password": "new" }))).await, 200, "");
        check(app.get(WHOAMI, Some(&there)).await, 401, "M_UNKNOWN_TOKEN");
        check(app.get(WHOAMI, Some(&here)).await, 200, "");
        app.app.accounts.check_password(alice, "new").await.unwrap();
    }

    #[tokio::test]
    async fn a_deactivated_account_is_gone() {
        let path = "/_matrix/client/v3/account/deactivate";
        let app = TestApp::new().await;
        let token = app.user("alice").await;
        let profile = "/_matrix/client/v3/profile/@alice:example.org";
        assert_eq!(app.get(profile, None).await, (200, json!({ "displayname": "alice" })));
        check(app.post(path, Some(&token), json!({})).await, 401, "");
        let (status, body) = app.post(path, Some(&token), confirmed(json!({ "erase": true }))).await;
        assert_eq!((status, &body["id_server_unbind_result"]), (200, &json!("success")));
        check(app.get(WHOAMI, Some(&token)).await, 401, "M_UNKNOWN_TOKEN");
        let login = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
        check(app.post("/_matrix/client/v3/login", None, login).await, 403, "M_USER_DEACTIVATED");
        let available = "/_matrix/client/v3/register/available?username=alice";
        check(app.get(available, None).await, 400, "M_USER_IN_USE");
        assert_eq!(app.get(profile, None).await, (200, json!({})));
    }

    #[tokio::test]
    async fn an_openid_token_is_for_oneself() {
        let app = TestApp::new().await;
        let token = app.user("alice").await;
        let path = |user: &str| format!("/_matrix/client/v3/user/{user}/openid/request_token");
        let (status, body) = app.post(&path("@alice:example.org"), Some(&token), json!({})).await;
        assert_eq!((status, &body["matrix_server_name"]), (200, &json!("example.org")));
        check(app.post(&path("@bob:example.org"), Some(&token), json!({})).await, 403, "M_FORBIDDEN");
        let (status, body) = app.get("/_matrix/client/v3/account/3pid", Some(&token)).await;
        assert_eq!((status, body), (200, json!({ "threepids": [] })));
    }
}
