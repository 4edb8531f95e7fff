//! The three checks of the authorization rules.

use std::sync::Arc;

use myelin_events::{Pdu, auth};
use ruma::{EventId, events::StateEventType};

use super::Received;
use crate::{history::Difference, resident::Resident};

/// Checks an event by its auth events, which `fetch` finds, by the state before it, and by the current state.
pub(super) fn authorize(
    room: &Resident,
    pdu: &Pdu,
    before: &Difference,
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Received {
    let outcome = authorize_by_past(room, pdu, before, fetch);
    if outcome != Received::Accepted || before.is_empty() {
        return outcome;
    }
    let current = |event_type: &StateEventType, state_key: &str| room.pdu(event_type, state_key).cloned();
    match auth::check_against_state(pdu, current) {
        Ok(()) => Received::Accepted,
        Err(_) => Received::SoftFailed,
    }
}

/// The first two of the checks.
pub(crate) fn authorize_by_past(
    room: &Resident,
    pdu: &Pdu,
    before: &Difference,
    fetch: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Received {
    if let Err(error) = auth::check_auth_events(pdu, fetch) {
        return Received::Rejected(format!("by its auth events: {error}"));
    }
    let state = |event_type: &StateEventType, state_key: &str| before.pdu(&room.state, event_type, state_key);
    match auth::check_against_state(pdu, state) {
        Ok(()) => Received::Accepted,
        Err(error) => Received::Rejected(format!("by the state before it: {error}")),
    }
}
