//! Which events a client wants.

use myelin_events::Pdu;
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
        let event_type = pdu.event_type().to_string();
        let matches = |patterns: &[String]| patterns.iter().any(|pattern| is_like(pattern, &event_type));
        let is_sender = |users: &[String]| users.iter().any(|user| user == pdu.sender().as_str());
        !self.is_closed
            && types.as_ref().is_none_or(|types| matches(types))
            && !matches(not_types)
            && senders.as_ref().is_none_or(|senders| is_sender(senders))
            && !is_sender(not_senders)
    }
}

/// Whether a type matches a pattern in which `*` stands for any characters.
fn is_like(pattern: &str, event_type: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == event_type };
    let Some(mut text) = event_type.strip_prefix(start) else { return false };
    let mut rest = rest;
    // The first place where a middle part stands leaves most for the others.
    while let Some((part, after)) = rest.split_once('*') {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
        rest = after;
    }
    text.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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

    proptest! {
        #[test]
        fn patterns_match_as_a_naive_matcher_says(pattern in "[ab*.]{0,8}", text in "[ab.]{0,10}") {
            fn naive(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
                    Some((byte, rest)) => text.first() == Some(byte) && naive(rest, &text[1..]),
                }
            }
            prop_assert_eq!(is_like(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
