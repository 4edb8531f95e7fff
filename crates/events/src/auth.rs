//! The [authorization rules](https://spec.matrix.org/v1.19/server-server-api/#authorisation-rules): which events
//! authorize an event, and whether they do.
//!
//! Check an event of another server against its own `auth_events` ([`check_auth_events`]), then the state before it,
//! then the current state (both [`check_against_state`]); an event of our own against the state it is put behind.

use std::sync::Arc;

use ruma::{
    EventId, UserId,
    events::{StateEventType, TimelineEventType},
    state_res,
};
use serde_json::value::RawValue;

use crate::{Pdu, Rules, state_res::StateMap};

/// Why the rules don't allow an event; the message is for logs and for the local user who tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAllowed(pub String);

/// The keys of the state that authorizes an event
/// ([selection](https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection)).
///
/// # Errors
///
/// If the content of an `m.room.member` event is not what the rules need to read.
pub fn auth_keys(
    event_type: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    rules: Rules,
) -> Result<Vec<(StateEventType, String)>, NotAllowed> {
    state_res::auth_types_for_event(event_type, sender, state_key, content, &rules.authorization)
        .map_err(NotAllowed)
}

/// The events of the state that go into the `auth_events` of a new event.
///
/// # Errors
///
/// If the template breaks the rules so that they select nothing for it, as a membership without one does.
pub fn auth_events_for<E>(
    template: &crate::EventTemplate,
    rules: Rules,
    state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<Vec<E>, NotAllowed> {
    let keys = auth_keys(
        &template.event_type,
        &template.sender,
        template.state_key.as_deref(),
        &template.content,
        rules,
    )?;
    Ok(keys.iter().filter_map(|(event_type, state_key)| state(event_type, state_key)).collect())
}

/// Checks an event by its own `auth_events`: that they are the right ones, none of them rejected, and that they allow
/// it. `fetch` must find them, and the `m.room.create` event in room version 12.
///
/// An event that fails is *rejected*.
///
/// # Errors
///
/// With the rule that it breaks.
pub fn check_auth_events(pdu: &Pdu, fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>) -> Result<(), NotAllowed> {
    let rules = &pdu.rules().authorization;
    state_res::check_state_independent_auth_rules(rules, pdu, &fetch).map_err(NotAllowed)?;
    let mut state: StateMap<Arc<Pdu>> = pdu
        .auth_events()
        .iter()
        .filter_map(|id| fetch(id))
        .filter_map(|event| Some((event.state_map_key()?, event)))
        .collect();
    if rules.room_create_event_id_as_room_id
        && let Some(create) = create_event_id(pdu).and_then(|id| fetch(&id))
    {
        state.insert((StateEventType::RoomCreate, String::new()), create);
    }
    check_against_state(pdu, |event_type, state_key| {
        state.get(&(event_type.clone(), state_key.to_owned())).cloned()
    })
}

/// Checks an event by a state of its room.
///
/// An event that fails by the state before it is *rejected*; one that fails by the current state only is
/// [*soft-failed*](https://spec.matrix.org/v1.19/server-server-api/#soft-failure).
///
/// # Errors
///
/// With the rule that it breaks.
pub fn check_against_state(
    pdu: &Pdu,
    state: impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>>,
) -> Result<(), NotAllowed> {
    state_res::check_state_dependent_auth_rules(&pdu.rules().authorization, pdu, state).map_err(NotAllowed)
}

/// The id of the `m.room.create` event that the room id of room version 12 implies; `None` in older versions.
pub fn create_event_id(pdu: &Pdu) -> Option<ruma::OwnedEventId> {
    if !pdu.rules().authorization.room_create_event_id_as_room_id {
        return None;
    }
    EventId::parse(format!("${}", pdu.room_id().strip_sigil())).ok()
}

#[cfg(test)]
mod tests;
