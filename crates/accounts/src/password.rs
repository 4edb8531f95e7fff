//! Passwords: what is asked of them, hashing off the threads that serve requests, and checking them.

use std::sync::{Arc, OnceLock};

use myelin_storage::{StorageError, accounts::users};
use ruma::{OwnedUserId, UserId};
use tokio::sync::Semaphore;
use tracing::warn;
use unicode_normalization::UnicodeNormalization as _;

use crate::{Accounts, AccountsConfig, PasswordPolicy};

/// Hashes that wait for a processor at most: a queue of a minute or so. More are refused.
const MAX_WAITING: usize = 256;
/// Longer passwords are refused; nobody shall have megabytes hashed.
const MAX_LEN: usize = 512;

/// Why a new password ([spec](https://spec.matrix.org/v1.19/client-server-api/#password-management)) is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It lacks what the operator asks for; the text says what.
    #[error("{0}")]
    Weak(String),
    /// There is no such user, or they are deactivated.
    #[error("no such user")]
    UnknownUser,
    /// Too many hashes are waiting: try again later.
    #[error("too many passwords are being hashed")]
    Overloaded,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a log-in ([spec](https://spec.matrix.org/v1.19/client-server-api/#legacy-login)) is refused.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// There is no such user, or it is not their password, or the token is not (any more) good.
    #[error("invalid user name or password")]
    Invalid,
    /// The account is gone.
    #[error("this account has been deactivated")]
    Deactivated,
    /// The account is locked. Only told to who knows the password.
    #[error("this account has been locked")]
    Locked,
    /// Too many hashes are waiting: try again later.
    #[error("too many passwords are being hashed")]
    Overloaded,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Too many hashes are waiting.
pub(crate) struct Overloaded;

impl From<Overloaded> for PasswordError {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}

impl From<Overloaded> for LoginError {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}

/// Hashes passwords, a few at a time.
pub(crate) struct Passwords {
    cost: u32,
    pepper: String,
    policy: PasswordPolicy,
    /// One permit per processor.
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// What an unknown user's password is compared with, so that it takes as long as for a known one.
    nobodys: Arc<OnceLock<String>>,
}

impl Passwords {
    pub fn new(config: &AccountsConfig) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, |count| count.get());
        Self {
            cost: cost(config.bcrypt_rounds),
            pepper: config.password_pepper.clone(),
            policy: config.password_policy,
            working: Arc::new(Semaphore::new(processors)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            nobodys: Arc::default(),
        }
    }

    /// The hash of a new password.
    pub async fn hash(&self, password: &str) -> Result<String, Overloaded> {
        let (salted, cost) = (prepare(password, &self.pepper), self.cost);
        self.work(move || hash(&salted, cost)).await
    }

    /// Whether it is the password that was hashed. Without a hash it never is, and takes as long.
    pub async fn verify(&self, password: &str, hashed: Option<String>) -> Result<bool, Overloaded> {
        if password.len() > MAX_LEN {
            return Ok(false);
        }
        let (salted, cost) = (prepare(password, &self.pepper), self.cost);
        let nobodys = self.nobodys.clone();
        let is_somebodys = hashed.is_some();
        let work = move || {
            let hashed = hashed.as_ref().unwrap_or_else(|| nobodys.get_or_init(|| hash("", cost)));
            bcrypt::verify(&salted, hashed)
        };
        match self.work(work).await? {
            Ok(matches) => Ok(matches && is_somebodys),
            Err(error) => {
                warn!(%error, "a stored password hash can't be read");
                Ok(false)
            }
        }
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let _place = self.waiting.try_acquire().map_err(|_| Overloaded)?;
        let permit = self.working.clone().acquire_owned().await.map_err(|_| Overloaded)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held to the end, also where the request goes away.
            let _permit = permit;
            work()
        });
        done.await.map_err(|_| Overloaded)
    }

    pub fn check_policy(&self, password: &str) -> Result<(), PasswordError> {
        let PasswordPolicy {
            minimum_length,
            require_digit,
            require_symbol,
            require_lowercase,
            require_uppercase,
        } = self.policy;
        let has = |test: fn(char) -> bool| password.chars().any(test);
        let weak = |text: String| Err(PasswordError::Weak(text));
        if password.len() > MAX_LEN {
            return weak(format!("The password must have {MAX_LEN} bytes at most"));
        }
        if password.is_empty() {
            return weak("The password must not be empty".to_owned());
        }
        if password.chars().count() < minimum_length {
            return weak(format!("The password must have at least {minimum_length} characters"));
        }
        type Demand = (bool, fn(char) -> bool, &'static str);
        let demands: [Demand; 4] = [
            (require_digit, |c| c.is_numeric(), "digit"),
            (require_symbol, |c| !c.is_alphanumeric(), "symbol"),
            (require_lowercase, char::is_lowercase, "lower-case letter"),
            (require_uppercase, char::is_uppercase, "upper-case letter"),
        ];
        match demands.into_iter().find(|(wanted, test, _)| *wanted && !has(*test)) {
            Some((_, _, what)) => weak(format!("The password must have at least one {what}")),
            None => Ok(()),
        }
    }
}

/// What is stored of a password: its bcrypt hash, with the configuration's `pepper` and `bcrypt_rounds`, which count from
/// 4 to 31. Takes long, as it is meant to.
pub fn hash_password(password: &str, pepper: &str, bcrypt_rounds: u32) -> String {
    hash(&prepare(password, pepper), cost(bcrypt_rounds))
}

/// As Synapse does, so that its hashes can be taken over. bcrypt looks at the first 72 bytes.
fn prepare(password: &str, pepper: &str) -> String {
    let mut prepared: String = password.nfkc().collect();
    prepared.push_str(pepper);
    prepared
}

fn cost(bcrypt_rounds: u32) -> u32 {
    bcrypt_rounds.clamp(4, 31)
}

fn hash(text: &str, cost: u32) -> String {
    bcrypt::hash(text, cost).expect("the cost was clamped to what bcrypt takes")
}

impl Accounts {
    /// Checks a password. Gives the user's ID in the spelling it was registered with.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn check_password(&self, user: &UserId, password: &str) -> Result<OwnedUserId, LoginError> {
        let found = match self.is_local(user) {
            // The connection goes back before the hash is computed.
            true => users::get_credentials(&self.db().await?, user).await?,
            false => None,
        };
        let hash = found.as_ref().and_then(|credentials| credentials.password_hash.clone());
        let matches = self.0.passwords.verify(password, hash).await?;
        let credentials = found.ok_or(LoginError::Invalid)?;
        if credentials.flags.deactivated {
            return Err(LoginError::Deactivated);
        }
        match matches {
            false => Err(LoginError::Invalid),
            true if credentials.flags.locked => Err(LoginError::Locked),
            true => Ok(credentials.user_id),
        }
    }

    /// Checks a new password against what the operator asks for.
    ///
    /// # Errors
    /// [`PasswordError::Weak`]
    pub fn check_new_password(&self, password: &str) -> Result<(), PasswordError> {
        self.0.passwords.check_policy(password)
    }

    /// Sets a user's password. Sessions stay.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub async fn set_password(&self, user: &UserId, password: &str) -> Result<(), PasswordError> {
        self.check_new_password(password)?;
        let hash = self.0.passwords.hash(password).await?;
        match users::set_password_hash(&self.db().await?, user, Some(&hash)).await? {
            true => Ok(()),
            false => Err(PasswordError::UnknownUser),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, PASSWORD, alice};

    fn passwords(policy: PasswordPolicy) -> Passwords {
        let server_name = ruma::owned_server_name!("example.org");
        let config = AccountsConfig {
            bcrypt_rounds: 4,
            password_pepper: "pepper".to_owned(),
            password_policy: policy,
            ..AccountsConfig::new(server_name)
        };
        Passwords::new(&config)
    }

    #[test]
    fn a_weak_password_is_refused_with_the_reason() {
        let policy = PasswordPolicy {
            minimum_length: 4,
            require_digit: true,
            require_symbol: true,
            require_lowercase: true,
            require_uppercase: true,
        };
        #[track_caller]
        fn check(policy: PasswordPolicy, password: &str, complaint: Option<&str>) {
            let found = passwords(policy).check_policy(password).err().map(|error| error.to_string());
            match complaint {
                None => assert_eq!(found, None, "{password}"),
                Some(word) => assert!(found.as_ref().is_some_and(|found| found.contains(word)), "{found:?}"),
            }
        }
        check(policy, "aB1!", None);
        check(policy, "äÖ٣ ", None);
        check(policy, "aB1", Some("4 characters"));
        check(policy, "aBc!", Some("digit"));
        check(policy, "aB12", Some("symbol"));
        check(policy, "AB1!", Some("lower-case"));
        check(policy, "ab1!", Some("upper-case"));
        check(PasswordPolicy::default(), "", Some("empty"));
        check(PasswordPolicy::default(), "x", None);
        check(PasswordPolicy::default(), &"x".repeat(513), Some("512 bytes"));
    }

    #[tokio::test]
    async fn the_pepper_counts_and_the_form_of_characters_does_not() {
        let passwords = passwords(PasswordPolicy::default());
        let hash = passwords.hash("pâss").await.ok().unwrap();
        assert!(hash.starts_with("$2b$04$"));
        let verify = async |password: &str, hash: Option<&str>| {
            passwords.verify(password, hash.map(str::to_owned)).await.ok().unwrap()
        };
        assert!(verify("pa\u{302}ss", Some(&hash)).await, "decomposed");
        assert!(!verify("pass", Some(&hash)).await);
        assert!(!verify("", None).await, "nobody has the empty password");
        assert!(!verify("pâss", Some("garbage")).await);
        let unpeppered = Passwords { pepper: String::new(), ..passwords };
        assert!(!unpeppered.verify("pâss", Some(hash)).await.ok().unwrap());
    }

    #[tokio::test]
    async fn a_log_in_needs_the_password_of_an_account_that_is_in_use() {
        let fixture = Fixture::new().await;
        let accounts = &fixture.accounts;
        assert_eq!(accounts.check_password(alice(), PASSWORD).await.unwrap(), alice());
        let shouted = ruma::user_id!("@Alice:example.org");
        assert_eq!(accounts.check_password(shouted, PASSWORD).await.unwrap(), alice());
        let refused =
            async |user: &UserId, password: &str| accounts.check_password(user, password).await.unwrap_err();
        assert!(matches!(refused(alice(), "wrong").await, LoginError::Invalid));
        assert!(matches!(refused(ruma::user_id!("@eve:example.org"), PASSWORD).await, LoginError::Invalid));
        assert!(matches!(refused(ruma::user_id!("@alice:else.org"), PASSWORD).await, LoginError::Invalid));

        accounts.set_password(alice(), "new one").await.unwrap();
        assert!(matches!(refused(alice(), PASSWORD).await, LoginError::Invalid));
        accounts.set_restriction(alice(), crate::Restriction::Locked, true).await.unwrap();
        assert!(matches!(refused(alice(), "wrong").await, LoginError::Invalid), "strangers learn nothing");
        assert!(matches!(refused(alice(), "new one").await, LoginError::Locked));
        accounts.deactivate(alice(), false).await.unwrap();
        assert!(matches!(refused(alice(), "new one").await, LoginError::Deactivated));
        let error = accounts.set_password(alice(), "another").await.unwrap_err();
        assert!(matches!(error, PasswordError::UnknownUser), "{error}");
    }
}
