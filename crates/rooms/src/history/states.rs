//! The states behind events, from how they are stored.

use std::collections::{BTreeSet, HashMap};

use myelin_storage::{
    StorageError,
    events::{StoredEvent, flags},
    state::{self, Delta},
};
use myelin_types::StreamId;

use super::{Difference, Entry, History, Key};
use crate::RoomError;

/// Where a state is told from in the database: the mainline after a position, and a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoredAt {
    pub base: StreamId,
    pub delta: Option<i64>,
}

impl StoredAt {
    /// Where the state before an event is told from; `None` for outliers.
    pub fn of(event: &StoredEvent) -> Option<Self> {
        let base = event.state_base.or(event.pos.map(|pos| pos - 1))?;
        (event.flags & flags::OUTLIER == 0).then_some(Self { base: StreamId(base), delta: event.state_delta })
    }
}

/// A state of the room's history.
#[derive(Clone, Debug, Default)]
pub(crate) struct StateAt {
    pub difference: Difference,
    /// Where it is told from already, if it is.
    pub stored_at: Option<StoredAt>,
}

/// Where the state after an event is told from, and whether the event itself has to be added to that.
fn stored_after(entry: &Entry) -> Result<(StoredAt, bool), StorageError> {
    let before = entry.stored_at.ok_or_else(|| {
        StorageError::Inconsistent(format!("the state at {} is not known", entry.event.event_id()))
    })?;
    let changes = entry.event.pdu.is_state() && entry.flags & flags::REJECTED == 0;
    if !changes {
        return Ok((before, false));
    }
    // The state after the only forward extremity is the current state of then.
    if let Some(pos) = entry.pos.filter(|_| entry.was_only_head) {
        return Ok((StoredAt { base: StreamId(pos), delta: None }, false));
    }
    // The mainline took the event in, and only the event: then it tells the state too.
    let is_mainline = entry.flags & (flags::CURRENT_STATE | flags::OTHER_STATE) == flags::CURRENT_STATE;
    match entry.pos {
        Some(pos) if is_mainline && before == (StoredAt { base: StreamId(pos - 1), delta: None }) => {
            Ok((StoredAt { base: StreamId(pos), delta: None }, false))
        }
        _ => Ok((before, true)),
    }
}

/// The states after some events whose state is known, in their order.
pub(crate) async fn list_states_after(
    history: History<'_>,
    entries: &[&Entry],
) -> Result<Vec<StateAt>, RoomError> {
    let mut places = Vec::with_capacity(entries.len());
    for entry in entries {
        places.push(stored_after(entry)?);
    }
    let wanted: BTreeSet<(i64, Option<i64>)> =
        places.iter().map(|(place, _)| (place.base.0, place.delta)).collect();
    let mut read = HashMap::new();
    for (base, delta) in wanted {
        let place = StoredAt { base: StreamId(base), delta };
        read.insert(place, read_difference(history, place).await?);
    }
    let state = |(entry, (place, adds_itself)): (&&Entry, &(StoredAt, bool))| {
        let mut difference = read.get(place).cloned().unwrap_or_default();
        if *adds_itself {
            difference.apply(&history.room.state, &entry.event);
        }
        StateAt { difference, stored_at: (!adds_itself).then_some(*place) }
    };
    Ok(entries.iter().zip(&places).map(state).collect())
}

async fn read_difference(history: History<'_>, place: StoredAt) -> Result<Difference, RoomError> {
    let client = history.client().await?;
    let room_nid = history.room.nid.0;
    let past = state::list_differences(&client, room_nid, place.base).await?;
    let mut held: HashMap<(i64, i64), Option<i64>> =
        past.iter().map(|past| ((past.type_sid, past.key_sid), past.event_nid)).collect();
    if let Some(number) = place.delta {
        let deltas = state::list_deltas(&client, room_nid, &[number]).await?;
        let missing = || StorageError::Inconsistent(format!("the delta {number} is gone"));
        let delta: &Delta = deltas.get(&number).ok_or_else(missing)?;
        for row in delta.iter() {
            held.insert((row.type_sid, row.key_sid), (row.event_nid != 0).then_some(row.event_nid));
        }
    }
    drop(client);
    let held: Vec<((i64, i64), Option<i64>)> = held.into_iter().collect();
    let sids: Vec<i64> = held.iter().flat_map(|((type_sid, key_sid), _)| [*type_sid, *key_sid]).collect();
    let words = history.engine.numbers.resolve_strings(&sids).await?;
    let nids: Vec<i64> = held.iter().filter_map(|(_, nid)| *nid).collect();
    let events = history.list_by_nid(&nids).await?;
    let mut difference = Difference::default();
    for ((_, nid), words) in held.iter().zip(words.chunks_exact(2)) {
        let key: Key = ((&*words[0]).into(), words[1].to_string());
        difference.set(&history.room.state, key, nid.and_then(|nid| events.get(&nid).cloned()));
    }
    Ok(difference)
}
