//! States by how they differ from the current one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use myelin_events::Pdu;
use ruma::events::StateEventType;

use super::Known;
use crate::state::CurrentState;

/// A key of a state.
pub(crate) type Key = (StateEventType, String);

/// A state of a room: the keys whose value is not that of the room's current state. `None` says that the key is absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Difference(BTreeMap<Key, Option<Known>>);

impl PartialEq for Difference {
    fn eq(&self, other: &Self) -> bool {
        let nids = |state: &Self| -> Vec<Option<crate::EventNid>> {
            state.0.values().map(|value| value.as_ref().map(|known| known.nid)).collect()
        };
        self.0.len() == other.0.len() && self.0.keys().eq(other.0.keys()) && nids(self) == nids(other)
    }
}

impl Difference {
    /// Says what a key holds.
    pub fn set(&mut self, current: &CurrentState, key: Key, value: Option<Known>) {
        let held = current.get(&key.0, &key.1).map(|held| held.numbers.nid);
        match held == value.as_ref().map(|known| known.nid) {
            true => _ = self.0.remove(&key),
            false => _ = self.0.insert(key, value),
        }
    }

    /// What a key holds in this state.
    pub fn get(&self, current: &CurrentState, event_type: &StateEventType, state_key: &str) -> Option<Known> {
        // The keys of few differences: comparing them is cheaper than making one to look up.
        let differing = self.0.iter().find(|(key, _)| key.0 == *event_type && key.1 == state_key);
        match differing {
            Some((_, value)) => value.clone(),
            None => current
                .get(event_type, state_key)
                .map(|held| Known { pdu: held.pdu.clone(), nid: held.numbers.nid }),
        }
    }

    /// [`Difference::get`] for the authorization rules.
    pub fn pdu(
        &self,
        current: &CurrentState,
        event_type: &StateEventType,
        state_key: &str,
    ) -> Option<Arc<Pdu>> {
        match self.0.is_empty() {
            true => current.pdu(event_type, state_key).cloned(),
            false => self.get(current, event_type, state_key).map(|known| known.pdu),
        }
    }

    /// Puts a state event in its place.
    pub fn apply(&mut self, current: &CurrentState, event: &Known) {
        if let Some(key) = event.pdu.state_map_key() {
            self.set(current, key, Some(event.clone()));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, Option<&Known>)> {
        self.0.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// The keys in which some of the states differ from one another.
    pub fn conflicting_keys(states: &[Self]) -> BTreeSet<Key> {
        let all: BTreeSet<&Key> = states.iter().flat_map(Self::keys).collect();
        let nid =
            |state: &Self, key: &Key| state.0.get(key).map(|value| value.as_ref().map(|known| known.nid));
        let is_conflicting =
            |key: &&Key| states.windows(2).any(|pair| nid(&pair[0], key) != nid(&pair[1], key));
        all.into_iter().filter(is_conflicting).cloned().collect()
    }
}
