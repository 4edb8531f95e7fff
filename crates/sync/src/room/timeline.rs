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
