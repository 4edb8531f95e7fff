//! Log-in, refresh and log-out ([spec](https://spec.matrix.org/v1.19/client-server-api/#legacy-login)).

use myelin_accounts::{LogIn, LoggedIn, LoginError};
use myelin_http::{ApiError, RequestHead, Routes};
use ruma::{
    OwnedUserId,
    api::{
        client::{
            session::{
                get_login_token,
                get_login_types::{
                    self,
                    v3::{LoginType, PasswordLoginType, TokenLoginType},
                },
                login, logout, logout_all, refresh_token,
            },
            uiaa::UserIdentifier,
        },
        error::ErrorKind,
    },
    thirdparty::Medium,
};

use crate::{
    Anyone, App, EvenLocked, LocalUser, device,
    error::api,
    limits::{Count, check_address},
    ui_auth::{Recent, require_confirmation},
};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(get_login_flows);
    routes.add(log_in);
    routes.add(get_login_token);
    routes.add(refresh);
    routes.add(log_out);
    routes.add(log_out_all);
}

async fn get_login_flows(
    app: App,
    _: Anyone,
    _: get_login_types::v3::Request,
) -> Result<get_login_types::v3::Response, ApiError> {
    let mut flows = Vec::new();
    if app.settings.has_password_login() {
        flows.push(LoginType::Password(PasswordLoginType::new()));
    }
    if app.settings.auth.login_via_existing_session.enabled {
        let mut token = TokenLoginType::new();
        token.get_login_token = true;
        flows.push(LoginType::Token(token));
    }
    Ok(get_login_types::v3::Response::new(flows))
}

async fn log_in(
    app: App,
    _: Anyone,
    request: login::v3::Request,
    head: RequestHead,
) -> Result<login::v3::Response, ApiError> {
    check_address(&app.limits.login_address, &head, Count::One)?;
    let user_id = match &request.login_info {
        login::v3::LoginInfo::Password(password) => log_in_by_password(&app, password).await?,
        login::v3::LoginInfo::Token(token) => {
            app.accounts.use_login_token(&token.token).await.map_err(api)?
        }
        // No application service is known here, so its token can't be a good one.
        login::v3::LoginInfo::ApplicationService(_) => {
            return Err(ApiError::unknown_token("Unknown application service token", false));
        }
        _ => return Err(ApiError::new(ErrorKind::Unknown, "Unknown login type")),
    };
    app.limits.login_account.check(&user_id)?;
    let log_in = LogIn {
        device_id: request.device_id.as_deref(),
        display_name: request.initial_device_display_name.as_deref(),
        refreshable: request.refresh_token,
    };
    let LoggedIn { user_id, device_id, access_token, refresh_token, expires_in, .. } =
        app.accounts.log_in(&user_id, log_in).await.map_err(api)?;
    let mut response = login::v3::Response::new(user_id, access_token, device_id);
    response.refresh_token = refresh_token;
    response.expires_in = expires_in;
    Ok(response)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#password-based>
async fn log_in_by_password(app: &App, login: &login::v3::Password) -> Result<OwnedUserId, ApiError> {
    if !app.settings.has_password_login() {
        return Err(ApiError::forbidden("Log-in by password is switched off"));
    }
    let Some(user_id) = find_user(app, login).await? else {
        return Err(api(LoginError::Invalid));
    };
    app.limits.login_failed.peek(&user_id)?;
    let outcome = app.accounts.check_password(&user_id, &login.password).await;
    if matches!(outcome, Err(LoginError::Invalid)) {
        // It was allowed a moment ago; what counts is the next attempt.
        let _ = app.limits.login_failed.check(&user_id);
    }
    outcome.map_err(api)
}

/// Who wants to log in; `None` for an address that is nobody's, or a name that can't be one.
#[expect(deprecated, reason = "clients of before r0.4 say `user`, or `medium` and `address`")]
async fn find_user(app: &App, login: &login::v3::Password) -> Result<Option<OwnedUserId>, ApiError> {
    let by_address = async |medium: &Medium, address: &str| {
        // E-mail addresses are kept in lower case.
        let address = if *medium == Medium::Email { address.to_lowercase() } else { address.to_owned() };
        app.accounts.threepid_owner(medium.as_str(), &address).await.map_err(api)
    };
    match (&login.identifier, &login.user, &login.medium, &login.address) {
        (Some(UserIdentifier::Matrix(identifier)), ..) => Ok(app.accounts.parse_user(&identifier.user)),
        (Some(identifier), ..) => match identifier.as_third_party_id() {
            Some((medium, address)) => by_address(medium, address).await,
            // Phone numbers in national notation are nobody's here: none can be added.
            None if matches!(identifier, UserIdentifier::PhoneNumber(_)) => Ok(None),
            None => Err(ApiError::new(ErrorKind::Unknown, "Unknown type of identifier")),
        },
        (None, Some(user), ..) => Ok(app.accounts.parse_user(user)),
        (None, None, Some(medium), Some(address)) => {
            by_address(&Medium::from(medium.as_str()), address).await
        }
        (None, None, ..) => Err(ApiError::new(ErrorKind::MissingParam, "Missing `identifier`")),
    }
}

async fn get_login_token(
    app: App,
    user: LocalUser,
    request: get_login_token::v1::Request,
    head: RequestHead,
) -> Result<get_login_token::v1::Response, ApiError> {
    let settings = &app.settings.auth.login_via_existing_session;
    if !settings.enabled {
        return Err(ApiError::unrecognized());
    }
    app.limits.login_account.peek(&user.user_id)?;
    if settings.require_ui_auth {
        require_confirmation(&app, &head, &user, request.auth.as_ref(), Recent::IsNotEnough).await?;
    }
    let (token, expires_in) = app.accounts.create_login_token(&user.user_id).await.map_err(api)?;
    Ok(get_login_token::v1::Response::new(expires_in, token))
}

async fn refresh(
    app: App,
    _: Anyone,
    request: refresh_token::v3::Request,
) -> Result<refresh_token::v3::Response, ApiError> {
    let refreshed = app.accounts.refresh(&request.refresh_token).await.map_err(api)?;
    let mut response = refresh_token::v3::Response::new(refreshed.access_token);
    response.refresh_token = Some(refreshed.refresh_token);
    response.expires_in_ms = refreshed.expires_in;
    Ok(response)
}

async fn log_out(
    app: App,
    caller: EvenLocked,
    _: logout::v3::Request,
) -> Result<logout::v3::Response, ApiError> {
    match &caller.device_id {
        Some(device_id) => device::delete_devices(&app, &caller.user_id, vec![device_id.clone()]).await?,
        None => app.accounts.delete_access_token(&caller).await.map_err(api)?,
    }
    Ok(logout::v3::Response::new())
}

async fn log_out_all(
    app: App,
    caller: EvenLocked,
    _: logout_all::v3::Request,
) -> Result<logout_all::v3::Response, ApiError> {
    device::delete_all_devices(&app, &caller.user_id, None).await?;
    Ok(logout_all::v3::Response::new())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as JsonValue, json};

    use crate::testing::{PASSWORD, TestApp, check};

    const LOGIN: &str = "/_matrix/client/v3/login";
    const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

    fn login(user: &str, password: &str) -> JsonValue {
        json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": user }, "password": password })
    }

    fn unlimited(settings: &mut crate::Settings) {
        let unlimited = myelin_config::RateLimit::UNLIMITED;
        let limits = &mut settings.rate_limits.rc_login;
        (limits.address, limits.account, limits.failed_attempts) =
            (unlimited.clone(), unlimited.clone(), unlimited);
    }

    #[tokio::test]
    async fn a_bad_log_in_is_told_what_is_wrong() {
        let app = TestApp::with(unlimited).await;
        app.user("alice").await;
        let expect = async |body: JsonValue, status: u16, errcode: &str| {
            check(app.post(LOGIN, None, body).await, status, errcode);
        };
        expect(login("alice", "wrong"), 403, "M_FORBIDDEN").await;
        expect(login("nobody", PASSWORD), 403, "M_FORBIDDEN").await;
        expect(login("@alice:else.org", PASSWORD), 403, "M_FORBIDDEN").await;
        expect(login("ali\0ce", PASSWORD), 403, "M_FORBIDDEN").await;
        expect(json!({}), 400, "M_BAD_JSON").await;
        expect(json!({ "type": "m.login.password", "password": "x" }), 400, "M_MISSING_PARAM").await;
        expect(json!({ "type": "org.example.magic" }), 400, "M_UNKNOWN").await;
        expect(json!({ "type": "m.login.token", "token": "x" }), 403, "M_FORBIDDEN").await;
        let email = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "a@b.c" });
        expect(
            json!({ "type": "m.login.password", "identifier": email, "password": "x" }),
            403,
            "M_FORBIDDEN",
        )
        .await;
        let phone = json!({ "type": "m.id.phone", "country": "GB", "phone": "1" });
        expect(
            json!({ "type": "m.login.password", "identifier": phone, "password": "x" }),
            403,
            "M_FORBIDDEN",
        )
        .await;
        let odd = json!({ "type": "m.id.odd" });
        expect(json!({ "type": "m.login.password", "identifier": odd, "password": "x" }), 400, "M_UNKNOWN")
            .await;
    }

    #[tokio::test]
    async fn a_session_begins_with_log_in_and_ends_with_log_out() {
        let app = TestApp::with(unlimited).await;
        app.user("alice").await;
        for body in [
            login("alice", PASSWORD),
            login("@alice:example.org", PASSWORD),
            json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD }),
        ] {
            let (status, body) = app.post(LOGIN, None, body).await;
            assert_eq!(status, 200, "{body}");
            let token = body["access_token"].as_str();
            let (status, whoami) = app.get(WHOAMI, token).await;
            assert_eq!(status, 200);
            assert_eq!(
                (&whoami["user_id"], &whoami["device_id"]),
                (&json!("@alice:example.org"), &body["device_id"])
            );
            check(app.post("/_matrix/client/v3/logout", token, json!({})).await, 200, "");
            check(app.get(WHOAMI, token).await, 401, "M_UNKNOWN_TOKEN");
        }
        check(app.get(WHOAMI, None).await, 401, "M_MISSING_TOKEN");
    }

    #[tokio::test]
    async fn a_refresh_replaces_both_tokens() {
        let app = TestApp::with(unlimited).await;
        app.user("alice").await;
        let mut request = login("alice", PASSWORD);
        request["refresh_token"] = json!(true);
        let (_, first) = app.post(LOGIN, None, request).await;
        assert_eq!(first["expires_in_ms"], 300_000);
        let body = json!({ "refresh_token": first["refresh_token"] });
        let (status, second) = app.post("/_matrix/client/v3/refresh", None, body.clone()).await;
        assert_eq!(status, 200, "{second}");
        check(app.get(WHOAMI, second["access_token"].as_str()).await, 200, "");
        check(app.post("/_matrix/client/v3/refresh", None, body).await, 401, "M_UNKNOWN_TOKEN");

        app.hands.advance(std::time::Duration::from_secs(300));
        let (status, body) = app.get(WHOAMI, second["access_token"].as_str()).await;
        assert_eq!((status, &body["soft_logout"]), (401, &json!(true)));
    }

    #[tokio::test]
    async fn a_password_is_not_guessed() {
        let app = TestApp::new().await;
        app.user("alice").await;
        for _ in 0..3 {
            check(app.post(LOGIN, None, login("alice", "wrong")).await, 403, "M_FORBIDDEN");
        }
        check(app.post(LOGIN, None, login("alice", PASSWORD)).await, 429, "M_LIMIT_EXCEEDED");
    }

    #[tokio::test]
    async fn a_login_token_needs_the_password_and_logs_in_once() {
        let path = "/_matrix/client/v1/login/get_token";
        let app = TestApp::new().await;
        let token = app.user("alice").await;
        check(app.post(path, Some(&token), json!({})).await, 404, "M_UNRECOGNIZED");

        let app = TestApp::with(|settings| settings.auth.login_via_existing_session.enabled = true).await;
        let token = app.user("alice").await;
        let (status, body) = app.post(path, Some(&token), json!({})).await;
        assert_eq!(status, 401);
        let auth = json!({
            "type": "m.login.password", "session": body["session"], "password": PASSWORD,
            "identifier": { "type": "m.id.user", "user": "alice" },
        });
        let (status, body) = app.post(path, Some(&token), json!({ "auth": auth })).await;
        assert_eq!((status, &body["expires_in_ms"]), (200, &json!(300_000)));
        let login = json!({ "type": "m.login.token", "token": body["login_token"] });
        check(app.post(LOGIN, None, login.clone()).await, 200, "");
        check(app.post(LOGIN, None, login).await, 403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn a_locked_user_can_log_out_and_nothing_else() {
        let app = TestApp::with(unlimited).await;
        let token = app.user("alice").await;
        let alice = ruma::user_id!("@alice:example.org");
        app.app.accounts.set_restriction(alice, myelin_accounts::Restriction::Locked, true).await.unwrap();
        let (status, body) = app.get(WHOAMI, Some(&token)).await;
        assert_eq!(
            (status, &body["errcode"], &body["soft_logout"]),
            (401, &json!("M_USER_LOCKED"), &json!(true))
        );
        check(app.post(LOGIN, None, login("alice", PASSWORD)).await, 401, "M_USER_LOCKED");
        check(app.post("/_matrix/client/v3/logout/all", Some(&token), json!({})).await, 200, "");
        check(app.get(WHOAMI, Some(&token)).await, 401, "M_UNKNOWN_TOKEN");
    }
}
