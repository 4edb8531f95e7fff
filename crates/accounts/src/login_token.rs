//! Tokens for a single purpose: to log in once, and to prove to others who somebody is.

use std::time::Duration;

use myelin_storage::{
    Result,
    accounts::{tokens, users},
};
use ruma::{OwnedUserId, UserId};

use crate::{
    Accounts, LoginError,
    token::{self, TokenKind},
};

/// How long an OpenID token is good for.
const OPENID_LIFETIME: Duration = Duration::from_secs(3600);

impl Accounts {
    /// A token with which another client of the user can log in once, and how long it can do so.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn create_login_token(&self, user: &UserId) -> Result<(String, Duration)> {
        let token = token::generate(TokenKind::Login, user);
        let lifetime = self.0.config.login_token_timeout;
        let expires_ts = self.now().saturating_add(lifetime.as_millis() as u64);
        tokens::insert_login_token(&self.db().await?, token::hash(&token), user, expires_ts).await?;
        Ok((token, lifetime))
    }

    /// Uses up a login token and gives its user.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn use_login_token(&self, token: &str) -> Result<OwnedUserId, LoginError> {
        let db = self.db().await?;
        let user = tokens::take_login_token(&db, token::hash(token), self.now()).await?;
        let user = user.ok_or(LoginError::Invalid)?;
        let flags = users::get_user(&db, &user).await?.ok_or(LoginError::Invalid)?.flags;
        match flags {
            _ if flags.deactivated => Err(LoginError::Deactivated),
            _ if flags.locked => Err(LoginError::Locked),
            _ => Ok(user),
        }
    }

    /// A token that proves to who gets it that the user is who they are, and how long it does
    /// (<https://spec.matrix.org/v1.19/client-server-api/#openid>).
    ///
    /// # Errors
    /// If the database fails.
    pub async fn create_openid_token(&self, user: &UserId) -> Result<(String, Duration)> {
        let token = token::generate(TokenKind::OpenId, user);
        let expires_ts = self.now().saturating_add(OPENID_LIFETIME.as_millis() as u64);
        tokens::insert_openid_token(&self.db().await?, token::hash(&token), user, expires_ts).await?;
        Ok((token, OPENID_LIFETIME))
    }

    /// Whose OpenID token it is.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn openid_user(&self, token: &str) -> Result<Option<OwnedUserId>> {
        tokens::get_openid_user(&self.db().await?, token::hash(token), self.now()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, alice};

    #[tokio::test]
    async fn a_login_token_logs_in_once() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        let (token, lifetime) = accounts.create_login_token(alice()).await.unwrap();
        assert_eq!(accounts.use_login_token(&token).await.unwrap(), alice());
        assert!(matches!(accounts.use_login_token(&token).await.unwrap_err(), LoginError::Invalid));

        let (token, _) = accounts.create_login_token(alice()).await.unwrap();
        fixture.hands.advance(lifetime);
        assert!(matches!(accounts.use_login_token(&token).await.unwrap_err(), LoginError::Invalid));
        let (token, _) = accounts.create_login_token(alice()).await.unwrap();
        accounts.set_restriction(alice(), crate::Restriction::Locked, true).await.unwrap();
        assert!(matches!(accounts.use_login_token(&token).await.unwrap_err(), LoginError::Locked));
    }

    #[tokio::test]
    async fn an_openid_token_tells_whose_it_is_and_nothing_else() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        let (token, lifetime) = accounts.create_openid_token(alice()).await.unwrap();
        assert_eq!(accounts.openid_user(&token).await.unwrap().as_deref(), Some(alice()));
        assert!(accounts.use_login_token(&token).await.is_err());
        assert!(accounts.authenticate(&token, crate::Client::default()).await.is_err());
        fixture.hands.advance(lifetime);
        assert_eq!(accounts.openid_user(&token).await.unwrap(), None);
    }
}
