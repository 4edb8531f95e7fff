//! The rows of the events stream: everything that readers learn of the rooms.

use std::sync::Arc;

use myelin_events::Pdu;
pub use myelin_push::PushOutcome;
use ruma::{OwnedDeviceId, OwnedEventId, OwnedTransactionId, events::StateEventType};
use serde::{Deserialize, Serialize};

/// A room's number in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoomNid(pub i64);

/// An event that was committed, with what it did.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// The room.
    pub room_nid: RoomNid,
    /// The event.
    pub pdu: Arc<Pdu>,
    /// Part of the room's timeline at the row's id. Not so: outliers, rejected events, and events that failed
    /// [authorization against the current state](https://spec.matrix.org/v1.19/server-server-api/#soft-failure).
    pub timeline: bool,
    /// What became of the room's current state: for most state events, that event itself.
    pub state_changes: Vec<StateChange>,
    /// What it means for the members' unread counts.
    pub push: PushOutcome,
    /// The root of the thread that it is part of.
    pub thread_id: Option<OwnedEventId>,
    /// The event that it points at.
    pub relation: Option<Relation>,
    /// The local device and the transaction id that it was sent with; that device alone is told.
    pub sent_by: Option<(OwnedDeviceId, OwnedTransactionId)>,
    /// The event whose content this redaction took away.
    pub redacts: Option<Redacted>,
}

/// A key of the room's current state that now has another value.
#[derive(Clone, Debug)]
pub struct StateChange {
    /// The type of the key.
    pub event_type: StateEventType,
    /// The state key.
    pub state_key: Box<str>,
    /// What holds now; `None`: nothing, state resolution took the key away.
    pub event: Option<Arc<Pdu>>,
    /// What held before: the source of `prev_content` and `replaces_state`.
    pub replaced: Option<Arc<Pdu>>,
}

/// Where an event points at ([spec](https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// The event that it points at.
    pub event_id: OwnedEventId,
    /// How: `m.thread`, `m.replace`, `m.annotation`, `m.reference`, …
    pub rel_type: Box<str>,
    /// The `key` of an annotation.
    pub key: Option<Box<str>>,
}

/// An event that lost its content to a redaction.
#[derive(Clone, Debug)]
pub struct Redacted {
    /// The event in its redacted form, which is all that is kept of it.
    pub pdu: Arc<Pdu>,
}
