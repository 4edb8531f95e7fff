//! The rules of the room versions we serve, as references that live forever.

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};

/// What differs between room versions: a table that events and functions carry by reference.
pub type Rules = &'static RoomVersionRules;

/// The room versions this crate implements, oldest first.
pub const SUPPORTED_ROOM_VERSIONS: [RoomVersionId; 12] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// The rules of a [room version](https://spec.matrix.org/v1.19/rooms/), or `None` for one we don't implement:
/// answer `M_UNSUPPORTED_ROOM_VERSION` or `M_INCOMPATIBLE_ROOM_VERSION`.
pub fn rules(version: &RoomVersionId) -> Option<Rules> {
    static V1: RoomVersionRules = RoomVersionRules::V1;
    static V2: RoomVersionRules = RoomVersionRules::V2;
    static V3: RoomVersionRules = RoomVersionRules::V3;
    static V4: RoomVersionRules = RoomVersionRules::V4;
    static V5: RoomVersionRules = RoomVersionRules::V5;
    static V6: RoomVersionRules = RoomVersionRules::V6;
    static V7: RoomVersionRules = RoomVersionRules::V7;
    static V8: RoomVersionRules = RoomVersionRules::V8;
    static V9: RoomVersionRules = RoomVersionRules::V9;
    static V10: RoomVersionRules = RoomVersionRules::V10;
    static V11: RoomVersionRules = RoomVersionRules::V11;
    static V12: RoomVersionRules = RoomVersionRules::V12;
    match version {
        RoomVersionId::V1 => Some(&V1),
        RoomVersionId::V2 => Some(&V2),
        RoomVersionId::V3 => Some(&V3),
        RoomVersionId::V4 => Some(&V4),
        RoomVersionId::V5 => Some(&V5),
        RoomVersionId::V6 => Some(&V6),
        RoomVersionId::V7 => Some(&V7),
        RoomVersionId::V8 => Some(&V8),
        RoomVersionId::V9 => Some(&V9),
        RoomVersionId::V10 => Some(&V10),
        RoomVersionId::V11 => Some(&V11),
        RoomVersionId::V12 => Some(&V12),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_version_has_the_rules_that_ruma_knows_for_it() {
        for version in SUPPORTED_ROOM_VERSIONS {
            let ours = rules(&version).expect("a supported version has rules");
            let theirs = version.rules().expect("ruma knows all stable versions");
            assert_eq!(format!("{ours:?}"), format!("{theirs:?}"), "room version {version}");
        }
        assert!(rules(&"org.example.experiment".try_into().unwrap()).is_none());
    }
}
