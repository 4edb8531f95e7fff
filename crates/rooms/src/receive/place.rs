//! Giving an event of another server its place in the room, within a turn.

use std::{collections::HashMap, sync::Arc};

use myelin_events::Pdu;
use myelin_storage::{
    events::flags,
    state::{Delta, StateRow},
};
use ruma::{EventId, OwnedEventId};

use super::{
    Received,
    authorize::authorize,
    fetch::GivenState,
    heads,
    outliers::{authorizing, strings_of},
    redactions,
};
use crate::{
    EventNid, EventRow, RoomError,
    history::{Difference, Entry, History, Known, StateAt, list_states_after, merge},
    resident::{Pending, Resident, flags_of},
    rooms::InRoom,
    stream::{Base, DeltaRef, StateBefore, Writing},
};

/// How far an event came.
pub(super) enum Placing {
    /// It has its place, once the commit is over.
    Done(Received, Option<Pending>),
    /// Some of its auth events are not here.
    NeedsAuthEvents,
    /// Some of its `prev_events` are not here, nor is the state before it.
    NeedsState,
}

/// What is known about an event before it is judged.
struct Arrival {
    pdu: Pdu,
    /// Its number, if it is stored as an outlier.
    outlier: Option<EventNid>,
    /// The `prev_events` that are not here.
    missing: Vec<OwnedEventId>,
    /// The `prev_events` that are here, where memory alone could not tell the state.
    before: Vec<Entry>,
    /// Whether the state before it is the current state.
    is_at_current_state: bool,
    auth_events: HashMap<OwnedEventId, Arc<Pdu>>,
}

impl InRoom {
    /// Judges and writes an event. `given` is the state before it, if that had to be asked for.
    pub(super) async fn place(
        &mut self,
        pdu: &Pdu,
        given: Option<&GivenState>,
    ) -> Result<Placing, RoomError> {
        if self.is_here(pdu.event_id()) {
            return Ok(Placing::Done(Received::Known, self.latest.clone()));
        }
        let engine = self.engine().clone();
        // Events under way are found in memory only while they are few.
        if !self.is_settled_in_memory(pdu) || given.is_some() {
            self.quiet().await?;
        }
        let history = History { engine: &engine, room: self };
        let Some(arrival) = Arrival::look_up(history, pdu).await? else {
            return Ok(Placing::Done(Received::Known, self.latest.clone()));
        };
        if !arrival.has_auth_events() {
            return Ok(Placing::NeedsAuthEvents);
        }
        if !arrival.missing.is_empty() && given.is_none() {
            return Ok(Placing::NeedsState);
        }
        let (mut row, outcome) = arrival.judge(history, given).await?;
        if row.timeline {
            self.complete(&engine, &mut row).await?;
        }
        let pending = self.hand_over(row)?;
        Ok(Placing::Done(outcome, Some(pending)))
    }
}

impl Resident {
    /// Whether an event is here with its state, as far as memory knows.
    pub(crate) fn is_here(&self, event_id: &EventId) -> bool {
        self.recent.get(event_id).is_some_and(|recent| recent.flags & flags::OUTLIER == 0)
            || self.heads.iter().any(|head| head.event_id() == event_id)
    }

    /// Whether the state before an event is the current state, and memory knows it.
    fn is_settled_in_memory(&self, pdu: &Pdu) -> bool {
        let is_current = |id: &OwnedEventId| {
            let head = self.heads.iter().find(|head| head.event_id() == id);
            let after = match head {
                // The state after the only forward extremity is the current state.
                Some(_) if self.heads.len() == 1 => Some(self.state_version),
                _ => self.recent.get(id).and_then(|recent| recent.state_after),
            };
            after == Some(self.state_version)
        };
        let is_behind_all = self.heads.iter().all(|head| pdu.prev_events().contains(head.event_id()))
            && pdu.prev_events().len() == self.heads.len();
        !pdu.prev_events().is_empty() && (is_behind_all || pdu.prev_events().iter().all(is_current))
    }
}

impl Arrival {
    /// `None` if the event is here already.
    async fn look_up(history: History<'_>, pdu: &Pdu) -> Result<Option<Self>, RoomError> {
        let room = history.room;
        let is_at_current_state = room.is_settled_in_memory(pdu);
        let mut auth_events: HashMap<OwnedEventId, Arc<Pdu>> = HashMap::new();
        let under_way = pdu.auth_events().iter().filter_map(|id| Some(room.recent.get(id)?.pdu.clone()));
        for held in room.authorizing(pdu).into_iter().chain(under_way) {
            auth_events.insert(held.event_id().clone(), held);
        }
        let mut ids = vec![pdu.event_id().clone()];
        if !is_at_current_state {
            ids.extend(pdu.prev_events().iter().cloned());
        }
        ids.extend(authorizing(pdu).into_iter().filter(|id| !auth_events.contains_key(id)));
        let mut entries = history.list_entries(&ids).await?;
        let own = entries.remove(pdu.event_id());
        if own.as_ref().is_some_and(Entry::has_state) {
            return Ok(None);
        }
        for (event_id, entry) in &entries {
            auth_events.insert(event_id.clone(), entry.event.pdu.clone());
        }
        let (mut missing, mut before) = (Vec::new(), Vec::new());
        if !is_at_current_state {
            for event_id in pdu.prev_events() {
                match entries.get(event_id).filter(|entry| entry.has_state()) {
                    Some(entry) => before.push(entry.clone()),
                    None => missing.push(event_id.clone()),
                }
            }
        }
        let outlier = own.map(|entry| entry.event.nid);
        let (room_id, event_id) = (pdu.room_id().clone(), pdu.event_id().clone());
        let pdu = Pdu::from_stored(room_id, event_id, pdu.json(), room.rules)?;
        Ok(Some(Self { pdu, outlier, missing, before, is_at_current_state, auth_events }))
    }

    fn has_auth_events(&self) -> bool {
        authorizing(&self.pdu).iter().all(|id| self.auth_events.contains_key(id))
    }

    /// Authorizes the event, and makes of it the row to be written.
    async fn judge(
        self,
        history: History<'_>,
        given: Option<&GivenState>,
    ) -> Result<(EventRow, Received), RoomError> {
        let state = self.state_before(history, given).await?;
        let fetch = |event_id: &EventId| self.auth_events.get(event_id).cloned();
        let outcome = authorize(history.room, &self.pdu, &state.difference, fetch);
        let writing = self.writing(history, &state, &outcome).await?;
        let Self { pdu, outlier, before, .. } = self;
        let nid = match outlier {
            Some(nid) => nid,
            None => history.engine.numbers.event_nid().await?,
        };
        let pdu = Arc::new(pdu.with_rejected(matches!(outcome, Received::Rejected(_))));
        let mut row = EventRow::new(history.room.nid, nid, pdu);
        row.timeline = outcome == Received::Accepted;
        row.writing = writing;
        if row.timeline {
            redactions::be_redacted(history, &mut row).await?;
            let event = Known { pdu: row.pdu.clone(), nid };
            let moved = heads::after(history, &event, &state.difference, &before).await?;
            heads::apply(history, &mut row, moved).await?;
            redactions::redact(history, &mut row).await?;
        }
        Ok((row, outcome))
    }

    /// What is written beside the event, but for what it does to the room.
    async fn writing(
        &self,
        history: History<'_>,
        state: &StateAt,
        outcome: &Received,
    ) -> Result<Writing, RoomError> {
        let strings = strings_of(&self.pdu);
        let [sender_sid, type_sid, key_sid] =
            history.engine.numbers.strings([&strings[0], &strings[1], &strings[2]]).await?;
        let judged = match outcome {
            Received::Rejected(_) => flags::REJECTED,
            Received::SoftFailed => flags::SOFT_FAILED,
            Received::Accepted | Received::Known => 0,
        };
        let before = match state.stored_at {
            Some(stored_at) if !state.difference.is_empty() => {
                let delta = stored_at.delta.map(DeltaRef::Stored);
                StateBefore::Mainline { base: Base::At(stored_at.base), delta }
            }
            _ => stored_before(history, &state.difference).await?,
        };
        Ok(Writing {
            sender_sid,
            type_sid,
            key_sid: self.pdu.state_key().map(|_| key_sid),
            flags: flags_of(&self.pdu, history.engine) | judged,
            before,
            is_promoted: self.outlier.is_some(),
            missing_prevs: self.missing.clone(),
            closes_gap: history.room.gaps.contains(self.pdu.event_id()),
            ..Writing::default()
        })
    }

    async fn state_before(
        &self,
        history: History<'_>,
        given: Option<&GivenState>,
    ) -> Result<StateAt, RoomError> {
        if self.is_at_current_state {
            return Ok(StateAt::default());
        }
        let entries: Vec<&Entry> = self.before.iter().collect();
        let mut states = list_states_after(history, &entries).await?;
        if let Some(given) = given {
            let difference = given_difference(history, given).await?;
            states.push(StateAt { difference, stored_at: None });
        }
        let Some(first) = states.first() else {
            // Without `prev_events` there is nothing before it.
            return Ok(StateAt { difference: nothing(history.room), stored_at: None });
        };
        if states.iter().all(|state| state.difference == first.difference) {
            return Ok(first.clone());
        }
        let differences: Vec<Difference> = states.into_iter().map(|state| state.difference).collect();
        Ok(StateAt { difference: merge(history, &differences).await?, stored_at: None })
    }
}

/// No state at all, told by how that differs from the current one.
pub(crate) fn nothing(room: &Resident) -> Difference {
    let mut difference = Difference::default();
    for (event_type, state_key, _) in room.state.iter() {
        difference.set(&room.state, (event_type.clone(), state_key.to_owned()), None);
    }
    difference
}

/// The state that another server told.
async fn given_difference(history: History<'_>, given: &GivenState) -> Result<Difference, RoomError> {
    let mut difference = nothing(history.room);
    for entry in history.list_entries(&given.0).await?.into_values() {
        if entry.flags & flags::REJECTED == 0 {
            difference.apply(&history.room.state, &entry.event);
        }
    }
    Ok(difference)
}

/// Where a new state is told from: the current state and a delta.
pub(crate) async fn stored_before(
    history: History<'_>,
    state: &Difference,
) -> Result<StateBefore, RoomError> {
    if state.is_empty() {
        return Ok(StateBefore::Current);
    }
    let keys: Vec<String> = state.keys().flat_map(|key| [key.0.to_string(), key.1.clone()]).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let sids = history.engine.numbers.all_strings(&keys).await?;
    let mut delta = Delta::default();
    for ((_, value), sids) in state.iter().zip(sids.chunks_exact(2)) {
        let event_nid = value.map_or(0, |known| known.nid.0);
        delta.push(StateRow { type_sid: sids[0], key_sid: sids[1], event_nid });
    }
    Ok(StateBefore::Mainline { base: Base::BeforeRow, delta: Some(DeltaRef::New(Arc::new(delta))) })
}
