//! How often clients may do things: the `rc_…` options, counted by this process.

use std::{
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
};

use myelin_config::{RateLimit as ConfiguredLimit, RateLimits};
use myelin_http::{ApiError, RateLimit, RateLimiter, RequestHead};
use myelin_types::Clock;
use ruma::{OwnedRoomId, OwnedUserId};

/// A limiter for each kind of action; keys are what the option says.
pub struct Limits {
    /// `rc_registration`
    pub registration: RateLimiter<Address>,
    /// `rc_registration_token_validity`
    pub registration_token_validity: RateLimiter<Address>,
    /// `rc_login.address`
    pub login_address: RateLimiter<Address>,
    /// `rc_login.account`
    pub login_account: RateLimiter<OwnedUserId>,
    /// `rc_login.failed_attempts`: only failures count, those of user-interactive authentication too.
    pub login_failed: RateLimiter<OwnedUserId>,
    /// `rc_message`
    pub message: RateLimiter<OwnedUserId>,
    /// `rc_admin_redaction`, if it differs from `rc_message`
    pub admin_redaction: Option<RateLimiter<OwnedUserId>>,
    /// `rc_room_creation`
    pub room_creation: RateLimiter<OwnedUserId>,
    /// `rc_joins.local`
    pub join_local: RateLimiter<OwnedUserId>,
    /// `rc_joins.remote`
    pub join_remote: RateLimiter<OwnedUserId>,
    /// `rc_joins_per_room`
    pub join_per_room: RateLimiter<OwnedRoomId>,
    /// `rc_invites.per_room`
    pub invite_per_room: RateLimiter<OwnedRoomId>,
    /// `rc_invites.per_user`: the user who is invited
    pub invite_per_user: RateLimiter<OwnedUserId>,
    /// `rc_invites.per_issuer`: the user who invites
    pub invite_per_issuer: RateLimiter<OwnedUserId>,
    /// `rc_key_requests`
    pub key_requests: RateLimiter<OwnedUserId>,
    /// `rc_presence.per_user`
    pub presence: RateLimiter<OwnedUserId>,
    /// `rc_reports`
    pub reports: RateLimiter<OwnedUserId>,
    /// `rc_user_directory`
    pub user_directory: RateLimiter<OwnedUserId>,
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

impl Limits {
    /// Limiters that have counted nothing yet.
    pub fn new(limits: &RateLimits, clock: &Clock) -> Self {
        fn limiter<K: Hash + Eq>(limit: &ConfiguredLimit, clock: &Clock) -> RateLimiter<K> {
            let limit = RateLimit { per_second: limit.per_second, burst_count: limit.burst_count.into() };
            RateLimiter::new(limit, clock.clone())
        }
        Self {
            registration: limiter(&limits.rc_registration, clock),
            registration_token_validity: limiter(&limits.rc_registration_token_validity, clock),
            login_address: limiter(&limits.rc_login.address, clock),
            login_account: limiter(&limits.rc_login.account, clock),
            login_failed: limiter(&limits.rc_login.failed_attempts, clock),
            message: limiter(&limits.rc_message, clock),
            admin_redaction: limits.rc_admin_redaction.as_ref().map(|limit| limiter(limit, clock)),
            room_creation: limiter(&limits.rc_room_creation, clock),
            join_local: limiter(&limits.rc_joins.local, clock),
            join_remote: limiter(&limits.rc_joins.remote, clock),
            join_per_room: limiter(&limits.rc_joins_per_room, clock),
            invite_per_room: limiter(&limits.rc_invites.per_room, clock),
            invite_per_user: limiter(&limits.rc_invites.per_user, clock),
            invite_per_issuer: limiter(&limits.rc_invites.per_issuer, clock),
            key_requests: limiter(&limits.rc_key_requests, clock),
            presence: limiter(&limits.rc_presence.per_user, clock),
            reports: limiter(&limits.rc_reports, clock),
            user_directory: limiter(&limits.rc_user_directory, clock),
        }
    }
}

/// Where a request comes from, as far as limits are concerned: an IPv4 address, or the /64 of an IPv6 address, which is
/// what one customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        const NETWORK: u128 = !(u64::MAX as u128);
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() & NETWORK).into()),
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

/// What to do with the limiter of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// One more action.
    One,
    /// Only look whether one more would be allowed.
    Nothing,
}

/// Asks the limiter of addresses. A request whose address is not known, by a unix socket without `x_forwarded`, comes
/// from this machine and is not limited.
pub(crate) fn check_address(
    limiter: &RateLimiter<Address>,
    head: &RequestHead,
    count: Count,
) -> Result<(), ApiError> {
    let Some(address) = head.remote_addr().map(Address::from) else { return Ok(()) };
    let decision = match count {
        Count::One => limiter.check(&address),
        Count::Nothing => limiter.peek(&address),
    };
    decision.map_err(ApiError::from)
}

#[cfg(test)]
mod tests;
