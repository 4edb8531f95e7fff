//! From an access token ([spec](https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens)) to who is calling.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use myelin_storage::{
    StorageError,
    accounts::{
        refresh_tokens,
        sessions::{self, TokenRow},
    },
};
use myelin_types::MillisSinceEpoch;
use ruma::{OwnedDeviceId, OwnedUserId};

use crate::{Accounts, Client, TokenHash, UserFlags, token};

/// How long the cache is believed. It is told of every change; this bounds what a change that it was not told of, by
/// another process, can do.
const BELIEVED_FOR: Duration = Duration::from_secs(300);

/// A log-in that is still good: an access token and whose it is.
#[derive(Debug)]
pub struct Login {
    /// Whose it is.
    pub user_id: OwnedUserId,
    /// Of which device, if of any.
    pub device_id: Option<OwnedDeviceId>,
    /// The kind and the condition of the account.
    pub flags: UserFlags,
    /// The access token's hash.
    pub token: TokenHash,
    expires_ts: Option<MillisSinceEpoch>,
    /// When the database said so.
    read_ts: MillisSinceEpoch,
    /// When the user has last proven to be who they are.
    pub(crate) validated_ts: AtomicU64,
    /// When the device was last noted as seen.
    pub(crate) seen_ts: AtomicU64,
}

/// Why an access token is refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// There is no such token, or its session was ended.
    #[error("unknown access token")]
    Unknown,
    /// It has expired; the device is still there and can log in or refresh
    /// (<https://spec.matrix.org/v1.19/client-server-api/#soft-logout>).
    #[error("the access token has expired")]
    Expired,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Login {
    fn new(token: TokenHash, row: TokenRow, now: MillisSinceEpoch) -> Self {
        Self {
            user_id: row.user_id,
            device_id: row.device_id,
            flags: row.flags,
            token,
            expires_ts: row.expires_ts,
            read_ts: now,
            validated_ts: AtomicU64::new(row.validated_ts),
            seen_ts: AtomicU64::new(0),
        }
    }

    /// How long ago the user has proven to be who they are.
    pub(crate) fn validated_before(&self, now: MillisSinceEpoch) -> Duration {
        Duration::from_millis(now.saturating_sub(self.validated_ts.load(Ordering::Relaxed)))
    }
}

impl Accounts {
    /// Who shows this access token. `client` is noted as the device's last use, from time to time.
    ///
    /// A token that was used of late costs no query. Whether the account is locked is left to the caller: a locked user
    /// may still log out.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn authenticate(
        &self,
        access_token: &str,
        client: Client<'_>,
    ) -> Result<Arc<Login>, AuthError> {
        if token::is_mistyped(access_token) {
            return Err(AuthError::Unknown);
        }
        let hash = token::hash(access_token);
        let now = self.now();
        let believed_since = now.saturating_sub(BELIEVED_FOR.as_millis() as u64);
        let login = match self.0.tokens.get(&hash) {
            Some(login) if login.read_ts >= believed_since => login,
            _ => self.load_login(hash, now).await?,
        };
        if login.expires_ts.is_some_and(|expires| expires <= now) {
            return Err(AuthError::Expired);
        }
        self.0.sightings.note(&login, client, now);
        Ok(login)
    }

    async fn load_login(&self, hash: TokenHash, now: MillisSinceEpoch) -> Result<Arc<Login>, AuthError> {
        let before = self.0.tokens.generation();
        let db = self.db().await?;
        let Some(row) = sessions::get_access_token(&db, hash).await? else {
            // It may have been revoked by another process.
            self.0.tokens.forget(&[hash]);
            return Err(AuthError::Unknown);
        };
        let is_expired = row.expires_ts.is_some_and(|expires| expires <= now);
        // The first use of a refreshed token proves that the client has it, so the one before is not needed any more.
        if let Some(refresh) = row.refresh_hash.filter(|_| !row.used && !is_expired) {
            let revoked = refresh_tokens::mark_used(&db, hash, refresh).await?;
            self.forget_tokens(&revoked).await;
        }
        let login = Arc::new(Login::new(hash, row, now));
        self.0.tokens.insert(before, hash, login.clone());
        Ok(login)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        LogIn, Restriction,
        testing::{Fixture, alice},
    };

    #[tokio::test]
    async fn a_warm_token_asks_nobody() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        let token = fixture.log_in("PHONE").await.access_token;
        let cold = accounts.authenticate(&token, Client::default()).await.unwrap();
        assert_eq!(
            (cold.user_id.as_ref(), cold.device_id.as_deref().map(|id| id.as_str())),
            (alice(), Some("PHONE"))
        );

        fixture.lose_database().await;
        let warm = accounts.authenticate(&token, Client::default()).await.unwrap();
        assert!(Arc::ptr_eq(&cold, &warm));
        let error = accounts.authenticate("unknown", Client::default()).await.unwrap_err();
        assert!(matches!(error, AuthError::Storage(_)), "{error}");
        let error = accounts.authenticate("syt_YQ_x_000000", Client::default()).await.unwrap_err();
        assert!(matches!(error, AuthError::Unknown), "a mistyped token asks nobody either: {error}");
    }

    #[tokio::test]
    async fn a_token_that_another_process_revoked_is_not_believed_for_ever() {
        let fixture = Fixture::new().await;
        let token = fixture.log_in("PHONE").await.access_token;
        fixture.accounts.authenticate(&token, Client::default()).await.unwrap();
        let other = fixture.another_process();
        other.delete_devices(alice(), &["PHONE".into()]).await.unwrap();

        fixture.accounts.authenticate(&token, Client::default()).await.unwrap();
        fixture.hands.advance(BELIEVED_FOR + Duration::from_millis(1));
        let error = fixture.accounts.authenticate(&token, Client::default()).await.unwrap_err();
        assert!(matches!(error, AuthError::Unknown), "{error}");
    }

    #[tokio::test]
    async fn an_expired_token_is_a_soft_logout() {
        let fixture = Fixture::new().await;
        let log_in = LogIn { refreshable: true, ..LogIn::default() };
        let token = fixture.accounts.log_in(alice(), log_in).await.unwrap().access_token;
        for _ in 0..2 {
            fixture.accounts.authenticate(&token, Client::default()).await.unwrap();
            fixture.hands.advance(Duration::from_secs(299));
        }
        let error = fixture.accounts.authenticate(&token, Client::default()).await.unwrap_err();
        assert!(matches!(error, AuthError::Expired), "{error}");
    }

    #[tokio::test]
    async fn a_restriction_is_seen_at_once() {
        let fixture = Fixture::new().await;
        let token = fixture.log_in("PHONE").await.access_token;
        let flags = async || fixture.accounts.authenticate(&token, Client::default()).await.unwrap().flags;
        assert!(!flags().await.locked);
        fixture.accounts.set_restriction(alice(), Restriction::Locked, true).await.unwrap();
        assert!(flags().await.locked);
    }
}
