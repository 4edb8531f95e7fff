//! The history of a room as a graph: its events by id, the states behind them, and how states are merged where
//! branches meet.
//!
//! A past state is told here by how it differs from the room's current state, which is in memory: differences are few
//! but for the oldest branches, so that nothing costs as much as the room has members.

use std::collections::{BTreeMap, HashMap};

use myelin_storage::{
    Client, StorageError, event_graph,
    events::{self, StoredEvent, flags},
};
use ruma::{EventId, OwnedEventId};

use crate::{
    EventNid, RoomError,
    resident::{Head, Resident},
    rooms::Engine,
    stream::stored,
};

mod difference;
mod merge;
mod states;

pub(crate) use self::{
    difference::{Difference, Key},
    merge::merge,
    states::{StateAt, StoredAt, list_states_after},
};

/// An event with its number.
pub(crate) type Known = Head;

/// An event of the database, with where its state is told from.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub event: Known,
    pub pos: Option<i64>,
    /// See [`flags`].
    pub flags: i16,
    pub stored_at: Option<StoredAt>,
    /// Whether it was the only forward extremity when it came.
    pub was_only_head: bool,
}

impl Entry {
    /// Whether the state before it is known.
    pub fn has_state(&self) -> bool {
        self.flags & flags::OUTLIER == 0
    }

    /// Whether it is part of the timeline, and so may be a forward extremity.
    pub fn is_accepted(&self) -> bool {
        self.pos.is_some()
    }
}

/// A room whose history is looked at. All that was handed over to be written is committed.
#[derive(Clone, Copy)]
pub(crate) struct History<'a> {
    pub engine: &'a Engine,
    pub room: &'a Resident,
}

impl History<'_> {
    pub async fn client(&self) -> Result<Client, RoomError> {
        Ok(self.engine.database.get().await?)
    }

    /// Those of the events with these ids that are stored.
    pub async fn list_entries(
        &self,
        ids: &[OwnedEventId],
    ) -> Result<HashMap<OwnedEventId, Entry>, RoomError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        let client = self.client().await?;
        let found = events::list_events_by_id(&client, self.room.nid.0, &ids).await?;
        found.iter().map(|event| self.entry(event)).collect()
    }

    /// The events with these ids and their auth chains.
    pub async fn list_auth_chain(&self, ids: &[&EventId]) -> Result<HashMap<OwnedEventId, Entry>, RoomError> {
        let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        let client = self.client().await?;
        let found = event_graph::list_auth_chain(&client, self.room.nid.0, &ids).await?;
        found.iter().map(|event| self.entry(event)).collect()
    }

    /// The events with these numbers.
    pub async fn list_by_nid(&self, nids: &[i64]) -> Result<BTreeMap<i64, Known>, RoomError> {
        if nids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let client = self.client().await?;
        let found = events::list_events_by_nid(&client, self.room.nid.0, nids).await?;
        let mut known = BTreeMap::new();
        for event in &found {
            known.insert(event.event_nid, self.entry(event)?.1.event);
        }
        match nids.iter().find(|nid| !known.contains_key(*nid)) {
            Some(nid) => Err(StorageError::Inconsistent(format!("event {nid} of a state is gone")).into()),
            None => Ok(known),
        }
    }

    fn entry(&self, event: &StoredEvent) -> Result<(OwnedEventId, Entry), RoomError> {
        let pdu = stored(&self.room.room_id, self.room.rules, event)?;
        let entry = Entry {
            pos: event.pos,
            flags: event.flags,
            stored_at: StoredAt::of(event),
            // History that was fetched later was none.
            was_only_head: event.heads.is_none() && event.pos.is_some_and(|pos| pos > 0),
            event: Known { pdu, nid: EventNid(event.event_nid) },
        };
        Ok((entry.event.event_id().clone(), entry))
    }
}
