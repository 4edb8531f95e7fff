//! How users prove who they are, and for how long.

use std::time::Duration;

use crate::{
    section::{all_defaulted, section},
    value::Secret,
};

section! {
    /// Passwords, sessions and tokens.
    Auth {
        /// Passwords and what is asked of them.
        password_config: PasswordConfig = {},
        /// The cost of a password hash, as a power of two: each step doubles the work.
        bcrypt_rounds: u32 = 12,
        /// How long a session lasts without refresh tokens; `infinity` (the default) for ever.
        session_lifetime: Option<Duration> = infinity,
        /// How long an access token lasts that can be refreshed.
        refreshable_access_token_lifetime: Duration = 5m,
        /// How long a refresh token lasts unused; `infinity` for ever.
        refresh_token_lifetime: Option<Duration> = infinity,
        /// How long an access token lasts that can't be refreshed; `infinity` for ever.
        nonrefreshable_access_token_lifetime: Option<Duration> = infinity,
        /// Confirmation of delicate requests (user-interactive authentication).
        ui_auth: UiAuth = {},
        /// Log-in of a further device by a token that a logged-in device gets.
        login_via_existing_session: LoginViaExistingSession = {},
    }
}

section! {
    /// Log-in by password.
    PasswordConfig {
        /// Whether to log in by password.
        enabled: bool = true,
        /// Whether passwords are kept here (and not only with a password provider).
        localdb_enabled: bool = true,
        /// A text added to each password before it is hashed. It can't be changed once there are passwords.
        pepper: Option<Secret> = null,
        /// What passwords must have.
        policy: PasswordPolicy = {},
    }
}

section! {
    /// What a new password must have.
    PasswordPolicy {
        /// Whether any of this is asked.
        enabled: bool = false,
        /// Characters at least.
        minimum_length: u32 = 0,
        /// Whether it needs a digit.
        require_digit: bool = false,
        /// Whether it needs a character that is neither letter nor digit.
        require_symbol: bool = false,
        /// Whether it needs a lower-case letter.
        require_lowercase: bool = false,
        /// Whether it needs an upper-case letter.
        require_uppercase: bool = false,
    }
}

section! {
    /// Confirmation of delicate requests.
    UiAuth {
        /// How long a confirmation holds for further requests; 0 asks each time.
        session_timeout: Duration = 0s,
    }
}

section! {
    /// `POST /_matrix/client/v1/login/get_token`.
    LoginViaExistingSession {
        /// Whether this is offered.
        enabled: bool = false,
        /// Whether the user confirms it with the password.
        require_ui_auth: bool = true,
        /// How long the token can be used.
        token_timeout: Duration = 5m,
    }
}

all_defaulted!(Auth, PasswordConfig, PasswordPolicy, UiAuth, LoginViaExistingSession);
