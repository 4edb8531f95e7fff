//! What an operator can set.

use std::time::Duration;

use ruma::OwnedServerName;

/// The options of this crate.
#[derive(Clone, Debug)]
pub struct AccountsConfig {
    /// The server's name, which every user ID ends with.
    pub server_name: OwnedServerName,
    /// The cost of a new password hash, as a power of two. 4 to 31.
    pub bcrypt_rounds: u32,
    /// Appended to each password before it is hashed.
    pub password_pepper: String,
    /// What new passwords must have.
    pub password_policy: PasswordPolicy,
    /// How long tokens are good for.
    pub lifetimes: TokenLifetimes,
    /// How long a confirmation by user-interactive authentication holds for further requests. Zero: for the one only.
    pub ui_auth_session_timeout: Duration,
    /// How long a login token is good for.
    pub login_token_timeout: Duration,
    /// Whether new names may begin with `_`.
    pub allow_underscore_prefixed_registration: bool,
    /// Access tokens that are kept in memory.
    pub token_cache_capacity: usize,
}

/// How long tokens are good for; `None`: for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenLifetimes {
    /// How long a session lasts at most, however often its tokens are refreshed.
    pub session: Option<Duration>,
    /// An access token that can be refreshed. `None`: refresh tokens are not given out at all.
    pub refreshable_access_token: Option<Duration>,
    /// A refresh token that is not used.
    pub refresh_token: Option<Duration>,
    /// An access token that can't be refreshed.
    pub nonrefreshable_access_token: Option<Duration>,
}

/// What new passwords must have, besides being at most 512 bytes long.
#[derive(Clone, Copy, Debug, Default)]
pub struct PasswordPolicy {
    /// Characters at least.
    pub minimum_length: usize,
    /// A digit.
    pub require_digit: bool,
    /// A character that is neither letter nor digit.
    pub require_symbol: bool,
    /// A lower-case letter.
    pub require_lowercase: bool,
    /// An upper-case letter.
    pub require_uppercase: bool,
}

impl AccountsConfig {
    /// Synapse's defaults.
    pub fn new(server_name: OwnedServerName) -> Self {
        Self {
            server_name,
            bcrypt_rounds: 12,
            password_pepper: String::new(),
            password_policy: PasswordPolicy::default(),
            lifetimes: TokenLifetimes {
                refreshable_access_token: Some(Duration::from_secs(300)),
                ..TokenLifetimes::default()
            },
            ui_auth_session_timeout: Duration::ZERO,
            login_token_timeout: Duration::from_secs(300),
            allow_underscore_prefixed_registration: false,
            token_cache_capacity: 100_000,
        }
    }
}
