//! How often users and servers may do things.

use crate::{
    section::{all_defaulted, section},
    value::{ByteSize, RateLimit},
};

section! {
    /// Limits per user, address or room. Each is a bucket of `burst_count` actions that refills at `per_second`.
    RateLimits {
        /// Messages and other events, per user.
        rc_message: RateLimit = { per_second: 0.2, burst_count: 10 },
        /// Registrations, per address.
        rc_registration: RateLimit = { per_second: 0.17, burst_count: 3 },
        /// Questions whether a registration token is valid, per address.
        rc_registration_token_validity: RateLimit = { per_second: 0.1, burst_count: 5 },
        /// Log-ins.
        rc_login: LoginRateLimits = {},
        /// Redactions by administrators, per user, if they are to differ from `rc_message`.
        rc_admin_redaction: Option<RateLimit> = null,
        /// Joins, per user.
        rc_joins: JoinRateLimits = {},
        /// Joins, per room.
        rc_joins_per_room: RateLimit = { per_second: 1, burst_count: 10 },
        /// Checks of e-mail addresses and phone numbers, per address.
        rc_3pid_validation: RateLimit = { per_second: 0.003, burst_count: 5 },
        /// Invites.
        rc_invites: InviteRateLimits = {},
        /// Invites by e-mail address or phone number, per user.
        rc_third_party_invite: RateLimit = { per_second: 0.2, burst_count: 10 },
        /// Requests of one device for the keys of others, per user.
        rc_key_requests: RateLimit = { per_second: 20, burst_count: 100 },
        /// Media IDs that are reserved before the upload, per user.
        rc_media_create: RateLimit = { per_second: 10, burst_count: 50 },
        /// Bytes of remote media a second, per address.
        remote_media_download_per_second: ByteSize = 87K,
        /// Bytes of remote media at once, per address.
        remote_media_download_burst_count: ByteSize = 500M,
        /// Changes of presence.
        rc_presence: PresenceRateLimits = {},
        /// Restarts, cancellations and sends of delayed events, per user.
        rc_delayed_event_mgmt: RateLimit = { per_second: 1, burst_count: 5 },
        /// Reports of rooms, users and events, per user.
        rc_reports: RateLimit = { per_second: 1, burst_count: 5 },
        /// New rooms, per user.
        rc_room_creation: RateLimit = { per_second: 0.016, burst_count: 10 },
        /// Searches in the user directory, per user.
        rc_user_directory: RateLimit = { per_second: 0.016, burst_count: 200 },
        /// Requests of other servers, per server.
        rc_federation: FederationRateLimit = {},
        /// Receipts a second that are sent to other servers for one room.
        federation_rr_transactions_per_room_per_second: u32 = 50,
    }
}

section! {
    /// Limits of log-ins.
    LoginRateLimits {
        /// Per address.
        address: RateLimit = { per_second: 0.003, burst_count: 5 },
        /// Per account.
        account: RateLimit = { per_second: 0.003, burst_count: 5 },
        /// That failed, per account.
        failed_attempts: RateLimit = { per_second: 0.17, burst_count: 3 },
    }
}

section! {
    /// Limits of joins.
    JoinRateLimits {
        /// To rooms that this server is in.
        local: RateLimit = { per_second: 0.1, burst_count: 10 },
        /// To rooms that this server is not in yet.
        remote: RateLimit = { per_second: 0.01, burst_count: 10 },
    }
}

section! {
    /// Limits of invites.
    InviteRateLimits {
        /// To one room.
        per_room: RateLimit = { per_second: 0.3, burst_count: 10 },
        /// Of one user, whoever invites.
        per_user: RateLimit = { per_second: 0.003, burst_count: 5 },
        /// By one user.
        per_issuer: RateLimit = { per_second: 0.3, burst_count: 10 },
    }
}

section! {
    /// Limits of changes of presence.
    PresenceRateLimits {
        /// Of one user.
        per_user: RateLimit = { per_second: 0.1, burst_count: 1 },
    }
}

section! {
    /// How requests of one other server are slowed down and refused.
    FederationRateLimit {
        /// The length of the window in which requests are counted, in milliseconds.
        window_size: u64 = 1000,
        /// Requests in the window that are answered at once.
        sleep_limit: u32 = 10,
        /// How long further ones wait, in milliseconds.
        sleep_delay: u64 = 500,
        /// Waiting requests after which further ones are refused.
        reject_limit: u32 = 50,
        /// Requests that are worked on at the same time.
        concurrent: u32 = 3,
    }
}

all_defaulted!(
    RateLimits,
    LoginRateLimits,
    JoinRateLimits,
    InviteRateLimits,
    PresenceRateLimits,
    FederationRateLimit
);
