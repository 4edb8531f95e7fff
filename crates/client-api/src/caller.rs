//! Who may call: the types that stand in a handler's signature.
//!
//! | type | who |
//! | --- | --- |
//! | [`LocalUser`] | a user with an account |
//! | [`GuestOrUser`] | the same, or a guest |
//! | [`OptionalUser`] | anybody; a token that comes along must be good |
//! | [`Admin`] | an administrator of the server |
//! | [`EvenLocked`] | a user or guest, also while the account is locked: only to log out |
//! | [`Anyone`] | anybody; a token is not looked at |
//!
//! All but the last dereference to the [`Login`]: `sender.user_id`, `sender.device_id`.

use std::{ops::Deref, sync::Arc};

use myelin_accounts::{Client, Login};
use myelin_http::{ApiError, Caller, RequestHead};
use ruma::{DeviceId, UserId, api::error::ErrorKind};

use crate::{
    App,
    error::{api, user_locked},
};

/// Whoever it is. A token that comes along is not looked at.
#[derive(Clone, Copy, Debug)]
pub struct Anyone;

/// A user with an account: guests are refused with `M_GUEST_ACCESS_FORBIDDEN`.
#[derive(Clone, Debug)]
pub struct LocalUser(Arc<Login>);

/// A user with an account, or a guest
/// (<https://spec.matrix.org/v1.19/client-server-api/#guest-access> lists what is open to them).
#[derive(Clone, Debug)]
pub struct GuestOrUser(Arc<Login>);

/// Somebody who may or may not have an account. A token that is not good is refused all the same.
#[derive(Clone, Debug)]
pub struct OptionalUser(pub Option<GuestOrUser>);

/// An administrator of the server; others are refused with `M_FORBIDDEN`.
#[derive(Clone, Debug)]
pub struct Admin(Arc<Login>);

/// A user or guest, also while the account is locked.
#[derive(Clone, Debug)]
pub struct EvenLocked(Arc<Login>);

macro_rules! is_logged_in {
    ($($caller:ident),*) => {$(
        impl Deref for $caller {
            type Target = Login;

            fn deref(&self) -> &Login {
                &self.0
            }
        }

        impl LoggedInCaller for $caller {
            fn login(&self) -> &Login {
                &self.0
            }
        }
    )*};
}

is_logged_in!(LocalUser, GuestOrUser, Admin, EvenLocked);

/// What all callers who are logged in have in common.
pub trait LoggedInCaller {
    /// The log-in.
    fn login(&self) -> &Login;

    /// The device.
    ///
    /// # Errors
    /// 400 `M_INVALID_PARAM` for a token that belongs to no device, as an administrator may have made one.
    fn require_device(&self) -> Result<&DeviceId, ApiError> {
        let device = self.login().device_id.as_deref();
        device.ok_or_else(|| ApiError::invalid_param("This needs an access token that belongs to a device"))
    }

    /// Refuses users who are suspended
    /// (<https://spec.matrix.org/v1.19/client-server-api/#account-suspension> lists what they can't do).
    ///
    /// # Errors
    /// 403 `M_USER_SUSPENDED`
    fn require_not_suspended(&self) -> Result<(), ApiError> {
        match self.login().flags.suspended {
            true => Err(ApiError::new(
                ErrorKind::UserSuspended,
                "You can't do this while your account is suspended",
            )),
            false => Ok(()),
        }
    }

    /// Refuses to do for `user` what only they themselves can do.
    ///
    /// # Errors
    /// 403 `M_FORBIDDEN`
    fn require_self(&self, user: &UserId) -> Result<(), ApiError> {
        match self.login().user_id == user {
            true => Ok(()),
            false => Err(ApiError::forbidden("You can only do this for yourself")),
        }
    }
}

async fn log_in(app: &App, request: &RequestHead, token: Option<&str>) -> Result<Arc<Login>, ApiError> {
    let token = token.ok_or_else(ApiError::missing_token)?;
    let client = Client { ip: request.remote_addr(), user_agent: request.user_agent() };
    app.accounts.authenticate(token, client).await.map_err(api)
}

async fn log_in_unlocked(
    app: &App,
    request: &RequestHead,
    token: Option<&str>,
) -> Result<Arc<Login>, ApiError> {
    let login = log_in(app, request, token).await?;
    if login.flags.locked { Err(user_locked()) } else { Ok(login) }
}

impl Caller<App> for Anyone {
    async fn authenticate(_: &App, _: &RequestHead, _: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self)
    }
}

impl Caller<App> for EvenLocked {
    async fn authenticate(app: &App, request: &RequestHead, token: Option<&str>) -> Result<Self, ApiError> {
        log_in(app, request, token).await.map(Self)
    }
}

impl Caller<App> for GuestOrUser {
    async fn authenticate(app: &App, request: &RequestHead, token: Option<&str>) -> Result<Self, ApiError> {
        log_in_unlocked(app, request, token).await.map(Self)
    }
}

impl Caller<App> for OptionalUser {
    async fn authenticate(app: &App, request: &RequestHead, token: Option<&str>) -> Result<Self, ApiError> {
        match token {
            None => Ok(Self(None)),
            Some(_) => GuestOrUser::authenticate(app, request, token).await.map(|user| Self(Some(user))),
        }
    }
}

impl Caller<App> for LocalUser {
    async fn authenticate(app: &App, request: &RequestHead, token: Option<&str>) -> Result<Self, ApiError> {
        let login = log_in_unlocked(app, request, token).await?;
        match login.flags.is_guest {
            true => Err(ApiError::new(ErrorKind::GuestAccessForbidden, "Guests can't do this")),
            false => Ok(Self(login)),
        }
    }
}

impl Caller<App> for Admin {
    async fn authenticate(app: &App, request: &RequestHead, token: Option<&str>) -> Result<Self, ApiError> {
        let login = log_in_unlocked(app, request, token).await?;
        match login.flags.is_admin {
            true => Ok(Self(login)),
            false => Err(ApiError::forbidden("Only administrators of the server can do this")),
        }
    }
}
