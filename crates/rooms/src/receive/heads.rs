//! The forward extremities and the current state after an event.

use std::collections::{BTreeSet, HashSet};

use myelin_storage::events::flags;
use ruma::OwnedEventId;

use crate::{
    EventRow, RoomError, StateChange,
    history::{Difference, Entry, History, Known, list_states_after, merge},
    stream::StateNumbers,
};

/// Events that are passed on the way to the forward extremities behind rejected and soft-failed ones.
const MAX_PASSED: usize = 200;

/// What an event makes of the forward extremities.
pub(crate) struct NewHeads {
    /// Their ids, unless they are just the event.
    pub ids: Option<Vec<OwnedEventId>>,
    /// The new current state, told by how it differs from the old one.
    pub state: Difference,
}

/// The forward extremities and their state after an event that was accepted with the state `before` it. `entries` are
/// its `prev_events`, unless memory knew that the state before it is the current one.
pub(crate) async fn after(
    history: History<'_>,
    event: &Known,
    before: &Difference,
    entries: &[Entry],
) -> Result<NewHeads, RoomError> {
    let room = history.room;
    let passed = passed(history, event, entries).await?;
    let mut kept: Vec<Known> =
        room.heads.iter().filter(|head| !passed.contains(head.event_id())).cloned().collect();
    // An event that others came after already is no extremity.
    let is_head = !room.gaps.contains(event.event_id());
    if kept.is_empty() {
        return Ok(only(history, event, before));
    }
    let mut states: Vec<Difference> = Vec::with_capacity(kept.len() + 1);
    let is_current = |head: &Known| {
        room.recent.get(head.event_id()).and_then(|recent| recent.state_after) == Some(room.state_version)
    };
    let (known, unknown): (Vec<&Known>, Vec<&Known>) = kept.iter().partition(|head| is_current(head));
    if !known.is_empty() {
        states.push(Difference::default());
    }
    if !unknown.is_empty() {
        let quiet = room.latest.clone();
        if let Some(latest) = quiet {
            latest.committed().await?;
        }
        let ids: Vec<OwnedEventId> = unknown.iter().map(|head| head.event_id().clone()).collect();
        let entries = history.list_entries(&ids).await?;
        let entries: Vec<&Entry> = entries.values().collect();
        states.extend(list_states_after(history, &entries).await?.into_iter().map(|state| state.difference));
    }
    if is_head {
        states.push(only(history, event, before).state);
        kept.push(event.clone());
    }
    let state = merge(history, &states).await?;
    Ok(NewHeads { ids: Some(kept.iter().map(|head| head.event_id().clone()).collect()), state })
}

/// The events just before this one: its `prev_events`, and those before them where they are no extremities themselves
/// since they were rejected or soft-failed.
async fn passed(
    history: History<'_>,
    event: &Known,
    entries: &[Entry],
) -> Result<HashSet<OwnedEventId>, RoomError> {
    let room = history.room;
    let mut passed: HashSet<OwnedEventId> = event.pdu.prev_events().iter().cloned().collect();
    let mut to_visit: Vec<OwnedEventId> = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.is_accepted()) {
        to_visit.extend(entry.event.pdu.prev_events().iter().cloned());
    }
    let refused = flags::REJECTED | flags::SOFT_FAILED;
    for recent in event.pdu.prev_events().iter().filter_map(|id| room.recent.get(id)) {
        if recent.flags & refused != 0 {
            to_visit.extend(recent.pdu.prev_events().iter().cloned());
        }
    }
    while !to_visit.is_empty() && passed.len() < MAX_PASSED {
        to_visit.retain(|id| !passed.contains(id));
        let found = history.list_entries(&to_visit).await?;
        passed.extend(to_visit.drain(..));
        for entry in found.values().filter(|entry| !entry.is_accepted()) {
            to_visit.extend(entry.event.pdu.prev_events().iter().cloned());
        }
    }
    Ok(passed)
}

/// The event alone is what the room ends with.
pub(crate) fn only(history: History<'_>, event: &Known, before: &Difference) -> NewHeads {
    let mut state = before.clone();
    state.apply(&history.room.state, event);
    NewHeads { ids: None, state }
}

/// Says in a row what becomes of the forward extremities and the current state.
pub(crate) async fn apply(
    history: History<'_>,
    row: &mut EventRow,
    moved: NewHeads,
) -> Result<(), RoomError> {
    row.state_changes = state_changes(history, &moved.state).await?;
    let event_id = row.pdu.event_id();
    let is_own =
        |change: &&StateChange| change.event.as_ref().is_some_and(|event| event.event_id() == event_id);
    let own = row.state_changes.iter().filter(is_own).count();
    row.writing.flags |= if own > 0 { flags::CURRENT_STATE } else { 0 };
    row.writing.flags |= if row.state_changes.len() > own { flags::OTHER_STATE } else { 0 };
    row.writing.heads = moved.ids;
    Ok(())
}

/// The changes that make the current state into this one.
async fn state_changes(history: History<'_>, state: &Difference) -> Result<Vec<StateChange>, RoomError> {
    let strings: BTreeSet<String> = state
        .iter()
        .flat_map(|(key, value)| {
            let sender = value.map(|known| known.pdu.sender().to_string()).unwrap_or_default();
            [key.0.to_string(), key.1.clone(), sender]
        })
        .collect();
    let strings: Vec<&str> = strings.iter().map(String::as_str).collect();
    let sids = history.engine.numbers.all_strings(&strings).await?;
    let sid = |text: &str| strings.binary_search(&text).map(|index| sids[index]).unwrap_or_default();
    let change = |(key, value): (&crate::history::Key, Option<&Known>)| {
        let replaced = history.room.pdu(&key.0, &key.1).cloned();
        let numbers = StateNumbers {
            nid: value.map(|known| known.nid).unwrap_or_default(),
            type_sid: sid(&key.0.to_string()),
            key_sid: sid(&key.1),
            sender_sid: value.map(|known| sid(known.pdu.sender().as_str())).unwrap_or_default(),
        };
        let mut change =
            StateChange::new(key.0.clone(), &key.1, value.map(|known| known.pdu.clone()), replaced);
        change.numbers = numbers;
        change
    };
    Ok(state.iter().map(change).collect())
}
