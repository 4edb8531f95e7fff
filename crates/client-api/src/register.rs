//! Registration ([spec](https://spec.matrix.org/v1.19/client-server-api/#legacy-account-registration)).

use myelin_accounts::{LogIn, NewAccount, Registered, RegistrationError, UiAuthPassed};
use myelin_http::{ApiError, RequestHead, Routes};
use ruma::api::{
    client::{
        account::{
            check_registration_token_validity as token_validity, get_username_availability,
            register::{self, LoginType, RegistrationKind},
        },
        uiaa::AuthType,
    },
    error::ErrorKind,
};

use crate::{
    Anyone, App,
    error::api,
    limits::{Count, check_address},
    ui_auth::require_registration_stages,
};

pub(crate) fn routes(routes: &mut Routes<App>) {
    routes.add(register);
    routes.add(is_username_available);
    routes.add(is_registration_token_valid);
}

async fn register(
    app: App,
    _: Anyone,
    request: register::v3::Request,
    head: RequestHead,
) -> Result<register::v3::Response, ApiError> {
    match &request.kind {
        RegistrationKind::User => {}
        RegistrationKind::Guest => return register_guest(&app, &request, &head).await,
        _ => return Err(ApiError::invalid_param("Accounts are of the kind `user` or `guest`")),
    }
    if matches!(request.login_type, Some(LoginType::ApplicationService)) {
        // No application service is known here, so its token can't be a good one.
        return Err(ApiError::unknown_token("Unknown application service token", false));
    }
    if !app.settings.registration.enable_registration {
        return Err(ApiError::forbidden("Registration is switched off"));
    }
    if request.guest_access_token.is_some() {
        return Err(ApiError::forbidden("The accounts of guests can't be upgraded"));
    }
    check_address(&app.limits.registration, &head, Count::Nothing)?;

    // What can be known to be wrong is told before the client goes through the stages. A name that is taken may be
    // taken by this very request, whose answer got lost.
    let is_taken = match check_username(&app, request.username.as_deref()).await {
        Err(RegistrationError::UserInUse) if request.auth.is_some() => true,
        other => other.map(|()| false).map_err(api)?,
    };
    if let Some(password) = &request.password {
        app.accounts.check_new_password(password).map_err(api)?;
    }
    let passed = require_registration_stages(&app, flows(&app), request.auth.as_ref()).await?;
    let log_in = (!request.inhibit_login).then_some(LogIn {
        device_id: request.device_id.as_deref(),
        display_name: request.initial_device_display_name.as_deref(),
        refreshable: request.refresh_token,
    });
    let registered = match passed.registered_user_id.clone() {
        Some(user_id) => {
            let logged_in = match log_in {
                Some(log_in) => Some(app.accounts.log_in(&user_id, log_in).await.map_err(api)?),
                None => None,
            };
            Registered { user_id, logged_in }
        }
        None if is_taken => return Err(api(RegistrationError::UserInUse)),
        None => {
            check_address(&app.limits.registration, &head, Count::One)?;
            create_account(&app, &request, &passed, log_in).await?
        }
    };
    Ok(answer(registered))
}

/// What a client has to do, if it does not have to know a secret.
fn flows(app: &App) -> &'static [&'static [AuthType]] {
    const DUMMY: &[&[AuthType]] = &[&[AuthType::Dummy]];
    const TOKEN: &[&[AuthType]] = &[&[AuthType::RegistrationToken]];
    if app.settings.registration.registration_requires_token { TOKEN } else { DUMMY }
}

async fn check_username(app: &App, username: Option<&str>) -> Result<(), RegistrationError> {
    match username {
        Some(username) if app.settings.registration.inhibit_user_in_use_error => {
            app.accounts.user_id_for(username).map(drop)
        }
        Some(username) => app.accounts.check_username(username).await.map(drop),
        None => Ok(()),
    }
}

async fn create_account(
    app: &App,
    request: &register::v3::Request,
    passed: &UiAuthPassed,
    log_in: Option<LogIn<'_>>,
) -> Result<Registered, ApiError> {
    let Some(password) = request.password.as_deref() else {
        return Err(ApiError::new(ErrorKind::MissingParam, "Missing `password`"));
    };
    let account = NewAccount {
        localpart: request.username.as_deref(),
        password: Some(password),
        registration_token: passed.registration_token.as_deref(),
        ui_auth_session: passed.session_id.as_deref(),
        log_in,
        ..NewAccount::default()
    };
    app.accounts.register(account).await.map_err(api)
}

/// <https://spec.matrix.org/v1.19/client-server-api/#guest-access>: all parameters but the device's name are ignored.
async fn register_guest(
    app: &App,
    request: &register::v3::Request,
    head: &RequestHead,
) -> Result<register::v3::Response, ApiError> {
    if !app.settings.registration.allow_guest_access {
        return Err(ApiError::new(ErrorKind::GuestAccessForbidden, "Guest access is switched off"));
    }
    check_address(&app.limits.registration, head, Count::One)?;
    let log_in = LogIn { display_name: request.initial_device_display_name.as_deref(), ..LogIn::default() };
    let guest = app.accounts.register_guest(log_in).await.map_err(api)?;
    Ok(answer(Registered { user_id: guest.user_id.clone(), logged_in: Some(guest) }))
}

fn answer(registered: Registered) -> register::v3::Response {
    let mut response = register::v3::Response::new(registered.user_id);
    if let Some(logged_in) = registered.logged_in {
        response.access_token = Some(logged_in.access_token);
        response.device_id = Some(logged_in.device_id);
        response.refresh_token = logged_in.refresh_token;
        response.expires_in = logged_in.expires_in;
    }
    response
}

async fn is_username_available(
    app: App,
    _: Anyone,
    request: get_username_availability::v3::Request,
    head: RequestHead,
) -> Result<get_username_availability::v3::Response, ApiError> {
    if !app.settings.registration.enable_registration {
        return Err(ApiError::forbidden("Registration is switched off"));
    }
    check_address(&app.limits.registration, &head, Count::Nothing)?;
    check_username(&app, Some(&request.username)).await.map_err(api)?;
    Ok(get_username_availability::v3::Response::new(true))
}

async fn is_registration_token_valid(
    app: App,
    _: Anyone,
    request: token_validity::v1::Request,
    head: RequestHead,
) -> Result<token_validity::v1::Response, ApiError> {
    check_address(&app.limits.registration_token_validity, &head, Count::One)?;
    if !app.settings.registration.enable_registration {
        return Err(ApiError::forbidden("Registration is switched off"));
    }
    let valid = app.accounts.is_registration_token_usable(&request.token).await.map_err(api)?;
    Ok(token_validity::v1::Response::new(valid))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as JsonValue, json};

    use crate::testing::{TestApp, check};

    const REGISTER: &str = "/_matrix/client/v3/register";

    fn body(username: &str) -> JsonValue {
        json!({ "username": username, "password": "secret", "auth": { "type": "m.login.dummy" } })
    }

    #[tokio::test]
    async fn a_registration_that_can_not_succeed_is_refused_before_the_stages() {
        let app = TestApp::new().await;
        app.user("alice").await;
        let expect = async |body: JsonValue, status: u16, errcode: &str| {
            check(app.post(REGISTER, None, body).await, status, errcode);
        };
        expect(json!({ "username": "alice" }), 400, "M_USER_IN_USE").await;
        expect(json!({ "username": "Alice", "password": "x" }), 400, "M_USER_IN_USE").await;
        expect(json!({ "username": "ä" }), 400, "M_INVALID_USERNAME").await;
        expect(json!({ "username": "bob", "password": "" }), 400, "M_WEAK_PASSWORD").await;
        expect(json!({ "username": 5 }), 400, "M_BAD_JSON").await;
        expect(body("alice"), 400, "M_USER_IN_USE").await;
        expect(json!({ "auth": { "type": "m.login.dummy" } }), 400, "M_MISSING_PARAM").await;
        check(
            app.post(&format!("{REGISTER}?kind=guest"), None, json!({})).await,
            403,
            "M_GUEST_ACCESS_FORBIDDEN",
        );
        check(app.post(&format!("{REGISTER}?kind=robot"), None, json!({})).await, 400, "M_INVALID_PARAM");

        let closed = TestApp::with(|settings| settings.registration.enable_registration = false).await;
        check(closed.post(REGISTER, None, body("bob")).await, 403, "M_FORBIDDEN");
        let available = "/_matrix/client/v3/register/available?username=bob";
        check(closed.get(available, None).await, 403, "M_FORBIDDEN");
        check(app.get(available, None).await, 200, "");
    }

    #[tokio::test]
    async fn an_account_is_made_and_logged_in() {
        let app = TestApp::new().await;
        let (status, step) = app.post(REGISTER, None, json!({})).await;
        assert_eq!((status, &step["flows"]), (401, &json!([{ "stages": ["m.login.dummy"] }])));
        let mut request = body("Bob");
        request["device_id"] = json!("PHONE");
        request["auth"]["session"] = step["session"].clone();
        for attempt in ["first", "repeated"] {
            let (status, body) = app.post(REGISTER, None, request.clone()).await;
            assert_eq!((status, &body["user_id"]), (200, &json!("@bob:example.org")), "{attempt}: {body}");
            assert_eq!(body["device_id"], "PHONE");
            check(app.get("/_matrix/client/v3/account/whoami", body["access_token"].as_str()).await, 200, "");
        }
        let mut request = body("carol");
        request["inhibit_login"] = json!(true);
        let (status, body) = app.post(REGISTER, None, request).await;
        assert_eq!((status, &body["user_id"]), (200, &json!("@carol:example.org")));
        assert!(body["access_token"].is_null() && body["device_id"].is_null(), "{body}");
    }

    #[tokio::test]
    async fn a_token_is_asked_for_where_it_is_required() {
        let app = TestApp::with(|settings| settings.registration.registration_requires_token = true).await;
        let db = app.app.database.get().await.unwrap();
        myelin_storage::accounts::registration::insert_token(&db, "one", Some(1), None).await.unwrap();
        let validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token=";
        assert_eq!(app.get(&format!("{validity}one"), None).await, (200, json!({ "valid": true })));
        assert_eq!(app.get(&format!("{validity}two"), None).await, (200, json!({ "valid": false })));

        let (status, _) = app.post(REGISTER, None, body("bob")).await;
        assert_eq!(status, 401, "a dummy does not do");
        let with_token = |username: &str| {
            let mut body = body(username);
            body["auth"] = json!({ "type": "m.login.registration_token", "token": "one" });
            body
        };
        check(app.post(REGISTER, None, with_token("bob")).await, 200, "");
        let (status, answer) = app.post(REGISTER, None, with_token("carol")).await;
        assert_eq!((status, &answer["errcode"]), (401, &json!("M_FORBIDDEN")));
    }

    #[tokio::test]
    async fn a_guest_may_look_and_not_much_more() {
        let app = TestApp::with(|settings| settings.registration.allow_guest_access = true).await;
        let (status, body) =
            app.post(&format!("{REGISTER}?kind=guest"), None, json!({ "username": "bob" })).await;
        assert_eq!(status, 200, "{body}");
        assert_ne!(body["user_id"], "@bob:example.org");
        let token = body["access_token"].as_str();
        let (_, whoami) = app.get("/_matrix/client/v3/account/whoami", token).await;
        assert_eq!(whoami["is_guest"], true);
        check(app.get("/_matrix/client/v3/capabilities", token).await, 403, "M_GUEST_ACCESS_FORBIDDEN");
    }
}
