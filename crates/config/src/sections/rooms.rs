//! Rooms: their versions, their members, how long their events are kept.

use std::{collections::BTreeMap, time::Duration};

use ruma::{OwnedRoomId, RoomVersionId};

use crate::{
    section::{all_defaulted, section},
    value::choice,
};

section! {
    /// Rooms and their members.
    Rooms {
        /// The version of new rooms. The default is
        /// [the specification's](https://spec.matrix.org/v1.19/rooms/), not Synapse's.
        default_room_version: RoomVersionId = "12",
        /// Rooms that are encrypted from the start: `all`, `invite` (by the preset), `off`.
        encryption_enabled_by_default_for_room_type: DefaultEncryption = "off",
        /// Parts of `m.room.power_levels` of new rooms, by the preset's name.
        default_power_level_content_override: BTreeMap<String, serde_json::Value> = {},
        /// Whether only administrators of the server may invite.
        block_non_admin_invites: bool = false,
        /// Refusal to join large rooms of other servers.
        limit_remote_rooms: LimitRemoteRooms = {},
        /// Events per room at most that a client can ask for in one request; 0 or less for no limit.
        filter_timeline_limit: i64 = 100,
        /// Whether users may set another name or picture for a single room.
        allow_per_room_profiles: bool = true,
        /// Whether a room is forgotten by leaving it.
        forget_rooms_on_leave: bool = false,
        /// How long after its last local user forgot it a room is purged; null never does.
        forgotten_room_retention_period: Option<Duration> = null,
        /// How long the content of a redacted event is kept; null for ever.
        redaction_retention_period: Option<Duration> = 7d,
        /// How long events are kept.
        retention: Retention = {},
        /// Rooms that `/sync` never shows.
        exclude_rooms_from_sync: Vec<OwnedRoomId> = [],
        /// Rooms whose members don't see each other's presence because of the room.
        exclude_rooms_from_presence: Vec<OwnedRoomId> = [],
        /// State that an invited user sees of the room.
        room_prejoin_state: PrejoinState = {},
        /// How long an event may be delayed at most; null refuses delayed events.
        max_event_delay_duration: Option<Duration> = null,
        /// Forward extremities of a room after which an event without content is sent to join them.
        dummy_events_threshold: u32 = 10,
        /// Whether search in messages is offered.
        enable_search: bool = true,
    }
}

choice! {
    /// Which new rooms are encrypted from the start.
    DefaultEncryption: "a kind of rooms" {
        /// All.
        All = "all",
        /// Those with the presets `private_chat` and `trusted_private_chat`.
        Invite = "invite",
        /// None.
        Off = "off" | "false",
    }
}

section! {
    /// Refusal to join large rooms of other servers.
    LimitRemoteRooms {
        /// Whether there is a limit.
        enabled: bool = false,
        /// The largest complexity: the number of state events by 500.
        complexity: f64 = 1.0,
        /// What users are told, instead of a sentence of ours.
        complexity_error: Option<String> = null,
        /// Whether administrators may join all the same.
        admins_can_join: bool = false,
    }
}

section! {
    /// How long events are kept, by `m.room.retention` of the room and these limits.
    Retention {
        /// Whether events are ever purged.
        enabled: bool = false,
        /// The policy of rooms without their own.
        default_policy: RetentionPolicy = {},
        /// The shortest time that a room can ask for.
        allowed_lifetime_min: Option<Duration> = null,
        /// The longest time that a room can ask for.
        allowed_lifetime_max: Option<Duration> = null,
        /// When to purge. Default: once a day.
        purge_jobs: Vec<PurgeJob> = [],
    }
}

section! {
    /// How long the events of a room are kept.
    RetentionPolicy {
        /// At least; null for no promise.
        min_lifetime: Option<Duration> = null,
        /// At most; null for ever.
        max_lifetime: Option<Duration> = null,
    }
}

section! {
    /// A purge of rooms whose longest lifetime lies between two bounds.
    PurgeJob {
        /// The lower bound, which is not included.
        shortest_max_lifetime: Option<Duration> = null,
        /// The upper bound, which is included.
        longest_max_lifetime: Option<Duration> = null,
        /// How often it runs.
        interval: Duration = 1d,
    }
}

section! {
    /// State that is shown with an invite or knock, besides the usual.
    PrejoinState {
        /// Whether the usual events are left out.
        disable_default_event_types: bool = false,
        /// Types of further events; a pair of type and state key for one event only.
        additional_event_types: Vec<serde_json::Value> = [],
    }
}

all_defaulted!(Rooms, LimitRemoteRooms, Retention, RetentionPolicy, PrejoinState);
