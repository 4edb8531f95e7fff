//! Which events a client wants.

use myelin_events::{Pdu, matches_type, relations::contains_url};
use myelin_storage::room_reads::EventFilter;
use ruma::{
    RoomId,
    api::client::filter::{RoomEventFilter, UrlFilter},
};

use super::Viewer;

/// A [filter](https://spec.matrix.org/v1.19/client-server-api/#filtering) of a room's events, made ready.
#[derive(Clone, Debug, Default)]
pub struct ReadFilter {
    events: EventFilter,
    /// No event of the room can pass.
    is_closed: bool,
    /// Only the members that the events need.
    pub lazy_load_members: bool,
}

impl ReadFilter {
    /// Makes a filter ready for one room.
    pub fn new(filter: RoomEventFilter, room_id: &RoomId) -> Self {
        let RoomEventFilter { types, not_types, senders, not_senders, rooms, not_rooms, .. } = filter;
        let texts = |users: Vec<ruma::OwnedUserId>| users.iter().map(ToString::to_string).collect();
        let is_closed = rooms.is_some_and(|rooms| !rooms.iter().any(|wanted| wanted == room_id))
            || not_rooms.iter().any(|unwanted| unwanted == room_id);
        Self {
            events: EventFilter {
                types,
                not_types,
                senders: senders.map(texts),
                not_senders: texts(not_senders),
                ignored: Vec::new(),
                contains_url: filter.url_filter.map(|wanted| wanted == UrlFilter::EventsWithUrl),
            },
            is_closed,
            lazy_load_members: !filter.lazy_load_options.is_disabled(),
        }
    }

    /// What the database is asked, for a user; `None`: nothing can pass.
    pub(super) fn for_viewer(&self, viewer: &Viewer) -> Option<EventFilter> {
        let ignored = viewer.ignored.iter().map(ToString::to_string).collect();
        (!self.is_closed).then(|| EventFilter { ignored, ..self.events.clone() })
    }

    /// Whether an event of the room's state is wanted.
    pub(super) fn wants_state(&self, pdu: &Pdu) -> bool {
        let EventFilter { types, not_types, senders, not_senders, .. } = &self.events;
        let has_url = self.events.contains_url;
        let event_type = pdu.event_type().to_string();
        let matches = |patterns: &[String]| patterns.iter().any(|pattern| matches_type(pattern, &event_type));
        let is_sender = |users: &[String]| users.iter().any(|user| user == pdu.sender().as_str());
        !self.is_closed
            && types.as_ref().is_none_or(|types| matches(types))
            && !matches(not_types)
            && senders.as_ref().is_none_or(|senders| is_sender(senders))
            && !is_sender(not_senders)
            && has_url.is_none_or(|wanted| wanted == contains_url(pdu))
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn rooms_are_selected() {
        let check = |filter: serde_json::Value, expected: bool| {
            let filter = ReadFilter::new(serde_json::from_value(filter).unwrap(), room_id!("!a:x"));
            assert_eq!(filter.for_viewer(&Viewer::new("@a:x".try_into().unwrap())).is_some(), expected);
        };
        check(serde_json::json!({}), true);
        check(serde_json::json!({"rooms": ["!a:x"]}), true);
        check(serde_json::json!({"rooms": ["!b:x"]}), false);
        check(serde_json::json!({"not_rooms": ["!a:x"]}), false);
    }
}
