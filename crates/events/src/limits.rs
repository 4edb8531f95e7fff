//! Sizes that an event must not exceed ([spec](https://spec.matrix.org/v1.19/client-server-api/#size-limits)).

use ruma::room_version_rules::RoomVersionRules;

/// The largest whole event in bytes: the federation format with its signatures, as canonical JSON.
pub const MAX_PDU_BYTES: usize = 65_536;

/// The largest `type`, `state_key`, `sender`, `room_id` and `event_id` in bytes.
pub const MAX_FIELD_BYTES: usize = 255;

/// The most `prev_events` an event may name.
pub const MAX_PREV_EVENTS: usize = 20;

/// The most `auth_events` an event may name.
pub const MAX_AUTH_EVENTS: usize = 10;

/// The largest integer of canonical JSON, 2<sup>53</sup> - 1.
pub const MAX_CANONICAL_INTEGER: u64 = (1 << 53) - 1;

/// The largest `depth` an event of this room version may have; deeper events keep it.
///
/// Room versions 1 to 5 allow 2<sup>63</sup> - 1, later ones what
/// [canonical JSON](https://spec.matrix.org/v1.19/appendices/#canonical-json) can hold.
pub fn max_depth(rules: &RoomVersionRules) -> u64 {
    if rules.authorization.strict_canonical_json { MAX_CANONICAL_INTEGER } else { i64::MAX as u64 }
}

/// The `depth` of a new event whose deepest previous event has `deepest`.
///
/// Events we make never go above 2<sup>53</sup> - 1, which every room version can represent.
pub fn next_depth(deepest: u64) -> u64 {
    deepest.saturating_add(1).min(MAX_CANONICAL_INTEGER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_stays_at_its_limit() {
        assert_eq!(next_depth(0), 1);
        assert_eq!(next_depth(MAX_CANONICAL_INTEGER), MAX_CANONICAL_INTEGER);
        assert_eq!(next_depth(u64::MAX), MAX_CANONICAL_INTEGER);
    }
}
