//! The end of an account ([spec](https://spec.matrix.org/v1.19/client-server-api/#account-deactivation)).

use myelin_storage::{GenericClient, Result, Transaction, accounts::users};
use ruma::UserId;

use crate::{Accounts, SessionsEnded};

impl Accounts {
    /// Deactivates a user in the caller's transaction: password, addresses and sessions are gone, and who reads the user's
    /// messages is limited if the user asks to be erased; the profile is [`Profiles::erase`](crate::Profiles::erase)'s. Gives
    /// what sessions ended, for [`Accounts::forget_tokens`] after the commit; `None` if there is no such user.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn deactivate_in(
        db: &impl GenericClient,
        user: &UserId,
        erase: bool,
    ) -> Result<Option<SessionsEnded>> {
        if !users::deactivate_user(db, user, erase).await? {
            return Ok(None);
        }
        Self::delete_all_devices_in(db, user, None).await.map(Some)
    }

    /// Deactivates a user; `None` if there is none. What belongs to other crates is not touched: see
    /// [`Accounts::deactivate_in`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn deactivate(&self, user: &UserId, erase: bool) -> Result<Option<SessionsEnded>> {
        let mut db = self.db().await?;
        let transaction = Transaction::begin(&mut db);
        let ended = Self::deactivate_in(&transaction, user, erase).await?;
        transaction.commit().await?;
        if let Some(ended) = &ended {
            self.forget_tokens(&ended.revoked).await;
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Client,
        testing::{Fixture, alice},
    };

    #[tokio::test]
    async fn a_deactivated_user_is_logged_out_everywhere() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        let token = fixture.log_in("PHONE").await.access_token;
        accounts.authenticate(&token, Client::default()).await.unwrap();
        let ended = accounts.deactivate(alice(), true).await.unwrap().unwrap();
        assert_eq!(ended.devices, ["PHONE"]);
        assert!(accounts.authenticate(&token, Client::default()).await.is_err());
        assert!(accounts.user(alice()).await.unwrap().unwrap().flags.deactivated);
        assert!(accounts.deactivate(ruma::user_id!("@eve:example.org"), false).await.unwrap().is_none());
    }
}
