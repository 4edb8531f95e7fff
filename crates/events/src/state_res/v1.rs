//! The [state resolution of room version 1](https://spec.matrix.org/v1.19/rooms/v1/#state-resolution), which ruma
//! doesn't have.
//!
//! Where the specification leaves something open we do what the servers in these rooms do, or the rooms would fall
//! apart: conflicts of one state key are resolved apart from those of other keys of the same type, and if none of the
//! candidates for other state passes the rules, the last one is taken.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use ruma::{EventId, OwnedEventId, events::StateEventType};
use sha1::{Digest as _, Sha1};

use super::StateMap;
use crate::{Pdu, auth::check_against_state};

type Key = (StateEventType, String);

/// The types that authorize other events, in the order in which their conflicts are resolved.
const AUTH_TYPES: [StateEventType; 3] =
    [StateEventType::RoomPowerLevels, StateEventType::RoomJoinRules, StateEventType::RoomMember];

pub(super) fn resolve(
    states: &[StateMap<OwnedEventId>],
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> StateMap<OwnedEventId> {
    let (mut resolved, mut conflicts) = split_conflicts(states, &fetch);
    for event_type in AUTH_TYPES {
        // Each conflict is resolved by the state before this pass, so that their order doesn't matter.
        let (of_type, others): (BTreeMap<_, _>, _) =
            conflicts.into_iter().partition(|(key, _)| key.0 == event_type);
        conflicts = others;
        let winners: Vec<_> = of_type
            .into_iter()
            .map(|(key, candidates)| (key, resolve_auth_conflict(candidates, &resolved, &fetch)))
            .collect();
        resolved.extend(winners);
    }
    let winners: Vec<_> = conflicts
        .into_iter()
        .map(|(key, candidates)| (key, resolve_other_conflict(candidates, &resolved, &fetch)))
        .collect();
    resolved.extend(winners);
    resolved
}

/// The union of the states without the conflicting keys, and the events of each conflicting key, in the order of the
/// specification: ascending depth, then descending SHA-1 of the id.
///
/// Unlike in later room versions, a key that some states lack altogether is no conflict.
fn split_conflicts(
    states: &[StateMap<OwnedEventId>],
    fetch: &impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> (StateMap<OwnedEventId>, BTreeMap<Key, Vec<Arc<Pdu>>>) {
    let mut by_key: BTreeMap<&Key, Vec<&OwnedEventId>> = BTreeMap::new();
    for (key, event_id) in states.iter().flatten() {
        let ids = by_key.entry(key).or_default();
        if !ids.contains(&event_id) {
            ids.push(event_id);
        }
    }
    let mut resolved = StateMap::new();
    let mut conflicts = BTreeMap::new();
    for (key, ids) in by_key {
        if let [event_id] = ids[..] {
            resolved.insert(key.clone(), event_id.clone());
            continue;
        }
        let mut candidates: Vec<_> = ids.iter().filter_map(|id| fetch(id)).collect();
        candidates.sort_by_cached_key(|event| {
            (event.depth(), Reverse(<[u8; 20]>::from(Sha1::digest(event.event_id().as_bytes()))))
        });
        if !candidates.is_empty() {
            conflicts.insert(key.clone(), candidates);
        }
    }
    (resolved, conflicts)
}

/// The last of the candidates that each was allowed with the one before it in the state.
fn resolve_auth_conflict(
    candidates: Vec<Arc<Pdu>>,
    resolved: &StateMap<OwnedEventId>,
    fetch: &impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> OwnedEventId {
    let mut candidates = candidates.into_iter();
    let mut winner = candidates.next().expect("a conflict has candidates");
    for candidate in candidates {
        let state = |event_type: &StateEventType, state_key: &str| {
            if winner.is_state_of(&event_type.to_string().into(), state_key) {
                return Some(winner.clone());
            }
            fetch(resolved.get(&(event_type.clone(), state_key.to_owned()))?)
        };
        if check_against_state(&candidate, state).is_err() {
            break;
        }
        winner = candidate;
    }
    winner.event_id().clone()
}

/// The first of the candidates, from the deepest on, that is allowed.
fn resolve_other_conflict(
    candidates: Vec<Arc<Pdu>>,
    resolved: &StateMap<OwnedEventId>,
    fetch: &impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> OwnedEventId {
    let state = |event_type: &StateEventType, state_key: &str| {
        fetch(resolved.get(&(event_type.clone(), state_key.to_owned()))?)
    };
    let allowed = candidates.iter().rev().find(|candidate| check_against_state(candidate, state).is_ok());
    let winner = allowed.or_else(|| candidates.first()).expect("a conflict has candidates");
    winner.event_id().clone()
}
