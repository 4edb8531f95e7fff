//! [State resolution](https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution): one state out of
//! several. ruma's for room versions 2 to 12, our own for room version 1.
//!
//! The functions here never wait: load the events first, then resolve.

use std::sync::Arc;

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::StateResolutionVersion,
    state_res::{self, utils::event_id_set::EventIdSet},
};

use crate::{Pdu, Rules};

mod auth_chain;
mod v1;

pub use self::auth_chain::{auth_chain, conflicted_state_subgraph};

/// The state of a room by event type and state key: ruma's type, so that states go into its algorithm as they are.
///
/// The room engine keeps states interned and only makes these maps where histories fork. `T` is the event's id here,
/// and its [`Pdu`] where a state was loaded.
pub type StateMap<T> = state_res::StateMap<T>;

/// A set of event ids.
pub type EventIds = EventIdSet<OwnedEventId>;

/// Why states can't be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The events that were loaded are not enough, or not what they should be.
    #[error(transparent)]
    StateRes(#[from] state_res::Error),
}

/// Resolves states of one room, finding out about auth chains by itself.
///
/// `fetch` gives the events that the caller has loaded: those of the states and their auth chains. For states whose
/// chains the caller knows by other means, [`resolve_with`] needs fewer of them.
///
/// Events that are not found are left out as if they didn't exist. The order of `states` doesn't matter, and a single
/// state (or several that are the same) is its own resolution.
///
/// # Errors
///
/// See [`ResolveError`].
pub fn resolve(
    rules: Rules,
    states: &[StateMap<OwnedEventId>],
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    let needs_chains = matches!(rules.state_res, StateResolutionVersion::V2(_)) && !are_equal(states);
    let chains = if needs_chains { auth_chains(states, &fetch) } else { Vec::new() };
    resolve_with(rules, states, chains, &fetch, |conflicted| conflicted_state_subgraph(conflicted, &fetch))
}

/// Resolves states of one room.
///
/// - `auth_chains`: the full auth chain of each state, in the order of `states`. What is in all of them may be left out
///   of all of them. Not used in room version 1.
/// - `fetch`: gives the events that have been loaded: the conflicted events, those in some but not all auth chains,
///   the subgraph, and of all these their `auth_events`; besides the power levels, join rules and memberships in the
///   states that authorize conflicted events.
/// - `subgraph`: the [`conflicted_state_subgraph`], asked for in room version 12 only.
///
/// # Errors
///
/// See [`ResolveError`].
pub fn resolve_with(
    rules: Rules,
    states: &[StateMap<OwnedEventId>],
    auth_chains: Vec<EventIds>,
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
    subgraph: impl Fn(&StateMap<Vec<OwnedEventId>>) -> EventIds,
) -> Result<StateMap<OwnedEventId>, ResolveError> {
    if are_equal(states) {
        return Ok(states.first().cloned().unwrap_or_default());
    }
    match &rules.state_res {
        StateResolutionVersion::V2(v2_rules) => {
            let subgraph = |conflicted: &StateMap<Vec<OwnedEventId>>| Some(subgraph(conflicted));
            Ok(state_res::resolve(&rules.authorization, v2_rules, states, auth_chains, &fetch, subgraph)?)
        }
        _ => Ok(v1::resolve(states, fetch)),
    }
}

fn are_equal(states: &[StateMap<OwnedEventId>]) -> bool {
    states.windows(2).all(|pair| pair[0] == pair[1])
}

/// What the auth chains of the states have beyond the events that all of them share.
fn auth_chains(
    states: &[StateMap<OwnedEventId>],
    fetch: &impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Vec<EventIds> {
    let is_shared = |key: &(StateEventType, String), id: &OwnedEventId| {
        states.iter().all(|state| state.get(key) == Some(id))
    };
    let of_all = states.first().into_iter().flatten().filter(|(key, id)| is_shared(key, id));
    let shared = auth_chain(of_all.map(|(_, id)| id.clone()), fetch);
    let of_one = |state: &StateMap<OwnedEventId>| {
        let differing = state.iter().filter(|(key, id)| !is_shared(key, id));
        let chain = auth_chain(differing.map(|(_, id)| id.clone()), fetch);
        chain.iter().filter(|id| !shared.contains(id)).cloned().collect()
    };
    states.iter().map(of_one).collect()
}

#[cfg(test)]
mod tests;
