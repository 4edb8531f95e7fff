//! Users, access tokens, log-in, registration, user-interactive authentication, profiles, account data.
//!
//! [`Accounts`] is who somebody is and what proves it: users, their sessions and tokens, passwords, registration and
//! user-interactive authentication. [`Profiles`] is what they say of themselves. [`AccountData`] is what clients keep with an
//! account: global and room account data, tags and read markers; [`Filters`] are the filters they made. All of them are cheap to clone and
//! safe to share.
//!
//! What is not here: HTTP and error codes (`client-api`), rate limits (counted at the edge, by address), the keys and
//! messages of devices (`devices`), and what a profile change does to rooms (`rooms`).
//!
//! Start with [`Accounts::authenticate`], which is on the path of every request, then [`Accounts::log_in`].

mod account_data;
mod accounts;
mod authenticate;
mod config;
mod deactivate;
mod devices;
mod filters;
mod last_seen;
mod login_token;
mod maintenance;
mod password;
mod profile;
mod read_marker;
mod recent;
mod registration;
mod replaced_room;
mod revocations;
mod session;
mod shared_secret;
mod tags;
#[cfg(test)]
mod testing;
mod token;
mod ui_auth;

pub use self::{
    account_data::{
        AccountData, AccountDataEntry, AccountDataError, AccountDataEvent, AccountDataStream, UserAccountData,
    },
    accounts::Accounts,
    authenticate::{AuthError, Login},
    config::{AccountsConfig, PasswordPolicy, TokenLifetimes},
    filters::Filters,
    last_seen::Client,
    password::{LoginError, PasswordError, hash_password},
    profile::{
        MemberProfile, Profile, ProfileError, ProfileRow, ProfileStream, Profiles, ShowNumber,
        is_shown_in_rooms,
    },
    registration::{NewAccount, Registered, RegistrationError},
    revocations::{RevocationRow, RevocationStream},
    session::{LogIn, LoggedIn, RefreshError, Refreshed},
    shared_secret::SharedSecretRegistration,
    tags::TagError,
    token::TokenHash,
    ui_auth::{UiAuth, UiAuthError, UiAuthPassed, UiAuthRequest},
};

/// The rows of the database that are handed out as they are.
pub use myelin_storage::accounts::{
    devices::{Device, LastSeen},
    sessions::SessionsEnded,
    threepids::Threepid,
    users::{Restriction, User, UserFlags},
};
