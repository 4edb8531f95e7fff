//! What the engine is told by the configuration.

use std::{collections::BTreeMap, sync::Arc};

use myelin_events::ServerSigningKey;
use myelin_types::Clock;
use ruma::{OwnedServerName, RoomVersionId};

/// The settings of the engine.
#[derive(Clone, Debug)]
pub struct RoomsOptions {
    /// `server_name`.
    pub server_name: OwnedServerName,
    /// The key that new events are signed with.
    pub signing_key: Arc<ServerSigningKey>,
    /// `default_room_version`: that of rooms whose creator names none. Default: 12.
    pub default_room_version: RoomVersionId,
    /// `encryption_enabled_by_default_for_room_type`. Default: off.
    pub encrypt_new_rooms: EncryptNewRooms,
    /// `default_power_level_content_override`: parts of `m.room.power_levels`, by preset. Default: none.
    pub default_power_levels: BTreeMap<String, serde_json::Value>,
    /// `forget_rooms_on_leave`: whether leaving a room forgets it. Default: no.
    pub forget_on_leave: bool,
    /// Rooms kept in memory at most. Default: 10,000.
    pub max_resident_rooms: usize,
    /// Bytes of rooms kept in memory at most, about. Default: 256 MiB.
    pub max_resident_bytes: usize,
    /// Whether this process takes a share of writing the rooms. Default: yes.
    pub takes_part: bool,
    /// The time of new events.
    pub clock: Clock,
}

impl RoomsOptions {
    /// Defaults for everything but the server's name and key.
    pub fn new(server_name: OwnedServerName, signing_key: Arc<ServerSigningKey>) -> Self {
        Self {
            server_name,
            signing_key,
            default_room_version: RoomVersionId::V12,
            encrypt_new_rooms: EncryptNewRooms::Never,
            default_power_levels: BTreeMap::new(),
            forget_on_leave: false,
            max_resident_rooms: 10_000,
            max_resident_bytes: 256 << 20,
            takes_part: true,
            clock: Clock::System,
        }
    }
}

/// Which new rooms are encrypted from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncryptNewRooms {
    /// Those whose creator says so.
    #[default]
    Never,
    /// Those with the presets `private_chat` and `trusted_private_chat`.
    Private,
    /// All.
    All,
}
