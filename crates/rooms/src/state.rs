//! A room's current state in memory.

use std::{collections::HashMap, sync::Arc};

use myelin_events::Pdu;
use ruma::events::StateEventType;

use crate::stream::{StateChange, StateNumbers};

/// What holds a key of the state.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub pdu: Arc<Pdu>,
    pub numbers: StateNumbers,
}

/// The resolved state of a room's forward extremities, by type and key.
#[derive(Debug, Default)]
pub(crate) struct CurrentState {
    by_type: HashMap<StateEventType, HashMap<Box<str>, Held>>,
    size_bytes: usize,
}

/// About what an entry takes beside its event.
const ENTRY_BYTES: usize = 128;

impl CurrentState {
    pub fn get(&self, event_type: &StateEventType, state_key: &str) -> Option<&Held> {
        self.by_type.get(event_type)?.get(state_key)
    }

    pub fn pdu(&self, event_type: &StateEventType, state_key: &str) -> Option<&Arc<Pdu>> {
        self.get(event_type, state_key).map(|held| &held.pdu)
    }

    /// Puts a state event in its place; gives what was there. Events without a state key change nothing.
    pub fn set(&mut self, held: Held) -> Option<Held> {
        let state_key = held.pdu.state_key()?;
        self.size_bytes += held.pdu.size_bytes() + ENTRY_BYTES;
        let of_type = self.by_type.entry(held.pdu.event_type().to_string().into()).or_default();
        let old = of_type.insert(state_key.into(), held);
        self.size_bytes -= old.as_ref().map_or(0, |old| old.pdu.size_bytes() + ENTRY_BYTES);
        old
    }

    pub fn remove(&mut self, event_type: &StateEventType, state_key: &str) -> Option<Held> {
        let old = self.by_type.get_mut(event_type)?.remove(state_key)?;
        self.size_bytes -= old.pdu.size_bytes() + ENTRY_BYTES;
        Some(old)
    }

    /// Makes a change that was written.
    pub fn change(&mut self, change: &StateChange) {
        match &change.event {
            Some(pdu) => _ = self.set(Held { pdu: pdu.clone(), numbers: change.numbers }),
            None => _ = self.remove(&change.event_type, &change.state_key),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&StateEventType, &str, &Held)> {
        self.by_type.iter().flat_map(|(event_type, of_type)| {
            of_type.iter().map(move |(state_key, held)| (event_type, &**state_key, held))
        })
    }

    /// The keys of one type.
    pub fn of_type(&self, event_type: &StateEventType) -> impl Iterator<Item = (&str, &Held)> {
        self.by_type.get(event_type).into_iter().flatten().map(|(state_key, held)| (&**state_key, held))
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}
