//! [`Pdu`]: one event, immutable, as it is stored and shared.

use std::{fmt, ops::Range, sync::OnceLock};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UInt,
    UserId,
    events::{StateEventType, TimelineEventType},
    state_res::Event,
};
use serde_json::value::RawValue;

use crate::{
    Rules,
    canonical::{self, EventObject, NotCanonical},
    limits::MAX_CANONICAL_INTEGER,
};

mod event_id;
mod parse;
mod power_level_floats;

pub(crate) use self::event_id::encode_reference_hash;
pub use self::event_id::event_id_of;
use self::parse::{RawPdu, References};

/// Text that is no event of its room version; the message says what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed event: {0}")]
pub struct MalformedEvent(pub(crate) String);

impl From<NotCanonical> for MalformedEvent {
    fn from(error: NotCanonical) -> Self {
        Self(error.to_string())
    }
}

/// An event of a room ([spec](https://spec.matrix.org/v1.19/server-server-api/#pdus)), parsed and immutable.
///
/// It holds the signed JSON once, in canonical form, and points into it: parsing an event copies its identifiers
/// and nothing else. `prev_events` and `auth_events` are parsed when they are first asked for, since nothing that
/// `/sync` does needs them. Share it as `Arc<Pdu>`.
pub struct Pdu {
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    event_type: TimelineEventType,
    state_key: Option<Box<str>>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: u64,
    redacts: Option<OwnedEventId>,
    rejected: bool,
    rules: Rules,
    /// The whole event as canonical JSON.
    json: Box<str>,
    /// Where `content` stands in `json`.
    content: Range<u32>,
    /// Where `prev_events` stands in `json`.
    prev_events: Range<u32>,
    /// Where `auth_events` stands in `json`.
    auth_events: Range<u32>,
    parsed_references: OnceLock<ParsedReferences>,
    auth_content: OnceLock<Box<RawValue>>,
}

struct ParsedReferences {
    prev_events: Box<[OwnedEventId]>,
    auth_events: Box<[OwnedEventId]>,
}

impl Pdu {
    /// Reads an event as it was stored: [`Pdu::json`] of one that this crate built or checked, next to its ids.
    ///
    /// # Errors
    ///
    /// If the text is not an event, or belongs to another room.
    pub fn from_stored(
        room_id: OwnedRoomId,
        event_id: OwnedEventId,
        json: impl Into<Box<str>>,
        rules: Rules,
    ) -> Result<Self, MalformedEvent> {
        let json = json.into();
        let raw = RawPdu::parse(&json)?;
        match &raw.room_id {
            Some(stored) if stored.as_str() != room_id.as_str() => {
                return Err(MalformedEvent(format!(
                    "the event belongs to {}, not {room_id}",
                    stored.as_str()
                )));
            }
            None if rules.event_format.require_room_create_room_id => {
                return Err(MalformedEvent("missing field `room_id`".to_owned()));
            }
            _ => {}
        }
        let sender = UserId::parse(raw.sender.as_str()).map_err(|error| invalid("sender", &error))?;
        let redacts = redacted_event(&raw, rules);
        let state_key = raw.state_key.as_ref().map(|key| Box::from(key.as_str()));
        let range = |part: &RawValue| {
            let start = part.get().as_ptr().addr() - json.as_ptr().addr();
            let end = start + part.get().len();
            match (u32::try_from(start), u32::try_from(end)) {
                (Ok(start), Ok(end)) => Ok(start..end),
                _ => Err(MalformedEvent("larger than 4 GiB".to_owned())),
            }
        };
        Ok(Self {
            event_id,
            room_id,
            sender,
            event_type: raw.event_type.as_str().into(),
            state_key,
            origin_server_ts: MilliSecondsSinceUnixEpoch(
                UInt::try_from(raw.origin_server_ts.0.min(MAX_CANONICAL_INTEGER)).unwrap_or(UInt::MAX),
            ),
            depth: raw.depth.0,
            redacts,
            rejected: false,
            rules,
            content: range(raw.content)?,
            prev_events: range(raw.prev_events)?,
            auth_events: range(raw.auth_events)?,
            json,
            parsed_references: OnceLock::new(),
            auth_content: OnceLock::new(),
        })
    }

    /// Reads an event whose id is not known: computes it, or takes it from the event in room versions 1 and 2.
    ///
    /// Checks neither limits nor signatures; events of other servers go through
    /// [`UnverifiedPdu`](crate::receive::UnverifiedPdu).
    ///
    /// # Errors
    ///
    /// With what is missing, or is of another form than the room version wants.
    pub fn parse(json: &str, rules: Rules) -> Result<Self, MalformedEvent> {
        let object = EventObject::parse(json, rules)?;
        let signed_json = object.to_signed_json(&rules.redaction)?;
        Self::from_object(&object, &signed_json, rules)
    }

    /// The event of this tree, of which `signed_json` is what [`EventObject::to_signed_json`] gave.
    pub(crate) fn from_object(
        object: &EventObject,
        signed_json: &str,
        rules: Rules,
    ) -> Result<Self, MalformedEvent> {
        let event_id = event_id::event_id(object, signed_json, rules)?;
        let room_id = event_id::room_id(object, &event_id, rules)?;
        Self::from_stored(room_id, event_id, object.to_json(), rules)
    }

    /// This event, marked as (not) having been rejected: such an event authorizes nothing.
    #[must_use]
    pub fn with_rejected(mut self, rejected: bool) -> Self {
        self.rejected = rejected;
        self
    }

    /// The id of this event.
    pub fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    /// The room of this event; also known for the `m.room.create` event of room version 12, which doesn't state it.
    pub fn room_id(&self) -> &OwnedRoomId {
        &self.room_id
    }

    /// The user who sent this event.
    pub fn sender(&self) -> &OwnedUserId {
        &self.sender
    }

    /// The server of the sender, which created and signed this event.
    pub fn origin(&self) -> &ServerName {
        self.sender.server_name()
    }

    /// The `type` of this event.
    pub fn event_type(&self) -> &TimelineEventType {
        &self.event_type
    }

    /// The state key, which makes this a state event.
    pub fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    /// Whether this is a state event.
    pub fn is_state(&self) -> bool {
        self.state_key.is_some()
    }

    /// Whether this is the state event of this type and key.
    pub(crate) fn is_state_of(&self, event_type: &TimelineEventType, state_key: &str) -> bool {
        self.state_key() == Some(state_key) && self.event_type == *event_type
    }

    /// The key of this event in a [`StateMap`](crate::state_res::StateMap), if it is a state event.
    pub fn state_map_key(&self) -> Option<(StateEventType, String)> {
        let state_key = self.state_key()?;
        Some((self.event_type.to_string().into(), state_key.to_owned()))
    }

    /// When the sender's server says that it made this event.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    /// How far this event is from the start of the room, as its server says.
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// The event that this `m.room.redaction` event redacts, from where its room version keeps it.
    pub fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    /// Whether this event failed authorization when it was received.
    pub fn is_rejected(&self) -> bool {
        self.rejected
    }

    /// The rules of this event's room version.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// The whole event, signed, as canonical JSON: what is stored, and what goes to other servers.
    ///
    /// It has no `unsigned`, and `event_id` only in room versions 1 and 2.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The `content` as canonical JSON.
    pub fn content(&self) -> &str {
        self.slice(&self.content)
    }

    /// Reads `content` as a type of the caller, borrowing from this event where the type does.
    ///
    /// # Errors
    ///
    /// If the content is not of that type: anybody can send anything.
    pub fn content_as<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.content())
    }

    /// The events before this one.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.references().prev_events
    }

    /// The events that authorize this one. Room version 12 leaves `m.room.create` out.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.references().auth_events
    }

    /// The [reference hash](https://spec.matrix.org/v1.19/server-server-api/#calculating-the-reference-hash-for-an-event)
    /// in unpadded base64, as `prev_events` of room versions 1 and 2 name it next to the event id.
    ///
    /// # Errors
    ///
    /// If the stored event breaks the rules of its room version, which no event does that was built or checked here.
    pub(crate) fn reference_hash(&self) -> Result<String, MalformedEvent> {
        let signed_json = self.object()?.to_signed_json(&self.rules.redaction)?;
        Ok(encode_reference_hash(&canonical::reference_hash(&signed_json), self.rules))
    }

    /// About how much memory this event takes, for caches that are bounded by bytes.
    pub fn size_bytes(&self) -> usize {
        const ARC_OVERHEAD: usize = 16;
        size_of::<Self>()
            + self.json.len()
            + self.event_id.as_bytes().len()
            + self.sender.as_bytes().len()
            + self.state_key.as_ref().map_or(0, |key| key.len())
            + 2 * ARC_OVERHEAD
    }

    /// The event as a tree. Reading a stored event skips what it doesn't use, so this may be the first to see a fault.
    pub(crate) fn object(&self) -> Result<EventObject, MalformedEvent> {
        Ok(EventObject::parse(&self.json, self.rules)?)
    }

    fn slice(&self, range: &Range<u32>) -> &str {
        &self.json[range.start as usize..range.end as usize]
    }

    fn references(&self) -> &ParsedReferences {
        self.parsed_references.get_or_init(|| {
            let parse =
                |range| References::parse(self.slice(range)).expect("references were checked when parsing");
            ParsedReferences { prev_events: parse(&self.prev_events), auth_events: parse(&self.auth_events) }
        })
    }
}

/// The event that a redaction names. What is there but no event id redacts nothing.
fn redacted_event(raw: &RawPdu<'_>, rules: Rules) -> Option<OwnedEventId> {
    if raw.event_type.as_str() != "m.room.redaction" {
        return None;
    }
    if rules.redaction.content_field_redacts {
        #[derive(serde::Deserialize)]
        struct RedactionContent {
            redacts: OwnedEventId,
        }
        serde_json::from_str::<RedactionContent>(raw.content.get()).ok().map(|content| content.redacts)
    } else {
        EventId::parse(raw.redacts.as_ref()?.as_str()).ok()
    }
}

fn invalid(field: &str, error: &dyn fmt::Display) -> MalformedEvent {
    MalformedEvent(format!("invalid `{field}`: {error}"))
}

impl fmt::Debug for Pdu {
    /// Without the content, which is nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pdu")
            .field("event_id", &self.event_id)
            .field("room_id", &self.room_id)
            .field("type", &self.event_type)
            .field("state_key", &self.state_key)
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

/// How ruma's authorization rules and state resolution see an event.
impl Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    /// `None` for the `m.room.create` event of room version 12: the rules require that it states no room.
    fn room_id(&self) -> Option<&RoomId> {
        let is_stated = self.rules.event_format.require_room_create_room_id
            || self.event_type != TimelineEventType::RoomCreate;
        is_stated.then_some(&*self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.event_type
    }

    /// The content as the authorization rules read it: without floats, see the module `power_level_floats`.
    fn content(&self) -> &RawValue {
        self.auth_content.get_or_init(|| {
            let content = RawValue::from_string(self.content().to_owned()).expect("content is JSON");
            let may_have_floats = self.event_type == TimelineEventType::RoomPowerLevels
                && !self.rules.authorization.strict_canonical_json;
            if may_have_floats { power_level_floats::truncate(content) } else { content }
        })
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events().iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events().iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

#[cfg(test)]
mod tests;
