//! Rows as they travel between processes.
//!
//! An event is its ids, its room version and its JSON; what only the writer needs stays with the writer.

use std::sync::Arc;

use myelin_events::{Pdu, Rules, SUPPORTED_ROOM_VERSIONS, rules};
use ruma::{
    OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedTransactionId, RoomVersionId, events::StateEventType,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use serde_json::value::RawValue;

use super::{
    EventNid, EventRow, PushOutcome, Redacted, Relation, RoomNid, StateChange, StateNumbers, Writing,
};

#[derive(Serialize, Deserialize)]
struct WireRow {
    room: RoomNid,
    nid: EventNid,
    room_id: OwnedRoomId,
    version: RoomVersionId,
    event: WireEvent,
    timeline: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    state: Vec<WireChange>,
    #[serde(default)]
    push: PushOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    thread: Option<OwnedEventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relation: Option<Relation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent_by: Option<(OwnedDeviceId, OwnedTransactionId)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redacts: Option<WireRedacted>,
}

#[derive(Serialize, Deserialize)]
struct WireEvent {
    id: OwnedEventId,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    rejected: bool,
    /// As it is: parsed where it is wanted, and not escaped.
    json: Box<RawValue>,
}

/// Most changes are the event of the row itself, which is not written twice.
#[derive(Serialize, Deserialize)]
struct WireChange {
    #[serde(rename = "type")]
    event_type: StateEventType,
    key: Box<str>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    own: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<WireEvent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaced: Option<WireEvent>,
}

#[derive(Serialize, Deserialize)]
struct WireRedacted {
    event: WireEvent,
    nid: EventNid,
    parent: Option<OwnedEventId>,
}

/// The room version whose rules these are.
pub(crate) fn version_of(of: Rules) -> Option<&'static RoomVersionId> {
    SUPPORTED_ROOM_VERSIONS
        .iter()
        .position(|version| rules(version).is_some_and(|rules| std::ptr::eq(rules, of)))
        .map(|index| &VERSIONS[index])
}

static VERSIONS: [RoomVersionId; SUPPORTED_ROOM_VERSIONS.len()] = SUPPORTED_ROOM_VERSIONS;

impl WireEvent {
    fn of<E: serde::ser::Error>(pdu: &Pdu) -> Result<Self, E> {
        let json = RawValue::from_string(pdu.json().to_owned()).map_err(E::custom)?;
        Ok(Self { id: pdu.event_id().clone(), rejected: pdu.is_rejected(), json })
    }

    fn read<E: serde::de::Error>(self, room_id: &OwnedRoomId, rules: Rules) -> Result<Arc<Pdu>, E> {
        let pdu = Pdu::from_stored(room_id.clone(), self.id, Box::<str>::from(self.json), rules)
            .map_err(E::custom)?;
        Ok(Arc::new(pdu.with_rejected(self.rejected)))
    }
}

impl Serialize for EventRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let version =
            version_of(self.pdu.rules()).ok_or_else(|| S::Error::custom("rules of no room version"))?;
        let is_own = |event: &Arc<Pdu>| event.event_id() == self.pdu.event_id();
        let change = |change: &StateChange| {
            let event = change.event.as_ref().filter(|event| !is_own(event));
            Ok(WireChange {
                event_type: change.event_type.clone(),
                key: change.state_key.clone(),
                own: change.event.as_ref().is_some_and(is_own),
                event: event.map(|event| WireEvent::of(event)).transpose()?,
                replaced: change.replaced.as_deref().map(WireEvent::of).transpose()?,
            })
        };
        let redacted = |redacted: &Redacted| {
            let event = WireEvent::of(&redacted.pdu)?;
            Ok(WireRedacted { event, nid: redacted.nid, parent: redacted.parent_id.clone() })
        };
        let row = WireRow {
            room: self.room_nid,
            nid: self.nid,
            room_id: self.pdu.room_id().clone(),
            version: version.clone(),
            event: WireEvent::of(&self.pdu)?,
            timeline: self.timeline,
            state: self.state_changes.iter().map(change).collect::<Result<_, S::Error>>()?,
            push: self.push.clone(),
            thread: self.thread_id.clone(),
            relation: self.relation.clone(),
            sent_by: self.sent_by.clone(),
            redacts: self.redacts.as_ref().map(redacted).transpose()?,
        };
        row.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EventRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let row = WireRow::deserialize(deserializer)?;
        let rules = rules(&row.version).ok_or_else(|| D::Error::custom("unknown room version"))?;
        let read = |event: WireEvent| event.read::<D::Error>(&row.room_id, rules);
        let pdu = read(row.event)?;
        let mut state_changes = Vec::with_capacity(row.state.len());
        for change in row.state {
            state_changes.push(StateChange {
                event: if change.own { Some(pdu.clone()) } else { change.event.map(read).transpose()? },
                replaced: change.replaced.map(read).transpose()?,
                event_type: change.event_type,
                state_key: change.key,
                numbers: StateNumbers::default(),
            });
        }
        let redacts = match row.redacts {
            Some(redacted) => {
                let WireRedacted { event, nid, parent } = redacted;
                Some(Redacted { pdu: read(event)?, nid, parent_id: parent })
            }
            None => None,
        };
        Ok(Self {
            room_nid: row.room,
            nid: row.nid,
            pdu,
            timeline: row.timeline,
            state_changes,
            push: row.push,
            thread_id: row.thread,
            relation: row.relation,
            sent_by: row.sent_by,
            redacts,
            writing: Writing::default(),
        })
    }
}
