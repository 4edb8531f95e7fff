//! User-interactive authentication of requests that a stolen access token alone must not grant
//! (<https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>).

use myelin_accounts::{UiAuth, UiAuthPassed, UiAuthRequest};
use myelin_http::{ApiError, RequestHead};
use ruma::api::client::uiaa::{AuthData, AuthType};
use serde_json::Value as JsonValue;

use crate::{App, LocalUser, LoggedInCaller as _, error::api};

/// The one way in which a user confirms something.
const CONFIRMATION: &[&[AuthType]] = &[&[AuthType::Password]];

/// Whether a recent confirmation of another request is enough (`ui_auth.session_timeout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recent {
    /// It is.
    IsEnough,
    /// The request is too grave for that.
    IsNotEnough,
}

/// Grants a request that its user has confirmed with the password; any other is answered with what to do.
///
/// # Errors
/// 401 with the flows until the user has confirmed.
pub(crate) async fn require_confirmation(
    app: &App,
    head: &RequestHead,
    user: &LocalUser,
    auth: Option<&AuthData>,
    recent: Recent,
) -> Result<(), ApiError> {
    let request = UiAuthRequest {
        login: Some(user.login()),
        operation: &operation(head),
        request_hash: Some(UiAuthRequest::hash(&body_without_auth(head)?)),
        flows: CONFIRMATION,
        may_skip: recent == Recent::IsEnough,
    };
    let tries_password = matches!(auth, Some(AuthData::Password(_)));
    if tries_password {
        app.limits.login_failed.peek(&user.user_id)?;
    }
    match app.accounts.ui_auth(request, auth).await.map_err(api)? {
        UiAuth::Passed(_) => Ok(()),
        UiAuth::Incomplete(info) => {
            if tries_password && info.auth_error.is_some() {
                // It was allowed a moment ago; what counts is the next attempt.
                let _ = app.limits.login_failed.check(&user.user_id);
            }
            Err(ApiError::uiaa(*info))
        }
    }
}

/// Lets a client that registers take the next step. What is registered may change on the way: the name may be taken.
pub(crate) async fn require_registration_stages(
    app: &App,
    flows: &[&[AuthType]],
    auth: Option<&AuthData>,
) -> Result<UiAuthPassed, ApiError> {
    let request =
        UiAuthRequest { login: None, operation: "register", request_hash: None, flows, may_skip: false };
    match app.accounts.ui_auth(request, auth).await.map_err(api)? {
        UiAuth::Passed(passed) => Ok(passed),
        UiAuth::Incomplete(info) => Err(ApiError::uiaa(*info)),
    }
}

/// The method and the path, which names what is to be deleted, say.
fn operation(head: &RequestHead) -> String {
    format!("{} {}", head.method(), head.path())
}

fn body_without_auth(head: &RequestHead) -> Result<String, ApiError> {
    if head.body().is_empty() {
        return Ok("{}".to_owned());
    }
    let mut body: JsonValue =
        serde_json::from_slice(head.body()).map_err(|error| ApiError::from_json(&error))?;
    if let Some(body) = body.as_object_mut() {
        body.remove("auth");
    }
    Ok(body.to_string())
}
