//! The rows of the events stream: everything that readers learn of the rooms.

use std::sync::Arc;

use myelin_events::{Pdu, RelatesTo};
pub use myelin_push::PushOutcome;
use myelin_storage::{state::Delta, strings::StringId};
use myelin_types::StreamId;
use ruma::{
    OwnedDeviceId, OwnedEventId, OwnedRoomAliasId, OwnedTransactionId, OwnedUserId, RoomVersionId,
    events::StateEventType,
};
use serde::{Deserialize, Serialize};

use crate::RequestId;

mod persist;
mod since;
mod wire;

pub(crate) use self::since::stored;

/// The events stream: its rows are [`EventRow`]s.
#[derive(Debug)]
pub struct EventStream;

/// A room's number in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoomNid(pub i64);

/// An event's number in the database. It says nothing about order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventNid(pub i64);

/// An event that was committed, with what it did.
///
/// Feeds that catch up from the database are only given rows of the timeline.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// The room.
    pub room_nid: RoomNid,
    /// The event's number.
    pub nid: EventNid,
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
    /// What only the writer needs.
    pub(crate) writing: Writing,
}

/// What is written to the database beside the public part of a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writing {
    pub sender_sid: StringId,
    pub type_sid: StringId,
    pub key_sid: Option<StringId>,
    /// See [`myelin_storage::events::flags`].
    pub flags: i16,
    /// The forward extremities after the event, where they are not just this event.
    pub heads: Option<Vec<OwnedEventId>>,
    pub before: StateBefore,
    /// The `prev_events` that are not here.
    pub missing_prevs: Vec<OwnedEventId>,
    /// Others came after it already: it was one of their missing `prev_events`.
    pub closes_gap: bool,
    /// It is stored already, as an outlier.
    pub is_promoted: bool,
    /// The room begins with this row.
    pub new_room: Option<Box<NewRoom>>,
    /// It is a redaction whose target is not here.
    pub awaits_target: bool,
    /// The redaction that waited for it and took its content.
    pub redacted_by: Option<EventNid>,
}

/// Where the state before an event is told from.
#[derive(Clone, Debug, Default)]
pub(crate) enum StateBefore {
    /// The room's current state, just before the event.
    #[default]
    Current,
    /// It is an outlier: nobody knows.
    Unknown,
    /// The mainline at a position, with changes.
    Mainline { base: Base, delta: Option<DeltaRef> },
}

/// A position that may not be known before the row is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Base {
    /// A position of the past.
    At(StreamId),
    /// Just before the row.
    BeforeRow,
    /// The row's own: what changed with it counts.
    Row,
}

#[derive(Clone, Debug)]
pub(crate) enum DeltaRef {
    /// One that is stored.
    Stored(i64),
    /// One to be stored under the number of the event.
    New(Arc<Delta>),
}

#[derive(Clone, Debug)]
pub(crate) struct NewRoom {
    pub room_version: RoomVersionId,
    pub is_public: bool,
    pub alias: Option<(OwnedRoomAliasId, OwnedUserId)>,
    pub request: Option<RequestId>,
}

impl EventRow {
    /// A row that says nothing but that there is this event; the other fields are the caller's to fill.
    pub fn new(room_nid: RoomNid, nid: EventNid, pdu: Arc<Pdu>) -> Self {
        Self {
            room_nid,
            nid,
            pdu,
            timeline: true,
            state_changes: Vec::new(),
            push: PushOutcome::default(),
            thread_id: None,
            relation: None,
            sent_by: None,
            redacts: None,
            writing: Writing::default(),
        }
    }
}

/// A key of the room's current state that now has another value
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#types-of-room-events)).
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
    /// The number of `event`, and its strings.
    pub(crate) numbers: StateNumbers,
}

/// The numbers of a key of a state and of the event that holds it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StateNumbers {
    pub nid: EventNid,
    pub type_sid: StringId,
    pub key_sid: StringId,
    pub sender_sid: StringId,
}

impl StateChange {
    /// A change of the key of these state events.
    pub fn new(
        event_type: StateEventType,
        state_key: &str,
        event: Option<Arc<Pdu>>,
        replaced: Option<Arc<Pdu>>,
    ) -> Self {
        Self { event_type, state_key: state_key.into(), event, replaced, numbers: StateNumbers::default() }
    }
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

impl Relation {
    /// The relation of an event, if it has one.
    pub(crate) fn of(pdu: &Pdu) -> Option<Self> {
        let relation = RelatesTo::of(pdu).relation?;
        // An index of relations that nobody asks for by such a name; and indexes have a limit.
        let fits = |text: &str| text.len() <= 255;
        let key = relation.key.filter(|key| fits(key)).map(Into::into);
        fits(&relation.rel_type).then(|| Self {
            event_id: relation.event_id,
            rel_type: relation.rel_type.into(),
            key,
        })
    }
}

/// An event that lost its content to a redaction ([spec](https://spec.matrix.org/v1.19/client-server-api/#redactions)).
#[derive(Clone, Debug)]
pub struct Redacted {
    /// The event in its redacted form, which is all that is kept of it.
    pub pdu: Arc<Pdu>,
    /// Its number.
    pub nid: EventNid,
    /// The event that it pointed at: it does not count there any more.
    pub parent_id: Option<OwnedEventId>,
}
