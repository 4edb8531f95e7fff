//! Merging states where branches meet.
//!
//! State resolution looks at what is in conflict and at what authorizes that, so only this part of the states goes into
//! it: a conflict in a room of a hundred thousand costs what it costs in a small one, unless the auth chain of the
//! whole state has to be known.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use myelin_events::{
    Pdu, StateMap, auth,
    state_res::{EventIds, auth_chain, conflicted_state_subgraph, resolve_with},
};
use myelin_storage::StorageError;
use ruma::{EventId, OwnedEventId, events::StateEventType, room_version_rules::StateResolutionVersion};

use super::{Difference, History, Key, Known};
use crate::RoomError;

type Loaded = HashMap<OwnedEventId, Known>;

fn pdu_of(loaded: &Loaded) -> impl Fn(&EventId) -> Option<Arc<Pdu>> + '_ {
    |event_id| loaded.get(event_id).map(|known| known.pdu.clone())
}

/// The state that the states of several branches resolve to.
pub(crate) async fn merge(history: History<'_>, states: &[Difference]) -> Result<Difference, RoomError> {
    let mut distinct: Vec<&Difference> = Vec::new();
    for state in states {
        if !distinct.contains(&state) {
            distinct.push(state);
        }
    }
    if distinct.len() < 2 {
        return Ok(distinct.first().map(|state| (*state).clone()).unwrap_or_default());
    }
    let states: Vec<Difference> = distinct.into_iter().cloned().collect();
    Conflict::load(history, states).await?.resolve(history).await
}

/// States that are in conflict, and the events that it takes to resolve them.
struct Conflict {
    states: Vec<Difference>,
    /// The keys in which they differ.
    keys: BTreeSet<Key>,
    /// Keys in which they agree, and which may authorize what is in conflict.
    shared_keys: BTreeSet<Key>,
    loaded: Loaded,
    /// By state, the auth chain of what is in conflict.
    chains: Vec<EventIds>,
}

impl Conflict {
    async fn load(history: History<'_>, states: Vec<Difference>) -> Result<Self, RoomError> {
        let keys = Difference::conflicting_keys(&states);
        let mut conflict =
            Self { states, keys, shared_keys: BTreeSet::new(), loaded: Loaded::new(), chains: Vec::new() };
        conflict.load_chains(history, conflict.events_of(history, &conflict.keys)).await?;
        conflict.shared_keys = conflict.find_shared_keys(history);
        conflict.load_chains(history, conflict.events_of(history, &conflict.shared_keys)).await?;
        if matches!(history.room.rules.state_res, StateResolutionVersion::V2(_)) {
            conflict.find_auth_chains(history).await?;
        }
        Ok(conflict)
    }

    /// The events that hold some keys in any of the states.
    fn events_of(&self, history: History<'_>, keys: &BTreeSet<Key>) -> Vec<Known> {
        let held = |key: &Key| {
            let of_key = |state: &Difference| state.get(&history.room.state, &key.0, &key.1);
            self.states.iter().filter_map(of_key).collect::<Vec<_>>()
        };
        keys.iter().flat_map(held).collect()
    }

    async fn load_chains(&mut self, history: History<'_>, events: Vec<Known>) -> Result<(), RoomError> {
        let mut missing: BTreeSet<OwnedEventId> = BTreeSet::new();
        for event in &events {
            missing.extend(event.pdu.auth_events().iter().cloned());
            missing.extend(auth::create_event_id(&event.pdu));
        }
        for event in events {
            self.loaded.insert(event.event_id().clone(), event);
        }
        missing.retain(|event_id| !self.loaded.contains_key(event_id));
        if missing.is_empty() {
            return Ok(());
        }
        let ids: Vec<&EventId> = missing.iter().map(|id| &**id).collect();
        for (event_id, entry) in history.list_auth_chain(&ids).await? {
            self.loaded.entry(event_id).or_insert(entry.event);
        }
        Ok(())
    }

    /// What the algorithm may ask the agreed state for: the keys that authorize any of the events that may be in the
    /// full conflicted set, and those events' own keys.
    fn find_shared_keys(&self, history: History<'_>) -> BTreeSet<Key> {
        let mut keys: BTreeSet<Key> =
            [StateEventType::RoomCreate, StateEventType::RoomPowerLevels, StateEventType::RoomJoinRules]
                .map(|event_type| (event_type, String::new()))
                .into();
        for event in self.loaded.values() {
            let pdu = &event.pdu;
            let content = ruma::state_res::Event::content(&**pdu);
            let authorizing =
                auth::auth_keys(pdu.event_type(), pdu.sender(), pdu.state_key(), content, history.room.rules);
            keys.extend(authorizing.into_iter().flatten());
            keys.extend(pdu.state_map_key());
        }
        keys.retain(|key| !self.keys.contains(key));
        keys
    }

    /// The auth chains of what is in conflict, without what is in the auth chain of what is not.
    async fn find_auth_chains(&mut self, history: History<'_>) -> Result<(), RoomError> {
        let held = |state: &Difference, key: &Key| state.get(&history.room.state, &key.0, &key.1);
        let chain_of = |state: &Difference| {
            let ids = self.keys.iter().filter_map(|key| Some(held(state, key)?.event_id().clone()));
            auth_chain(ids, pdu_of(&self.loaded))
        };
        let mut chains: Vec<EventIds> = self.states.iter().map(chain_of).collect();
        let first = &self.states[0];
        let shared = self.shared_keys.iter().filter_map(|key| Some(held(first, key)?.event_id().clone()));
        let shared = auth_chain(shared, pdu_of(&self.loaded));
        let is_everywhere =
            |id: &OwnedEventId| shared.contains(id) || chains.iter().all(|chain| chain.contains(id));
        let some: BTreeSet<OwnedEventId> =
            chains.iter().flat_map(|chain| chain.iter()).filter(|id| !is_everywhere(id)).cloned().collect();
        if !some.is_empty() {
            let shared = self.whole_shared_chain(history, &some).await?;
            let counts = |id: &&OwnedEventId| some.contains(*id) && !shared.contains(*id);
            chains = chains.iter().map(|chain| chain.iter().filter(counts).cloned().collect()).collect();
        } else {
            chains = vec![EventIds::new(); chains.len()];
        }
        self.chains = chains;
        Ok(())
    }

    /// Those of `wanted` that are in the auth chain of all that the states agree in.
    async fn whole_shared_chain(
        &self,
        history: History<'_>,
        wanted: &BTreeSet<OwnedEventId>,
    ) -> Result<BTreeSet<OwnedEventId>, RoomError> {
        let first = &self.states[0];
        let current = history.room.state.iter().map(|(event_type, state_key, _)| (event_type, state_key));
        let differing = first.keys().map(|key| (&key.0, key.1.as_str()));
        let mut referenced: BTreeSet<OwnedEventId> = BTreeSet::new();
        for (event_type, state_key) in current.chain(differing) {
            let is_conflicting = self.keys.iter().any(|key| key.0 == *event_type && key.1 == state_key);
            if !is_conflicting && let Some(held) = first.get(&history.room.state, event_type, state_key) {
                referenced.extend(held.pdu.auth_events().iter().cloned());
            }
        }
        if wanted.iter().all(|id| referenced.contains(id)) {
            return Ok(wanted.clone());
        }
        let ids: Vec<&EventId> = referenced.iter().map(|id| &**id).collect();
        let mut chain: BTreeSet<OwnedEventId> = history.list_auth_chain(&ids).await?.into_keys().collect();
        chain.retain(|id| wanted.contains(id));
        Ok(chain)
    }

    async fn resolve(self, history: History<'_>) -> Result<Difference, RoomError> {
        let keys: BTreeSet<&Key> = self.keys.iter().chain(&self.shared_keys).collect();
        let map = |state: &Difference| -> StateMap<OwnedEventId> {
            let held = |key: &&Key| {
                let known = state.get(&history.room.state, &key.0, &key.1)?;
                Some(((*key).clone(), known.event_id().clone()))
            };
            keys.iter().filter_map(held).collect()
        };
        let maps: Vec<StateMap<OwnedEventId>> = self.states.iter().map(map).collect();
        let (rules, chains, loaded) = (history.room.rules, self.chains, Arc::new(self.loaded));
        let events = loaded.clone();
        let resolved = history
            .engine
            .heavy
            .run(move || {
                let fetch = pdu_of(&events);
                resolve_with(rules, &maps, chains, &fetch, |conflicted| {
                    conflicted_state_subgraph(conflicted, &fetch)
                })
            })
            .await?
            .map_err(|error| StorageError::Inconsistent(format!("states can't be resolved: {error}")))?;
        // What all agree in is as in any of them.
        let mut difference = self.states[0].clone();
        for key in keys {
            if !resolved.contains_key(key) {
                difference.set(&history.room.state, key.clone(), None);
            }
        }
        for (key, event_id) in &resolved {
            let known = loaded.get(event_id).cloned();
            difference.set(&history.room.state, key.clone(), known);
        }
        Ok(difference)
    }
}
