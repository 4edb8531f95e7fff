//! How accounts come to be ([spec](https://spec.matrix.org/v1.19/client-server-api/#legacy-account-registration)).

use std::time::Duration;

use myelin_storage::{
    StorageError, Transaction,
    accounts::{
        registration, sessions, ui_auth,
        users::{self, NewUser},
    },
};
use myelin_types::random_alphanumeric;
use ruma::{OwnedUserId, UserId};

use crate::{
    Accounts, LogIn, LoggedIn, PasswordError, UserFlags, session::PreparedSession, ui_auth::SESSION_LIFETIME,
};

/// How long a nonce of the registration by shared secret is good for.
const NONCE_LIFETIME: Duration = Duration::from_secs(60);
/// User IDs have at most so many bytes (<https://spec.matrix.org/v1.19/appendices/#user-identifiers>).
const MAX_USER_ID_LEN: usize = 255;

/// An account to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewAccount<'a> {
    /// The name; `None`: a number.
    pub localpart: Option<&'a str>,
    /// `None`: there is no log-in by password.
    pub password: Option<&'a str>,
    /// May use the admin API.
    pub is_admin: bool,
    /// `support` or `bot`, for users of a special kind.
    pub user_type: Option<&'a str>,
    /// `None`: the name.
    pub displayname: Option<&'a str>,
    /// A registration token to use up.
    pub registration_token: Option<&'a str>,
    /// The session of user-interactive authentication that is to remember who was registered.
    pub ui_auth_session: Option<&'a str>,
    /// What to log in with at once.
    pub log_in: Option<LogIn<'a>>,
}

/// An account that was made.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its name.
    pub user_id: OwnedUserId,
    /// Set if it was to be logged in.
    pub logged_in: Option<LoggedIn>,
}

/// Why an account is not made.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The name can't be one; the text says why.
    #[error("{0}")]
    InvalidUsername(&'static str),
    /// Somebody has the name, or had it.
    #[error("the user name is taken")]
    UserInUse,
    /// The registration token has no uses left.
    #[error("the registration token can't be used any more")]
    RegistrationToken,
    /// The password is not taken.
    #[error(transparent)]
    Password(PasswordError),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Accounts {
    /// The user ID that a wished name leads to; capitals become small letters. Whether it is taken is another question.
    ///
    /// # Errors
    /// [`RegistrationError::InvalidUsername`]
    pub fn user_id_for(&self, username: &str) -> Result<OwnedUserId, RegistrationError> {
        let invalid = |reason| Err(RegistrationError::InvalidUsername(reason));
        let localpart = username.to_ascii_lowercase();
        let is_allowed =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'=' | b'-' | b'/' | b'+');
        if localpart.is_empty() {
            return invalid("The user name must not be empty");
        }
        if !localpart.bytes().all(is_allowed) {
            return invalid("The user name can only have the characters a-z, 0-9, and ._=-/+");
        }
        if localpart.starts_with('_') && !self.0.config.allow_underscore_prefixed_registration {
            return invalid("The user name must not begin with an underscore");
        }
        if localpart.bytes().all(|byte| byte.is_ascii_digit()) {
            return invalid("User names of digits only are for guests");
        }
        let user_id = format!("@{localpart}:{}", self.server_name());
        if user_id.len() > MAX_USER_ID_LEN {
            return invalid("The user name is too long");
        }
        user_id.try_into().or_else(|_| invalid("The user name can't be part of a user ID"))
    }

    /// Checks that a name is a good one and free, and gives the user ID it leads to.
    ///
    /// # Errors
    /// [`RegistrationError::InvalidUsername`], [`RegistrationError::UserInUse`] or of the database.
    pub async fn check_username(&self, username: &str) -> Result<OwnedUserId, RegistrationError> {
        let user_id = self.user_id_for(username)?;
        match self.user(&user_id).await? {
            Some(_) => Err(RegistrationError::UserInUse),
            None => Ok(user_id),
        }
    }

    /// Makes an account, and its first session. The caller has checked that it may be made; that the name is taken is found out
    /// only when the account is written, after the password was hashed.
    ///
    /// # Errors
    /// See [`RegistrationError`].
    pub async fn register(&self, account: NewAccount<'_>) -> Result<Registered, RegistrationError> {
        let user_id = match account.localpart {
            Some(localpart) => self.user_id_for(localpart)?,
            None => self.generate_user_id().await?,
        };
        let password_hash = match account.password {
            Some(password) => Some(self.hash_new_password(password).await?),
            None => None,
        };
        let displayname = account.displayname.unwrap_or_else(|| user_id.localpart());
        let user = NewUser {
            user_id: &user_id,
            password_hash: password_hash.as_deref(),
            created_ts: self.now(),
            flags: UserFlags { is_admin: account.is_admin, ..UserFlags::default() },
            user_type: account.user_type,
            displayname: Some(&serde_json::Value::from(displayname).to_string()),
        };

        let mut db = self.db().await?;
        let transaction = Transaction::begin(&mut db);
        if !users::insert_user(&transaction, user).await? {
            return Err(RegistrationError::UserInUse);
        }
        if let Some(token) = account.registration_token
            && !registration::use_token(&transaction, token).await?
        {
            return Err(RegistrationError::RegistrationToken);
        }
        if let Some(session) = account.ui_auth_session
            && !ui_auth::set_registered_user(&transaction, session, &user_id).await?
        {
            // The same request twice at once: the other was first.
            return Err(RegistrationError::UserInUse);
        }
        let session = account.log_in.map(|log_in| self.prepare_session(&user_id, log_in));
        commit_with(transaction, &user_id, session.as_ref()).await?;
        let logged_in = session.map(|session| session.begun(user_id.clone(), true));
        Ok(Registered { user_id, logged_in })
    }

    /// Makes a guest, who has a number for a name, no password and no profile, and logs them in.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn register_guest(&self, log_in: LogIn<'_>) -> Result<LoggedIn, RegistrationError> {
        let user_id = self.generate_user_id().await?;
        let user = NewUser {
            user_id: &user_id,
            password_hash: None,
            created_ts: self.now(),
            flags: UserFlags { is_guest: true, ..UserFlags::default() },
            user_type: None,
            displayname: None,
        };
        let mut db = self.db().await?;
        let transaction = Transaction::begin(&mut db);
        if !users::insert_user(&transaction, user).await? {
            return Err(RegistrationError::UserInUse);
        }
        let session = self.prepare_session(&user_id, log_in);
        commit_with(transaction, &user_id, Some(&session)).await?;
        Ok(session.begun(user_id, true))
    }

    async fn generate_user_id(&self) -> Result<OwnedUserId, StorageError> {
        let localpart = users::generate_localpart(&self.db().await?).await?;
        UserId::parse_with_server_name(localpart, self.server_name())
            .map_err(|error| StorageError::Inconsistent(format!("a number makes no user ID: {error}")))
    }

    async fn hash_new_password(&self, password: &str) -> Result<String, RegistrationError> {
        self.check_new_password(password).map_err(RegistrationError::Password)?;
        let hash = self.0.passwords.hash(password).await;
        hash.map_err(|overloaded| RegistrationError::Password(overloaded.into()))
    }

    /// Whether a registration token can be used now.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn is_registration_token_usable(&self, token: &str) -> Result<bool, StorageError> {
        let now = self.now();
        let since = now.saturating_sub(SESSION_LIFETIME.as_millis() as u64);
        registration::is_token_usable(&self.db().await?, token, now, since).await
    }

    /// A nonce for one registration by shared secret.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn create_registration_nonce(&self) -> Result<String, StorageError> {
        let nonce = random_alphanumeric(64);
        let now = self.now();
        let expires_ts = now.saturating_add(NONCE_LIFETIME.as_millis() as u64);
        registration::insert_nonce(&self.db().await?, &nonce, now, expires_ts).await?;
        Ok(nonce)
    }

    /// Uses up a nonce; `false` if it is unknown or too old.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn use_registration_nonce(&self, nonce: &str) -> Result<bool, StorageError> {
        registration::take_nonce(&self.db().await?, nonce, self.now()).await
    }
}

/// Commits what makes an account, with its first session.
async fn commit_with(
    transaction: Transaction<'_>,
    user_id: &UserId,
    session: Option<&PreparedSession>,
) -> Result<(), StorageError> {
    let flight = transaction.take_off();
    let written = match session {
        Some(session) => sessions::insert_first_session(&flight, session.row(user_id)).await,
        None => Ok(()),
    };
    flight.land(written).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Client,
        testing::{Fixture, alice},
    };

    #[tokio::test]
    async fn names_follow_the_grammar_of_user_ids() {
        let fixture = Fixture::new().await;
        let check = |username: &str, expected: Result<&str, &str>| match (
            fixture.accounts.user_id_for(username),
            expected,
        ) {
            (Ok(user), Ok(expected)) => assert_eq!(user.as_str(), expected),
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{username}: {error}"),
            (found, _) => panic!("{username}: {found:?}"),
        };
        check("bob", Ok("@bob:example.org"));
        check("BoB", Ok("@bob:example.org"));
        check("b.o_b=-/+3", Ok("@b.o_b=-/+3:example.org"));
        check("", Err("empty"));
        check("böb", Err("characters"));
        check("bob smith", Err("characters"));
        check("bob:example.org", Err("characters"));
        check("bob\0", Err("characters"));
        check("_bob", Err("underscore"));
        check("12345", Err("digits"));
        check(&"b".repeat(243), Err("too long"));
        check(&"b".repeat(242), Ok(&format!("@{}:example.org", "b".repeat(242))));
    }

    #[tokio::test]
    async fn a_name_is_taken_once() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        let account = NewAccount { localpart: Some("Alice"), password: Some("x"), ..NewAccount::default() };
        let error = accounts.register(account).await.unwrap_err();
        assert!(matches!(error, RegistrationError::UserInUse), "{error}");
        accounts.deactivate(alice(), true).await.unwrap();
        let error = accounts.check_username("alice").await.unwrap_err();
        assert!(matches!(error, RegistrationError::UserInUse), "{error}");
    }

    #[tokio::test]
    async fn an_account_without_a_name_gets_a_number_and_a_guest_few_rights() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        let user = accounts.register(NewAccount::default()).await.unwrap().user_id;
        let guest = accounts.register_guest(LogIn::default()).await.unwrap().user_id;
        assert_ne!(user, guest);
        assert!(user.localpart().bytes().all(|byte| byte.is_ascii_digit()), "{user}");
        assert!(accounts.user(&guest).await.unwrap().unwrap().flags.is_guest);
    }

    #[tokio::test]
    async fn what_fails_leaves_the_name_free() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        let account = NewAccount { localpart: Some("carol"), ..NewAccount::default() };
        let error = accounts.register(NewAccount { password: Some(""), ..account }).await.unwrap_err();
        assert!(matches!(error, RegistrationError::Password(PasswordError::Weak(_))), "{error}");
        let error =
            accounts.register(NewAccount { registration_token: Some("none"), ..account }).await.unwrap_err();
        assert!(matches!(error, RegistrationError::RegistrationToken), "{error}");
        accounts.register(account).await.unwrap();
    }

    #[tokio::test]
    async fn an_account_and_its_first_session_are_made_together_or_not_at_all() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        let log_in =
            LogIn { device_id: Some("PHONE".into()), display_name: Some("Phone"), refreshable: false };
        let account = NewAccount { log_in: Some(log_in), ..NewAccount::default() };
        let carol = accounts
            .register(NewAccount { localpart: Some("carol"), ..account })
            .await
            .unwrap()
            .logged_in
            .unwrap();
        let guest = accounts.register_guest(log_in).await.unwrap();
        for made in [carol, guest] {
            let login = accounts.authenticate(&made.access_token, Client::default()).await.unwrap();
            assert_eq!((&login.user_id, made.is_new_device), (&made.user_id, true));
            let devices = accounts.devices(&made.user_id).await.unwrap();
            assert_eq!(devices[0].device_id, "PHONE");
            assert_eq!(devices[0].display_name.as_deref(), Some("Phone"));
        }
        fixture.lose_database().await;
        let error = accounts.register(NewAccount { localpart: Some("dave"), ..account }).await.unwrap_err();
        assert!(matches!(error, RegistrationError::Storage(_)), "{error}");
        accounts.check_username("dave").await.unwrap();
    }

    #[tokio::test]
    async fn a_nonce_is_good_for_a_minute() {
        let fixture = Fixture::new().await;
        let nonce = fixture.accounts.create_registration_nonce().await.unwrap();
        fixture.hands.advance(NONCE_LIFETIME);
        assert!(!fixture.accounts.use_registration_nonce(&nonce).await.unwrap());
        let nonce = fixture.accounts.create_registration_nonce().await.unwrap();
        assert!(fixture.accounts.use_registration_nonce(&nonce).await.unwrap());
        assert!(!fixture.accounts.use_registration_nonce(&nonce).await.unwrap());
    }
}
