//! States of rooms ([spec](https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room)).

use std::{collections::BTreeMap, sync::Arc};

use myelin_events::{ClientEvent, Pdu, Unsigned, member::membership_of};
use myelin_storage::{
    Client,
    room_reads::{self, StateEvent},
};
use ruma::{RoomId, events::room::member::MembershipState};

use super::{
    JsonArray, ReadError, Result, RoomInfo, RoomReader, Viewer,
    view::{StatePoint, View},
};
use crate::stream::stored;

/// The type of the events that say who is in a room.
pub(super) const MEMBER: &str = "m.room.member";
/// About what an entry takes beside its event and its text.
const ENTRY_BYTES: usize = 128;

/// An event of a room's state.
#[derive(Debug)]
pub(super) struct StateEntry {
    pub pdu: Arc<Pdu>,
    json: ClientEvent,
}

impl StateEntry {
    fn new(pdu: Arc<Pdu>) -> Self {
        Self { json: ClientEvent::new(&pdu), pdu }
    }

    pub fn membership(&self) -> MembershipState {
        membership_of(Some(&self.pdu))
    }

    /// Appends the event in the client format.
    pub fn write(&self, out: &mut String, now: u64) {
        let unsigned = Unsigned { age: Some(Unsigned::age_of(&self.pdu, now)), ..Unsigned::default() };
        self.json.write(out, Some(self.pdu.room_id()), &unsigned);
    }
}

/// The state of a room at one time.
#[derive(Debug, Default)]
pub(super) struct RoomState {
    by_type: BTreeMap<Box<str>, BTreeMap<Box<str>, StateEntry>>,
    /// Where the newest of it began to hold.
    newest: i64,
    size_bytes: usize,
}

impl RoomState {
    fn new(room: &RoomInfo, rows: &[StateEvent]) -> Result<Self> {
        let mut state = Self { newest: i64::MIN, ..Self::default() };
        for row in rows {
            let pdu = stored(&room.room_id, room.rules, &row.event)?;
            let Some(state_key) = pdu.state_key().map(Box::from) else { continue };
            let event_type = pdu.event_type().to_string();
            let entry = StateEntry::new(pdu);
            state.newest = state.newest.max(row.since);
            state.size_bytes += entry.pdu.size_bytes() + entry.json.size_bytes() + ENTRY_BYTES;
            match state.by_type.get_mut(event_type.as_str()) {
                Some(of_type) => _ = of_type.insert(state_key, entry),
                None => _ = state.by_type.insert(event_type.into(), BTreeMap::from([(state_key, entry)])),
            }
        }
        Ok(state)
    }

    pub fn get(&self, event_type: &str, state_key: &str) -> Option<&StateEntry> {
        self.by_type.get(event_type)?.get(state_key)
    }

    pub fn of_type(&self, event_type: &str) -> impl Iterator<Item = (&str, &StateEntry)> {
        self.by_type.get(event_type).into_iter().flatten().map(|(state_key, entry)| (&**state_key, entry))
    }

    fn iter(&self) -> impl Iterator<Item = &StateEntry> {
        self.by_type.values().flat_map(BTreeMap::values)
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

impl RoomReader {
    /// The state of a room that a user may see: the current one of members, and of those who left the one when they
    /// did.
    ///
    /// # Errors
    /// [`ReadError::Forbidden`] if the user may see none.
    pub async fn state(&self, viewer: &Viewer, room_id: &RoomId) -> Result<JsonArray> {
        let client = self.client().await?;
        let view = self.view(&client, viewer, room_id).await?;
        let state = self.state_of_view(&client, &view).await?;
        Ok(self.write_state(&state, |_| true))
    }

    /// One event of that state: its content, or all of it, as JSON.
    ///
    /// # Errors
    /// [`ReadError::Forbidden`] if the user may see no state, [`ReadError::NotFound`] if it has no such event.
    pub async fn state_event(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        (event_type, state_key): (&str, &str),
        is_whole: bool,
    ) -> Result<String> {
        let client = self.client().await?;
        let view = self.view(&client, viewer, room_id).await?;
        let write = |entry: &StateEntry| match is_whole {
            false => entry.pdu.content().to_owned(),
            true => {
                let mut json = String::new();
                entry.write(&mut json, self.0.clock.now());
                json
            }
        };
        let point = view.state_point()?;
        let missing = ReadError::NotFound("State event not found");
        if let Some(state) = self.cached_state(&view, point) {
            return state.get(event_type, state_key).map(write).ok_or(missing);
        }
        let at = match point {
            StatePoint::Current => i64::MAX,
            StatePoint::At(at) => at,
        };
        let row = room_reads::get_state_event_at(&client, view.room.nid.0, at, event_type, state_key).await?;
        let row = row.ok_or(missing)?;
        Ok(write(&StateEntry::new(stored(&view.room.room_id, view.room.rules, &row.event)?)))
    }

    fn cached_state(&self, view: &View, point: StatePoint) -> Option<Arc<RoomState>> {
        match point {
            StatePoint::Current => self.0.caches.state(view.room.nid),
            StatePoint::At(_) => None,
        }
    }

    /// The state that a user may see.
    pub(super) async fn state_of_view(&self, client: &Client, view: &View) -> Result<Arc<RoomState>> {
        match view.state_point()? {
            StatePoint::Current => self.current_state(client, &view.room).await,
            StatePoint::At(at) => self.state_after(client, &view.room, at).await,
        }
    }

    /// A room's current state, from memory if it has not changed.
    pub(super) async fn current_state(&self, client: &Client, room: &RoomInfo) -> Result<Arc<RoomState>> {
        if let Some(state) = self.0.caches.state(room.nid) {
            return Ok(state);
        }
        let reading = self.0.caches.begin(room.nid);
        let rows = room_reads::list_current_state(client, room.nid.0).await?;
        let state = Arc::new(RoomState::new(room, &rows)?);
        self.0.caches.keep_state(room.nid, reading, state.clone());
        Ok(state)
    }

    /// A room's state after a place.
    pub(super) async fn state_after(
        &self,
        client: &Client,
        room: &RoomInfo,
        at: i64,
    ) -> Result<Arc<RoomState>> {
        if !room_reads::is_state_changed_after(client, room.nid.0, at).await? {
            let state = self.current_state(client, room).await?;
            // It may have changed between the two queries.
            if state.newest <= at {
                return Ok(state);
            }
        }
        let rows = room_reads::list_state_at(client, room.nid.0, at).await?;
        Ok(Arc::new(RoomState::new(room, &rows)?))
    }

    pub(super) fn write_state(
        &self,
        state: &RoomState,
        is_wanted: impl Fn(&StateEntry) -> bool,
    ) -> JsonArray {
        let now = self.0.clock.now();
        let mut events = JsonArray::with_capacity(state.size_bytes / 2);
        for entry in state.iter().filter(|entry| is_wanted(entry)) {
            events.push(|out| entry.write(out, now));
        }
        events
    }

    /// State events that were read for one answer only.
    pub(super) fn write_state_rows(
        &self,
        room: &RoomInfo,
        rows: &[StateEvent],
        is_wanted: impl Fn(&Pdu) -> bool,
    ) -> Result<JsonArray> {
        let now = self.0.clock.now();
        let mut events = JsonArray::default();
        for row in rows {
            let pdu = stored(&room.room_id, room.rules, &row.event)?;
            if is_wanted(&pdu) {
                events.push(|out| StateEntry::new(pdu).write(out, now));
            }
        }
        Ok(events)
    }
}
