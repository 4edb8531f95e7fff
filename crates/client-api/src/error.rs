//! Which errcode each error of the domain has.
//!
//! [`ApiError`] and the errors are other crates' types, so this is a function, [`api`], rather than `From`: a handler
//! writes `.map_err(api)?`. A crate whose errors reach clients gets an `impl IntoApiError` here, without a `_` arm: a new
//! variant must choose its errcode.

use std::time::Duration;

use myelin_accounts::{
    AccountDataError, AuthError, LoginError, PasswordError, ProfileError, RefreshError, RegistrationError,
    TagError, UiAuthError,
};
use myelin_devices::{BackupError, KeyError, ToDeviceError};
use myelin_ephemeral::RecordError;
use myelin_http::ApiError;
use myelin_push::PushRuleError;
use myelin_replication::WriteError;
use myelin_rooms::{RoomError, read::ReadError};
use myelin_storage::StorageError;
use myelin_sync::SyncError;
use ruma::{
    api::error::{ErrorKind, WrongRoomKeysVersionErrorData},
    push::InsertPushRuleError,
};

/// The answer to a request that failed so.
pub(crate) fn api<E: IntoApiError>(error: E) -> ApiError {
    error.into_api_error()
}

/// The answer about a room that the caller should be in: one that is not here must not be told from one that the caller
/// is not in.
pub(crate) fn in_room(error: RoomError) -> ApiError {
    match error {
        RoomError::UnknownRoom => api(RoomError::NotJoined),
        error => api(error),
    }
}

/// An error that a client can be told of.
pub(crate) trait IntoApiError {
    /// The answer.
    fn into_api_error(self) -> ApiError;
}

/// We have more to do than we can: the client is to come back.
pub(crate) fn overloaded() -> ApiError {
    ApiError::unavailable("The server is busy", Duration::from_secs(2))
}

/// The account is locked; the client keeps its session
/// (<https://spec.matrix.org/v1.19/client-server-api/#account-locking>).
pub(crate) fn user_locked() -> ApiError {
    ApiError::new(ErrorKind::UserLocked, "This account has been locked").with_field("soft_logout", true)
}

impl IntoApiError for StorageError {
    fn into_api_error(self) -> ApiError {
        match self {
            _ if self.is_unstorable_text() => ApiError::invalid_param("The character U+0000 can't be stored"),
            _ if self.is_outage() => outage(&self),
            Self::Unavailable(_)
            | Self::Postgres(_)
            | Self::Migration(_)
            | Self::Inconsistent(_)
            | Self::Fenced => ApiError::internal(self),
        }
    }
}

impl IntoApiError for WriteError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Overloaded | Self::Stopped | Self::Superseded | Self::Unsettled => overloaded(),
            Self::Storage(error) if error.is_unstorable_text() => {
                ApiError::invalid_param("The character U+0000 can't be stored")
            }
            Self::Storage(error) if error.is_outage() => outage(&error),
            Self::Storage(error) => ApiError::internal(error),
        }
    }
}

/// The database is away: the client is to come back.
fn outage(error: &StorageError) -> ApiError {
    tracing::warn!(%error, "request refused");
    overloaded()
}

impl IntoApiError for RecordError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Write(error) => api(error),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for SyncError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::UnknownPosition => {
                ApiError::invalid_param("`since` is from the future, or from another server")
            }
            Self::Overloaded => overloaded(),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for ReadError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::NotFound(what) => ApiError::not_found(what),
            Self::Forbidden(what) => ApiError::forbidden(what),
            Self::InvalidParam(what) => ApiError::invalid_param(what),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for AuthError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Unknown => ApiError::unknown_token("Unknown access token", false),
            Self::Expired => ApiError::unknown_token("The access token has expired", true),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for RefreshError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Unknown => ApiError::unknown_token("Unknown refresh token", false),
            Self::Expired => ApiError::unknown_token("The refresh token has expired", true),
            Self::Locked => user_locked(),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for LoginError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Invalid => ApiError::forbidden("Invalid user name or password"),
            Self::Deactivated => {
                ApiError::new(ErrorKind::UserDeactivated, "This account has been deactivated")
            }
            Self::Locked => user_locked(),
            Self::Overloaded => overloaded(),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for PasswordError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Weak(reason) => ApiError::new(ErrorKind::WeakPassword, reason),
            Self::UnknownUser => ApiError::not_found("There is no such user"),
            Self::Overloaded => overloaded(),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for RegistrationError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::InvalidUsername(reason) => ApiError::new(ErrorKind::InvalidUsername, reason),
            Self::UserInUse => ApiError::new(ErrorKind::UserInUse, "This user name is taken"),
            Self::RegistrationToken => ApiError::forbidden("The registration token can't be used any more"),
            Self::Password(error) => api(error),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for UiAuthError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::UnknownSession => ApiError::new(ErrorKind::Unknown, "Unknown session of authentication"),
            Self::OperationChanged => {
                ApiError::forbidden("The requested operation has changed during the authentication session")
            }
            Self::OtherUser => ApiError::forbidden("Only the user who is logged in can confirm this"),
            Self::Overloaded => overloaded(),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for ProfileError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::InvalidName => ApiError::invalid_param("Invalid profile field name"),
            Self::NameTooLong => {
                ApiError::new(ErrorKind::KeyTooLarge, "The profile field's name is too long")
            }
            Self::InvalidValue(reason) => ApiError::bad_json(reason),
            Self::ProfileTooLarge => {
                ApiError::new(ErrorKind::ProfileTooLarge, "The profile would become too large")
            }
            Self::Write(error) => api(error),
        }
    }
}

impl IntoApiError for AccountDataError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Write(error) => api(error),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for TagError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::NameTooLong => ApiError::invalid_param("A tag's name has at most 255 bytes"),
            Self::TooMany => {
                ApiError::new(ErrorKind::LimitExceeded(Default::default()), "The room has too many tags")
                    .with_status(http::StatusCode::BAD_REQUEST)
            }
            Self::Write(error) => api(error),
        }
    }
}

impl IntoApiError for KeyError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Malformed(reason) => ApiError::invalid_param(reason),
            Self::NotYours => ApiError::invalid_param("The keys belong to another user or device"),
            Self::UnknownDevice => ApiError::unknown_token("The device was deleted", false),
            Self::OneTimeKeyExists(_) => ApiError::invalid_param(self.to_string()),
            Self::TooManyOneTimeKeys => ApiError::too_large(self.to_string()),
            Self::InvalidSignature(reason) => {
                // ruma has no name for it.
                ApiError::invalid_param(reason).with_field("errcode", "M_INVALID_SIGNATURE")
            }
            Self::NoMasterKey => ApiError::new(ErrorKind::MissingParam, "There is no master key"),
            Self::KeyIdInUse | Self::AuthenticationRequired => ApiError::forbidden(self.to_string()),
            Self::Write(error) => api(error),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for ToDeviceError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::Malformed => ApiError::bad_json(self.to_string()),
            Self::Write(error) => api(error),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for BackupError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::UnknownVersion | Self::UnknownKey => ApiError::not_found(self.to_string()),
            Self::WrongVersion { current } => {
                let data = WrongRoomKeysVersionErrorData::new(current);
                ApiError::new(ErrorKind::WrongRoomKeysVersion(data), "This is not the newest backup")
            }
            Self::OtherAlgorithm => ApiError::invalid_param(self.to_string()),
            Self::Malformed(reason) => ApiError::bad_json(reason),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for PushRuleError {
    fn into_api_error(self) -> ApiError {
        match self {
            Self::NotFound => ApiError::not_found("The push rule was not found"),
            Self::Insert(InsertPushRuleError::UnknownRuleId) => {
                ApiError::new(ErrorKind::Unknown, "The rule that `before` or `after` names was not found")
            }
            Self::UnknownKind | Self::ServerDefault | Self::Insert(_) => {
                ApiError::invalid_param(self.to_string())
            }
            Self::TooMany => ApiError::too_large(self.to_string()),
            Self::Write(error) => api(error),
            Self::Storage(error) => api(error),
        }
    }
}

impl IntoApiError for RoomError {
    fn into_api_error(self) -> ApiError {
        let message = self.to_string();
        match self {
            Self::UnknownRoom | Self::UnknownAlias(_) | Self::UnknownEvent => ApiError::not_found(message),
            Self::NotHere(shard) => ApiError::elsewhere(shard),
            Self::Blocked | Self::NotJoined | Self::Forbidden(_) | Self::Banned(_) | Self::RemoteUser(_) => {
                ApiError::forbidden(message)
            }
            Self::GuestsForbidden => ApiError::new(ErrorKind::GuestAccessForbidden, message),
            Self::UnableToAuthoriseJoin => ApiError::new(ErrorKind::UnableToAuthorizeJoin, message),
            Self::UnsupportedVersion(_) => ApiError::new(ErrorKind::UnsupportedRoomVersion, message),
            Self::InvalidRoomState(_) => ApiError::new(ErrorKind::InvalidRoomState, message),
            Self::AliasTaken(_) => ApiError::new(ErrorKind::RoomInUse, message),
            Self::BadAlias(_) => ApiError::new(ErrorKind::BadAlias, message),
            Self::InvalidParam(_) => ApiError::invalid_param(message),
            Self::BadJson(_) => ApiError::bad_json(message),
            Self::TooLarge(_) => ApiError::too_large(message),
            Self::Overloaded => ApiError::limit_exceeded(Duration::from_secs(1)),
            Self::Unavailable(error) => api(error),
        }
    }
}
