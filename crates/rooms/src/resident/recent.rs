//! The events that were written last, some of which are not committed yet.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use myelin_events::Pdu;
use myelin_storage::events::flags;
use ruma::{EventId, OwnedEventId};

use crate::{EventNid, EventRow};

/// Events that are kept although they are committed.
const KEPT: usize = 32;

#[derive(Clone, Debug)]
pub(crate) struct RecentEvent {
    pub pdu: Arc<Pdu>,
    pub nid: EventNid,
    pub thread_id: Option<OwnedEventId>,
    /// The version of the current state that is the state after it, if it was ever that.
    pub state_after: Option<u64>,
    /// See [`myelin_storage::events::flags`].
    pub flags: i16,
}

impl RecentEvent {
    pub fn of(row: &EventRow, state_after: Option<u64>) -> Self {
        Self {
            pdu: row.pdu.clone(),
            nid: row.nid,
            thread_id: row.thread_id.clone(),
            state_after,
            flags: row.writing.flags,
        }
    }
}

impl RecentEvent {
    /// Whether it is part of the timeline.
    pub fn is_shown(&self) -> bool {
        self.flags & (flags::OUTLIER | flags::REJECTED | flags::SOFT_FAILED) == 0
    }
}

/// The last events of a room by id: at least all that are being committed.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    order: VecDeque<OwnedEventId>,
    by_id: HashMap<OwnedEventId, RecentEvent>,
    size_bytes: usize,
}

impl Recent {
    /// Adds an event; `in_flight` commits are under way, this one among them or not.
    pub fn add(&mut self, event: RecentEvent, in_flight: usize) {
        let event_id = event.pdu.event_id().clone();
        self.size_bytes += event.pdu.size_bytes();
        match self.by_id.insert(event_id.clone(), event) {
            None => self.order.push_back(event_id),
            Some(old) => self.size_bytes -= old.pdu.size_bytes(),
        }
        // A commit may be of several events; those are few, but for what a join brings along, which is looked up
        // only after its commit.
        let kept = KEPT + 16 * in_flight;
        while self.order.len() > kept
            && let Some(oldest) = self.order.pop_front()
        {
            let old = self.by_id.remove(&oldest);
            self.size_bytes -= old.map_or(0, |old| old.pdu.size_bytes());
        }
    }

    pub fn get(&self, event_id: &EventId) -> Option<&RecentEvent> {
        self.by_id.get(event_id)
    }

    /// Puts the redacted form of an event in its place.
    pub fn replace(&mut self, redacted: &Arc<Pdu>) {
        if let Some(event) = self.by_id.get_mut(redacted.event_id()) {
            self.size_bytes = self.size_bytes + redacted.size_bytes() - event.pdu.size_bytes();
            event.pdu = redacted.clone();
        }
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}
