//! Sessions: log-in and refresh. Log-out is the deletion of the device
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#relationship-between-access-tokens-and-devices)).

use std::time::Duration;

use myelin_storage::{
    Result, StorageError, Transaction,
    accounts::{
        refresh_tokens::{self, NewRefreshToken, Replacement},
        sessions::{self, NewSession},
    },
};
use myelin_types::{MillisSinceEpoch, random_alphanumeric};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::{
    Accounts,
    devices::MAX_DISPLAY_NAME_LEN,
    token::{self, TokenKind},
};

/// What a user who has proven to be who they are logs in with.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogIn<'a> {
    /// A device that is known or to be made; `None` makes one with a random ID. A known device loses its tokens.
    pub device_id: Option<&'a DeviceId>,
    /// The name of a device that is new.
    pub display_name: Option<&'a str>,
    /// The client can refresh tokens.
    pub refreshable: bool,
}

/// A session that is about to be written.
pub(crate) struct PreparedSession {
    device_id: OwnedDeviceId,
    display_name: Option<String>,
    now: MillisSinceEpoch,
    access_token: String,
    expires_ts: Option<MillisSinceEpoch>,
    refresh_token: Option<String>,
    refresh_expires_ts: Option<MillisSinceEpoch>,
    session_expires_ts: Option<MillisSinceEpoch>,
}

impl PreparedSession {
    pub fn row<'a>(&'a self, user_id: &'a UserId) -> NewSession<'a> {
        NewSession {
            user_id,
            device_id: &self.device_id,
            display_name: self.display_name.as_deref(),
            now: self.now,
            token: token::hash(&self.access_token),
            expires_ts: self.expires_ts,
            refresh: self.refresh_token.as_deref().map(|refresh_token| NewRefreshToken {
                token: token::hash(refresh_token),
                expires_ts: self.refresh_expires_ts,
                session_expires_ts: self.session_expires_ts,
            }),
        }
    }

    /// Once it is written.
    pub fn begun(self, user_id: OwnedUserId, is_new_device: bool) -> LoggedIn {
        LoggedIn {
            user_id,
            device_id: self.device_id,
            is_new_device,
            access_token: self.access_token,
            refresh_token: self.refresh_token,
            expires_in: time_left(self.now, self.expires_ts),
        }
    }
}

/// The outcome of a log-in.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// Who is logged in.
    pub user_id: OwnedUserId,
    /// On which device.
    pub device_id: OwnedDeviceId,
    /// The device was not known before.
    pub is_new_device: bool,
    /// What to authenticate with.
    pub access_token: String,
    /// What to refresh it with.
    pub refresh_token: Option<String>,
    /// How long the access token is good for; `None`: until log-out.
    pub expires_in: Option<Duration>,
}

/// The outcome of a refresh.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// What to authenticate with.
    pub access_token: String,
    /// What to refresh it with.
    pub refresh_token: String,
    /// How long the access token is good for; `None`: until log-out.
    pub expires_in: Option<Duration>,
}

/// Why a refresh token is refused.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// There is no such token, or what replaced it is in use.
    #[error("unknown refresh token")]
    Unknown,
    /// It has expired, or its session has; the device is still there and can log in.
    #[error("the refresh token has expired")]
    Expired,
    /// The account is locked.
    #[error("this account has been locked")]
    Locked,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// When something that begins now ends: after `lifetime`, but not after `limit`.
fn expiry(
    now: MillisSinceEpoch,
    lifetime: Option<Duration>,
    limit: Option<MillisSinceEpoch>,
) -> Option<MillisSinceEpoch> {
    let end =
        lifetime.map(|lifetime| now.saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX)));
    // Beyond what the database can hold is for ever, too.
    let end = end.filter(|end| i64::try_from(*end).is_ok());
    match (end, limit) {
        (Some(end), Some(limit)) => Some(end.min(limit)),
        (end, limit) => end.or(limit),
    }
}

fn time_left(now: MillisSinceEpoch, end: Option<MillisSinceEpoch>) -> Option<Duration> {
    end.map(|end| Duration::from_millis(end.saturating_sub(now)))
}

impl Accounts {
    /// Starts a session. The caller has checked that the user may.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn log_in(&self, user_id: &UserId, log_in: LogIn<'_>) -> Result<LoggedIn> {
        let is_made_up = log_in.device_id.is_none();
        let session = self.prepare_session(user_id, log_in);
        let (db, row) = (self.db().await?, session.row(user_id));
        let is_new_device = if is_made_up {
            sessions::insert_first_session(&db, row).await?;
            true
        } else {
            let started = sessions::insert_session(&db, row).await?;
            drop(db);
            self.forget_tokens(&started.revoked).await;
            started.is_new_device
        };
        Ok(session.begun(user_id.to_owned(), is_new_device))
    }

    /// A session with everything but its row.
    pub(crate) fn prepare_session(&self, user_id: &UserId, log_in: LogIn<'_>) -> PreparedSession {
        let LogIn { device_id, display_name, refreshable } = log_in;
        let now = self.now();
        let lifetimes = self.0.config.lifetimes;
        let session_expires_ts = expiry(now, lifetimes.session, None);
        let (access_lifetime, refresh_token) =
            match lifetimes.refreshable_access_token.filter(|_| refreshable) {
                Some(lifetime) => (Some(lifetime), Some(token::generate(TokenKind::Refresh, user_id))),
                None => (lifetimes.nonrefreshable_access_token, None),
            };
        PreparedSession {
            device_id: device_id.map_or_else(generate_device_id, ToOwned::to_owned),
            display_name: display_name.map(|name| name.chars().take(MAX_DISPLAY_NAME_LEN).collect()),
            now,
            access_token: token::generate(TokenKind::Access, user_id),
            expires_ts: expiry(now, access_lifetime, session_expires_ts),
            refresh_token,
            refresh_expires_ts: expiry(now, lifetimes.refresh_token, session_expires_ts),
            session_expires_ts,
        }
    }

    /// Gives new tokens for a refresh token, which stays good until one of them is used
    /// (<https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens>).
    ///
    /// # Errors
    /// See [`RefreshError`].
    pub async fn refresh(&self, refresh_token: &str) -> Result<Refreshed, RefreshError> {
        if token::is_mistyped(refresh_token) {
            return Err(RefreshError::Unknown);
        }
        let current = token::hash(refresh_token);
        let now = self.now();
        let mut db = self.db().await?;
        let transaction = Transaction::begin(&mut db);
        let shown =
            refresh_tokens::lock_refresh_token(&transaction, current).await?.ok_or(RefreshError::Unknown)?;
        if shown.flags.deactivated {
            return Err(RefreshError::Unknown);
        }
        if shown.flags.locked {
            return Err(RefreshError::Locked);
        }
        let has_passed = |end: Option<MillisSinceEpoch>| end.is_some_and(|end| end <= now);
        if has_passed(shown.expires_ts) || has_passed(shown.session_expires_ts) {
            return Err(RefreshError::Expired);
        }

        let lifetimes = self.0.config.lifetimes;
        let (access_token, next) = (
            token::generate(TokenKind::Access, &shown.user_id),
            token::generate(TokenKind::Refresh, &shown.user_id),
        );
        // Where refresh tokens were switched off since, the sessions that have one keep it and last as others do.
        let lifetime = lifetimes.refreshable_access_token.or(lifetimes.nonrefreshable_access_token);
        let access_expires_ts = expiry(now, lifetime, shown.session_expires_ts);
        let replacement = Replacement {
            current,
            user_id: &shown.user_id,
            device_id: &shown.device_id,
            refresh: NewRefreshToken {
                token: token::hash(&next),
                expires_ts: expiry(now, lifetimes.refresh_token, shown.session_expires_ts),
                session_expires_ts: shown.session_expires_ts,
            },
            access: token::hash(&access_token),
            access_expires_ts,
        };
        let revoked = refresh_tokens::replace_refresh_token(&transaction, replacement).await?;
        transaction.commit().await?;
        self.forget_tokens(&revoked).await;
        Ok(Refreshed { access_token, refresh_token: next, expires_in: time_left(now, access_expires_ts) })
    }
}

/// Ten capital letters, as everybody does.
fn generate_device_id() -> OwnedDeviceId {
    // Letters and digits are 62; dropping what is no letter leaves more than enough of forty.
    let letters: String =
        random_alphanumeric(40).to_uppercase().chars().filter(char::is_ascii_uppercase).take(10).collect();
    letters.into()
}

#[cfg(test)]
mod tests {
    use ruma::device_id;

    use super::*;
    use crate::{
        AuthError, Client, TokenLifetimes,
        testing::{Fixture, alice},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn refreshable() -> LogIn<'static> {
        LogIn { refreshable: true, ..LogIn::default() }
    }

    #[test]
    fn the_shorter_end_counts() {
        let check = |lifetime: Option<u64>, limit, expected| {
            assert_eq!(expiry(1000, lifetime.map(Duration::from_millis), limit), expected);
        };
        check(None, None, None);
        check(Some(5), None, Some(1005));
        check(None, Some(1003), Some(1003));
        check(Some(5), Some(1003), Some(1003));
        check(Some(5), Some(1009), Some(1005));
        check(Some(u64::MAX), None, None);
    }

    #[tokio::test]
    async fn a_device_id_is_made_up_unless_it_is_given() {
        let fixture = Fixture::new().await;
        let first = fixture.accounts.log_in(alice(), LogIn::default()).await.unwrap();
        assert_eq!(first.device_id.as_str().len(), 10);
        assert!(first.is_new_device && first.refresh_token.is_none() && first.expires_in.is_none());
        let log_in = LogIn { device_id: Some(&first.device_id), ..LogIn::default() };
        let again = fixture.accounts.log_in(alice(), log_in).await.unwrap();
        assert!(!again.is_new_device);
        let error = fixture.accounts.authenticate(&first.access_token, Client::default()).await.unwrap_err();
        assert!(matches!(error, AuthError::Unknown), "{error}");
    }

    #[tokio::test]
    async fn a_refresh_can_be_repeated_until_its_outcome_is_used() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        let first = accounts.log_in(alice(), refreshable()).await.unwrap();
        assert_eq!(first.expires_in, Some(300 * SECOND));
        let refresh_token = first.refresh_token.unwrap();

        let lost = accounts.refresh(&refresh_token).await.unwrap();
        let kept = accounts.refresh(&refresh_token).await.unwrap();
        assert!(accounts.authenticate(&lost.access_token, Client::default()).await.is_err());
        accounts.authenticate(&first.access_token, Client::default()).await.unwrap();

        let login = accounts.authenticate(&kept.access_token, Client::default()).await.unwrap();
        assert_eq!(login.device_id.as_ref(), Some(&first.device_id));
        let error = accounts.refresh(&refresh_token).await.unwrap_err();
        assert!(matches!(error, RefreshError::Unknown), "{error}");
        assert!(
            accounts.authenticate(&first.access_token, Client::default()).await.is_err(),
            "out of the cache, too"
        );
        accounts.refresh(&kept.refresh_token).await.unwrap();
    }

    #[tokio::test]
    async fn nothing_outlasts_the_session() {
        let lifetimes = TokenLifetimes {
            session: Some(100 * SECOND),
            refreshable_access_token: Some(60 * SECOND),
            refresh_token: None,
            nonrefreshable_access_token: None,
        };
        let fixture = Fixture::with(|config| config.lifetimes = lifetimes).await;
        let accounts = &fixture.accounts;
        assert_eq!(accounts.log_in(alice(), LogIn::default()).await.unwrap().expires_in, Some(100 * SECOND));

        let first = accounts.log_in(alice(), refreshable()).await.unwrap();
        fixture.hands.advance(70 * SECOND);
        let second = accounts.refresh(&first.refresh_token.unwrap()).await.unwrap();
        assert_eq!(second.expires_in, Some(30 * SECOND));
        fixture.hands.advance(30 * SECOND);
        let error = accounts.refresh(&second.refresh_token).await.unwrap_err();
        assert!(matches!(error, RefreshError::Expired), "{error}");
    }

    #[tokio::test]
    async fn refresh_tokens_can_be_switched_off_and_expire_unused() {
        let off = |config: &mut crate::AccountsConfig| config.lifetimes.refreshable_access_token = None;
        let fixture = Fixture::with(off).await;
        assert!(fixture.accounts.log_in(alice(), refreshable()).await.unwrap().refresh_token.is_none());

        let short = |config: &mut crate::AccountsConfig| config.lifetimes.refresh_token = Some(SECOND);
        let fixture = Fixture::with(short).await;
        let token = fixture.accounts.log_in(alice(), refreshable()).await.unwrap().refresh_token.unwrap();
        fixture.hands.advance(SECOND);
        let error = fixture.accounts.refresh(&token).await.unwrap_err();
        assert!(matches!(error, RefreshError::Expired), "{error}");
    }

    #[tokio::test]
    async fn a_log_out_leaves_nothing_to_refresh() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        let log_in = LogIn { device_id: Some(device_id!("PHONE")), ..refreshable() };
        let session = accounts.log_in(alice(), log_in).await.unwrap();
        accounts.authenticate(&session.access_token, Client::default()).await.unwrap();
        let ended = accounts.delete_all_devices(alice(), None).await.unwrap();
        assert_eq!(ended.devices, ["PHONE"]);
        assert!(accounts.authenticate(&session.access_token, Client::default()).await.is_err());
        assert!(accounts.refresh(&session.refresh_token.unwrap()).await.is_err());
    }
}
