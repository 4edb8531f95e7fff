//! Which events of a room a user gets.

use std::{collections::HashSet, sync::Arc};

use myelin_events::{Viewpoint, relations::contains_url, visibility::history_visibility};
use myelin_types::{Position, StreamId};
use ruma::{OwnedUserId, UserId, events::room::member::MembershipState};

use super::{Floor, Inner};
use crate::{
    event::{Rendered, RoomEvent},
    filter::EventFilter,
};

/// Events that are looked at in search of those that a filter lets pass, at most.
const MAX_SCANNED: usize = 1000;

/// Who looks at a room, and how.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub user_id: &'a UserId,
    /// The user's membership at the end of what is looked at.
    pub membership: MembershipState,
    /// What was seen before; `None`: nothing.
    pub since: Option<&'a Position>,
    /// Up to where there is something to see.
    pub upto: &'a Position,
    /// The place of the user's leaving: nothing later is shown.
    pub end: Option<StreamId>,
    pub limit: usize,
    pub filter: &'a EventFilter,
    /// The filter lets everything of this room pass.
    pub is_unfiltered: bool,
    /// Whose messages the user does not want.
    pub ignored: &'a HashSet<OwnedUserId>,
}

/// An event that a user gets.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    pub event: Arc<RoomEvent>,
    /// The user's membership after it.
    pub membership: MembershipState,
}

/// The part of a timeline that a user gets.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Oldest first.
    pub events: Vec<Selected>,
    /// There are more between what was seen before and the first of them.
    pub limited: bool,
    /// The place just before the first of them.
    pub start: StreamId,
    /// The place of the newest event, whether it is among them or not.
    pub end: StreamId,
}

/// What must be read from the database before a selection can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Older events.
    Older,
    /// The state, to know who could see the history.
    State,
}

impl Inner {
    /// Selects the newest events that the user may see and wants.
    ///
    /// Goes backwards, so that the user's membership and the history visibility at each event follow from what they
    /// are at the end and from what each change replaced.
    pub fn select(&self, view: &View<'_>) -> Result<Selection, Missing> {
        let mut scan = Scan::new(view);
        let mut picked: Vec<Selected> = Vec::new();
        let mut end = None;
        let mut limited = false;
        let mut reached = false;
        let mut scanned = 0;
        for event in self.events.iter().rev() {
            let is_later = view.end.is_some_and(|end| event.pos > end);
            if is_later || !view.upto.covers(event.writer, event.pos) {
                continue;
            }
            end.get_or_insert(event.pos);
            if view.since.is_some_and(|since| since.covers(event.writer, event.pos)) {
                reached = true;
                break;
            }
            let membership = scan.membership.clone();
            if scan.step(self, event)? && view.wants(event) {
                if picked.len() == view.limit {
                    limited = true;
                    break;
                }
                picked.push(Selected { event: event.clone(), membership });
            }
            scanned += 1;
            if scanned >= MAX_SCANNED {
                limited = true;
                break;
            }
        }
        if !reached && !limited {
            match self.floor {
                Floor::Start => {}
                Floor::At(writer, pos) if view.since.is_some_and(|since| since.covers(writer, pos)) => {}
                Floor::At(..) if picked.len() == view.limit && !picked.is_empty() => limited = true,
                Floor::At(..) | Floor::Unknown => return Err(Missing::Older),
            }
        }
        let end = end.or(view.end).unwrap_or_else(|| self.place_of(view.upto));
        let start = picked.last().map_or(end, |first| StreamId(first.event.pos.0 - 1));
        picked.reverse();
        Ok(Selection { events: picked, limited, start, end })
    }
}

impl View<'_> {
    fn wants(&self, event: &RoomEvent) -> bool {
        let pdu = &event.event.pdu;
        // What others did to the room's state is told even of users who are ignored.
        if !self.ignored.is_empty() && !pdu.is_state() && self.ignored.contains(pdu.sender()) {
            return false;
        }
        self.is_unfiltered
            || self.filter.matches(&pdu.event_type().to_string(), pdu.sender(), || contains_url(pdu))
    }
}

/// What is known of the user at a place in the timeline, while going backwards.
struct Scan<'a> {
    user_id: &'a UserId,
    membership: MembershipState,
    /// The user joined at some later place, or is in the room.
    joined_after: bool,
    /// The history visibility event just before the last event that was looked at; outer `None`: not asked yet.
    visibility: Option<Option<Arc<Rendered>>>,
}

impl<'a> Scan<'a> {
    fn new(view: &View<'a>) -> Self {
        Self {
            user_id: view.user_id,
            membership: view.membership.clone(),
            joined_after: view.membership == MembershipState::Join,
            visibility: None,
        }
    }

    /// Goes past an event; whether the user may see it.
    fn step(&mut self, room: &Inner, event: &RoomEvent) -> Result<bool, Missing> {
        let mut is_own_leaving = false;
        if let Some((before, after)) = event.membership_change(self.user_id.as_str()) {
            self.joined_after |= after == MembershipState::Join;
            is_own_leaving = matches!(after, MembershipState::Leave | MembershipState::Ban);
            self.membership = before;
        }
        if let Some(visibility) = &mut self.visibility {
            let change = event.changes.iter().find(|change| is_visibility(change));
            if let Some(change) = change {
                *visibility = change.replaced.clone();
            }
        }
        if !event.shown {
            return Ok(false);
        }
        // Whoever is in the room sees it, whatever the history visibility. One's own leaving is
        // seen by who declined an invite, too: the user's other devices must learn of it.
        if self.membership == MembershipState::Join || is_own_leaving {
            return Ok(true);
        }
        let visibility = match &self.visibility {
            Some(visibility) => visibility,
            None if !room.state.has_others() => return Err(Missing::State),
            None => {
                let before = StreamId(event.pos.0 - 1);
                self.visibility.insert(room.value_at("m.room.history_visibility", "", before).cloned())
            }
        };
        let viewpoint = Viewpoint {
            history_visibility: history_visibility(visibility.as_ref().map(|event| &*event.pdu)),
            membership: self.membership.clone(),
            joined_after: self.joined_after,
        };
        Ok(viewpoint.may_see(self.user_id, &event.event.pdu))
    }
}

fn is_visibility(change: &crate::event::Change) -> bool {
    &*change.event_type == "m.room.history_visibility" && change.state_key.is_empty()
}

#[cfg(test)]
mod tests {
    use myelin_types::WriterId;
    use ruma::{api::client::filter::FilterDefinition, owned_user_id, user_id};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        SyncFilter,
        room::{
            State,
            fixture::{WRITER, member, message, room, state_event, upto},
        },
    };

    const ME: &str = "@me:example.org";
    const OTHER: &str = "@other:example.org";

    fn me() -> &'static UserId {
        user_id!("@me:example.org")
    }

    /// The place and the membership after each event.
    type Picked<'a> = &'a [(i64, &'a str)];

    /// What a user is given who is in the room and asks for everything.
    struct Asked {
        membership: MembershipState,
        since: Option<Position>,
        upto: Position,
        end: Option<i64>,
        limit: usize,
        filter: Value,
        ignored: HashSet<OwnedUserId>,
    }

    impl Default for Asked {
        fn default() -> Self {
            Self {
                membership: MembershipState::Join,
                since: None,
                upto: upto(100),
                end: None,
                limit: 10,
                filter: json!({}),
                ignored: HashSet::new(),
            }
        }
    }

    impl Asked {
        fn of(&self, room: &Inner) -> Result<Selection, Missing> {
            let definition: FilterDefinition =
                serde_json::from_value(json!({ "room": { "timeline": self.filter } })).unwrap();
            let filter = SyncFilter::new(definition).timeline;
            room.select(&View {
                user_id: me(),
                membership: self.membership.clone(),
                since: self.since.as_ref(),
                upto: &self.upto,
                end: self.end.map(StreamId),
                limit: self.limit,
                is_unfiltered: self.filter == json!({}),
                filter: &filter,
                ignored: &self.ignored,
            })
        }

        #[track_caller]
        fn gets(&self, room: &Inner, expected: Picked<'_>) {
            let selection = self.of(room).unwrap();
            let picked: Vec<(i64, &str)> = selection
                .events
                .iter()
                .map(|picked| (picked.event.pos.0, picked.membership.as_str()))
                .collect();
            assert_eq!(picked, expected);
        }
    }

    fn said(places: impl IntoIterator<Item = i64>) -> Vec<RoomEvent> {
        places.into_iter().map(|pos| message(pos, OTHER)).collect()
    }

    fn visibility(pos: i64, value: &str, replaced: Option<&RoomEvent>) -> RoomEvent {
        let content = json!({ "history_visibility": value });
        state_event(pos, OTHER, ("m.room.history_visibility", ""), content, replaced)
    }

    fn kept_after(pos: i64) -> Floor {
        Floor::At(WRITER, StreamId(pos))
    }

    #[test]
    fn a_timeline_is_the_newest_events_and_limited_if_there_are_more() {
        let all = room(Floor::Start, said(1..=5));
        let (some, unknown) = (room(kept_after(2), said(3..=5)), room(Floor::Unknown, said(3..=5)));
        // The room, since where, up to where and how many; the places, whether there are more, and where they begin and
        // end.
        type Expected<'a> = Result<(&'a [i64], bool, i64, i64), Missing>;
        let check = |room: &Inner, since: Option<i64>, at: i64, limit: usize, expected: Expected<'_>| {
            let asked = Asked { since: since.map(upto), upto: upto(at), limit, ..Asked::default() };
            let selection = asked.of(room);
            let places: Vec<i64> =
                selection.iter().flat_map(|found| &found.events).map(|picked| picked.event.pos.0).collect();
            let found = selection.map(|found| (&places[..], found.limited, found.start.0, found.end.0));
            assert_eq!(found, expected, "{since:?} to {at}, {limit} at most");
        };
        check(&all, None, 9, 5, Ok((&[1, 2, 3, 4, 5], false, 0, 5)));
        check(&all, None, 9, 3, Ok((&[3, 4, 5], true, 2, 5)));
        check(&all, None, 4, 3, Ok((&[2, 3, 4], true, 1, 4)));
        check(&all, None, 9, 0, Ok((&[], true, 5, 5)));
        check(&all, Some(2), 9, 3, Ok((&[3, 4, 5], false, 2, 5)));
        check(&all, Some(2), 9, 2, Ok((&[4, 5], true, 3, 5)));
        check(&all, Some(5), 9, 2, Ok((&[], false, 5, 5)));
        // What is older is read only if it matters.
        check(&some, None, 9, 3, Ok((&[3, 4, 5], true, 2, 5)));
        check(&some, None, 9, 4, Err(Missing::Older));
        check(&some, Some(2), 9, 4, Ok((&[3, 4, 5], false, 2, 5)));
        check(&some, Some(2), 9, 3, Ok((&[3, 4, 5], false, 2, 5)));
        check(&some, Some(1), 9, 4, Err(Missing::Older));
        check(&some, Some(4), 9, 4, Ok((&[5], false, 4, 5)));
        check(&unknown, None, 9, 2, Ok((&[4, 5], true, 3, 5)));
        check(&unknown, Some(1), 9, 3, Err(Missing::Older));
        // Nothing is known to have happened between the two.
        check(&room(kept_after(7), []), Some(8), 9, 3, Ok((&[], false, 9, 9)));
        check(&room(kept_after(7), []), None, 9, 0, Err(Missing::Older));
        check(&some, None, 2, 0, Err(Missing::Older));
    }

    #[test]
    fn what_was_seen_is_reached_whoever_wrote_it() {
        // Of another writer, the event before those that are here was not seen.
        let room = room(Floor::At(WriterId(2), StreamId(4)), said(5..=6));
        let since = Position::from_writers([(WRITER, StreamId(5)), (WriterId(2), StreamId(3))]);
        let asked = Asked { since: Some(since), limit: 1, ..Asked::default() };
        asked.gets(&room, &[(6, "join")]);
        assert!(!asked.of(&room).unwrap().limited);
    }

    #[test]
    fn history_is_seen_as_the_room_wants_it() {
        let check = |value: &str, expected: Picked<'_>| {
            let invite = member(3, ME, "invite", None);
            let join = member(5, ME, "join", Some(&invite));
            let leave = member(7, ME, "leave", Some(&join));
            let [two, four, six, eight] = [2, 4, 6, 8].map(|pos| message(pos, OTHER));
            let events = [visibility(1, value, None), two, invite, four, join, six, leave, eight];
            let asked = Asked { membership: MembershipState::Leave, ..Asked::default() };
            asked.gets(&room(Floor::Start, events), expected);
        };
        // Before the first of these events the history was shared.
        let first: Picked<'_> = &[(1, "leave")];
        let since_join: Picked<'_> = &[(5, "join"), (6, "join"), (7, "leave")];
        let since_invite = [&[(3, "invite"), (4, "invite")], since_join].concat();
        check("joined", &[first, since_join].concat());
        check("invited", &[first, &since_invite].concat());
        check("shared", &[first, &[(2, "leave")], &since_invite].concat());
        check("world_readable", &[first, &[(2, "leave")], &since_invite, &[(8, "leave")]].concat());
    }

    #[test]
    fn a_change_of_the_visibility_counts_for_what_comes_after_it_and_for_itself() {
        let first = visibility(1, "world_readable", None);
        let second = visibility(3, "joined", Some(&first));
        let other = state_event(
            5,
            OTHER,
            ("m.room.history_visibility", "x"),
            json!({}),
            Some(&visibility(2, "world_readable", None)),
        );
        let third = visibility(7, "world_readable", Some(&second));
        let fourth = visibility(9, "joined", Some(&third));
        let [two, four, six, eight] = [2, 4, 6, 8].map(|pos| message(pos, OTHER));
        let room = room(Floor::Start, [first, two, second, four, other, six, third, eight, fourth]);
        let asked = Asked { membership: MembershipState::Leave, ..Asked::default() };
        asked.gets(
            &room,
            &[(1, "leave"), (2, "leave"), (3, "leave"), (7, "leave"), (8, "leave"), (9, "leave")],
        );
    }

    #[test]
    fn who_is_in_the_room_has_joined_even_if_nobody_told_when() {
        // Rows that are not of the timeline are not read from the database.
        let room = room(Floor::Start, [message(1, OTHER), member(2, ME, "invite", None)]);
        Asked::default().gets(&room, &[(1, "leave"), (2, "join")]);
        let asked = Asked { membership: MembershipState::Invite, ..Asked::default() };
        asked.gets(&room, &[]);
    }

    #[test]
    fn one_s_own_going_is_seen_whatever_came_before() {
        for (before, after) in [("invite", "leave"), ("invite", "ban"), ("knock", "leave")] {
            let first = member(2, ME, before, None);
            let last = member(3, ME, after, Some(&first));
            let room = room(Floor::Start, [visibility(1, "joined", None), first, last, message(4, OTHER)]);
            let asked = Asked { membership: after.into(), ..Asked::default() };
            asked.gets(&room, &[(3, after)]);
        }
    }

    #[test]
    fn what_comes_after_one_left_is_not_looked_at() {
        let join = member(1, ME, "join", None);
        let leave = member(3, ME, "leave", Some(&join));
        let again = member(5, ME, "join", Some(&leave));
        let room =
            room(Floor::Start, [join, message(2, OTHER), leave, message(4, OTHER), again, message(6, OTHER)]);
        let asked = Asked { membership: MembershipState::Leave, end: Some(3), ..Asked::default() };
        asked.gets(&room, &[(1, "join"), (2, "join"), (3, "leave")]);
        assert_eq!(asked.of(&room).unwrap().end, StreamId(3));
        let forgotten = self::room(kept_after(3), []);
        let asked = Asked { since: Some(upto(3)), ..asked };
        assert_eq!(asked.of(&forgotten).unwrap().end, StreamId(3));
    }

    #[test]
    fn what_is_not_shown_counts_for_who_sees_what() {
        let join = RoomEvent { shown: false, ..member(3, ME, "join", None) };
        let room =
            room(Floor::Start, [visibility(1, "joined", None), message(2, OTHER), join, message(4, OTHER)]);
        Asked::default().gets(&room, &[(1, "leave"), (4, "join")]);
    }

    #[test]
    fn the_state_is_asked_for_only_where_it_decides() {
        let join = member(2, ME, "join", None);
        let mut room = room(Floor::Start, [message(1, OTHER), join, message(3, OTHER)]);
        room.state = State::default();
        assert_eq!(Asked::default().of(&room).unwrap_err(), Missing::State);
        Asked { since: Some(upto(2)), ..Asked::default() }.gets(&room, &[(3, "join")]);
    }

    #[test]
    fn who_is_ignored_is_seen_by_what_they_did_to_the_state() {
        let topic = state_event(2, OTHER, ("m.room.topic", ""), json!({ "topic": "News" }), None);
        let room = room(Floor::Start, [message(1, OTHER), topic, message(3, ME)]);
        let ignored = HashSet::from([owned_user_id!("@other:example.org")]);
        Asked { ignored, ..Asked::default() }.gets(&room, &[(2, "join"), (3, "join")]);
    }

    #[test]
    fn filters_choose() {
        let url = state_event(2, OTHER, ("m.room.avatar", ""), json!({ "url": "mxc://a/b" }), None);
        let room = room(Floor::Start, [message(1, OTHER), url, message(3, ME)]);
        let check = |filter: Value, expected: Picked<'_>| {
            Asked { filter, ..Asked::default() }.gets(&room, expected);
        };
        check(json!({ "types": ["m.room.avatar"] }), &[(2, "join")]);
        check(json!({ "senders": [ME] }), &[(3, "join")]);
        check(json!({ "contains_url": true }), &[(2, "join")]);
        check(json!({ "contains_url": false }), &[(1, "join"), (3, "join")]);
    }

    #[test]
    fn a_filter_that_lets_little_pass_is_given_up_on() {
        for (events, is_limited) in [(MAX_SCANNED - 1, false), (MAX_SCANNED, true)] {
            let room = room(Floor::Start, said(1..=i64::try_from(events).unwrap()));
            let asked = Asked { upto: upto(9999), filter: json!({ "types": [] }), ..Asked::default() };
            assert_eq!(asked.of(&room).unwrap().limited, is_limited, "{events} events");
        }
    }
}
