//! What a client wants to see ([spec](https://spec.matrix.org/v1.19/client-server-api/#filtering)): pure rules.

use myelin_events::matches_type;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::filter::{
        EventFormat, Filter, FilterDefinition, LazyLoadOptions, RoomEventFilter, UrlFilter,
    },
};

/// A filter, made ready to be asked often.
#[derive(Clone, Debug, Default)]
pub struct SyncFilter {
    /// Presence of others.
    pub presence: EventFilter,
    /// Global account data.
    pub account_data: EventFilter,
    /// Rooms at all.
    pub rooms: RoomSelector,
    /// Also rooms that were left before, in an initial sync.
    pub include_leave: bool,
    /// Events of timelines.
    pub timeline: EventFilter,
    /// State events.
    pub state: EventFilter,
    /// Receipts and typing notifications.
    pub ephemeral: EventFilter,
    /// Account data of rooms.
    pub room_account_data: EventFilter,
    /// Only those members whom the timeline needs.
    pub lazy_load_members: bool,
    /// With lazy loading: also members that the client has been told of.
    pub include_redundant_members: bool,
    /// Unread counts of threads apart from the room's.
    pub unread_thread_notifications: bool,
    /// The fields of events that are wanted, as paths; `None`: all.
    pub event_fields: Option<Vec<Vec<String>>>,
    /// Events as they go between servers.
    pub is_federation_format: bool,
}

impl SyncFilter {
    /// Makes a filter ready.
    pub fn new(definition: FilterDefinition) -> Self {
        let FilterDefinition { event_fields, event_format, presence, account_data, room, .. } = definition;
        let lazy = room.state.lazy_load_options;
        Self {
            presence: EventFilter::from_filter(presence),
            account_data: EventFilter::from_filter(account_data),
            rooms: RoomSelector { only: room.rooms, not: room.not_rooms },
            include_leave: room.include_leave,
            lazy_load_members: !lazy.is_disabled(),
            include_redundant_members: matches!(
                lazy,
                LazyLoadOptions::Enabled { include_redundant_members: true }
            ),
            unread_thread_notifications: room.timeline.unread_thread_notifications,
            timeline: EventFilter::from_room_filter(room.timeline),
            state: EventFilter::from_room_filter(room.state),
            ephemeral: EventFilter::from_room_filter(room.ephemeral),
            room_account_data: EventFilter::from_room_filter(room.account_data),
            event_fields: event_fields.map(|fields| fields.iter().map(|path| split_path(path)).collect()),
            is_federation_format: event_format == EventFormat::Federation,
        }
    }
}

/// Which rooms.
#[derive(Clone, Debug, Default)]
pub struct RoomSelector {
    only: Option<Vec<OwnedRoomId>>,
    not: Vec<OwnedRoomId>,
}

impl RoomSelector {
    /// Whether the room is wanted.
    pub fn matches(&self, room_id: &RoomId) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|wanted| wanted == room_id))
            && self.not.iter().all(|unwanted| unwanted != room_id)
    }
}

/// Which events.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// How many at most; `None`: as the server likes.
    pub limit: Option<usize>,
    types: Option<Vec<String>>,
    not_types: Vec<String>,
    senders: Option<Vec<OwnedUserId>>,
    not_senders: Vec<OwnedUserId>,
    rooms: RoomSelector,
    contains_url: Option<bool>,
}

impl EventFilter {
    fn from_filter(filter: Filter) -> Self {
        let Filter { not_types, limit, senders, types, not_senders, .. } = filter;
        Self {
            limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            types,
            not_types,
            senders,
            not_senders,
            rooms: RoomSelector::default(),
            contains_url: None,
        }
    }

    fn from_room_filter(filter: RoomEventFilter) -> Self {
        let RoomEventFilter {
            not_types,
            not_rooms,
            limit,
            rooms,
            not_senders,
            senders,
            types,
            url_filter,
            ..
        } = filter;
        Self {
            limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            types,
            not_types,
            senders,
            not_senders,
            rooms: RoomSelector { only: rooms, not: not_rooms },
            contains_url: url_filter.map(|filter| matches!(filter, UrlFilter::EventsWithUrl)),
        }
    }

    /// Whether every event of the room passes, whatever it is.
    pub fn passes_all(&self, room_id: &RoomId) -> bool {
        self.types.is_none()
            && self.not_types.is_empty()
            && self.senders.is_none()
            && self.not_senders.is_empty()
            && self.contains_url.is_none()
            && self.matches_room(room_id)
    }

    /// Whether no event of the room can pass.
    pub fn passes_nothing(&self, room_id: &RoomId) -> bool {
        self.limit == Some(0) || self.types.as_ref().is_some_and(Vec::is_empty) || !self.matches_room(room_id)
    }

    /// Whether events of the room are wanted.
    pub fn matches_room(&self, room_id: &RoomId) -> bool {
        self.rooms.matches(room_id)
    }

    /// Whether events of the type are wanted.
    pub fn matches_type(&self, event_type: &str) -> bool {
        let is_in = |patterns: &[String]| patterns.iter().any(|pattern| matches_type(pattern, event_type));
        // An exclusion wins over an inclusion.
        !is_in(&self.not_types) && self.types.as_ref().is_none_or(|types| is_in(types))
    }

    /// Whether events of the sender are wanted.
    pub fn matches_sender(&self, sender: &UserId) -> bool {
        self.not_senders.iter().all(|unwanted| unwanted != sender)
            && self.senders.as_ref().is_none_or(|senders| senders.iter().any(|wanted| wanted == sender))
    }

    /// Whether an event is wanted. Whether it has a `url` is asked only if that matters.
    pub fn matches(&self, event_type: &str, sender: &UserId, has_url: impl FnOnce() -> bool) -> bool {
        self.matches_type(event_type)
            && self.matches_sender(sender)
            && self.contains_url.is_none_or(|wanted| wanted == has_url())
    }
}

/// Splits `content.body` at its dots; `\.` is a dot in a name.
fn split_path(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut escaped = false;
    for character in path.chars() {
        match character {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            '.' if !escaped => names.push(String::new()),
            character => {
                if let Some(name) = names.last_mut() {
                    name.push(character);
                }
            }
        }
        escaped = false;
    }
    names
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};
    use serde_json::{Value, json};

    use super::*;

    fn filter(definition: Value) -> SyncFilter {
        SyncFilter::new(serde_json::from_value(definition).unwrap())
    }

    #[test]
    fn timelines_are_filtered_as_the_specification_says() {
        let check = |timeline: Value, event_type: &str, sender: &UserId, has_url: bool, expected: bool| {
            let filter = filter(json!({"room": {"timeline": timeline}})).timeline;
            assert_eq!(filter.matches(event_type, sender, || has_url), expected, "{timeline} {event_type}");
        };
        let (amy, bob) = (user_id!("@amy:a"), user_id!("@bob:a"));
        check(json!({}), "m.room.message", amy, false, true);
        check(json!({"types": []}), "m.room.message", amy, false, false);
        check(json!({"types": ["m.room.message"]}), "m.room.message", amy, false, true);
        check(json!({"types": ["m.room.message"]}), "m.room.messages", amy, false, false);
        check(json!({"types": ["m.room.*"]}), "m.room.message", amy, false, true);
        check(json!({"types": ["m.*"], "not_types": ["m.room.*"]}), "m.room.message", amy, false, false);
        check(json!({"types": ["m.*"], "not_types": ["m.room.*"]}), "m.reaction", amy, false, true);
        check(json!({"not_types": ["*"]}), "m.reaction", amy, false, false);
        check(json!({"senders": ["@amy:a"]}), "m.reaction", amy, false, true);
        check(json!({"senders": ["@amy:a"]}), "m.reaction", bob, false, false);
        check(json!({"senders": []}), "m.reaction", bob, false, false);
        check(json!({"senders": ["@amy:a"], "not_senders": ["@amy:a"]}), "m.reaction", amy, false, false);
        check(json!({"contains_url": true}), "m.room.message", amy, true, true);
        check(json!({"contains_url": true}), "m.room.message", amy, false, false);
        check(json!({"contains_url": false}), "m.room.message", amy, true, false);
        check(json!({"contains_url": false}), "m.room.message", amy, false, true);
    }

    #[test]
    fn rooms_are_selected_on_both_levels() {
        let (one, two) = (room_id!("!one:a"), room_id!("!two:a"));
        let rooms = filter(json!({"room": {"rooms": ["!one:a"]}})).rooms;
        assert!(rooms.matches(one) && !rooms.matches(two));
        let rooms = filter(json!({"room": {"rooms": ["!one:a", "!two:a"], "not_rooms": ["!two:a"]}})).rooms;
        assert!(rooms.matches(one) && !rooms.matches(two));
        let state = filter(json!({"room": {"state": {"not_rooms": ["!one:a"]}}})).state;
        assert!(state.passes_nothing(one) && state.passes_all(two));
        assert!(!filter(json!({"room": {"rooms": []}})).rooms.matches(one));
    }

    #[test]
    fn options_are_found_where_they_stand() {
        let filter = filter(json!({
            "event_fields": ["content.body", "type", "content.m\\.relates_to"],
            "event_format": "federation",
            "room": {
                "include_leave": true,
                "state": {"lazy_load_members": true, "include_redundant_members": true},
                "timeline": {"limit": 7, "unread_thread_notifications": true},
            },
        }));
        assert!(filter.lazy_load_members && filter.include_redundant_members && filter.include_leave);
        assert!(filter.unread_thread_notifications && filter.is_federation_format);
        assert_eq!(filter.timeline.limit, Some(7));
        let fields = filter.event_fields.unwrap();
        assert_eq!(fields, [vec!["content", "body"], vec!["type"], vec!["content", "m.relates_to"]]);
    }
}
