//! Walking the graph of `auth_events`.

use std::{collections::HashMap, sync::Arc};

use ruma::{EventId, OwnedEventId};

use super::{EventIds, StateMap};
use crate::Pdu;

/// The [auth chain](https://spec.matrix.org/v1.19/rooms/v2/#definitions) of some events: their auth events, those of
/// these, and so on; not the events themselves, unless one is in the chain of another.
///
/// Events that `fetch` doesn't find are in the chain, but lead no further.
pub fn auth_chain(
    events: impl IntoIterator<Item = OwnedEventId>,
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> EventIds {
    let mut chain = EventIds::new();
    let mut to_visit: Vec<OwnedEventId> = events.into_iter().collect();
    while let Some(event_id) = to_visit.pop() {
        let Some(event) = fetch(&event_id) else { continue };
        for auth_event in event.auth_events() {
            if chain.insert(auth_event.clone()) {
                to_visit.push(auth_event.clone());
            }
        }
    }
    chain
}

/// The [conflicted state subgraph](https://spec.matrix.org/v1.19/rooms/v12/#definitions) of room version 12: all
/// events on paths along `auth_events` from one conflicted event to another, both ends included.
pub fn conflicted_state_subgraph(
    conflicted: &StateMap<Vec<OwnedEventId>>,
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> EventIds {
    let conflicted: EventIds = conflicted.values().flatten().cloned().collect();
    // Down from the conflicted events, remembering from where each event was reached…
    let mut reached_from: HashMap<OwnedEventId, Vec<OwnedEventId>> =
        conflicted.iter().map(|id| (id.clone(), Vec::new())).collect();
    let mut to_visit: Vec<OwnedEventId> = conflicted.iter().cloned().collect();
    while let Some(event_id) = to_visit.pop() {
        let Some(event) = fetch(&event_id) else { continue };
        for auth_event in event.auth_events() {
            let is_new = !reached_from.contains_key(auth_event);
            reached_from.entry(auth_event.clone()).or_default().push(event_id.clone());
            if is_new {
                to_visit.push(auth_event.clone());
            }
        }
    }
    // … and from the conflicted events back up the same ways: what is met lies between two of them.
    let mut subgraph = conflicted.clone();
    let mut to_visit: Vec<OwnedEventId> = conflicted.iter().cloned().collect();
    while let Some(event_id) = to_visit.pop() {
        for above in reached_from.get(&event_id).into_iter().flatten() {
            if subgraph.insert(above.clone()) {
                to_visit.push(above.clone());
            }
        }
    }
    subgraph
}
