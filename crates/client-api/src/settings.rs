//! The configuration, as far as handlers look at it.

use std::sync::Arc;

use myelin_accounts::{AccountsConfig, PasswordPolicy, TokenLifetimes};
use myelin_config::{
    Auth, Config, DefaultEncryption, Presence, PresenceMode, RateLimits, Registration, RoomDirectory, Rooms,
    Server, Users, Voip,
};
use myelin_ephemeral::PresenceOptions;
use myelin_events::ServerSigningKey;
use myelin_rooms::{EncryptNewRooms, RoomsOptions};
use myelin_sync::SyncOptions;

/// Sections of the configuration. A family that needs another one adds it here.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server's name and its face to the world.
    pub server: Server,
    /// How accounts come to be.
    pub registration: Registration,
    /// Passwords, sessions and tokens.
    pub auth: Auth,
    /// Profiles and devices.
    pub users: Users,
    /// Who is online.
    pub presence: Presence,
    /// Rooms.
    pub rooms: Rooms,
    /// Aliases and the public list of rooms.
    pub room_directory: RoomDirectory,
    /// Calls.
    pub voip: Voip,
    /// How often what may be done; [`Limits`](crate::Limits) counts.
    pub rate_limits: RateLimits,
}

impl Settings {
    /// The sections of a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            server: config.server.clone(),
            registration: config.registration.clone(),
            auth: config.auth.clone(),
            users: config.users.clone(),
            presence: config.presence.clone(),
            rooms: config.rooms.clone(),
            room_directory: config.room_directory.clone(),
            voip: config.voip.clone(),
            rate_limits: config.rate_limits.clone(),
        }
    }

    /// Whether users log in by a password that is kept here.
    pub fn has_password_login(&self) -> bool {
        self.auth.password_config.enabled && self.auth.password_config.localdb_enabled
    }

    /// What the room engine is told.
    pub fn rooms_options(&self, signing_key: Arc<ServerSigningKey>) -> RoomsOptions {
        let rooms = &self.rooms;
        RoomsOptions {
            default_room_version: rooms.default_room_version.clone(),
            encrypt_new_rooms: match rooms.encryption_enabled_by_default_for_room_type {
                DefaultEncryption::All => EncryptNewRooms::All,
                DefaultEncryption::Invite => EncryptNewRooms::Private,
                DefaultEncryption::Off => EncryptNewRooms::Never,
            },
            default_power_levels: rooms.default_power_level_content_override.clone(),
            forget_on_leave: rooms.forget_rooms_on_leave,
            ..RoomsOptions::new(self.server.server_name.clone(), signing_key)
        }
    }

    /// What the sync engine is told.
    pub fn sync_options(&self) -> SyncOptions {
        let max_timeline_limit = usize::try_from(self.rooms.filter_timeline_limit).ok();
        SyncOptions {
            max_timeline_limit: max_timeline_limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX),
            ..SyncOptions::default()
        }
    }

    /// When users count as away.
    pub fn presence_options(&self) -> PresenceOptions {
        let presence = &self.presence;
        PresenceOptions {
            enabled: presence.enabled != PresenceMode::Disabled,
            offline_after: presence.sync_online_timeout,
            idle_after: presence.idle_timeout,
            active_for: presence.last_active_granularity,
        }
    }

    /// What the accounts service is told.
    pub fn accounts_config(&self) -> AccountsConfig {
        let Auth { password_config, login_via_existing_session, .. } = &self.auth;
        let policy = &password_config.policy;
        let password_policy = PasswordPolicy {
            minimum_length: usize::try_from(policy.minimum_length).unwrap_or(usize::MAX),
            require_digit: policy.require_digit,
            require_symbol: policy.require_symbol,
            require_lowercase: policy.require_lowercase,
            require_uppercase: policy.require_uppercase,
        };
        AccountsConfig {
            bcrypt_rounds: self.auth.bcrypt_rounds,
            password_pepper: password_config.pepper.as_ref().map_or("", |pepper| pepper.expose()).to_owned(),
            password_policy: if policy.enabled { password_policy } else { PasswordPolicy::default() },
            lifetimes: TokenLifetimes {
                session: self.auth.session_lifetime,
                refreshable_access_token: Some(self.auth.refreshable_access_token_lifetime),
                refresh_token: self.auth.refresh_token_lifetime,
                nonrefreshable_access_token: self.auth.nonrefreshable_access_token_lifetime,
            },
            ui_auth_session_timeout: self.auth.ui_auth.session_timeout,
            login_token_timeout: login_via_existing_session.token_timeout,
            allow_underscore_prefixed_registration: self.registration.allow_underscore_prefixed_registration,
            ..AccountsConfig::new(self.server.server_name.clone())
        }
    }
}
