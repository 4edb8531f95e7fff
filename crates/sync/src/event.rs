//! Events as they are kept for syncs: parsed once and with their JSON at hand.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use myelin_events::{ClientEvent, Pdu, Rules, Unsigned, member::membership_of};
use myelin_push::{PushBits, PushOutcome};
use myelin_replication::Stamped;
use myelin_rooms::{EventRow, StateChange};
use myelin_storage::{Result, StorageError, sync::TimelineRow};
use myelin_types::{StreamId, WriterId};
use ruma::{
    OwnedDeviceId, OwnedEventId, OwnedTransactionId, OwnedUserId, RoomId,
    events::room::member::MembershipState,
};

/// An event with the JSON that clients see, which is made when it is first asked for.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub pdu: Arc<Pdu>,
    json: OnceLock<ClientEvent>,
    membership: OnceLock<MembershipState>,
}

impl Rendered {
    pub fn new(pdu: Arc<Pdu>) -> Arc<Self> {
        Arc::new(Self { pdu, json: OnceLock::new(), membership: OnceLock::new() })
    }

    /// An event from the database.
    pub fn from_stored(room_id: &RoomId, rules: Rules, event_id: &str, json: String) -> Result<Arc<Self>> {
        let inconsistent = |what: &dyn std::fmt::Display| {
            StorageError::Inconsistent(format!("event {event_id} of {room_id}: {what}"))
        };
        let id = OwnedEventId::try_from(event_id).map_err(|error| inconsistent(&error))?;
        let pdu =
            Pdu::from_stored(room_id.to_owned(), id, json, rules).map_err(|error| inconsistent(&error))?;
        Ok(Self::new(Arc::new(pdu)))
    }

    pub fn json(&self) -> &ClientEvent {
        self.json.get_or_init(|| ClientEvent::new(&self.pdu))
    }

    /// Appends the event as part of a room's state.
    pub fn write_state(&self, out: &mut String, now: u64) {
        let unsigned = Unsigned { age: Some(Unsigned::age_of(&self.pdu, now)), ..Unsigned::default() };
        self.json().write(out, None, &unsigned);
    }

    /// The membership that it gives; `leave` if it is no member event.
    pub fn membership(&self) -> &MembershipState {
        self.membership.get_or_init(|| membership_of(Some(&self.pdu)))
    }

    pub fn size_bytes(&self) -> usize {
        self.pdu.size_bytes()
            + self.json.get().map_or(self.pdu.content().len() + 300, ClientEvent::size_bytes)
    }
}

/// The membership that an optional member event gives; without one, `leave`.
pub(crate) fn membership(event: Option<&Arc<Rendered>>) -> MembershipState {
    event.map_or(MembershipState::Leave, |event| event.membership().clone())
}

/// A key of the current state that an event gave another value.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub event_type: Box<str>,
    pub state_key: Box<str>,
    pub event: Option<Arc<Rendered>>,
    pub replaced: Option<Arc<Rendered>>,
}

impl Change {
    /// What holds now and what held before.
    fn events(&self) -> impl Iterator<Item = &Arc<Rendered>> {
        self.event.iter().chain(&self.replaced)
    }

    pub fn is_member(&self) -> bool {
        &*self.event_type == "m.room.member"
    }

    /// Whether it takes the user of its key into the room, or out of it.
    pub fn is_coming_or_going(&self) -> bool {
        self.is_member() && membership(self.event.as_ref()) != membership(self.replaced.as_ref())
    }
}

/// An event at its place in a room.
#[derive(Debug)]
pub(crate) struct RoomEvent {
    pub pos: StreamId,
    pub writer: WriterId,
    pub event: Arc<Rendered>,
    /// Part of the timeline.
    pub shown: bool,
    /// What it did to the current state.
    pub changes: Box<[Change]>,
    pub push: PushOutcome,
    pub thread_id: Option<OwnedEventId>,
    pub sent_by: Option<(OwnedDeviceId, OwnedTransactionId)>,
    /// The redaction, as JSON.
    pub redacted_because: Option<Box<str>>,
    /// Others relate to it.
    pub has_relations: AtomicBool,
}

impl RoomEvent {
    /// The event of a row of the stream.
    pub fn new(stamped: &Stamped<EventRow>) -> Self {
        let row = &stamped.row;
        let event = Rendered::new(row.pdu.clone());
        let changes = row.state_changes.iter().map(|change| rendered_change(change, &event)).collect();
        Self {
            pos: stamped.id,
            writer: stamped.writer,
            event,
            shown: row.timeline,
            changes,
            push: row.push.clone(),
            thread_id: row.thread_id.clone(),
            sent_by: row.sent_by.clone(),
            redacted_because: None,
            has_relations: AtomicBool::new(false),
        }
    }

    /// The event of a row of the database. `event` is the same as the row's.
    pub fn from_stored(
        row: TimelineRow,
        event: Arc<Rendered>,
        changes: Vec<Change>,
        redacted_because: Option<Box<str>>,
    ) -> Result<Self> {
        let exceptions = row.push_exceptions.map_or_else(|| Ok(Box::default()), |json| exceptions(&json))?;
        Ok(Self {
            pos: row.pos,
            writer: row.writer,
            event,
            shown: true,
            changes: changes.into(),
            push: PushOutcome { default: PushBits(row.push), exceptions },
            thread_id: row.thread_id.and_then(|id| id.try_into().ok()),
            sent_by: row.sent_by.map(|(device_id, txn_id)| (device_id.into(), txn_id.into())),
            redacted_because,
            has_relations: AtomicBool::new(row.has_relations),
        })
    }

    /// The same event without what `redaction` took away of `redacted`; `None` if it has nothing to do with that.
    pub fn redacted(&self, redacted: &Arc<Rendered>, redaction: &Rendered) -> Option<Self> {
        let is_it = |event: &Arc<Rendered>| event.pdu.event_id() == redacted.pdu.event_id();
        let is_concerned = is_it(&self.event) || self.changes.iter().any(|change| change.events().any(is_it));
        if !is_concerned {
            return None;
        }
        let redact = |event: &mut Option<Arc<Rendered>>| {
            if event.as_ref().is_some_and(is_it) {
                *event = Some(redacted.clone());
            }
        };
        let mut changes = self.changes.clone();
        for change in &mut changes {
            redact(&mut change.event);
            redact(&mut change.replaced);
        }
        let (event, redacted_because) = match is_it(&self.event) {
            true => {
                let because = redaction.json().to_json(None, &Unsigned::default());
                (redacted.clone(), Some(because.into()))
            }
            false => (self.event.clone(), self.redacted_because.clone()),
        };
        Some(Self {
            pos: self.pos,
            writer: self.writer,
            event,
            shown: self.shown,
            changes,
            push: self.push.clone(),
            thread_id: self.thread_id.clone(),
            sent_by: self.sent_by.clone(),
            redacted_because,
            has_relations: AtomicBool::new(self.has_relations.load(Ordering::Relaxed)),
        })
    }

    /// What held before, if this is a state event that took effect.
    pub fn replaced(&self) -> Option<&Arc<Rendered>> {
        let own = self.changes.iter().find(|change| {
            change.event.as_ref().is_some_and(|event| event.pdu.event_id() == self.event.pdu.event_id())
        });
        own.and_then(|change| change.replaced.as_ref())
    }

    /// What it made of a user's membership: before, and after.
    pub fn membership_change(&self, user_id: &str) -> Option<(MembershipState, MembershipState)> {
        let change =
            self.changes.iter().find(|change| change.is_member() && &*change.state_key == user_id)?;
        Some((membership(change.replaced.as_ref()), membership(change.event.as_ref())))
    }

    pub fn size_bytes(&self) -> usize {
        let exceptions = self.push.exceptions.len() * size_of::<(OwnedUserId, PushBits)>();
        let replaced = self.replaced().map_or(0, |replaced| replaced.size_bytes());
        size_of::<Self>() + self.event.size_bytes() + exceptions + replaced
    }
}

fn rendered_change(change: &StateChange, own: &Arc<Rendered>) -> Change {
    let event = change.event.as_ref().map(|pdu| {
        if pdu.event_id() == own.pdu.event_id() { own.clone() } else { Rendered::new(pdu.clone()) }
    });
    Change {
        event_type: change.event_type.to_string().into(),
        state_key: change.state_key.clone(),
        event,
        replaced: change.replaced.clone().map(Rendered::new),
    }
}

fn exceptions(json: &str) -> Result<Box<[(OwnedUserId, PushBits)]>> {
    let exceptions: HashMap<OwnedUserId, PushBits> =
        serde_json::from_str(json).map_err(|error| StorageError::Inconsistent(error.to_string()))?;
    let mut exceptions: Vec<_> = exceptions.into_iter().collect();
    exceptions.sort_unstable_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    Ok(exceptions.into())
}
