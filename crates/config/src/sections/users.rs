//! Profiles, devices, presence and the user directory.

use std::time::Duration;

use crate::{
    section::{all_defaulted, section},
    value::choice,
};

section! {
    /// Profiles and devices.
    Users {
        /// Whether users can set their display name.
        enable_set_displayname: bool = true,
        /// Whether users can set their picture.
        enable_set_avatar_url: bool = true,
        /// Whether users can add and remove e-mail addresses and phone numbers.
        enable_3pid_changes: bool = true,
        /// Whether reading a profile needs an access token.
        require_auth_for_profile_requests: bool = false,
        /// Whether only those who share a room see a profile. Needs `require_auth_for_profile_requests`.
        limit_profile_requests_to_users_who_share_rooms: bool = false,
        /// Whether other servers can read profiles of our users.
        allow_profile_lookup_over_federation: bool = true,
        /// Whether other servers see the names of our users' devices.
        allow_device_name_lookup_over_federation: bool = false,
        /// Whether an invite carries name and picture of the invited user.
        include_profile_data_on_invite: bool = true,
        /// How long it is kept from which addresses a user came; null for ever.
        user_ips_max_age: Option<Duration> = 28d,
        /// How long a device may be unused before it is removed; null never removes one.
        delete_stale_devices_after: Option<Duration> = null,
    }
}

section! {
    /// Who is online.
    Presence {
        /// Whether presence is tracked: `true`, `false`, or `untracked` to pass on only what modules and application
        /// services say.
        enabled: PresenceMode = true,
        /// Whether an initial sync shows users that are offline.
        include_offline_users_on_sync: bool = false,
        /// How exact the time of the last activity is.
        last_active_granularity: Duration = 1m,
        /// How long after its last sync a device counts as offline.
        sync_online_timeout: Duration = 30s,
        /// How long after its last activity a user counts as idle.
        idle_timeout: Duration = 5m,
    }
}

choice! {
    /// Whether presence is tracked.
    PresenceMode: "`true`, `false` or `untracked`" {
        /// It is tracked and passed on.
        Enabled = "true",
        /// It is neither tracked nor passed on.
        Disabled = "false",
        /// It is passed on, but a sync changes nothing.
        Untracked = "untracked",
    }
}

section! {
    /// Search for users.
    UserDirectory {
        /// Whether users can search.
        enabled: bool = true,
        /// Whether a search finds all users, not only those in public rooms and shared ones.
        search_all_users: bool = false,
        /// Whether users of this server come first.
        prefer_local_users: bool = false,
        /// Whether users of other servers are left out.
        exclude_remote_users: bool = false,
        /// Whether locked users are found.
        show_locked_users: bool = false,
    }
}

all_defaulted!(Users, Presence, UserDirectory);
