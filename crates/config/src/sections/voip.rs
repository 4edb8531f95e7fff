//! Calls.

use std::time::Duration;

use crate::{
    section::{all_defaulted, section},
    value::{OneOrMany, Secret},
};

section! {
    /// TURN servers for calls, as `/voip/turnServer` tells them.
    Voip {
        /// The servers, such as `turn:turn.example.com?transport=udp`.
        turn_uris: OneOrMany<String> = [],
        /// The secret that is shared with the servers, from which passwords of limited life are made.
        turn_shared_secret: Option<Secret> = null,
        /// The user name, where there is no shared secret.
        turn_username: Option<String> = null,
        /// The password to it.
        turn_password: Option<Secret> = null,
        /// How long a password lasts.
        turn_user_lifetime: Duration = 1h,
        /// Whether guests get one.
        turn_allow_guests: bool = true,
    }
}

all_defaulted!(Voip);
