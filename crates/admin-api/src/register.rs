//! Registration by who knows `registration_shared_secret`: `/_synapse/admin/v1/register`
//! ([Synapse](https://element-hq.github.io/synapse/latest/admin_api/register_api.html)).
//!
//! The client gets a nonce, and proves with an HMAC over the nonce and the account's particulars that it knows the
//! secret, which itself never travels.

use http::Method;
use myelin_accounts::{LogIn, NewAccount, PasswordError, RegistrationError, SharedSecretRegistration};
use myelin_config::Secret;
use myelin_http::{ApiError, RawRequest, RawResponse, Routes};
use ruma::api::error::ErrorKind;
use serde::Deserialize;
use serde_json::json;

use crate::AdminApi;

const PATH: &str = "/_synapse/admin/v1/register";
/// What a name or a password may be long, in characters.
const MAX_CHARACTERS: usize = 512;

pub(crate) fn routes(routes: &mut Routes<AdminApi>) {
    routes.add_raw(Method::GET, PATH, nonce);
    routes.add_raw(Method::POST, PATH, register);
}

/// The body of the request. Unknown keys are left alone.
#[derive(Deserialize)]
struct Registration {
    nonce: String,
    username: String,
    password: String,
    #[serde(default)]
    displayname: Option<String>,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    user_type: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
    mac: String,
}

async fn nonce(api: AdminApi, _: RawRequest) -> Result<RawResponse, ApiError> {
    secret(&api)?;
    let nonce = api.0.accounts.create_registration_nonce().await.map_err(ApiError::internal)?;
    Ok(RawResponse::json(json!({ "nonce": nonce }).to_string()))
}

async fn register(api: AdminApi, request: RawRequest) -> Result<RawResponse, ApiError> {
    let secret = secret(&api)?;
    let registration: Registration = request.json()?;
    check(&registration)?;
    let accounts = &api.0.accounts;
    if !accounts.use_registration_nonce(&registration.nonce).await.map_err(ApiError::internal)? {
        return Err(ApiError::invalid_param("The nonce is unknown, used or too old"));
    }
    if !registration.is_signed_with(secret) {
        return Err(ApiError::forbidden("The `mac` is not that of these particulars"));
    }
    let account = NewAccount {
        localpart: Some(&registration.username),
        password: Some(&registration.password),
        displayname: registration.displayname.as_deref(),
        is_admin: registration.admin,
        user_type: registration.user_type.as_deref(),
        log_in: (!registration.inhibit_login).then(LogIn::default),
        ..NewAccount::default()
    };
    let registered = accounts.register(account).await.map_err(refused)?;
    let mut answer = json!({ "user_id": registered.user_id, "home_server": api.0.server_name });
    if let Some(logged_in) = registered.logged_in {
        answer["access_token"] = logged_in.access_token.into();
        answer["device_id"] = logged_in.device_id.as_str().into();
    }
    Ok(RawResponse::json(answer.to_string()))
}

fn secret(api: &AdminApi) -> Result<&Secret, ApiError> {
    let secret = api.0.registration_shared_secret.as_ref();
    secret.ok_or_else(|| ApiError::new(ErrorKind::Unknown, "Registration by shared secret is switched off"))
}

/// Refuses what could mean something else under the same HMAC, or is out of bounds.
fn check(registration: &Registration) -> Result<(), ApiError> {
    for (name, value) in [("username", &registration.username), ("password", &registration.password)] {
        if value.contains('\0') {
            return Err(ApiError::invalid_param(format!("There must be no NUL in `{name}`")));
        }
        if value.chars().count() > MAX_CHARACTERS {
            return Err(ApiError::invalid_param(format!(
                "`{name}` is longer than {MAX_CHARACTERS} characters"
            )));
        }
    }
    match registration.user_type.as_deref() {
        None | Some("support" | "bot") => Ok(()),
        Some(_) => Err(ApiError::invalid_param("`user_type` is `support` or `bot`, if anything")),
    }
}

impl Registration {
    fn is_signed_with(&self, secret: &Secret) -> bool {
        let signed = SharedSecretRegistration {
            nonce: &self.nonce,
            username: &self.username,
            password: &self.password,
            is_admin: self.admin,
            user_type: self.user_type.as_deref(),
        };
        signed.is_signed(secret.expose(), &self.mac)
    }
}

fn refused(error: RegistrationError) -> ApiError {
    match error {
        RegistrationError::InvalidUsername(reason) => ApiError::new(ErrorKind::InvalidUsername, reason),
        RegistrationError::UserInUse => ApiError::new(ErrorKind::UserInUse, "This user name is taken"),
        RegistrationError::Password(PasswordError::Weak(reason)) => {
            ApiError::new(ErrorKind::WeakPassword, reason)
        }
        other => ApiError::internal(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(mac: &str) -> Registration {
        serde_json::from_value(json!({
            "nonce": "thisisanonce", "username": "pepper_roni", "password": "pizza", "admin": true, "mac": mac,
        }))
        .unwrap()
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let with = |change: fn(&mut Registration)| {
            let mut registration = registration("");
            change(&mut registration);
            check(&registration).err().and_then(|error| error.errcode())
        };
        assert_eq!(with(|_| {}), None);
        let invalid = Some("M_INVALID_PARAM".to_owned());
        assert_eq!(with(|registration| registration.username.push('\0')), invalid);
        assert_eq!(with(|registration| registration.password.push('\0')), invalid);
        assert_eq!(with(|registration| registration.username = "x".repeat(513)), invalid);
        assert_eq!(with(|registration| registration.user_type = Some("king".into())), invalid);
    }
}
